"""Persistence images of windows, by our own exact code, on a GPU, or by ripser and persim.

An image is the sum over pairs of weight times the outer product of two vectors: the mass a one-dimensional
Gaussian leaves in each pixel of an axis, a difference of normal CDFs (H. Adams et al., Persistence Images,
JMLR 18(8), 2017). All backends integrate exactly over pixels.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
import numpy.typing as npt

from topokd_edge.errors import BadInputError, UsageError
from topokd_edge.progress import Progress, silent
from topokd_edge.topology.params import ImageParams, check_windows
from topokd_edge.topology.sublevel import essential_code, refuse_non_finite

Backend = Literal["fast", "gpu", "reference"]
BACKENDS: tuple[Backend, ...] = ("fast", "gpu", "reference")

_TASK = "persistence images"
_STEP = 64
"""How many windows a thread of "fast" takes at a time."""
_REACH = 6.5
"""Where a Gaussian is cut, in sigma: exp(-6.5**2 / 2) = 7e-10 of its peak is left out per pair."""
_TABLE_STEP = 0.02
"""Step of the table of pixel masses, in sigma; cubic interpolation then errs by less than 2e-8 of a peak."""


def backend_for(params: ImageParams) -> Backend:
    """Return the quickest backend that computes the images of `params`."""
    return "reference" if params.filtration == "delay" else "fast"


def persistence_images(
    x: npt.NDArray[np.float32],
    params: ImageParams,
    *,
    backend: Backend | None = None,
    threads: int | None = None,
    progress: Progress = silent,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Return the persistence image of every channel of every window.

    Parameters
    ----------
    x
        float32, shape (windows, channels, length), in the units the ranges of `params` were fitted in.
    params
        What the images depend on; see `fit_params`.
    backend
        "fast": compiled, tens of microseconds a channel. "gpu": compiled diagrams, drawn in batches by
        CUDA. "reference": ripser and persim, as the field does it, for checking, and for loops ("delay");
        always one thread. All are equal within 1e-6 of the maximum of an image. None takes "reference" for
        loops and "fast" for the rest.
    threads
        How many threads share the work; None takes all cores this process may use.
    progress
        Told how many windows are done.

    Returns
    -------
    images
        float32, shape (windows, channels, rows, columns); row 0 holds the longest lives, column 0 the
        lowest births.
    degenerate
        bool, shape (windows, channels): no pair was left (a constant window, say) and the image is all zero.

    Raises
    ------
    BadInputError
        When a sample is NaN or infinite (its place is named), or the channels are not those of `params`.
    UsageError
        When the backend is unknown, or has no such filtration, or `threads` is below 1.
    MissingError
        When there is no CUDA device for "gpu", or it has no memory left.
    """
    check_windows(x.shape)
    if x.shape[1] != params.channels:
        raise BadInputError(
            f"windows have {x.shape[1]} channels, the image parameters are for {params.channels}"
        )
    backend = backend or backend_for(params)
    if backend not in BACKENDS:
        raise UsageError(f"backend = {backend!r}: expected one of {', '.join(BACKENDS)}")
    if threads is not None and threads < 1:
        raise UsageError(f"threads = {threads}: expected 1 or more")
    x = np.ascontiguousarray(x, dtype=np.float32)
    refuse_non_finite(x)
    if params.filtration == "delay" and backend != "reference":
        raise UsageError(
            "filtration = 'delay': loops are computed by ripser only", hint="take backend = 'reference'"
        )
    images = np.empty((len(x), x.shape[1], *params.size), dtype=np.float32)
    degenerate = np.empty(x.shape[:2], dtype=np.bool_)
    if backend == "reference":
        from topokd_edge.topology import reference

        reference.fill(x, params, images, degenerate)
        progress(_TASK, len(x), len(x))
        return images, degenerate
    workers = threads or len(os.sched_getaffinity(0))
    fill, most = _on_gpu(params, x.shape[2]) if backend == "gpu" else (_fast(params), _STEP)
    step = max(1, min(most, len(x) // workers))

    def run(start: int) -> int:
        part = slice(start, min(start + step, len(x)))
        fill(x[part], images[part], degenerate[part])
        return part.stop

    starts = range(0, len(x), step)
    if workers == 1 or len(starts) == 1:
        for start in starts:
            progress(_TASK, run(start), len(x))
    else:
        with ThreadPoolExecutor(workers) as pool:
            for done in pool.map(run, starts):
                progress(_TASK, done, len(x))
    return images, degenerate


Fill = Callable[[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.bool_]], None]


def _fast(params: ImageParams) -> Fill:
    """Return the compiled backend as a function of (windows, images to fill, flags to fill)."""
    from topokd_edge.topology import _kernels

    weight = {
        "power": (_kernels.POWER, params.weight_power, 0.0),
        "ramp": (_kernels.RAMP, *params.weight_ramp),
        "constant": (_kernels.CONSTANT, 0.0, 0.0),
    }[params.weight]
    rows, columns = params.size
    settings = (
        np.array(params.birth_range),
        np.array(params.persistence_range),
        params.min_life,
        essential_code(params.essential, params.cap),
        weight,
        params.normalise == "max",
        params.sigma if params.layout == "paper" else 0.0,
        (_pixel_masses(columns, params.sigma), _pixel_masses(rows, params.sigma)),
    )

    def fill(
        x: npt.NDArray[np.float32], images: npt.NDArray[np.float32], degenerate: npt.NDArray[np.bool_]
    ) -> None:
        _kernels.images(params.filtered(x), *settings, images, degenerate)

    return fill


def _on_gpu(params: ImageParams, length: int) -> tuple[Fill, int]:
    """Return the backend of the GPU, as `_fast` does, and how many windows a thread takes at a time."""
    from topokd_edge.topology import batched

    return batched.filler(params, batched.cuda()), batched.windows_at_a_time(params.channels, length)


def _pixel_masses(pixels: int, sigma: float) -> npt.NDArray[np.float64]:
    """Tabulate what a Gaussian leaves in the equal pixels of an axis; `sigma` is a fraction of it."""
    spread = sigma * pixels
    return masses(spread, min(reach_of(spread), pixels - 1))


def reach_of(spread: float, width: float = 1.0) -> int:
    """Return how many pixels away a Gaussian still leaves anything; see `masses`."""
    return int(np.ceil(_REACH * spread)) + int(np.ceil(width))


def masses(spread: float, reach: int, width: float = 1.0) -> npt.NDArray[np.float64]:
    """Tabulate what a Gaussian leaves in the pixels about the one it lies in.

    Parameters
    ----------
    spread
        Standard deviation, in steps from one pixel to the next.
    reach
        How many pixels on both sides.
    width
        Of a pixel, in steps: below 1 there are gaps between them.

    Returns
    -------
    ndarray
        Shape (steps + 3, 2 * reach + 1): entry (m, k) is the mass in the pixel k - reach places from the
        Gaussian's own when it lies at (m - 1) / steps of the way to the next. The rows beyond both ends
        serve cubic interpolation.
    """
    from scipy.special import ndtr

    steps = max(2, int(np.ceil(1.0 / (_TABLE_STEP * spread))))
    place = (np.arange(steps + 3) - 1.0)[:, np.newaxis] / steps
    edges = np.arange(-reach, reach + 1)[np.newaxis]
    low, high = ((edges + end - place) / spread for end in (0.0, width))
    return np.ascontiguousarray(ndtr(high) - ndtr(low))
