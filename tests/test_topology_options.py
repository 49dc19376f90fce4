"""Every option of persistence images does what it says, by both backends, and from a recipe."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from made_recordings import windows_of
from scipy.stats import norm
from test_topology_diagram import by_gudhi, multiset, signals
from test_topology_image import assert_backends_agree, noisy

from topokd_edge.distill.recipe import load_recipe
from topokd_edge.errors import BadInputError, UsageError
from topokd_edge.topology.cache import cached_images
from topokd_edge.topology.image import persistence_images
from topokd_edge.topology.params import ImageParams, fit_params
from topokd_edge.topology.reference import diagrams
from topokd_edge.topology.sublevel import diagram

TEETH = np.array([[[0.0, 3.0, 1.0, 2.0, 0.5, 3.0, 0.0]]], dtype=np.float32)
"""Pairs (0, 3), (0.5, 2)... of lives 3, 2.5, 1, and a class that never dies, born at 0."""
AXES = {"birth_range": ((-4.0, 4.0),), "persistence_range": ((0.0, 4.0),), "normalise": "none"}


def image_of(x: npt.NDArray[np.float32], **changes: Any) -> npt.NDArray[np.float32]:
    image: npt.NDArray[np.float32] = persistence_images(x, ImageParams(**{**AXES, **changes}))[0][0, 0]
    return image


def pairs_drawn(*pairs: tuple[float, float, float], size: int = 64, sigma: float = 0.015) -> Any:
    """The image of (birth, life, weight) on `AXES`, by scipy."""
    total = np.zeros((size, size))
    edges = np.linspace(0.0, 1.0, size + 1)
    for birth, life, weight in pairs:
        columns = np.diff(norm.cdf(edges, min(max((birth + 4.0) / 8.0, 0.0), 1.0), sigma))
        rows = np.diff(norm.cdf(edges, min(life / 4.0, 1.0), sigma))
        total += weight * np.outer(rows[::-1], columns)
    return total


def assert_equal(image: Any, expected: Any) -> None:
    np.testing.assert_allclose(image, expected, rtol=0, atol=1e-6 * expected.max())


FINITE = [(0.0, 3.0, 0.75), (0.5, 2.5, 0.625), (1.0, 1.0, 0.25)]


@pytest.mark.parametrize(
    ("options", "more"),
    [
        ({"essential": "drop"}, []),
        ({"essential": "cap"}, [(0.0, 3.0, 0.75)]),  # the maximum of the window is 3
        ({"essential": "cap", "essential_cap": 2.0}, [(0.0, 2.0, 0.5)]),
        ({"essential": "cap", "essential_cap": 4.0}, [(0.0, 4.0, 1.0)]),
        ({"essential": "cap", "essential_cap": -1.0}, []),  # would die before it is born
        ({"essential": "keep"}, [(0.0, 4.0, 1.0)]),  # the upper end of the range
    ],
)
def test_essential(options: dict[str, Any], more: list[tuple[float, float, float]]) -> None:
    assert multiset(diagram(TEETH[0, 0])) == [(0.0, 3.0), (0.5, 3.0), (1.0, 2.0)]
    assert_equal(image_of(TEETH, **options), pairs_drawn(*FINITE, *more))
    assert_backends_agree(TEETH, ImageParams(**{**AXES, **options}))


# R2: the diagram [[0, 1], [0, inf]] is the signal [0, 1, 0].
@pytest.mark.parametrize("backend", ["fast", "reference"])
@pytest.mark.parametrize("layout", ["cells", "paper"])
def test_the_diagram_with_an_infinite_death(backend: Any, layout: Any) -> None:
    x = np.array([[[0, 1, 0]]], dtype=np.float32)
    assert diagram(x[0, 0], essential="keep").tolist() == [[0, 1], [0, np.inf]]
    axes = {"birth_range": ((0.0, 1.0),), "persistence_range": ((0.0, 1.0),), "size": (10, 10)}

    def image(**options: Any) -> Any:
        params = ImageParams(**axes, normalise="none", layout=layout, **options)
        images, degenerate = persistence_images(x, params, backend=backend)
        assert np.isfinite(images).all()
        assert not degenerate.any()
        return images[0, 0]

    drop, capped, keep = image(), image(essential="cap"), image(essential="keep")
    np.testing.assert_allclose(capped, 2.0 * drop, rtol=1e-6)  # [[0, 1], [0, 1]]
    np.testing.assert_allclose(keep, 2.0 * drop, rtol=1e-6)  # lives as long as the range: 1
    half = image(essential="cap", essential_cap=0.5) - drop  # [[0, 1], [0, 0.5]]
    assert half.sum() > 0.1
    assert 9 - half.sum(axis=1).argmax() in (4, 5)


@pytest.mark.parametrize(
    ("options", "weigh"),
    [
        ({}, lambda p: p),
        ({"weight_power": 2.0}, lambda p: p**2),
        ({"weight_power": 0.5}, lambda p: p**0.5),
        ({"weight": "ramp"}, lambda p: p),
        ({"weight": "ramp", "weight_ramp": (0.3, 0.7)}, lambda p: min(max((p - 0.3) / 0.4, 0.0), 1.0)),
        ({"weight": "constant"}, lambda p: 1.0),
    ],
)
def test_weight(options: dict[str, Any], weigh: Any) -> None:
    expected = pairs_drawn(*((birth, life, weigh(life / 4.0)) for birth, life, _ in FINITE))
    assert_equal(image_of(TEETH, **options), expected)
    assert_backends_agree(TEETH, ImageParams(**{**AXES, **options}))


@pytest.mark.parametrize("signal", [np.ones(128), np.zeros(5)])
@pytest.mark.parametrize("layout", ["cells", "paper"])
@pytest.mark.parametrize("options", [{"filtration": "superlevel"}, {"essential": "cap"}, {"sigma": "fit"}])
def test_a_still_window_is_zeros_and_a_flag_with_every_option(
    signal: npt.NDArray[np.float64], layout: str, options: dict[str, Any]
) -> None:
    """In the paper's layout the birth range is stated; nothing is fitted on the still window itself."""
    stated = {"birth_range": (-1.0, 1.0)} if layout == "paper" else {}
    params = fit_params(noisy(3), size=(32, 16), layout=layout, **options, **stated)  # type: ignore[arg-type]
    x = np.repeat(signal.astype(np.float32)[np.newaxis, np.newaxis], len(params.birth_range), axis=1)
    images, empty = persistence_images(x, params)
    assert images.shape == (1, len(params.birth_range), 32, 16)
    assert not images.any() and empty.all()
    x[0, 0, 2] = np.nan
    with pytest.raises(BadInputError, match="sample 2"):
        persistence_images(x, params)


