"""Writing a deploy form as one ONNX file: float32, channels first, any batch size or a fixed one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from topokd_edge.files import write_bytes
from topokd_export.deploy import ADD, DENSE, INPUT, MEAN, PAD, SCALE, DeployGraph, Op, deploy_form

if TYPE_CHECKING:
    from topokd_edge.models.wrn import WideResNet

OPSET, IR_VERSION = 18, 10
INPUT_NAME, OUTPUT_NAME = "windows", "logits"


def write_onnx(
    graph: DeployGraph, metadata: Mapping[str, str] | None = None, batch: int | None = None
) -> bytes:
    """Return an ONNX model from `windows` (batch, channels, length) to `logits` (batch, classes).

    For an image teacher the input is (batch, channels, height, width). Weights are inside; no
    BatchNormalization is left.

    Parameters
    ----------
    graph
        A deploy form.
    metadata
        Written to `metadata_props`, in this order.
    batch
        Fixed number of windows, for tools that need static shapes; None takes any number.
    """
    nodes: list[Any] = []
    constants: list[Any] = []
    source = {INPUT: INPUT_NAME}
    for op in graph.ops:
        if op.kind == PAD:  # an attribute of the convolution here
            source[op.name] = source[op.inputs[0]]
            continue
        last = op is graph.ops[-1]
        source[op.name] = OUTPUT_NAME if last else op.name
        made, used = node_of(op, len(graph.size), [source[name] for name in op.inputs], source[op.name])
        nodes += made
        constants += used
    return assemble(graph, nodes, constants, metadata, batch)


def assemble(
    graph: DeployGraph,
    nodes: list[Any],
    constants: list[Any],
    metadata: Mapping[str, str] | None,
    batch: int | None,
) -> bytes:
    """Return the bytes of a model of `nodes`, checked; see `write_onnx`."""
    import onnx
    from onnx import TensorProto, helper

    axis = "batch" if batch is None else batch
    first = helper.make_tensor_value_info(INPUT_NAME, TensorProto.FLOAT, [axis, graph.channels, *graph.size])
    logits = helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, [axis, graph.classes])
    model = helper.make_model(
        helper.make_graph(nodes, "student", [first], [logits], initializer=constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="topokd-edge",
    )
    for key, value in (metadata or {}).items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def constant(values: npt.NDArray[Any], name: str) -> Any:
    """Return an initializer."""
    from onnx import numpy_helper

    return numpy_helper.from_array(values, name)


def node_of(op: Op, dims: int, inputs: list[str], output: str) -> tuple[list[Any], list[Any]]:
    """Return the nodes that compute `op`, and their constants: weight, then bias."""
    from onnx import helper

    linear = f"{op.name}.linear" if op.relu else output
    relu = [helper.make_node("Relu", [linear], [output], f"{op.name}.relu")] if op.relu else []
    if op.kind == ADD:
        return [helper.make_node("Add", inputs, [linear], name=op.name), *relu], []
    if op.kind == MEAN:
        axes = constant(np.arange(2, 2 + dims), f"{op.name}.axes")
        return [helper.make_node("ReduceMean", [*inputs, axes.name], [output], op.name, keepdims=0)], [axes]
    weight, bias = op.parameters
    attributes: dict[str, Any]
    if op.kind == DENSE:
        kind, attributes = "Gemm", {"transB": 1}
    elif op.kind == SCALE:
        weight = weight.reshape(-1, *[1] * (dims + 1))
        kind, attributes = "Conv", {"group": len(weight)}
    else:
        kernel = weight.shape[1]
        weight = np.ascontiguousarray(np.moveaxis(weight, -1, 1))
        kind, attributes = "Conv", {"strides": [op.stride] * dims, "pads": [(kernel - 1) // 2] * (2 * dims)}
    constants = [constant(weight, f"{op.name}.weight"), constant(bias, f"{op.name}.bias")]
    names = [*inputs, *(item.name for item in constants)]
    return [helper.make_node(kind, names, [linear], op.name, **attributes), *relu], constants


def export_onnx(model: WideResNet, size: tuple[int, ...], path: Path) -> None:
    """Write any WideResNet, also an image teacher, as one ONNX file.

    Parameters
    ----------
    model
        The network; its inference form is written, whatever mode it is in.
    size
        (length,) or (height, width) of its input.
    path
        The file to write; an existing one is replaced.
    """
    write_bytes(path, write_onnx(deploy_form(model, size)))
