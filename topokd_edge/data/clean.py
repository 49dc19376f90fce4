"""From a stream to a clean recording: one clock, gaps marked, labels placed, nothing invented unasked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from topokd_edge.arrays import BLOCK, appended_npy, map_npy, row_blocks
from topokd_edge.data.align import Sensor, align, described
from topokd_edge.data.clock import STATED_TOLERANCE, ClockReading, read_clock
from topokd_edge.data.gaps import fill_gaps, mark_lost, refuse_nan, without_lost
from topokd_edge.data.interleaved import Columns, rows_of_each, sensor_columns
from topokd_edge.data.labels import LabelFile, to_samples
from topokd_edge.data.recording import Gap, Recording
from topokd_edge.data.resample import interpolate, resample
from topokd_edge.data.spool import Spooled, spool
from topokd_edge.data.stream import Stream
from topokd_edge.errors import BadInputError, UsageError


@dataclass(frozen=True, slots=True)
class Cleaning:
    """What is done to a recording before windows are cut; each step only when it is asked for.

    Attributes
    ----------
    channels
        The ones to keep, in order; empty keeps all.
    rate_hz
        The rate, as the user states it; None takes it from the file or its time stamps.
    lost
        What a NaN means where the format does not say: an error, or a lost sample and so a gap.
    fill_seconds
        Gaps up to this long are interpolated, and the samples counted; 0 fills none.
    resample_hz
        Rate to bring every recording to, with an anti-alias filter; None keeps the rates.
    labels
        Label intervals from a file of their own.
    """

    channels: tuple[str, ...] = ()
    rate_hz: float | None = None
    lost: Literal["refuse", "gap"] = "refuse"
    fill_seconds: float = 0.0
    resample_hz: float | None = None
    labels: LabelFile | None = None


class UndecidedError(BadInputError):
    """A recording can be read, but the user must say what to do with it."""


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A recording, and the lines of the label file that speak of it: meant for it, and placed in it."""

    recording: Recording
    label_lines: frozenset[int] = frozenset()
    placed_lines: frozenset[int] = frozenset()


def clean(stream: Stream, cleaning: Cleaning, scratch: Path) -> Cleaned:
    """Read a stream and return it as a recording whose samples are memory-mapped from `scratch`.

    Where each row holds the values of one of several sensors, each sensor is read by its own clock, and all
    are brought to one of `resample_hz`; see `topokd_edge.data.align.align`.

    Parameters
    ----------
    stream
        What to read.
    cleaning
        What to do to it.
    scratch
        An empty folder for the samples of each step.

    Raises
    ------
    UndecidedError
        When a value is NaN and nobody said what that means, the stamps are too uneven to be taken as evenly
        spaced, or there are several sensors and no rate for all; file, channel and sample are named.
    BadInputError
        When the file cannot be read, its stamps run backward, or a value is infinite.
    """
    channels = cleaning.channels or stream.channels
    spooled = spool(stream, channels, scratch)
    sensors = sensor_columns(spooled)
    if len(sensors) > 1:
        return _on_one_clock(stream, spooled, sensors, cleaning, scratch)
    reading = _clock(stream, spooled, cleaning)
    recording = _described(stream, tuple(channels), spooled, reading)
    labelled = _labelled(recording, cleaning.labels, stream, rate_of_stamps(recording))
    regular = _regular(labelled.recording, reading, spooled, stream, cleaning, scratch)
    return replace(labelled, recording=regular)


def _described(
    stream: Stream, channels: tuple[str, ...], spooled: Spooled, reading: ClockReading
) -> Recording:
    return Recording(
        subject=stream.subject,
        session=stream.session,
        device=stream.device,
        rate_hz=reading.rate_hz,
        channels=channels,
        units=tuple(stream.units[stream.channels.index(name)] for name in channels),
        samples=spooled.samples.T,
        labels=spooled.labels,
        gaps=reading.gaps,
        source=stream.source,
        start=stream.start,
        clock=reading.clock,
        about=dict(stream.about),
        notes=(*spooled.notes, *reading.notes),
    )


