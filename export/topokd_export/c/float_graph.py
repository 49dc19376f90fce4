"""A float network as layers of C, read from an ONNX file of `topokd_export.onnx_writer`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from topokd_edge.errors import BadInputError

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Activation:
    """A tensor of float32: rows of columns of channels. A signal has one column, and a row per time step."""

    name: str
    rows: int
    columns: int
    channels: int

    @property
    def row_values(self) -> int:
        """Values of one row."""
        return self.columns * self.channels

    @property
    def values(self) -> int:
        """All of them."""
        return self.rows * self.row_values

    @property
    def bytes(self) -> int:
        """Its size."""
        return 4 * self.values


@dataclass(frozen=True)
class FloatConv:
    """A convolution, weight (out, taps of rows, of columns, in); a dense layer is one of a single pixel."""

    name: str
    inputs: tuple[str, ...]
    output: Activation
    source: Activation
    weight: Float32
    bias: Float32
    stride: int = 1
    padding: int = 0
    relu: bool = False

    @property
    def taps(self) -> int:
        """Rows that an output reads."""
        return int(self.weight.shape[1])

    @property
    def lead(self) -> int:
        """Values of padding before a row: a signal, one column wide, has none."""
        return self.padding * self.source.channels if self.weight.shape[2] > 1 else 0

    @property
    def row_values(self) -> int:
        """Values of an input row with its padding."""
        return self.source.row_values + 2 * self.lead

    @property
    def segments(self) -> tuple[int, int]:
        """Pieces that an output's inputs lie in, and the length of one."""
        length = int(self.weight.shape[2]) * self.source.channels
        return (1, self.taps * length) if length == self.row_values else (self.taps, length)


@dataclass(frozen=True)
class FloatScale:
    """Per channel x * weight + bias."""

    name: str
    inputs: tuple[str, ...]
    output: Activation
    weight: Float32
    bias: Float32
    relu: bool = False


@dataclass(frozen=True)
class FloatAdd:
    """Sum of two tensors."""

    name: str
    inputs: tuple[str, ...]
    output: Activation
    relu: bool = False


@dataclass(frozen=True)
class FloatMean:
    """Mean over all pixels."""

    name: str
    inputs: tuple[str, ...]
    output: Activation
    source: Activation


FloatLayer = FloatConv | FloatScale | FloatAdd | FloatMean


@dataclass(frozen=True)
class FloatGraph:
    """Layers in the order they run; the last one gives the logits."""

    input: Activation
    layers: tuple[FloatLayer, ...]

    @property
    def classes(self) -> int:
        """Number of logits."""
        return self.layers[-1].output.channels


def read_float_graph(content: bytes) -> FloatGraph:
    """Read a student or teacher, in one or two dimensions, from an ONNX file that `onnx_writer` wrote.

    Parameters
    ----------
    content
        Of the file.

    Raises
    ------
    BadInputError
        When it is not an ONNX file, or has something that the C kernels do not; all of it is named.
    """
    import onnx

    try:
        graph = onnx.load_model_from_string(content).graph
    except Exception as error:  # of protobuf, whose own error has no types
        raise BadInputError(f"not an ONNX file: {error}") from None
    reader = _Reader({item.name: onnx.numpy_helper.to_array(item) for item in graph.initializer})
    shape = [item.dim_value for item in graph.input[0].type.tensor_type.shape.dim] if graph.input else []
    if len(shape) not in (3, 4) or 0 in shape[1:]:
        raise BadInputError(f"a float network for C: input of shape {shape}, expected (any, channels, size)")
    channels, rows, columns = (*shape[1:], 1)[:3]
    first = reader.add(Activation(graph.input[0].name, rows, columns, channels))
    for node in graph.node:
        attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
        reader.read(node.op_type, node.name, list(node.input), node.output[0], attributes)
    if reader.problems:
        raise BadInputError(
            "a float network has what the C kernels do not",
            problems=reader.problems,
            hint="give a file that topokd-edge export wrote",
        )
    return FloatGraph(first, tuple(reader.layers))


