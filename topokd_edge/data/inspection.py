"""What a person wants to know of recordings before training on them: plain facts, computed once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from topokd_edge.data.check import AccelerationCheck, check_acceleration
from topokd_edge.data.frozen import frozen_stretches
from topokd_edge.data.recording import UNKNOWN_SUBJECT, Recording
from topokd_edge.data.recordingset import RecordingSet, describe
from topokd_edge.data.split import class_by_subject
from topokd_edge.data.wear import WearTime, wear_time
from topokd_edge.data.windowset import WindowSet, subject_key

MOST_SHOWN = 6
"""Recordings whose signals are drawn."""


@dataclass(frozen=True, slots=True)
class Inspected:
    """What is inspected.

    Attributes
    ----------
    name
        What to call it.
    recordings
        The recordings, whose samples may stay on disk.
    made
        What is known of their making, as `import_recordings` and `make_windows` give it; keys may lack.
    windows
        The windows cut from them; None before that.
    """

    name: str
    recordings: RecordingSet
    made: Mapping[str, Any]
    windows: WindowSet | None = None

    @classmethod
    def of(cls, name: str, windows: WindowSet) -> Inspected:
        """Return a window set to be inspected."""
        return cls(name, windows.recordings, windows.made, windows)


@dataclass(frozen=True, slots=True)
class Facts:
    """What was found; rows of all lists by recording are in the order of the recordings.

    Attributes
    ----------
    subjects, classes
        Everybody and every label once, sorted; classes of a window set in the order of its vocabulary.
    seconds
        Labelled seconds, float64, shape (classes, subjects).
    windows
        Windows, int64, shape (classes, subjects); None without windows.
    wear
        Where the time of each recording goes.
    acceleration
        What gravity says of each recording's accelerometers.
    frozen
        Half-open sample intervals of each recording in which nothing changes.
    """

    subjects: tuple[str, ...]
    classes: tuple[str, ...]
    seconds: npt.NDArray[np.float64]
    windows: npt.NDArray[np.int64] | None
    wear: tuple[WearTime, ...]
    acceleration: tuple[tuple[AccelerationCheck, ...], ...]
    frozen: tuple[tuple[tuple[int, int], ...], ...]


def look(inspected: Inspected) -> Facts:
    """Compute the facts; reads every sample a few times, block by block."""
    recordings, windows = inspected.recordings, inspected.windows
    subjects = tuple(sorted({item.subject for item in recordings}, key=subject_key))
    labels = {interval.label for item in recordings for interval in item.labels}
    known = () if windows is None else windows.class_names
    classes = (*known, *sorted(labels - set(known)))
    seconds = np.zeros((len(classes), len(subjects)))
    row = {name: index for index, name in enumerate(classes)}
    for item in recordings:
        column = subjects.index(item.subject)
        for interval in item.labels:
            seconds[row[interval.label], column] += (interval.stop - interval.start) / item.rate_hz
    return Facts(
        subjects=subjects,
        classes=classes,
        seconds=seconds,
        windows=None if windows is None else _windows(windows, subjects, len(classes)),
        wear=tuple(wear_time(item) for item in recordings),
        acceleration=tuple(tuple(check_acceleration(item)) for item in recordings),
        frozen=tuple(frozen_stretches(item) for item in recordings),
    )


def _windows(windows: WindowSet, subjects: tuple[str, ...], classes: int) -> npt.NDArray[np.int64]:
    """Return the windows of all classes and subjects of the recordings, also of those that have none."""
    counts = np.zeros((classes, len(subjects)), dtype=np.int64)
    columns = [subjects.index(subject) for subject in windows.subjects]
    counts[: len(windows.class_names), columns] = class_by_subject(windows)
    return counts


@dataclass(frozen=True, slots=True)
class Chosen:
    """A recording worth looking at, by its place in the set, and why it was chosen."""

    index: int
    why: str


def chosen_recordings(inspected: Inspected, facts: Facts, most: int = MOST_SHOWN) -> list[Chosen]:
    """Choose recordings to show, at most one a subject that is known.

    In this order, as far as there is one: the most time missing, the most samples interpolated, the most
    frozen, the norm farthest from 1 g, the longest still and flat, the most label changes; then of the other
    subjects the one with most classes that are not shown yet, the longest of equals.
    """
    recordings = inspected.recordings
    oddness = [
        max((norm_oddness(check) for check in checks if check.warning), default=0.0)
        for checks in facts.acceleration
    ]
    reasons: list[tuple[str, Sequence[float]]] = [
        ("the most time missing", [wear.missing for wear in facts.wear]),
        ("the most samples interpolated", [wear.filled for wear in facts.wear]),
        ("the most frozen samples", [covered(stretches) for stretches in facts.frozen]),
        ("the acceleration farthest from 1 g", oddness),
        ("the longest still and flat", [wear.still_seconds for wear in facts.wear]),
        ("the most label changes", [label_changes(item) for item in recordings]),
    ]
    chosen: list[Chosen] = []
    for why, scores in reasons:
        chosen += _best(recordings, scores, chosen, why)
    longest = max(item.samples.shape[1] for item in recordings)
    while len(chosen) < most:
        shown = {label.label for item in chosen for label in recordings[item.index].labels}
        fresh = [len({label.label for label in item.labels} - shown) for item in recordings]
        length = [item.samples.shape[1] / (longest + 1) for item in recordings]
        more = _best(recordings, np.add(fresh, length).tolist(), chosen, "another subject")
        if not more:
            break
        chosen += more
    return chosen[:most]


def _best(
    recordings: Sequence[Recording], scores: Sequence[float], chosen: Sequence[Chosen], why: str
) -> list[Chosen]:
    """Return the recording with the highest positive score among subjects that are not chosen yet."""
    taken = {recordings[item.index].subject for item in chosen} - {UNKNOWN_SUBJECT}
    before = {item.index for item in chosen}
    free = [
        index
        for index, item in enumerate(recordings)
        if item.subject not in taken and index not in before and scores[index] > 0
    ]
    return [Chosen(max(free, key=scores.__getitem__), why)] if free else []


def norm_oddness(check: AccelerationCheck) -> float:
    """Return how far the norm is from 1 g, as the logarithm of the factor."""
    norm = check.median_g if check.rest_g is None else check.rest_g
    return float(abs(np.log(max(norm, 1e-9))))


def covered(intervals: Sequence[tuple[int, int]]) -> int:
    """Count the samples in half-open intervals that do not overlap."""
    return sum(stop - start for start, stop in intervals)


def label_changes(recording: Recording) -> int:
    """Count how often a label is followed by another one."""
    return sum(left.label != right.label for left, right in pairwise(recording.labels))


def facts_json(inspected: Inspected, facts: Facts) -> dict[str, Any]:
    """Return the facts as JSON-able data: seconds, Hz and g."""
    first, made = inspected.recordings[0], inspected.made
    return {
        "name": inspected.name,
        "rate_hz": first.rate_hz,
        "channels": list(first.channels),
        "units": list(first.units),
        "subjects": list(facts.subjects),
        "classes": list(facts.classes),
        "labelled_seconds": facts.seconds.tolist(),
        "windows": None if facts.windows is None else facts.windows.tolist(),
        "dropped": dict(made.get("dropped", {})),
        "left_out_classes": dict(made.get("left_out_classes", {})),
        "channels_left_out": list(made.get("channels_left_out", [])),
        "refused": list(made.get("refused", [])),
        "recordings": [
            _recording_json(item, wear, checks, frozen)
            for item, wear, checks, frozen in zip(
                inspected.recordings, facts.wear, facts.acceleration, facts.frozen, strict=True
            )
        ],
    }


def _recording_json(
    item: Recording,
    wear: WearTime,
    checks: Sequence[AccelerationCheck],
    frozen: Sequence[tuple[int, int]],
) -> dict[str, Any]:
    return {
        "file": item.source,
        "subject": item.subject,
        "session": item.session,
        "start": item.start,
        "clock": describe(item)["clock"],
        "gaps": [{"after_sample": gap.after_sample, "seconds": gap.seconds} for gap in item.gaps],
        "recorded_seconds": wear.recorded,
        "missing_seconds": wear.missing,
        "labelled_seconds": wear.labelled,
        "filled_seconds": wear.filled,
        "frozen_seconds": covered(frozen) / item.rate_hz,
        "still": [asdict(still) for still in wear.still],
        "acceleration": [asdict(check) for check in checks],
        "notes": list(item.notes),
    }
