"""Loops of the sliding-window embedding of a signal: H1 of its Vietoris-Rips filtration, by ripser.

A periodic signal traces a closed curve (J. Perea and J. Harer, Sliding windows and persistence, Found.
Comput. Math. 15, 2015). Memory grows with the square of the number of points and time faster, so points are
capped, the cost is told beforehand, and ripser runs in a process of its own.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import partial

import numpy as np
import numpy.typing as npt

from topokd_edge.errors import MissingError, UsageError
from topokd_edge.memory import free_memory
from topokd_edge.topology.child import in_child
from topokd_edge.topology.params import ImageParams

SECONDS = 120.0
"""Limit for one window."""
_BYTES_PER_PAIR_OF_POINTS = 128
"""Measured with ripser 0.6.15: 84 to 110 for 200 to 2000 points, of noise and of a noisy swing."""
_BYTES_TO_START = 400 << 20
"""Of the process itself, libraries included; what a limit leaves room for."""
_LEAST_POINTS = 4

Floats = npt.NDArray[np.float64]


def embed(signal: npt.NDArray[np.floating], dimension: int, lag: int) -> Floats:
    """Return the sliding-window embedding, shape (samples - (dimension - 1) lag, dimension)."""
    count = len(signal) - (dimension - 1) * lag
    return np.stack([signal[k * lag : k * lag + count] for k in range(dimension)], axis=1).astype(np.float64)


def loops(points: Floats, most: int) -> Floats:
    """Return birth and death of the loops of a point cloud.

    Parameters
    ----------
    points
        Shape (points, dimension).
    most
        A larger cloud is thinned to so many landmarks, each the one farthest from those before it; births
        and deaths then err by at most twice the distance from a point to its landmark (ripser's `n_perm`).

    Returns
    -------
    ndarray
        float64, shape (pairs, 2), units of the signal.
    """
    from ripser import ripser

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a cloud with more dimensions than points is meant
        found = ripser(points, maxdim=1, n_perm=most if len(points) > most else None)["dgms"][1]
    pairs = np.asarray(found, dtype=np.float64).reshape(-1, 2)
    return pairs[pairs[:, 1] > pairs[:, 0]]


def points_of(length: int, params: ImageParams) -> int:
    """Return how many points ripser gets for a channel of `length` samples.

    Raises
    ------
    UsageError
        When the embedding leaves fewer points than a loop needs.
    """
    count = length - (params.delay_dimension - 1) * params.delay_lag
    if count < _LEAST_POINTS:
        raise UsageError(
            f"delay_dimension = {params.delay_dimension}, delay_lag = {params.delay_lag}: windows of "
            f"{length} samples leave {max(count, 0)} points, a loop needs {_LEAST_POINTS}",
            hint="lower one of the two, or make longer windows",
        )
    return min(count, params.delay_points)


def memory_of(length: int, params: ImageParams) -> int:
    """Return the bytes that one channel of `length` samples takes at most, about."""
    return _BYTES_PER_PAIR_OF_POINTS * points_of(length, params) ** 2


def diagrams(x: npt.NDArray[np.float32], params: ImageParams) -> Iterator[list[Floats]]:
    """Yield the loops of every channel, window by window.

    Raises
    ------
    UsageError
        When the windows are too short for the embedding.
    MissingError
        When the memory that is free is less than a channel takes.
    BadInputError
        When a window takes too long, or too much memory after all.
    """
    needed = memory_of(x.shape[2], params)
    if needed > free_memory():
        raise MissingError(
            f"loops of {points_of(x.shape[2], params)} points take {needed / 1e6:.0f} MB of memory, "
            f"{free_memory() / 1e6:.0f} MB are free",
            hint=f"lower delay_points, now {params.delay_points}",
        )
    yield from in_child(
        partial(_loops_of_window, params),
        x,
        name="loops",
        seconds=SECONDS,
        memory=2 * needed + _BYTES_TO_START,
        hint=f"lower delay_points, now {params.delay_points}",
    )


def _loops_of_window(params: ImageParams, window: npt.NDArray[np.float32]) -> list[Floats]:
    clouds = (embed(channel, params.delay_dimension, params.delay_lag) for channel in window)
    return [loops(cloud, params.delay_points) for cloud in clouds]
