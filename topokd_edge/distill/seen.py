"""What networks see while they learn: windows augmented, images of them redrawn, the student's channels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from topokd_edge.bundle import Normalisation
from topokd_edge.data.sensors import Sensor
from topokd_edge.distill.augment import Augment
from topokd_edge.distill.inputs import Inputs
from topokd_edge.distill.parts import Augmentation, Training
from topokd_edge.topology.image import persistence_images
from topokd_edge.topology.params import ImageParams

Shown = Callable[[Tensor, np.random.Generator], Tensor]
"""What a network learns from, of a batch of window indices and a source of randomness."""


@dataclass(frozen=True)
class Redraw:
    """Makes the images of windows that are on no disk, as those of the set were made.

    Attributes
    ----------
    params
        Of the images.
    signal, image
        What windows and images are standardised by.
    """

    params: ImageParams
    signal: Normalisation
    image: Normalisation

    def __call__(self, x: Tensor) -> Tensor:
        """Return standardised images, float32 (B, channels, rows, columns), of standardised windows x."""
        mean, std = (
            np.array(part, np.float32)[:, np.newaxis] for part in (self.signal.mean, self.signal.std)
        )
        images, _ = persistence_images(x.cpu().numpy() * std + mean, self.params)
        mean, std = (np.array(part, np.float32)[:, None, None] for part in (self.image.mean, self.image.std))
        return torch.from_numpy((images - mean) / std).to(x.device)


@dataclass(frozen=True)
class Seen:
    """What the networks of a step are shown, all of the same virtual windows.

    Attributes
    ----------
    signals
        All channels of every window of the set.
    augment
        None shows the windows as they are.
    redraw
        Makes images of augmented windows; None where there are no images.
    ask_clean
        Whether the student's topology teacher is shown the images of the windows as they were.
    channels
        Indices of those that the student has; None is all.
    """

    signals: Inputs
    augment: Augment | None = None
    redraw: Redraw | None = None
    ask_clean: bool = True
    channels: list[int] | None = None

    def under(self, training: Training) -> Seen:
        """Return what a network is shown that is trained so: nothing augmented if it declines that."""
        return self if training.augment else replace(self, augment=None)

    def windows(self, batch: Tensor, rng: np.random.Generator) -> Tensor:
        """Return the windows of a batch of indices, float32 (B, channels, length), changed by fresh draws."""
        x = self.signals[batch].float()
        return x if self.augment is None else self.augment(x, rng)

    def by_student(self, windows: Tensor) -> Tensor:
        """Return what the student sees of windows (B, channels, length)."""
        return windows if self.channels is None else windows[:, self.channels]

    def to_signal_teacher(self) -> Shown | None:
        """Return what a network of all channels learns from; None where that is the windows as they are."""
        return None if self.augment is None else self.windows

    def to_topology_teacher(self) -> Shown | None:
        """Return the images that a network learns from; None where that is those of the set."""
        if self.augment is None or self.redraw is None:
            return None
        redraw = self.redraw
        return lambda batch, rng: redraw(self.windows(batch, rng))

    def to_student(self) -> Shown | None:
        """Return what a student learns from without teachers; None where that is its windows as they are."""
        if self.augment is None:
            return None
        return lambda batch, rng: self.by_student(self.windows(batch, rng))

    def images(self, windows: Tensor) -> Tensor | None:
        """Return the images of changed windows; None where those of the set are to be shown."""
        if self.augment is None or self.redraw is None or self.ask_clean:
            return None
        return self.redraw(windows)


def seen_in(
    settings: Augmentation, signals: Inputs, made: Mapping[str, Any], channels: Sequence[str]
) -> Seen:
    """Return what networks of a fold are shown.

    Parameters
    ----------
    settings
        How windows are augmented.
    signals
        All channels of every window of the set, standardised.
    made
        `preprocessing.json` of the fold, see `topokd_edge.run.FoldRun.preprocessing`.
    channels
        Names of the set's channels.
    """
    scale = Normalisation(**made["signal"])
    augment = redraw = None
    own = [channels.index(name) for name in made["student"]["channels"]]
    if settings.changes():
        augment = Augment(settings, tuple(Sensor(**item) for item in made["sensors"]), scale, tuple(own))
    if settings.changes() and "image" in made:
        redraw = Redraw(ImageParams.from_dict(made["topology"]), scale, Normalisation(**made["image"]))
    theirs = None if own == list(range(len(channels))) else own
    return Seen(signals, augment, redraw, settings.images == "clean", theirs)
