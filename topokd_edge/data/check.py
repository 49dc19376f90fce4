"""Checks of recordings before anything is made of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from topokd_edge.arrays import BLOCK, row_blocks
from topokd_edge.data.recording import UNITS, UNKNOWN_SUBJECT, Recording
from topokd_edge.data.units import STANDARD_GRAVITY
from topokd_edge.errors import BadInputError

_STILL = 0.02
"""A second in which each axis varies by less than this share of the norm is at rest: a worn sensor's noise is
about 1 % of gravity, slow walking 10 %. As a share, it holds whatever the unit."""
_STILL_SECONDS = 3
"""Fewer seconds at rest may be chance."""
_REST_G = (0.85, 1.15)
"""Norm at rest that calibration alone can explain."""
_CALIBRATED_G = (0.95, 1.05)
"""Norm at rest of a sensor that need not be calibrated."""
_MEDIAN_SAMPLES = 1 << 20
_PLAUSIBLE_G = (0.25, 3.5)
"""Median norm of a worn accelerometer: near 1 g; running and jumping reach 0.4 g (USC-HAD, DSADS) and fast
arm exercise 2.5 g (seglearn watch set), so narrower bounds would cry wolf."""


def check_recordings(recordings: Sequence[Recording], *, training: bool = True) -> list[tuple[str, ...]]:
    """Refuse what no model can be trained on, and tell what looks wrong.

    Parameters
    ----------
    recordings
        Recordings of the same channels.
    training
        They are to be trained on; a model that is trained may be fed with a constant channel of an unknown
        subject.

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
    constant = [] if problems or not training else _constant_channels(recordings)
    problems += [f"channel {name!r}: constant over all recordings, so it says nothing" for name in constant]
    if problems:
        others = [name for name in recordings[0].channels if name not in constant]
        hint = "correct or leave out the recordings named"
        if constant:
            hint = f"leave it out: --channels {','.join(others)}" if others else "record it again"
        raise BadInputError(f"the recordings have {len(problems)} problem(s)", problems=problems, hint=hint)
    return [
        (*(_subject_warnings(recording) if training else ()), *_norm_warnings(recording))
        for recording in recordings
    ]


@dataclass(frozen=True, slots=True)
class AccelerationCheck:
    """What gravity says about one three-axis accelerometer of a recording.

    Attributes
    ----------
    name
        Common part of its channel names.
    median_g
        Median norm over all samples, g.
    rest_g
        Median norm over the seconds at rest, g; None with fewer than 3 of them.
    rest_seconds
        How many seconds it is at rest.
    warning
        What is wrong; empty when the unit and the calibration are plausible.
    """

    name: str
    median_g: float
    rest_g: float | None
    rest_seconds: int
    warning: str


def check_acceleration(recording: Recording) -> list[AccelerationCheck]:
    """Compare each three-axis accelerometer with gravity: at rest, or all of it if it never rests."""
    medians = acceleration_norms_g(recording)
    checks = []
    for name, rows, scale in accelerometers(recording):
        rest = _norms_at_rest(recording, rows)
        norm = float(np.median(rest)) * scale if len(rest) >= _STILL_SECONDS else None
        median = medians[name]
        warning = _median_warning(median) if norm is None else _rest_warning(norm)
        checks.append(AccelerationCheck(name, median, norm, len(rest), warning and f"{name}: {warning}"))
    return checks


