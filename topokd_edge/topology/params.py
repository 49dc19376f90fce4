"""What defines a persistence image, and how its ranges are fitted on training windows."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from topokd_edge.errors import BadInputError, UsageError
from topokd_edge.rows import Rows
from topokd_edge.topology.sublevel import Essential, check_essential, refuse_non_finite

Normalise = Literal["max", "none"]
Weight = Literal["linear"]
Range = tuple[float, float]

_COVERED = 0.995
"""Share of the training windows whose extreme pairs lie inside the ranges: one glitch must not shrink all
images."""
_BLOCK = 512


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
    weight
        "linear": a pair weighs its place on the persistence axis, 0 to 1.
    min_life
        Pairs that live at most this fraction of the persistence range are left out. 0.01 is published; it
        leaves a quarter of the images of the DSADS set empty (people who sit or lie), 0.001 a hundredth.
    normalise
        "max" divides each image by its own maximum, as published: the absolute scale is lost.
    essential
        What becomes of the class of the global minimum: "drop" (as published), "cap" (dies at the maximum
        of the window), "keep" (drawn on the upper border).
    """

    birth_range: tuple[Range, ...]
    persistence_range: tuple[Range, ...]
    sigma: float = 0.015
    size: tuple[int, int] = (64, 64)
    weight: Weight = "linear"
    min_life: float = 0.001
    normalise: Normalise = "max"
    essential: Essential = "drop"

    def __post_init__(self) -> None:
        problems = list(_problems(self))
        if problems:
            raise UsageError("persistence image parameters cannot be used", problems=problems)

    @property
    def channels(self) -> int:
        """Number of channels the ranges were made for."""
        return len(self.birth_range)

    def to_dict(self) -> dict[str, Any]:
        """Return the parameters as JSON-able data that `from_dict` reads back exactly."""
        data = dataclasses.asdict(self)
        for name in ("birth_range", "persistence_range"):
            data[name] = [list(pair) for pair in data[name]]
        data["size"] = list(self.size)
        return data

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
            ranges = {
                name: tuple((float(low), float(high)) for low, high in data[name])
                for name in ("birth_range", "persistence_range")
            }
            rows, columns = data["size"]
            numbers = {name: float(data[name]) for name in ("sigma", "min_life")}
        except (TypeError, ValueError) as error:
            raise BadInputError(f"persistence image parameters: {error}") from None
        return cls(**{**data, **ranges, **numbers, "size": (rows, columns)})


def _problems(params: ImageParams) -> list[str]:
    """Return everything that is wrong with `params`."""
    problems = []
    if len(params.birth_range) != len(params.persistence_range) or not params.birth_range:
        counts = f"{len(params.birth_range)} (birth) and {len(params.persistence_range)} (persistence)"
        problems.append(f"ranges for {counts} channels: expected the same number, at least 1")
    for name in ("birth_range", "persistence_range"):
        for channel, (low, high) in enumerate(getattr(params, name)):
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                problems.append(f"{name}, channel {channel}: ({low}, {high}): expected finite low < high")
    if not 0.0 < params.sigma <= 1.0:
        problems.append(f"sigma = {params.sigma}: expected a fraction of the axis, above 0 up to 1")
    if not 0.0 <= params.min_life < 1.0:
        problems.append(
            f"min_life = {params.min_life}: expected a fraction of the persistence range, 0 up to 1"
        )
    if len(params.size) != 2 or not all(isinstance(n, int) and 1 <= n <= 1024 for n in params.size):
        problems.append(f"size = {params.size}: expected (rows, columns), each 1 to 1024")
    for name, choices in (("weight", Weight), ("normalise", Normalise), ("essential", Essential)):
        value = getattr(params, name)
        if value not in get_args(choices):
            problems.append(f"{name} = {value!r}: expected one of {', '.join(get_args(choices))}")
    return problems


def fit_params(
    x: Rows,
    *,
    rows: npt.NDArray[np.int64] | None = None,
    size: tuple[int, int] = (64, 64),
    sigma: float = 0.015,
    min_life: float = 0.001,
    normalise: Normalise = "max",
    essential: Essential = "drop",
) -> ImageParams:
    """Fit the ranges of a persistence image on training windows.

    Per channel, the birth range reaches from the 0.5 % quantile over windows of their least birth to the
    99.5 % quantile of their greatest birth; the persistence range from 0 to the 99.5 % quantile of their
    longest life. A channel without any pair, or with a single birth, gets a range of width 1 about it.

    Parameters
    ----------
    x
        float32, shape (windows, channels, length). May lie on disk: it is read block by block.
    rows
        Indices of the training windows; None takes all of `x`.
    size, sigma, min_life, normalise, essential
        See ImageParams.

    Returns
    -------
    ImageParams
        Frozen; use them unchanged on validation and test windows.

    Raises
    ------
    BadInputError
        When there is no window, or a sample is NaN or infinite.
    UsageError
        When an option is out of its range.
    """
    from topokd_edge.topology import _kernels

    rows = np.arange(len(x)) if rows is None else rows
    check_windows((len(rows), *x.shape[1:]))
    check_essential(essential)
    found = np.empty((len(rows), x.shape[1], 3))
    code = {"drop": _kernels.DROP, "cap": _kernels.CAP, "keep": _kernels.CAP}[essential]
    for start in range(0, len(rows), _BLOCK):
        some = rows[start : start + _BLOCK]
        block = np.ascontiguousarray(x[some], dtype=np.float32)
        refuse_non_finite(block, windows=some)
        _kernels.extremes(block, code, found[start : start + _BLOCK])
    ranges = [_channel_ranges(found[:, channel]) for channel in range(x.shape[1])]
    return ImageParams(
        birth_range=tuple(birth for birth, _ in ranges),
        persistence_range=tuple(life for _, life in ranges),
        sigma=sigma,
        size=size,
        min_life=min_life,
        normalise=normalise,
        essential=essential,
    )


def check_windows(shape: tuple[int, ...]) -> None:
    """Raise BadInputError unless `shape` is (windows, channels, length), each at least 1."""
    if len(shape) != 3 or 0 in shape:
        raise BadInputError(
            f"windows: expected shape (windows, channels, length), each at least 1, got {shape}"
        )


def _channel_ranges(found: npt.NDArray[np.float64]) -> tuple[Range, Range]:
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
