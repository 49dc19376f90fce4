"""The one int8 simulator: a deploy form in torch, with the rounding that a TFLite file does.

Ranges are chosen, layers are judged and students are trained with it. Weights: symmetric, one scale per
output channel, 127 steps to either side. Activations: one scale and zero point per tensor, 256 levels, 0
exact (B. Jacob et al., CVPR 2018, section 3). Left out: a bias is rounded to input scale times weight
scale, far below a step of its output.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from topokd_export.deploy import ADD, CONV, INPUT, MEAN, PAD, SCALE, DeployGraph, Op

Ranges = dict[str, tuple[float, float]]
"""Smallest and largest value of each tensor, by name; PAD has that of its input."""
Parameters = Mapping[str, tuple[Tensor, Tensor]]
"""Weight and bias of each operator; weights of convolutions (out, in, kernel...)."""

LOWEST, HIGHEST, STEPS = -128, 127, 255


class Grid(NamedTuple):
    """Scale (a number, or a tensor that is learned) and zero point of an activation."""

    scale: Tensor | float
    zero_point: int


def grid(low: float, high: float) -> Grid:
    """Return the int8 grid of a range, which is widened to hold 0."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max((high - low) / STEPS, 1e-9)
    return Grid(scale, min(max(round(LOWEST - low / scale), LOWEST), HIGHEST))


def range_of(scale: float, zero_point: int) -> tuple[float, float]:
    """Return the smallest and largest value of a grid."""
    return (LOWEST - zero_point) * scale, (HIGHEST - zero_point) * scale


class _Rounded(torch.autograd.Function):
    """Rounding to a grid; the gradient passes inside, and tells the scale what it costs and saves.

    S. K. Esser et al., "Learned step size quantization", ICLR 2020, equation 3.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero_point: int) -> Tensor:
        levels = x / scale
        low, high = LOWEST - zero_point, HIGHEST - zero_point
        inside = (levels >= low) & (levels <= high)
        rounded = levels.round().clamp_(low, high)
        slope = torch.where(inside, rounded - levels, rounded) if ctx.needs_input_grad[1] else None
        ctx.save_for_backward(inside, slope)
        return rounded.mul_(scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, None]:
        inside, slope = ctx.saved_tensors
        of_scale = None if slope is None else (grads[0] * slope).sum()
        return grads[0] * inside, of_scale, None


def rounded(x: Tensor, where: Grid) -> Tensor:
    """Round a tensor to a grid, saturating."""
    result: Tensor = _Rounded.apply(x, torch.as_tensor(where.scale, dtype=x.dtype), where.zero_point)  # type: ignore[no-untyped-call]
    return result


def rounded_weight(weight: Tensor, bits: int = 8) -> Tensor:
    """Round weights, (out, ...), symmetrically per output channel; gradients pass."""
    if weight.ndim == 1:
        return weight  # one weight to a channel is its own scale
    steps = 2 ** (bits - 1) - 1
    largest = weight.detach().abs().amax(tuple(range(1, weight.ndim)), keepdim=True)
    scale = largest.clamp_min(1e-12) / steps
    error: Tensor = (weight.detach() / scale).round() * scale - weight.detach()
    return weight + error


def parameters_of(graph: DeployGraph) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the weights and biases of a deploy form as float32 tensors."""
    found = {}
    for op in graph.ops:
        if op.weight is None:
            continue
        weight, bias = (torch.from_numpy(array.copy()) for array in op.parameters)
        found[op.name] = (weight.movedim(-1, 1).contiguous() if op.kind == CONV else weight, bias)
    return found


def apply(op: Op, inputs: list[Tensor], parameters: Parameters, bits: int | None) -> Tensor:
    """Compute one operator on (n, channels, ...), before ReLU and rounding; `bits` of weights, or None."""
    x = inputs[0]
    if op.kind == PAD:
        return F.pad(x, (1, 1) * (x.ndim - 2))
    if op.kind == ADD:
        return x + inputs[1]
    if op.kind == MEAN:
        return x.flatten(2).mean(2)
    weight, bias = parameters[op.name]
    if bits is not None:
        weight = rounded_weight(weight, bits)
    if op.kind == SCALE:
        shape = (-1, *[1] * (x.ndim - 2))
        return x * weight.view(shape) + bias.view(shape)
    if op.kind == CONV:
        convolve = F.conv1d if x.ndim == 3 else F.conv2d
        padding = (weight.shape[2] - 1) // 2 if op.stride == 1 else 0
        out: Tensor = convolve(x, weight, bias, stride=op.stride, padding=padding)
        return out
    return F.linear(x, weight, bias)


def simulate(
    graph: DeployGraph,
    x: Tensor,
    grids: Mapping[str, Grid] | None = None,
    parameters: Parameters | None = None,
    bits: int | None = 8,
) -> dict[str, Tensor]:
    """Run a deploy form on many windows, in float32 or with int8 rounding.

    Parameters
    ----------
    graph
        The operators.
    x
        Normalised windows, (n, channels, length) or (n, channels, height, width).
    grids
        Of the tensors that are rounded; None rounds nothing, neither activations nor weights.
    parameters
        Weights and biases; those of the graph if not given.
    bits
        Of the weights where `grids` is given; None leaves them float.

    Returns
    -------
    dict
        Every tensor by name, the input included, channels first.
    """
    bits = None if grids is None else bits
    grids = grids or {}
    parameters = parameters_of(graph) if parameters is None else parameters
    values = {INPUT: rounded(x, grids[INPUT]) if INPUT in grids else x}
    for op in graph.ops:
        out = apply(op, [values[name] for name in op.inputs], parameters, bits)
        out = out.relu() if op.relu else out
        values[op.name] = rounded(out, grids[op.name]) if op.name in grids and op.kind != PAD else out
    return values


def grids_of(ranges: Ranges) -> dict[str, Grid]:
    """Return the grid of every range."""
    return {name: grid(*ends) for name, ends in ranges.items()}
