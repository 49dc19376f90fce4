"""One outer fold with one seed: the teachers, the student from scratch, the distilled student."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from topokd_edge.data.split import Fold
from topokd_edge.data.windowset import WindowSet
from topokd_edge.distill.checkpoint import META, load_model, save_model
from topokd_edge.distill.confusion import adapt
from topokd_edge.distill.distributed import first_ahead
from topokd_edge.distill.inputs import Inputs, Residency
from topokd_edge.distill.method import Distilling, TeacherName
from topokd_edge.distill.parts import Network, Training
from topokd_edge.distill.preprocessing import Modalities, fit_and_apply
from topokd_edge.distill.recipe import Recipe
from topokd_edge.distill.seen import Seen, Shown, seen_in
from topokd_edge.distill.shared import network
from topokd_edge.distill.signatures import Logits, find_signatures
from topokd_edge.distill.tasks import DistillTask, LabelTask
from topokd_edge.distill.teacher import Teacher
from topokd_edge.distill.together import pays, train_together
from topokd_edge.distill.trainer import METRICS, Course, Subset, Task, predict, train
from topokd_edge.files import read_json, write_bytes, write_json
from topokd_edge.models.wrn import WideResNet, WRNSpec, count
from topokd_edge.progress import Progress
from topokd_edge.run import (
    DISTILLED_STUDENT,
    SCRATCH_STUDENT,
    SELECTION,
    TRAINED,
    FoldRun,
    Predictions,
)


def train_fold(
    place: FoldRun,
    windows: WindowSet,
    fold: Fold,
    recipe: Recipe,
    *,
    cache: Path,
    device: torch.device,
    progress: Progress,
    residency: Residency = "auto",
) -> None:
    """Train all models of one fold with one seed and write their held-out predictions.

    What is finished is kept, what was interrupted goes on; see `topokd_edge.distill.trainer.train`.

    Parameters
    ----------
    place
        Where the fold lies in the run; gives the seed.
    windows, fold, recipe
        What to train on, whom to leave out, and how.
    cache
        Folder for persistence images.
    device, progress
        Where to compute; where to tell.
    residency
        Whether signals and images may stay on disk; the result is the same.
    """
    trainer = prepare_fold(
        place, windows, fold, recipe, cache=cache, device=device, progress=progress, residency=residency
    )
    teachers = trainer.teachers()
    trainer.distil(teachers, trainer.from_scratch())


def prepare_fold(
    place: FoldRun,
    windows: WindowSet,
    fold: Fold,
    recipe: Recipe,
    *,
    cache: Path,
    device: torch.device,
    progress: Progress,
    residency: Residency = "auto",
) -> FoldTrainer:
    """Fit what the fit subjects decide before any training, and return the trainer of the fold's models.

    See `train_fold` for the parameters.
    """
    topology = recipe.topology if "topology" in recipe.student.needs() else None
    with first_ahead():  # who writes the images that the others read
        views, made = fit_and_apply(
            windows,
            fold,
            topology,
            cache,
            device,
            progress,
            residency,
            spread=recipe.scaling,
            per=recipe.normalisation,
            student=recipe.student.channels,
        )
    write_json(place.folder / "preprocessing.json", made)
    write_json(place.folder / "inputs.json", views.kept)
    seen = seen_in(recipe.augmentation, views.signals, made, windows.channels)
    return FoldTrainer(place, windows, fold, views, seen, recipe, progress)


@dataclass(frozen=True)
class FoldTrainer:
    """Trains the models of one fold on its views; a fold without test subjects predicts nothing."""

    place: FoldRun
    windows: WindowSet
    fold: Fold
    views: Modalities
    seen: Seen
    recipe: Recipe
    progress: Progress

    def teachers(self) -> dict[TeacherName, WideResNet]:
        """Train the teachers that the recipe needs."""
        needed = self.recipe.student.needs()
        return {name: self.teach(name) for name in get_args(TeacherName) if name in needed}

    def teach(self, name: TeacherName) -> WideResNet:
        """Train one teacher on labels, and predict the held-out windows."""
        member = self.recipe.signal_teacher if name == "signal" else self.recipe.topology_teacher
        seen = self.seen.under(member.training)
        shown = seen.to_signal_teacher() if name == "signal" else seen.to_topology_teacher()
        return self._on_labels(
            f"teacher.{name}", self._inputs(name), shown, member.network, member.training, member.mixup_alpha
        )

    def from_scratch(self) -> WideResNet:
        """Train the student on labels alone, and predict the held-out windows."""
        student = self.recipe.student
        shown = self.seen.under(student.scratch).to_student()
        return self._on_labels(SCRATCH_STUDENT, self.views.student, shown, student.network, student.scratch)

    def _on_labels(
        self,
        name: str,
        inputs: Inputs,
        shown: Shown | None,
        network: Network,
        training: Training,
        mixup_alpha: float = 0.0,
    ) -> WideResNet:
        """Train one network on labels, and predict the held-out windows."""
        spec = self._spec(network, inputs)
        task = LabelTask(self._fresh(name, spec), inputs, self.views.y, mixup_alpha, shown)
        model = self._train(self.place.model_folder(name), name, task, training)
        self._predict(name, model, inputs)
        return model

    def distil(self, teachers: Mapping[TeacherName, WideResNet], scratch: WideResNet) -> None:
        """Train every candidate student, keep the best, and predict."""
        if self.place.predictions_path(DISTILLED_STUDENT).is_file():
            return
        variants, confusion = adapt(
            self.recipe.student.variants(),
            {name: (model, self._inputs(name)) for name, model in teachers.items()},
            self._of(self.fold.validation),
            (self.place.seed, self.fold.fold),
        )
        asked = {name for settings in variants for name in settings.teachers}
        answering = {
            name: Teacher(model, self._inputs(name), self._subset().fit)
            for name, model in teachers.items()
            if name in asked
        }
        folders = [self._folder(index, settings) for index, settings in enumerate(variants)]
        training = self.recipe.student.distilled
        seen = self.seen.under(training)
        tasks = [
            DistillTask(
                self._start(settings, teachers, scratch),
                self.views.student, self.views.y, answering, settings, seen,
            )
            for settings in variants
        ]  # fmt: skip
        self._at_once(folders, tasks, variants, training)
        students, rows = [], []
        for index, (settings, folder) in enumerate(zip(variants, folders, strict=True)):
            students.append(self._train(folder, self._called(index), tasks[index], training))
            if self.recipe.student.keep == "all":
                self._predict(folder.name, students[-1], self.views.student)
            meta = read_json(folder / META)
            rows.append(
                {
                    "candidate": index + 1,
                    "validation_accuracy": meta["validation_accuracy"],
                    "epoch": meta["epoch"],
                    "settings": settings.model_dump(mode="json"),
                }
            )
        accuracies = [row["validation_accuracy"] for row in rows]
        best = accuracies.index(max(accuracies)) if len(rows) > 1 else 0
        signatures = self._signatures(teachers, scratch, list(zip(variants, students, strict=True)), best)
        self._keep(
            folders[best], best, {"candidates": rows, "confusion": confusion, "signatures": signatures}
        )

    def _at_once(
        self,
        folders: Sequence[Path],
        tasks: Sequence[Task],
        variants: Sequence[Distilling],
        training: Training,
    ) -> None:
        """Train candidates whose batches are equally large at once, where that pays."""
        if not pays(self.views.y.device):
            return
        alike: dict[int, list[Course]] = {}
        for index, (folder, task, settings) in enumerate(zip(folders, tasks, variants, strict=True)):
            if not (folder / META).is_file():
                course = Course(
                    task, self._subset(), training, seed=self.place.seed, folder=folder,
                    meta=self._meta(task), name=self._called(index),
                )  # fmt: skip
                alike.setdefault(len({*settings.strengths()}), []).append(course)
        name = f"fold {self.fold.fold}, {DISTILLED_STUDENT}"
        for courses in alike.values():
            if len(courses) > 1:
                train_together(courses, training, progress=self.progress, name=name)

    def go_on(
        self, student: WideResNet, settings: Distilling, training: Training, folder: Path
    ) -> WideResNet:
        """Train a student that was distilled already on, from labels and the fold's teachers."""
        teachers = {name: self.teach(name) for name in settings.teachers}
        fit = self._subset().fit
        answering = {name: Teacher(model, self._inputs(name), fit) for name, model in teachers.items()}
        task = DistillTask(
            student, self.views.student, self.views.y, answering, settings, self.seen.under(training)
        )
        return self._train(folder, folder.name, task, training)

    def _keep(self, folder: Path, best: int, found: dict[str, Any]) -> None:
        """Make the candidate in `folder` the distilled student of the fold; write what was found."""
        final = self.place.model_folder(DISTILLED_STUDENT)
        model, meta = load_model(folder)
        write_bytes(final / METRICS, (folder / METRICS).read_bytes())
        save_model(final, model, {key: value for key, value in meta.items() if key != "spec"})
        metas = {name: self.place.model_folder(name) / META for name in TRAINED}
        write_json(
            self.place.folder / SELECTION,
            {
                "chosen": best + 1,
                "on_subjects": list(self._choosing()),
                "optimistic": self.recipe.protocol == "paper",
                "epochs": {name: read_json(path)["epoch"] for name, path in metas.items() if path.is_file()},
                **found,
            },
        )
        self._predict(DISTILLED_STUDENT, model.to(self.views.y.device), self.views.student)

    def _signatures(
        self,
        teachers: Mapping[TeacherName, WideResNet],
        scratch: WideResNet,
        candidates: Sequence[tuple[Distilling, WideResNet]],
        best: int,
    ) -> list[dict[str, Any]]:
        """Look for known failures on the validation subjects; the published protocol has none."""
        if not self.fold.validation:
            return []
        judges = self._of(self.fold.validation)

        def say(model: WideResNet, inputs: Inputs) -> Logits:
            return predict(model, inputs, judges).cpu().numpy()

        found = find_signatures(
            self.views.y[judges].cpu().numpy(),
            {name: say(model, self._inputs(name)) for name, model in teachers.items()},
            say(scratch, self.views.student),
            [(settings, say(student, self.views.student)) for settings, student in candidates],
            best,
        )
        return [asdict(item) for item in found]

    def _folder(self, index: int, settings: Distilling) -> Path:
        """Return where a candidate is kept: as a model of its own, or inside the distilled student."""
        if self.recipe.student.keep == "all":
            return self.place.model_folder(f"student.{settings.label}")
        return self.place.model_folder(DISTILLED_STUDENT) / f"candidate-{index + 1}"

    def _called(self, index: int) -> str:
        count = len(self.recipe.student.candidates)
        return DISTILLED_STUDENT + (f" {index + 1} of {count}" if count > 1 else "")

    def _start(
        self, settings: Distilling, teachers: Mapping[TeacherName, WideResNet], scratch: WideResNet
    ) -> WideResNet:
        """Return the student to distil into: a copy of a trained network, or a fresh one."""
        spec = self._spec(self.recipe.student.network, self.views.student)
        student = self._fresh(DISTILLED_STUDENT, spec)
        if settings.annealing:
            trained = scratch if settings.annealing_from == "scratch" else teachers["signal"]
            student.load_state_dict(trained.state_dict())
        return student

    def _inputs(self, teacher: TeacherName) -> Inputs:
        if teacher == "signal":
            return self.views.signals
        assert self.views.images is not None, "made for whoever needs the topology teacher"
        return self.views.images

    def _train(self, folder: Path, name: str, task: Task, training: Training) -> WideResNet:
        return train(
            task,
            self._subset(),
            training,
            seed=self.place.seed,
            folder=folder,
            meta=self._meta(task),
            progress=self.progress,
            name=f"fold {self.fold.fold}, {name}",
        )

    def _meta(self, task: Task) -> dict[str, Any]:
        """Return what a checkpoint says of its network besides its training."""
        params, macs = count(task.model.spec, tuple(task.inputs.shape[2:]))
        return {
            "params": params,
            "macs": macs,
            "input": list(task.inputs.shape[1:]),
            "chosen_on": self._chosen_on(),
        }

    def _subset(self) -> Subset:
        fit = self._of(self.fold.fit)
        return Subset(fit[~torch.isin(fit, self.views.left_out)], self._of(self._choosing()))

    def _choosing(self) -> tuple[str, ...]:
        """Return the subjects that choose epoch and candidate."""
        return self.fold.test if self.recipe.protocol == "paper" else self.fold.validation

    def _chosen_on(self) -> str:
        if not self._choosing():
            return "nobody: the last epoch"
        return "test subjects" if self.recipe.protocol == "paper" else "validation subjects"

    def _of(self, subjects: tuple[str, ...]) -> Tensor:
        return torch.from_numpy(self.windows.of_subjects(subjects)).to(self.views.y.device)

    def _spec(self, network: Network, inputs: Inputs) -> WRNSpec:
        return WRNSpec(
            dims=inputs.ndim - 2,
            depth=network.depth,
            width=network.width,
            in_channels=inputs.shape[1],
            classes=len(self.windows.class_names),
            stem_stride=network.stem_stride,
            activation=network.activation,
        )

    def _fresh(self, name: str, spec: WRNSpec) -> WideResNet:
        """Return an untrained network whose weights depend on seed, fold and model only."""
        words = [self.place.seed, self.fold.fold, *name.encode()]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(np.random.SeedSequence(words).generate_state(1)[0]))
            model = network(spec)
        model = model.to(self.views.y.device)
        return model.to(memory_format=torch.channels_last) if spec.dims == 2 else model  # type: ignore[call-overload]

    def _predict(self, name: str, model: WideResNet, inputs: Inputs) -> None:
        path = self.place.predictions_path(name)
        if path.is_file() or not self.fold.test:
            return
        held_out = self._of(self.fold.test)
        logits = predict(model, inputs, held_out)
        Predictions(held_out.cpu().numpy(), self.views.y[held_out].cpu().numpy(), logits.cpu().numpy()).save(
            path
        )
