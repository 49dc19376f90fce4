"""The loops of sublevel persistence and persistence images, compiled by numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
_F = TypeVar("_F", bound=Callable[..., Any])

DROP, CAP, KEEP = 0, 1, 2
"""What becomes of the class that never dies."""

# No "ninf": a class that is kept has an infinite death. "nnan" and "nsz" let the search for the maximum
# vectorise.
_jit: Callable[[_F], _F] = numba.njit(cache=True, nogil=True, fastmath={"contract", "nnan", "nsz"})


@_jit
def diagram(signal: Floats, births: Floats, deaths: Floats, minima: Floats, walls: Floats) -> int:
    """Write the finite pairs of positive life of `signal`; return how many.

    All arrays have the length of the signal; `minima` and `walls` are scratch. The stack holds basins
    from left to right, `walls[k]` being the wall on the left of basin k. Walls fall strictly from left to
    right, so the last one is always the next to be flooded: each sample is pushed and popped once.
    """
    size = signal.size
    found = 0
    top = 0
    minima[0] = signal[0]
    for t in range(1, size + 1):
        edge = max(signal[t - 1], signal[t]) if t < size else np.inf
        while top > 0 and walls[top] <= edge:
            left, right, wall = minima[top - 1], minima[top], walls[top]
            younger = max(left, right)
            if younger < wall:
                births[found] = younger
                deaths[found] = wall
                found += 1
            top -= 1
            minima[top] = min(left, right)
        if t < size:
            top += 1
            walls[top] = edge
            minima[top] = signal[t]
    return found


# Loops run over slices from 0: an index that might be negative keeps numba from vectorising them.


@_jit
def _smear(table: Floats, pixels: int, unit: float, values: Floats) -> tuple[int, int]:
    """Write the masses a Gaussian at `unit` leaves in pixels; return the first of them and how many."""
    steps = table.shape[0] - 3
    place = unit * pixels
    cell = min(int(place), pixels - 1)
    row_place = (place - cell) * steps
    row = min(int(row_place), steps - 1)
    t = row_place - row
    c0 = -t * (t - 1.0) * (t - 2.0) / 6.0
    c1 = (t + 1.0) * (t - 1.0) * (t - 2.0) / 2.0
    c2 = -(t + 1.0) * t * (t - 2.0) / 2.0
    c3 = (t + 1.0) * t * (t - 1.0) / 6.0
    reach = table.shape[1] // 2
    first = max(cell - reach, 0)
    count = min(cell + reach + 1, pixels) - first
    start = first + reach - cell
    r0, r1 = table[row, start : start + count], table[row + 1, start : start + count]
    r2, r3 = table[row + 2, start : start + count], table[row + 3, start : start + count]
    for k in range(count):
        # Interpolation overshoots by 1e-17 in the tails; a mass is not negative.
        values[k] = max(c0 * r0[k] + c1 * r1[k] + c2 * r2[k] + c3 * r3[k], 0.0)
    return first, count


@_jit
def _add_point(block: Floats, columns: Floats, rows: Floats, weight: float) -> None:
    """Add `weight` times the outer product of `rows` (last row of the block first) and `columns`."""
    height, width = block.shape
    for j in range(height):
        line = block[height - 1 - j]
        scale = weight * rows[j]
        for i in range(width):
            line[i] += scale * columns[i]


@_jit
def images(
    x: npt.NDArray[np.float32],
    birth_range: Floats,
    life_range: Floats,
    min_life: float,
    essential: int,
    divide_by_max: bool,
    column_table: Floats,
    row_table: Floats,
    out: npt.NDArray[np.float32],
    degenerate: npt.NDArray[np.bool_],
) -> None:
    """Write the persistence image of every channel of every window.

    Shapes: `x` (windows, channels, length), ranges (channels, 2), `out` (windows, channels, rows, columns),
    `degenerate` (windows, channels). `min_life` is a fraction of the channel's life range.
    """
    length = x.shape[2]
    signal, births, deaths = np.empty(length), np.empty(length + 1), np.empty(length + 1)
    minima, walls = np.empty(length), np.empty(length)
    height, width = out.shape[2], out.shape[3]
    columns, rows = np.empty(width), np.empty(height)
    image = np.empty((height, width))
    for window in range(x.shape[0]):
        for channel in range(x.shape[1]):
            signal[:] = x[window, channel]
            found = diagram(signal, births, deaths, minima, walls)
            if essential != DROP:
                births[found] = signal.min()
                deaths[found] = signal.max() if essential == CAP else np.inf
                found += 1
            image[:] = 0.0
            birth_low = birth_range[channel, 0]
            birth_width = birth_range[channel, 1] - birth_low
            life_low = life_range[channel, 0]
            life_width = life_range[channel, 1] - life_low
            for k in range(found):
                life = deaths[k] - births[k]
                if life > min_life * life_width:
                    birth_place = min(max((births[k] - birth_low) / birth_width, 0.0), 1.0)
                    life_place = min(max((life - life_low) / life_width, 0.0), 1.0)
                    left, wide = _smear(column_table, width, birth_place, columns)
                    low, high = _smear(row_table, height, life_place, rows)
                    block = image[height - low - high : height - low, left : left + wide]
                    _add_point(block, columns, rows, life_place)
            largest = 0.0
            for line in image:
                for value in line:
                    largest = max(largest, value)
            degenerate[window, channel] = largest == 0.0
            scale = 1.0 / largest if divide_by_max and largest > 0.0 else 1.0
            target = out[window, channel]
            for i in range(height):
                for j in range(width):
                    target[i, j] = np.float32(image[i, j] * scale)


@_jit
def extremes(x: npt.NDArray[np.float32], essential: int, out: Floats) -> None:
    """Write least birth, greatest birth and greatest finite life per window and channel.

    Shapes: `x` (windows, channels, length), `out` (windows, channels, 3). A channel without pairs gets
    (inf, -inf, 0).
    """
    length = x.shape[2]
    signal, births, deaths = np.empty(length), np.empty(length + 1), np.empty(length + 1)
    minima, walls = np.empty(length), np.empty(length)
    for window in range(x.shape[0]):
        for channel in range(x.shape[1]):
            signal[:] = x[window, channel]
            found = diagram(signal, births, deaths, minima, walls)
            if essential != DROP and signal.max() > signal.min():
                births[found] = signal.min()
                deaths[found] = signal.max()
                found += 1
            low, high, life = np.inf, -np.inf, 0.0
            for k in range(found):
                low = min(low, births[k])
                high = max(high, births[k])
                life = max(life, deaths[k] - births[k])
            out[window, channel, 0] = low
            out[window, channel, 1] = high
            out[window, channel, 2] = life


@_jit
def to_half(single: npt.NDArray[np.uint32], half: npt.NDArray[np.uint16]) -> None:
    """Round float32 bits of values from 0 to 1 to float16 bits, nearest even; below 2**-14 becomes 0.

    Numpy takes a hundred times as long over the subnormal numbers that the tails of Gaussians are full of.
    """
    for i in range(single.size):
        bits = single[i]
        rounded = (bits + np.uint32(0xFFF) + ((bits >> np.uint32(13)) & np.uint32(1))) >> np.uint32(13)
        half[i] = np.uint16(rounded - np.uint32(112 << 10)) if bits >= np.uint32(113 << 23) else np.uint16(0)
