"""Resampling equals scipy on the whole stretch, takes down what would alias, and moves labels along."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_recordings import recording
from scipy.signal import resample_poly
from test_gaps import filled_of_each, label_of_each, recordings

from topokd_edge.data import resample as resample_module
from topokd_edge.data.clock import read_clock
from topokd_edge.data.recording import Gap, Recording
from topokd_edge.data.resample import interpolate, resample
from topokd_edge.errors import UsageError

IN_TMP = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def with_samples(samples: npt.NDArray[np.float64], rate_hz: float, **changes: object) -> Recording:
    made = recording(samples=samples.shape[1], rate_hz=rate_hz)
    return replace(made, samples=samples.astype(np.float32), **changes)


def tones(hz: float, rate_hz: float, seconds: float = 20.0) -> npt.NDArray[np.float64]:
    time = np.arange(int(seconds * rate_hz)) / rate_hz
    return np.stack([np.sin(2 * np.pi * hz * time), np.cos(2 * np.pi * hz * time), np.ones_like(time)])


def middle(samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    quarter = samples.shape[1] // 4
    return samples[:, quarter:-quarter]


@pytest.mark.parametrize(
    ("rate_hz", "to_hz", "up", "down"),
    [
        (100, 50, 1, 2),
        (100, 30, 3, 10),
        (85.7, 50, 500, 857),
        (25, 100, 4, 1),
        (80, 100, 5, 4),
        (50, 49, 49, 50),
    ],
)
def test_a_stretch_in_chunks_equals_scipy_on_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rate_hz: float, to_hz: float, up: int, down: int
) -> None:
    signal = np.cumsum(np.random.default_rng(0).normal(size=(3, 7000)), axis=1) + 10
    made = with_samples(signal, rate_hz)
    taps = resample_module._taps(max(up, down))
    whole = made.samples.astype(np.float64)
    slope = (whole[:, -1:] - whole[:, :1]) / (whole.shape[1] - 1)
    line = whole[:, :1] + slope * np.arange(whole.shape[1])
    expected = resample_poly(whole - line, up, down, axis=1, window=taps)
    expected += whole[:, :1] + slope * np.arange(expected.shape[1]) * down / up
    scale = np.abs(expected).max()
    for block in (100, 1000, 1 << 16):
        monkeypatch.setattr(resample_module, "BLOCK", block)
        result = resample(made, to_hz, tmp_path / "new.npy")
        assert result.samples.shape == expected.shape
        np.testing.assert_allclose(result.samples / scale, expected / scale, atol=1e-6)
        assert result.rate_hz == to_hz


@pytest.mark.parametrize(("rate_hz", "to_hz"), [(100.0, 40.0), (85.7, 50.0), (200.0, 26.0), (64.0, 20.0)])
def test_tones_above_the_new_nyquist_vanish_and_those_below_stay(
    tmp_path: Path, rate_hz: float, to_hz: float
) -> None:
    for share in (1.01, 1.2, 1.5):
        result = resample(
            with_samples(tones(share * to_hz / 2, rate_hz), rate_hz), to_hz, tmp_path / "new.npy"
        )
        assert np.abs(middle(result.samples)[:2]).max() < 0.01  # -40 dB
        np.testing.assert_allclose(middle(result.samples)[2], 1, atol=1e-3)
    for share in (0.05, 0.5, 0.79):
        hz = share * to_hz / 2
        result = resample(with_samples(tones(hz, rate_hz), rate_hz), to_hz, tmp_path / "new.npy")
        truth = tones(hz, to_hz)[:, : result.samples.shape[1]]
        np.testing.assert_allclose(middle(result.samples), middle(truth), atol=0.01)


def test_upsampling_makes_no_images(tmp_path: Path) -> None:
    result = resample(with_samples(tones(9.0, 25.0), 25.0), 100.0, tmp_path / "new.npy")
    np.testing.assert_allclose(middle(result.samples), middle(tones(9.0, 100.0)), atol=0.01)


def test_gravity_makes_no_step_at_the_ends(tmp_path: Path) -> None:
    line = np.stack([np.full(500, 1.0), np.linspace(-1, 1, 500), np.full(500, -9.81)])
    for to_hz in (30.0, 130.0):
        result = resample(with_samples(line, 100.0), to_hz, tmp_path / "new.npy")
        time = np.arange(result.samples.shape[1]) / to_hz * 100
        np.testing.assert_allclose(result.samples[1], -1 + 2 * time / 499, atol=1e-5)
        np.testing.assert_allclose(result.samples[[0, 2]].T, [[1, -9.81]] * len(time), rtol=1e-6)


def test_the_error_of_the_ratio_is_told(tmp_path: Path) -> None:
    made = recording(rate_hz=99.987)
    result = resample(made, 50.0, tmp_path / "new.npy")
    assert result.rate_hz == 50.0
    assert "by 1/2; the true rate is -130 ppm off" in result.notes[-1]
    same = resample(recording(rate_hz=50.0), 50.0, tmp_path / "same.npy")
    assert (same.rate_hz, same.notes) == (50.0, ())
    almost = resample(recording(rate_hz=49.999), 50.0, tmp_path / "same.npy")
    assert almost.rate_hz == 50.0
    assert "by 1; the true rate is -20 ppm off" in almost.notes[-1]
    assert not (tmp_path / "same.npy").exists()


@pytest.mark.parametrize("to_hz", [0.0, -5.0, float("nan"), float("inf"), 0.2, 2600.0])
def test_senseless_rates_are_refused(tmp_path: Path, to_hz: float) -> None:
    with pytest.raises(UsageError, match="--resample"):
        resample(recording(rate_hz=25.0), to_hz, tmp_path / "new.npy")
    with pytest.raises(UsageError, match="--resample"):
        interpolate(recording(rate_hz=25.0), np.arange(200) / 25, to_hz, tmp_path / "new.npy")


@IN_TMP
@given(made=recordings(), to_hz=st.sampled_from([3.0, 4.0, 5.0, 7.0, 15.0, 20.0, 23.0]))
def test_labels_gaps_and_filled_follow_one_by_one(tmp_path: Path, made: Recording, to_hz: float) -> None:
    result = resample(made, to_hz, tmp_path / "new.npy")
    ratio = Fraction(to_hz) / Fraction(10)
    labels, flags = label_of_each(made), filled_of_each(made)
    edges = [0, *(gap.after_sample + 1 for gap in made.gaps), made.samples.shape[1]]
    new_labels, new_flags, ends = [], [], []
    for start, stop in pairwise(edges):
        new = 0
        while Fraction(new) / ratio < stop - start:
            begin, end = new / ratio, (new + 1) / ratio  # of the new sample, in old ones
            new_labels.append(labels[start + int(begin)])
            touched = [flags[start + at] for at in range(stop - start) if begin < at + 1 and at < end]
            new_flags.append(any(touched))
            new += 1
        ends.append((stop - start, new))
    assert result.samples.shape == (3, len(new_labels))
    assert label_of_each(result) == new_labels
    assert filled_of_each(result) == new_flags
    assert [gap.after_sample + 1 for gap in result.gaps] == np.cumsum([new for _, new in ends])[:-1].tolist()
    for old, gap, (before, after) in zip(made.gaps, result.gaps, ends, strict=False):
        expected = max(0.0, old.seconds + before / 10 - after / to_hz) if old.seconds else 0.0
        assert gap.seconds == pytest.approx(expected, abs=1e-9)
    assert np.isfinite(result.samples).all()


def test_stretches_do_not_hear_each_other(tmp_path: Path) -> None:
    signal = tones(1.0, 100.0)
    loud = signal.copy()
    loud[:, 900:] += 1000
    quiet = resample(with_samples(signal, 100.0, gaps=(Gap(899, 1.0),)), 30.0, tmp_path / "quiet.npy")
    other = resample(with_samples(loud, 100.0, gaps=(Gap(899, 1.0),)), 30.0, tmp_path / "loud.npy")
    np.testing.assert_array_equal(quiet.samples[:, :270], other.samples[:, :270])
    assert quiet.gaps == (Gap(269, pytest.approx(1.0)),)


def uneven(seconds: float, rate_hz: float, seed: int = 0) -> npt.NDArray[np.float64]:
    steps = np.random.default_rng(seed).uniform(0.5, 1.5, int(seconds * rate_hz)) / rate_hz
    return np.cumsum(steps)


def on_stamps(
    time: npt.NDArray[np.float64], hz: float, gaps: tuple[Gap, ...] = (), rate_hz: float = 0
) -> Recording:
    rate_hz = rate_hz or (len(time) - 1) / float(np.ptp(time))
    signal = np.stack([np.sin(2 * np.pi * hz * time), 3 * time, np.ones_like(time)])
    return with_samples(signal, rate_hz, gaps=gaps)


@pytest.mark.parametrize("to_hz", [50.0, 80.0, 20.0, 33.0])
@pytest.mark.parametrize("block", [64, 1 << 16])
def test_uneven_stamps_come_to_an_even_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to_hz: float, block: int
) -> None:
    monkeypatch.setattr(resample_module, "BLOCK", block)
    time = 5 + uneven(30, 50)
    result = interpolate(on_stamps(time, 0.5), time, to_hz, tmp_path / "new.npy")
    even = time[0] + np.arange(result.samples.shape[1]) / to_hz
    assert even[-1] <= time[-1] + 1 / to_hz
    np.testing.assert_allclose(middle(result.samples)[0], middle(np.sin(np.pi * even)[None])[0], atol=0.01)
    np.testing.assert_allclose(result.samples[1], 3 * even, atol=0.1 if to_hz < 50 else 1e-4)
    assert result.rate_hz == to_hz
    assert result.labels[-1].stop == result.samples.shape[1]
    assert sorted(item.name for item in tmp_path.iterdir()) == ["new.npy"]


def test_interpolation_equals_numpy_between_the_stamps(tmp_path: Path) -> None:
    time = uneven(10, 50)
    made = with_samples(np.random.default_rng(1).normal(size=(3, 500)), 50.0)
    result = interpolate(made, time, 77.0, tmp_path / "new.npy")
    even = time[0] + np.arange(int(np.ptp(time) * 77) + 1) / 77
    np.testing.assert_allclose(result.samples[1], np.interp(even, time, made.samples[1]), atol=1e-6)


def test_interpolation_takes_down_what_would_alias(tmp_path: Path) -> None:
    time = uneven(60, 100)
    result = interpolate(on_stamps(time, 18.0), time, 20.0, tmp_path / "new.npy")
    assert np.abs(middle(result.samples)[0]).max() < 0.1  # 2 Hz alias; lines between samples leave some noise


def test_interpolation_keeps_gaps_labels_and_never_reaches_into_a_gap(tmp_path: Path) -> None:
    time = np.concatenate([uneven(10, 50), 100 + uneven(10, 50, seed=1), [200.0]])
    made = on_stamps(time, 0.5, gaps=(Gap(499, 80.0), Gap(999, 0.0)), rate_hz=50.0)
    made = replace(
        made,
        labels=recording(samples=1001, labels=((0, 250, "a"), (250, 750, "b"))).labels,
        filled=((400, 420),),
    )
    result = interpolate(made, time, 60.0, tmp_path / "new.npy")
    first = result.gaps[0].after_sample + 1
    last = time[0] + (first - 1) / 60
    assert time[499] - 1 / 60 < last <= time[499]
    assert result.gaps[0].seconds == pytest.approx(time[500] - last - 1 / 60)
    assert result.gaps[1] == Gap(result.samples.shape[1] - 2, 0.0)
    even = np.concatenate(
        [time[0] + np.arange(first) / 60, time[500] + np.arange(result.gaps[1].after_sample + 1 - first) / 60]
    )
    for sample, (at, label) in enumerate(zip(even, label_of_each(result)[:-1], strict=True)):
        assert label == ("a" if at < time[250] else "b" if at < time[750] else ""), sample
    (start, stop) = result.filled[0]
    assert even[start] <= time[400] < even[start + 1]
    assert even[stop - 1] < time[420] <= even[stop]


def test_samples_that_share_a_second_are_spread_before_interpolation(tmp_path: Path) -> None:
    true = np.arange(6000) / 100 + 0.37
    stamps = np.floor(true + 1e-9)
    reading = read_clock(lambda: iter([stamps]), stated_hz=None, stated_by_user=False, borders=(), where="x")
    made = replace(on_stamps(true, 0.5, rate_hz=reading.rate_hz), clock=reading.clock)
    result = interpolate(made, stamps, 100.0, tmp_path / "new.npy")
    np.testing.assert_allclose(result.samples[1, :5900], 3 * true[:5900], atol=0.05)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["new.npy"]


def test_interpolation_of_one_sample(tmp_path: Path) -> None:
    made = with_samples(np.ones((3, 1)), 50.0)
    assert interpolate(made, np.array([7.0]), 20.0, tmp_path / "new.npy").samples.tolist() == [[1.0]] * 3
