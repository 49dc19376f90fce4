"""What a job of persistence images will take, told before it starts."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from topokd_edge.rows import Rows
from topokd_edge.topology.image import Backend, persistence_images
from topokd_edge.topology.params import ImageParams


@dataclass(frozen=True)
class Cost:
    """Predicted wall time in seconds, and bytes of the images as float32."""

    seconds: float
    bytes: int


def predict_cost(x: Rows, params: ImageParams, *, backend: Backend, sample: int = 3) -> Cost:
    """Predict what the images of `x` cost, from the time of a few windows spread over the set.

    The number of pairs, and so the time, varies between windows: expect the right order of magnitude, not
    the right second. The size is exact.

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
    some = np.asarray(x[np.linspace(0, len(x) - 1, min(sample, len(x))).astype(np.int64)])
    persistence_images(some[:1], params, backend=backend, threads=1)
    start = time.perf_counter()
    persistence_images(some, params, backend=backend, threads=1)
    per_window = (time.perf_counter() - start) / len(some)
    return Cost(
        seconds=per_window * len(x), bytes=len(x) * params.channels * params.size[0] * params.size[1] * 4
    )
