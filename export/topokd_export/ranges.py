"""Which range of every activation becomes 256 levels: extremes, percentiles, or the least squared error."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from topokd_export.deploy import INPUT, MEAN, PAD, Array, DeployGraph

if TYPE_CHECKING:
    from topokd_export.simulate import Ranges

Choice = Literal["min-max", "percentile", "mse"]
_BINS = 8192
_BLOCK = 64
_SHRINKING = np.geomspace(1.0, 0.02, 60)
"""Parts of the full range that are tried for the least squared error."""


def find_ranges(graph: DeployGraph, windows: Array, choice: Choice, tail: float = 0.001) -> Ranges:
    """Return the range of every tensor of a deploy form over calibration windows.

    The input's range is chosen first, and the others on windows clipped to it, as the file will see them: a
    spike in one window then widens nothing. Pooled features and logits, which every answer depends on, keep
    their extremes.

    Parameters
    ----------
    graph, windows
        The operators, and normalised windows (n, channels, length).
    choice
        `min-max`; `percentile`, without the share `tail` of the values, half on either side; `mse`, the part
        of the full range whose rounding and clipping together have the least mean square.

    Returns
    -------
    dict
        (low, high) by tensor name; PAD, which has its input's, is left out.
    """
    if choice != "min-max":
        ends = (float(windows.min()), float(windows.max()))
        counted = np.histogram(windows, bins=_BINS, range=_wide(ends))[0]
        windows = np.clip(windows, *_chosen(choice, ends, counted, tail))
    extremes: Ranges = {}
    for name, values in _values(graph, windows):
        low, high = extremes.get(name, (0.0, 0.0))
        extremes[name] = (min(low, float(values.min())), max(high, float(values.max())))
    if choice == "min-max":
        return extremes
    counts = {name: np.zeros(_BINS, dtype=np.int64) for name in extremes}
    for name, values in _values(graph, windows):
        counts[name] += np.histogram(values, bins=_BINS, range=_wide(extremes[name]))[0]
    # The input is clipped already.
    kept = {INPUT, graph.ops[-1].name, *(op.name for op in graph.ops if op.kind == MEAN)}
    return {
        name: ends if name in kept else _chosen(choice, ends, counts[name], tail)
        for name, ends in extremes.items()
    }


def _chosen(
    choice: Choice, ends: tuple[float, float], counts: npt.NDArray[np.int64], tail: float
) -> tuple[float, float]:
    return _percentile(ends, counts, tail) if choice == "percentile" else _least_error(ends, counts)


def _values(graph: DeployGraph, windows: Array) -> Iterator[tuple[str, Array]]:
    """Yield every tensor of every block of windows, in float."""
    import torch

    from topokd_export.simulate import simulate

    same = {op.name for op in graph.ops if op.kind == PAD}
    with torch.no_grad():
        for start in range(0, len(windows), _BLOCK):
            block = torch.from_numpy(np.ascontiguousarray(windows[start : start + _BLOCK]))
            for name, values in simulate(graph, block).items():
                if name not in same:
                    yield name, values.numpy()


def _wide(ends: tuple[float, float]) -> tuple[float, float]:
    """Return a range that is not empty, for a tensor that is 0 throughout."""
    return ends if ends[1] > ends[0] else (0.0, 1e-6)


def _percentile(ends: tuple[float, float], counts: npt.NDArray[np.int64], tail: float) -> tuple[float, float]:
    """Leave out half of `tail` on either side; 0 stays inside."""
    edges = np.linspace(*_wide(ends), _BINS + 1)
    share = np.cumsum(counts) / counts.sum()
    low = edges[np.searchsorted(share, tail / 2, side="right")]
    high = edges[min(int(np.searchsorted(share, 1 - tail / 2)) + 1, _BINS)]
    return min(float(low), 0.0), max(float(high), 0.0)


def _least_error(ends: tuple[float, float], counts: npt.NDArray[np.int64]) -> tuple[float, float]:
    from topokd_export.simulate import HIGHEST, LOWEST, grid

    edges = np.linspace(*_wide(ends), _BINS + 1)
    centres = (edges[1:] + edges[:-1]) / 2
    errors = []
    for part in _SHRINKING:
        scale, zero = grid(ends[0] * part, ends[1] * part)
        levels = np.clip(np.round(centres / float(scale)) + zero, LOWEST, HIGHEST)
        errors.append(counts @ ((levels - zero) * float(scale) - centres) ** 2)
    part = float(_SHRINKING[int(np.argmin(errors))])
    return ends[0] * part, ends[1] * part
