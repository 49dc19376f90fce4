"""What an int8 student computes, in integers: the one thing the C is generated from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Int8 = npt.NDArray[np.int8]
Int32 = npt.NDArray[np.int32]
INT8_LOW, INT8_HIGH = -128, 127
FAST_SHIFTS = range(-20, 0)


@dataclass(frozen=True)
class Tensor:
    """An activation: int8, `rows` time steps of `channels`; real = (q - zero_point) * scale."""

    name: str
    rows: int
    channels: int
    scale: float
    zero_point: int

    @property
    def bytes(self) -> int:
        """Its size."""
        return self.rows * self.channels


@dataclass(frozen=True)
class Rescale:
    """From sums to bytes, per channel: sum * multiplier * 2**(shift - 31) + zero_point, kept in low..high."""

    multiplier: Int32
    shift: Int8
    zero_point: int
    low: int
    high: int
    fast: bool


@dataclass(frozen=True)
class Conv:
    """A convolution over time, weight (out, taps, in); a dense layer is one of a single row and tap.

    `bias` includes -input zero point * sum of weights.
    """

    name: str
    inputs: tuple[str, ...]
    output: Tensor
    weight: Int8
    bias: Int32
    rescale: Rescale
    in_rows: int
    stride: int
    padding: int
    in_zero_point: int

    @property
    def taps(self) -> int:
        """Rows that one output row reads."""
        return int(self.weight.shape[1])

    @property
    def row_values(self) -> int:
        """Input channels rounded up to a multiple of 4."""
        return -(-int(self.weight.shape[2]) // 4) * 4


@dataclass(frozen=True)
class Scale:
    """Per channel x * weight + bias; `bias` includes -input zero point * weight."""

    name: str
    inputs: tuple[str, ...]
    output: Tensor
    weight: Int8
    bias: Int32
    rescale: Rescale


@dataclass(frozen=True)
class Add:
    """The sum of two tensors of unlike scales."""

    name: str
    inputs: tuple[str, ...]
    output: Tensor
    zero_points: tuple[int, int]
    multipliers: tuple[int, int]
    shifts: tuple[int, int]
    out_multiplier: int
    out_shift: int
    low: int
    high: int

    @property
    def fast(self) -> bool:
        """Whether the second input needs only a shift, and the rest has common shifts and no activation."""
        return (
            (self.multipliers[1], self.shifts[1]) == (1 << 30, 0)
            and self.shifts[0] in FAST_SHIFTS
            and self.out_shift in FAST_SHIFTS
            and (self.low, self.high) == (INT8_LOW, INT8_HIGH)
        )


@dataclass(frozen=True)
class Mean:
    """The mean over time; the number of rows is part of the multiplier."""

    name: str
    inputs: tuple[str, ...]
    output: Tensor
    in_zero_point: int
    in_rows: int
    multiplier: int
    shift: int


Layer = Conv | Scale | Add | Mean


@dataclass(frozen=True)
class IntegerGraph:
    """Layers in the order they run; the last one gives the logits."""

    input: Tensor
    layers: tuple[Layer, ...]

    @property
    def output(self) -> Tensor:
        """The logits."""
        return self.layers[-1].output
