"""Checks of recordings before anything is made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from topokd_edge.data.recording import UNITS, UNKNOWN_SUBJECT, Recording
from topokd_edge.errors import BadInputError, UsageError

STANDARD_GRAVITY = 9.80665
"""m/s2 in one g (BIPM, The International System of Units)."""
_PLAUSIBLE_G = (0.25, 3.5)
"""Median norm of a worn accelerometer: near 1 g; running and jumping reach 0.4 g (USC-HAD, DSADS) and fast
arm exercise 2.5 g (seglearn watch set), so narrower bounds would cry wolf."""


def select_channels(recordings: Sequence[Recording], names: Sequence[str]) -> list[Recording]:
    """Keep the channels `names`, in that order.

    Raises
    ------
    UsageError
        When a name is given twice or a recording has no such channel.
    """
    for recording in recordings:
        unknown = [name for name in names if name not in recording.channels]
        if unknown or not names or len(set(names)) != len(names):
            raise UsageError(
                f"--channels {','.join(names)}: each must be a different one of "
                f"{', '.join(recording.channels)} ({recording.source})"
            )
    kept = []
    for recording in recordings:
        rows = [recording.channels.index(name) for name in names]
        kept.append(
            replace(
                recording,
                channels=tuple(names),
                units=tuple(recording.units[row] for row in rows),
                samples=recording.samples[rows],
            )
        )
    return kept


def check_recordings(recordings: Sequence[Recording]) -> list[tuple[str, ...]]:
    """Refuse what no model can be trained on, and tell what looks wrong.

    Returns
    -------
    list of tuple of str
        Warnings of each recording, in the order of `recordings`.

    Raises
    ------
    BadInputError
        With every problem: NaN or infinite samples with their place, a channel that is constant over all
        recordings, an unknown unit, labels out of order or place, nothing at all.
    """
    if not recordings:
        raise BadInputError("there is no recording to import")
    problems = [problem for recording in recordings for problem in _problems(recording)]
    constant = [] if problems else _constant_channels(recordings)
    problems += [f"channel {name!r}: constant over all recordings, so it says nothing" for name in constant]
    if problems:
        others = [name for name in recordings[0].channels if name not in constant]
        hint = "correct or leave out the recordings named"
        if constant:
            hint = f"leave it out: --channels {','.join(others)}" if others else "record it again"
        raise BadInputError(f"the recordings have {len(problems)} problem(s)", problems=problems, hint=hint)
    return [(*_subject_warnings(recording), *_norm_warnings(recording)) for recording in recordings]


def acceleration_norms_g(recording: Recording) -> dict[str, float]:
    """Return the median norm in g of each three-axis accelerometer, by the common part of its channel names.

    A three-axis accelerometer is three channels in g or m/s2 whose names differ only in a last x, y, z.
    """
    norms = {}
    for channel, unit in zip(recording.channels, recording.units, strict=True):
        axes = [channel[:-1] + axis for axis in "xyz"]
        if channel != axes[0] or unit not in ("g", "m/s2") or not set(axes) <= set(recording.channels):
            continue
        rows = [recording.channels.index(axis) for axis in axes]
        norm = np.linalg.norm(recording.samples[rows].astype(np.float64), axis=0)
        name = channel[:-1].rstrip("_- .") or "acc"
        norms[name] = float(np.median(norm)) / (STANDARD_GRAVITY if unit == "m/s2" else 1.0)
    return norms


def _problems(recording: Recording) -> list[str]:
    who = f"subject {recording.subject}, recording {recording.source}"
    problems = []
    shape = (len(recording.channels), recording.samples.shape[-1])
    if recording.samples.ndim != 2 or recording.samples.shape != shape or shape[1] == 0:
        return [f"{who}: samples of shape {recording.samples.shape}, expected ({shape[0]}, samples)"]
    if not (np.isfinite(recording.rate_hz) and recording.rate_hz > 0):
        problems.append(f"{who}: rate {recording.rate_hz} Hz, expected a positive number")
    stop = 0
    for interval in recording.labels:
        if not stop <= interval.start < interval.stop <= shape[1]:
            problems.append(
                f"{who}: label {interval.label!r} on samples {interval.start} to {interval.stop}, expected "
                f"intervals in order, not overlapping, within {shape[1]} samples"
            )
        stop = interval.stop
    for name, unit in zip(recording.channels, recording.units, strict=True):
        if unit not in UNITS:
            problems.append(f"{who}: channel {name!r} has unit {unit!r}, expected one of {', '.join(UNITS)}")
    finite = np.isfinite(recording.samples)
    for row in np.flatnonzero(~finite.all(axis=1)):
        bad = np.flatnonzero(~finite[row])
        value = recording.samples[row, bad[0]]
        problems.append(
            f"{who}: channel {recording.channels[row]!r}, sample {bad[0]}: {value}"
            + (f" (and {len(bad) - 1} more in this channel)" if len(bad) > 1 else "")
        )
    return problems


def _constant_channels(recordings: Sequence[Recording]) -> list[str]:
    """Names of channels with one value over all recordings that have them."""
    lowest: dict[str, float] = {}
    highest: dict[str, float] = {}
    for recording in recordings:
        low, high = recording.samples.min(axis=1), recording.samples.max(axis=1)
        for name, least, most in zip(recording.channels, low.tolist(), high.tolist(), strict=True):
            lowest[name] = min(lowest.get(name, least), least)
            highest[name] = max(highest.get(name, most), most)
    return [name for name in lowest if lowest[name] == highest[name]]


def _subject_warnings(recording: Recording) -> list[str]:
    known = recording.subject != UNKNOWN_SUBJECT
    return [] if known else ["the file names no subject, so a split by subject is impossible"]


def _norm_warnings(recording: Recording) -> list[str]:
    warnings = []
    for name, norm in acceleration_norms_g(recording).items():
        if _PLAUSIBLE_G[0] <= norm <= _PLAUSIBLE_G[1]:
            continue
        factor = norm if norm > 1 else 1 / max(norm, 1e-9)
        guess = "is gravity removed, or the unit or the calibration wrong?"
        if 6.5 <= factor <= 15:
            guess = "a factor near 9.8: is the unit (g or m/s2) the wrong one?"
        elif 650 <= factor <= 1500:
            guess = "a factor near 1000: are the values in mg?"
        warnings.append(f"{name}: median norm is {norm:.3g} g, expected about 1 g; {guess}")
    return warnings
