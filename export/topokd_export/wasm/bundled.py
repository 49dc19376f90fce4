"""The WebAssembly of a bundle: built from the C of its int8 TFLite file, equal to it to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from topokd_edge.bundle import dequantise, open_model, quantise_input
from topokd_edge.files import write_bytes, write_text
from topokd_export.c.bundled import levels_of, refuse_changed
from topokd_export.c.host import HostStudent
from topokd_export.c.tflite_reader import read_integer_graph
from topokd_export.c.writer import AppNumbers, SelfTest, write_c
from topokd_export.deploy import Array
from topokd_export.model_files import INT8_FILE
from topokd_export.verify import REFERENCE_TOLERANCE_LSB, check, compare
from topokd_export.wasm.build import CPUS, build_wasm
from topokd_export.wasm.node import find_node, run_module
from topokd_export.wasm.writer import MODULES, raw_windows, write_scripts

FOLDER = "wasm"
FILES = tuple(f"{FOLDER}/{name}" for name in MODULES.values())
"""The WebAssembly files as a manifest lists them, the one with SIMD first."""


def write_wasm_folder(folder: Path, app: AppNumbers, x: Array) -> Array:
    """Write WebAssembly and JavaScript of a bundle's int8 file into `folder / "wasm"`.

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
    ndarray
        The logits of `x` by the C, compiled here, float32 (n, classes).

    Raises
    ------
    BadInputError
        When the model has a part that the C kernels do not know; all are named.
    MissingError
        When there is no ziglang.
    CheckFailedError
        When the C does not compile without a warning.
    """
    graph = read_integer_graph((folder / INT8_FILE).read_bytes())
    files = write_c(graph, app, None)
    levels = levels_of(graph, x)
    logits = HostStudent(files, graph.output.channels).invoke(levels)
    modules = {build: build_wasm(files, build) for build in CPUS}
    for build, content in modules.items():
        write_bytes(folder / FOLDER / MODULES[build], content)
    for name, text in write_scripts(graph, app, SelfTest(levels, logits), modules).items():
        write_text(folder / FOLDER / name, text)
    return dequantise(logits, graph.output.scale, graph.output.zero_point)


def wasm_checks(folder: Path, app: AppNumbers, x: Array, expected: Array) -> list[dict[str, Any]]:
    """Check the WebAssembly of a bundle: its scripts as this program writes them, its logits under Node.js.

    Only JavaScript that this program would write itself is run; a module that wants anything from its host is
    refused by it. Without Node.js the modules are not run, and their entries say so.

    Parameters
    ----------
    folder, app
        The bundle, and what its manifest says.
    x, expected
        Normalised self-test windows (n, channels, length), and the logits (n, classes) of the C.
    """
    graph = read_integer_graph((folder / INT8_FILE).read_bytes())
    levels = levels_of(graph, x)
    scale, zero_point = graph.output.scale, graph.output.zero_point
    self_test = SelfTest(levels, quantise_input(expected, scale, zero_point))
    modules = {build: (folder / FOLDER / name).read_bytes() for build, name in MODULES.items()}
    refuse_changed(folder / FOLDER, write_scripts(graph, app, self_test, modules))
    reference = open_model(folder / INT8_FILE, reference_kernels=True).run(x)
    near = (REFERENCE_TOLERANCE_LSB + 0.5) * scale
    checks = [
        check(f"{FOLDER}/ is what {INT8_FILE} gives", True),
        compare(f"{FOLDER}/ logits against the reference kernels", expected, reference, near, 1.0),
    ]
    node = find_node()
    for file, name in zip(FILES, MODULES.values(), strict=True):
        if node is None:
            checks.append(check(f"{file} was not run: there is no node here", True))
            continue
        got = run_module(node, folder / FOLDER, name, raw_windows(graph, app, levels))
        checks.append(compare(f"{file}, under node", got, expected, 0.0, 1.0))
    return checks
