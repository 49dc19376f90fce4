"""The folder of one training run: where each thing lies, and reading and writing it."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from topokd_edge.arrays import load_npz
from topokd_edge.data.windowset import WindowSet
from topokd_edge.errors import BadInputError
from topokd_edge.files import read_json, replacing, write_json

SIGNAL_TEACHER = "teacher.signal"
TOPOLOGY_TEACHER = "teacher.topology"
SCRATCH_STUDENT = "student.scratch"
DISTILLED_STUDENT = "student.distilled"
INT8_STUDENT = "student.int8"
TRAINED = (SIGNAL_TEACHER, TOPOLOGY_TEACHER, SCRATCH_STUDENT, DISTILLED_STUDENT)
"""Models with a checkpoint, in the order they are trained."""
MODELS = (*TRAINED, INT8_STUDENT)
"""Models with predictions, in the order they are shown."""

SELECTION = "selection.json"
OPTIMISTIC = (
    "optimistic: epoch and candidate were chosen on the test subjects, as in the published code; "
    "a person who is new gets less"
)


@dataclass(frozen=True)
class Predictions:
    """What one model said of the held-out windows of one fold.

    Attributes
    ----------
    window
        int64, shape (n,): index into the window set.
    y
        int64, shape (n,): true class.
    logits
        float32, shape (n, classes).
    """

    window: npt.NDArray[np.int64]
    y: npt.NDArray[np.int64]
    logits: npt.NDArray[np.float32]

    def save(self, path: Path) -> None:
        """Write `predictions.npz`-style file at `path`, whole or not at all."""
        with replacing(path) as part, part.open("wb") as stream:
            np.savez(stream, window=self.window, y=self.y, logits=self.logits)

    @classmethod
    def open(cls, path: Path) -> Predictions:
        """Read predictions.

        Raises
        ------
        BadInputError
            When the file is missing or damaged.
        """
        data = load_npz(path, hint="train the run to its end first")
        if missing := {"window", "y", "logits"} - set(data):
            raise BadInputError(f"{path}: without {', '.join(sorted(missing))}")
        return cls(data["window"], data["y"], data["logits"])


@dataclass(frozen=True)
class FoldRun:
    """One outer fold trained with one seed: the folder `fold-<fold>/seed-<seed>` of a run."""

    folder: Path
    fold: int
    seed: int

    def model_folder(self, model: str) -> Path:
        """Folder of a model: checkpoint, metrics (JSON lines) and predictions."""
        return self.folder / model

    def predictions_path(self, model: str) -> Path:
        """Where the held-out predictions of `model` lie."""
        return self.folder / model / "predictions.npz"

    def predictions(self, model: str) -> Predictions:
        """Read the held-out predictions of `model`."""
        return Predictions.open(self.predictions_path(model))

    def models(self) -> list[str]:
        """Return the models with held-out predictions, in the order they are shown.

        Candidates that were kept, `student.<label>`, stand before the distilled student, in the recipe's
        order.
        """
        found = {path.parent.name for path in self.folder.glob("*/predictions.npz")}
        labels = [f"student.{row['settings'].get('label')}" for row in self.selection().get("candidates", [])]
        kept = [name for name in labels if name in found and name not in MODELS]
        strangers = sorted(found - {*MODELS, *kept})
        place = MODELS.index(DISTILLED_STUDENT)
        order = [*MODELS[:place], *kept, *strangers, *MODELS[place:]]
        return [name for name in order if name in found]

    def selection(self) -> dict[str, Any]:
        """Return what was chosen, on whom, and the signatures of failure; empty before the fold is done."""
        path = self.folder / SELECTION
        return dict(read_json(path)) if path.is_file() else {}

    def preprocessing(self) -> dict[str, Any]:
        """Return what was fitted on the fit subjects.

        Returns
        -------
        dict
            `signal`: {"mean": [...], "std": [...]} per channel in the window set's units;
            `student`: the same of the student's channels, and `channels`, their names;
            `sensors`: what the channels belong to (see `topokd_edge.data.sensors.Sensor`);
            `topology`: the image parameters (see `topokd_edge.topology.image.ImageParams`);
            `image`: {"mean": [...], "std": [...]} per channel of the persistence images. The last two are
            absent where no topology teacher was needed.
        """
        return dict(read_json(self.folder / "preprocessing.json"))


@dataclass(frozen=True)
class Run:
    """A run folder.

    `recipe.toml` (resolved), `environment.json`, `data.json` (the window set's description and path),
    `folds.json`, then per outer fold and seed `fold-<k>/seed-<s>/` with `preprocessing.json`,
    `inputs.json`, `selection.json` and one folder per model: `checkpoint.safetensors`, `checkpoint.json`,
    `metrics.jsonl`, `predictions.npz`. `evaluation.json` and `report.html` come later.
    """

    folder: Path

    @classmethod
    def open(cls, folder: Path) -> Run:
        """Open a run.

        Raises
        ------
        BadInputError
            When `folder` is not a run.
        """
        if not (folder / "folds.json").is_file():
            raise BadInputError(
                f"{folder}: not a run (folds.json is missing)", hint="make one with: topokd-edge train"
            )
        return cls(folder)

    @property
    def data(self) -> dict[str, Any]:
        """Description of the window set (see WindowSet.describe), with its `path`."""
        return dict(read_json(self.folder / "data.json"))

    @property
    def folds(self) -> list[dict[str, Any]]:
        """Outer folds: {"fold": 1.., "test": [...], "validation": [...], "fit": [...]}, by subject."""
        return list(read_json(self.folder / "folds.json"))

    def fold(self, number: int) -> dict[str, Any]:
        """Return the entry of one outer fold; see `folds`.

        Raises
        ------
        BadInputError
            When the run has no such fold.
        """
        for entry in self.folds:
            if entry["fold"] == number:
                return entry
        have = ", ".join(str(entry["fold"]) for entry in self.folds)
        raise BadInputError(f"{self.folder}: no fold {number}; the run has {have}")

    @property
    def recipe(self) -> dict[str, Any]:
        """The recipe of the run as plain data; empty when it is missing.

        Raises
        ------
        BadInputError
            When it is damaged.
        """
        path = self.folder / "recipe.toml"
        try:
            return tomllib.loads(path.read_text("utf-8")) if path.is_file() else {}
        except (OSError, ValueError) as error:
            raise BadInputError(f"{path}: not readable as TOML ({error})") from None

    @property
    def optimistic(self) -> bool:
        """Whether epochs and candidates were chosen on the test subjects, as published (protocol `paper`)."""
        return self.recipe.get("protocol") == "paper"

    @property
    def environment(self) -> dict[str, Any]:
        """Versions, platform, device and command of the run."""
        return dict(read_json(self.folder / "environment.json"))

    def fold_run(self, fold: int, seed: int) -> FoldRun:
        """Return the place of one fold and seed; it need not exist."""
        return FoldRun(self.folder / f"fold-{fold}" / f"seed-{seed}", fold, seed)

    def finished(self) -> list[FoldRun]:
        """Every fold and seed whose distilled student has held-out predictions, in order."""
        found = []
        for path in self.folder.glob(f"fold-*/seed-*/{DISTILLED_STUDENT}/predictions.npz"):
            seed_folder = path.parent.parent
            fold, seed = seed_folder.parent.name.split("-")[1], seed_folder.name.split("-")[1]
            found.append(self.fold_run(int(fold), int(seed)))
        return sorted(found, key=lambda item: (item.fold, item.seed))

    def windows(self) -> WindowSet:
        """Open the window set the run was trained on.

        Raises
        ------
        BadInputError
            When it has moved or its content has changed since.
        """
        path = Path(self.data["path"])
        if not path.is_absolute():
            path = self.folder / path
        windows = WindowSet.open(path)
        if windows.content_hash != self.data["content_hash"]:
            raise BadInputError(
                f"{path}: the window set has changed since {self.folder} was trained",
                hint="restore it, or train again",
            )
        return windows

    def write(self, name: str, document: Any) -> None:
        """Write one of the run's JSON files."""
        write_json(self.folder / name, document)
