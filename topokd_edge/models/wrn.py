"""WideResNets in one and two dimensions, from one description.

Architecture of Zagoruyko and Komodakis, "Wide Residual Networks" (arXiv 1605.07146), with the details
of the two-teacher code of Jeon et al. that the published numbers rest on: a stem of 16 channels whatever
the width, and shortcuts that read the activated input wherever they are a convolution.

Its twin with activation after the sum has the blocks of K. He et al., "Deep Residual Learning for Image
Recognition" (arXiv 1512.03385), with a BatchNorm behind every convolution, so that all of them fold away.

Inside, a signal is an image one row high, with its channels last in memory: both dimensions then run on the
same kernels, which are faster so (docs/decisions/training-speed.md). Weights keep the shape of their
dimension, (out, in, taps) for signals.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from topokd_edge.errors import UsageError

Seen = TypeVar("Seen")

STEM_CHANNELS = 16
STAGE_STRIDES = (1, 2, 2)


@dataclass(frozen=True, slots=True)
class WRNSpec:
    """Description of a WideResNet; everything about the network follows from it.

    Attributes
    ----------
    dims
        1 for signals (batch, channels, length), 2 for images (batch, channels, height, width).
    depth
        6 N + 4: N blocks in each of three stages.
    width
        Widening factor k: stages have 16k, 32k and 64k channels.
    in_channels, classes
        Input channels and outputs.
    stem_stride
        Stride of the first convolution; 1 as published, 2 makes an image teacher about four times cheaper.
    activation
        "pre": BatchNorm and ReLU before each convolution, as published. "post": behind it, and ReLU after
        each sum.

    Raises
    ------
    UsageError
        When a value is out of range.
    """

    dims: int
    depth: int
    width: int
    in_channels: int
    classes: int
    stem_stride: int = 1
    activation: str = "pre"

    def __post_init__(self) -> None:
        problems = []
        if self.dims not in (1, 2):
            problems.append(f"dims = {self.dims}: expected 1 or 2")
        if self.depth < 10 or (self.depth - 4) % 6:
            problems.append(f"depth = {self.depth}: expected 6 N + 4, such as 16 or 28")
        if self.stem_stride not in (1, 2):
            problems.append(f"stem_stride = {self.stem_stride}: expected 1 or 2")
        if self.activation not in ("pre", "post"):
            problems.append(f"activation = {self.activation!r}: expected 'pre' or 'post'")
        for name in ("width", "in_channels", "classes"):
            if getattr(self, name) < 1:
                problems.append(f"{name} = {getattr(self, name)}: expected at least 1")
        if problems:
            raise UsageError("not a WideResNet", problems=problems)

    @property
    def blocks_per_stage(self) -> int:
        """Number N of blocks in each stage."""
        return (self.depth - 4) // 6

    @property
    def name(self) -> str:
        """The field's short name, such as WRN16-1 (1-D)."""
        twin = ", post-activation" if self.activation == "post" else ""
        return f"WRN{self.depth}-{self.width} ({self.dims}-D{twin})"

    def to_dict(self) -> dict[str, Any]:
        """Return the description as JSON-able data."""
        return asdict(self)


class _Conv1d(nn.Conv1d):
    """A convolution of (batch, channels, 1, length) along the length."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.unsqueeze(2)
        return F.conv2d(x, weight, None, (1, self.stride[0]), (0, int(self.padding[0])), 1, self.groups)


class Block(nn.Module):
    """BN-ReLU-Conv3-BN-ReLU-Conv3 plus a shortcut.

    The shortcut is a 1x1 convolution of the activated input when the shape changes, else the raw input.
    """

    def __init__(self, dims: int, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        conv = _conv(dims)
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = conv(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = conv(out_channels, out_channels, 3, padding=1, bias=False)
        self.shortcut = (
            conv(in_channels, out_channels, 1, stride=stride, bias=False)
            if stride != 1 or in_channels != out_channels
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in_channels, height, width) to (batch, out_channels, ...); a signal's height is 1."""
        activated = F.relu(self.bn1(x), inplace=True)
        kept = x if self.shortcut is None else self.shortcut(activated)
        out: Tensor = self.conv2(F.relu(self.bn2(self.conv1(activated)), inplace=True)) + kept
        return out


