"""Several networks of one shape that learn at once: one step computes all of them.

A GPU is idle most of the time while a small network learns: each step is many small operations that wait
for the host. The convolutions of several networks side by side are one convolution in groups, and their
BatchNorms one BatchNorm of more channels, so they cost the host no more than those of one. Each network keeps
its own windows, mixup, statistics, gradients and optimiser, and ends as it would alone, within float error.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from topokd_edge.distill.distributed import several
from topokd_edge.distill.parts import Training
from topokd_edge.distill.tasks import Answer, Asking, Question, end
from topokd_edge.distill.trainer import Course, run_epoch
from topokd_edge.models.wrn import WideResNet
from topokd_edge.progress import Progress, silent


def pays(device: torch.device) -> bool:
    """Return whether networks had better learn together: on one GPU, not on a CPU, which is never idle."""
    return device.type == "cuda" and not several()


def train_together(
    courses: Sequence[Course], training: Training, *, progress: Progress = silent, name: str = "training"
) -> list[WideResNet]:
    """Finish several trainings at once, as `topokd_edge.distill.trainer.train` finishes one.

    Trainings that stand at different epochs, after an interruption, go on in as many parts.

    Parameters
    ----------
    courses
        Trainings of networks of one shape on equally many windows, all by `training`, whose tasks ask
        about equally many rows in each step.
    training
        Epochs, batch size and the rest.
    progress, name
        Where to tell about it, and under which name.

    Returns
    -------
    list of WideResNet
        The networks of the kept epochs, in evaluation mode.
    """
    for done, part in groupby(sorted(courses, key=_done), key=_done):
        learning = list(part)
        group = Group([course.task.model for course in learning])
        for course in learning:
            course.shares_storage = True
        step = partial(group.losses, [course.task for course in learning])
        for epoch in range(done, training.epochs):
            progress(f"{name}, {len(learning)} at once", epoch, training.epochs, learning[0].note())
            run_epoch(learning, step, time.perf_counter())
        progress(f"{name}, {len(learning)} at once", training.epochs, training.epochs, learning[0].note())
        group.part()
    return [course.finish() for course in courses]


class Group(WideResNet):
    """Several networks of one shape that are computed as one, on the same storage as each of them.

    Weights lie one network after the other along the first axis, channels of features side by side; the
    networks' own parameters, buffers and gradients are parts of them.
    """

    def __init__(self, models: Sequence[WideResNet]) -> None:
        super().__init__(models[0].spec)
        self._number, self._models = len(models), tuple(models)
        self.low_precision = models[0].low_precision
        for name, module in [*self.named_modules()]:
            if (grown := _grown(module, self._number)) is not None:
                self.set_submodule(name, grown)
        self.to(models[0].head.weight.device)
        for name, tensor in [*self.named_parameters(), *self.named_buffers()]:
            _share(tensor, [_part(model, name) for model in models])

    def part(self) -> None:
        """Give each network storage of its own again."""
        for model in self._models:
            for tensor in [*model.parameters(), *model.buffers()]:
                tensor.data, tensor.grad = tensor.data.clone(), None

    def losses(
        self, tasks: Sequence[Any], batches: Sequence[Tensor], rngs: Sequence[np.random.Generator]
    ) -> list[dict[str, Tensor]]:
        """Return the losses of every task, of its own batch; all are asked in one pass.

        Tasks are those of `topokd_edge.distill.tasks`.
        """
        self.train()
        asking: list[Asking] = [
            task.ask(batch, rng) for task, batch, rng in zip(tasks, batches, rngs, strict=True)
        ]
        said = self.answer([next(asked) for asked in asking])
        return [end(asked, answer) for asked, answer in zip(asking, said, strict=True)]

    def answer(self, questions: Sequence[Question]) -> list[Answer]:
        """Return what each network says to its question; all have equally many rows."""
        together = torch.cat([question.x for question in questions], 1)
        if any(question.look for question in questions):
            logits, stages = self.observe(together, lambda features: self._looks(questions, features))
        else:
            logits, stages = self(together), []
        seen = [[stage[place] for stage in stages] for place in range(self._number)]
        return [
            (logits[:, place], seen[place] if question.look else [])
            for place, question in enumerate(questions)
        ]

    def _looks(self, questions: Sequence[Question], features: Tensor) -> list[list[Tensor]]:
        parts = features.chunk(self._number, 1)
        return [
            question.look(part) if question.look else []
            for question, part in zip(questions, parts, strict=True)
        ]

    def _answer(self, x: Tensor) -> Tensor:
        pooled = self._pooled(x).view(len(x), self._number, -1)
        weight = self.head.weight.view(self._number, self.spec.classes, -1)
        return torch.einsum("bnf,ncf->bnc", pooled, weight) + self.head.bias.view(self._number, -1)


def _done(course: Course) -> int:
    return course.epochs_done


def _grown(module: nn.Module, number: int) -> nn.Module | None:
    """Return the layer for so many networks side by side; None for what is no layer."""
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        wide = number * module.in_channels, number * module.out_channels
        shape: Any = {"stride": module.stride, "padding": module.padding, "groups": number, "bias": False}
        return type(module)(*wide, module.kernel_size, **shape)  # type: ignore[arg-type]
    if isinstance(module, nn.BatchNorm2d):
        return nn.BatchNorm2d(number * module.num_features)
    if isinstance(module, nn.Linear):
        return nn.Linear(module.in_features, number * module.out_features)
    return None


def _part(model: WideResNet, name: str) -> Tensor:
    place, _, last = name.rpartition(".")
    tensor: Tensor = getattr(model.get_submodule(place), last)
    return tensor


def _share(whole: Tensor, parts: Sequence[Tensor]) -> None:
    """Give `whole` the values of `parts`, which become parts of its storage; so do gradients."""
    if whole.ndim == 0:  # how many batches a BatchNorm has seen, the same of all
        whole.data.copy_(parts[0].data)
        for part in parts:
            part.data = whole.data
        return
    whole.data = torch.cat([part.data for part in parts])
    if whole.requires_grad:
        whole.grad = torch.zeros_like(whole)
    for place, part in enumerate(parts):
        rows = slice(place * len(part), (place + 1) * len(part))
        part.data = whole.data[rows]
        if whole.grad is not None:
            part.grad = whole.grad[rows]
