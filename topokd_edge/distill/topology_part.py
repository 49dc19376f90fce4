"""The section of a recipe that says how persistence images are made."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from topokd_edge.distill.parts import Part
from topokd_edge.errors import UsageError
from topokd_edge.topology.params import Filtration, Layout, Normalise, Range, Weight, check_options
from topokd_edge.topology.sublevel import Essential


def _fraction_or_fit(value: object) -> object:
    if value == "fit" or (isinstance(value, int | float) and 0 < value <= 1):
        return value
    raise ValueError("expected a fraction of the axis, above 0 up to 1, or 'fit'")


def _pairs(value: Any) -> Any:
    """Refuse what is no range or list of ranges, with one message instead of one per type of a union."""
    pairs: Any = value if isinstance(value, list | tuple) else [()]
    if not all(isinstance(item, list | tuple) for item in pairs):
        pairs = [pairs]
    for pair in pairs:
        numbers = [end for end in pair if isinstance(end, int | float)]
        if len(numbers) != 2 or len(pair) != 2 or not -math.inf < numbers[0] < numbers[1] < math.inf:
            raise ValueError("expected [low, high] with low < high, or one such pair per channel")
    return value


Pixels = Annotated[int, Field(ge=1, le=1024)]
Sigma = Annotated[float | Literal["fit"], BeforeValidator(_fraction_or_fit)]
Ranges = Annotated[Range | tuple[Range, ...], BeforeValidator(_pairs)]


class Topology(Part):
    """Persistence images; see `topokd_edge.topology.params.ImageParams` and `fit_params` for every key."""

    layout: Layout = "cells"
    """`paper` is the published one, bin for bin; published with birth_range = [-1, 1]."""
    filtration: Filtration = "sublevel"
    size: tuple[Pixels, Pixels] = (64, 64)
    sigma: Sigma = 0.015
    """Standard deviation of the Gaussian, as a fraction of each axis; `fit` takes Scott's rule."""
    min_life: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Pairs that live shorter than this fraction of the persistence range are noise and dropped: 0.001.

    In the layout of the paper 0.01, as published (of a signal scaled to [0, 1]); that leaves 24 % of the
    images of DSADS empty.
    """
    birth_range: Ranges | None = None
    """Stated for all channels, or for each; by default fitted on the fit subjects."""
    persistence_range: Ranges | None = None
    weight: Weight = "power"
    weight_power: float = 1.0
    weight_ramp: Range = (0.0, 1.0)
    normalise: Normalise = "max"
    essential: Essential = "drop"
    essential_cap: float | None = None
    empty: Literal["keep", "drop"] = "keep"
    """A window without a pair in any channel (nobody moved): train on it, or leave it out. All are tested."""
    delay_dimension: int = 3
    delay_lag: int = 4
    """In samples."""
    delay_points: int = 200

    @model_validator(mode="after")
    def _keys_go_together(self) -> Topology:
        try:
            check_options(**self.model_dump(exclude={"birth_range", "persistence_range", "empty"}))
        except UsageError as error:
            raise ValueError("; ".join(error.problems) or error.message) from None
        return self
