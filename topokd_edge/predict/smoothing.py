"""Smoothing a sequence of classes: the majority of an odd number of windows."""

from __future__ import annotations

import numpy as np

from topokd_edge.errors import UsageError
from topokd_edge.predict.answers import Ints


def check_windows(windows: int) -> None:
    """Raise UsageError unless `windows` is odd and positive."""
    if windows < 1 or windows % 2 == 0:
        raise UsageError(
            f"--smooth {windows}: expected an odd number of windows, such as 5; 1 smooths nothing"
        )


def majority(label: Ints, stretch: Ints, windows: int) -> Ints:
    """Give each window the class that most of the windows around it have.

    The window itself and (windows - 1) / 2 on each side vote, as far as they are in the same gapless
    stretch. Where no class has more votes than every other, the window keeps its own.

    Parameters
    ----------
    label, stretch
        Class and stretch of each window, int64, shape (n,); stretches ascend.
    windows
        How many vote; odd.

    Returns
    -------
    Ints
        int64, shape (n,).
    """
    check_windows(windows)
    place, half = np.arange(len(label)), windows // 2
    first = np.maximum(place - half, np.searchsorted(stretch, stretch, side="left"))
    after = np.minimum(place + half + 1, np.searchsorted(stretch, stretch, side="right"))
    most, winner, tied = np.zeros(len(label), np.int64), label.copy(), np.zeros(len(label), np.bool_)
    for name in np.unique(label):
        passed = np.concatenate(([0], np.cumsum(label == name)))
        votes = passed[after] - passed[first]
        winner[votes > most] = name
        tied = np.where(votes > most, False, tied | (votes == most))
        most = np.maximum(most, votes)
    return np.where(tied, label, winner)
