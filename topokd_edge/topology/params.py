"""What defines a persistence image, and how its ranges are fitted on training windows."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from topokd_edge.errors import BadInputError, UsageError
from topokd_edge.rows import Rows
from topokd_edge.topology._checks import problems
from topokd_edge.topology.sublevel import Essential

Filtration = Literal["sublevel", "superlevel", "delay"]
Layout = Literal["cells", "paper"]
Normalise = Literal["max", "none"]
Weight = Literal["power", "ramp", "constant"]
Range = tuple[float, float]

_CHOICES = {
    "filtration": Filtration,
    "layout": Layout,
    "weight": Weight,
    "normalise": Normalise,
}
_RANGES = ("birth_range", "persistence_range")


@dataclass(frozen=True)
class ImageParams:
    """Everything a persistence image depends on besides the signal.

    Each axis is scaled to [0, 1] by its range and cut into equal pixels. Rows are persistence (row 0
    holds the longest lives), columns are birth (column 0 holds the lowest). A pair beyond a range is
    drawn on the border: a wilder subject than any in training saturates, but does not vanish.

    Attributes
    ----------
    birth_range, persistence_range
        (low, high) per channel, units of the signal.
    sigma
        Standard deviation of the Gaussian as a fraction of each axis. 0.015 is the published value for PAMAP2
        (code of the two-teacher ancestor of the method, signals scaled to [0, 1]).
    size
        (rows, columns) in pixels.
    layout
        "cells": as above. "paper": bin for bin as `persim.PersImage` with which the published images were
        made. Both axes are in units of the signal, birth from `birth_range[0]` (0 or below) and
        persistence from 0, both up to `birth_range[1]`; bins are `birth_range[1] / rows` wide on both, and
        begin at `linspace(low, high, n)`, so that they leave out half of a birth axis that begins at
        -`high`, and gaps of 1/n of a bin on the persistence axis. `sigma` is a fraction of the persistence
        axis; a pair weighs its life over the longest of its diagram; what lies beyond a range is lost.
    filtration
        "sublevel": components of {signal <= level}, born in minima. "superlevel": those of {signal >= level},
        as sublevel pairs of the negated signal (a peak of height 3 is born at -3). "delay": loops (H1) of the
        sliding-window embedding of the signal by ripser; births and deaths are distances.
    weight
        Of a pair at the place p (0 to 1) of the persistence axis. "power": p to the power `weight_power` (1,
        linear, is published). "ramp": from 0 at `weight_ramp[0]` to 1 at `weight_ramp[1]`. "constant": 1.
    min_life
        Pairs that live at most this fraction of the persistence range are left out. 0.01 is published; it
        leaves a quarter of the images of the DSADS set empty (people who sit or lie), 0.001 a hundredth.
    normalise
        "max" divides each image by its own maximum, as published: the absolute scale is lost.
    essential
        What becomes of the class of the global minimum: "drop" (as published); "cap" (dies at
        `essential_cap`, or at the maximum of the window); "keep" (lives as long as
        the persistence range reaches).
    essential_cap
        Level of "cap" in units of the signal; None is the maximum of the window (superlevel: its minimum).
    delay_dimension, delay_lag
        Point i of an embedding is (x[i], x[i + lag], ..., x[i + (dimension - 1) lag]); lag in samples.
    delay_points
        More points than this are thinned to so many landmarks, each the one farthest from those before it.
    """

    birth_range: tuple[Range, ...]
    persistence_range: tuple[Range, ...]
    sigma: float = 0.015
    size: tuple[int, int] = (64, 64)
    layout: Layout = "cells"
    filtration: Filtration = "sublevel"
    weight: Weight = "power"
    weight_power: float = 1.0
    weight_ramp: Range = (0.0, 1.0)
    min_life: float = 0.001
    normalise: Normalise = "max"
    essential: Essential = "drop"
    essential_cap: float | None = None
    delay_dimension: int = 3
    delay_lag: int = 4
    delay_points: int = 200

    def __post_init__(self) -> None:
        found = list(
            problems(self, _CHOICES, {field.name: field.default for field in dataclasses.fields(self)})
        )
        if found:
            raise UsageError("persistence image parameters cannot be used", problems=found)

    @property
    def channels(self) -> int:
        """Number of channels the ranges were made for."""
        return len(self.birth_range)

    def filtered(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the signal whose sublevel sets are looked at."""
        return -x if self.filtration == "superlevel" else x

    @property
    def cap(self) -> float | None:
        """`essential_cap` as a level of what `filtered` returns."""
        if self.essential_cap is None:
            return None
        return -self.essential_cap if self.filtration == "superlevel" else self.essential_cap

    def to_dict(self) -> dict[str, Any]:
        """Return the parameters as JSON-able data that `from_dict` reads back exactly."""
        data = dataclasses.asdict(self)
        for name in _RANGES:
            data[name] = [list(pair) for pair in data[name]]
        return {**data, "size": list(self.size), "weight_ramp": list(self.weight_ramp)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ImageParams:
        """Build parameters from what `to_dict` gave.

        Raises
        ------
        BadInputError
            When a name is missing or unknown, or a value has the wrong type.
        UsageError
            When a value is out of its range.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        wrong = sorted(known ^ set(data))
        if wrong:
            raise BadInputError(f"persistence image parameters: missing or unknown: {', '.join(wrong)}")
        try:
            ranges = {name: tuple((float(low), float(high)) for low, high in data[name]) for name in _RANGES}
            rows, columns = data["size"]
            start, end = data["weight_ramp"]
            numbers = {name: float(data[name]) for name in ("sigma", "min_life", "weight_power")}
            whole = {name: int(data[name]) for name in ("delay_dimension", "delay_lag", "delay_points")}
            cap = None if data["essential_cap"] is None else float(data["essential_cap"])
        except (TypeError, ValueError) as error:
            raise BadInputError(f"persistence image parameters: {error}") from None
        pairs = {"size": (rows, columns), "weight_ramp": (float(start), float(end)), "essential_cap": cap}
        return cls(**{**data, **ranges, **numbers, **whole, **pairs})


def fit_params(
    x: Rows,
    *,
    rows: npt.NDArray[np.int64] | None = None,
    birth_range: Range | tuple[Range, ...] | None = None,
    persistence_range: Range | tuple[Range, ...] | None = None,
    sigma: float | Literal["fit"] = 0.015,
    layout: Layout = "cells",
    min_life: float | None = None,
    **options: Any,
) -> ImageParams:
    """Fit the ranges of a persistence image on training windows.

    Per channel, the birth range reaches from the 0.5 % quantile over windows of their least birth to the
    99.5 % quantile of their greatest birth; the persistence range from 0 to the 99.5 % quantile of their
    longest life. A channel without any pair, or with a single birth, gets a range of width 1 about it. In
    the layout of the paper, birth begins at 0 at the latest and both axes reach up to the higher of the two.
    Loops ("delay") are fitted on 64 windows spread evenly.

    Parameters
    ----------
    x
        float32, shape (windows, channels, length). May lie on disk: it is read block by block.
    rows
        Indices of the training windows; None takes all of `x`.
    birth_range, persistence_range
        Stated instead of fitted: one (low, high) for all channels, or one per channel. In the layout of the
        paper the former is `minBD` and `maxBD` of `persim.PersImage`, and gives the latter.
    sigma
        See ImageParams. "fit" takes Scott's rule for a density in two dimensions: n^(-1/6) times the spread
        of a diagram on axes of [0, 1], n its pairs, both the median over up to 256 windows.
    min_life
        See ImageParams; None is 0.001, in the layout of the paper 0.01.
    layout, options
        Other attributes of ImageParams.

    Returns
    -------
    ImageParams
        Frozen; use them unchanged on validation and test windows.

    Raises
    ------
    BadInputError
        When there is no window, or a sample is NaN or infinite.
    UsageError
        When an option is out of its range, or ranges are stated for other channels.
    """
    from topokd_edge.topology import _fitting

    rows = np.arange(len(x)) if rows is None else rows
    check_windows((len(rows), *x.shape[1:]))
    # What is wrong with the options is told before anything is read.
    params = check_options(x.shape[1], sigma=sigma, layout=layout, min_life=min_life, **options)
    stated = (_per_channel(birth_range, x.shape[1]), _per_channel(persistence_range, x.shape[1]))
    births, lives = _fitting.ranges(x, rows, params, *stated)
    params = dataclasses.replace(params, birth_range=births, persistence_range=lives)
    return dataclasses.replace(params, sigma=_fitting.sigma(x, rows, params)) if sigma == "fit" else params


def check_options(
    channels: int = 1,
    *,
    sigma: float | Literal["fit"] = 0.015,
    layout: Layout = "cells",
    min_life: float | None = None,
    **options: Any,
) -> ImageParams:
    """Return parameters with placeholders for what is fitted.

    Raises
    ------
    UsageError
        When an option of `fit_params` is out of its range, or does not go with another.
    """
    if min_life is None:
        min_life = 0.01 if layout == "paper" else 0.001
    return ImageParams(
        birth_range=((-1.0, 1.0),) * channels,
        persistence_range=((0.0, 1.0),) * channels,
        sigma=0.015 if sigma == "fit" else sigma,
        layout=layout,
        min_life=min_life,
        **options,
    )


def _per_channel(stated: Range | tuple[Range, ...] | None, channels: int) -> tuple[Range, ...] | None:
    """Return a stated range for every channel."""
    if stated is None:
        return None
    pairs = np.array(stated, dtype=np.float64)
    if pairs.ndim == 1:
        pairs = np.tile(pairs, (channels, 1))
    if pairs.shape != (channels, 2):
        raise UsageError(f"ranges are stated for {len(pairs)} channels, the windows have {channels}")
    return tuple((low, high) for low, high in pairs.tolist())


def check_windows(shape: tuple[int, ...]) -> None:
    """Raise BadInputError unless `shape` is (windows, channels, length), each at least 1."""
    if len(shape) != 3 or 0 in shape:
        raise BadInputError(
            f"windows: expected shape (windows, channels, length), each at least 1, got {shape}"
        )
