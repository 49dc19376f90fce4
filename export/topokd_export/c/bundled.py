"""The C of a bundle: written from its int8 TFLite file, compiled and run here, and checked against it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from topokd_edge.bundle import dequantise, open_model, quantise_input
from topokd_edge.errors import CheckFailedError
from topokd_edge.files import write_text
from topokd_export.c.arena import plan_arena
from topokd_export.c.host import HostStudent
from topokd_export.c.integer_graph import IntegerGraph
from topokd_export.c.layouts import write_layouts
from topokd_export.c.tflite_reader import read_integer_graph
from topokd_export.c.writer import AppNumbers, SelfTest, ram_bytes, weight_bytes, write_c
from topokd_export.deploy import Array
from topokd_export.model_files import INT8_FILE
from topokd_export.verify import REFERENCE_TOLERANCE_LSB, check, compare

FOLDER, MAIN_FILE = "c", "c/student.c"
_SHIPPED_VECTORS = 3


def write_c_folder(folder: Path, app: AppNumbers, x: Array) -> tuple[Array, dict[str, Any]]:
    """Write the C of a bundle's int8 file into `folder / "c"`.

    Parameters
    ----------
    folder
        The bundle, with its int8 TFLite file.
    app
        What the app must know.
    x
        Normalised self-test windows, (n, channels, length).

    Returns
    -------
    tuple
        The logits of `x`, float32 (n, classes), as the C gives them here, and sizes: `arena_bytes`,
        `ram_bytes` (all memory of a student), `weight_bytes`.

    Raises
    ------
    BadInputError
        When the model has a part that the C kernels do not know; all are named.
    MissingError
        When there is no C compiler.
    CheckFailedError
        When the C does not compile without a warning.
    """
    graph = read_integer_graph((folder / INT8_FILE).read_bytes())
    levels = levels_of(graph, x)
    student = HostStudent(write_c(graph, app, None), graph.output.channels)
    logits = student.invoke(levels)
    files = write_c(graph, app, _shipped(levels, logits))
    for name, text in {**files, **write_layouts(graph, app.rate_hz)}.items():
        write_text(folder / FOLDER / name, text)
    plan = plan_arena(graph)
    sizes = {
        "arena_bytes": plan.arena_bytes,
        "ram_bytes": ram_bytes(graph, plan),
        "weight_bytes": weight_bytes(graph),
    }
    return dequantise(logits, graph.output.scale, graph.output.zero_point), sizes


def c_checks(folder: Path, app: AppNumbers, x: Array, expected: Array) -> list[dict[str, Any]]:
    """Check the C of a bundle: made from its int8 file, and answering as it should when compiled here.

    Only text that this program would write itself is compiled, so nothing foreign is run.

    Parameters
    ----------
    folder, app
        The bundle, and what its manifest says.
    x, expected
        Normalised self-test windows (n, channels, length), and the logits (n, classes) the C must give.
    """
    graph = read_integer_graph((folder / INT8_FILE).read_bytes())
    levels = levels_of(graph, x)
    scale, zero_point = graph.output.scale, graph.output.zero_point
    files = write_c(graph, app, _shipped(levels, quantise_input(expected, scale, zero_point)))
    refuse_changed(folder / FOLDER, {**files, **write_layouts(graph, app.rate_hz)})
    got = dequantise(HostStudent(files, graph.output.channels).invoke(levels), scale, zero_point)
    reference = open_model(folder / INT8_FILE, reference_kernels=True).run(x)
    near = (REFERENCE_TOLERANCE_LSB + 0.5) * scale
    return [
        check(f"{FOLDER}/ is what {INT8_FILE} gives", True),
        compare(f"{MAIN_FILE}, compiled here", got, expected, 0.0, 1.0),
        compare(f"{MAIN_FILE} against the reference kernels", got, reference, near, 1.0),
    ]


def levels_of(graph: IntegerGraph, x: Array) -> npt.NDArray[np.int8]:
    """Return normalised windows (n, channels, length) as the integers (n, length, channels) of the input."""
    return quantise_input(np.moveaxis(x, 1, 2), graph.input.scale, graph.input.zero_point)


def _shipped(levels: npt.NDArray[np.int8], logits: npt.NDArray[np.int8]) -> SelfTest:
    return SelfTest(levels[:_SHIPPED_VECTORS], logits[:_SHIPPED_VECTORS])


def refuse_changed(folder: Path, files: Mapping[str, str]) -> None:
    """Raise CheckFailedError when texts of a folder are not, byte for byte, what they should be."""
    changed = [
        f"{folder.name}/{name}"
        for name, text in files.items()
        if not (folder / name).is_file() or (folder / name).read_bytes() != text.encode("utf-8")
    ]
    if changed:
        raise CheckFailedError(
            f"{folder}: not what this version writes from {INT8_FILE}, so it is not run",
            problems=changed,
            hint="export the bundle again",
        )
