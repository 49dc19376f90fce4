"""One continuous stretch of one person's sensors, as everything after the importers sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

UNITS = ("g", "m/s2", "deg/s", "rad/s", "uT", "mV", "bpm", "degC", "lux", "1")
"""Units a channel may have; "1" is a quantity without unit."""
UNKNOWN_SUBJECT = "unknown"
"""Subject of recordings whose file names nobody."""


@dataclass(frozen=True, slots=True)
class LabelInterval:
    """Samples `start` (included) to `stop` (excluded) belong to class `label`."""

    start: int
    stop: int
    label: str


@dataclass(frozen=True, slots=True)
class Gap:
    """Time is missing between sample `after_sample` and the next one.

    `seconds` is how much longer than one sample interval the step is; 0 marks a border
    of unknown length that no window may cross.
    """

    after_sample: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Clock:
    """What the time stamps of a recording say about its rate.

    Attributes
    ----------
    estimated_hz
        Steps without a gap divided by the time they take, over the whole span.
    stated_hz
        What the file or the user says, None when neither does.
    resolution_s
        Grid that the stamps lie on: the smallest step, or difference between two steps, that is no rounding
        error.
    jitter_s
        Standard deviation of the time steps (period jitter), gaps left out.
    drift_ppm
        Change of the estimated rate from the first to the last quarter of the span, in parts per million;
        0 when the span is too short to tell.
    repeated
        Stamps that repeat the one before; they were spread evenly inside their time step.
    segment_hz
        Estimated rate of each gapless stretch in order, at most the first 1,000; stretches too short to
        tell are NaN.
    """

    estimated_hz: float
    stated_hz: float | None
    resolution_s: float
    jitter_s: float
    drift_ppm: float
    repeated: int
    segment_hz: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Recording:
    """One recording of one subject.

    Attributes
    ----------
    subject, session
        Who, and which sitting; a window never crosses either.
    device
        Maker and model, or the data set's name.
    rate_hz
        Samples per second; a float, never rounded.
    channels, units
        Name and unit of each channel, in the order of `samples`.
    samples
        float32, shape (channels, samples), finite; may be memory-mapped.
    labels
        Label intervals in order, not overlapping.
    gaps
        Where time is missing, in order.
    source
        The file and, if there are several recordings in it, which one.
    start
        Date and time of the first sample, ISO 8601; None when nobody knows.
    filled
        Half-open sample intervals, in order, that were interpolated because the user asked for it.
    clock
        What the time stamps say; None where the file has none.
    about
        What else the file says: side, position, orientation, serial number, firmware, calibration.
    notes
        What the reader wants a person to know: a page cut off, a clock that was set back.
    """

    subject: str
    session: str
    device: str
    rate_hz: float
    channels: tuple[str, ...]
    units: tuple[str, ...]
    samples: npt.NDArray[np.float32]
    labels: tuple[LabelInterval, ...]
    gaps: tuple[Gap, ...]
    source: str
    start: str | None = None
    filled: tuple[tuple[int, int], ...] = ()
    clock: Clock | None = None
    about: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
