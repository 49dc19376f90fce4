"""What int8 does to every tensor of a student: noise, saturation, range used, answers changed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from topokd_export.deploy import INPUT, PAD, Array, DeployGraph

if TYPE_CHECKING:
    from torch import Tensor

    from topokd_export.simulate import Grid, Ranges

_QUIET = 0.1
"""Quantile over windows that `quiet_db` is of."""
_LOUDEST_DB = 120.0
"""Shown where there is no noise at all."""


@dataclass(frozen=True)
class Layer:
    """One tensor in int8, against the same network in float, over calibration windows.

    Attributes
    ----------
    name
        Of the tensor; see `topokd_export.deploy.Op`.
    low, high, step
        Its range and the distance of two levels.
    signal_to_noise_db
        10 log10 of mean square over mean square error, with everything before it in int8 as well.
    own_db
        The same of rounding this tensor alone.
    quiet_db
        Of rounding this tensor alone, and of movement only: variance over time within a window against the
        mean square error of that window; the window at the lowest tenth. Below 0 dB the movement of quiet
        windows is lost in rounding. Unset for tensors without time, and where no window moves.
    saturated
        Share of values beyond the range.
    range_used
        Share of the 256 levels between the 0.1 % and 99.9 % quantiles of its values.
    changed
        Share of the windows that get another class when this tensor alone is rounded.
    """

    name: str
    low: float
    high: float
    step: float
    signal_to_noise_db: float
    own_db: float
    quiet_db: float | None
    saturated: float
    range_used: float
    changed: float

    def to_dict(self) -> dict[str, Any]:
        """Return the layer as JSON-able data."""
        return asdict(self)

    def sentence(self) -> str:
        """Say what rounding this tensor alone does."""
        quiet = "" if self.quiet_db is None else f", movement of quiet windows {self.quiet_db:.1f} dB"
        return (
            f"{self.name}: rounded alone it changes {self.changed:.1%} of the answers; step {self.step:.3g}, "
            f"signal to noise {self.own_db:.1f} dB{quiet}, {self.saturated:.2%} saturated, "
            f"{self.range_used:.0%} of the range used"
        )


def layers_report(
    graph: DeployGraph, windows: Array, ranges: Ranges, reference: DeployGraph | None = None
) -> list[Layer]:
    """Return every tensor in the order of computation.

    Parameters
    ----------
    graph
        The deploy form that is int8.
    windows
        Normalised windows (n, channels, length) to look at.
    ranges
        Of its tensors.
    reference
        The float network to compare with; `graph` itself if not given.
    """
    import torch

    from topokd_export.simulate import grids_of, simulate

    x = torch.from_numpy(np.ascontiguousarray(windows))
    grids, logits = grids_of(ranges), graph.ops[-1].name
    with torch.no_grad():
        exact = simulate(graph if reference is None else reference, x)
        own = exact if reference is None else simulate(graph, x)
        coarse = simulate(graph, x, grids)
        said = own[logits].argmax(1)
        found = []
        for name in (INPUT, *(op.name for op in graph.ops if op.kind != PAD)):
            alone = simulate(graph, x, {name: grids[name]}, bits=None)
            changed = float((alone[logits].argmax(1) != said).float().mean())
            found.append(
                _layer(name, grids[name], exact[name], coarse[name], own[name], alone[name], changed)
            )
    return found


def worst(layers: list[Layer], n: int = 3) -> list[Layer]:
    """Return the `n` tensors whose rounding alone changes most answers, in percent; of equals, the first."""
    return sorted(layers, key=lambda item: -round(item.changed, 2))[:n]


def _layer(
    name: str, where: Grid, exact: Tensor, coarse: Tensor, own: Tensor, alone: Tensor, changed: float
) -> Layer:
    from topokd_export.simulate import range_of

    low, high = range_of(float(where.scale), where.zero_point)
    values = own.numpy().ravel()
    bottom, top = np.quantile(values, (0.001, 0.999))
    half = float(where.scale) / 2
    return Layer(
        name=name,
        low=low,
        high=high,
        step=float(where.scale),
        signal_to_noise_db=_decibel(exact, coarse - exact),
        own_db=_decibel(own, alone - own),
        quiet_db=_quiet(own, alone - own),
        saturated=float(((values < low - half) | (values > high + half)).mean()),
        range_used=float((min(top, high) - max(bottom, low)) / (high - low)),
        changed=changed,
    )


def _decibel(signal: Tensor, noise: Tensor) -> float:
    power, error = float(signal.square().mean()), float(noise.square().mean())
    if error == 0:
        return _LOUDEST_DB
    return float(10 * np.log10(max(power, 1e-30) / error))


def _quiet(signal: Tensor, noise: Tensor) -> float | None:
    """Return the signal to noise ratio of movement in the window at the lowest tenth."""
    if signal.ndim < 3:
        return None
    movement = signal.flatten(2).var(2, correction=0).mean(1)
    error = noise.square().flatten(1).mean(1)
    moving = (movement > 0) & (error > 0)
    if not moving.any():
        return None
    ratios = 10 * np.log10((movement[moving] / error[moving]).numpy())
    return float(np.quantile(ratios, _QUIET))
