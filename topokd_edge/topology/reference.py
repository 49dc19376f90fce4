"""Diagrams and images by the libraries of the field: ripser, and persim's two classes of images."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from topokd_edge.topology.params import ImageParams
from topokd_edge.topology.sublevel import diagram

Floats = npt.NDArray[np.float64]


def fill(
    x: npt.NDArray[np.float32],
    params: ImageParams,
    images: npt.NDArray[np.float32],
    degenerate: npt.NDArray[np.bool_],
) -> None:
    """Compute images by ripser and persim; shapes as in `persistence_images`."""
    rasters = [_raster(params, channel) for channel in range(params.channels)]
    for window, pairs_of_channels in enumerate(diagrams(x, params)):
        for channel, pairs in enumerate(pairs_of_channels):
            # Differences of CDFs are as low as -1e-17; a mass is not negative.
            image = np.maximum(rasters[channel](_lasting(pairs, params, channel)), 0.0)
            largest = image.max()
            degenerate[window, channel] = largest == 0.0
            divide = params.normalise == "max" and largest > 0.0
            images[window, channel] = image / largest if divide else image


def diagrams(
    x: npt.NDArray[np.float32], params: ImageParams, *, ripser: bool = True
) -> Iterator[list[Floats]]:
    """Yield the diagram of every channel, window by window.

    Parameters
    ----------
    x
        float32, shape (windows, channels, length), finite.
    params
        Give the filtration, and what becomes of the class that never dies.
    ripser
        Take sublevel pairs from ripser, or from our own code. Loops are always ripser's.
    """
    if params.filtration == "delay":
        from topokd_edge.topology import delay

        yield from delay.diagrams(x, params)
        return
    for window in params.filtered(x).astype(np.float64):
        yield [
            _with_essential(ripser_diagram(signal), signal, params)
            if ripser
            else diagram(signal, essential=params.essential, cap=params.cap)
            for signal in window
        ]


def _with_essential(pairs: Floats, signal: Floats, params: ImageParams) -> Floats:
    """Do with the class that never dies what `params` say."""
    if params.essential == "drop":
        return pairs[np.isfinite(pairs[:, 1])]
    if params.essential == "cap":
        cap = signal.max() if params.cap is None else params.cap
        pairs[np.isinf(pairs[:, 1]), 1] = cap
    return pairs[pairs[:, 1] > pairs[:, 0]]


def _lasting(pairs: Floats, params: ImageParams, channel: int) -> Floats:
    """Return (birth, life) of the pairs that are drawn, units of the signal, shape (points, 2)."""
    shortest, longest = params.persistence_range[channel]
    life = np.where(np.isinf(pairs[:, 1]), longest, pairs[:, 1] - pairs[:, 0])
    kept = life > params.min_life * (longest - shortest)
    return np.stack([pairs[kept, 0], life[kept]], axis=1)


Raster = Callable[[Floats], Floats]


def _raster(params: ImageParams, channel: int) -> Raster:
    return (_paper if params.layout == "paper" else _cells)(params, channel)


def _cells(params: ImageParams, channel: int) -> Raster:
    """Return persim's PersistenceImager as a function of (birth, life)."""
    from persim import PersistenceImager

    rows, columns = params.size
    # Axes in pixels: persim derives the size from range and pixel size, which drifts by rounding unless
    # both are whole.
    variances = [[(params.sigma * columns) ** 2, 0.0], [0.0, (params.sigma * rows) ** 2]]
    imager = PersistenceImager(
        birth_range=(0, columns),
        pers_range=(0, rows),
        pixel_size=1,
        kernel_params={"sigma": variances},
        **_weight(params),
    )
    low, high = np.array([params.birth_range[channel], params.persistence_range[channel]]).T

    def raster(points: Floats) -> Floats:
        if not len(points):
            return np.zeros(params.size)
        places = np.clip((points - low) / (high - low), 0.0, 1.0) * np.array([columns, rows])
        image: Floats = imager.transform(places, skew=False).T[::-1]
        return image / rows**params.weight_power if params.weight == "power" else image

    return raster


def _weight(params: ImageParams) -> dict[str, Any]:
    """Return what persim takes for the weight, lives being in pixels."""
    if params.weight == "power":
        return {"weight": "persistence", "weight_params": {"n": params.weight_power}}
    if params.weight == "ramp":
        start, end = (params.size[0] * fraction for fraction in params.weight_ramp)
        return {"weight": "linear_ramp", "weight_params": {"start": start, "end": end}}
    return {"weight": lambda birth, life: np.ones(len(life)), "weight_params": {}}


def _paper(params: ImageParams, channel: int) -> Raster:
    """Return persim's deprecated PersImage as a function of (birth, life)."""
    from persim import PersImage

    rows, columns = params.size
    low, high = params.birth_range[channel]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        imager = PersImage(
            pixels=(columns, rows),
            spread=params.sigma * high,
            specs={"minBD": low, "maxBD": high},
            verbose=False,
        )

    def raster(points: Floats) -> Floats:
        if not len(points):
            return np.zeros(params.size)
        image: Floats = imager.transform(points + points[:, :1] * np.array([0.0, 1.0]))
        return image

    return raster


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
