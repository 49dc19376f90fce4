"""From answers for overlapping windows to a timeline, and how right it is where the truth is known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt

from topokd_edge.data.recording import Recording
from topokd_edge.data.timeline import Timeline, start_time
from topokd_edge.predict.answers import Answers, Ints


@dataclass(frozen=True, slots=True)
class Intervals:
    """Stretches of time with one class, in order, not overlapping; each array has shape (intervals,).

    Attributes
    ----------
    start, stop
        Samples, half-open, int64.
    label
        Number of the class, int64.
    probability
        The student's mean probability of the class over the windows of the interval.
    windows
        How many these are, int64.
    """

    start: Ints
    stop: Ints
    label: Ints
    probability: npt.NDArray[np.float64]
    windows: Ints


def intervals(answers: Answers) -> Intervals:
    """Cut overlapping windows to one class at a time, and join equal neighbours.

    A window speaks for the `step` samples in its middle; the first of a gapless stretch also for what comes
    before them, and the last for what comes after. Samples in no window, at the end of a stretch and in
    stretches shorter than a window, belong to no interval.
    """
    if not len(answers):
        none = np.empty(0, dtype=np.int64)
        return Intervals(none, none, none, np.empty(0), none)
    new_stretch = np.diff(answers.stretch, prepend=-1) != 0
    last_of_stretch = np.append(new_stretch[1:], True)
    begins = new_stretch | (np.diff(answers.label, prepend=-1) != 0)
    first = np.flatnonzero(begins)
    last = np.append(first[1:], len(answers)) - 1
    middle = answers.start + (answers.length - answers.step) // 2
    start = np.where(new_stretch, answers.start, middle)
    stop = np.where(last_of_stretch, answers.start + answers.length, middle + answers.step)
    counts = last - first + 1
    total = np.add.reduceat(answers.confidence.astype(np.float64), first)
    return Intervals(start[first], stop[last], answers.label[first], total / counts, counts)


class ClockTime:
    """Date and time of samples, where the recording has a clock.

    Parameters
    ----------
    recording
        Its start and its gaps are used.
    """

    def __init__(self, recording: Recording) -> None:
        self.start = start_time(recording)
        if self.start is not None:
            zone = datetime.fromisoformat(recording.start or "").tzinfo
            self.start = self.start.replace(tzinfo=zone)
        unknown = (gap.after_sample + 1 for gap in recording.gaps if gap.seconds <= 0)
        self._until = next(unknown, recording.samples.shape[1])

    def text(self, sample: int, seconds: float) -> str:
        """Return the time in ISO 8601, to the millisecond, `seconds` after the start.

        It is empty where nobody knows it: without a start, and from a sample on before which an unknown time
        passed.
        """
        if self.start is None or sample >= self._until:
            return ""
        return (self.start + timedelta(seconds=seconds)).isoformat(timespec="milliseconds")


@dataclass(frozen=True, slots=True)
class Row:
    """An interval or a window as it is written: seconds since the start, clock times or "", class."""

    start_s: float
    end_s: float
    start: str
    end: str
    class_name: str
    probability: float
    windows: int


def interval_rows(answers: Answers) -> Iterator[Row]:
    """Give the timeline of a recording."""
    found = intervals(answers)
    yield from _rows(answers, found.start, found.stop, found.label, found.probability, found.windows)


def window_rows(answers: Answers) -> Iterator[Row]:
    """Give every window of a recording, overlapping as they were cut."""
    one = np.ones(len(answers), dtype=np.int64)
    stop = answers.start + answers.length
    yield from _rows(answers, answers.start, stop, answers.label, answers.confidence, one)


def _rows(
    answers: Answers,
    start: Ints,
    stop: Ints,
    label: Ints,
    probability: npt.NDArray[np.floating],
    windows: Ints,
) -> Iterator[Row]:
    timeline, clock = Timeline(answers.recording), ClockTime(answers.recording)
    begin_s, end_s = timeline.at(start), timeline.ends(stop)
    for index in range(len(start)):
        begin, end = round(float(begin_s[index]), 6), round(float(end_s[index]), 6)
        yield Row(
            begin,
            end,
            clock.text(int(start[index]), begin),
            clock.text(int(stop[index]) - 1, end),
            answers.class_names[label[index]],
            round(float(probability[index]), 6),
            int(windows[index]),
        )


@dataclass(frozen=True, slots=True)
class Score:
    """How many windows have the class that the file says.

    Attributes
    ----------
    judged, right
        Windows whose samples all have one label that the student knows, and those of them that are right.
    unclear
        Windows with more than one label, or samples without.
    unknown
        Windows by a label that the student does not know.
    """

    judged: int
    right: int
    unclear: int
    unknown: dict[str, int]

    def __add__(self, other: Score) -> Score:
        return Score(
            self.judged + other.judged,
            self.right + other.right,
            self.unclear + other.unclear,
            dict(Counter(self.unknown) + Counter(other.unknown)),
        )


def score(answers: Answers) -> Score | None:
    """Compare the windows with the labels of the recording; None when it has none."""
    labels = answers.recording.labels
    if not labels:
        return None
    begins = np.array([item.start for item in labels], dtype=np.int64)
    stops = np.array([item.stop for item in labels], dtype=np.int64)
    at = np.searchsorted(begins, answers.start, side="right") - 1
    clear = (at >= 0) & (answers.start + answers.length <= stops[at])
    number = {name: index for index, name in enumerate(answers.class_names)}
    truth = np.array([number.get(item.label, -1) for item in labels], dtype=np.int64)[at]
    judged = clear & (truth >= 0)
    unknown = Counter(labels[index].label for index in at[clear & (truth < 0)].tolist())
    right = int((judged & (truth == answers.label)).sum())
    return Score(int(judged.sum()), right, int((~clear).sum()), dict(unknown))
