"""What benchmarks of exported students share: every runtime on the same windows, instructions, a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from c_instructions import CASES
from topokd_export.c.arena import plan_arena
from topokd_export.c.emulated import run_firmware
from topokd_export.c.firmware import build_firmware
from topokd_export.c.host import HostStudent
from topokd_export.c.integer_graph import Conv, IntegerGraph
from topokd_export.c.tflite_reader import read_integer_graph
from topokd_export.c.writer import AppNumbers, ram_bytes, weight_bytes, write_c
from topokd_export.deploy import Array
from topokd_export.int8_model import torch_logits
from topokd_export.student import Student
from topokd_export.wasm.node import find_node, run_module
from topokd_export.wasm.writer import MODULES, raw_windows

from topokd_edge.bundle import Bundle, dequantise, open_model, quantise_input

MICRO = "TensorFlow Lite Micro, int8"


def table(columns: list[str], rows: list[list[str]]) -> str:
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def all_answers(student: Student, folder: Path, x: Array) -> dict[str, Array]:
    """Logits of normalised windows by every runtime that a bundle of all targets can be run with."""
    return dict(_answers(student, folder, x))


def _answers(student: Student, folder: Path, x: Array) -> Iterator[tuple[str, Array]]:
    int8 = folder / "student_int8.tflite"
    graph = read_integer_graph(int8.read_bytes())
    levels = quantise_input(np.moveaxis(x, 1, 2), graph.input.scale, graph.input.zero_point)
    yield "torch, float32", torch_logits(student, x)
    yield "ONNX Runtime, float32", open_model(folder / "student_float32.onnx").run(x)
    yield "LiteRT XNNPACK, float32", open_model(folder / "student_float32.tflite").run(x)
    yield MICRO, _real(graph, micro_logits(int8.read_bytes(), levels))
    yield "LiteRT reference kernels, int8", open_model(int8, reference_kernels=True).run(x)
    yield "LiteRT XNNPACK, int8", open_model(int8).run(x)
    yield "the same, float32 ends", open_model(folder / "student_int8_float_io.tflite").run(x)
    yield "ONNX Runtime, int8", open_model(folder / "student_int8.onnx").run(x)
    files = {path.name: path.read_text("utf-8") for path in (folder / "c").glob("*.[ch]")}
    yield "C99 on this machine", _real(graph, HostStudent(files, graph.output.channels).invoke(levels))
    node = find_node()
    for build, module in MODULES.items():
        if node is not None:
            raw = raw_windows(graph, student.app, levels)
            yield f"WebAssembly, {build}", run_module(node, folder / "wasm", module, raw)


def micro_logits(content: bytes, levels: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
    """Logits by TensorFlow Lite Micro, int8 (n, classes)."""
    from tflite_micro.python.tflite_micro import runtime

    interpreter = runtime.Interpreter.from_bytes(content)
    logits = []
    for window in levels:
        interpreter.set_input(window[None, None], 0)
        interpreter.invoke()
        logits.append(interpreter.get_output(0)[0].copy())
    return np.array(logits)


def _real(graph: IntegerGraph, logits: npt.NDArray[np.int8]) -> Array:
    return dequantise(logits, graph.output.scale, graph.output.zero_point)


def agreement(said: Mapping[str, Array], step: float) -> dict[str, dict[str, float]]:
    """Of each runtime: same class as torch; largest difference from it; of int8, equal logits and worst step.

    Steps are those of the output, against TensorFlow Lite Micro.
    """
    truth, micro = said["torch, float32"], said[MICRO]
    found = {}
    for name, logits in said.items():
        row = {
            "same_class_as_torch": float((logits.argmax(1) == truth.argmax(1)).mean()),
            "largest_difference_from_torch": float(np.abs(logits - truth).max()),
        }
        if "float32" not in name or "ends" in name:
            steps = np.rint(np.abs(logits - micro) / step)
            row |= {"equal_logits": float((steps == 0).mean()), "worst_step": float(steps.max())}
        found[name] = row
    return found


def memory(graph: IntegerGraph) -> dict[str, int]:
    """Bytes of RAM and of weights of the C student, and its multiply-accumulates."""
    products = (layer.weight.size * layer.output.rows for layer in graph.layers if isinstance(layer, Conv))
    plan = plan_arena(graph)
    return {
        "arena_bytes": plan.arena_bytes,
        "ram_bytes": ram_bytes(graph, plan),
        "weight_bytes": weight_bytes(graph),
        "products": sum(products),
    }


def instructions(
    content: bytes, app: AppNumbers, cases: tuple[str, ...] = CASES
) -> dict[str, dict[str, int]]:
    """Instructions, flash and stack of the C student of an int8 file on emulated cores, core:kernel."""
    graph = read_integer_graph(content)
    files = write_c(graph, app, None)
    shape = (graph.input.rows, graph.input.channels)
    window = np.random.default_rng(0).integers(-128, 128, shape).astype(np.int8)
    expected, found = micro_logits(content, window[None])[0], {}
    for case in cases:
        core, kernel = case.split(":")
        firmware = build_firmware(files, core, ("-O2", f"-DTK_KERNEL=TK_KERNEL_{kernel}"))
        ran = run_firmware(firmware, window, graph.output.channels)
        if not np.array_equal(ran.logits, expected):
            raise SystemExit(f"{case}: other logits than TensorFlow Lite Micro")
        found[case] = {
            "instructions": ran.instructions,
            "flash_bytes": firmware.flash_bytes,
            "stack_bytes": ran.stack_bytes,
        }
    return found


def sizes(folder: Path) -> dict[str, int]:
    """Bytes of every model of a bundle; of the C, its text."""
    bundle = Bundle.open(folder)
    found = {
        item.path: (folder / item.path).stat().st_size
        for item in bundle.manifest.files
        if not item.path.startswith("c/")
    }
    found["c/, text"] = sum(path.stat().st_size for path in (folder / "c").glob("*.[ch]"))
    return found


def machine() -> dict[str, Any]:
    """What a time was measured with."""
    import os
    import platform
    from importlib import metadata

    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines() if Path("/proc/cpuinfo").is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    packages = (
        "torch",
        "onnxruntime",
        "ai-edge-litert",
        "litert-quantizer",
        "tflite-micro",
        "ziglang",
        "unicorn",
    )
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "platform": platform.platform(),
        "load": [round(value, 1) for value in os.getloadavg()],
        "versions": {name: metadata.version(name) for name in packages},
    }