class PostBlock(nn.Module):
    """Conv3-BN-ReLU-Conv3-BN plus a shortcut, then ReLU.

    The shortcut is a 1x1 convolution and BatchNorm when the shape changes, else the input.
    """

    def __init__(self, dims: int, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        conv, changes = _conv(dims), stride != 1 or in_channels != out_channels
        self.conv1 = conv(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = conv(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut = conv(in_channels, out_channels, 1, stride=stride, bias=False) if changes else None
        self.shortcut_bn = nn.BatchNorm2d(out_channels) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in_channels, height, width) to (batch, out_channels, ...); a signal's height is 1."""
        hidden = F.relu(self.bn1(self.conv1(x)), inplace=True)
        kept = x
        if self.shortcut is not None and self.shortcut_bn is not None:
            kept = self.shortcut_bn(self.shortcut(x))
        return F.relu(self.bn2(self.conv2(hidden)) + kept, inplace=True)


class WideResNet(nn.Module):
    """A WideResNet as described by `spec`; the forward pass returns logits (batch, classes).

    Weights start as in the published code: convolutions N(0, sqrt(2 / fan_out)), BatchNorm 1 and 0,
    head bias 0.

    Attributes
    ----------
    low_precision
        Whether training mode computes features in bfloat16; logits, weights and evaluation mode are float32.
    """

    def __init__(self, spec: WRNSpec) -> None:
        super().__init__()
        self.spec = spec
        self.low_precision = False
        block = PostBlock if spec.activation == "post" else Block
        stages = [STEM_CHANNELS, *(STEM_CHANNELS * spec.width * 2**stage for stage in range(3))]
        self.stem = _conv(spec.dims)(
            spec.in_channels, STEM_CHANNELS, 3, stride=spec.stem_stride, padding=1, bias=False
        )
        self.stem_bn = nn.BatchNorm2d(STEM_CHANNELS) if spec.activation == "post" else None
        self.blocks = nn.ModuleList(
            block(
                spec.dims,
                stages[stage] if index == 0 else stages[stage + 1],
                stages[stage + 1],
                STAGE_STRIDES[stage] if index == 0 else 1,
            )
            for stage in range(3)
            for index in range(spec.blocks_per_stage)
        )
        self.bn = nn.BatchNorm2d(stages[-1]) if spec.activation == "pre" else None
        self.head = nn.Linear(stages[-1], spec.classes)
        self._initialise()

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in_channels, length) or (batch, in_channels, height, width) to logits."""
        with self._casting(x):
            x = self._stem(x)
            for block in self.blocks:
                x = block(x)
        return self._answer(x)

    def observe(self, x: Tensor, look: Callable[[Tensor], Seen]) -> tuple[Tensor, list[Seen]]:
        """Return the logits, and what `look` says of the output of each of the three stages.

        Without gradients an output lives no longer than until the next stage has read it.
        """
        with self._casting(x):
            x, seen = self._stem(x), []
            for number, block in enumerate(self.blocks, start=1):
                x = block(x)
                if number % self.spec.blocks_per_stage == 0:
                    seen.append(look(x))
        return self._answer(x), seen

    def _casting(self, x: Tensor) -> AbstractContextManager[object]:
        if self.training and self.low_precision:
            return torch.autocast(x.device.type, torch.bfloat16)
        return nullcontext()

    def _stem(self, x: Tensor) -> Tensor:
        out: Tensor = self.stem(self._rows(x))
        return out if self.stem_bn is None else F.relu(self.stem_bn(out), inplace=True)

    def _rows(self, x: Tensor) -> Tensor:
        """Return signals as images one row high, and images as they are, with channels last in memory."""
        x = x.unsqueeze(2) if self.spec.dims == 1 else x
        return x.contiguous(memory_format=torch.channels_last)

    def _pooled(self, x: Tensor) -> Tensor:
        at_least = torch.promote_types(x.dtype, torch.float32)
        x = x if self.bn is None else F.relu(self.bn(x), inplace=True)
        return x.mean((2, 3), dtype=at_least)

    def _answer(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self._pooled(x))
        return logits

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv1d | nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.head.bias)


def count(spec: WRNSpec, size: tuple[int, ...]) -> tuple[int, int]:
    """Count parameters and multiply-accumulates of convolutions and head.

    Parameters
    ----------
    spec
        The network.
    size
        (length,) or (height, width) of the input.

    Returns
    -------
    tuple of int
        Parameters, and MACs of one forward pass with batch 1.
    """
    with torch.device("meta"):
        model = WideResNet(spec)
        macs = 0

        def add(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
            nonlocal macs
            weight: Tensor = module.weight  # type: ignore[assignment]
            macs += output[0].numel() * weight[0].numel()

        for module in model.modules():
            if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
                module.register_forward_hook(add)
        model.eval()(torch.empty(1, spec.in_channels, *size))
    return sum(parameter.numel() for parameter in model.parameters()), macs


def _conv(dims: int) -> type[_Conv1d] | type[nn.Conv2d]:
    return _Conv1d if dims == 1 else nn.Conv2d
