"""Where the samples of a recording stand in time, and what they span there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from topokd_edge.arrays import forget_pages
from topokd_edge.data.recording import Recording

_BLOCK = 1 << 18
"""Samples read together."""

Floats = npt.NDArray[np.float64]


class Timeline:
    """Seconds since the first sample of a recording, gaps included; a border of unknown length takes none.

    Parameters
    ----------
    recording
        Its samples are not read.
    """

    def __init__(self, recording: Recording) -> None:
        self._rate_hz = recording.rate_hz
        self._borders = np.array([gap.after_sample + 1 for gap in recording.gaps], dtype=np.int64)
        lengths = np.array([gap.seconds for gap in recording.gaps], dtype=np.float64)
        self._missing = np.concatenate(([0.0], np.cumsum(lengths)))
        self.samples = int(recording.samples.shape[1])
        self.seconds = self.samples / self._rate_hz + float(self._missing[-1])
        """From the first sample to the end of the last."""

    def at(self, samples: npt.ArrayLike) -> Floats:
        """Return the seconds at which samples begin, shape as given."""
        places = np.asarray(samples, dtype=np.int64)
        passed = np.searchsorted(self._borders, places, side="right")
        return np.asarray(places / self._rate_hz + self._missing[passed], dtype=np.float64)

    def ends(self, samples: npt.ArrayLike) -> Floats:
        """Return the seconds at which half-open intervals that stop before `samples` end, shape as given."""
        return np.asarray(self.at(np.asarray(samples, dtype=np.int64) - 1) + 1 / self._rate_hz)

    def first_from(self, seconds: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Return the first sample that begins at or after each of `seconds`; past the end, their number."""
        wanted = np.asarray(seconds, dtype=np.float64)
        begins = self._borders / self._rate_hz + self._missing[1:]
        passed = np.searchsorted(begins, wanted, side="right")
        place = np.ceil((wanted - self._missing[passed]) * self._rate_hz - 1e-6).astype(np.int64)
        limit = np.append(self._borders, self.samples)[passed]
        return np.asarray(np.clip(place, 0, limit), dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Envelope:
    """Lowest and highest value of some channels in equal steps of time.

    Attributes
    ----------
    edges
        Seconds since the first sample, shape (buckets + 1,).
    first
        First sample of each bucket and the end of the last, int64, shape (buckets + 1,).
    low, high
        float32, shape (channels, buckets); NaN where a bucket has no sample.
    """

    edges: Floats
    first: npt.NDArray[np.int64]
    low: npt.NDArray[np.float32]
    high: npt.NDArray[np.float32]


def envelope(recording: Recording, rows: list[int], buckets: int) -> Envelope:
    """Return the envelope of the channels `rows` over a whole recording, read block by block."""
    timeline = Timeline(recording)
    edges = np.linspace(0.0, timeline.seconds, buckets + 1)
    first = timeline.first_from(edges)
    low = np.full((len(rows), buckets), np.nan, dtype=np.float32)
    high = low.copy()
    for bucket in np.flatnonzero(np.diff(first)).tolist():
        for start in range(first[bucket], first[bucket + 1], _BLOCK):
            block = recording.samples[rows, start : min(start + _BLOCK, first[bucket + 1])]
            low[:, bucket] = np.fmin(low[:, bucket], block.min(axis=1))
            high[:, bucket] = np.fmax(high[:, bucket], block.max(axis=1))
            forget_pages(recording.samples)
    return Envelope(edges, first, low, high)


def start_time(recording: Recording) -> datetime | None:
    """Return the clock time of the first sample, as the file writes it and without a time zone.

    None where it is unknown, or so near the ends of the calendar that the recording leaves it.
    """
    try:
        start = datetime.fromisoformat(recording.start or "").replace(tzinfo=None)
        start + timedelta(seconds=Timeline(recording).seconds)
    except (ValueError, OverflowError):
        return None
    return start if 1900 <= start.year <= 2200 else None


@dataclass(frozen=True, slots=True)
class Zoom:
    """A few seconds worth a closer look: seconds since the first sample, and why these."""

    start: float
    stop: float
    why: str


def zoom(
    recording: Recording, seen: Envelope, seconds: float, frozen: Sequence[tuple[int, int]] = ()
) -> Zoom:
    """Choose `seconds` of a recording: around the first of these that it has.

    Interpolated samples, `frozen` ones, a gap that fits in, a label change, the strongest movement.
    """
    timeline = Timeline(recording)
    gaps = [gap for gap in recording.gaps if 0 < gap.seconds < seconds / 2]
    changes = [
        right.start
        for left, right in pairwise(recording.labels)
        if left.label != right.label and right.start - left.stop < seconds / 2 * recording.rate_hz
    ]
    if marked := recording.filled or tuple(frozen):
        start, stop = max(marked, key=lambda item: item[1] - item[0])
        middle = float(timeline.at((start + stop) // 2))
        why = "interpolated samples" if recording.filled else "frozen samples"
    elif gaps:
        gap = max(gaps, key=lambda item: item.seconds)
        middle, why = float(timeline.at(gap.after_sample)) + gap.seconds / 2, "a gap"
    elif changes:
        middle, why = float(timeline.at(changes[len(changes) // 2])), "a label change"
    else:
        moving = np.nan_to_num(seen.high - seen.low)
        of_most = moving / np.maximum(moving.max(axis=1, keepdims=True), 1e-12)
        bucket = int(of_most.sum(axis=0).argmax())
        middle, why = float(seen.edges[bucket : bucket + 2].mean()), "the strongest movement"
    begin = max(0.0, min(middle - seconds / 2, timeline.seconds - seconds))
    return Zoom(begin, min(begin + seconds, timeline.seconds), why)
