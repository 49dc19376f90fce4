"""Ranges and sigma of persistence images, from training windows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from topokd_edge.rows import Rows, evenly
from topokd_edge.topology.params import ImageParams, Range
from topokd_edge.topology.sublevel import Essential, essential_code, refuse_non_finite

_COVERED = 0.995
"""Share of the training windows whose extreme pairs lie inside the ranges: one glitch must not shrink all
images."""
_BLOCK = 512
_FOR_LOOPS = 64
_FOR_SIGMA = 256
_Stated = tuple[Range, ...] | None


def ranges(
    x: Rows, rows: npt.NDArray[np.int64], params: ImageParams, births: _Stated, lives: _Stated
) -> tuple[tuple[Range, ...], tuple[Range, ...]]:
    """Return birth and persistence ranges per channel; those given are taken as they are."""
    found = _extremes(x, rows, params)
    fitted = [_of_channel(found[:, channel]) for channel in range(x.shape[1])]
    if params.layout == "paper" and births is None:
        births = tuple((min(low, 0.0), max(high, longest)) for (low, high), (_, longest) in fitted)
    if params.layout == "paper" and lives is None and births is not None:
        lives = tuple((0.0, high) for _, high in births)
    return (
        births or tuple(birth for birth, _ in fitted),
        lives or tuple(life for _, life in fitted),
    )


def sigma(x: Rows, rows: npt.NDArray[np.int64], params: ImageParams) -> float:
    """Return Scott's bandwidth of the median diagram; the published sigma where no diagram has two pairs."""
    from topokd_edge.topology.reference import diagrams

    some = rows[evenly(len(rows), _FOR_LOOPS if params.filtration == "delay" else _FOR_SIGMA)]
    birth, life = np.array(params.birth_range), np.array(params.persistence_range)
    long = np.diff(life)[:, 0]
    width = long if params.layout == "paper" else np.diff(birth)[:, 0]
    found = []
    for window in diagrams(np.asarray(x[some], dtype=np.float32), params, ripser=False):
        for channel, pairs in enumerate(window):
            lives = np.minimum(pairs[:, 1] - pairs[:, 0], life[channel, 1]) / long[channel]
            places = np.stack([pairs[:, 0] / width[channel], lives], axis=1)[lives > params.min_life]
            if len(places) > 1:
                found.append(len(places) ** (-1 / 6) * np.sqrt(places.var(axis=0).mean()))
    return float(np.clip(np.median(found), 1e-3, 0.5)) if found else params.sigma


def _extremes(x: Rows, rows: npt.NDArray[np.int64], params: ImageParams) -> npt.NDArray[np.float64]:
    """Return least birth, greatest birth and longest life, shape (windows, channels, 3)."""
    from topokd_edge.topology import _kernels

    # The class that is kept has no life of its own; the ranges make room for it as if capped.
    essential: Essential = "cap" if params.essential == "keep" else params.essential
    code = essential_code(essential, params.cap)
    found = np.empty((len(rows), x.shape[1], 3))
    for start in range(0, len(rows), _BLOCK):
        some = rows[start : start + _BLOCK]
        block = np.ascontiguousarray(params.filtered(np.asarray(x[some], dtype=np.float32)))
        refuse_non_finite(block, windows=some)
        _kernels.extremes(block, code, found[start : start + _BLOCK])
    return _of_loops(x, rows, params) if params.filtration == "delay" else found


def _of_loops(x: Rows, rows: npt.NDArray[np.int64], params: ImageParams) -> npt.NDArray[np.float64]:
    """Return the extremes of loops in some of the windows."""
    from topokd_edge.topology.reference import diagrams

    some = np.asarray(x[rows[evenly(len(rows), _FOR_LOOPS)]], dtype=np.float32)
    return np.array(
        [
            [
                (pairs[:, 0].min(), pairs[:, 0].max(), (pairs[:, 1] - pairs[:, 0]).max())
                if len(pairs)
                else (np.inf, -np.inf, 0.0)
                for pairs in window
            ]
            for window in diagrams(some, params, ripser=False)
        ]
    )


def _of_channel(found: npt.NDArray[np.float64]) -> tuple[Range, Range]:
    """Return (birth range, persistence range) of one channel from its extremes, shape (windows, 3)."""
    found = found[found[:, 2] > 0.0]
    if not len(found):
        return (-0.5, 0.5), (0.0, 1.0)
    low = float(np.quantile(found[:, 0], 1.0 - _COVERED))
    high = float(np.quantile(found[:, 1], _COVERED))
    life = float(np.quantile(found[:, 2], _COVERED))
    if not high - low > 1e-6 * max(life, abs(low)):
        middle = 0.5 * (low + high)
        low, high = middle - 0.5, middle + 0.5
    return (low, high), (0.0, life)
