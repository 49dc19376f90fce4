"""What a trial is worth: its student trained on fit subjects and judged on validation subjects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from topokd_edge.data.split import Fold, class_by_subject, subject_folds
from topokd_edge.data.windowset import WindowSet
from topokd_edge.distill.checkpoint import META
from topokd_edge.distill.fold import FoldTrainer, prepare_fold
from topokd_edge.distill.recipe import Recipe
from topokd_edge.errors import BadInputError
from topokd_edge.files import read_json, write_json, write_text
from topokd_edge.locking import held
from topokd_edge.progress import Progress, silent
from topokd_edge.run import DISTILLED_STUDENT, SCRATCH_STUDENT, FoldRun


@dataclass(frozen=True)
class Inner:
    """A part of an outer fold that trials see: its fit and validation subjects, dealt in one way."""

    outer: int
    part: int
    validation: tuple[str, ...]
    fit: tuple[str, ...]

    @property
    def folder(self) -> str:
        """Where it lies in the folder of a search."""
        return f"fold-{self.outer}/part-{self.part}"


@dataclass(frozen=True)
class Scores:
    """A trial's result: means over parts and seeds, and each of them.

    Attributes
    ----------
    accuracy
        Share of the validation subjects' windows.
    macs, params
        Of the student; one forward pass with batch 1.
    parts
        {"fold", "part", "seed", "validation", "accuracy", "epoch"}.
    latency_ms, timing
        Milliseconds of one window, and how they were measured; None where nobody asked.
    """

    accuracy: float
    macs: int
    params: int
    parts: tuple[dict[str, Any], ...]
    latency_ms: float | None = None
    timing: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return them as JSON-able data."""
        return asdict(self)


def inner_parts(windows: WindowSet, fold: Fold, parts: int) -> list[Inner]:
    """Deal the fit and validation subjects of an outer fold; its test subjects are in no part.

    With one part, the fold's own validation subjects validate. With more, all subjects that are not tested
    are dealt into as many groups, and each group validates once.

    Raises
    ------
    BadInputError
        When there are fewer such subjects than parts, or none validates.
    """
    if parts == 1:
        if not fold.validation:
            raise BadInputError(
                f"fold {fold.fold} has no validation subjects to choose on", hint="give --parts 2 or more"
            )
        return [Inner(fold.fold, 1, fold.validation, fold.fit)]
    known = without_test(windows, fold)
    dealt = subject_folds(known.subjects, parts, 0, 0, counts=class_by_subject(known))
    return [Inner(fold.fold, item.fold, item.test, item.fit) for item in dealt]


def without_test(windows: WindowSet, fold: Fold) -> WindowSet:
    """Return the windows of a fold's fit and validation subjects; whoever gets them cannot see more."""
    rows = windows.of_subjects([*fold.fit, *fold.validation])
    return replace(windows, y=windows.y[rows], recording=windows.recording[rows], start=windows.start[rows])


Timer = Callable[[FoldRun, WindowSet, Inner], dict[str, Any]]
"""Times the distilled student of a place, given the windows of a fold without its test subjects; the answer
holds `latency_ms`."""
LATENCY = "latency"


@dataclass(frozen=True)
class _TrialRun(FoldRun):
    """The folder of a trial in a part and seed: teachers, and students from scratch by shape, are shared."""

    shape: str = ""

    def model_folder(self, model: str) -> Path:
        """Folder of a model."""
        if model == SCRATCH_STUDENT:
            return self.folder.parent / f"{model}.{self.shape}"
        return (self.folder if model == DISTILLED_STUDENT else self.folder.parent) / model

    def preprocessing(self) -> dict[str, Any]:
        """Return what was fitted on the fit subjects of the part."""
        return dict(read_json(self.folder.parent.parent / "preprocessing.json"))


