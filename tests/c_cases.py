"""What the tests of the C share: int8 files, their answers by other runtimes, C compiled here."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
from export_cases import LENGTH, SPEC, activities, trained_student
from topokd_export.c.host import HostStudent
from topokd_export.c.integer_graph import IntegerGraph, read_integer_graph
from topokd_export.c.writer import AppNumbers, SelfTest, write_c
from topokd_export.deploy import deploy_form
from topokd_export.quantise import quantise

from topokd_edge.bundle import Normalisation

NORMALISATION = Normalisation((100.0, -3.0, 0.01), (50.0, 1.0, 0.002))
KERNELS = ("REF", "BLK", "SMLAD")


@functools.cache
def int8_file() -> bytes:
    """The trained student of the export tests."""
    return quantise(deploy_form(trained_student(), (LENGTH,)), activities(128, seed=5)[0])


def app(graph: IntegerGraph, names: tuple[str, ...] = ("lie", "run", "sit", "stand", "walk")) -> AppNumbers:
    return AppNumbers(50.0, ("x", "y", "z"), ("mV", "g", "uT"), NORMALISATION, names)


def c_files(content: bytes, **options: object) -> dict[str, str]:
    graph = read_integer_graph(content)
    levels = any_levels(graph, 3, seed=9)
    logits = tflm_logits(content, levels)
    return write_c(graph, app(graph, **options), SelfTest(levels, logits))  # type: ignore[arg-type]


def compiled(content: bytes, kernel: str = "BLK", *flags: str) -> HostStudent:
    classes = read_integer_graph(content).output.channels
    return HostStudent(c_files(content), classes, ("-O2", f"-DTK_KERNEL=TK_KERNEL_{kernel}", *flags))


def any_levels(graph: IntegerGraph, n: int, seed: int = 0) -> np.ndarray:
    """Random quantised windows, the first of them extreme: int8 (n, length, channels)."""
    rng = np.random.default_rng(seed)
    levels = rng.integers(-128, 128, (n, graph.input.rows, graph.input.channels)).astype(np.int8)
    levels[0], levels[1 % n] = -128, 127
    levels[2 % n].ravel()[::2], levels[2 % n].ravel()[1::2] = -128, 127
    return levels


def tflm_logits(content: bytes, levels: np.ndarray) -> np.ndarray:
    """Logits by TensorFlow Lite Micro, int8 (n, classes)."""
    from tflite_micro.python.tflite_micro import runtime

    interpreter = runtime.Interpreter.from_bytes(content)
    logits = []
    for window in levels:
        interpreter.set_input(window[None, None], 0)
        interpreter.invoke()
        logits.append(interpreter.get_output(0)[0].copy())
    return np.array(logits)


def lite_tensors(content: bytes, window: np.ndarray, folder: Path) -> dict[str, np.ndarray]:
    """Every activation by LiteRT's reference kernels for one window."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    (folder / "m.tflite").write_bytes(content)
    interpreter = Interpreter(
        str(folder / "m.tflite"),
        experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], window[None, None])
    interpreter.invoke()
    return {
        item["name"]: interpreter.get_tensor(item["index"])
        for item in interpreter.get_tensor_details()
        if item["dtype"] is np.int8
    }


__all__ = ["KERNELS", "LENGTH", "NORMALISATION", "SPEC"]
