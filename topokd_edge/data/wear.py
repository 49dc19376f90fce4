"""How long was recorded, labelled and missing, and when a sensor may have lain on a table."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from topokd_edge.data.check import accelerometers
from topokd_edge.data.intervals import runs
from topokd_edge.data.recording import Recording
from topokd_edge.data.timeline import Timeline

STILL_G = 0.013
"""Standard deviation of an axis below which a sensor lies still: 13 mg, as `sdcriter` of GGIR."""
STILL_SECONDS = 600.0
"""Shortest time that counts."""
_MINUTE = 60.0
_AXES = 2
"""Axes of three that must be still; one may drift with temperature."""


@dataclass(frozen=True, slots=True)
class Still:
    """A sensor was still and flat.

    Attributes
    ----------
    sensor
        Common part of the channel names of the accelerometer.
    start, seconds
        When, in seconds since the first sample of the recording, and for how long.
    """

    sensor: str
    start: float
    seconds: float


@dataclass(frozen=True, slots=True)
class WearTime:
    """Where the time of one recording goes, in seconds.

    Attributes
    ----------
    recorded, missing, labelled, filled
        With samples; in gaps; with a label; interpolated over gaps.
    borders
        Gaps whose length nobody knows.
    still
        Stretches that look as if the sensor was not worn; an indication, never proof.
    """

    recorded: float
    missing: float
    labelled: float
    filled: float
    borders: int
    still: tuple[Still, ...]

    @property
    def still_seconds(self) -> float:
        """Time still and flat of the sensor that has most of it."""
        by_sensor: dict[str, float] = {}
        for item in self.still:
            by_sensor[item.sensor] = by_sensor.get(item.sensor, 0.0) + item.seconds
        return max(by_sensor.values(), default=0.0)


def wear_time(recording: Recording) -> WearTime:
    """Account for the time of a recording."""
    rate_hz = recording.rate_hz
    return WearTime(
        recorded=recording.samples.shape[1] / rate_hz,
        missing=float(sum(gap.seconds for gap in recording.gaps)),
        labelled=sum(item.stop - item.start for item in recording.labels) / rate_hz,
        filled=sum(stop - start for start, stop in recording.filled) / rate_hz,
        borders=sum(gap.seconds == 0 for gap in recording.gaps),
        still=still_stretches(recording),
    )


def still_stretches(recording: Recording) -> tuple[Still, ...]:
    """Find stretches of 10 minutes and more in which an accelerometer lies still.

    Over every 10 minutes, in steps of one minute, at least two of three axes vary by a standard deviation
    below 13 mg. That is half of the rule of GGIR (`detect_nonwear_clipping`, after van Hees et al., PLoS ONE
    8(4):e61691, 2013), which takes 60 minutes in steps of 15 and asks for a small range too. It cannot tell a
    sensor on a table from deep sleep, and does not see stretches that gaps cut shorter than 10 minutes.
    """
    found = []
    timeline = Timeline(recording)
    minute = max(2, round(_MINUTE * recording.rate_hz))
    borders = [0, *(gap.after_sample + 1 for gap in recording.gaps), recording.samples.shape[1]]
    for name, rows, scale in accelerometers(recording):
        for start, stop in pairwise(borders):
            still = _still_minutes(recording, rows, scale, range(start, stop - minute + 1, minute), minute)
            for first, last in runs(still):
                begin = float(timeline.at(start + first * minute))
                found.append(Still(name, begin, (last - first) * minute / recording.rate_hz))
    return tuple(found)


def _still_minutes(
    recording: Recording, rows: list[int], scale: float, starts: range, minute: int
) -> npt.NDArray[np.bool_]:
    """Return which minutes lie in a still stretch of at least `STILL_SECONDS`, shape (minutes,)."""
    span = round(STILL_SECONDS / _MINUTE)
    if len(starts) < span:
        return np.zeros(len(starts), dtype=np.bool_)
    mean, square = (np.empty((len(starts), len(rows))) for _ in range(2))
    for index, start in enumerate(starts):
        values = recording.samples[rows, start : start + minute].astype(np.float64) * scale
        mean[index], square[index] = values.mean(axis=1), np.square(values).mean(axis=1)
    windows = np.lib.stride_tricks.sliding_window_view
    variance = windows(square, span, axis=0).mean(axis=-1) - windows(mean, span, axis=0).mean(axis=-1) ** 2
    flat = (variance < STILL_G**2).sum(axis=1) >= _AXES
    still = np.zeros(len(starts), dtype=np.bool_)
    for index in np.flatnonzero(flat).tolist():
        still[index : index + span] = True
    return still
