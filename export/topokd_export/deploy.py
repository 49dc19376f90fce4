"""The deploy form: the student's function rewritten as a short list of operators that every target has.

Channels last, static shapes, one window at a time. A BatchNorm behind a convolution is folded into it: the
second of each block, and all of them with activation after the sum. With activation before the convolutions,
the first of each block and the final one read a sum that is also passed on untouched, so they cannot be
folded; they become a per-channel scale and shift with a fused ReLU (a 1x1 depthwise convolution).
Where a convolution has stride 2 the padding is its own operator, because "same" padding there pads (0, 1)
in TFLite and (1, 1) in torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from topokd_edge.errors import BadInputError, UsageError

if TYPE_CHECKING:
    from topokd_edge.models.wrn import WideResNet

Array = npt.NDArray[np.float32]
Array64 = npt.NDArray[np.float64]

INPUT = "input"
CONV, SCALE, ADD, PAD, MEAN, DENSE = "conv", "scale", "add", "pad", "mean", "dense"
DEAD_CHANNEL_FLOOR = 1e-4
"""Smallest range of a channel's weights relative to its layer: below it an int32 bias can saturate."""


@dataclass(frozen=True)
class Op:
    """One operator; its output is a tensor of the same name.

    Attributes
    ----------
    kind
        CONV, SCALE (per channel x * weight + bias), ADD, PAD (one zero before and after along each axis),
        MEAN (over time, or over the image) or DENSE.
    name
        Name of the torch module whose value it computes, such as `blocks.0.conv1`.
    inputs
        Names of the tensors it reads.
    shape
        Of its output: (length, channels) or (height, width, channels), and (channels,) after MEAN.
    weight
        float32. CONV: (out, kernel, in) or (out, kernel, kernel, in); SCALE: (channels,); DENSE: (out, in).
    bias
        float32, (out,).
    stride
        CONV only; padding is (kernel - 1) / 2 on both sides at stride 1, none otherwise.
    relu
        Whether negative outputs become zero.
    """

    kind: str
    name: str
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    weight: Array | None = None
    bias: Array | None = None
    stride: int = 1
    relu: bool = False

    @property
    def parameters(self) -> tuple[Array, Array]:
        """Weight and bias of a CONV, SCALE or DENSE."""
        if self.weight is None or self.bias is None:
            raise ValueError(f"operator {self.name} of kind {self.kind} has no weights")
        return self.weight, self.bias


@dataclass(frozen=True)
class DeployGraph:
    """Operators in the order they run; the last one gives the logits.

    Attributes
    ----------
    size
        (length,) of a window, or (height, width) of an image.
    channels
        Of the one input, normalised, channels last.
    ops
        The operators.
    """

    size: tuple[int, ...]
    channels: int
    ops: tuple[Op, ...]

    @property
    def classes(self) -> int:
        """Number of logits."""
        return self.ops[-1].shape[0]

    def evaluate(self, window: Array) -> dict[str, Array]:
        """Compute every operator's output for one window, in double precision.

        Parameters
        ----------
        window
            Normalised, shape (channels, length) or (channels, height, width).

        Returns
        -------
        dict
            float32 by operator name, channels last; vectors after the pooling.
        """
        expected = (self.channels, *self.size)
        if window.shape != expected:
            raise BadInputError(f"a window has shape {window.shape}, expected {expected}")
        values = {INPUT: np.moveaxis(window, 0, -1).astype(np.float64)}
        for op in self.ops:
            out = _compute(op, [values[name] for name in op.inputs])
            values[op.name] = np.maximum(out, 0) if op.relu else out
        del values[INPUT]
        return {name: value.astype(np.float32) for name, value in values.items()}

    def with_floored_weights(self) -> DeployGraph:
        """Return the graph with dead channels given one small weight, for int8.

        A BatchNorm channel with gamma near 0 folds to weights near 0 and a bias that is not. Its weight scale
        is then so small that the int32 bias saturates, without a word. So the largest weight of each channel
        is kept at `DEAD_CHANNEL_FLOOR` of the layer's largest weight, and of the channel's bias, at least:
        far below what int8 resolves.
        """
        return replace(self, ops=tuple(op if op.weight is None else _floored(op) for op in self.ops))


def deploy_form(model: WideResNet, size: tuple[int, ...]) -> DeployGraph:
    """Rewrite a WideResNet for inputs of one size: (length,), or (height, width) for an image teacher.

    Raises
    ------
    UsageError
        When the model has another number of dimensions than `size`.
    BadInputError
        When it has weights that are not finite.
    """
    spec = model.spec
    if spec.dims != len(size):
        raise UsageError(f"a {spec.name} takes {spec.dims} dimensions, the size given is {size}")
    builder = _Builder(size, spec.in_channels)
    if model.bn is None:
        name = builder.conv("stem", INPUT, model.stem, norm=model.stem_bn, relu=True)
        for index, block in enumerate(model.blocks):
            name = _add_post_block(builder, f"blocks.{index}", name, block)
    else:
        name = builder.conv("stem", INPUT, model.stem)
        for index, block in enumerate(model.blocks):
            name = _add_block(builder, f"blocks.{index}", name, block)
        name = builder.scale("bn", name, model.bn)
    name = builder.add(Op(MEAN, "mean", (name,), builder.shapes[name][-1:]))
    weight, bias = _array(model.head.weight), _array(model.head.bias)
    builder.add(Op(DENSE, "head", (name,), (len(bias),), weight.astype(np.float32), bias.astype(np.float32)))
    broken = [op.name for op in builder.ops if op.weight is not None and not _finite(op)]
    if broken:
        raise BadInputError(
            "the checkpoint has weights that are not finite", problems=broken, hint="train the model again"
        )
    return DeployGraph(size, spec.in_channels, tuple(builder.ops))


