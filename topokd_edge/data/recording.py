"""One continuous stretch of one person's sensors, as every importer returns it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

UNITS = ("g", "m/s2", "deg/s", "rad/s", "uT", "mV", "1")
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
        float32, shape (channels, samples), finite.
    labels
        Label intervals in order, not overlapping.
    gaps
        Where time is missing, in order.
    source
        The file and, if there are several recordings in it, which one.
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
