"""What a job of persistence images will take, told before it starts."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from topokd_edge.rows import Rows, evenly
from topokd_edge.topology.image import Backend, persistence_images
from topokd_edge.topology.params import ImageParams

_RIPSER_BYTES_PER_SAMPLE = 400
"""Of a lower-star filtration; measured with ripser 0.6.15: 320 to 340 for 10^5 and 10^6 samples of noise."""
_OWN_BYTES_PER_SAMPLE = 40
"""Five arrays of float64."""


@dataclass(frozen=True)
class Cost:
    """Predicted wall time in seconds, bytes of the images as float32, bytes of memory that diagrams take."""

    seconds: float
    bytes: int
    memory: int


def predict_cost(x: Rows, params: ImageParams, *, backend: Backend, sample: int = 3) -> Cost:
    """Predict what the images of `x` cost, from the time of a few windows spread over the set.

    The number of pairs, and so the time, varies between windows: expect the right order of magnitude, not
    the right second. Drawing loops is left out. The size of the images is exact.

    Parameters
    ----------
    x
        float32, shape (windows, channels, length).
    params
        What the images depend on.
    backend
        See `persistence_images`.
    sample
        How many windows are computed, on one thread, after one that warms up.

    Raises
    ------
    BadInputError
        As `persistence_images`.
    """
    some = np.asarray(x[evenly(len(x), sample)])
    memory = predict_memory(x.shape[2], params, backend=backend)
    per_window = (
        _seconds_of_loops(some, params) if params.filtration == "delay" else _seconds(some, params, backend)
    )
    return Cost(
        seconds=per_window * len(x),
        bytes=len(x) * params.channels * params.size[0] * params.size[1] * 4,
        memory=memory,
    )


def _seconds(some: npt.NDArray[np.float32], params: ImageParams, backend: Backend) -> float:
    persistence_images(some[:1], params, backend=backend, threads=1)
    begin = time.perf_counter()
    persistence_images(some, params, backend=backend, threads=1)
    return (time.perf_counter() - begin) / len(some)


def _seconds_of_loops(some: npt.NDArray[np.float32], params: ImageParams) -> float:
    """Return the time of a window, without the start of the process, which is shared by many."""
    from topokd_edge.topology import delay

    diagrams = delay.diagrams(np.concatenate([some[:1], some]), params)
    next(diagrams)
    begin = time.perf_counter()
    count = sum(1 for _ in diagrams)
    return (time.perf_counter() - begin) / count


def predict_memory(length: int, params: ImageParams, *, backend: Backend) -> int:
    """Return the bytes that the diagram of one channel of `length` samples takes at most, about.

    Raises
    ------
    UsageError
        When the windows are too short for the embedding.
    """
    if params.filtration == "delay":
        from topokd_edge.topology import delay

        return delay.memory_of(length, params)
    return length * (_RIPSER_BYTES_PER_SAMPLE if backend == "reference" else _OWN_BYTES_PER_SAMPLE)
