"""The int8 model of an export: made as the recipe or the command line says, and judged."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from topokd_edge.bundle import open_model
from topokd_edge.progress import Progress, silent
from topokd_edge.rows import evenly
from topokd_edge.run import Run
from topokd_export.deploy import Array, DeployGraph
from topokd_export.gate import Loss, loss_of, refuse_loss
from topokd_export.layers import layers_report
from topokd_export.model_files import INT8_FILE
from topokd_export.quantise import write_int8
from topokd_export.student import Student, int8_of, int8_settings
from topokd_export.verify import check

if TYPE_CHECKING:
    from topokd_edge.distill.int8_part import Int8
    from topokd_export.simulate import Ranges

JUDGED_WINDOWS = 4096
_REPORTED_WINDOWS = 128
_COMPARED_WINDOWS = 1024
ONNX_AGREEMENT = 0.95
"""Least share of windows that ONNX Runtime and LiteRT class alike: same integers, other rounding within."""


@dataclass(frozen=True)
class Int8Model:
    """An int8 TFLite file, the deploy form and ranges it was written from, and how they came about."""

    graph: DeployGraph
    ranges: Ranges
    settings: Int8
    content: bytes


def make_int8(
    run: Run, student: Student, settings: Int8 | None = None, progress: Progress = silent
) -> Int8Model:
    """Make the int8 model of a student; see `topokd_export.student.int8_of`."""
    settings = int8_settings(run) if settings is None else settings
    graph, ranges = int8_of(run, student, settings, progress)
    return Int8Model(graph, ranges, settings, write_int8(graph, ranges))


def judge_int8(
    student: Student, made: Int8Model, path: Path, limit: float
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Compare int8 with float32 on held-out windows, evenly chosen, and look at every tensor.

    Parameters
    ----------
    student, made, path
        The student, its int8 model, and where that lies.
    limit
        Accuracy that may be lost, as a share.

    Returns
    -------
    tuple of dict
        The entry of `checks`; and settings, loss and layers as JSON-able data.

    Raises
    ------
    CheckFailedError
        When more is lost; see `topokd_export.gate.Loss.exceeds`.
    """
    loss, apart, alike = against_float32(student, path)
    layers = layers_report(made.graph, student.calibration(_REPORTED_WINDOWS), made.ranges)
    refuse_loss(loss, limit, layers)
    entry = check(loss.sentence(), True, apart, alike)
    told = {
        "settings": made.settings.model_dump(mode="json"),
        "loss": loss.to_dict(),
        "layers": [item.to_dict() for item in layers],
    }
    return entry, told


def onnx_against_tflite(student: Student, folder: Path, path: str) -> dict[str, Any]:
    """Compare the int8 ONNX file `path` of a bundle with its int8 TFLite file on held-out windows."""
    x = student.normalised(held_out_index(student, _COMPARED_WINDOWS))
    apart, alike = _difference(*(open_model(folder / name).run(x) for name in (path, INT8_FILE)))
    name = f"{path} against {INT8_FILE}, {len(x)} held-out windows"
    return check(name, alike >= ONNX_AGREEMENT, apart, alike)


def against_float32(student: Student, path: Path) -> tuple[Loss, float, float]:
    """Compare a model file with the float student on held-out windows, evenly chosen.

    Returns
    -------
    tuple
        What accuracy is lost, the largest difference of a logit, and the share of windows classed alike.
    """
    index = held_out_index(student, JUDGED_WINDOWS)
    x = student.normalised(index)
    got, expected = open_model(path).run(x), torch_logits(student, x)
    return loss_of(np.asarray(student.windows.y[index]), expected, got), *_difference(got, expected)


def _difference(got: Array, expected: Array) -> tuple[float, float]:
    """Return the largest difference of a logit, and the share of windows classed alike."""
    alike = (got.argmax(axis=1) == expected.argmax(axis=1)).mean()
    return float(np.abs(got - expected).max()), float(alike)


def held_out_index(student: Student, most: int) -> npt.NDArray[np.int64]:
    """Return held-out windows, evenly chosen."""
    index = student.windows.of_subjects(student.held_out)
    return index[evenly(len(index), most)]


def torch_logits(student: Student, x: Array) -> Array:
    """Return the logits (n, classes) of the float student."""
    import torch

    with torch.no_grad():
        return np.asarray(student.model(torch.from_numpy(x)).numpy())
