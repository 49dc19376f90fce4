"""Writing a deploy form as a float32 TFLite file, straight into the flatbuffer: same graph, same bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from topokd_export.deploy import ADD, CONV, DENSE, INPUT, MEAN, PAD, SCALE, DeployGraph, Op
from topokd_export.tflite_pack import pack_tflite

INPUT_NAME, OUTPUT_NAME, SIGNATURE = "x", "logits", "serving_default"
_OPERATORS = {
    CONV: "CONV_2D",
    SCALE: "DEPTHWISE_CONV_2D",
    ADD: "ADD",
    PAD: "PAD",
    MEAN: "MEAN",
    DENSE: "FULLY_CONNECTED",
}


def write_tflite(graph: DeployGraph) -> bytes:
    """Return a float32 TFLite model with input `x` and output `logits` (1, classes).

    The input is (1, 1, length, channels) for windows, (1, height, width, channels) for images.

    Operators: CONV_2D, DEPTHWISE_CONV_2D, ADD, PAD, MEAN and FULLY_CONNECTED only.
    """
    return pack_tflite(_Model(graph).build())


class _Model:
    """The tensors, buffers and operators of one subgraph."""

    def __init__(self, graph: DeployGraph) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self._schema = schema
        self._graph = graph
        self._buffers = [schema.BufferT()]  # by the format's rule buffer 0 is the empty one
        self._tensors: list[Any] = []
        self._index: dict[str, int] = {}
        self._codes = sorted({_OPERATORS[op.kind] for op in graph.ops})

    def build(self) -> Any:
        self._tensor(INPUT, INPUT_NAME, _four((*self._graph.size, self._graph.channels)))
        operators = [self._operator(op) for op in self._graph.ops]
        first, last = self._index[INPUT], self._index[self._graph.ops[-1].name]
        subgraph = self._schema.SubGraphT()
        subgraph.name, subgraph.tensors, subgraph.operators = "main", self._tensors, operators
        subgraph.inputs, subgraph.outputs = [first], [last]
        model = self._schema.ModelT()
        model.version, model.description = 3, "topokd-edge student"
        model.operatorCodes = [self._code(name) for name in self._codes]
        model.subgraphs, model.buffers = [subgraph], self._buffers
        model.signatureDefs = [self._signature(first, last)]
        return model

    def _operator(self, op: Op) -> Any:
        operator = self._schema.OperatorT()
        operator.opcodeIndex = self._codes.index(_OPERATORS[op.kind])
        operator.inputs = [self._index[name] for name in op.inputs] + self._constants(op)
        shape = _four(op.shape) if len(op.shape) > 1 else (1, *op.shape)
        is_last = op is self._graph.ops[-1]
        operator.outputs = [self._tensor(op.name, OUTPUT_NAME if is_last else op.name, shape)]
        self._set_options(operator, op)
        return operator

    def _constants(self, op: Op) -> list[int]:
        if op.kind == PAD:
            height = int(len(op.shape) == 3)
            pads = np.array([[0, 0], [height, height], [1, 1], [0, 0]], dtype=np.int32)
            return [self._constant(f"{op.name}/pads", pads)]
        if op.kind == MEAN:
            return [self._constant(f"{op.name}/axes", np.array([1, 2], dtype=np.int32))]
        if op.weight is None:
            return []
        weight, bias = op.parameters
        if op.kind == CONV and weight.ndim == 3:
            weight = weight[:, None]
        elif op.kind == SCALE:
            weight = weight[None, None, None]
        return [
            self._constant(f"{op.name}/weight", weight),
            self._constant(f"{op.name}/bias", bias),
        ]

    def _set_options(self, operator: Any, op: Op) -> None:
        schema = self._schema
        name = {
            CONV: "Conv2DOptions",
            SCALE: "DepthwiseConv2DOptions",
            ADD: "AddOptions",
            PAD: "PadOptions",
            MEAN: "ReducerOptions",
            DENSE: "FullyConnectedOptions",
        }[op.kind]
        options = getattr(schema, f"{name}T")()
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, name)
        operator.builtinOptions = options
        if op.kind in (CONV, SCALE):
            options.padding = schema.Padding.SAME if op.stride == 1 else schema.Padding.VALID
            # A height of 1 has one output row at any stride; equal strides are the ones every kernel has.
            options.strideW = options.strideH = op.stride
            options.dilationWFactor = options.dilationHFactor = 1
        if op.kind == SCALE:
            options.depthMultiplier = 1
        if op.kind != PAD and op.kind != MEAN:
            activations = schema.ActivationFunctionType
            options.fusedActivationFunction = activations.RELU if op.relu else activations.NONE
        if op.kind == MEAN:
            options.keepDims = False

    def _tensor(self, key: str, name: str, shape: tuple[int, ...], buffer: int = 0, kind: int = 0) -> int:
        tensor = self._schema.TensorT()
        tensor.name, tensor.shape, tensor.buffer, tensor.type = name, list(shape), buffer, kind
        self._tensors.append(tensor)
        self._index[key] = len(self._tensors) - 1
        return self._index[key]

    def _constant(self, name: str, values: npt.NDArray[Any]) -> int:
        types = self._schema.TensorType
        kind = types.INT32 if values.dtype == np.int32 else types.FLOAT32
        buffer = self._schema.BufferT()
        little_endian = values.astype(values.dtype.newbyteorder("<"))
        buffer.data = np.frombuffer(little_endian.tobytes(), dtype=np.uint8)
        self._buffers.append(buffer)
        return self._tensor(name, name, values.shape, len(self._buffers) - 1, kind)

    def _code(self, name: str) -> Any:
        code = self._schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = getattr(self._schema.BuiltinOperator, name)
        code.version = 1
        return code

    def _signature(self, first: int, last: int) -> Any:
        signature = self._schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = SIGNATURE, 0
        signature.inputs = [self._named(INPUT_NAME, first)]
        signature.outputs = [self._named(OUTPUT_NAME, last)]
        return signature

    def _named(self, name: str, tensor: int) -> Any:
        entry = self._schema.TensorMapT()
        entry.name, entry.tensorIndex = name, tensor
        return entry


def _four(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return (1, height, width, channels), where a window has height 1."""
    return (1,) * (4 - len(shape)) + shape
