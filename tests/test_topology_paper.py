"""The layout of the paper: `persim.PersImage` bin for bin, oddities included."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_topology_diagram import multiset
from test_topology_image import assert_backends_agree, noisy

from topokd_edge.topology.image import persistence_images
from topokd_edge.topology.params import ImageParams, fit_params
from topokd_edge.topology.sublevel import diagram

Floats = npt.NDArray[np.float64]


def by_persim(pairs: Floats, params: ImageParams) -> Floats:
    """What PersImage makes of a diagram."""
    from persim import PersImage

    rows, columns = params.size
    low, high = params.birth_range[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        imager = PersImage(
            pixels=(columns, rows),
            spread=params.sigma * high,
            specs={"minBD": low, "maxBD": high},
            verbose=False,
        )
    image: Floats = imager.transform(pairs)
    return image if len(pairs) else np.zeros(params.size)


def signal_of(pairs: Floats) -> npt.NDArray[np.float32]:
    """A signal whose diagram this is: walls that rise, a basin behind each, the lowest basin in front."""
    pairs = pairs[np.argsort(pairs[:, 1])]
    lowest = pairs[:, 0].min(initial=0.0) - 1.0
    return np.concatenate([[lowest], pairs[:, ::-1].ravel()]).astype(np.float32)


def paper(low: float, high: float, **options: Any) -> ImageParams:
    return ImageParams(
        birth_range=((low, high),), persistence_range=((0.0, high),), layout="paper", **options
    )


@st.composite
def random_diagrams(draw: st.DrawFn) -> Floats:
    """Births in -2..2, lives up to 2, in float32; some beyond any range, some shorter than any threshold."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    births = rng.uniform(-2.0, 2.0, draw(st.integers(0, 40))).astype(np.float32)
    lives = (2.0 * rng.uniform(0.0, 1.0, births.size) ** 3).astype(np.float32)
    return np.stack([births, births + lives], axis=1).astype(np.float64)


@settings(deadline=None, max_examples=80)
@given(
    pairs=random_diagrams(),
    low=st.floats(-2.0, 0.0),
    high=st.floats(0.3, 3.0),
    sigma=st.floats(0.004, 0.5),
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    normalise=st.sampled_from(["max", "none"]),
)
def test_equals_persimage_on_random_diagrams(pairs, low, high, sigma, size, normalise) -> None:
    x = signal_of(pairs)
    assert multiset(diagram(x)) == multiset(pairs)
    params = paper(low, high, sigma=sigma, size=size, min_life=0.01, normalise=normalise)
    expected = by_persim(pairs[pairs[:, 1] - pairs[:, 0] > 0.01 * high], params)
    largest = expected.max()
    # An image whose every pair lies far outside is the rounding of PersImage, blown up.
    assume(largest == 0.0 or largest > 1e-9)
    if normalise == "max" and largest > 0.0:
        expected, largest = expected / largest, 1.0
    image, degenerate = persistence_images(x[None, None], params)
    np.testing.assert_allclose(image[0, 0], expected, rtol=0, atol=1e-6 * largest)
    assert degenerate[0, 0] == (largest == 0.0)


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 10**6),
    essential=st.sampled_from(["drop", "cap", "keep"]),
    filtration=st.sampled_from(["sublevel", "superlevel"]),
)
def test_both_backends_agree_with_ranges_that_were_fitted(seed, essential, filtration) -> None:
    x = noisy(3, 2, 100, seed)
    params = fit_params(x[:2], layout="paper", essential=essential, filtration=filtration)
    assert_backends_agree(x, params)


def test_published_settings_leave_half_of_the_births_out() -> None:
    # minBD = -1, maxBD = 1: steps of 2/63 and bins of 1/64, so that 31/63 of the axis fall between bins.
    params = fit_params(noisy(2, 1), layout="paper", birth_range=(-1, 1), normalise="none")
    assert (params.sigma, params.min_life, params.size) == (0.015, 0.01, (64, 64))
    births = np.linspace(0.05, 0.95, 400, dtype=np.float32)
    kept = [
        persistence_images(np.array([[[-0.5, birth + 0.5, birth, 9.0]]], np.float32), params)[0].sum()
        for birth in births
    ]
    # Bins of the other axis leave gaps: 1/63 steps, 1/64 wide, 64/63 * 63/64 = 0.98 of it is covered.
    assert np.mean(kept) == pytest.approx(0.5 * 63 / 64 * 63 / 64, rel=0.02)
    signal = np.array([[[0.0, 1.0, 0.2, 0.8, 0.1, 0.9, 0.0]]], np.float32)  # scaled to [0, 1]
    image = persistence_images(signal, params)[0][0, 0]
    assert image[:, 34:].sum() > 100 * image[:, :30].sum(), "the left half is empty"


def test_a_pair_weighs_its_life_over_the_longest_of_its_diagram() -> None:
    params = paper(-1.0, 1.0, normalise="none", sigma=0.05)
    short = np.array([[0.2, 0.5]])
    alone = persistence_images(signal_of(short)[None, None], params)[0][0, 0]
    long = np.array([[0.3, 0.9]])
    both = persistence_images(signal_of(np.vstack([short, long]))[None, None], params)[0][0, 0]
    expected = 0.5 * alone + persistence_images(signal_of(long)[None, None], params)[0][0, 0]
    np.testing.assert_allclose(both, expected, atol=1e-6 * expected.max(), rtol=0)


def test_the_two_layouts_differ() -> None:
    x = noisy(2, 1)
    same = {"birth_range": (-2, 2), "min_life": 0.01}
    cells = persistence_images(x, fit_params(x, persistence_range=(0, 2), **same))[0]
    assert np.abs(cells - persistence_images(x, fit_params(x, layout="paper", **same))[0]).max() > 0.1


@pytest.mark.parametrize("backend", ["fast", "reference"])
def test_a_constant_window_is_empty(backend: Any) -> None:
    x = np.ones((1, 1, 64), np.float32)
    images, degenerate = persistence_images(x, fit_params(x, layout="paper"), backend=backend)
    assert images.shape == (1, 1, 64, 64)
    assert not images.any()
    assert degenerate.all()
