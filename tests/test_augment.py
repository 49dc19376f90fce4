"""Changed windows are what turned, rescaled, later started, noisy or lost sensors would have recorded."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from topokd_edge.bundle import Normalisation
from topokd_edge.data.sensors import sensors
from topokd_edge.distill.augment import Augment, shifted
from topokd_edge.distill.parts import Augmentation

CHANNELS = (
    "temp",
    *(f"{place}_{kind}_{axis}" for place in "ab" for kind in ("acc", "gyro") for axis in "xyz"),
    "ecg",
)
UNITS = ("degC", *("m/s2", "m/s2", "m/s2", "rad/s", "rad/s", "rad/s") * 2, "mV")
ACC_A, GYRO_A, ACC_B, GYRO_B = ([first, first + 1, first + 2] for first in (1, 4, 7, 10))
BATCH, LENGTH = 40, 50
SETTINGS = {"rotation": 0.25, "scale": 0.1, "shift": 0.1, "jitter": 0.05, "drop": 0.2}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


SCALE = Normalisation(
    mean=tuple(rng(1).uniform(-9, 9, len(CHANNELS)).tolist()),
    std=tuple(rng(2).uniform(0.1, 5, len(CHANNELS)).tolist()),
)
RAW = rng(3).normal(0, 3, (BATCH, len(CHANNELS), LENGTH)) + np.array(SCALE.mean)[:, None]


def standardised(raw: npt.NDArray[np.float64]) -> Tensor:
    mean, std = (np.array(part)[:, None] for part in (SCALE.mean, SCALE.std))
    return torch.from_numpy(((raw - mean) / std).astype(np.float32))


def changed(seed: int = 0, **settings: Any) -> npt.NDArray[np.float64]:
    """The windows of RAW after a change, in raw units."""
    augment = Augment(Augmentation(**settings), sensors(CHANNELS, UNITS), SCALE)
    x = augment(standardised(RAW), rng(seed)).numpy().astype(np.float64)
    return np.asarray(x * np.array(SCALE.std)[:, None] + np.array(SCALE.mean)[:, None])


def turn_between(before: npt.NDArray[np.float64], after: npt.NDArray[np.float64]) -> Rotation:
    """The rotation that takes the vectors `before` to `after`, shape (3, samples); it must fit exactly."""
    turn, misfit = Rotation.align_vectors(after.T, before.T)
    assert misfit < 1e-3
    return turn


def test_sensors_of_one_place_turn_together_and_rigidly() -> None:
    found = changed(rotation=0.4)
    angles = []
    for window in range(BATCH):
        at_a, gyro_a, at_b = (
            turn_between(RAW[window, rows], found[window, rows]) for rows in (ACC_A, GYRO_A, ACC_B)
        )
        assert (at_a.inv() * gyro_a).magnitude() < 1e-4
        assert (at_a.inv() * at_b).magnitude() > 1e-3
        angles += [at_a.magnitude(), at_b.magnitude()]
    assert np.sqrt(np.mean(np.square(angles))) == pytest.approx(0.4, rel=0.25)
    np.testing.assert_allclose(found[:, [0, 13]], RAW[:, [0, 13]], atol=1e-4)


def test_axes_of_rotation_point_everywhere() -> None:
    # Seen over many draws, a vector is turned to all sides alike: its mean stays on its own line.
    augment = Augment(
        Augmentation(rotation=0.5), sensors(CHANNELS, UNITS), Normalisation((0.0,) * 14, (1.0,) * 14)
    )
    gravity = torch.zeros(20_000, 14, 1)
    gravity[:, 3] = 9.81
    found = augment(gravity, rng()).numpy()[:, ACC_A, 0]
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 9.81, rtol=1e-5)
    np.testing.assert_allclose(found[:, :2].mean(0), 0, atol=0.1)
    assert found[:, 0].std() == pytest.approx(found[:, 1].std(), rel=0.05)
    # E[cos] of an angle N(0, s) is exp(-s^2 / 2); of the part across a random axis, 2/3 is left.
    assert found[:, 2].mean() / 9.81 == pytest.approx(1 / 3 + 2 / 3 * math.exp(-0.125), abs=0.01)


def test_a_sensor_is_scaled_as_a_whole_about_its_zero() -> None:
    found = changed(scale=0.1)
    gains = found / RAW
    for rows in (ACC_A, GYRO_A, ACC_B, GYRO_B, [13]):
        own = np.median(gains[:, rows], axis=(1, 2))
        np.testing.assert_allclose(found[:, rows], own[:, None, None] * RAW[:, rows], atol=1e-3)
        assert np.log(own).std() == pytest.approx(0.1, rel=0.35)
    assert not np.allclose(gains[:, 1], gains[:, 4], rtol=1e-3)
    np.testing.assert_allclose(found[:, 0], RAW[:, 0], atol=1e-4)  # 0 degC is no absence of heat


def test_turned_and_scaled_at_once() -> None:
    found = changed(rotation=0.3, scale=0.2)
    for window in range(5):
        gain = np.linalg.norm(found[window, ACC_A]) / np.linalg.norm(RAW[window, ACC_A])
        turn_between(RAW[window, ACC_A], found[window, ACC_A] / gain)
        assert abs(math.log(gain)) > 1e-4


@pytest.mark.parametrize(
    ("by", "expected"),
    [(0, [0, 1, 2, 3, 4]), (2, [2, 3, 4, 3, 2]), (-2, [2, 1, 0, 1, 2]), (1, [1, 2, 3, 4, 3])],
)
def test_a_shifted_window_ends_in_its_mirror_image(by: int, expected: list[int]) -> None:
    x = torch.arange(5.0).repeat(2, 3, 1) + 10 * torch.arange(3.0)[:, None]
    found = shifted(x, np.array([by, 0]))
    for channel in range(3):
        assert found[0, channel].tolist() == [value + 10 * channel for value in expected]
    assert torch.equal(found[1], x[1])


def test_shifts_reach_both_ways_as_far_as_allowed() -> None:
    found = changed(shift=0.1)
    first = [int(np.abs(RAW[i, 5] - found[i, 5, 20]).argmin()) - 20 for i in range(BATCH)]
    assert min(first) == -5
    assert max(first) == 5
    assert len(set(first)) > 6


def test_jitter_is_a_share_of_the_standard_deviation() -> None:
    noise = (changed(jitter=0.05) - RAW) / np.array(SCALE.std)[:, None]
    np.testing.assert_allclose(noise.std(axis=(0, 2)), 0.05, rtol=0.1)
    np.testing.assert_allclose(noise.mean(axis=(0, 2)), 0, atol=0.01)


def test_a_lost_sensor_reads_its_mean_and_never_all_are_lost() -> None:
    groups = [[0], ACC_A, GYRO_A, ACC_B, GYRO_B, [13]]
    found = standardised(changed(drop=0.5)).numpy()
    lost = np.array([[np.abs(found[i, rows]).max() < 1e-5 for rows in groups] for i in range(BATCH)])
    assert lost.mean() == pytest.approx(0.5, abs=0.12)
    kept = ~lost
    for i, j in np.ndindex(kept.shape):
        if kept[i, j]:
            np.testing.assert_allclose(
                found[i, groups[j]], standardised(RAW).numpy()[i, groups[j]], atol=1e-4
            )
    alone = Augment(Augmentation(drop=0.99), sensors(["ecg"], ["mV"]), Normalisation((1.0,), (2.0,)))
    x = torch.ones(30, 1, 4)
    assert torch.equal(alone(x, rng()), x)


def test_the_student_never_loses_all_of_its_sensors() -> None:
    settings = Augmentation(drop=0.9)
    augment = Augment(settings, sensors(CHANNELS, UNITS), SCALE, student=(*ACC_A[:2], 13))
    found = augment(standardised(RAW), rng()).numpy()
    lost = np.array([[np.abs(found[i, rows]).max() < 1e-5 for rows in (ACC_A, [13])] for i in range(BATCH)])
    assert not lost.all(axis=1).any()
    assert lost.any()
    others = [0, *GYRO_A, *ACC_B, *GYRO_B]
    assert (np.abs(found[:, others]).max(axis=(1, 2)) < 1e-5).any()


def test_nothing_asked_for_changes_nothing_and_draws_nothing() -> None:
    x, source = standardised(RAW), rng(5)
    assert torch.equal(Augment(Augmentation(), sensors(CHANNELS, UNITS), SCALE)(x, source), x)
    assert source.random() == rng(5).random()


def test_the_same_draw_gives_the_same_windows() -> None:
    np.testing.assert_array_equal(changed(7, **SETTINGS), changed(7, **SETTINGS))
    assert not np.allclose(changed(7, **SETTINGS), changed(8, **SETTINGS))


@pytest.mark.parametrize("option", SETTINGS)
def test_every_option_changes_windows_and_not_two_alike(option: str) -> None:
    found = changed(0, **{option: SETTINGS[option]}) - RAW
    assert np.abs(found).max() > 0.01
    assert not np.allclose(found[0], found[1], atol=1e-3)


def test_no_option_is_forgotten_here() -> None:
    assert set(SETTINGS) == {name for name in Augmentation.model_fields if name != "images"}
