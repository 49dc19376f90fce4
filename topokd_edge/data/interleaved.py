"""Tables where each row holds one of several sensors: which channels belong together, and their rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from topokd_edge.arrays import BLOCK, appended_npy, map_npy, row_blocks
from topokd_edge.data.intervals import label_intervals
from topokd_edge.data.recording import LabelInterval
from topokd_edge.data.spool import Spooled

_RARE = 0.05

Columns = tuple[int, ...]


def sensor_columns(spooled: Spooled) -> list[Columns]:
    """Find which channels have their values in the same rows.

    Two channels are of one sensor when more than half of the rows with a value of either have both; or when
    the rarer hardly ever comes alone and then in runs of rows, as when a part of the sensor failed for long.

    Returns
    -------
    list of tuple
        The columns of each sensor, in order. One entry when no value is missing, where there are no time
        stamps, or when a channel has no value at all.
    """
    width = spooled.samples.shape[1]
    together, running = np.zeros((width, width)), np.zeros((width, width))
    before = np.zeros((1, width), dtype=np.float32)
    for block in row_blocks(spooled.samples, BLOCK):
        present = (~np.isnan(block)).astype(np.float32)
        follows = present * np.concatenate([before, present[:-1]])
        together += present.T @ present
        running += follows.T @ follows
        before = present[-1:]
    rows = np.diag(together)
    if spooled.time is None or rows.min() in (0, len(spooled.samples)):
        return [tuple(range(width))]
    mostly = 2 * together > rows[:, None] + rows - together
    rarer = np.minimum(rows[:, None], rows)
    in_runs = (rarer - together <= _RARE * rarer) & (2 * running >= together)
    return _connected(mostly | in_runs)


def _connected(linked: npt.NDArray[np.bool_]) -> list[Columns]:
    found: list[Columns] = []
    for column in range(len(linked)):
        if any(column in group for group in found):
            continue
        group = linked[column]
        while not np.array_equal(wider := linked[group].any(axis=0), group):
            group = wider
        found.append(tuple(np.flatnonzero(group).tolist()))
    return found


def rows_of_each(spooled: Spooled, sensors: Sequence[Columns], folder: Path) -> tuple[list[Spooled], int]:
    """Write the rows of each sensor to files of their own.

    Parameters
    ----------
    spooled
        With time stamps and without borders.
    sensors
        Columns of each, as `sensor_columns` finds them.
    folder
        Where the files are written.

    Returns
    -------
    list of Spooled
        Of each sensor its rows: those with a value in one of its channels, their stamps and labels.
    int
        How many rows have no value at all.
    """
    assert spooled.time is not None
    names = sorted({item.label for item in spooled.labels})
    gathered = [_Rows() for _ in sensors]
    empty = 0
    with ExitStack() as stack:
        writers = [
            (
                stack.enter_context(appended_npy(folder / f"samples-{n}.npy", (len(columns),), np.float32)),
                stack.enter_context(appended_npy(folder / f"time-{n}.npy", (), np.float64)),
            )
            for n, columns in enumerate(sensors)
        ]
        for samples, time, labels in _blocks(spooled, names):
            present = ~np.isnan(samples)
            empty += int(np.count_nonzero(~present.any(axis=1)))
            for columns, (to_samples, to_time), part in zip(sensors, writers, gathered, strict=True):
                mine = present[:, columns].any(axis=1)
                to_samples.append(samples[mine][:, columns])
                to_time.append(time[mine])
                part.add(labels[mine])
    hint = "import again"
    return [
        Spooled(
            samples=map_npy(folder / f"samples-{n}.npy", hint=hint),
            time=map_npy(folder / f"time-{n}.npy", hint=hint),
            labels=part.intervals(names),
            borders=(),
            notes=(),
        )
        for n, part in enumerate(gathered)
    ], empty


def _blocks(
    spooled: Spooled, names: Sequence[str]
) -> Iterator[tuple[npt.NDArray[np.float32], npt.NDArray[np.float64], npt.NDArray[np.int64]]]:
    """Give samples, stamps and the number of the label (-1: none) of some rows at a time."""
    assert spooled.time is not None
    numbers = {name: number for number, name in enumerate(names)}
    number = np.array([numbers[item.label] for item in spooled.labels], dtype=np.int64)
    starts = np.array([item.start for item in spooled.labels], dtype=np.int64)
    stops = np.array([item.stop for item in spooled.labels], dtype=np.int64)
    low = 0
    blocks = zip(row_blocks(spooled.samples, BLOCK), row_blocks(spooled.time, BLOCK), strict=True)
    for samples, time in blocks:
        rows = np.arange(low, low + len(samples))
        low += len(samples)
        at = np.searchsorted(starts, rows, side="right") - 1
        label = np.full(len(rows), -1)
        if len(stops):
            inside = (at >= 0) & (rows < stops[at])
            label[inside] = number[at[inside]]
        yield samples, time, label


@dataclass(slots=True)
class _Rows:
    """Where the labels of one sensor's rows begin."""

    rows: int = 0
    begins: list[tuple[int, int]] = field(default_factory=list)

    def add(self, labels: npt.NDArray[np.int64]) -> None:
        last = self.begins[-1][1] if self.begins else -1
        for at in np.flatnonzero(np.diff(labels, prepend=last)).tolist():
            self.begins.append((self.rows + at, int(labels[at])))
        self.rows += len(labels)

    def intervals(self, names: Sequence[str]) -> tuple[LabelInterval, ...]:
        begins = [(start, names[label] if label >= 0 else "") for start, label in self.begins]
        return label_intervals(begins, self.rows)