def acceleration_norms_g(recording: Recording) -> dict[str, float]:
    """Return the median norm in g of each three-axis accelerometer, by the common part of its channel names.

    A three-axis accelerometer is three channels in g or m/s2 whose names differ only in a last x, y, z.
    Of a recording with more than 2**20 samples every n-th is taken, so that about so many are left.
    """
    norms = {}
    every = 1 + (recording.samples.shape[1] - 1) // _MEDIAN_SAMPLES
    for name, rows, scale in accelerometers(recording):
        parts = [
            np.linalg.norm(block[rows, ::every].astype(np.float64), axis=0)
            for block in _blocks(recording, BLOCK // every * every or every)
        ]
        norms[name] = float(np.median(np.concatenate(parts))) * scale
    return norms


def accelerometers(recording: Recording) -> Iterator[tuple[str, list[int], float]]:
    """Give name, rows and g per unit of each three-axis accelerometer."""
    for channel, unit in zip(recording.channels, recording.units, strict=True):
        axes = [channel[:-1] + axis for axis in "xyz"]
        if channel != axes[0] or unit not in ("g", "m/s2") or not set(axes) <= set(recording.channels):
            continue
        name = channel[:-1].rstrip("_- .") or "acc"
        rows = [recording.channels.index(axis) for axis in axes]
        yield name, rows, 1 / STANDARD_GRAVITY if unit == "m/s2" else 1.0


def _blocks(recording: Recording, size: int) -> Iterator[npt.NDArray[np.float32]]:
    """Give the samples in blocks of shape (channels, up to `size`)."""
    return (block.T for block in row_blocks(recording.samples.T, size))


def _norms_at_rest(recording: Recording, rows: list[int]) -> npt.NDArray[np.float64]:
    """Return the norm of the mean of every second at rest, in the unit of the channels, shape (seconds,)."""
    second = max(2, round(recording.rate_hz))
    found = [np.empty(0)]
    for block in _blocks(recording, max(BLOCK // second, 1) * second):
        whole = block.shape[1] // second * second
        seconds = block[rows, :whole].astype(np.float64).reshape(len(rows), -1, second)
        norm = np.linalg.norm(seconds.mean(axis=2), axis=0)
        spread = seconds.std(axis=2).max(axis=0)
        found.append(norm[spread < _STILL * norm])
    return np.concatenate(found)


def _who(recording: Recording) -> str:
    return f"subject {recording.subject}, recording {recording.source}"


def _problems(recording: Recording) -> list[str]:
    who = _who(recording)
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
    return problems + not_finite(recording)


def not_finite(recording: Recording) -> list[str]:
    """Return one line for each channel with NaN or infinite samples: the first, and how many more."""
    first: dict[int, tuple[int, float]] = {}
    count = np.zeros(len(recording.channels), dtype=np.int64)
    at = 0
    for block in _blocks(recording, BLOCK):
        bad = ~np.isfinite(block)
        count += bad.sum(axis=1)
        for row in np.flatnonzero(bad.any(axis=1)).tolist():
            column = int(bad[row].argmax())
            first.setdefault(row, (at + column, float(block[row, column])))
        at += block.shape[1]
    return [
        f"{_who(recording)}: channel {recording.channels[row]!r}, sample {sample}: {value}"
        + (f" (and {count[row] - 1} more in this channel)" if count[row] > 1 else "")
        for row, (sample, value) in sorted(first.items())
    ]


def _constant_channels(recordings: Sequence[Recording]) -> list[str]:
    """Names of channels with one value over all recordings that have them."""
    lowest: dict[str, float] = {}
    highest: dict[str, float] = {}
    for recording in recordings:
        for block in _blocks(recording, BLOCK):
            low, high = block.min(axis=1), block.max(axis=1)
            for name, least, most in zip(recording.channels, low.tolist(), high.tolist(), strict=True):
                lowest[name] = min(lowest.get(name, least), least)
                highest[name] = max(highest.get(name, most), most)
    return [name for name in lowest if lowest[name] == highest[name]]


def _subject_warnings(recording: Recording) -> list[str]:
    known = recording.subject != UNKNOWN_SUBJECT
    return [] if known else ["the file names no subject, so a split by subject is impossible"]


def _norm_warnings(recording: Recording) -> list[str]:
    return [check.warning for check in check_acceleration(recording) if check.warning]


def _rest_warning(norm: float) -> str:
    if _CALIBRATED_G[0] <= norm <= _CALIBRATED_G[1]:
        return ""
    if _REST_G[0] <= norm <= _REST_G[1]:
        return f"norm at rest is {norm:.3g} g, expected 1 g; calibration is off by {100 * (norm - 1):+.0f} %"
    return f"norm at rest is {norm:.3g} g, expected 1 g; {_guess(norm)}"


def _median_warning(norm: float) -> str:
    if _PLAUSIBLE_G[0] <= norm <= _PLAUSIBLE_G[1]:
        return ""
    return f"median norm is {norm:.3g} g, expected about 1 g; {_guess(norm)}"


def _guess(norm: float) -> str:
    factor = norm if norm > 1 else 1 / max(norm, 1e-9)
    if 6.5 <= factor <= 15:
        return "a factor near 9.8: is the unit (g or m/s2) the wrong one?"
    if 650 <= factor <= 1500:
        return "a factor near 1000: are the values in mg?"
    return "is gravity removed, or the unit or the calibration wrong?"
