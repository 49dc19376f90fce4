"""Writing a deploy form as one ONNX file: float32, channels first, any batch size."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from topokd_edge.files import write_bytes
from topokd_export.deploy import ADD, DENSE, INPUT, MEAN, PAD, SCALE, DeployGraph, Op, deploy_form

if TYPE_CHECKING:
    from topokd_edge.models.wrn import WideResNet

OPSET, IR_VERSION = 18, 10
INPUT_NAME, OUTPUT_NAME = "windows", "logits"


def write_onnx(graph: DeployGraph, metadata: Mapping[str, str] | None = None) -> bytes:
    """Return an ONNX model from `windows` (batch, channels, length) to `logits` (batch, classes).

    For an image teacher the input is (batch, channels, height, width). Weights are inside; no
    BatchNormalization is left.

    Parameters
    ----------
    graph
        A deploy form.
    metadata
        Written to `metadata_props`, in this order.
    """
    import onnx
    from onnx import TensorProto, helper

    nodes: list[Any] = []
    constants: list[Any] = []
    source = {INPUT: INPUT_NAME}
    for op in graph.ops:
        if op.kind == PAD:  # an attribute of the convolution here
            source[op.name] = source[op.inputs[0]]
            continue
        last = op is graph.ops[-1]
        source[op.name] = OUTPUT_NAME if last else op.name
        made, used = _node(op, len(graph.size), [source[name] for name in op.inputs], source[op.name])
        nodes += made
        constants += used
    first = helper.make_tensor_value_info(
        INPUT_NAME, TensorProto.FLOAT, ["batch", graph.channels, *graph.size]
    )
    logits = helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, ["batch", graph.classes])
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


def _node(op: Op, dims: int, inputs: list[str], output: str) -> tuple[list[Any], list[Any]]:
    """Return the nodes that compute `op` and their constants."""
    from onnx import helper, numpy_helper

    if op.kind == ADD:
        return [helper.make_node("Add", inputs, [output], name=op.name)], []
    if op.kind == MEAN:
        axes = numpy_helper.from_array(np.arange(2, 2 + dims), f"{op.name}.axes")
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
    constants = [
        numpy_helper.from_array(weight, f"{op.name}.weight"),
        numpy_helper.from_array(bias, f"{op.name}.bias"),
    ]
    linear = f"{op.name}.linear" if op.relu else output
    names = [*inputs, *(constant.name for constant in constants)]
    nodes = [helper.make_node(kind, names, [linear], op.name, **attributes)]
    if op.relu:
        nodes.append(helper.make_node("Relu", [linear], [output], f"{op.name}.relu"))
    return nodes, constants


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
