"""Sensors that were sampled at rates of their own, brought to one even clock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path

import numpy as np
import numpy.typing as npt

from topokd_edge.arrays import BLOCK
from topokd_edge.data.gaps import Samples, later, written
from topokd_edge.data.recording import Gap, LabelInterval, Recording
from topokd_edge.data.resample import Floats, Piece, at_times, spread
from topokd_edge.errors import BadInputError

_TINY = 1e-6
"""Of a sample interval: what rounding may add to a time."""

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Sensor:
    """Channels that share their samples, as a recording of their own.

    Attributes
    ----------
    recording
        Finite samples, with a clock; gaps of known length only.
    time
        Stamp of each sample, s, float64, shape (samples,), ascending, may be memory-mapped. The zero is the
        same for all sensors, and is the `start` of the recording.
    """

    recording: Recording
    time: Floats


def align(
    sensors: Sequence[Sensor], channels: Sequence[str], to_hz: float, path: Path
) -> tuple[Recording, float]:
    """Bring sensors to the grid of `to_hz` that begins where the last of them begins.

    Each is read at the times of the grid by the rules of `topokd_edge.data.resample.interpolate`: straight
    lines between its stamps, and an anti-alias filter where its rate falls. Only times within gapless
    stretches of all sensors are kept, so a gap of one is a gap of the whole, and nothing is extrapolated. A
    label holds from the stamp of its first row to before that of the first row after it. Where several
    sensors have labels and differ for longer than two of their intervals, there is none.

    Parameters
    ----------
    sensors
        Two or more.
    channels
        All their channels in the order of the result.
    to_hz
        Rate of the result, Hz.
    path
        Where the samples are written, `.npy`, float32, shape (samples, channels). More files beside it exist
        for a while.

    Returns
    -------
    Recording
        What it says of itself is that of the first sensor.
    float
        When it begins, s after the zero of the stamps.

    Raises
    ------
    BadInputError
        When the sensors share no time.
    UsageError
        When the rate is more than 100 times higher or lower than that of a sensor.
    """
    files = [path.with_name(f"{path.name}.{index}") for index in range(len(sensors))]
    stamps = [file.with_name(f"{file.name}.stamps") for file in files]
    try:
        even = [
            replace(sensor, time=spread(sensor.recording, sensor.time, file))
            for sensor, file in zip(sensors, stamps, strict=True)
        ]
        grid = _common_grid(even, to_hz)
        parts = [
            at_times(item.recording, item.time, to_hz, grid.pieces(item), file)
            for item, file in zip(even, files, strict=True)
        ]
        names = [name for item in even for name in item.recording.channels]
        columns = [names.index(name) for name in channels]
        samples = written(path, grid.length, len(channels), _side_by_side(parts, columns))
        labels, notes = _common_labels(even, grid)
    finally:
        for file in (*files, *stamps):
            file.unlink(missing_ok=True)
    units = [unit for item in even for unit in item.recording.units]
    first = even[0].recording
    recording = replace(
        first,
        rate_hz=to_hz,
        channels=tuple(channels),
        units=tuple(units[column] for column in columns),
        samples=samples,
        labels=labels,
        gaps=grid.gaps(),
        start=later(first.start, grid.begin),
        clock=None,
        notes=notes,
    )
    return recording, grid.begin


def described(sensor: Recording) -> str:
    """Name a sensor by its channels and rate."""
    return f"{', '.join(sensor.channels)} at about {sensor.rate_hz:.4g} Hz"


@dataclass(frozen=True, slots=True)
class _Grid:
    """The times `begin + k / to_hz` for k from `first` to before `stop` of each stretch, in order."""

    begin: float
    to_hz: float
    first: Indices
    stop: Indices

    @property
    def length(self) -> int:
        return int((self.stop - self.first).sum())

    def places(self, time: Floats) -> Indices:
        """Return for each time which new sample is the first not before it."""
        k = np.ceil((time - self.begin) * self.to_hz - _TINY)
        before = np.append(0, np.cumsum(self.stop - self.first))
        at = np.searchsorted(self.first, k, side="right") - 1
        inside = np.clip(k - self.first[at], 0, (self.stop - self.first)[at])
        return np.where(at < 0, 0, before[at] + inside).astype(np.int64)

    def pieces(self, sensor: Sensor) -> list[Piece]:
        """Tell which of the sensor's samples each stretch is read from."""
        starts, stops = _edges(sensor)
        first, stop = _cover(sensor, self.begin, self.to_hz)
        seen = first < stop
        at = np.flatnonzero(seen)[np.searchsorted(first[seen], self.first, side="right") - 1]
        times = self.begin + self.first / self.to_hz
        return [
            Piece(*item)
            for item in zip(
                starts[at].tolist(),
                stops[at].tolist(),
                times.tolist(),
                (self.stop - self.first).tolist(),
                strict=True,
            )
        ]

    def gaps(self) -> tuple[Gap, ...]:
        """Return the gaps; one between neighbours on the grid is told by hardly any time, as 0 is unknown."""
        after = np.cumsum(self.stop - self.first)[:-1] - 1
        missing = np.maximum(self.first[1:] - self.stop[:-1], _TINY) / self.to_hz
        return tuple(map(Gap, after.tolist(), missing.tolist()))


