"""Lost samples: taken out and marked as gaps, refused, or filled where the user asks for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from topokd_edge.arrays import BLOCK, map_npy, row_blocks, write_npy
from topokd_edge.data.check import not_finite
from topokd_edge.data.recording import Gap, LabelInterval, Recording
from topokd_edge.errors import BadInputError

Samples = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]


def blocks(samples: Samples, start: int, stop: int) -> Iterator[Samples]:
    """Give `samples[:, start:stop]` as blocks of shape (n, channels)."""
    return row_blocks(samples[:, start:stop].T, BLOCK)


def written(path: Path, length: int, channels: int, parts: Iterable[Samples]) -> Samples:
    """Write blocks of shape (n, channels) to `path` and return them mapped, shape (channels, length)."""
    write_npy(path, (length, channels), np.float32, parts)
    mapped: Samples = map_npy(path, hint="import again").T
    return mapped


def refuse_nan(recording: Recording) -> None:
    """Refuse samples that are NaN or infinite.

    Raises
    ------
    BadInputError
        Naming subject, file, channel and sample.
    """
    problems = not_finite(recording)
    if problems:
        raise BadInputError(
            f"{recording.source}: {len(problems)} channel(s) hold values that are no number",
            problems=problems,
            hint="correct the samples named (counted from 0), or leave the recording out",
        )


def mark_lost(recording: Recording, path: Path) -> Recording:
    """Take out samples where a channel is NaN, and mark each run of them as a gap.

    Labels, gaps and filled intervals follow. A run at the beginning moves `start`, one at either end makes no
    gap. Next to a gap of unknown length the whole stays unknown.

    Parameters
    ----------
    recording
        With NaN for lost samples.
    path
        Where the remaining samples are written, `.npy`, float32, shape (samples, channels); not written when
        nothing was lost.

    Raises
    ------
    BadInputError
        When nothing remains.
    """
    lost = _lost_runs(recording)
    if not len(lost.start):
        return recording
    length = recording.samples.shape[1]
    remaining = int(lost.kept_before(length))
    if remaining == 0:
        raise BadInputError(f"{recording.source}: every sample holds a NaN, so nothing is left")
    kept = (block[~_lost(block)] for block in blocks(recording.samples, 0, length))
    gaps, leading = _gaps_with_lost(recording, lost, remaining)
    count = length - remaining
    return replace(
        recording,
        samples=written(path, remaining, len(recording.channels), kept),
        labels=tuple(
            LabelInterval(start, stop, item.label)
            for item, (start, stop) in zip(
                recording.labels, _kept(_of_labels(recording.labels), lost), strict=True
            )
            if start < stop
        ),
        gaps=gaps,
        filled=merged(pair for pair in _kept(recording.filled, lost) if pair[0] < pair[1]),
        start=later(recording.start, leading),
        notes=(*recording.notes, f"{count} lost samples in {len(lost.start)} places became gaps"),
    )


def _lost(block: Samples) -> npt.NDArray[np.bool_]:
    return np.asarray(np.isnan(block).any(axis=1))


def without_lost(time: npt.NDArray[np.float64], recording: Recording) -> Iterator[npt.NDArray[np.float64]]:
    """Give the time stamps, shape (samples,), of the samples that `mark_lost` keeps, in blocks."""
    for block in blocks(recording.samples, 0, recording.samples.shape[1]):
        here, time = time[: len(block)], time[len(block) :]
        yield here[~_lost(block)]


@dataclass(frozen=True, slots=True)
class _Runs:
    """Half-open runs of lost samples, in order; int64, shape (runs,)."""

    start: Indices
    stop: Indices

    def kept_before(self, position: npt.ArrayLike) -> Indices:
        """Count the samples before each position that are not lost."""
        at = np.asarray(position, dtype=np.int64)
        lengths = np.append(0, np.cumsum(self.stop - self.start))
        begun = np.searchsorted(self.start, at, side="left")
        beyond = np.maximum(np.append(0, self.stop)[begun] - at, 0)
        kept: Indices = at - lengths[begun] + beyond
        return kept


def _lost_runs(recording: Recording) -> _Runs:
    edges: list[Indices] = []
    before = False
    low = 0
    for block in blocks(recording.samples, 0, recording.samples.shape[1]):
        lost = _lost(block)
        changes = np.flatnonzero(lost != np.append(before, lost[:-1]))
        edges.append(changes + low)
        before = bool(lost[-1])
        low += len(block)
    joined = np.concatenate([*edges, [low] if before else []]).astype(np.int64)
    return _Runs(joined[::2], joined[1::2])


def _edges(pairs: Sequence[tuple[int, int]]) -> tuple[Indices, Indices]:
    both = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def _kept(intervals: Sequence[tuple[int, int]], lost: _Runs) -> list[tuple[int, int]]:
    start, stop = _edges(intervals)
    return list(zip(lost.kept_before(start).tolist(), lost.kept_before(stop).tolist(), strict=True))


def _of_labels(labels: Sequence[LabelInterval]) -> list[tuple[int, int]]:
    return [(item.start, item.stop) for item in labels]


def _gaps_with_lost(
    recording: Recording, lost: _Runs, remaining: int
) -> tuple[tuple[Gap, ...], float | None]:
    """Return the gaps among the remaining samples, and the time lost before the first of them.

    That time is None where it is unknown.
    """
    seconds = (lost.stop - lost.start) / recording.rate_hz
    at = lost.kept_before(lost.start)
    before = lost.kept_before([gap.after_sample + 1 for gap in recording.gaps])
    missing: dict[int, float] = {}
    unknown = {int(place) for place, gap in zip(before, recording.gaps, strict=True) if gap.seconds == 0}
    old = np.array([gap.seconds for gap in recording.gaps])
    for place, time in zip(np.append(at, before).tolist(), np.append(seconds, old).tolist(), strict=True):
        missing[place] = missing.get(place, 0.0) + time
    gaps = tuple(
        Gap(place - 1, 0.0 if place in unknown else missing[place])
        for place in sorted(missing)
        if 0 < place < remaining
    )
    return gaps, None if 0 in unknown else missing.get(0, 0.0)


def later(start: str | None, seconds: float | None) -> str | None:
    """Move an ISO 8601 time; None when it cannot be known."""
    if start is None or seconds == 0:
        return start
    try:
        return (
            None
            if seconds is None
            else (datetime.fromisoformat(start) + timedelta(seconds=seconds)).isoformat()
        )
    except (ValueError, OverflowError):
        return None


def fill_gaps(recording: Recording, max_seconds: float, path: Path) -> Recording:
    """Fill gaps of known length up to `max_seconds` by straight lines between the samples beside them.

    A gap gets round(seconds * rate) samples; one shorter than half an interval gets none and is closed.
    Longer gaps, borders of unknown length and the ends stay as they are. Filled samples inside a label
    interval, or between two that touch with the same label, have that label; others have none.

    Parameters
    ----------
    recording
        Without NaN.
    max_seconds
        Longest gap to fill, s.
    path
        Where the samples are written, `.npy`, float32, shape (samples, channels); not written when there is
        nothing to fill.

    Raises
    ------
    BadInputError
        When a sample is NaN or infinite.
    """
    chosen = [gap for gap in recording.gaps if 0 < gap.seconds <= max_seconds]
    if not chosen:
        return recording
    border = np.array([gap.after_sample + 1 for gap in chosen], dtype=np.int64)
    count = np.array([round(gap.seconds * recording.rate_hz) for gap in chosen], dtype=np.int64)
    plan = _Filling(border, count)
    length = recording.samples.shape[1]
    added = int(count.sum())
    samples = written(path, length + added, len(recording.channels), _filled_blocks(recording, plan))
    intervals = list(zip(*(edges.tolist() for edges in plan.moved(*_edges(recording.filled))), strict=True))
    begin = plan.moved_samples(border) - count
    intervals += [(a, b) for a, b in zip(begin.tolist(), (begin + count).tolist(), strict=True) if a < b]
    kept = [gap for gap in recording.gaps if not 0 < gap.seconds <= max_seconds]
    after = plan.moved_samples(np.array([gap.after_sample for gap in kept], dtype=np.int64)).tolist()
    return replace(
        recording,
        samples=samples,
        labels=_moved_labels(recording.labels, plan),
        gaps=tuple(Gap(place, gap.seconds) for place, gap in zip(after, kept, strict=True)),
        filled=merged(intervals),
        notes=(
            *recording.notes,
            f"{len(chosen)} gaps of up to {max_seconds:g} s were filled with {added} interpolated samples "
            f"({100 * added / (length + added):.2g} % of all)",
        ),
    )


@dataclass(frozen=True, slots=True)
class _Filling:
    """How many samples, `count`, come before each sample `border`; int64, shape (gaps,), ascending."""

    border: Indices
    count: Indices

    def moved_samples(self, index: Indices) -> Indices:
        """Return where samples are afterwards."""
        added = np.append(0, np.cumsum(self.count))
        moved: Indices = index + added[np.searchsorted(self.border, index, side="right")]
        return moved

    def moved(self, start: Indices, stop: Indices) -> tuple[Indices, Indices]:
        """Return where half-open intervals are afterwards."""
        return self.moved_samples(start), self.moved_samples(stop - 1) + 1


def _filled_blocks(recording: Recording, plan: _Filling) -> Iterator[Samples]:
    samples = recording.samples
    edges = [0, *plan.border.tolist(), samples.shape[1]]
    for index, stop in enumerate(edges[1:]):
        for block in blocks(samples, edges[index], stop):
            if not np.isfinite(block).all():
                refuse_nan(recording)
            yield block
        if index == len(plan.border):
            return
        count = int(plan.count[index])
        left, right = samples[:, stop - 1].astype(np.float64), samples[:, stop].astype(np.float64)
        for low in range(0, count, BLOCK):
            share = np.arange(low + 1, min(low + BLOCK, count) + 1)[:, None] / (count + 1)
            line = ((1 - share) * left + share * right).astype(np.float32)
            if not np.isfinite(line).all():
                refuse_nan(recording)
            yield line


def _moved_labels(labels: Sequence[LabelInterval], plan: _Filling) -> tuple[LabelInterval, ...]:
    start, stop = plan.moved(*_edges(_of_labels(labels)))
    for index, (left, right) in enumerate(pairwise(labels)):
        if left.stop == right.start and left.label == right.label:
            stop[index] = start[index + 1]
    return tuple(
        LabelInterval(a, b, item.label)
        for a, b, item in zip(start.tolist(), stop.tolist(), labels, strict=True)
    )


def merged(intervals: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Join half-open intervals that overlap or touch; in order."""
    result: list[tuple[int, int]] = []
    for start, stop in sorted(intervals):
        if result and start <= result[-1][1]:
            result[-1] = (result[-1][0], max(stop, result[-1][1]))
        else:
            result.append((start, stop))
    return tuple(result)
