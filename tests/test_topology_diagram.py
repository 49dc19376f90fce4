"""Diagrams equal those of ripser and gudhi on every kind of signal."""

from __future__ import annotations

import gudhi
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topokd_edge.errors import BadInputError, UsageError
from topokd_edge.topology.reference import ripser_diagram
from topokd_edge.topology.sublevel import diagram

Signal = npt.NDArray[np.float64]


def by_gudhi(signal: Signal, *, infinite: bool = False) -> Signal:
    """Pairs of gudhi's cubical complex with the samples as vertices."""
    cubes = gudhi.CubicalComplex(vertices=signal)
    cubes.compute_persistence(min_persistence=0)
    pairs = np.asarray(cubes.persistence_intervals_in_dimension(0), dtype=np.float64).reshape(-1, 2)
    return pairs if infinite else pairs[np.isfinite(pairs[:, 1])]


def multiset(pairs: Signal) -> list[tuple[float, float]]:
    return sorted(map(tuple, pairs[pairs[:, 1] > pairs[:, 0]].tolist()))


@st.composite
def signals(draw: st.DrawFn) -> Signal:
    """Random, quantised, plateau, monotone and constant signals of 1 to 80 samples."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    size = draw(st.integers(1, 80))
    kind = draw(st.sampled_from(["normal", "quantised", "plateau", "rising", "falling", "constant", "walk"]))
    noise = rng.standard_normal(size)
    return {
        "normal": noise,
        "quantised": rng.integers(-3, 4, size).astype(float),
        "plateau": np.repeat(rng.integers(-3, 4, size), rng.integers(1, 5, size)).astype(float),
        "rising": np.sort(noise),
        "falling": np.sort(noise)[::-1].copy(),
        "constant": np.full(size, noise[0]),
        "walk": np.cumsum(noise),
    }[kind]


@settings(deadline=None, max_examples=300)
@given(signals())
def test_equals_gudhi(signal: Signal) -> None:
    assert multiset(diagram(signal)) == multiset(by_gudhi(signal))


@settings(deadline=None, max_examples=150)
@given(signals())
def test_equals_ripser_with_essential_class(signal: Signal) -> None:
    assert multiset(diagram(signal, essential="keep")) == multiset(ripser_diagram(signal))


@pytest.mark.parametrize(
    "signal",
    [
        [0.0],
        [-0.0],
        [5.0, 5.0],
        [1.0, 0.0],
        [0.0, 1.0],
        [0.0, 1.0, 0.0],
        [1.0, 0.0, 1.0],
        [0.0, 1.0, 1.0, 0.0, 0.0, 1.0],
        [2.0, 1.0, 1.0, 2.0, 0.0, 0.0, 2.0, 1.0],
        [1e30, -1e30, 1e30, 0.0, 1e-30, 0.0],
        list(range(50)),
        list(range(50))[::-1],
        [7.0] * 50,
    ],
)
def test_short_flat_and_extreme_signals_equal_both_libraries(signal: list[float]) -> None:
    values = np.array(signal)
    assert multiset(diagram(values)) == multiset(by_gudhi(values))
    whole = multiset(diagram(values, essential="keep"))
    assert whole == multiset(ripser_diagram(values)) == multiset(by_gudhi(values, infinite=True))


def test_zero_is_a_value_and_not_a_missing_edge() -> None:
    # ripser.py issue 78: a zero in a sparse matrix means "no edge".
    signal = np.array([-1.0, 0.0, -2.0, 0.0, -3.0])
    expected = [(-2.0, 0.0), (-1.0, 0.0)]
    assert multiset(diagram(signal)) == expected
    assert multiset(ripser_diagram(signal)) == [(-3.0, np.inf), *expected]


def test_essential_class_is_an_explicit_choice() -> None:
    signal = [0.0, 1.0, 0.0]
    assert diagram(signal).tolist() == [[0.0, 1.0]]
    assert diagram(signal, essential="cap").tolist() == [[0.0, 1.0], [0.0, 1.0]]
    assert diagram(signal, essential="keep").tolist() == [[0.0, 1.0], [0.0, np.inf]]
    with pytest.raises(UsageError, match="essential"):
        diagram(signal, essential="other")  # type: ignore[arg-type]


@pytest.mark.parametrize("signal", [np.ones(128), np.zeros(5), [3.0]])
def test_a_constant_signal_has_no_pair(signal: npt.ArrayLike) -> None:
    assert diagram(signal).shape == (0, 2)
    assert diagram(signal, essential="cap").shape == (0, 2)


@pytest.mark.parametrize(
    ("signal", "sample"),
    [([1, 0, np.nan, 0, 3, 0], 2), ([0, 2, np.nan, 3, 0.5, 4], 2), ([np.inf], 0), ([0, 1, 2, -np.inf], 3)],
)
def test_nan_and_infinity_are_refused_with_their_place(signal: list[float], sample: int) -> None:
    with pytest.raises(BadInputError, match=f"sample {sample}:"):
        diagram(signal)


@pytest.mark.parametrize("signal", [[], [[1.0, 2.0]]])
def test_other_shapes_are_refused(signal: npt.ArrayLike) -> None:
    with pytest.raises(BadInputError, match="shape"):
        diagram(signal)


def test_long_signals_take_linear_time() -> None:
    # A quadratic algorithm would need hours for these.
    size = 2_000_000
    ramp = np.arange(size, dtype=float)
    teeth = np.where(np.arange(size) % 2, ramp, -ramp)
    assert len(diagram(ramp)) == len(diagram(ramp[::-1])) == 0
    assert len(diagram(teeth)) == (size - 1) // 2
