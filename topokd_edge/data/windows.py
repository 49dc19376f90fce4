"""Cutting recordings into windows that never cross a subject, session, gap or label change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from topokd_edge.data.recording import Recording
from topokd_edge.data.windowset import WindowSet
from topokd_edge.errors import BadInputError, UsageError

SHORTEST = 8
"""Samples; three stages of a WideResNet with strides 1, 2, 2 leave two positions of eight."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """A stretch of one recording with one label and no gap, and how many windows it holds."""

    recording: int
    start: int
    stop: int
    label: str
    gap_before: bool
    gap_after: bool
    windows: int


def make_windows(
    recordings: Sequence[Recording],
    *,
    seconds: float,
    overlap: float,
    made: dict[str, Any],
    drop_rare_classes: int = 0,
) -> WindowSet:
    """Cut recordings into equally long windows.

    A window lies inside one label interval of one recording and over no gap. Its length is
    round(seconds * rate) samples, the step round(length * (1 - overlap)).

    Parameters
    ----------
    recordings
        All with the same rate, channels and units.
    seconds
        Length of a window.
    overlap
        Share of a window that the next one repeats, 0 <= overlap < 1.
    made
        What is known of the origin; returned in the set together with what was dropped and why.
    drop_rare_classes
        Leave out classes that fewer than this many subjects have windows of.

    Returns
    -------
    WindowSet
        `made["dropped"]` counts samples: `unlabelled`, `too_short` (in a labelled stretch shorter than a
        window), `gap` (cut off by a gap), `tail` (left over at the end of a stretch) and `rare_class`; with
        those `in_windows` they add up to `samples`. `made["left_out_classes"]` counts windows by class.

    Raises
    ------
    UsageError
        When seconds or overlap make no sense at this rate.
    BadInputError
        When recordings do not fit together, or a class gets no window at all.
    """
    _refuse_mixture(recordings)
    rate_hz = recordings[0].rate_hz
    length, step = _length_and_step(rate_hz, seconds, overlap)
    pieces = [p for index, item in enumerate(recordings) for p in _pieces(index, item, length, step)]
    subjects: dict[str, set[str]] = {piece.label: set() for piece in pieces}
    for piece in pieces:
        if piece.windows:
            subjects[piece.label].add(recordings[piece.recording].subject)
    rare = {label for label, who in subjects.items() if len(who) < drop_rare_classes}
    class_names = tuple(sorted(set(subjects) - rare))
    _refuse_empty([name for name in class_names if not subjects[name]], pieces, seconds, rate_hz)
    if not class_names:
        raise BadInputError(
            "no class is left to make windows of",
            hint="a lower --min-subjects-per-class, shorter --seconds, or labelled recordings",
        )
    account = {
        "window_seconds": seconds,
        "overlap": overlap,
        "step_samples": step,
        "dropped": _dropped(recordings, pieces, rare, length, step),
        "left_out_classes": {
            label: sum(piece.windows for piece in pieces if piece.label == label) for label in sorted(rare)
        },
    }
    kept = [piece for piece in pieces if piece.windows and piece.label not in rare]
    return _cut(recordings, kept, length, step, class_names, {**made, **account})


def _refuse_mixture(recordings: Sequence[Recording]) -> None:
    if not recordings:
        raise BadInputError("there is no recording to cut windows from")
    first = recordings[0]
    problems = []
    for name in ("rate_hz", "channels", "units"):
        want = getattr(first, name)
        for other in recordings:
            if getattr(other, name) != want:
                problems.append(
                    f"{other.source}: {name} is {getattr(other, name)}, but {want} in {first.source}"
                )
    if problems:
        raise BadInputError(
            "recordings of different rate, channels or units do not make one window set",
            problems=problems,
            hint="import them separately, or choose channels they share with --channels",
        )


def _length_and_step(rate_hz: float, seconds: float, overlap: float) -> tuple[int, int]:
    if not (np.isfinite(seconds) and seconds > 0):
        raise UsageError(f"--seconds {seconds}: expected a positive number of seconds")
    if not 0 <= overlap < 1:
        raise UsageError(f"--overlap {overlap}: expected 0 or more and less than 1, for example 0.5")
    length = round(seconds * rate_hz)
    if length < SHORTEST:
        raise UsageError(
            f"--seconds {seconds}: {length} samples at {rate_hz} Hz, expected at least {SHORTEST} "
            f"({SHORTEST / rate_hz:.3g} s)"
        )
    step = round(length * (1 - overlap))
    if step < 1:
        raise UsageError(f"--overlap {overlap}: windows of {length} samples would not move on")
    return length, step


def _pieces(index: int, recording: Recording, length: int, step: int) -> list[_Piece]:
    """Cut the label intervals of one recording at its gaps."""
    borders = np.array([gap.after_sample + 1 for gap in recording.gaps], dtype=np.int64)
    pieces = []
    for interval in recording.labels:
        inside = borders[(borders > interval.start) & (borders < interval.stop)].tolist()
        edges = [interval.start, *inside, interval.stop]
        for start, stop in pairwise(edges):
            windows = max(0, (stop - start - length) // step + 1)
            gap_before, gap_after = start > interval.start, stop < interval.stop
            pieces.append(_Piece(index, start, stop, interval.label, gap_before, gap_after, windows))
    return pieces


def _refuse_empty(empty: list[str], pieces: list[_Piece], seconds: float, rate_hz: float) -> None:
    if not empty:
        return
    longest = {name: max(p.stop - p.start for p in pieces if p.label == name) / rate_hz for name in empty}
    raise BadInputError(
        f"a window of {seconds:g} s fits nowhere into {len(empty)} class(es)",
        problems=[f"class {name!r}: its longest stretch is {longest[name]:.3g} s" for name in empty],
        hint="shorter --seconds, or --min-subjects-per-class 1 to leave such classes out",
    )


def _dropped(
    recordings: Sequence[Recording], pieces: list[_Piece], rare: set[str], length: int, step: int
) -> dict[str, int]:
    """Account for every sample: in a window, or why not."""
    samples = sum(recording.samples.shape[1] for recording in recordings)
    labelled = sum(piece.stop - piece.start for piece in pieces)
    account = dict.fromkeys(("in_windows", "too_short", "gap", "tail", "rare_class"), 0)
    for piece in pieces:
        size = piece.stop - piece.start
        if piece.label in rare:
            account["rare_class"] += size
        elif piece.windows == 0:
            account["gap" if piece.gap_before or piece.gap_after else "too_short"] += size
        else:
            covered = (piece.windows - 1) * step + length
            account["in_windows"] += covered
            account["gap" if piece.gap_after else "tail"] += size - covered
    return {"samples": samples, "unlabelled": samples - labelled, **account}


def _cut(
    recordings: Sequence[Recording],
    pieces: list[_Piece],
    length: int,
    step: int,
    class_names: tuple[str, ...],
    made: dict[str, Any],
) -> WindowSet:
    """Copy every window once into its place."""
    first = recordings[0]
    counts = np.array([piece.windows for piece in pieces])
    x = np.empty((int(counts.sum()), len(first.channels), length), dtype=np.float32)
    start = np.empty(len(x), dtype=np.int64)
    at = 0
    for piece in pieces:
        rows = slice(at, at + piece.windows)
        signal = recordings[piece.recording].samples[:, piece.start : piece.stop]
        views = np.lib.stride_tricks.sliding_window_view(signal, length, axis=1)[:, ::step]
        x[rows] = views.transpose(1, 0, 2)
        start[rows] = piece.start + step * np.arange(piece.windows)
        at += piece.windows
    label = {name: index for index, name in enumerate(class_names)}
    of_piece = [recordings[piece.recording] for piece in pieces]
    return WindowSet(
        x=x,
        y=np.repeat(np.array([label[piece.label] for piece in pieces], dtype=np.int64), counts),
        subject=np.repeat(np.array([item.subject for item in of_piece], dtype=np.str_), counts),
        session=np.repeat(np.array([item.session for item in of_piece], dtype=np.str_), counts),
        recording=np.repeat(np.array([piece.recording for piece in pieces], dtype=np.int64), counts),
        start=start,
        rate_hz=first.rate_hz,
        channels=first.channels,
        units=first.units,
        class_names=class_names,
        made=made,
    )
