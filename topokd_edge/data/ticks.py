"""Time stamps as ticks: runs of samples that share a stamp, and the steps between them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from topokd_edge.arrays import BLOCK

COARSE_SHARE = 1e-3
"""With more repeated stamps than this, the stamps are taken to be coarser than the samples."""
_SAMPLE = 1 << 20
_QUARTILE_OF_SIGMA = 0.6745
_SIGMAS = 5.0
_LONG_STEPS = 5
"""Fewer long steps in a row of steps are rather losses than a clock rounded to its stamps."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Steps:
    """From each tick to the next; every array has shape (steps,).

    Attributes
    ----------
    start
        Stamp of the tick, s.
    step
        Seconds to the next tick.
    rows
        Samples that share the stamp.
    last
        Index of the last of them.
    border
        An unknown time passed before the next tick.
    """

    start: Floats
    step: Floats
    rows: npt.NDArray[np.int64]
    last: npt.NDArray[np.int64]
    border: npt.NDArray[np.bool_]


def steps_between(blocks: Iterable[Floats], borders: npt.NDArray[np.int64]) -> Iterator[Steps]:
    """Give the steps between ticks; the last tick has none and is left out.

    Parameters
    ----------
    blocks
        Time stamps, each of shape (n,).
    borders
        Indices of samples that begin a new tick whatever their stamp, ascending.
    """
    time, first = np.empty(0), np.empty(0, dtype=np.int64)
    at = 0
    for block in _rebatched(blocks):
        new = np.empty(len(block), dtype=bool)
        new[1:] = block[1:] != block[:-1]
        new[0] = len(time) == 0 or block[0] != time[-1]
        inside = borders[np.searchsorted(borders, at) : np.searchsorted(borders, at + len(block))]
        new[inside - at] = True
        starts = np.flatnonzero(new)
        time = np.concatenate([time[-1:], block[starts]])
        first = np.concatenate([first[-1:], starts + at])
        at += len(block)
        where = np.minimum(np.searchsorted(borders, first[1:]), max(len(borders) - 1, 0))
        border = borders[where] == first[1:] if len(borders) else np.zeros(len(first) - 1, dtype=bool)
        yield Steps(time[:-1], np.diff(time), np.diff(first), first[1:] - 1, border)


