"""Samples that repeat the one before in every channel: what a lost connection or a sleeping sensor leaves."""

from __future__ import annotations

import numpy as np

from topokd_edge.data.intervals import runs
from topokd_edge.data.recording import Recording

FROZEN_SECONDS = 0.5
"""Shorter repeats occur by chance in coarse samples."""
_FEWEST = 8
_MOVING = ("g", "m/s2", "deg/s", "rad/s", "uT", "mV")
"""Units whose channels never stand still; a heart rate or a temperature may."""
_BLOCK = 1 << 16


def frozen_stretches(recording: Recording) -> tuple[tuple[int, int], ...]:
    """Return half-open sample intervals in which no channel of a moving quantity changes at all.

    They last half a second, and 8 samples, or longer, and cross no gap. Noise alone makes real samples
    differ, so a device or software repeated these over time in which nothing was measured.
    """
    rows = [row for row, unit in enumerate(recording.units) if unit in _MOVING]
    samples = recording.samples.shape[1]
    if not rows or samples < 2:
        return ()
    same = np.empty(samples - 1, dtype=np.bool_)
    for start in range(0, samples - 1, _BLOCK):
        block = recording.samples[rows, start : start + _BLOCK + 1]
        same[start : start + block.shape[1] - 1] = (block[:, 1:] == block[:, :-1]).all(axis=0)
    same[[gap.after_sample for gap in recording.gaps if gap.after_sample < samples - 1]] = False
    fewest = max(_FEWEST, round(FROZEN_SECONDS * recording.rate_hz))
    return tuple((first, last + 1) for first, last in runs(same) if last + 1 - first >= fewest)
