"""Rates, gaps, repeated and uneven stamps, against clocks whose truth is known."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topokd_edge.data import ticks
from topokd_edge.data.clock import ClockReading, read_clock
from topokd_edge.data.recording import Gap
from topokd_edge.data.ticks import spread_repeats
from topokd_edge.errors import BadInputError

Floats = npt.NDArray[np.float64]


def in_blocks(stamps: Floats, size: int = 1000) -> Iterator[Floats]:
    return (stamps[low : low + size] for low in range(0, len(stamps), size))


def read(
    stamps: Any, *, size: int = 1000, stated: float | None = None, user: bool = False, borders: Any = ()
):
    values = np.asarray(stamps, dtype=np.float64)
    return read_clock(
        lambda: in_blocks(values, size),
        stated_hz=stated,
        stated_by_user=user,
        borders=tuple(borders),
        where="night.csv",
    )


def stamped(hz: float, samples: int, grid: float, phase: float = 0.0) -> Floats:
    """Stamps of an even clock, rounded down to a grid, s."""
    return np.floor((np.arange(samples) / hz + phase) / grid + 1e-9) * grid


def lost(stamps: Floats, count: int, seed: int = 0) -> tuple[Floats, list[int]]:
    """Take out single samples, no two neighbours; also return the samples before the holes."""
    holes = np.sort(
        np.random.default_rng(seed).choice(np.arange(50, len(stamps) - 50, 5), count, replace=False)
    )
    return np.delete(stamps, holes), (holes - np.arange(count) - 1).tolist()


def places(reading: ClockReading) -> list[int]:
    return [gap.after_sample for gap in reading.gaps]


def test_80_hz_stamped_in_milliseconds_is_not_83_hz() -> None:
    t_ms = np.floor(12.5 * np.arange(800))
    reading = read(t_ms / 1000)
    assert reading.rate_hz == pytest.approx(80.0, abs=0.05)
    assert reading.clock.jitter_s == pytest.approx(0.0005, rel=1e-3)
    assert reading.clock.resolution_s == pytest.approx(0.001)
    assert (reading.gaps, reading.uneven, reading.notes) == ((), False, ())
    assert reading.clock.drift_ppm == 0
    assert 1 / np.median(np.diff(t_ms / 1000)) == pytest.approx(83.3, abs=0.1)  # what it must not be


@pytest.mark.parametrize("hz", [12.5, 25, 50, 80, 85.7, 100, 128, 256, 400, 500, 512, 1000])
def test_every_single_lost_sample_of_a_regular_clock_is_a_gap(hz: float) -> None:
    stamps, before = lost(stamped(hz, 5000, 0.001), 60)
    reading = read(stamps)
    assert places(reading) == before
    np.testing.assert_allclose([gap.seconds for gap in reading.gaps], 1 / hz, atol=0.001)
    assert reading.rate_hz == pytest.approx(hz, rel=1e-3)
    assert not reading.uneven


@pytest.mark.parametrize("hz", [700, 900, 990, 1100, 1500])
def test_milliseconds_coarse_for_the_rate_make_no_gaps(hz: float) -> None:
    reading = read(stamped(hz, 20000, 0.001, phase=0.0003))
    assert reading.gaps == ()
    assert reading.rate_hz == pytest.approx(hz, rel=1e-3)
    assert not reading.uneven


def test_a_stated_rate_tells_lost_samples_where_milliseconds_cannot() -> None:
    stamps, before = lost(stamped(900, 20000, 0.001), 60)
    found = set(places(read(stamps, stated=900.0)))
    assert found and found <= set(before)
    assert read(stamps, stated=900.0).rate_hz == 900.0


def test_a_tenth_of_the_samples_lost_one_by_one() -> None:
    stamps = np.delete(np.arange(5000) / 50, np.random.default_rng(1).choice(5000, 500, replace=False))
    reading = read(stamps)
    assert reading.rate_hz == pytest.approx(50, rel=1e-9)
    assert len(reading.gaps) == np.count_nonzero(np.diff(stamps) > 0.03)


@pytest.mark.parametrize("hz", [30, 85.7, 100])
def test_samples_that_share_a_second_are_told_apart(hz: float) -> None:
    stamps = stamped(hz, 60 * int(hz), 1.0, phase=0.37)
    reading = read(stamps)
    assert reading.rate_hz == pytest.approx(hz, rel=1e-3)
    assert reading.clock.repeated == len(stamps) - len(np.unique(stamps))
    assert reading.clock.resolution_s == 1.0
    assert (reading.gaps, reading.uneven) == ((), False)


def test_partial_first_and_last_seconds_do_not_distort_the_rate() -> None:
    stamps = np.repeat(np.arange(6.0), [3, 100, 100, 100, 100, 2])
    assert read(stamps).rate_hz == 100.0


def test_gaps_among_whole_seconds() -> None:
    whole = stamped(100, 10000, 1.0, phase=0.37)
    three_seconds = np.delete(whole, np.s_[4040:4340])
    assert read(three_seconds).gaps == (Gap(4039, pytest.approx(3.0, abs=0.02)),)
    inside_a_second = np.delete(whole, np.s_[7010:7030])  # of the second that ends with sample 7062
    assert read(inside_a_second).gaps == (Gap(7042, pytest.approx(0.2, abs=0.02)),)


def test_milliseconds_at_2_khz() -> None:
    reading = read(1.7e9 + stamped(2000, 8000, 0.001))
    assert reading.rate_hz == pytest.approx(2000, rel=1e-3)
    assert (reading.gaps, reading.clock.repeated, reading.uneven) == ((), 4000, False)
    hole = read(np.delete(stamped(2000, 8000, 0.001), np.s_[4000:4100]))
    assert hole.gaps == (Gap(3999, pytest.approx(0.05, abs=0.001)),)


def test_a_phone_whose_rate_wanders_is_uneven_but_has_no_gaps() -> None:
    random = np.random.default_rng(3)
    wandering = np.cumsum(np.repeat(random.uniform(0.01, 0.02, 100), 50))
    reading = read(wandering)
    assert (reading.uneven, reading.gaps) == (True, ())
    assert reading.rate_hz == pytest.approx((len(wandering) - 1) / np.ptp(wandering))
    hole = read(np.delete(wandering, np.s_[2000:2100]))
    assert places(hole) == [1999]


def test_late_delivery_is_no_gap_and_not_uneven() -> None:
    stamps = np.arange(5000) / 50 + np.random.default_rng(0).uniform(-0.004, 0.004, 5000)
    reading = read(stamps)
    assert (reading.gaps, reading.uneven) == ((), False)
    assert reading.rate_hz == pytest.approx(50, rel=1e-4)
    assert reading.clock.jitter_s == pytest.approx(0.008 / np.sqrt(12) * np.sqrt(2), rel=0.05)


def test_uneven_steps_make_gaps_only_beyond_five_standard_deviations() -> None:
    steps = np.random.default_rng(0).normal(0.02, 0.004, 5000)
    assert read(np.cumsum(steps)).gaps == ()
    steps[[100, 4000]] = 0.02 + 7 * 0.004
    assert places(read(np.cumsum(steps))) == [99, 3999]


def test_drift_is_told_and_makes_nothing_uneven() -> None:
    interval = 0.02 * (1 + 400e-6 * np.linspace(0, 1, 200_000))
    reading = read(np.cumsum(interval), size=65536)
    assert reading.clock.drift_ppm == pytest.approx(-300, abs=2)
    assert not reading.uneven


def test_borders_are_gaps_of_unknown_length_where_time_may_go_anywhere() -> None:
    stamps = np.concatenate([100 + np.arange(300) / 50, 3 + np.arange(200) / 49, 900 + np.arange(300) / 50])
    reading = read(stamps, borders=(0, 300, 500))
    assert reading.gaps == (Gap(299, 0.0), Gap(499, 0.0))
    np.testing.assert_allclose(reading.clock.segment_hz, [50, 49, 50])
    repeated = read(np.repeat(np.arange(20.0), 50), borders=(510,))
    assert repeated.gaps == (Gap(509, 0.0),)
    assert repeated.rate_hz == 50


def test_stretches_have_their_own_rates() -> None:
    stamps = np.concatenate([np.arange(501) / 50, 100 + np.arange(501) / 50.5, [300.0]])
    reading = read(stamps)
    np.testing.assert_allclose(reading.clock.segment_hz, [50, 50.5, np.nan])
    assert reading.gaps[0] == Gap(500, pytest.approx(90 - 1 / reading.rate_hz))


@pytest.mark.parametrize(
    ("stated", "user", "used", "noted"),
    [
        (100.3, False, 100.3, False),
        (100.6, False, 100.0, True),
        (80.0, False, 100.0, True),
        (80.0, True, 80.0, True),
        (100.0, True, 100.0, False),
        (None, False, 100.0, False),
    ],
)
def test_a_stated_rate_against_the_stamps(stated: float | None, user: bool, used: float, noted: bool) -> None:
    reading = read(np.arange(2000) / 100, stated=stated, user=user)
    assert reading.rate_hz == pytest.approx(used)
    assert bool(reading.notes) == noted
    assert reading.clock.stated_hz == stated
    assert reading.clock.estimated_hz == pytest.approx(100)


def test_every_bad_stamp_is_named_up_to_ten() -> None:
    stamps = np.arange(3000) / 50
    stamps[[7, 1500]] = np.nan
    stamps[2999] = np.inf
    stamps[40] = 0.0
    with pytest.raises(BadInputError) as caught:
        read(stamps)
    text = str(caught.value)
    assert "night.csv: 4 time stamp(s)" in text
    for place in ("sample 7: time stamp nan", "sample 1500: time stamp nan", "sample 2999: time stamp inf"):
        assert place in text
    assert "sample 40: 0.78 s earlier" in text
    saw = np.tile(np.arange(10) / 50, 30)
    with pytest.raises(BadInputError) as many:
        read(saw)
    assert "29 time stamp(s)" in str(many.value)
    assert len(many.value.problems) == 11
    assert many.value.problems[-1] == "and 19 more"
    read(saw, borders=range(10, 300, 10))


@pytest.mark.parametrize("stamps", [[], [5.0], [5.0] * 400])
def test_stamps_that_never_move_are_refused(stamps: list[float]) -> None:
    with pytest.raises(BadInputError, match="never move"):
        read(stamps, stated=50.0)


@settings(max_examples=60, deadline=None)
@given(
    hz=st.sampled_from([20.0, 50.0, 85.7, 100.0, 2000.0]),
    grid=st.sampled_from([1e-7, 1e-3, 1.0]),
    holes=st.lists(st.tuples(st.integers(1, 2900), st.integers(1, 300)), max_size=4),
    size=st.integers(1, 700),
)
def test_the_reading_does_not_depend_on_the_blocks(
    hz: float, grid: float, holes: list[tuple[int, int]], size: int
) -> None:
    stamps = stamped(hz, 4000, grid)
    for start, length in holes:
        stamps = np.delete(stamps, np.s_[start : start + length])
    if stamps[-1] == stamps[0]:
        return
    one, other = read(stamps, size=10**6), read(stamps, size=size)
    assert one.gaps == other.gaps
    assert repr(one) == repr(other)
    assert all(gap.seconds > 0 and 0 <= gap.after_sample < len(stamps) - 1 for gap in one.gaps)
    assert np.isfinite([one.rate_hz, one.clock.jitter_s, one.clock.drift_ppm]).all()


def test_long_recordings_equal_short_ones_across_the_block_border() -> None:
    stamps, before = lost(stamped(400, 300_000, 0.001), 500)
    assert places(read(stamps, size=65536)) == before


def test_a_thinned_survey_finds_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    stamps, before = lost(stamped(400, 100_000, 0.001), 300)
    monkeypatch.setattr(ticks, "_SAMPLE", 2000)
    assert places(read(stamps)) == before


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=2, max_size=30), st.integers(1, 50))
def test_repeated_stamps_are_spread_inside_their_step(rows: list[int], size: int) -> None:
    stamps = np.repeat(np.cumsum(1.0 + np.arange(len(rows)) % 3), rows)
    spread = np.concatenate(list(spread_repeats(in_blocks(stamps, size), 0.05, partial=False)))
    assert len(spread) == len(stamps)
    assert (np.diff(spread) > 0).all()
    for value in np.unique(stamps)[:-1]:
        inside = spread[stamps == value]
        following = stamps[stamps > value].min()
        np.testing.assert_allclose(inside, np.linspace(value, following, len(inside), endpoint=False))


def test_a_partial_first_second_is_put_at_its_end() -> None:
    stamps = np.repeat([5.0, 6.0, 7.0], [20, 100, 30])
    spread = np.concatenate(list(spread_repeats(in_blocks(stamps), 0.01, partial=True)))
    np.testing.assert_allclose(spread, 5.8 + np.arange(150) * 0.01, atol=1e-9)


@pytest.mark.parametrize("begin", [0.0, 1000.0, 1_700_000_000.0])
def test_recordings_of_one_clock_have_the_same_rate(begin: float) -> None:
    """Whatever their length, or else no two of them could make one set of windows."""
    rates = {read(np.round(begin + np.arange(n) / 50, 3)).rate_hz for n in (300, 301, 777, 1234, 5001)}
    assert rates == {50.0}
