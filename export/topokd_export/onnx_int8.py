"""The int8 student as ONNX: the integers of its TFLite file between QuantizeLinear and DequantizeLinear.

Activations are uint8 (128 added to the zero points of TFLite), weights int8 per channel, biases int32: the
form that ONNX Runtime fuses to fast kernels on x86; with int8 activations it is slower than float32 there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from topokd_edge.errors import BadInputError
from topokd_export import tflite_writer
from topokd_export.deploy import INPUT, PAD, DeployGraph, Op
from topokd_export.onnx_writer import INPUT_NAME, OUTPUT_NAME, assemble, constant, node_of

_UINT8_SHIFT = 128


@dataclass(frozen=True)
class Integers:
    """A tensor of an int8 TFLite file: scales (one, or one for each channel), zero point, constant values."""

    scale: npt.NDArray[np.float32]
    zero_point: int
    values: npt.NDArray[Any] | None


def write_onnx_int8(
    graph: DeployGraph, content: bytes, metadata: Mapping[str, str] | None = None, batch: int | None = None
) -> bytes:
    """Return the QDQ model of a deploy form, float32 at both ends, with the integers of its TFLite file.

    Parameters
    ----------
    graph
        The deploy form that `content` was written from.
    content
        The int8 TFLite model, which defines every scale, zero point and weight.
    metadata, batch
        See `topokd_export.onnx_writer.write_onnx`.

    Raises
    ------
    BadInputError
        When the file is not that of the graph.
    """
    from onnx import helper

    tensors = read_integers(content)
    names = {INPUT: tflite_writer.INPUT_NAME, graph.ops[-1].name: tflite_writer.OUTPUT_NAME}
    found = {name: names.get(name, name) for name in (INPUT, *(op.name for op in graph.ops))}
    _refuse_other(graph, tensors, found)
    nodes: list[Any] = []
    constants: list[Any] = []
    source = {}

    def rounded(name: str, exact: str, out: str) -> None:
        """Put the tensor `exact` on the grid of `name`; readers take `out`."""
        numbers = tensors[found[name]]
        used = [
            constant(numbers.scale.reshape(()), f"{name}.scale"),
            constant(np.array(numbers.zero_point + _UINT8_SHIFT, np.uint8), f"{name}.zero_point"),
        ]
        grid = [item.name for item in used]
        nodes.append(helper.make_node("QuantizeLinear", [exact, *grid], [f"{name}.q"], f"{name}.quantise"))
        nodes.append(helper.make_node("DequantizeLinear", [f"{name}.q", *grid], [out], f"{name}.dequantise"))
        constants.extend(used)
        source[name] = out

    rounded(INPUT, INPUT_NAME, INPUT)
    for op in graph.ops:
        if op.kind == PAD:  # an attribute of the convolution here
            source[op.name] = source[op.inputs[0]]
            continue
        integer = _with_integers(op, tensors)
        made, used = node_of(
            integer, len(graph.size), [source[name] for name in op.inputs], f"{op.name}.exact"
        )
        before, stored = _stored(op, used, tensors)
        nodes += [*before, *made]
        constants += stored
        rounded(op.name, f"{op.name}.exact", OUTPUT_NAME if op is graph.ops[-1] else op.name)
    return assemble(graph, nodes, constants, metadata, batch)


def read_integers(content: bytes) -> dict[str, Integers]:
    """Return every quantised tensor of a TFLite model by name."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content, 0)
    kinds = {schema.TensorType.INT8: np.int8, schema.TensorType.INT32: np.int32}
    found = {}
    for tensor in model.subgraphs[0].tensors:
        numbers = tensor.quantization
        if tensor.type not in kinds or numbers is None or numbers.scale is None:
            continue
        data = model.buffers[tensor.buffer].data
        values = None
        if data is not None:
            little_endian = np.dtype(kinds[tensor.type]).newbyteorder("<")
            values = np.frombuffer(bytes(data), little_endian).reshape([int(n) for n in tensor.shape])
        scale = np.asarray(numbers.scale, dtype=np.float32)
        found[tensor.name.decode()] = Integers(scale, int(numbers.zeroPoint[0]), values)
    return found


def _with_integers(op: Op, tensors: Mapping[str, Integers]) -> Op:
    """Return the operator with the integers of its weight and bias."""
    if op.weight is None:
        return op
    weight, bias = (tensors[f"{op.name}/{part}"].values for part in ("weight", "bias"))
    if weight is None or bias is None:
        raise BadInputError(f"{op.name} has no weights in the int8 TFLite file")
    return replace(op, weight=weight.reshape(op.weight.shape), bias=bias)


def _stored(op: Op, used: list[Any], tensors: Mapping[str, Integers]) -> tuple[list[Any], list[Any]]:
    """Return nodes that give the weights and biases of `op` as real numbers, and the constants they read."""
    from onnx import helper

    if op.weight is None:
        return [], used
    nodes, constants = [], []
    for item, part in zip(used, ("weight", "bias"), strict=True):
        name, scale = str(item.name), tensors[f"{op.name}/{part}"].scale
        item.name = f"{name}.q"
        scales = constant(scale if len(scale) > 1 else scale.reshape(()), f"{name}.scale")
        axis = {"axis": 0} if len(scale) > 1 else {}
        nodes.append(
            helper.make_node(
                "DequantizeLinear", [item.name, scales.name], [name], f"{name}.dequantise", **axis
            )
        )
        constants += [item, scales]
    return nodes, constants


def _refuse_other(graph: DeployGraph, tensors: Mapping[str, Integers], found: Mapping[str, str]) -> None:
    named = [found[name] for name in (INPUT, *(op.name for op in graph.ops if op.kind != PAD))]
    named += [f"{op.name}/{part}" for op in graph.ops if op.weight is not None for part in ("weight", "bias")]
    missing = [name for name in named if name not in tensors]
    if missing:
        raise BadInputError("the int8 TFLite file is not that of this student", problems=missing)
    unlike = []
    for op in graph.ops:
        stored = None if op.weight is None else tensors[f"{op.name}/weight"].values
        if op.weight is not None and (stored is None or stored.size != op.weight.size):
            unlike.append(op.name)
    if unlike:
        raise BadInputError("the int8 TFLite file has weights of other shapes", problems=unlike)