def test_sigma_size_life_and_normalisation() -> None:
    assert_equal(image_of(TEETH, sigma=0.2, size=(32, 32)), pairs_drawn(*FINITE, size=32, sigma=0.2))
    assert_equal(image_of(TEETH, min_life=0.25), pairs_drawn(*FINITE[:2]))
    assert image_of(TEETH, size=(5, 9)).shape == (5, 9)
    plain = image_of(TEETH)
    np.testing.assert_allclose(image_of(TEETH, normalise="max"), plain / plain.max(), rtol=1e-6)


class TestSuperlevel:
    @settings(deadline=None, max_examples=100)
    @given(signals())
    def test_its_pairs_are_those_of_gudhi_on_the_negated_signal(self, signal: Any) -> None:
        signal = signal.astype(np.float32)
        for ripser in (False, True):
            (pairs,) = next(
                diagrams(signal[None, None], ImageParams(**AXES, filtration="superlevel"), ripser=ripser)
            )
            assert multiset(pairs) == multiset(by_gudhi(-signal.astype(float)))

    def test_a_peak_is_born_at_minus_its_height(self) -> None:
        x = np.array([[[0.0, 3.0, 1.0, 2.0, 0.0]]], dtype=np.float32)
        assert_equal(image_of(x, filtration="superlevel"), pairs_drawn((-2.0, 1.0, 0.25)))
        # Of the highest peak: born at -3, dies at the minimum of the window, or at the level 1.
        drawn = image_of(x, filtration="superlevel", essential="cap")
        assert_equal(drawn, pairs_drawn((-2.0, 1.0, 0.25), (-3.0, 3.0, 0.75)))
        drawn = image_of(x, filtration="superlevel", essential="cap", essential_cap=1.0)
        assert_equal(drawn, pairs_drawn((-2.0, 1.0, 0.25), (-3.0, 2.0, 0.5)))

    def test_ranges_are_fitted_on_the_negated_signal(self) -> None:
        x = noisy(20) + 5.0
        up, down = fit_params(x, filtration="superlevel"), fit_params(-x)
        assert up.birth_range == down.birth_range
        assert up.birth_range[0][1] < 0.0
        assert_backends_agree(x[:3], up)
        assert (persistence_images(x, up)[0] == persistence_images(-x, down)[0]).all()


