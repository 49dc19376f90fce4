"""Reading an int8 TFLite student into an integer graph.

The formulas of multipliers and shifts are those of TensorFlow Lite (kernels/internal/quantization_util and
the Prepare of each kernel), in the same precision, so that the answers have the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from topokd_edge.errors import BadInputError
from topokd_export.c.integer_graph import (
    FAST_SHIFTS,
    INT8_HIGH,
    INT8_LOW,
    Add,
    Conv,
    Int8,
    IntegerGraph,
    Layer,
    Mean,
    Rescale,
    Scale,
    Tensor,
)

ADD_LEFT_SHIFT = 20
_INT32_MAX = 2**31 - 1
_LONGEST, _LARGEST_STEP = 32_000, 127
"""Rows and channels are 16 bits in C, taps and strides 8."""


def read_integer_graph(content: bytes) -> IntegerGraph:
    """Read a full-integer TFLite student.

    Parameters
    ----------
    content
        The model: int8 weights per channel, int8 activations, int32 bias, windows of height 1.

    Raises
    ------
    BadInputError
        With every operator, option or tensor that the C kernels do not have, by name.
    """
    from ai_edge_litert import schema_py_generated as schema

    if content[4:8] != b"TFL3":
        raise BadInputError("not a TFLite model (no TFL3 identifier)")
    reader = _Reader(schema.ModelT.InitFromPackedBuf(content, 0), schema)
    graph = reader.read()
    if reader.problems:
        raise BadInputError(
            "the int8 model has parts that the C kernels do not know",
            problems=reader.problems,
            hint="export the TFLite file only: --targets tflite",
        )
    return graph


def quantised_multiplier(value: float) -> tuple[int, int]:
    """Return (multiplier, shift) with value = multiplier * 2**(shift - 31), multiplier in 2**30..2**31-1.

    As TensorFlow Lite's QuantizeMultiplier; 0 <= value.
    """
    if value == 0:
        return 0, 0
    fraction, shift = math.frexp(value)
    multiplier = math.floor(fraction * 2**31 + 0.5)
    if multiplier == 2**31:
        multiplier, shift = 2**30, shift + 1
    return (0, 0) if shift < -31 else (multiplier, shift)


class _Reader:
    """Reads operator by operator and collects what is not supported."""

    def __init__(self, model: Any, schema: Any) -> None:
        self._model, self._graph, self._schema = model, model.subgraphs[0], schema
        self.problems: list[str] = []
        self._padded: dict[int, tuple[int, int]] = {}  # output of PAD -> its input, rows before

    def read(self) -> IntegerGraph:
        readers: dict[str, Callable[[Any, str], Layer | None]] = {
            "CONV_2D": self._conv,
            "DEPTHWISE_CONV_2D": self._scale,
            "ADD": self._add,
            "PAD": self._pad,
            "MEAN": self._mean,
            "FULLY_CONNECTED": self._dense,
        }
        names = {v: k for k, v in vars(self._schema.BuiltinOperator).items() if isinstance(v, int)}
        layers = []
        for operator in self._graph.operators:
            kind = names[self._model.operatorCodes[operator.opcodeIndex].builtinCode]
            name = self._name(operator.outputs[0])
            if kind not in readers:
                self.problems.append(f"{name}: operator {kind}, known are {', '.join(readers)}")
                continue
            layer = readers[kind](operator, name)
            if layer is not None:
                layers.append(layer)
        return IntegerGraph(self._tensor(self._graph.inputs[0]), tuple(layers))

    def _conv(self, operator: Any, name: str) -> Conv | None:
        options = operator.builtinOptions
        source, padding = self._padded.get(operator.inputs[0], (operator.inputs[0], 0))
        x, out = self._tensor(source), self._tensor(operator.outputs[0])
        weight = self._constant(operator.inputs[1])
        self._require(name, weight.shape[1] == 1, f"kernel height {weight.shape[1]}, known is 1")
        self._require(name, options.dilationWFactor == 1, f"dilation {options.dilationWFactor}, known is 1")
        taps, stride = weight.shape[2], int(options.strideW)
        if options.padding == self._schema.Padding.SAME:
            self._require(name, source == operator.inputs[0], "padded twice")
            padding = max(0, (out.rows - 1) * stride + taps - x.rows) // 2
        bias = self._bias(operator)
        rescale = self._rescale(operator, name, x, out)
        return self._checked_conv(
            name, x, out, np.ascontiguousarray(weight[:, 0]), bias, rescale, stride, padding
        )

    def _dense(self, operator: Any, name: str) -> Conv | None:
        x, out = self._tensor(operator.inputs[0]), self._tensor(operator.outputs[0])
        weight = self._constant(operator.inputs[1])
        self._require(name, x.rows == 1, f"{x.rows} rows, known is 1")
        rescale = self._rescale(operator, name, x, out, dense=True)
        return self._checked_conv(name, x, out, weight[:, None], self._bias(operator), rescale, 1, 0)

    def _checked_conv(
        self,
        name: str,
        x: Tensor,
        out: Tensor,
        weight: Int8,
        bias: npt.NDArray[np.int64],
        rescale: Rescale,
        stride: int,
        padding: int,
    ) -> Conv | None:
        self._require(name, weight.shape[2] == x.channels, f"{weight.shape[2]} of {x.channels} channels")
        steps = max(weight.shape[1], stride, padding)
        self._require(name, steps <= _LARGEST_STEP, f"{steps} taps or rows, known are up to {_LARGEST_STEP}")
        flat = weight.reshape(len(weight), -1).astype(np.int64)
        folded = bias - x.zero_point * flat.sum(axis=1)
        rescale = self._bounded(name, rescale, folded, np.abs(flat).sum(axis=1))
        return Conv(
            name, (x.name,), out, weight, folded.astype(np.int32), rescale, x.rows, stride, padding,
            x.zero_point,
        )  # fmt: skip

    def _scale(self, operator: Any, name: str) -> Scale | None:
        x, out = self._tensor(operator.inputs[0]), self._tensor(operator.outputs[0])
        weight = self._constant(operator.inputs[1])
        self._require(
            name, weight.shape[:3] == (1, 1, 1), f"depthwise kernel {weight.shape[1:3]}, known is 1x1"
        )
        self._require(name, operator.builtinOptions.strideW == 1, "depthwise stride, known is 1")
        self._require(name, x.channels == out.channels, "depth multiplier, known is 1")
        flat = weight.reshape(-1)[: x.channels]
        bias = self._bias(operator) - x.zero_point * flat.astype(np.int64)
        rescale = self._rescale(operator, name, x, out)
        rescale = self._bounded(name, rescale, bias, np.abs(flat.astype(np.int64)))
        return Scale(name, (x.name,), out, flat, bias.astype(np.int32), rescale)

    def _add(self, operator: Any, name: str) -> Add | None:
        a, b = (self._tensor(index) for index in operator.inputs)
        out = self._tensor(operator.outputs[0])
        self._require(name, (a.rows, a.channels) == (b.rows, b.channels), "tensors of unlike shapes")
        if a.scale > b.scale:  # a sum has no order, and the coarser one needs only a shift
            a, b = b, a
        twice = 2.0 * b.scale
        first, second = (quantised_multiplier(tensor.scale / twice) for tensor in (a, b))
        multiplier, shift = quantised_multiplier(twice / ((1 << ADD_LEFT_SHIFT) * out.scale))
        self._require(name, shift <= 0, "an output scale too fine for its inputs")
        low, high = self._activation(operator, name, out)
        return Add(
            name, (a.name, b.name), out, (a.zero_point, b.zero_point), (first[0], second[0]),
            (first[1], second[1]), multiplier, shift, low, high,
        )  # fmt: skip

    def _pad(self, operator: Any, name: str) -> None:
        pads = self._constant(operator.inputs[1])
        x, out = (self._tensor(index) for index in (operator.inputs[0], operator.outputs[0]))
        self._require(name, pads.shape == (4, 2) and not pads[[0, 1, 3]].any(), "padding across other axes")
        self._require(name, (x.scale, x.zero_point) == (out.scale, out.zero_point), "a change of scale")
        readers = [op for op in self._graph.operators if operator.outputs[0] in op.inputs]
        names = {self._model.operatorCodes[op.opcodeIndex].builtinCode for op in readers}
        self._require(
            name, names == {self._schema.BuiltinOperator.CONV_2D}, "a reader that is no convolution"
        )
        self._padded[operator.outputs[0]] = (operator.inputs[0], int(pads[2, 0]))

    def _mean(self, operator: Any, name: str) -> Mean | None:
        x, out = self._tensor(operator.inputs[0]), self._tensor(operator.outputs[0])
        axes = set(np.atleast_1d(self._constant(operator.inputs[1])).tolist())
        self._require(name, axes in ({1, 2}, {2}), f"axes {sorted(axes)}, known is time")
        multiplier, shift = quantised_multiplier(x.scale / out.scale)
        # The division by the number of rows goes into the multiplier, with as many bits as it has room for.
        room = min(x.rows.bit_length() - 1, 32, 31 + shift)
        multiplier, shift = (multiplier << room) // x.rows, shift - room
        self._require(name, (x.rows * 255) << max(shift, 0) <= _INT32_MAX, "sums that may overflow 32 bits")
        return Mean(name, (x.name,), out, x.zero_point, x.rows, multiplier, shift)

    def _rescale(self, operator: Any, name: str, x: Tensor, out: Tensor, *, dense: bool = False) -> Rescale:
        scales = np.asarray(self._graph.tensors[operator.inputs[1]].quantization.scale, dtype=np.float64)
        if len(scales) == 1 and dense:
            # One scale for a whole dense layer: TensorFlow Lite multiplies the two in float32.
            product = np.float32(x.scale) * np.float32(scales[0])
            effective = np.full(out.channels, np.float64(product) / out.scale)
        else:
            effective = np.broadcast_to(x.scale * scales / out.scale, out.channels)
        pairs = [quantised_multiplier(float(value)) for value in effective]
        low, high = self._activation(operator, name, out)
        multiplier, shift = (np.array(part) for part in zip(*pairs, strict=True))
        fast = all(value in FAST_SHIFTS for value in shift.tolist())
        fast = fast and (low, high) == (INT8_LOW, INT8_HIGH)
        return Rescale(multiplier.astype(np.int32), shift.astype(np.int8), out.zero_point, low, high, fast)

    def _bounded(
        self, name: str, rescale: Rescale, bias: npt.NDArray[np.int64], weights: npt.NDArray[np.int64]
    ) -> Rescale:
        """Refuse sums that may overflow 32 bits; keep `fast` only where twice the sum fits too."""
        largest = np.abs(bias) + 128 * weights
        shifted = largest << np.maximum(rescale.shift, 0).astype(np.int64)
        self._require(name, int(shifted.max()) <= _INT32_MAX, "sums that may overflow 32 bits")
        fast = rescale.fast and int(2 * largest.max()) <= _INT32_MAX
        return replace(rescale, fast=fast)

    def _activation(self, operator: Any, name: str, out: Tensor) -> tuple[int, int]:
        kind, kinds = operator.builtinOptions.fusedActivationFunction, self._schema.ActivationFunctionType
        self._require(name, kind in (kinds.NONE, kinds.RELU), f"activation {kind}, known are none and ReLU")
        return (max(INT8_LOW, out.zero_point) if kind == kinds.RELU else INT8_LOW), INT8_HIGH

    def _bias(self, operator: Any) -> npt.NDArray[np.int64]:
        count = self._tensor(operator.outputs[0]).channels
        if len(operator.inputs) < 3 or operator.inputs[2] < 0:
            return np.zeros(count, dtype=np.int64)
        return self._constant(operator.inputs[2]).astype(np.int64)

    def _tensor(self, index: int) -> Tensor:
        tensor = self._graph.tensors[index]
        name, shape, numbers = self._name(index), [int(n) for n in tensor.shape], tensor.quantization
        rows = shape[-2] if len(shape) > 2 else 1
        known = math.prod(shape) == rows * shape[-1]
        self._require(name, known, f"shape {shape}, known is (1, 1, length, channels) or (1, channels)")
        self._require(name, max(rows, shape[-1]) <= _LONGEST, f"shape {shape}, known are up to {_LONGEST}")
        int8 = tensor.type == self._schema.TensorType.INT8
        self._require(
            name, int8 and numbers is not None and numbers.scale is not None, "not int8 with a scale"
        )
        if not int8 or numbers is None or numbers.scale is None:
            return Tensor(name, rows, shape[-1], 1.0, 0)
        return Tensor(name, rows, shape[-1], float(numbers.scale[0]), int(numbers.zeroPoint[0]))

    def _constant(self, index: int) -> npt.NDArray[Any]:
        tensor = self._graph.tensors[index]
        types = self._schema.TensorType
        kinds = {types.INT8: np.int8, types.INT32: np.int32}
        self._require(self._name(index), tensor.type in kinds, "a constant that is neither int8 nor int32")
        data = np.asarray(self._model.buffers[tensor.buffer].data, dtype=np.uint8)
        return data.view(kinds.get(tensor.type, np.int8)).reshape(tuple(int(n) for n in tensor.shape))

    def _require(self, name: str, ok: bool, problem: str) -> None:
        if not ok and f"{name}: {problem}" not in self.problems:
            self.problems.append(f"{name}: {problem}")

    def _name(self, index: int) -> str:
        name = self._graph.tensors[index].name
        return name.decode() if isinstance(name, bytes) else str(name)
