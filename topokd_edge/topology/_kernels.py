"""The loops of sublevel persistence and persistence images, compiled by numba."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
_F = TypeVar("_F", bound=Callable[..., Any])

DROP, CAP, CAP_AT, KEEP = 0, 1, 2, 3
"""What becomes of the class that never dies; CAP is the window's maximum, CAP_AT a stated level."""
POWER, RAMP, CONSTANT = 0, 1, 2
"""How much a pair weighs, by its place on the persistence axis."""
CDF_REACH = 8.5
"""Beyond this many sigma a normal CDF is 0 or 1 to the last bit that a sum of masses keeps."""

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


@_jit
def pairs(
    signal: Floats,
    essential: int,
    cap: float,
    births: Floats,
    deaths: Floats,
    minima: Floats,
    walls: Floats,
) -> int:
    """Write the finite pairs of `signal` and, last, the class that never dies; return how many.

    `births` and `deaths` are one longer than the signal.
    """
    found = diagram(signal, births, deaths, minima, walls)
    if essential == DROP:
        return found
    low = signal.min()
    death = np.inf
    if essential == CAP:
        death = signal.max()
    elif essential == CAP_AT:
        death = cap
    if death > low:
        births[found] = low
        deaths[found] = death
        found += 1
    return found


@_jit
def _lasting(births: Floats, deaths: Floats, found: int, shortest: float, unending: float) -> int:
    """Keep the pairs that live longer than `shortest`, deaths turned into lives; return how many.

    A pair of infinite death lives `unending`.
    """
    kept = 0
    for k in range(found):
        life = deaths[k] - births[k]
        if life > shortest:
            births[kept] = births[k]
            deaths[kept] = min(life, unending) if deaths[k] == np.inf else life
            kept += 1
    return kept


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
def _bin_masses(
    low: float, step: float, width: float, sigma: float, value: float, values: Floats
) -> tuple[int, int]:
    """Write the masses a Gaussian at `value` leaves in bins [low + k step, low + k step + width].

    Return the first bin that gets any and how many there are.
    """
    reach = CDF_REACH * sigma
    pixels = float(values.size)
    first = int(min(max(math.ceil((value - reach - width - low) / step), 0.0), pixels))
    end = int(min(max(math.floor((value + reach - low) / step) + 1.0, 0.0), pixels))
    count = max(end - first, 0)
    for k in range(count):
        edge = low + (first + k) * step - value
        values[k] = _cdf((edge + width) / sigma) - _cdf(edge / sigma)
    return first, count


@_jit
def _cdf(z: float) -> float:
    """Return the normal CDF."""
    return 0.5 * math.erfc(-z * math.sqrt(0.5))


@_jit
def _weight(place: float, kind: int, start: float, end: float) -> float:
    """Return what a pair at `place` of the persistence axis weighs; a power has its exponent in `start`."""
    if kind == POWER:
        return place if start == 1.0 else place**start
    if kind == RAMP:
        return min(max((place - start) / (end - start), 0.0), 1.0)
    return 1.0


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
def _draw_cells(
    births: Floats,
    lives: Floats,
    birth_range: Floats,
    life_range: Floats,
    weight: tuple[int, float, float],
    tables: tuple[Floats, Floats],
    scratch: tuple[Floats, Floats],
    image: Floats,
) -> None:
    """Add pairs to an image of equal pixels; a pair beyond a range lies on the border."""
    height, width = image.shape
    columns, rows = scratch
    for k in range(births.size):
        birth_place = (births[k] - birth_range[0]) / (birth_range[1] - birth_range[0])
        life_place = (lives[k] - life_range[0]) / (life_range[1] - life_range[0])
        birth_place = min(max(birth_place, 0.0), 1.0)
        life_place = min(max(life_place, 0.0), 1.0)
        left, wide = _smear(tables[0], width, birth_place, columns)
        low, high = _smear(tables[1], height, life_place, rows)
        block = image[height - low - high : height - low, left : left + wide]
        _add_point(block, columns, rows, _weight(life_place, weight[0], weight[1], weight[2]))


@_jit
def _draw_paper(
    births: Floats,
    lives: Floats,
    birth_range: Floats,
    sigma: float,
    scratch: tuple[Floats, Floats],
    image: Floats,
) -> None:
    """Add pairs to an image as `persim.PersImage` lays it out; see `ImageParams.layout`."""
    height, width = image.shape
    columns, rows = scratch
    low, high = birth_range[0], birth_range[1]
    bin_width = high / height
    column_step = (high - low) / max(width - 1, 1)
    row_step = high / max(height - 1, 1)
    longest = 0.0
    for life in lives:
        longest = max(longest, life)
    for k in range(births.size):
        left, wide = _bin_masses(low, column_step, bin_width, sigma * high, births[k], columns)
        bottom, tall = _bin_masses(0.0, row_step, bin_width, sigma * high, lives[k], rows)
        block = image[height - bottom - tall : height - bottom, left : left + wide]
        _add_point(block, columns, rows, lives[k] / longest)