class _Reader:
    """Collects layers, the activations they give, and what is not understood."""

    def __init__(self, constants: Mapping[str, npt.NDArray[Any]]) -> None:
        self.layers: list[FloatLayer] = []
        self.problems: list[str] = []
        self._constants = constants
        self._there: dict[str, Activation] = {}

    def add(self, activation: Activation) -> Activation:
        self._there[activation.name] = activation
        return activation

    def read(
        self, kind: str, name: str, inputs: list[str], output: str, attributes: Mapping[str, Any]
    ) -> None:
        """Add the layer of a node; note what is wrong with it."""
        readers = {
            "Conv": self._conv,
            "Gemm": self._dense,
            "Add": self._sum,
            "ReduceMean": self._mean,
            "Relu": self._relu,
        }
        if kind not in readers:
            self.problems.append(f"{name or output}: operator {kind}, expected {', '.join(readers)}")
            return
        if inputs[0] not in self._there:
            if not self.problems:
                self.problems.append(f"{name or output}: reads {inputs[0]}, which no layer gives")
            return
        try:
            readers[kind](name or output, inputs, output, attributes)
        except ValueError as error:
            self.problems.append(f"{name or output}: {kind} with {error}")

    def _conv(self, name: str, inputs: list[str], output: str, attributes: Mapping[str, Any]) -> None:
        source, weight = self._there[inputs[0]], self._constants[inputs[1]].astype(np.float32)
        bias = self._bias(inputs, len(weight))
        group, kernel = attributes.get("group", 1), weight.shape[2:]
        strides, pads = attributes.get("strides", [1]), attributes.get("pads", [0])
        stride, padding = int(strides[0]), int(pads[0])
        _expect(len(set(strides)) == 1 and len(set(pads)) == 1, f"strides {strides} and padding {pads}")
        _expect(set(attributes.get("dilations", [1])) == {1}, "dilation")
        _expect("auto_pad" not in attributes, "auto_pad")
        if group > 1:
            plain = (
                group == source.channels == len(weight) and set(kernel) == {1} and (stride, padding) == (1, 0)
            )
            _expect(plain, f"{group} groups and kernel {list(kernel)}")
            shape = replace(source, name=output)
            self.layers.append(FloatScale(name, (inputs[0],), self.add(shape), weight.ravel(), bias))
            return
        weight = np.moveaxis(weight if weight.ndim == 4 else weight[..., None], 1, -1)
        sizes = [
            (size + 2 * (padding if taps > 1 else 0) - taps) // stride + 1
            for size, taps in zip((source.rows, source.columns), weight.shape[1:3], strict=True)
        ]
        _expect(
            len(set(kernel)) == 1 and kernel[0] == 2 * padding + 1,
            f"kernel {list(kernel)}, padding {padding}",
        )
        _expect(
            weight.shape[3] == source.channels and min(sizes) > 0, "another number of channels or samples"
        )
        shape = Activation(output, sizes[0], sizes[1], len(weight))
        self.layers.append(
            FloatConv(name, (inputs[0],), self.add(shape), source, weight, bias, stride, padding)
        )

    def _dense(self, name: str, inputs: list[str], output: str, attributes: Mapping[str, Any]) -> None:
        source, weight = self._there[inputs[0]], self._constants[inputs[1]].astype(np.float32)
        plain = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 1}
        found = {**plain, "transB": 0, **attributes}
        _expect(found == plain, f"{found}, expected {plain}")
        _expect(source.rows * source.columns == 1 and weight.shape[1] == source.channels, "another input")
        shape = self.add(Activation(output, 1, 1, len(weight)))
        bias = self._bias(inputs, len(weight))
        self.layers.append(FloatConv(name, (inputs[0],), shape, source, weight[:, None, None, :], bias))

    def _sum(self, name: str, inputs: list[str], output: str, attributes: Mapping[str, Any]) -> None:
        first, second = (self._there.get(item) for item in inputs)
        _expect(first is not None and second is not None, "a constant")
        assert first is not None and second is not None
        _expect(replace(first, name="") == replace(second, name=""), "tensors of two shapes")
        self.layers.append(FloatAdd(name, tuple(inputs), self.add(replace(first, name=output))))

    def _mean(self, name: str, inputs: list[str], output: str, attributes: Mapping[str, Any]) -> None:
        source = self._there[inputs[0]]
        axes = sorted(self._constants[inputs[1]].tolist()) if len(inputs) > 1 else []
        _expect(axes in ([2], [2, 3]) and attributes.get("keepdims", 1) == 0, f"axes {axes}")
        _expect(axes == [2, 3] or source.columns == 1, f"axes {axes}")
        shape = self.add(Activation(output, 1, 1, source.channels))
        self.layers.append(FloatMean(name, (inputs[0],), shape, source))

    def _relu(self, name: str, inputs: list[str], output: str, attributes: Mapping[str, Any]) -> None:
        """Fuse it into the layer just before, which nobody else reads."""
        last = self.layers[-1] if self.layers else None
        _expect(last is not None and last.output.name == inputs[0], "an input that is not the layer before")
        assert last is not None
        if isinstance(last, FloatMean):
            raise ValueError("a mean before it")
        shape = replace(self._there.pop(inputs[0]), name=output)
        self.layers[-1] = replace(last, output=self.add(shape), relu=True)

    def _bias(self, inputs: list[str], channels: int) -> Float32:
        if len(inputs) < 3:
            return np.zeros(channels, np.float32)
        return self._constants[inputs[2]].astype(np.float32)


def _expect(condition: bool, found: str) -> None:
    if not condition:
        raise ValueError(found)
