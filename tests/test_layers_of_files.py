"""Every layer of the files themselves against torch, where there are as many channels as samples."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from export_cases import noise, random_student
from onnx import TensorProto, helper
from topokd_export.deploy import CONV, PAD, DeployGraph, deploy_form
from topokd_export.onnx_int8 import write_onnx_int8
from topokd_export.onnx_writer import write_onnx
from topokd_export.parity import layer_differences
from topokd_export.quantise import calibrated, write_int8
from topokd_export.simulate import grids_of
from topokd_export.tflite_writer import write_tflite

from topokd_edge.models.wrn import WRNSpec

SQUARE = WRNSpec(1, 16, 1, 16, 16)
SIZE = (16,)


def tflite_layers(content: bytes, window: np.ndarray) -> dict[str, np.ndarray]:
    """Run one window (channels, length) and return every activation, real values, channels last."""
    interpreter = Interpreter(
        model_content=content,
        experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
        experimental_preserve_all_tensors=True,
        num_threads=1,
    )
    interpreter.allocate_tensors()
    (first,) = interpreter.get_input_details()
    x = np.ascontiguousarray(window.T)[None, None]
    if first["dtype"] is np.int8:
        scale, zero_point = first["quantization"]
        x = np.clip(np.rint(x / scale) + zero_point, -128, 127).astype(np.int8)
    interpreter.set_tensor(first["index"], x)
    interpreter.invoke()
    found = {}
    for item in interpreter.get_tensor_details():
        if "/" in item["name"] or not item["name"]:
            continue
        value = interpreter.get_tensor(item["index"]).reshape(-1, item["shape"][-1])
        scale, zero_point = item["quantization"]
        found[item["name"]] = (value.astype(float) - zero_point) * scale if scale else value
    return found


def onnx_layers(content: bytes, x: np.ndarray, names: list[str]) -> dict[str, np.ndarray]:
    """Run windows (n, channels, length) and return tensors by name, channels last."""
    model = onnx.load_from_string(content)
    del model.graph.output[:]
    model.graph.output.extend(helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in names)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    values = session.run(names, {"windows": x})
    return {n: np.moveaxis(v, 1, -1) for n, v in zip(names, values, strict=True)}


def computed(graph: DeployGraph) -> list[str]:
    return [op.name for op in graph.ops if op.kind != PAD]


def worst(graph: DeployGraph, window: np.ndarray, got: dict[str, np.ndarray]) -> dict[str, float]:
    """Return the largest difference from the deploy form, by layer; infinite where shapes differ."""
    truth = graph.evaluate(window)
    found = {}
    for name in computed(graph):
        value = got["logits" if name == graph.ops[-1].name else name]
        same = value.squeeze().shape == truth[name].shape
        found[name] = float(np.abs(value.squeeze() - truth[name]).max()) if same else np.inf
    return found


@pytest.fixture(scope="module")
def square() -> tuple[Any, DeployGraph, np.ndarray]:
    model = random_student(SQUARE)
    return model, deploy_form(model, SIZE), noise(3, SQUARE, SIZE)


def test_the_float_files_equal_torch_at_every_layer(square: Any) -> None:
    model, graph, x = square
    assert (
        max(layer_differences(model, graph, x).values()) < 1e-4
    )  # the deploy form, against torch's own layers
    names = [*computed(graph)[:-1], "logits"]
    of_onnx = onnx_layers(write_onnx(graph), x, names)
    for row, window in enumerate(x):
        for got in (tflite_layers(write_tflite(graph), window), {n: v[row] for n, v in of_onnx.items()}):
            found = worst(graph, window, got)
            assert len(found) == 30
            assert max(found.values()) < 1e-4, found


def test_swapped_axes_are_seen_at_the_layer_where_they_are(square: Any) -> None:
    _, graph, x = square
    assert np.abs(x[0] - x[0].T).max() > 0.5
    at = next(i for i, op in enumerate(graph.ops) if op.name == "blocks.0.conv1")
    assert graph.ops[at].kind == CONV
    assert graph.ops[at].weight.shape == (16, 3, 16)
    swapped = replace(graph.ops[at], weight=graph.ops[at].weight.transpose(2, 1, 0).copy())
    wrong = replace(graph, ops=(*graph.ops[:at], swapped, *graph.ops[at + 1 :]))
    names = [*computed(graph)[:-1], "logits"]
    of_onnx = {n: v[0] for n, v in onnx_layers(write_onnx(wrong), x[:1], names).items()}
    for got in (tflite_layers(write_tflite(wrong), x[0]), of_onnx):
        found = worst(graph, x[0], got)
        assert next(name for name, difference in found.items() if difference > 0.1) == "blocks.0.conv1"
    # Windows and transposed windows are told apart although their shapes are equal.
    assert worst(graph, x[0], tflite_layers(write_tflite(graph), x[0].T))["stem"] > 0.1


def test_the_int8_files_follow_at_every_layer(square: Any) -> None:
    """Both int8 files, tensor by tensor: a few steps from each other, and near the float values."""
    _, graph, x = square
    graph, ranges = calibrated(graph, noise(128, SQUARE, SIZE, seed=3))
    content = write_int8(graph, ranges)
    names = [*computed(graph)[:-1], "logits"]
    of_onnx = onnx_layers(write_onnx_int8(graph, content), x[:1], names)
    of_tflite = tflite_layers(content, x[0])
    truth, grids = graph.evaluate(x[0]), grids_of(ranges)
    for name in computed(graph):
        file_name = "logits" if name == graph.ops[-1].name else name
        step = float(grids[name].scale)
        first, second = of_tflite[file_name].squeeze(), of_onnx[file_name].squeeze()
        assert np.abs(first - second).max() <= 8.5 * step, name
        low, high = ranges[name]
        inside = np.clip(truth[name], low, high)
        assert np.sqrt(np.mean((first - inside) ** 2)) < 0.1 * max(np.std(inside), step), name
