"""Virtual wearers: windows as a turned strap, a sensor of another gain or a later start would give them.

Um et al., "Data Augmentation of Wearable Sensor Data for Parkinson's Disease Monitoring using Convolutional
Neural Networks" (arXiv 1706.00527) compare such changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from topokd_edge.bundle import Normalisation
from topokd_edge.data.sensors import Sensor
from topokd_edge.distill.parts import Augmentation

_GAINLESS = ("degC", "bpm")
"""Units whose zero is no signal's absence, or that no gain belongs to: not scaled."""

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Augment:
    """Changes batches of standardised windows as if the sensors had been worn or made a little differently.

    Sensors are turned and scaled in their own units: a change of the raw channels by a matrix is a change of
    the standardised ones by another, so nothing is scaled back and forth.

    Attributes
    ----------
    settings
        How much of what.
    sensors
        Of the channels, see `topokd_edge.data.sensors.sensors`.
    scale
        What the windows were standardised by.
    student
        Indices of the student's channels: a window never loses all of them. Empty is all.
    """

    settings: Augmentation
    sensors: tuple[Sensor, ...]
    scale: Normalisation
    student: tuple[int, ...] = ()

    def __call__(self, x: Tensor, rng: np.random.Generator) -> Tensor:
        """Return the windows changed, each by a draw of its own, on their device.

        Parameters
        ----------
        x
            float32, shape (B, channels, length), standardised.
        rng
            Source of randomness; untouched when nothing is to be changed.
        """
        batch, _, length = x.shape
        if furthest := round(self.settings.shift * length):
            x = shifted(x, rng.integers(-furthest, furthest, batch, endpoint=True))
        if self.settings.rotation or self.settings.scale or self.settings.drop:
            turns = _rotations(self.settings.rotation, batch, len(self._places()), rng)
            gains = np.exp(self.settings.scale * rng.standard_normal((batch, len(self.sensors))))
            kept = _kept(self.settings.drop, batch, self._of_student(), rng)
            matrix, offset = self.mixing(turns, gains, kept)
            x = torch.baddbmm(_on(offset[:, :, np.newaxis], x), _on(matrix, x), x)
        if self.settings.jitter:
            x = x + self.settings.jitter * _on(rng.standard_normal(x.shape, dtype=np.float32), x)
        return x

    def mixing(self, turns: Numbers, gains: Numbers, kept: npt.NDArray[np.bool_]) -> tuple[Numbers, Numbers]:
        """Return matrix and offset that do to standardised channels what is done to the raw ones.

        With raw r = std x + mean, the raw change r' = A r is x' = (A' x) + (A mean - mean) / std,
        where A'[i, j] = A[i, j] std[j] / std[i].

        Parameters
        ----------
        turns
            Rotation of each place, shape (B, places, 3, 3).
        gains
            Factor of each sensor, shape (B, sensors).
        kept
            False where a sensor is lost and reads its mean, shape (B, sensors).

        Returns
        -------
        ndarray, ndarray
            Shapes (B, channels, channels) and (B, channels).
        """
        mean, std = np.array(self.scale.mean), np.array(self.scale.std)
        places = self._places()
        matrix = np.zeros((len(gains), len(mean), len(mean)))
        present = np.zeros((len(gains), len(mean)))
        for index, sensor in enumerate(self.sensors):
            rows = np.array(sensor.channels)
            gain = np.ones(len(gains)) if sensor.unit in _GAINLESS else gains[:, index]
            turn = turns[:, places.index(sensor.place)] if len(rows) == 3 else np.ones((len(gains), 1, 1))
            matrix[:, rows[:, np.newaxis], rows] = gain[:, np.newaxis, np.newaxis] * turn
            present[:, rows] = kept[:, index, np.newaxis]
        offset = (matrix @ mean - mean) / std
        matrix *= std / std[:, np.newaxis]
        return matrix * present[:, :, np.newaxis], offset * present

    def _of_student(self) -> npt.NDArray[np.bool_]:
        """Return which sensors the student has at least one channel of, shape (sensors,)."""
        own = set(self.student)
        return np.array([not own or bool(own & {*sensor.channels}) for sensor in self.sensors])

    def _places(self) -> list[str]:
        """Return the places of three-axis sensors, each once."""
        return list(dict.fromkeys(sensor.place for sensor in self.sensors if len(sensor.channels) == 3))


def shifted(x: Tensor, by: npt.NDArray[np.int64]) -> Tensor:
    """Return windows that start later (or, negative, earlier) by so many samples.

    What the window does not hold is its own mirror image at the edge: no jump, which a circular shift has,
    and no still stretch, which the repeated edge has.

    Parameters
    ----------
    x
        Shape (B, channels, length).
    by
        Shape (B,), each below the length; all channels of a window are shifted alike.
    """
    last = x.shape[2] - 1
    at = np.abs(np.arange(last + 1) + by[:, np.newaxis])
    at = last - np.abs(last - at)
    return x.gather(2, torch.from_numpy(at).to(x.device)[:, None].expand(x.shape))


def _rotations(spread: float, batch: int, places: int, rng: np.random.Generator) -> Numbers:
    """Draw rotations about an axis of any direction by an angle of N(0, spread), shape (B, places, 3, 3)."""
    axis = rng.standard_normal((batch, places, 3))
    axis /= np.linalg.norm(axis, axis=-1, keepdims=True)
    angle = spread * rng.standard_normal((batch, places, 1, 1))
    cross = np.zeros((batch, places, 3, 3))
    for row, column, part in ((2, 1, 0), (0, 2, 1), (1, 0, 2)):
        cross[..., row, column], cross[..., column, row] = axis[..., part], -axis[..., part]
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)


def _kept(
    drop: float, batch: int, needed: npt.NDArray[np.bool_], rng: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """Draw which sensors are not lost, shape (B, sensors); who would lose all that are needed keeps those."""
    kept = rng.random((batch, len(needed))) >= drop
    without = ~(kept & needed).any(axis=1)
    kept[without] |= needed
    return kept


def _on(numbers: npt.NDArray[np.floating[Any]], x: Tensor) -> Tensor:
    return torch.from_numpy(numbers).to(x.device, x.dtype)
