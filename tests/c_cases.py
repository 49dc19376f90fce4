"""What the tests of the C share: int8 files, their answers by other runtimes, C compiled here."""

from __future__ import annotations

import functools
from pathlib import Path

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from export_cases import LENGTH, activities, random_student, trained_student
from topokd_export.c.host import HostStudent
from topokd_export.c.integer_graph import IntegerGraph
from topokd_export.c.tflite_reader import read_integer_graph
from topokd_export.c.writer import AppNumbers, SelfTest, write_c
from topokd_export.deploy import DeployGraph, Op, deploy_form
from topokd_export.quantise import quantise
from topokd_export.selftest import smooth_signals

from topokd_edge.bundle import Normalisation
from topokd_edge.models.wrn import WRNSpec

NORMALISATION = Normalisation((100.0, -3.0, 0.01), (50.0, 1.0, 0.002))
NAMES = ("lie", "run", "sit", "stand", "walk")


@functools.cache
def int8_file() -> bytes:
    """The trained student of the export tests."""
    return quantise(deploy_form(trained_student(), (LENGTH,)), activities(128, seed=5)[0])


@functools.cache
def large_int8_file() -> bytes:
    """A student of the usual size: 500 samples of 3 channels, 14 classes, 10 million products."""
    model = random_student(WRNSpec(1, 16, 1, 3, 14))
    return quantise(deploy_form(model, (500,)), smooth_signals(128, 3, 500, seed=0))


def graph_of(content: bytes) -> IntegerGraph:
    return read_integer_graph(content)


def app(graph: IntegerGraph, names: tuple[str, ...] = NAMES) -> AppNumbers:
    """What an app must know of any graph: its own numbers for three channels, plain ones otherwise."""
    channels, classes = graph.input.channels, graph.output.channels
    own = NORMALISATION if channels == 3 else Normalisation((0.5,) * channels, (2.0,) * channels)
    labels = names if classes == len(names) else tuple(f"class {i}" for i in range(classes))
    return AppNumbers(50.0, tuple(f"ch{i}" for i in range(channels)), ("g",) * channels, own, labels)


def c_files(content: bytes, names: tuple[str, ...] = NAMES) -> dict[str, str]:
    """The C with a self-test of extreme and random windows."""
    graph = graph_of(content)
    levels = any_levels(graph, 4, seed=9)
    return write_c(graph, app(graph, names), SelfTest(levels, tflm_logits(content, levels)))


def compiled(content: bytes, kernel: str = "BLK", *flags: str) -> HostStudent:
    classes = graph_of(content).output.channels
    return HostStudent(c_files(content), classes, ("-O1", f"-DTK_KERNEL=TK_KERNEL_{kernel}", *flags))


def any_levels(graph: IntegerGraph, n: int, seed: int = 0) -> np.ndarray:
    """Random quantised windows, the first three of them extreme: int8 (n, length, channels)."""
    rng = np.random.default_rng(seed)
    levels = rng.integers(-128, 128, (n, graph.input.rows, graph.input.channels)).astype(np.int8)
    levels[:3] = -128
    levels[1:2] = 127
    levels[2:3].reshape(-1)[::2] = 127
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
    """Every activation of one window by LiteRT's reference kernels."""
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


def random_graph(seed: int) -> DeployGraph:
    """Every operator, in sizes that are no power of two, with weights of very unlike channels."""
    rng = np.random.default_rng(seed)
    length, ci = int(rng.integers(9, 40)), int(rng.integers(1, 9))
    a, b, classes = (int(n) for n in rng.integers(1, 12, 3))
    k1, k2, k3 = (int(rng.choice(sizes)) for sizes in ([1, 3, 5], [1, 3, 5], [1, 3]))
    half = (length - 1) // 2 + 1

    def op(
        kind: str, name: str, source: tuple[str, ...], shape: tuple[int, ...], *size: int, **more: object
    ) -> Op:
        # No channel is near dead: its bias would not fit 32 bits, and such a model is refused.
        weight = rng.choice([-1, 1], size) * (0.2 + np.abs(rng.normal(0, 1, size)))
        weight = weight * np.exp(rng.normal(0, 1, (size[0], *[1] * (len(size) - 1))))
        bias = rng.normal(0, 1, size[0]) * np.exp(rng.normal(0, 1.5))
        return Op(
            kind, name, source, shape, weight.astype(np.float32), bias.astype(np.float32), **more  # type: ignore[arg-type]
        )  # fmt: skip

    stride_source = "pad" if k3 > 1 else "scale"
    ops = [
        op("conv", "first", ("input",), (length, a), a, k1, ci),
        op("scale", "scale", ("first",), (length, a), a, relu=True),
        op("conv", "same", ("scale",), (length, a), a, k2, a, relu=bool(rng.integers(2))),
        Op("add", "sum", ("same", "first"), (length, a)),
        Op("pad", "pad", ("scale",), (length + 2, a)),
        op("conv", "strided", (stride_source,), (half, b), b, k3, a, stride=2),
        op("conv", "short", ("sum",), (half, b), b, 1, a, stride=2),
    ]
    if k3 == 1:
        ops = [item for item in ops if item.kind != "pad"]
    ops += [
        Op("add", "twice", ("short", "strided"), (half, b)),
        op("scale", "last", ("twice",), (half, b), b, relu=True),
        Op("mean", "mean", ("last",), (b,)),
        op("dense", "head", ("mean",), (classes,), classes, b),
    ]
    return DeployGraph((length,), ci, tuple(ops))


def random_int8(seed: int, *, perturbed: bool = False) -> bytes:
    graph = random_graph(seed)
    content = quantise(graph, smooth_signals(128, graph.channels, graph.size[0], seed=seed))
    return _perturbed(content, seed) if perturbed else content


def _perturbed(content: bytes, seed: int) -> bytes:
    """Give every activation another scale and zero point, as another way of quantising might.

    Shifts to the left, activations that cut elsewhere than at -128, and sums of any two scales come up.
    """
    rng = np.random.default_rng(seed)
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    graph = model.subgraphs[0]
    codes = [code.builtinCode for code in model.operatorCodes]
    operators = schema.BuiltinOperator
    for tensor in graph.tensors:
        numbers = tensor.quantization
        if tensor.type == schema.TensorType.INT8 and model.buffers[tensor.buffer].data is None:
            numbers.scale = (np.asarray(numbers.scale) * np.exp(rng.normal(-1, 1.5))).astype(np.float32)
            numbers.zeroPoint = rng.integers(-128, 128, 1)
    for operator in graph.operators:
        kind = codes[operator.opcodeIndex]
        first, out = graph.tensors[operator.inputs[0]], graph.tensors[operator.outputs[0]]
        if kind == operators.PAD:
            out.quantization = first.quantization
        if kind in (operators.CONV_2D, operators.DEPTHWISE_CONV_2D, operators.FULLY_CONNECTED):
            weight, bias = (graph.tensors[index] for index in operator.inputs[1:3])
            product = np.asarray(first.quantization.scale) * np.asarray(weight.quantization.scale)
            bias.quantization.scale = product.astype(np.float32)
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
