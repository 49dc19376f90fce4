"""What may be wrong with the parameters of persistence images."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, get_args

from topokd_edge.topology.sublevel import essential_problems

if TYPE_CHECKING:
    from topokd_edge.topology.params import ImageParams

_ONLY_WITH = {
    "weight_power": ("weight", "power"),
    "weight_ramp": ("weight", "ramp"),
    "delay_dimension": ("filtration", "delay"),
    "delay_lag": ("filtration", "delay"),
    "delay_points": ("filtration", "delay"),
}
"""Options that would do nothing without another: name, and the one it goes with."""


def problems(params: ImageParams, choices: dict[str, Any], defaults: dict[str, Any]) -> Iterator[str]:
    """Say everything that is wrong with `params`; `choices` are the types of the options that are words."""
    for name, known in choices.items():
        value = getattr(params, name)
        if value not in get_args(known):
            yield f"{name} = {value!r}: expected one of {', '.join(get_args(known))}"
    for name, (other, value) in _ONLY_WITH.items():
        if getattr(params, name) != defaults[name] and getattr(params, other) != value:
            yield f"{name} = {getattr(params, name)}: has no effect without {other} = {value!r}"
    yield from essential_problems(params.essential, params.essential_cap)
    if params.filtration == "delay" and params.essential != "drop":
        yield f"essential = {params.essential!r}: loops all die, leave it out with filtration = 'delay'"
    yield from _wrong_ranges(params)
    yield from _wrong_numbers(params)
    if params.layout == "paper":
        yield from _not_of_the_paper(params)


def _wrong_ranges(params: ImageParams) -> Iterator[str]:
    births, lives = len(params.birth_range), len(params.persistence_range)
    if births != lives or not births:
        yield (
            f"ranges for {births} (birth) and {lives} (persistence) channels: "
            "expected the same number, at least 1"
        )
    for name in ("birth_range", "persistence_range"):
        for channel, (low, high) in enumerate(getattr(params, name)):
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                yield f"{name}, channel {channel}: ({low}, {high}): expected finite low < high"


def _wrong_numbers(params: ImageParams) -> Iterator[str]:
    if not 0.0 < params.sigma <= 1.0:
        yield f"sigma = {params.sigma}: expected a fraction of the axis, above 0 up to 1"
    if not 0.0 <= params.min_life < 1.0:
        yield f"min_life = {params.min_life}: expected a fraction of the persistence range, 0 up to 1"
    if len(params.size) != 2 or not all(isinstance(n, int) and 1 <= n <= 1024 for n in params.size):
        yield f"size = {params.size}: expected (rows, columns), each 1 to 1024"
    if not 0.0 < params.weight_power <= 100.0:
        yield f"weight_power = {params.weight_power}: expected an exponent, above 0 up to 100"
    start, end = params.weight_ramp
    if not 0.0 <= start < end <= 1.0:
        yield f"weight_ramp = {params.weight_ramp}: expected two fractions of the axis, 0 <= start < end <= 1"
    for name, least, most in (
        ("delay_dimension", 2, 100),
        ("delay_lag", 1, 10**6),
        ("delay_points", 4, 2000),
    ):
        if not least <= getattr(params, name) <= most:
            yield f"{name} = {getattr(params, name)}: expected {least} to {most}"


def _not_of_the_paper(params: ImageParams) -> Iterator[str]:
    for channel, ((low, high), lives) in enumerate(
        zip(params.birth_range, params.persistence_range, strict=False)
    ):
        if low > 0.0 or tuple(lives) != (0.0, high):
            yield (
                f"layout = 'paper', channel {channel}: birth from {low} to {high}, persistence from "
                f"{lives[0]} to {lives[1]}: expected births from 0 or below, lives from 0, both to the same"
            )
    if (params.weight, params.weight_power) != ("power", 1.0):
        yield "layout = 'paper': weighs by life over the longest life of its diagram, leave weight out"
