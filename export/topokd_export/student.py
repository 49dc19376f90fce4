"""The distilled student of one fold and seed, with all that its export needs, and its int8 predictions."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from topokd_edge.bundle import Normalisation, open_model
from topokd_edge.errors import BadInputError, UsageError
from topokd_edge.progress import Progress, silent
from topokd_edge.run import DISTILLED_STUDENT, INT8_STUDENT, FoldRun, Predictions, Run
from topokd_export.c.writer import AppNumbers
from topokd_export.deploy import Array, DeployGraph, deploy_form
from topokd_export.model_files import INT8_FILE
from topokd_export.quantise import (
    CALIBRATION_WINDOWS,
    calibrated,
    calibration_windows,
    quantise,
    write_int8,
)

if TYPE_CHECKING:
    from topokd_edge.data.windowset import WindowSet
    from topokd_edge.distill.int8_part import Int8
    from topokd_edge.models.wrn import WideResNet
    from topokd_export.simulate import Ranges

_BLOCK = 256


@dataclass(frozen=True)
class Student:
    """A distilled student and where it comes from.

    Attributes
    ----------
    fold_run
        Its fold and seed.
    model, graph
        The torch model, and its deploy form.
    windows
        The window set of the run.
    channels
        Indices into the channels of the set: those the student has, in its order.
    normalisation
        Of these channels, as fitted on the fit subjects.
    fit, held_out
        Subjects the weights were fitted on, and subjects never trained on.
    """

    fold_run: FoldRun
    model: WideResNet
    graph: DeployGraph
    windows: WindowSet
    channels: tuple[int, ...]
    normalisation: Normalisation
    fit: tuple[str, ...]
    held_out: tuple[str, ...]

    @property
    def channel_names(self) -> tuple[str, ...]:
        """Names of its channels."""
        return tuple(self.windows.channels[index] for index in self.channels)

    @property
    def units(self) -> tuple[str, ...]:
        """Units of its channels."""
        return tuple(self.windows.units[index] for index in self.channels)

    @property
    def app(self) -> AppNumbers:
        """What an app must know of it."""
        windows = self.windows
        return AppNumbers(
            windows.rate_hz, self.channel_names, self.units, self.normalisation, windows.class_names
        )

    def normalised(self, index: npt.NDArray[np.int64]) -> Array:
        """Return windows of the set, its channels, normalised: float32 (len(index), channels, length)."""
        raw = np.asarray(self.windows.x[index], dtype=np.float32)
        return self.normalisation.apply(raw.take(self.channels, axis=1))

    def calibration(self, n: int = CALIBRATION_WINDOWS) -> Array:
        """Return up to `n` normalised windows of the fit subjects, spread over classes and subjects."""
        seed = self.fold_run.seed
        return self.normalised(
            calibration_windows(self.windows.y, self.windows.subject, self.fit, n=n, seed=seed)
        )

    def quantise(self) -> bytes:
        """Return the int8 TFLite model with the ranges of its calibration windows."""
        return quantise(self.graph, self.calibration())


def int8_of(
    run: Run, student: Student, settings: Int8 | None = None, progress: Progress = silent
) -> tuple[DeployGraph, Ranges]:
    """Return what the int8 model of a run's student is written from: its deploy form and ranges.

    Parameters
    ----------
    run, student
        The run, and the distilled student of one fold and seed.
    settings
        How it becomes int8; as the run's recipe says if not given.
    progress
        Told of a training.
    """
    settings = int8_settings(run) if settings is None else settings
    if settings.method == "train":
        from topokd_export.qat import trained_int8

        return trained_int8(run, student, settings, progress=progress)
    return calibrated(student.graph, student.calibration(settings.windows), settings)


def int8_settings(run: Run, **changes: Any) -> Int8:
    """Return how the recipe of a run says that its student becomes int8, with changes."""
    from pydantic import ValidationError

    from topokd_edge.distill.int8_part import Int8

    try:
        return Int8(**{**run.recipe.get("student", {}).get("int8", {}), **changes})
    except ValidationError as error:
        problems = [f"student.int8.{item['loc'][0]}: {item['msg']}" for item in error.errors()]
        raise UsageError(f"{run.folder}: int8 cannot be made so", problems=problems) from None


def load_student(run: Run, fold: int, seed: int) -> Student:
    """Load the distilled student of a fold and seed.

    Raises
    ------
    BadInputError
        When the run has no such fold, it is not trained, or the parts do not fit together.
    """
    entry = run.fold(fold)
    return student_of(run.fold_run(fold, seed), run.windows(), entry["fit"], entry["test"])


def student_of(fold_run: FoldRun, windows: WindowSet, fit: Sequence[str], held_out: Sequence[str]) -> Student:
    """Load the distilled student that lies in `fold_run`; see `Student` for the rest.

    Raises
    ------
    BadInputError
        When it is not trained, or does not fit the windows.
    """
    from topokd_edge.distill.checkpoint import load_model

    scale = fold_run.preprocessing()["student"]
    channels = tuple(windows.channels.index(name) for name in scale["channels"])
    model, _ = load_model(fold_run.model_folder(DISTILLED_STUDENT))
    found = (model.spec.in_channels, model.spec.classes)
    expected = (len(channels), len(windows.class_names))
    if found != expected:
        raise BadInputError(
            f"{fold_run.model_folder(DISTILLED_STUDENT)}: the student has {found[0]} channels and {found[1]} "
            f"classes, expected {expected[0]} and {expected[1]}"
        )
    return Student(
        fold_run=fold_run,
        model=model.eval(),
        graph=deploy_form(model, (windows.length,)),
        windows=windows,
        channels=channels,
        normalisation=Normalisation(tuple(scale["mean"]), tuple(scale["std"])),
        fit=tuple(fit),
        held_out=tuple(held_out),
    )


def int8_predictions(run: Run, fold: int, seed: int, progress: Progress = silent) -> Predictions:
    """Run the int8 student of a fold on its held-out windows, as a device would, and save what it said.

    Returns
    -------
    Predictions
        Also written at `predictions_path("student.int8")`.
    """
    student = load_student(run, fold, seed)
    index = student.windows.of_subjects(student.held_out)
    task = f"int8 student, fold {fold}, seed {seed}"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / INT8_FILE
        path.write_bytes(write_int8(*int8_of(run, student, progress=progress)))
        model = open_model(path)
        logits = np.empty((len(index), student.graph.classes), dtype=np.float32)
        for begin in range(0, len(index), _BLOCK):
            block = slice(begin, begin + _BLOCK)
            logits[block] = model.run(student.normalised(index[block]))
            progress(task, min(begin + _BLOCK, len(index)), len(index))
    predictions = Predictions(index, np.asarray(student.windows.y[index]), logits)
    predictions.save(student.fold_run.predictions_path(INT8_STUDENT))
    return predictions


def predict_int8_once(run: Run, fold: int, seed: int, progress: Progress = silent) -> None:
    """Make the int8 student's held-out predictions unless they are there."""
    if not run.fold_run(fold, seed).predictions_path(INT8_STUDENT).is_file():
        int8_predictions(run, fold, seed, progress)