def _on_one_clock(
    stream: Stream, spooled: Spooled, columns: list[Columns], cleaning: Cleaning, scratch: Path
) -> Cleaned:
    """Read the rows of each sensor by their own clock, and bring them to the one that is asked for."""
    if spooled.borders:
        raise BadInputError(
            f"{stream.source}: an unknown time passed before sample {spooled.borders[0]}, so its sensors "
            "cannot be brought to one clock",
            hint="keep one sensor with --channels",
        )
    channels = cleaning.channels or stream.channels
    parts, empty = rows_of_each(spooled, columns, scratch)
    names = [tuple(channels[column] for column in item) for item in columns]
    sensors = [_sensor(stream, *pair) for pair in zip(names, parts, strict=True)]
    _need_common_rate(stream, sensors, cleaning)
    lost_said = stream.lost_as_nan or cleaning.lost == "gap"
    if empty and not lost_said:
        raise UndecidedError(
            f"{stream.source}: {empty} row(s) hold no value at all",
            hint="correct them, or say that they were lost: --lost gap",
        )
    known = []
    for number, sensor in enumerate(sensors):
        if not lost_said:
            _need_finite(sensor.recording)
            known.append(sensor)
            continue
        time = _without_lost(sensor.recording, sensor.time, scratch / f"time-kept-{number}.npy")
        known.append(Sensor(mark_lost(sensor.recording, scratch / f"lost-{number}.npy"), time))
    assert cleaning.resample_hz is not None
    recording, begin = align(known, channels, cleaning.resample_hz, scratch / "aligned.npy")
    own = [f"{described(item.recording)}: {note}" for item in known for note in item.recording.notes]
    clocks = [f"{described(item.recording)}, {len(item.recording.gaps)} gaps" for item in known]
    one_clock = f"brought to one clock of {cleaning.resample_hz:.6g} Hz: {'; '.join(clocks)}"
    recording = replace(recording, notes=(*spooled.notes, *own, one_clock, *recording.notes))
    labelled = _labelled(recording, cleaning.labels, stream, recording.rate_hz, begin)
    return replace(labelled, recording=_filled(labelled.recording, cleaning, scratch))


def _sensor(stream: Stream, channels: tuple[str, ...], rows: Spooled) -> Sensor:
    assert rows.time is not None
    reading = _reading(rows.time, None, by_user=False, borders=(), where=f"{stream.source}, {channels[0]}")
    return Sensor(_described(stream, channels, rows, reading), rows.time)


def _need_common_rate(stream: Stream, sensors: list[Sensor], cleaning: Cleaning) -> None:
    """Raise an error unless the user asks for a rate to bring all sensors to, and calls no other one true."""
    found = "; ".join(described(sensor.recording) for sensor in sensors)
    if cleaning.rate_hz is not None:
        raise UsageError(
            f"{stream.source}: --rate {cleaning.rate_hz:g} states one rate, but the rows are those of "
            f"{len(sensors)} sensors: {found}",
            hint="leave out --rate",
        )
    if cleaning.resample_hz is None:
        fastest = max(sensor.recording.rate_hz for sensor in sensors)
        raise UndecidedError(
            f"{stream.source}: {len(sensors)} sensors with rows of their own: {found}",
            hint=f"bring them to one clock, for example with --resample {fastest:.3g}; or keep one sensor "
            "with --channels",
        )


def rate_of_stamps(recording: Recording) -> float:
    """Return the rate that leads from a sample to its time.

    A rate that the file or the user states may be 0.5 % off the time stamps; over a day that is minutes.
    """
    clock = recording.clock
    if clock is None or abs(recording.rate_hz / clock.estimated_hz - 1) > STATED_TOLERANCE:
        return recording.rate_hz
    return clock.estimated_hz


def _labelled(
    recording: Recording, file: LabelFile | None, stream: Stream, rate_hz: float, begin: float = 0.0
) -> Cleaned:
    """Return a recording that begins `begin` seconds after the stream, with its labels of a label file."""
    if file is None:
        return Cleaned(recording)
    timed = tuple(
        replace(item, start=item.start - begin, end=item.end - begin)
        for item in file.intervals_for(recording.subject, stream.path, stream.start)
    )
    if timed and recording.labels:
        raise BadInputError(
            f"{recording.source}: has labels of its own, and {file.path} gives it others",
            hint="leave out --labels, or its rows for this recording",
        )
    placed = to_samples(timed, rate_hz=rate_hz, samples=recording.samples.shape[1], gaps=recording.gaps)
    return Cleaned(
        replace(
            recording,
            labels=placed.intervals or recording.labels,
            notes=(*recording.notes, *(f"{file.path.name}: {note}" for note in placed.notes)),
        ),
        frozenset(item.line for item in timed),
        placed.lines,
    )


