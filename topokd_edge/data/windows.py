"""Cutting recordings into windows that never cross a subject, session, gap or (by rule) label change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from topokd_edge.data.recording import LabelInterval, Recording
from topokd_edge.data.recordingset import RecordingSet
from topokd_edge.data.windowset import WindowSet, covered_between
from topokd_edge.errors import BadInputError, UsageError
from topokd_edge.streaming import window_step

SHORTEST = 8
"""Samples; three stages of a WideResNet with strides 1, 2, 2 leave two positions of eight."""
LabelRule = Literal["all", "majority", "last", "ends"]


@dataclass(frozen=True, slots=True)
class Cut:
    """How windows are cut and labelled.

    Attributes
    ----------
    seconds
        Length of a window; round(seconds * rate) samples.
    overlap
        Share of a window that the next one repeats, see `topokd_edge.streaming.window_step`.
    label_rule
        "all": every sample has the label; windows begin anew at each label change.
        The others lay one grid of windows over each gapless stretch: "majority" takes the label that at
        least the share `majority` of the samples has, "last" the label of the last sample, "ends" that of
        the first sample if the last has the same (whatever lies between).
    majority
        Smallest share for "majority", above 0.5.
    transitions
        Keep windows with more than one label (an unlabelled sample counts as one); "all" has none.
    drop_labels
        Labels that are treated as if they were absent.
    min_subjects_per_class
        Leave out classes that fewer than this many subjects have windows of.
    """

    seconds: float = 2.56
    overlap: float = 0.5
    label_rule: LabelRule = "all"
    majority: float = 0.75
    transitions: bool = True
    drop_labels: tuple[str, ...] = ()
    min_subjects_per_class: int = 0


@dataclass(frozen=True, slots=True)
class _Stretch:
    """A gapless part of one recording, its candidate windows and the label of each; -1: no clear label."""

    recording: int
    start: int
    stop: int
    label: int | None
    gap_before: bool
    gap_after: bool
    starts: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]


def make_windows(recordings: Sequence[Recording], cut: Cut, *, made: dict[str, Any]) -> WindowSet:
    """Cut recordings into equally long windows.

    A window lies inside one recording and over no gap. Recordings without any label give a set without
    windows: it can be looked at, not trained on.

    Parameters
    ----------
    recordings
        All with the same rate, channels and units.
    cut
        Length, overlap and label rule.
    made
        What is known of the origin; returned in the set together with what was dropped and why.

    Returns
    -------
    WindowSet
        `made["dropped"]` counts samples: `unlabelled`, `too_short` (in a stretch shorter than a window),
        `gap` (cut off by a gap), `tail` (left over at the end of a stretch), `no_clear_label` (only in
        windows that the label rule gives no label) and `rare_class`; with those `in_windows` they add up to
        `samples`. `made["left_out_classes"]` counts windows by class.

    Raises
    ------
    UsageError
        When the cut makes no sense at this rate or for these labels.
    BadInputError
        When recordings do not fit together, or a class gets no window at all.
    """
    recordings = RecordingSet.of(recordings)
    length, step = _length_and_step(recordings[0].rate_hz, cut)
    present = {interval.label for item in recordings for interval in item.labels}
    names = sorted(present - set(cut.drop_labels))
    code = {name: index for index, name in enumerate(names)}
    stretches = [s for i, item in enumerate(recordings) for s in _stretches(i, item, code, cut, length, step)]
    stretches = stretches if names else []
    recording = np.repeat(_ints(s.recording for s in stretches), _ints(len(s.starts) for s in stretches))
    start = _joined([s.starts for s in stretches])
    label = _joined([s.labels for s in stretches])
    who = np.array([item.subject for item in recordings], dtype=np.str_)[recording]
    people = [len(set(who[label == index].tolist())) for index in range(len(names))]
    rare = np.array([number < cut.min_subjects_per_class for number in people], dtype=np.bool_)
    _refuse_empty(recordings, names, people, rare, cut)
    kept = (label >= 0) & ~np.append(rare, True)[label]
    to_class = np.cumsum(~rare) - 1
    account = {
        "window_seconds": cut.seconds,
        "overlap": cut.overlap,
        "step_samples": step,
        "label_rule": cut.label_rule,
        **({"majority": cut.majority} if cut.label_rule == "majority" else {}),
        "transitions": cut.transitions and cut.label_rule != "all",
        "labels_dropped": [name for name in cut.drop_labels if name in present],
        "labels_to_drop_absent": [name for name in cut.drop_labels if name not in present],
        "dropped": _dropped(recordings, stretches, rare, length),
        "left_out_classes": {names[i]: int((label == i).sum()) for i in np.flatnonzero(rare).tolist()},
    }
    return WindowSet(
        recordings=recordings,
        recording=recording[kept],
        start=start[kept],
        length=length,
        y=to_class[label[kept]],
        class_names=tuple(name for name, left_out in zip(names, rare, strict=True) if not left_out),
        made={**made, **account},
    )


def _ints(values: Any) -> npt.NDArray[np.int64]:
    return np.array(list(values), dtype=np.int64)


def _joined(arrays: list[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    return np.concatenate(arrays) if arrays else np.empty(0, dtype=np.int64)


def _length_and_step(rate_hz: float, cut: Cut) -> tuple[int, int]:
    seconds, overlap = cut.seconds, cut.overlap
    if not (np.isfinite(seconds) and seconds > 0):
        raise UsageError(f"--seconds {seconds}: expected a positive number of seconds")
    if not 0.5 < cut.majority <= 1:
        raise UsageError(f"--majority {cut.majority}: expected more than 0.5 and at most 1")
    length = round(seconds * rate_hz)
    if length < SHORTEST:
        raise UsageError(
            f"--seconds {seconds}: {length} samples at {rate_hz} Hz, expected at least {SHORTEST} "
            f"({SHORTEST / rate_hz:.3g} s)"
        )
    return length, window_step(length, overlap)


def _stretches(
    index: int, recording: Recording, code: dict[str, int], cut: Cut, length: int, step: int
) -> list[_Stretch]:
    borders = np.array([gap.after_sample + 1 for gap in recording.gaps], dtype=np.int64)
    labels = [item for item in recording.labels if item.label in code]
    whole = [LabelInterval(0, recording.samples.shape[1], "")]
    found = []
    for interval in labels if cut.label_rule == "all" else whole:
        first, last = np.searchsorted(borders, (interval.start + 1, interval.stop))
        edges = [interval.start, *borders[first:last].tolist(), interval.stop]
        for start, stop in pairwise(edges):
            starts = np.arange(start, stop - length + 1, step, dtype=np.int64)
            label = code[interval.label] if cut.label_rule == "all" else None
            given = (
                np.full(len(starts), label)
                if label is not None
                else _ruled(starts, length, labels, code, cut)
            )
            gap_before, gap_after = start > interval.start, stop < interval.stop
            found.append(_Stretch(index, start, stop, label, gap_before, gap_after, starts, given))
    return found


def _ruled(
    starts: npt.NDArray[np.int64], length: int, labels: list[LabelInterval], code: dict[str, int], cut: Cut
) -> npt.NDArray[np.int64]:
    """Return the label of each window by the rule, -1 where there is none."""
    if not labels:
        return np.full(len(starts), -1, dtype=np.int64)
    share = np.zeros((len(code), len(starts)), dtype=np.int64)
    for name in {item.label for item in labels}:
        intervals = [(item.start, item.stop) for item in labels if item.label == name]
        share[code[name]] = covered_between(intervals, starts, starts + length)
    most = share.argmax(axis=0)
    if cut.label_rule == "majority":
        label = np.where(share.max(axis=0) >= cut.majority * length, most, -1)
    else:
        label = _label_at(starts + length - 1, labels, code)
        if cut.label_rule == "ends":
            label = np.where(label == _label_at(starts, labels, code), label, -1)
    if not cut.transitions:
        label = np.where(share.max(axis=0) == length, label, -1)
    return np.asarray(label, dtype=np.int64)


def _label_at(
    places: npt.NDArray[np.int64], labels: list[LabelInterval], code: dict[str, int]
) -> npt.NDArray[np.int64]:
    """Return the label of each sample, -1 where it has none."""
    begins = _ints(item.start for item in labels)
    at = np.searchsorted(begins, places, side="right") - 1
    inside = (at >= 0) & (places < _ints(item.stop for item in labels)[at])
    return np.where(inside, _ints(code[item.label] for item in labels)[at], -1)


def _refuse_empty(
    recordings: RecordingSet, names: list[str], people: list[int], rare: npt.NDArray[np.bool_], cut: Cut
) -> None:
    if names and rare.all():
        raise BadInputError(
            "no class is left to make windows of",
            hint="a lower --min-subjects-per-class, or shorter --seconds",
        )
    empty = [name for name, n, left_out in zip(names, people, rare, strict=True) if n == 0 and not left_out]
    if not empty:
        return
    problems = []
    for name in empty:
        longest = max(i.stop - i.start for item in recordings for i in item.labels if i.label == name)
        problems.append(
            f"class {name!r}: its longest label is {longest / recordings[0].rate_hz:.3g} s, and gaps count"
        )
    raise BadInputError(
        f"a window of {cut.seconds:g} s fits nowhere into {len(empty)} class(es)",
        problems=problems,
        hint="shorter --seconds, or --min-subjects-per-class 1 to leave such classes out",
    )


def _dropped(
    recordings: RecordingSet, stretches: list[_Stretch], rare: npt.NDArray[np.bool_], length: int
) -> dict[str, int]:
    """Account for every sample: in a window, or why not."""
    samples = len(recordings.samples)
    names = ("in_windows", "too_short", "gap", "tail", "no_clear_label", "rare_class")
    account = dict.fromkeys(names, 0)
    for stretch in stretches:
        size = stretch.stop - stretch.start
        if stretch.label is not None and rare[stretch.label]:
            account["rare_class"] += size
        elif len(stretch.starts) == 0:
            account["gap" if stretch.gap_before or stretch.gap_after else "too_short"] += size
        else:
            is_rare = np.append(rare, False)[stretch.labels]
            kept = _union(stretch.starts[(stretch.labels >= 0) & ~is_rare], length)
            kept_or_rare = _union(stretch.starts[stretch.labels >= 0], length)
            grid = _union(stretch.starts, length)
            account["in_windows"] += kept
            account["rare_class"] += kept_or_rare - kept
            account["no_clear_label"] += grid - kept_or_rare
            account["gap" if stretch.gap_after else "tail"] += size - grid
    stretched = sum(stretch.stop - stretch.start for stretch in stretches)
    return {"samples": samples, "unlabelled": samples - stretched, **account}


def _union(starts: npt.NDArray[np.int64], length: int) -> int:
    """Count the samples that lie in at least one window."""
    return int(np.minimum(np.diff(starts), length).sum()) + length if len(starts) else 0