@dataclass
class Trainer:
    """Trains the students of trials; teachers are trained once for each part and seed.

    Several processes may share the folder: one trains what is shared while the others wait.

    Parameters
    ----------
    folder
        Of the search.
    windows, folds
        The set, and the outer folds whose fit and validation subjects are used.
    recipe
        With the values that no trial changes.
    parts
        See `inner_parts`.
    device, progress
        Where to compute; where to tell.
    timer
        Says what a student takes on a device; None where latency is not asked for.
    """

    folder: Path
    windows: WindowSet
    folds: Sequence[Fold]
    recipe: Recipe
    parts: int
    device: torch.device
    progress: Progress = silent
    timer: Timer | None = None
    _ready: dict[tuple[int, int], FoldTrainer] = field(default_factory=dict)

    def __call__(self, recipe: Recipe, number: int) -> Scores:
        """Train the student of a trial in every part and with every seed; what is finished is kept."""
        rows, costs = [], (0, 0)
        for fold in self.folds:
            for inner in inner_parts(self.windows, fold, self.parts):
                for seed in self.recipe.seeds:
                    meta = self._student(fold, inner, seed, recipe, number)
                    costs = int(meta["macs"]), int(meta["params"])
                    rows.append(
                        {
                            "fold": inner.outer,
                            "part": inner.part,
                            "seed": seed,
                            "validation": list(inner.validation),
                            "accuracy": meta["validation_accuracy"],
                            "epoch": meta["epoch"],
                        }
                    )
        accuracy = float(np.mean([row["accuracy"] for row in rows]))
        timing = self._timing(recipe, number)
        latency = None if timing is None else float(timing["latency_ms"])
        return Scores(accuracy, *costs, tuple(rows), latency, timing)

    def _timing(self, recipe: Recipe, number: int) -> dict[str, Any] | None:
        """Time the first student of the trial; trials of one shape share that, as weights cost no time."""
        if self.timer is None:
            return None
        fold = self.folds[0]
        inner = inner_parts(self.windows, fold, self.parts)[0]
        place = self._place(inner, self.recipe.seeds[0], recipe, number)
        path = self.folder / LATENCY / f"{place.shape}.json"
        with held(path.with_name("timing.lock"), wait=True):  # never two measurements at once
            if not path.is_file():
                found = self.timer(place, without_test(self.windows, fold), inner)
                write_json(path, {**found, "shape": place.shape, "trial": number})
        return dict(read_json(path))

    def _place(self, inner: Inner, seed: int, recipe: Recipe, number: int) -> _TrialRun:
        network = recipe.student.network.model_dump(mode="json")
        shape = "-".join(f"{key}{value}" for key, value in network.items())
        folder = self.folder / inner.folder / f"seed-{seed}" / f"trial-{number}"
        return _TrialRun(folder, inner.outer, seed, shape=shape)

    def _student(self, fold: Fold, inner: Inner, seed: int, recipe: Recipe, number: int) -> dict[str, Any]:
        part = self.folder / inner.folder
        run = self._place(inner, seed, recipe, number)
        _say_values(run.folder / "recipe.toml", recipe)
        trainer = replace(self._prepared(fold, inner, part), place=run, recipe=recipe)
        with held(run.folder.parent / "shared.lock", wait=True):
            teachers, scratch = trainer.teachers(), trainer.from_scratch()
        trainer.distil(teachers, scratch)
        return dict(read_json(run.model_folder(DISTILLED_STUDENT) / META))

    def _prepared(self, fold: Fold, inner: Inner, place: Path) -> FoldTrainer:
        """Return what does not depend on seed and trial: the part's inputs."""
        key = (inner.outer, inner.part)
        if key not in self._ready:
            with held(place / "shared.lock", wait=True):
                self._ready[key] = prepare_fold(
                    FoldRun(place, inner.outer, 0),
                    without_test(self.windows, fold),
                    Fold(inner.outer, (), inner.validation, inner.fit),
                    self.recipe,
                    cache=self.folder / "cache",
                    device=self.device,
                    progress=self.progress,
                )
        return self._ready[key]


def _say_values(path: Path, recipe: Recipe) -> None:
    """Write the recipe of a trial; refuse a folder in which a trial had another one."""
    if not path.is_file():
        write_text(path, recipe.to_toml())
    elif not recipe.is_in(path):
        raise BadInputError(
            f"{path.parent}: a trial with other values lies here; its memory was lost or replaced",
            hint="start anew with another --out",
        )