def _regular(
    recording: Recording,
    reading: ClockReading,
    spooled: Spooled,
    stream: Stream,
    cleaning: Cleaning,
    scratch: Path,
) -> Recording:
    """Mark what was lost, and bring the recording to one even clock; fill where that is asked for."""
    time = spooled.time
    if stream.lost_as_nan or cleaning.lost == "gap":
        if reading.uneven and time is not None:
            time = _without_lost(recording, time, scratch / "time-kept.npy")
        recording = mark_lost(recording, scratch / "lost.npy")
    else:
        _need_finite(recording)
    if reading.uneven and time is not None and cleaning.resample_hz is not None:
        even = interpolate(recording, time, cleaning.resample_hz, scratch / "even.npy")
        return _filled(even, cleaning, scratch)
    if reading.uneven:
        _need_even(recording, cleaning)
    recording = _filled(recording, cleaning, scratch)
    if cleaning.resample_hz is not None and cleaning.resample_hz != recording.rate_hz:
        recording = resample(recording, cleaning.resample_hz, scratch / "resampled.npy")
    return recording


def _without_lost(recording: Recording, time: npt.NDArray[np.float64], path: Path) -> npt.NDArray[np.float64]:
    """Write the stamps of the samples that `mark_lost` keeps, and return them memory-mapped."""
    with appended_npy(path, (), np.float64) as writer:
        for block in without_lost(time, recording):
            writer.append(block)
    return map_npy(path, hint="import again")


def _need_finite(recording: Recording) -> None:
    try:
        refuse_nan(recording)
    except BadInputError as error:
        raise UndecidedError(
            error.message,
            problems=error.problems,
            hint="correct them (samples are counted from 0), or say that they were lost: --lost gap",
        ) from None


def _filled(recording: Recording, cleaning: Cleaning, scratch: Path) -> Recording:
    if not cleaning.fill_seconds:
        return recording
    return fill_gaps(recording, cleaning.fill_seconds, scratch / "filled.npy")


def _need_even(recording: Recording, cleaning: Cleaning) -> None:
    """Raise BadInputError for uneven stamps, unless the user states the rate and so calls them even."""
    if cleaning.rate_hz is not None or recording.clock is None:
        return
    clock = recording.clock
    raise UndecidedError(
        f"{recording.source}: its samples are not evenly spaced (about {clock.estimated_hz:.4g} Hz, "
        f"stamps off by {clock.jitter_s * 1e3:.3g} ms)",
        hint=f"--resample {clock.estimated_hz:.0f} interpolates them at their stamps; or, if the stamps are "
        f"wrong and the samples even, --rate {clock.estimated_hz:.4g} says so",
    )


def _clock(stream: Stream, spooled: Spooled, cleaning: Cleaning) -> ClockReading:
    """Return rate and gaps, from the stamps where there are any."""
    if spooled.time is not None:
        stated = cleaning.rate_hz or stream.rate_hz
        by_user = cleaning.rate_hz is not None
        return _reading(spooled.time, stated, by_user=by_user, borders=spooled.borders, where=stream.source)
    rate_hz = cleaning.rate_hz or stream.rate_hz
    if rate_hz is None:
        raise BadInputError(
            f"{stream.source}: has no time stamps and states no rate", hint="state the rate: --rate HZ"
        )
    gaps = tuple(Gap(border - 1, 0.0) for border in spooled.borders)
    return ClockReading(clock=None, gaps=gaps, rate_hz=rate_hz, uneven=False, notes=())


def _reading(
    time: npt.NDArray[np.float64],
    stated_hz: float | None,
    *,
    by_user: bool,
    borders: tuple[int, ...],
    where: str,
) -> ClockReading:
    return read_clock(
        lambda: row_blocks(time, BLOCK),
        stated_hz=stated_hz,
        stated_by_user=by_user,
        borders=borders,
        where=where,
    )