def _edges(sensor: Sensor) -> tuple[Indices, Indices]:
    """Return first and past-the-last sample of each gapless stretch."""
    inner = [gap.after_sample + 1 for gap in sensor.recording.gaps]
    edges = np.array([0, *inner, len(sensor.time)], dtype=np.int64)
    return edges[:-1], edges[1:]


def _cover(sensor: Sensor, begin: float, to_hz: float) -> tuple[Indices, Indices]:
    """Return which times of the grid each gapless stretch covers, half-open; maybe none."""
    starts, stops = _edges(sensor)
    first = np.ceil((sensor.time[starts] - begin) * to_hz - _TINY).astype(np.int64)
    stop = np.floor((sensor.time[stops - 1] - begin) * to_hz + _TINY).astype(np.int64) + 1
    return np.maximum(first, 0), stop


def _common_grid(sensors: Sequence[Sensor], to_hz: float) -> _Grid:
    begin = max(float(sensor.time[0]) for sensor in sensors)
    first, stop = np.zeros(1, dtype=np.int64), np.full(1, np.iinfo(np.int64).max)
    for sensor in sensors:
        low, high = _cover(sensor, begin, to_hz)
        seen = low < high
        first, stop = _both(first, stop, low[seen], high[seen])
    if not len(first):
        raise BadInputError(
            f"{sensors[0].recording.source}: its sensors have no time in common (seconds from the first row)",
            problems=[
                f"{', '.join(item.recording.channels)}: {item.time[0]:.6g} to {item.time[-1]:.6g} s, "
                f"{len(item.recording.gaps)} gaps"
                for item in sensors
            ],
            hint="keep one sensor with --channels, or correct the time stamps",
        )
    return _Grid(begin, to_hz, first, stop)


def _both(first: Indices, stop: Indices, low: Indices, high: Indices) -> tuple[Indices, Indices]:
    """Intersect two lists of half-open intervals, each in order and without overlap."""
    if not (len(first) and len(low)):
        return first[:0], stop[:0]
    begins = np.unique(np.concatenate([first, low]))
    one = np.searchsorted(first, begins, side="right") - 1
    other = np.searchsorted(low, begins, side="right") - 1
    ends = np.where((one < 0) | (other < 0), -1, np.minimum(stop[one], high[other]))
    kept = begins < ends
    return begins[kept], ends[kept]


def _side_by_side(parts: Sequence[Samples], columns: list[int]) -> Iterator[Samples]:
    for low in range(0, parts[0].shape[1], BLOCK):
        yield np.concatenate([part[:, low : low + BLOCK] for part in parts])[columns].T


def _common_labels(
    sensors: Sequence[Sensor], grid: _Grid
) -> tuple[tuple[LabelInterval, ...], tuple[str, ...]]:
    """Place the labels of each sensor on the grid, and keep what none of them contradicts."""
    labelled = [sensor for sensor in sensors if sensor.recording.labels]
    placed = [_placed(sensor, grid) for sensor in labelled]
    if len(placed) < 2:
        return (tuple(placed[0]) if placed else ()), ()
    short = ceil(2 * max(1.0, *(grid.to_hz / item.recording.rate_hz for item in labelled)))
    edges = np.unique(
        [0, grid.length, *(edge for one in placed for item in one for edge in (item.start, item.stop))]
    )
    names = np.stack([_names_at(one, edges[:-1]) for one in placed])
    differ = (names != names[0]).any(axis=0)
    agreed, lost = [], 0
    at = 0
    while at < len(differ):
        end = at + 1
        while end < len(differ) and differ[end] == differ[at]:
            end += 1
        length = int(edges[end] - edges[at])
        if differ[at] and length > short:
            lost += length
        else:
            agreed += [
                LabelInterval(int(edges[k]), int(edges[k + 1]), str(names[0, k])) for k in range(at, end)
            ]
        at = end
    notes = (f"{lost} samples have no label, as the sensors' rows differ",) if lost else ()
    return _touching_joined(agreed), notes


def _placed(sensor: Sensor, grid: _Grid) -> list[LabelInterval]:
    time, last = sensor.time, len(sensor.time) - 1
    labels = sensor.recording.labels
    start = grid.places(np.asarray(time[[item.start for item in labels]]))
    stop = grid.places(np.asarray(time[[min(item.stop, last) for item in labels]]))
    ends = [grid.length if item.stop > last else at for item, at in zip(labels, stop.tolist(), strict=True)]
    return [
        LabelInterval(low, high, item.label)
        for low, high, item in zip(start.tolist(), ends, labels, strict=True)
        if low < high
    ]


def _names_at(labels: Sequence[LabelInterval], places: Indices) -> npt.NDArray[np.str_]:
    if not labels:
        return np.full(len(places), "")
    starts = np.array([item.start for item in labels])
    stops = np.array([item.stop for item in labels])
    at = np.searchsorted(starts, places, side="right") - 1
    names = np.array([item.label for item in labels])[at]
    return np.where((at >= 0) & (places < stops[at]), names, "")


def _touching_joined(labels: Sequence[LabelInterval]) -> tuple[LabelInterval, ...]:
    joined: list[LabelInterval] = []
    for item in labels:
        if item.label and joined and (joined[-1].stop, joined[-1].label) == (item.start, item.label):
            joined[-1] = replace(joined[-1], stop=item.stop)
        elif item.label:
            joined.append(item)
    return tuple(joined)
