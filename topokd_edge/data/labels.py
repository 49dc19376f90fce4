"""Labels that stand in a file of their own: intervals of time, for recordings of any format."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil
from pathlib import Path

from topokd_edge.data.recording import Gap, LabelInterval
from topokd_edge.errors import BadInputError

MAX_PROBLEMS = 20
"""Problems of a file that are told."""
_TOLERANCE = 1e-3
"""Of a sample interval: a sample so little before the start of an interval still belongs to it."""


@dataclass(frozen=True, slots=True)
class LabelRow:
    """One row of a label file.

    Attributes
    ----------
    line
        In the file, from 1.
    start, end
        Half-open: seconds from the start of the recording, or dates and times.
    label
        The class.
    subject, file
        Whose and which recording; None where the file has no such column. `file` is a file name, or the
        last parts of its path.
    """

    line: int
    start: float | datetime
    end: float | datetime
    label: str
    subject: str | None
    file: str | None


@dataclass(frozen=True, slots=True)
class TimedLabel:
    """A label from `start` to before `end`, in seconds from the start of a recording."""

    start: float
    end: float
    label: str
    line: int


@dataclass(frozen=True, slots=True)
class PlacedLabels:
    """Labels as samples of a recording.

    Attributes
    ----------
    intervals
        In order, not overlapping.
    lines
        Lines of the label file that concern this recording's time.
    notes
        What could not be placed as it was written.
    """

    intervals: tuple[LabelInterval, ...]
    lines: frozenset[int]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LabelFile:
    """The rows of a label file.

    Attributes
    ----------
    path
        The file.
    rows
        Its rows in order of the file.
    """

    path: Path
    rows: tuple[LabelRow, ...]

    def intervals_for(self, subject: str, path: Path | None, start: str | None) -> tuple[TimedLabel, ...]:
        """Return the labels meant for one recording, in order of time.

        A row is meant for a recording when its `subject` and its `file`, as far as the label file has such
        columns, are those of the recording.

        Parameters
        ----------
        subject, path, start
            Of the recording: as in `Recording` and `Stream`.

        Raises
        ------
        BadInputError
            When the times are dates but the recording has none, when only one of the two has a zone, or when
            rows overlap.
        """
        mine = [
            row
            for row in self.rows
            if (row.subject is None or row.subject == subject) and (row.file is None or _fits(row.file, path))
        ]
        if not mine:
            return ()
        problems = overlaps(mine)
        if problems:
            raise refused(self.path, problems)
        origin = self._origin(path, start) if isinstance(mine[0].start, datetime) else None
        found = [
            TimedLabel(seconds_since(row.start, origin), seconds_since(row.end, origin), row.label, row.line)
            for row in mine
        ]
        return tuple(sorted(found, key=lambda item: item.start))

    def leftover(self, matched: Collection[int], placed: Collection[int]) -> tuple[str, ...]:
        """Tell of the rows that no recording used.

        Parameters
        ----------
        matched
            Lines that `intervals_for` gave for any recording.
        placed
            Lines that `to_samples` placed in any recording.
        """
        notes = []
        for row in self.rows:
            if row.line not in matched:
                names = [
                    f"{key} {name!r}" for key, name in (("subject", row.subject), ("file", row.file)) if name
                ]
                notes.append(f"{self.path}: line {row.line}: no recording of {' and '.join(names)}")
            elif row.line not in placed:
                notes.append(f"{self.path}: line {row.line}: {row.label!r} is outside of every recording")
        return tuple(notes)

    def _origin(self, path: Path | None, start: str | None) -> datetime:
        """Return the start of a recording, fit to be subtracted from the times of this file."""
        if start is None:
            raise BadInputError(
                f"{self.path}: labels by date and time, but {path} does not say when it was recorded",
                hint="write start and end in seconds from the start of the recording",
            )
        origin, first = datetime.fromisoformat(start), self.rows[0].start
        if isinstance(first, datetime) and (origin.tzinfo is None) != (first.tzinfo is None):
            labels = "labels without" if first.tzinfo is None else "labels with"
            raise BadInputError(
                f"{self.path}: {labels} a time zone, but {path} starts at {start}",
                hint="write start and end as the recording has its start",
            )
        return origin


def to_samples(
    labels: Sequence[TimedLabel], *, rate_hz: float, samples: int, gaps: Sequence[Gap] = ()
) -> PlacedLabels:
    """Turn seconds into samples.

    Sample k lies k / rate_hz seconds after the start, and the seconds of every gap before it. A label holds
    the samples from its start (included) to its end (excluded). After a border of unknown length nobody knows
    the time, so no sample after the first such border gets a label.

    Parameters
    ----------
    labels
        In order of time, not overlapping.
    rate_hz
        Samples per second.
    samples
        How many the recording has.
    gaps
        In order; see `Gap`.
    """
    unknown = next((gap.after_sample + 1 for gap in gaps if gap.seconds <= 0), samples)
    begins, shifts = _stretches([gap for gap in gaps if gap.after_sample + 1 < unknown], rate_hz)
    end = unknown / rate_hz + shifts[-1]

    def first_at(seconds: float) -> int:
        """Return the first sample at or after a time."""
        at = max(bisect_right(begins, (seconds + _TOLERANCE / rate_hz, samples)) - 1, 0)
        position = ceil((min(seconds, end) - shifts[at]) * rate_hz - _TOLERANCE)
        stop = begins[at + 1][1] if at + 1 < len(begins) else unknown
        return min(max(position, begins[at][1]), stop)

    intervals, lines, notes = [], set(), []
    for item in labels:
        if item.end <= 0 or item.start >= end:
            continue
        lines.add(item.line)
        start, stop = first_at(item.start), first_at(item.end)
        if start < stop:
            intervals.append(LabelInterval(start, stop, item.label))
        else:
            notes.append(f"line {item.line}: {item.label!r} holds no sample: in a gap, or too short")
        lost = max(-item.start, 0.0) + max(item.end - end, 0.0)
        if lost * rate_hz > 1:
            notes.append(f"line {item.line}: {lost:.3g} s of {item.label!r} are outside the recording")
    if unknown < samples and any(item.end > end for item in labels):
        notes.append(f"no labels from sample {unknown} on: an unknown time passed before it")
    return PlacedLabels(tuple(intervals), frozenset(lines), tuple(notes))


def _stretches(gaps: Sequence[Gap], rate_hz: float) -> tuple[list[tuple[float, int]], list[float]]:
    """Return (time, number) of the first sample of each stretch between gaps, and its delay in seconds."""
    begins, shifts = [(0.0, 0)], [0.0]
    for gap in gaps:
        shifts.append(shifts[-1] + gap.seconds)
        sample = gap.after_sample + 1
        begins.append((sample / rate_hz + shifts[-1], sample))
    return begins, shifts


def overlaps(rows: Sequence[LabelRow]) -> list[str]:
    """Say which rows of one recording overlap."""
    ordered = sorted(rows, key=lambda row: (seconds_since(row.start), row.line))
    found = []
    last = ordered[0]
    for row in ordered[1:]:
        if seconds_since(row.start) < seconds_since(last.end):
            found.append(f"line {row.line}: {row.label!r} overlaps {last.label!r} of line {last.line}")
        if seconds_since(row.end) > seconds_since(last.end):
            last = row
    return found


def _fits(file: str, path: Path | None) -> bool:
    """Tell whether `file` is the name of `path`, or the last parts of it."""
    parts = Path(file).parts
    return path is not None and path.absolute().parts[-len(parts) :] == parts


def refused(path: Path, problems: Sequence[str]) -> BadInputError:
    """Return the error for a label file with these problems."""
    return BadInputError(
        f"{path}: not a usable label file",
        problems=problems[:MAX_PROBLEMS],
        hint="correct these lines; times are half-open, so one interval may begin where another ends",
    )


def seconds_since(time: float | datetime, origin: datetime | None = None) -> float:
    """Return a time in seconds since `origin` (default: 1970); what is in seconds already stays as it is."""
    if not isinstance(time, datetime):
        return time
    return (time - (origin or datetime(1970, 1, 1, tzinfo=time.tzinfo and UTC))).total_seconds()