@_jit
def _finish(image: Floats, divide_by_max: bool, target: npt.NDArray[np.float32]) -> bool:
    """Write the image as float32, divided by its maximum if so wished; return whether it is all zero."""
    pixels, out = image.reshape(image.size), target.reshape(image.size)
    # Sixteen maxima at a time: one alone waits for itself at every pixel.
    lanes = np.zeros(16)
    whole = pixels.size // 16
    for block in range(whole):
        some = pixels[16 * block : 16 * block + 16]
        for lane in range(16):
            lanes[lane] = max(lanes[lane], some[lane])
    largest = 0.0
    for value in lanes:
        largest = max(largest, value)
    for value in pixels[16 * whole :]:
        largest = max(largest, value)
    scale = 1.0 / largest if divide_by_max and largest > 0.0 else 1.0
    for i in range(pixels.size):
        out[i] = np.float32(pixels[i] * scale)
    return largest == 0.0


@_jit
def images(
    x: npt.NDArray[np.float32],
    birth_range: Floats,
    life_range: Floats,
    min_life: float,
    essential: tuple[int, float],
    weight: tuple[int, float, float],
    divide_by_max: bool,
    paper_sigma: float,
    tables: tuple[Floats, Floats],
    out: npt.NDArray[np.float32],
    degenerate: npt.NDArray[np.bool_],
) -> None:
    """Write the persistence image of every channel of every window.

    Shapes: `x` (windows, channels, length), ranges (channels, 2), `out` (windows, channels, rows, columns),
    `degenerate` (windows, channels). `min_life` is a fraction of the channel's life range. A `paper_sigma`
    above 0 chooses the paper's layout, and `tables` are not used.
    """
    length = x.shape[2]
    signal, births, deaths = np.empty(length), np.empty(length + 1), np.empty(length + 1)
    minima, walls = np.empty(length), np.empty(length)
    image = np.empty((out.shape[2], out.shape[3]))
    scratch = (np.empty(out.shape[3]), np.empty(out.shape[2]))
    for window in range(x.shape[0]):
        for channel in range(x.shape[1]):
            signal[:] = x[window, channel]
            low, high = life_range[channel, 0], life_range[channel, 1]
            found = pairs(signal, essential[0], essential[1], births, deaths, minima, walls)
            kept = _lasting(births, deaths, found, min_life * (high - low), high)
            image[:] = 0.0
            drawn = (births[:kept], deaths[:kept], birth_range[channel])
            if paper_sigma > 0.0:
                _draw_paper(*drawn, paper_sigma, scratch, image)
            else:
                _draw_cells(*drawn, life_range[channel], weight, tables, scratch, image)
            degenerate[window, channel] = _finish(image, divide_by_max, out[window, channel])


@_jit
def drawn_pairs(
    x: npt.NDArray[np.float32],
    life_range: Floats,
    min_life: float,
    essential: tuple[int, float],
    births: Floats,
    lives: Floats,
    counts: npt.NDArray[np.int64],
) -> None:
    """Write birth and life of the pairs that `images` draws, and how many of them a channel has.

    Shapes: `x` (windows, channels, length), `life_range` (channels, 2), `births` and `lives` (windows,
    channels, at least (length + 1) // 2: every class is born in a minimum of its own), `counts` (windows,
    channels).
    """
    length = x.shape[2]
    signal, some_births, deaths = np.empty(length), np.empty(length + 1), np.empty(length + 1)
    minima, walls = np.empty(length), np.empty(length)
    for window in range(x.shape[0]):
        for channel in range(x.shape[1]):
            signal[:] = x[window, channel]
            low, high = life_range[channel, 0], life_range[channel, 1]
            found = pairs(signal, essential[0], essential[1], some_births, deaths, minima, walls)
            kept = _lasting(some_births, deaths, found, min_life * (high - low), high)
            births[window, channel, :kept] = some_births[:kept]
            lives[window, channel, :kept] = deaths[:kept]
            counts[window, channel] = kept


@_jit
def extremes(x: npt.NDArray[np.float32], essential: tuple[int, float], out: Floats) -> None:
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
            found = pairs(signal, essential[0], essential[1], births, deaths, minima, walls)
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