def _add_block(builder: _Builder, prefix: str, source: str, block: Any) -> str:
    activated = builder.scale(f"{prefix}.bn1", source, block.bn1)
    hidden = builder.conv(f"{prefix}.conv1", activated, block.conv1, norm=block.bn2, relu=True)
    out = builder.conv(f"{prefix}.conv2", hidden, block.conv2)
    if block.shortcut is not None:
        source = builder.conv(f"{prefix}.shortcut", activated, block.shortcut)
    return builder.add(Op(ADD, prefix, (out, source), builder.shapes[out]))


def _add_post_block(builder: _Builder, prefix: str, source: str, block: Any) -> str:
    hidden = builder.conv(f"{prefix}.conv1", source, block.conv1, norm=block.bn1, relu=True)
    out = builder.conv(f"{prefix}.conv2", hidden, block.conv2, norm=block.bn2)
    if block.shortcut is not None:
        source = builder.conv(f"{prefix}.shortcut", source, block.shortcut, norm=block.shortcut_bn)
    return builder.add(Op(ADD, prefix, (out, source), builder.shapes[out], relu=True))


def replace_parameters(graph: DeployGraph, parameters: Mapping[str, tuple[Array, Array]]) -> DeployGraph:
    """Return the graph with other weights and biases, by operator; convolutions (out, in, kernel...)."""
    ops = []
    for op in graph.ops:
        if op.name in parameters:
            weight, bias = (np.array(array, dtype=np.float32) for array in parameters[op.name])
            op = replace(op, weight=np.moveaxis(weight, 1, -1) if op.kind == CONV else weight, bias=bias)
        ops.append(op)
    return replace(graph, ops=tuple(ops))


class _Builder:
    """Collects operators and the shapes of their outputs."""

    def __init__(self, size: tuple[int, ...], channels: int) -> None:
        self.ops: list[Op] = []
        self.shapes: dict[str, tuple[int, ...]] = {INPUT: (*size, channels)}

    def add(self, op: Op) -> str:
        self.ops.append(op)
        self.shapes[op.name] = op.shape
        return op.name

    def scale(self, name: str, source: str, norm: Any) -> str:
        weight, bias = _scale_and_shift(norm)
        op = Op(SCALE, name, (source,), self.shapes[source], relu=True)
        return self.add(replace(op, weight=weight.astype(np.float32), bias=bias.astype(np.float32)))

    def conv(self, name: str, source: str, conv: Any, *, norm: Any = None, relu: bool = False) -> str:
        """Add a convolution, the BatchNorm `norm` that follows it folded in."""
        weight = np.moveaxis(_array(conv.weight), 1, -1)
        out, kernel = weight.shape[:2]
        bias = np.zeros(out)
        if norm is not None:
            scale, bias = _scale_and_shift(norm)
            weight = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
        stride = int(conv.stride[0])
        *size, channels = self.shapes[source]
        shape = (*((n - 1) // stride + 1 for n in size), out)
        if stride > 1 and kernel > 1:
            source = self.add(Op(PAD, f"{name}.pad", (source,), (*(n + 2 for n in size), channels)))
        op = Op(CONV, name, (source,), shape, stride=stride, relu=relu)
        return self.add(replace(op, weight=weight.astype(np.float32), bias=bias.astype(np.float32)))


def _array(tensor: Any) -> Array64:
    return np.asarray(tensor.detach().cpu().numpy(), dtype=np.float64)


def _scale_and_shift(norm: Any) -> tuple[Array64, Array64]:
    """Return what a BatchNorm multiplies by and adds, in inference."""
    scale = _array(norm.weight) / np.sqrt(_array(norm.running_var) + norm.eps)
    return scale, _array(norm.bias) - _array(norm.running_mean) * scale


def _finite(op: Op) -> bool:
    return all(bool(np.isfinite(array).all()) for array in op.parameters)


def _compute(op: Op, inputs: list[Array64]) -> Array64:
    x = inputs[0]
    axes = tuple(range(x.ndim - 1))
    if op.kind == PAD:
        return np.pad(x, [(1, 1) for _ in axes] + [(0, 0)])
    if op.kind == ADD:
        return x + inputs[1]
    if op.kind == MEAN:
        mean: Array64 = x.mean(axis=axes)
        return mean
    weight, bias = op.parameters
    if op.kind == SCALE:
        return x * weight + bias
    if op.kind == DENSE:
        return weight @ x + bias
    kernel = weight.shape[1]
    if op.stride == 1:
        x = np.pad(x, [((kernel - 1) // 2,) * 2 for _ in axes] + [(0, 0)])
    # (*size, in, *kernel), then every stride-th place.
    taps = np.lib.stride_tricks.sliding_window_view(x, (kernel,) * len(axes), axis=axes)
    taps = taps[tuple(slice(None, None, op.stride) for _ in axes)]
    summed: Array64 = np.tensordot(
        taps, np.moveaxis(weight, -1, 1), axes=(range(len(axes), taps.ndim), range(1, weight.ndim))
    )
    return summed + bias


def _floored(op: Op) -> Op:
    weight, bias = op.parameters
    flat = weight.reshape(len(bias), -1).copy()
    largest = np.abs(flat).argmax(axis=1)
    rows = np.arange(len(flat))
    peak = flat[rows, largest]
    floor = np.float32(DEAD_CHANNEL_FLOOR) * np.maximum(np.abs(flat).max(), np.abs(bias))
    flat[rows, largest] = np.where(np.abs(peak) < floor, np.copysign(floor, peak), peak)
    return replace(op, weight=flat.reshape(weight.shape))
