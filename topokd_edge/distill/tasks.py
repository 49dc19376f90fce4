"""What the trainer minimises: labels alone, or labels and teachers."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from topokd_edge.distill.inputs import Inputs
from topokd_edge.distill.losses import similarity_map, soft_cross_entropy
from topokd_edge.distill.method import Distilling, Strength, TeacherName
from topokd_edge.distill.mixup import Mix, draw_mix
from topokd_edge.distill.objective import Lesson, label_loss, map_loss, teacher_loss
from topokd_edge.distill.seen import Seen, Shown
from topokd_edge.distill.teacher import Teacher
from topokd_edge.models.wrn import WideResNet

Maps = list[Tensor]


class Question(NamedTuple):
    """What a task asks the network it trains about.

    `x` is the input, shape (rows, channels, ...); `look` is asked about the output of each stage.
    """

    x: Tensor
    look: Callable[[Tensor], Maps] | None = None


Answer = tuple[Tensor, list[Maps]]
"""Logits, shape (rows, classes), and what was seen of each stage where there was a look."""
Asking = Generator[Question, Answer, dict[str, Tensor]]
"""Asks the network once, and returns the named losses: many can be asked together, see `together`."""


def answer(model: WideResNet, question: Question) -> Answer:
    """Return what a network says."""
    x, look = question
    return (model(x), []) if look is None else model.observe(x, look)


def end(asking: Asking, said: Answer) -> dict[str, Tensor]:
    """Return the losses of a question that is answered."""
    try:
        asking.send(said)
    except StopIteration as stop:
        losses: dict[str, Tensor] = stop.value
        return losses
    raise RuntimeError("a task asked twice in a step")


@dataclass(frozen=True)
class LabelTask:
    """Learn the labels from one modality.

    Without mixup by default: teachers trained with it distil worse (Choi et al., MIX-KD, WACV 2023).
    """

    model: WideResNet
    inputs: Inputs
    y: Tensor
    mixup_alpha: float = 0.0
    shown: Shown | None = None
    """Makes what is learned from in place of the inputs; see `topokd_edge.distill.seen.Seen`."""

    def losses(self, batch: Tensor, rng: np.random.Generator) -> dict[str, Tensor]:
        """Return the cross entropy."""
        asking = self.ask(batch, rng)
        return end(asking, answer(self.model, next(asking)))

    def ask(self, batch: Tensor, rng: np.random.Generator) -> Asking:
        """Ask about a batch, and return the cross entropy of the answer."""
        x = self.inputs[batch].float() if self.shown is None else self.shown(batch, rng)
        if self.mixup_alpha == 0:
            logits, _ = yield Question(x)
            return {"loss": F.cross_entropy(logits.float(), self.y[batch])}
        mix = draw_mix(len(batch), self.mixup_alpha, 1.0, rng, batch.device)
        target = F.one_hot(self.y[batch], self.model.spec.classes).float()
        logits, _ = yield Question(mix(x))
        return {"loss": soft_cross_entropy(logits, mix(target))}


class DistillTask:
    """Learn from teachers and the labels; see `topokd_edge.distill.method.Distilling`.

    With different alphas or shares, each teacher has a mixed batch of its own, with its own pairs and
    coefficients; the student sees both in one pass and the cross entropy is their mean. Equal ones share one.

    Parameters
    ----------
    model
        The student.
    inputs, y
        Its input and the class of every window.
    teachers
        At least those that the settings name.
    settings
        Weights, temperature, alphas and the rest.
    seen
        What student and teachers are shown; None is `inputs`, and to the teachers their own.
    """

    def __init__(
        self,
        model: WideResNet,
        inputs: Inputs,
        y: Tensor,
        teachers: Mapping[TeacherName, Teacher],
        settings: Distilling,
        seen: Seen | None = None,
    ) -> None:
        self.model, self.inputs, self.y = model, inputs, y
        self._seen = Seen(inputs) if seen is None else seen
        self._teachers = {name: teachers[name] for name in settings.teachers}
        self._strengths = dict(zip(settings.teachers, settings.strengths(), strict=False))
        self._settings = settings
        self._one_hot = F.one_hot(y, model.spec.classes).float()
        self._adapted = {
            f"{field}_{name}": torch.tensor(value, device=y.device)
            for name, strength in self._strengths.items()
            for field, value in strength._asdict().items()
        }

    def losses(self, batch: Tensor, rng: np.random.Generator) -> dict[str, Tensor]:
        """Return the named losses of a batch, and the mean entropies of what is learned from.

        `cross_entropy`; per teacher `kl_<name>`, already times T^2; `similarity`; their weighted sum
        `loss`; `entropy_labels` after mixup and smoothing, and `entropy_<name>` of each softened answer;
        `alpha_<name>` and `share_<name>` where they are adaptive.
        """
        asking = self.ask(batch, rng)
        return end(asking, answer(self.model, next(asking)))

    def ask(self, batch: Tensor, rng: np.random.Generator) -> Asking:
        """Ask about all mixed batches in one pass, and return the losses of the answer; see `losses`."""
        settings = self._settings
        mixes = {
            strength: draw_mix(len(batch), *strength, rng, batch.device, draw=settings.mixup_draw)
            for strength in dict.fromkeys(settings.strengths())
        }
        windows = self._seen.windows(batch, rng)
        x = self._noisy(windows, rng)
        seen = {strength: mix(x) for strength, mix in mixes.items()}
        targets = {strength: mix(self._one_hot[batch]) for strength, mix in mixes.items()}
        said = yield self._question(seen)
        logits, maps = self._sorted(seen, said)
        found = label_loss(settings, torch.cat([*logits.values()]), torch.cat([*targets.values()]))
        lessons = {
            name: self._lesson(
                name, batch, mixes[mixed], self._changed(name, windows, x), targets[mixed], logits[mixed]
            )
            for name, mixed in self._strengths.items()
        }
        if lessons:
            found |= teacher_loss(settings, lessons)
            found["loss"] = (1 - settings.tau) * found["cross_entropy"] + settings.tau * found["teachers"]
        if settings.similarity and lessons:
            shared = {
                mixed: {name: lessons[name].maps for name in lessons if self._strengths[name] == mixed}
                for mixed in maps
            }
            found["similarity"] = map_loss(settings, [(maps[mixed], shared[mixed]) for mixed in maps])
            found["loss"] = found["loss"] + settings.similarity * found["similarity"]
        if settings.alpha == "adaptive":
            found |= self._adapted
        return found

    def _noisy(self, x: Tensor, rng: np.random.Generator) -> Tensor:
        if self._settings.input_noise == 0:
            return x
        noise = torch.from_numpy(rng.standard_normal(tuple(x.shape), dtype=np.float32))
        return x + self._settings.input_noise * noise.to(x.device)

    def _question(self, seen: Mapping[Strength, Tensor]) -> Question:
        together = self._seen.by_student(torch.cat([*seen.values()]))
        if not self._settings.similarity:
            return Question(together)
        sizes = [len(x) for x in seen.values()]
        return Question(
            together, lambda features: [similarity_map(part) for part in torch.split(features, sizes)]
        )

    def _sorted(
        self, seen: Mapping[Strength, Tensor], said: Answer
    ) -> tuple[dict[Strength, Tensor], dict[Strength, Maps]]:
        """Return the logits, and the maps of all stages, of each mixed batch."""
        logits, stages = said
        parts = torch.split(logits, [len(x) for x in seen.values()])
        maps = {mixed: [stage[place] for stage in stages] for place, mixed in enumerate(seen)}
        return dict(zip(seen, parts, strict=True)), maps if stages else {}

    def _changed(self, name: TeacherName, windows: Tensor, x: Tensor) -> Tensor | None:
        """Return what a teacher is shown, before it is mixed; None where that is its own inputs."""
        if name == "topology":
            return self._seen.images(windows)
        return x if self._settings.input_noise or self._seen.augment is not None else None

    def _lesson(
        self,
        name: TeacherName,
        batch: Tensor,
        mix: Mix,
        changed: Tensor | None,
        target: Tensor,
        student: Tensor,
    ) -> Lesson:
        """Ask a teacher about its mixed batch: logits, and maps where they are needed."""
        teacher, seen = self._teachers[name], None if changed is None else mix(changed)
        if not self._settings.similarity:
            return Lesson(teacher.logits(batch, mix, seen), target, student)
        logits, maps = teacher.logits_and_maps(batch, mix, seen)
        return Lesson(logits, target, student, maps)
