"""Gravity at rest tells unit and calibration; checks read recordings in blocks."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from made_recordings import recording

from topokd_edge.data import check as check_module
from topokd_edge.data.check import (
    acceleration_norms_g,
    check_acceleration,
    check_recordings,
    not_finite,
)
from topokd_edge.data.recording import Recording
from topokd_edge.data.units import STANDARD_GRAVITY
from topokd_edge.errors import BadInputError


def worn(
    *, rest_seconds: int = 30, active_seconds: int = 60, rate_hz: float = 50.0
) -> npt.NDArray[np.float64]:
    """Rest in changing postures, then vigorous movement whose median norm is 2 g."""
    random = np.random.default_rng(0)
    postures = random.normal(size=(rest_seconds, 3))
    postures /= np.linalg.norm(postures, axis=1, keepdims=True)
    rest = np.repeat(postures, round(rate_hz), axis=0) + random.normal(
        0, 0.008, (rest_seconds * round(rate_hz), 3)
    )
    active = random.normal(0, 1.3, (active_seconds * round(rate_hz), 3))
    return np.concatenate([rest, active]).T


def accelerometer(samples: npt.NDArray[np.float64], unit: str = "g", rate_hz: float = 50.0) -> Recording:
    made = recording(samples=samples.shape[1], rate_hz=rate_hz)
    return replace(made, samples=samples.astype(np.float32), units=(unit,) * 3)


@pytest.mark.parametrize(
    ("factor", "unit", "words"),
    [
        (1.0, "g", ""),
        (STANDARD_GRAVITY, "m/s2", ""),
        (STANDARD_GRAVITY, "g", "a factor near 9.8"),
        (1.0, "m/s2", "a factor near 9.8"),
        (1000.0, "g", "a factor near 1000"),
        (1e-3, "g", "a factor near 1000"),
        (0.93, "g", "norm at rest is 0.93 g, expected 1 g; calibration is off by -7 %"),
        (1.1, "g", "calibration is off by +10 %"),
        (1.04, "g", ""),
        (0.5, "g", "is gravity removed, or the unit or the calibration wrong?"),
        (2.0, "g", "is gravity removed, or the unit or the calibration wrong?"),
    ],
)
def test_rest_tells_the_unit_and_the_calibration(factor: float, unit: str, words: str) -> None:
    (found,) = check_acceleration(accelerometer(worn() * factor, unit))
    assert found.rest_seconds == 30
    true_g = factor / (STANDARD_GRAVITY if unit == "m/s2" else 1)
    assert found.rest_g == pytest.approx(true_g, rel=0.01)
    assert bool(found.warning) == bool(words)
    assert words in found.warning
    assert (f"acc: {words}" if words else "") in found.warning or words != found.warning
    (warnings,) = check_recordings([accelerometer(worn() * factor, unit)])
    assert warnings == ((found.warning,) if words else ())


def test_without_rest_the_median_norm_decides_within_wide_bounds() -> None:
    moving = worn(rest_seconds=0)
    (found,) = check_acceleration(accelerometer(moving))
    assert (found.rest_g, found.rest_seconds, found.warning) == (None, 0, "")
    assert found.median_g == pytest.approx(2.0, abs=0.1)
    (found,) = check_acceleration(accelerometer(moving * STANDARD_GRAVITY))
    assert "median norm is 19.7 g" in found.warning
    (found,) = check_acceleration(accelerometer(moving * 0.05))
    assert "is gravity removed" in found.warning or "9.8" in found.warning


def test_fewer_than_three_seconds_at_rest_and_zeros_do_not_count() -> None:
    (found,) = check_acceleration(accelerometer(worn(rest_seconds=2) * 0.93))
    assert (found.rest_seconds, found.rest_g, found.warning) == (2, None, "")
    zeros = np.concatenate([worn(), np.zeros((3, 5000))], axis=1)
    (found,) = check_acceleration(accelerometer(zeros))
    assert (found.rest_seconds, found.warning) == (30, "")


def test_rest_does_not_depend_on_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    made = accelerometer(worn())
    whole = check_acceleration(made)
    monkeypatch.setattr(check_module, "BLOCK", 777)
    assert check_acceleration(made) == whole


def test_each_recording_has_its_own_status() -> None:
    good, bad = accelerometer(worn()), accelerometer(worn() * 0.93)
    assert [len(warnings) for warnings in check_recordings([good, bad, good])] == [0, 1, 0]


def test_the_median_of_a_long_recording_is_that_of_every_nth_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    made = accelerometer(worn())
    exact = float(np.median(np.linalg.norm(made.samples.astype(np.float64), axis=0)))
    assert acceleration_norms_g(made) == {"acc": pytest.approx(exact)}
    monkeypatch.setattr(check_module, "_MEDIAN_SAMPLES", 1000)
    monkeypatch.setattr(check_module, "BLOCK", 100)
    every_fifth = np.linalg.norm(made.samples[:, ::5].astype(np.float64), axis=0)
    assert acceleration_norms_g(made) == {"acc": pytest.approx(float(np.median(every_fifth)))}
    monkeypatch.setattr(check_module, "BLOCK", 3)
    assert acceleration_norms_g(made) == {"acc": pytest.approx(float(np.median(every_fifth)))}


def test_bad_values_are_found_in_every_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_module, "BLOCK", 64)
    made = recording("7", samples=200, source="night.csv")
    made.samples[1, [70, 71, 199]] = np.nan
    made.samples[0, 128] = -np.inf
    assert not_finite(made) == [
        "subject 7, recording night.csv: channel 'acc_x', sample 128: -inf",
        "subject 7, recording night.csv: channel 'acc_y', sample 70: nan (and 2 more in this channel)",
    ]


def test_a_channel_that_changes_only_between_blocks_is_not_constant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_module, "BLOCK", 64)
    made = recording(samples=200)
    made.samples[1] = 0.5
    with pytest.raises(BadInputError, match="'acc_y': constant"):
        check_recordings([made])
    made.samples[1, 199] = 0.25
    check_recordings([made])


def mapped(path: Path, samples: int) -> Recording:
    """An accelerometer whose samples are on disk, as rows."""
    random = np.random.default_rng(0)
    rows = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(samples, 3))
    for low in range(0, samples, 1 << 16):
        block = rows[low : low + (1 << 16)]
        block[:] = np.array([0, 0.6, 0.8]) + random.normal(0, 0.005, block.shape)
    rows.flush()
    return replace(recording(samples=samples), samples=np.load(path, mmap_mode="r").T)


def test_memory_is_bounded_by_the_block(tmp_path: Path) -> None:
    made = mapped(tmp_path / "long.npy", 3_000_000)
    tracemalloc.start()
    try:
        assert check_recordings([made]) == [()]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 0.7 * made.samples.nbytes  # a million norms and their median; no copy of the samples
