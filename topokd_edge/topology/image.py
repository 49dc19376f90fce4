"""Persistence images of windows, by our own exact code or by ripser and persim.

An image is the sum over pairs of weight times the outer product of two vectors: the mass a one-dimensional
Gaussian leaves in each pixel of an axis, a difference of normal CDFs (H. Adams et al., Persistence Images,
JMLR 18(8), 2017). Both backends integrate exactly over pixels.
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
from topokd_edge.topology.sublevel import refuse_non_finite

Backend = Literal["fast", "reference"]
BACKENDS: tuple[Backend, ...] = ("fast", "reference")

_TASK = "persistence images"
_REACH = 6.5
"""Where a Gaussian is cut, in sigma: exp(-6.5**2 / 2) = 7e-10 of its peak is left out per pair."""
_TABLE_STEP = 0.02
"""Step of the table of pixel masses, in sigma; cubic interpolation then errs by less than 2e-8 of a peak."""


def persistence_images(
    x: npt.NDArray[np.float32],
    params: ImageParams,
    *,
    backend: Backend = "fast",
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
        "fast": compiled, tens of microseconds a channel. "reference": ripser and persim, as the field does
        it, for checking; equal to "fast" within 1e-6 of the maximum of an image; always one thread.
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
        When the backend is unknown or `threads` is below 1.
    """
    check_windows(x.shape)
    if x.shape[1] != params.channels:
        raise BadInputError(
            f"windows have {x.shape[1]} channels, the image parameters are for {params.channels}"
        )
    if backend not in BACKENDS:
        raise UsageError(f"backend = {backend!r}: expected one of {', '.join(BACKENDS)}")
    if threads is not None and threads < 1:
        raise UsageError(f"threads = {threads}: expected 1 or more")
    x = np.ascontiguousarray(x, dtype=np.float32)
    refuse_non_finite(x)
    images = np.empty((len(x), x.shape[1], *params.size), dtype=np.float32)
    degenerate = np.empty(x.shape[:2], dtype=np.bool_)
    fill = _fast(params) if backend == "fast" else _reference(params)
    workers = (threads or len(os.sched_getaffinity(0))) if backend == "fast" else 1
    step = max(1, min(64 if backend == "fast" else 1, len(x) // workers))

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

    essential = {"drop": _kernels.DROP, "cap": _kernels.CAP, "keep": _kernels.KEEP}[params.essential]
    rows, columns = params.size
    settings = (
        np.array(params.birth_range),
        np.array(params.persistence_range),
        params.min_life,
        essential,
        params.normalise == "max",
        _pixel_masses(columns, params.sigma),
        _pixel_masses(rows, params.sigma),
    )

    def fill(
        x: npt.NDArray[np.float32], images: npt.NDArray[np.float32], degenerate: npt.NDArray[np.bool_]
    ) -> None:
        _kernels.images(x, *settings, images, degenerate)

    return fill


def _pixel_masses(pixels: int, sigma: float) -> npt.NDArray[np.float64]:
    """Tabulate what a Gaussian leaves in the pixels about the one it lies in.

    Returns
    -------
    ndarray
        Shape (steps + 3, 2 * reach + 1): entry (m, k) is the mass in the pixel k - reach places from the
        Gaussian's own when it lies at (m - 1) / steps of its pixel's width. The rows beyond both ends
        serve cubic interpolation.
    """
    from scipy.special import ndtr

    spread = sigma * pixels
    reach = min(int(np.ceil(_REACH * spread)) + 1, pixels - 1)
    steps = max(2, int(np.ceil(1.0 / (_TABLE_STEP * spread))))
    place = (np.arange(steps + 3) - 1.0) / steps
    edges = np.arange(-reach, reach + 2)
    cdf = ndtr((edges[np.newaxis] - place[:, np.newaxis]) / spread)
    return np.ascontiguousarray(np.diff(cdf, axis=1))


def _reference(params: ImageParams) -> Fill:
    """Return the ripser and persim backend as a function of (windows, images to fill, flags to fill)."""
    from persim import PersistenceImager

    rows, columns = params.size
    # Axes in pixels: persim derives the size from range and pixel size, which drifts by rounding unless
    # both are whole.
    variances = [[(params.sigma * columns) ** 2, 0.0], [0.0, (params.sigma * rows) ** 2]]
    imager = PersistenceImager(
        birth_range=(0, columns), pers_range=(0, rows), pixel_size=1, kernel_params={"sigma": variances}
    )

    def fill(
        x: npt.NDArray[np.float32], images: npt.NDArray[np.float32], degenerate: npt.NDArray[np.bool_]
    ) -> None:
        for window, channel in np.ndindex(x.shape[:2]):
            points = _points_in_pixels(x[window, channel].astype(np.float64), params, channel)
            image = np.zeros((rows, columns))
            if len(points):
                image = imager.transform(points, skew=False).T[::-1] / rows
            largest = image.max()
            degenerate[window, channel] = largest == 0.0
            images[window, channel] = (
                image / largest if params.normalise == "max" and largest > 0.0 else image
            )

    return fill


def _points_in_pixels(
    signal: npt.NDArray[np.float64], params: ImageParams, channel: int
) -> npt.NDArray[np.float64]:
    """Return (birth, life) of the pairs that are drawn, in pixels, shape (points, 2)."""
    pairs = ripser_diagram(signal)
    if params.essential == "drop":
        pairs = pairs[np.isfinite(pairs[:, 1])]
    elif params.essential == "cap":
        pairs[:, 1] = np.minimum(pairs[:, 1], signal.max())
    low, high = params.birth_range[channel]
    shortest, longest = params.persistence_range[channel]
    life = pairs[:, 1] - pairs[:, 0]
    kept = life > params.min_life * (longest - shortest)
    birth_place = (pairs[kept, 0] - low) / (high - low)
    life_place = (life[kept] - shortest) / (longest - shortest)
    rows, columns = params.size
    places: npt.NDArray[np.float64] = np.clip(np.stack([birth_place, life_place], axis=1), 0.0, 1.0)
    return places * np.array([columns, rows], dtype=np.float64)


def ripser_diagram(signal: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the sublevel diagram of a finite signal by ripser on the sparse lower-star matrix.

    Ripser takes zero in a sparse matrix for "no edge" and computes in float32, so it is given ranks from
    1 upwards (exact up to 2**24 distinct values), and the values are put back afterwards.

    Parameters
    ----------
    signal
        float64, shape (samples,).

    Returns
    -------
    ndarray
        float64, shape (pairs, 2), with the essential class (death inf).
    """
    from ripser import ripser
    from scipy.sparse import coo_matrix

    values, place = np.unique(signal, return_inverse=True)
    rank = place.astype(np.float64) + 1.0
    vertex = np.arange(len(signal))
    entries = np.concatenate([rank, np.maximum(rank[:-1], rank[1:])])
    at = (np.concatenate([vertex, vertex[:-1]]), np.concatenate([vertex, vertex[1:]]))
    matrix = coo_matrix((entries, at), shape=(len(signal), len(signal)))
    ranks = ripser(matrix, distance_matrix=True, maxdim=0)["dgms"][0]
    level = np.append(values, np.inf)
    at_level = np.where(np.isfinite(ranks), ranks - 1, len(values)).astype(np.int64)
    pairs: npt.NDArray[np.float64] = level[at_level].reshape(-1, 2)
    return pairs
