"""One outer fold with one seed: both teachers, the student from scratch, the distilled student."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from topokd_edge.data.split import Fold
from topokd_edge.data.windowset import WindowSet
from topokd_edge.distill.checkpoint import META, load_model, save_model
from topokd_edge.distill.inputs import Inputs, Residency
from topokd_edge.distill.preprocessing import Modalities, fit_and_apply
from topokd_edge.distill.recipe import Distilling, Network, Recipe, Training
from topokd_edge.distill.tasks import DistillTask, LabelTask, Teacher
from topokd_edge.distill.trainer import METRICS, Subset, Task, predict, train
from topokd_edge.files import read_json, write_bytes, write_json
from topokd_edge.models.wrn import WideResNet, WRNSpec, count
from topokd_edge.progress import Progress
from topokd_edge.run import (
    DISTILLED_STUDENT,
    SCRATCH_STUDENT,
    SIGNAL_TEACHER,
    TOPOLOGY_TEACHER,
    FoldRun,
    Predictions,
)

SELECTION = "selection.json"


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
    views, made = fit_and_apply(windows, fold, recipe.topology, cache, device, progress, residency)
    write_json(place.folder / "preprocessing.json", made)
    write_json(place.folder / "inputs.json", views.kept)
    trainer = _FoldTrainer(place, windows, fold, views, progress)
    signal = trainer.on_labels(
        SIGNAL_TEACHER, views.signals, recipe.signal_teacher.network, recipe.signal_teacher.training
    )
    topology = trainer.on_labels(
        TOPOLOGY_TEACHER, views.images, recipe.topology_teacher.network, recipe.topology_teacher.training
    )
    scratch = trainer.on_labels(
        SCRATCH_STUDENT, views.signals, recipe.student.network, recipe.student.scratch
    )
    trainer.distil(signal, topology, scratch, recipe)


@dataclass(frozen=True)
class _FoldTrainer:
    """Trains the models of one fold on its views."""

    place: FoldRun
    windows: WindowSet
    fold: Fold
    views: Modalities
    progress: Progress

    def on_labels(self, name: str, inputs: Inputs, network: Network, training: Training) -> WideResNet:
        """Train one network on labels, and predict the held-out windows."""
        spec = self._spec(network, inputs)
        task = LabelTask(self._fresh(name, spec), inputs, self.views.y)
        model = self._train(self.place.model_folder(name), name, task, training)
        self._predict(name, model, inputs)
        return model

    def distil(self, signal: WideResNet, topology: WideResNet, scratch: WideResNet, recipe: Recipe) -> None:
        """Train every candidate student, keep the best on the validation subjects, and predict."""
        final = self.place.model_folder(DISTILLED_STUDENT)
        if self.place.predictions_path(DISTILLED_STUDENT).is_file():
            return
        windows = self._subset().fit
        teachers = (
            Teacher(signal, self.views.signals, windows),
            Teacher(topology, self.views.images, windows),
        )
        rows = []
        variants = recipe.student.variants()
        for index, settings in enumerate(variants):
            folder = final / f"candidate-{index + 1}"
            student = self._student(scratch, settings, recipe)
            task = DistillTask(student, self.views.signals, self.views.y, *teachers, settings)
            name = DISTILLED_STUDENT + (f" {index + 1} of {len(variants)}" if len(variants) > 1 else "")
            self._train(folder, name, task, recipe.student.distilled)
            meta = read_json(folder / META)
            rows.append(
                {
                    "candidate": index + 1,
                    "validation_accuracy": meta["validation_accuracy"],
                    "epoch": meta["epoch"],
                    "settings": settings.model_dump(),
                }
            )
        best = max(range(len(rows)), key=lambda index: (rows[index]["validation_accuracy"], -index))
        self._keep(final, best, rows)

    def _keep(self, final: Path, best: int, rows: list[dict[str, Any]]) -> None:
        """Make candidate `best` the distilled student of the fold."""
        chosen = final / f"candidate-{best + 1}"
        model, meta = load_model(chosen)
        write_bytes(final / METRICS, (chosen / METRICS).read_bytes())
        save_model(final, model, {key: value for key, value in meta.items() if key != "spec"})
        write_json(
            self.place.folder / SELECTION,
            {
                "chosen": best + 1,
                "on_subjects": list(self.fold.validation),
                "candidates": rows,
                "epochs": {
                    name: read_json(self.place.model_folder(name) / META)["epoch"]
                    for name in (SIGNAL_TEACHER, TOPOLOGY_TEACHER, SCRATCH_STUDENT, DISTILLED_STUDENT)
                },
            },
        )
        self._predict(DISTILLED_STUDENT, model.to(self.views.y.device), self.views.signals)

    def _student(self, scratch: WideResNet, settings: Distilling, recipe: Recipe) -> WideResNet:
        """Return the student to distil into: a copy of the scratch student, or a fresh network."""
        student = self._fresh(DISTILLED_STUDENT, self._spec(recipe.student.network, self.views.signals))
        if settings.annealing:
            student.load_state_dict(scratch.state_dict())
        return student

    def _train(self, folder: Path, name: str, task: Task, training: Training) -> WideResNet:
        spec, size = task.model.spec, tuple(task.inputs.shape[2:])
        params, macs = count(spec, size)
        return train(
            task,
            self._subset(),
            training,
            seed=self.place.seed,
            folder=folder,
            meta={"params": params, "macs": macs, "input": list(task.inputs.shape[1:])},
            progress=self.progress,
            name=f"fold {self.fold.fold}, {name}",
        )

    def _subset(self) -> Subset:
        return Subset(self._of(self.fold.fit), self._of(self.fold.validation))

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
        )

    def _fresh(self, name: str, spec: WRNSpec) -> WideResNet:
        """Return an untrained network whose weights depend on seed, fold and model only."""
        words = [self.place.seed, self.fold.fold, *name.encode()]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(np.random.SeedSequence(words).generate_state(1)[0]))
            model = WideResNet(spec)
        model = model.to(self.views.y.device)
        return model.to(memory_format=torch.channels_last) if spec.dims == 2 else model  # type: ignore[call-overload]

    def _predict(self, name: str, model: WideResNet, inputs: Inputs) -> None:
        path = self.place.predictions_path(name)
        if path.is_file():
            return
        held_out = self._of(self.fold.test)
        logits = predict(model, inputs, held_out)
        Predictions(held_out.cpu().numpy(), self.views.y[held_out].cpu().numpy(), logits.cpu().numpy()).save(
            path
        )