class TestRanges:
    def test_stated_for_all_channels_or_for_each(self) -> None:
        x = noisy(6, 2)
        fitted = fit_params(x)
        assert fit_params(x, birth_range=(-1, 1)).birth_range == ((-1.0, 1.0), (-1.0, 1.0))
        assert fit_params(x, birth_range=(-1, 1)).persistence_range == fitted.persistence_range
        each = ((0.0, 1.0), (0.0, 7.0))
        assert fit_params(x, persistence_range=each).persistence_range == each
        assert fit_params(x, persistence_range=each).birth_range == fitted.birth_range
        with pytest.raises(UsageError, match="3 channels, the windows have 2"):
            fit_params(x, birth_range=((0, 1),) * 3)
        with pytest.raises(UsageError, match="low < high"):
            fit_params(x, birth_range=(1, 1))

    def test_of_the_paper_begin_at_0_and_end_together(self) -> None:
        for x in (noisy(30), noisy(30) + 9.0, noisy(30) - 9.0):
            cells, paper = fit_params(x), fit_params(x, layout="paper")
            for channel in range(2):
                (low, high), (_, longest) = cells.birth_range[channel], cells.persistence_range[channel]
                assert paper.birth_range[channel] == (min(low, 0.0), max(high, longest))
                assert paper.persistence_range[channel] == (0.0, max(high, longest))
        stated = fit_params(noisy(4), layout="paper", birth_range=(-1, 1))
        assert stated.birth_range == ((-1.0, 1.0),) * 2
        assert stated.persistence_range == ((0.0, 1.0),) * 2
        assert (stated.min_life, cells.min_life) == (0.01, 0.001)

    def test_sigma_is_fitted_by_the_rule_of_scott(self) -> None:
        params = fit_params(TEETH, birth_range=(-4, 4), persistence_range=(0, 4), sigma="fit")
        births, lives = np.array([0.0, 0.5, 1.0]) / 8.0, np.array([3.0, 2.5, 1.0]) / 4.0
        assert params.sigma == pytest.approx(3 ** (-1 / 6) * math.sqrt((births.var() + lives.var()) / 2))
        assert fit_params(np.ones((3, 1, 9), np.float32), sigma="fit").sigma == 0.015
        wild = noisy(50)
        wild[25:] *= 100.0
        assert fit_params(wild, rows=np.arange(25), sigma="fit") == fit_params(wild[:25], sigma="fit")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"weight_power": 2.0, "weight": "ramp"},
            "weight_power = 2.0: has no effect without weight = 'power'",
        ),
        ({"weight_ramp": (0.1, 0.5)}, "weight_ramp"),
        ({"weight": "ramp", "weight_ramp": (0.5, 0.5)}, "0 <= start < end <= 1"),
        ({"weight_power": 0.0}, "weight_power = 0.0"),
        ({"weight": "linear"}, "power, ramp, constant"),
        ({"delay_lag": 2}, "filtration = 'delay'"),
        ({"filtration": "delay", "delay_points": 3}, "delay_points = 3: expected 4 to 2000"),
        ({"filtration": "delay", "essential": "cap"}, "loops all die"),
        ({"filtration": "alpha"}, "sublevel, superlevel, delay"),
        ({"essential_cap": 1.0}, "essential = 'cap'"),
        ({"essential": "cap", "essential_cap": math.inf}, "finite level"),
        ({"layout": "paper", "weight": "constant"}, "longest life"),
        ({"layout": "paper", "persistence_range": (0, 9)}, "both to the same"),
        ({"layout": "paper", "birth_range": (1, 2)}, "births from 0 or below"),
        ({"sigma": 2.0}, "sigma"),
    ],
)
def test_what_cannot_be_used_is_told(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        fit_params(noisy(2), **options)
    assert said in str(caught.value)


CHANGES = {
    "size": ("[16, 8]", (16, 8)),
    "sigma": ("0.1", 0.1),
    "layout": ("paper", "paper"),
    "filtration": ("superlevel", "superlevel"),
    "weight": ("constant", "constant"),
    "weight_power": ("2.0", 2.0),
    "min_life": ("0.05", 0.05),
    "normalise": ("none", "none"),
    "essential": ("keep", "keep"),
    "birth_range": ("[-3, 3]", ((-3.0, 3.0),) * 2),
    "persistence_range": ("[[0, 3], [0, 4]]", ((0.0, 3.0), (0.0, 4.0))),
}


def from_recipe(*overrides: str) -> ImageParams:
    topology = load_recipe("demo", [f"topology.{item}" for item in overrides]).topology
    return fit_params(noisy(6), **topology.model_dump(exclude={"empty"}))


@pytest.mark.parametrize("name", CHANGES)
def test_every_option_is_reached_from_the_recipe_and_is_in_the_key_of_the_cache(
    name: str, tmp_path: Path
) -> None:
    text, value = CHANGES[name]
    params, plain = from_recipe(f"{name}={text}"), from_recipe()
    assert getattr(params, name) == value != getattr(plain, name)
    assert ImageParams.from_dict(params.to_dict()) == params
    x = noisy(2)
    windows = windows_of(x, np.array([0, 1]), ["1", "2"], ("a", "b"))
    images, others = (cached_images(windows, item, tmp_path) for item in (params, plain))
    assert len(list(tmp_path.glob("*.npy"))) == 2
    assert images.shape != others.shape or (images != others).any()


def test_options_that_go_together_are_reached_from_the_recipe() -> None:
    assert from_recipe("essential=cap", "essential_cap=1.5").essential_cap == 1.5
    assert from_recipe("weight=ramp", "weight_ramp=[0.1, 0.9]").weight_ramp == (0.1, 0.9)
    assert from_recipe("sigma=fit").sigma != 0.015
    assert from_recipe("layout=paper", "birth_range=[-1, 1]").persistence_range == ((0.0, 1.0),) * 2
    topology = load_recipe(
        "demo",
        [
            f"topology.{i}"
            for i in ("filtration=delay", "delay_dimension=2", "delay_lag=3", "delay_points=50")
        ],
    ).topology
    assert (topology.delay_dimension, topology.delay_lag, topology.delay_points) == (2, 3, 50)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["weight_ramp=[0.1, 0.5]"], "has no effect without weight = 'ramp'"),
        (["essential_cap=1.0"], "with essential = 'cap'"),
        (["layout=paper", "weight=constant"], "longest life"),
        (["sigma=narrow"], "topology.sigma"),
        (["birth_range=[2, 1]"], "topology.birth_range = [2, 1]: expected [low, high] with low < high"),
        (["persistence_range=[1]"], "topology.persistence_range = [1]: expected [low, high]"),
        (["persistence_range=[[0, 1], [0, nan]]"], "one such pair per channel"),
    ],
)
def test_a_recipe_that_contradicts_itself_is_refused(overrides: list[str], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        from_recipe(*overrides)
    assert said in str(caught.value)


def test_old_parameters_are_refused_by_name() -> None:
    data = fit_params(noisy(2)).to_dict()
    del data["layout"]
    with pytest.raises(BadInputError, match="layout"):
        ImageParams.from_dict(data)
