"""The ONNX and TFLite files of a bundle: which there are, what they are called, what they carry inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topokd_edge.errors import BadInputError
from topokd_export.app_metadata import onnx_metadata, read_onnx_metadata
from topokd_export.c.writer import AppNumbers
from topokd_export.deploy import DeployGraph
from topokd_export.onnx_int8 import write_onnx_int8
from topokd_export.onnx_writer import write_onnx
from topokd_export.tflite_float_io import with_float_io
from topokd_export.tflite_metadata import read_metadata, with_metadata
from topokd_export.tflite_writer import write_tflite

if TYPE_CHECKING:
    from topokd_export.int8_model import Int8Model

ONNX, ONNX_STATIC, TFLITE, FLOAT_IO = "onnx", "onnx-static", "tflite", "tflite-float-io"
INT16 = "tflite-int16"
SUFFIXES = {
    ONNX: ".onnx",
    ONNX_STATIC: "_static.onnx",
    TFLITE: ".tflite",
    FLOAT_IO: "_float_io.tflite",
    INT16: ".tflite",
}
"""By target: any batch, a batch of 1; int8 through and through, between float32 ends; int16 activations."""
INT8_FILE = "student_int8.tflite"
"""Defines the int8 student; every other int8 file holds its integers."""
INT16_FILE = "student_int16.tflite"
_BATCHES = {ONNX: None, ONNX_STATIC: 1}


@dataclass(frozen=True)
class ModelBytes:
    """One model file that is to be written."""

    target: str
    precision: str
    content: bytes

    @property
    def path(self) -> str:
        """Its name in the bundle."""
        return f"student_{self.precision}{SUFFIXES[self.target]}"


def model_files(
    graph: DeployGraph,
    app: AppNumbers,
    targets: Sequence[str],
    made: Int8Model | None,
    int16: bytes | None = None,
) -> list[ModelBytes]:
    """Return the files of `targets`, float32 first, of int8 `INT8_FILE` first, int16 last.

    Parameters
    ----------
    graph
        The deploy form of the float32 student.
    app
        What the files carry inside.
    targets
        Those in `SUFFIXES` count.
    made
        The int8 model; None for float32 only. With it `INT8_FILE` is always among the files.
    int16
        The int16 TFLite model; None for none.
    """
    batches = {target: batch for target, batch in _BATCHES.items() if target in targets}
    props = onnx_metadata(app)
    files = [ModelBytes(name, "float32", write_onnx(graph, props, batch)) for name, batch in batches.items()]
    if TFLITE in targets:
        files.append(ModelBytes(TFLITE, "float32", with_metadata(write_tflite(graph), app)))
    if made is not None:
        files += _int8_files(app, targets, made, batches)
    if int16 is not None:
        files.append(ModelBytes(INT16, "int16", with_metadata(int16, app)))
    return files


def _int8_files(
    app: AppNumbers, targets: Sequence[str], made: Int8Model, batches: Mapping[str, int | None]
) -> list[ModelBytes]:
    files = [ModelBytes(TFLITE, "int8", with_metadata(made.content, app))]
    if FLOAT_IO in targets:
        files.append(ModelBytes(FLOAT_IO, "int8", with_metadata(with_float_io(made.content), app)))
    props = onnx_metadata(app)
    return files + [
        ModelBytes(name, "int8", write_onnx_int8(made.graph, made.content, props, batch))
        for name, batch in batches.items()
    ]


def carried(path: Path) -> dict[str, Any]:
    """Return the labels, rate, channels, units and normalisation inside an ONNX or TFLite file.

    Raises
    ------
    BadInputError
        When it carries none.
    """
    content = path.read_bytes()
    try:
        return read_onnx_metadata(content) if path.suffix == ".onnx" else read_metadata(content)
    except BadInputError as error:
        raise BadInputError(f"{path}: {error.message}", hint="export the bundle again") from None