def _rebatched(blocks: Iterable[Floats]) -> Iterator[Floats]:
    """Join small blocks and cut large ones, so that results do not depend on how the file was read."""
    held: list[Floats] = []
    size = 0
    for block in blocks:
        held.append(np.asarray(block, dtype=np.float64))
        size += len(block)
        if size >= BLOCK:
            joined = np.concatenate(held)
            whole = size // BLOCK * BLOCK
            yield from np.split(joined[:whole], whole // BLOCK)
            held, size = [joined[whole:]], size - whole
    if size:
        yield np.concatenate(held)


class Thinned:
    """A fair sample of rows of unknown number, at most about a million, the same at every run."""

    def __init__(self) -> None:
        self._rows: list[Floats] = []
        self._size = 0
        self._share = 1.0
        self._random = np.random.default_rng(0)

    def add(self, rows: Floats) -> None:
        """Offer rows, shape (n, values)."""
        if self._share < 1:
            rows = rows[self._random.random(len(rows)) < self._share]
        self._rows.append(rows)
        self._size += len(rows)
        while self._size > _SAMPLE:
            joined = self.values()
            self._rows = [joined[self._random.random(len(joined)) < 0.5]]
            self._size = len(self._rows[0])
            self._share /= 2

    def values(self) -> Floats:
        """Return what was kept, shape (kept, values)."""
        return np.concatenate(self._rows) if self._rows else np.empty((0, 2))


@dataclass(frozen=True, slots=True)
class Scale:
    """What is normal for a clock.

    Attributes
    ----------
    interval
        Mean time between samples, s.
    tick
        Median time between different stamps, s.
    grid
        Resolution of the stamps, s.
    limit
        A tick that lasts this much longer than its samples, s, ends before a gap.
    coarse
        Many samples share a stamp.
    """

    interval: float
    tick: float
    grid: float
    limit: float
    coarse: bool

    def gaps(self, steps: Steps, excess: Floats, fresh: bool) -> npt.NDArray[np.bool_]:
        """Tell which ticks end before a gap; `fresh`: the first of them begins a gapless stretch."""
        gap: npt.NDArray[np.bool_] = (excess > self.limit) & ~steps.border
        if not self.coarse:
            return gap
        full = np.maximum(steps.rows * self.interval, self.tick)
        for at in np.flatnonzero(gap & (steps.step - full <= self.limit)).tolist():
            opens = fresh if at == 0 else gap[at - 1] or steps.border[at - 1]
            gap[at] = not opens
        return gap


def scale_of(ticks: Floats, head: Floats, noise: float, coarse: bool, stated_hz: float | None) -> Scale:
    """Find what is normal among steps that may hold gaps.

    Parameters
    ----------
    ticks
        Seconds and samples of a fair sample of the ticks, shape (n, 2).
    head
        The same of consecutive ticks.
    noise
        Differences up to this, s, come from rounding.
    coarse
        Many samples share a stamp.
    stated_hz
        Rate to begin with where the stamps leave a choice; the result is that of the stamps.
    """
    step, rows = ticks.T
    grid = _grid(step, noise)
    interval = _rounded_interval(head, grid) or float(np.median(step / rows))
    if stated_hz and abs(interval * stated_hz - 1) < 0.5:
        interval = 1 / stated_hz
    limit = 0.0
    for _ in range(5):
        excess = step - rows * interval
        limit = _limit(excess, interval, grid, coarse)
        normal = excess <= limit
        interval = float(step[normal].sum() / rows[normal].sum())
    return Scale(interval, float(np.median(step)), grid, limit, coarse)


def _rounded_interval(head: Floats, grid: float) -> float | None:
    """Return the interval if an even clock, rounded to the grid, gives these steps.

    At 900 Hz whole milliseconds step by 1 and every ninth time by 2: that is no loss, as the stamps never
    leave the even clock by more than the grid. Lost samples would lead them away from it.
    """
    step, rows = head.T
    middle = float(np.median(step / rows))
    normal = step - rows * middle <= 0.5 * middle + 1.01 * grid
    step, rows = step[normal], rows[normal]
    if np.count_nonzero(step > 1.5 * middle * rows) < _LONG_STEPS:
        return None
    time, count = np.cumsum(step), np.cumsum(rows)
    interval, start = np.polyfit(count, time, 1).tolist()
    return interval if np.ptp(time - start - count * interval) <= 1.05 * grid else None


def _limit(excess: Floats, interval: float, grid: float, coarse: bool) -> float:
    """Half an interval, or what resolution and spread of these stamps demand beyond it."""
    middle, upper = np.quantile(excess, (0.5, 0.75)).tolist()
    unit = interval if coarse else grid
    spread = max(0.0, upper - middle - unit) / _QUARTILE_OF_SIGMA
    longest = (np.ceil(interval / grid - 0.01) + 0.25) * grid - interval
    certain = 1.25 * interval if coarse else max(0.5 * interval, float(longest))
    return float(max(certain, middle + _SIGMAS * spread))


def _grid(step: Floats, noise: float) -> float:
    """Smallest step, or difference between steps, that is no rounding error."""
    values = np.unique(step)
    jumps = np.flatnonzero(np.diff(values) > noise)
    lowest, highest = values[np.append(0, jumps + 1)], values[np.append(jumps, -1)]
    if (highest - lowest).max() > 2 * noise:
        return noise
    return float(np.diff(lowest, prepend=0.0).min())


def spread_repeats(blocks: Iterable[Floats], interval: float, *, partial: bool) -> Iterator[Floats]:
    """Give the stamps of one gapless stretch with repeated ones spread over the time to the next.

    Parameters
    ----------
    blocks
        Stamps in seconds, ascending, each of shape (n,).
    interval
        Mean time between samples, s; that of the samples of the last stamp.
    partial
        The first stamp may have begun before the stretch: its samples are put at the end of its time.
    """
    opening = partial
    total, last_time = 0, 0.0
    rows_before = 0

    def counted() -> Iterator[Floats]:
        nonlocal total, last_time
        for block in blocks:
            if len(block):
                total, last_time = total + len(block), float(block[-1])
            yield block

    for steps in steps_between(counted(), np.empty(0, dtype=np.int64)):
        if not len(steps.step):
            continue
        spacing, start = steps.step / steps.rows, steps.start.copy()
        if opening and spacing[0] > interval:
            start[0] += steps.step[0] - steps.rows[0] * interval
            spacing[0] = interval
        opening = False
        yield from _laid_out(start, spacing, steps.rows)
        rows_before = int(steps.last[-1]) + 1
    rest = total - rows_before
    if rest:
        yield from _laid_out(np.array([last_time]), np.array([interval]), np.array([rest]))


def _laid_out(start: Floats, spacing: Floats, rows: npt.NDArray[np.int64]) -> Iterator[Floats]:
    ends = np.cumsum(rows)
    for low in range(0, int(ends[-1]), BLOCK):
        index = np.arange(low, min(low + BLOCK, int(ends[-1])))
        tick = np.searchsorted(ends, index, side="right")
        yield start[tick] + (index - (ends[tick] - rows[tick])) * spacing[tick]
