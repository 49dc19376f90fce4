"""Accuracy with a 95 % interval, and the interval of a paired difference."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from topokd_bench.windows import HeldOut

Z95 = 1.959963984540054
"""Two-sided 95 % point of the normal distribution."""

ENOUGH_SUBJECTS = 10
"""With fewer, a percentile bootstrap over subjects is much too narrow."""

Resampled = Literal["subjects", "windows"]


def interval95(
    correct: npt.NDArray[np.bool_], subject: npt.NDArray[np.str_] | None
) -> tuple[tuple[float, float], Resampled]:
    """Return a 95 % interval of the accuracy and what it resamples.

    With ten subjects or more, a percentile bootstrap over subjects (windows of one person are not
    independent); with fewer, Wilson's score interval over windows, which says nothing of new subjects.

    Parameters
    ----------
    correct
        bool, shape (windows,).
    subject
        str, shape (windows,); None when unknown.
    """
    if subject is not None and len(set(subject.tolist())) >= ENOUGH_SUBJECTS:
        return bootstrap95(correct.astype(np.float64), subject), "subjects"
    return wilson95(int(correct.sum()), len(correct)), "windows"


def judge(
    held_out: HeldOut, chosen: npt.NDArray[np.int64], predicted: npt.ArrayLike
) -> tuple[dict[str, Any], dict[int, bool]]:
    """Return what a bench result says of accuracy, and of each window whether it was classified right.

    Parameters
    ----------
    held_out
        Whose truth is known.
    chosen
        int64, shape (windows,): those that were tried.
    predicted
        Their classes, shape (windows,).

    Raises
    ------
    ValueError
        When the truth is not known.
    """
    if held_out.y is None:
        raise ValueError("held-out windows without their truth")
    correct = np.asarray(predicted, dtype=np.int64) == held_out.y[chosen]
    interval, basis = interval95(correct, None if held_out.subject is None else held_out.subject[chosen])
    fields = {
        "accuracy": float(correct.mean()),
        "accuracy_ci95": interval,
        "accuracy_basis": basis,
        "windows": len(chosen),
    }
    return fields, dict(zip(chosen.tolist(), correct.tolist(), strict=True))


def wilson95(successes: int, trials: int) -> tuple[float, float]:
    """Return Wilson's 95 % score interval of a proportion (Wilson, JASA 22, 1927).

    Raises
    ------
    ValueError
        When `trials` is less than one.
    """
    if trials < 1:
        raise ValueError("a proportion needs at least one trial")
    share = successes / trials
    z2n = Z95 * Z95 / trials
    centre = (share + z2n / 2) / (1 + z2n)
    half = Z95 * math.sqrt(share * (1 - share) / trials + z2n / (4 * trials)) / (1 + z2n)
    return max(0.0, centre - half), min(1.0, centre + half)


def bootstrap95(
    value: npt.NDArray[np.float64], cluster: npt.NDArray[np.str_], *, draws: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Return the 95 % percentile interval of the mean of `value`, resampling whole clusters.

    Parameters
    ----------
    value
        float64, shape (n,).
    cluster
        str, shape (n,): values of one cluster are drawn together.
    draws, seed
        Bootstrap samples, and the seed of their generator.
    """
    _, index = np.unique(cluster, return_inverse=True)
    sums = np.bincount(index, weights=value)
    counts = np.bincount(index)
    picks = np.random.default_rng(seed).integers(0, len(sums), size=(draws, len(sums)))
    means = sums[picks].sum(axis=1) / counts[picks].sum(axis=1)
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def paired95(gained: int, lost: int, trials: int) -> tuple[float, float]:
    """Return the 95 % interval of a difference of two paired proportions.

    Wald's interval with half a case added to each cell (Agresti and Min, Statistics in Medicine 24, 2005),
    which holds its level also when the two hardly ever disagree.

    Parameters
    ----------
    gained, lost
        Cases that only the second got right, and that only the first got right.
    trials
        All cases.

    Raises
    ------
    ValueError
        When `trials` is less than one.
    """
    if trials < 1:
        raise ValueError("a difference of proportions needs at least one trial")
    size, more, fewer = trials + 2.0, gained + 0.5, lost + 0.5
    difference = (more - fewer) / size
    half = Z95 * math.sqrt(more + fewer - (more - fewer) ** 2 / size) / size
    return max(-1.0, difference - half), min(1.0, difference + half)
