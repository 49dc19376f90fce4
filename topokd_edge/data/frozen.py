"""Samples that repeat the one before in every channel: what a lost connection or a sleeping sensor leaves."""

from __future__ import annotations

import numpy as np

from topokd_edge.arrays import BLOCK
from topokd_edge.data.intervals import runs
from topokd_edge.data.recording import Recording

FROZEN_SECONDS = 0.5
"""Shorter repeats occur by chance in coarse samples."""
_FEWEST = 8
_MOVING = ("g", "m/s2", "deg/s", "rad/s", "uT", "mV")
"""Units whose channels never stand still; a heart rate or a temperature may."""


def frozen_stretches(recording: Recording) -> tuple[tuple[int, int], ...]:
    """Return half-open sample intervals in which no channel of a moving quantity changes at all.

    They last half a second, and 8 samples, or longer, and cross no gap. Noise alone makes real samples
    differ, so a device or software repeated these over time in which nothing was measured.
    """
    rows = [row for row, unit in enumerate(recording.units) if unit in _MOVING]
    samples = recording.samples.shape[1]
    if not rows or samples < 2:
        return ()
    borders = np.array([gap.after_sample for gap in recording.gaps], dtype=np.int64)
    fewest = max(_FEWEST, round(FROZEN_SECONDS * recording.rate_hz))
    found: list[tuple[int, int]] = []
    for start in range(0, samples - 1, BLOCK):
        block = recording.samples[rows, start : start + BLOCK + 1]
        same = (block[:, 1:] == block[:, :-1]).all(axis=0)
        here = borders[slice(*np.searchsorted(borders, (start, start + len(same))))]
        same[here - start] = False
        for first, last in runs(same):
            if found and found[-1][1] == start + first + 1 and first == 0:
                found[-1] = (found[-1][0], start + last + 1)
            elif last - first >= fewest - 1 or first == 0 or last == len(same):
                found.append((start + first, start + last + 1))
    return tuple((first, stop) for first, stop in found if stop - first >= fewest)
