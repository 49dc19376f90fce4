"""Trainings so small that a test can run them to the end, several times."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from made_recordings import windows_of
from torch import Tensor

from topokd_edge.data.windowset import WindowSet
from topokd_edge.distill.method import Distilling
from topokd_edge.distill.parts import Training
from topokd_edge.distill.tasks import DistillTask, LabelTask
from topokd_edge.distill.teacher import Teacher
from topokd_edge.distill.trainer import Subset
from topokd_edge.models.wrn import WideResNet, WRNSpec

torch.set_num_threads(1)  # the sum of a convolution depends on the number of threads

WINDOWS, CHANNELS, LENGTH, CLASSES = 30, 2, 16, 2
SUBSET = Subset(fit=torch.arange(0, 22), validation=torch.arange(22, WINDOWS))
TRAINING = Training(epochs=3, batch_size=8, learning_rate=0.05)


def network(seed: int = 0, dims: int = 1, classes: int = CLASSES, activation: str = "pre") -> WideResNet:
    """An untrained WRN10-1."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return WideResNet(WRNSpec(dims, 10, 1, CHANNELS, classes, activation=activation))


def problem() -> tuple[Tensor, Tensor, Tensor]:
    """Signals whose class is a slow or a fast wave, an image of each, and the classes."""
    rng = np.random.default_rng(1)
    y = np.arange(WINDOWS) % CLASSES
    phase = rng.uniform(0, 6, (WINDOWS, CHANNELS, 1))
    waves = np.sin(np.arange(LENGTH) * np.where(y == 0, 0.4, 1.6)[:, None, None] + phase)
    x = waves + rng.normal(0, 0.3, waves.shape)
    images = rng.normal(0, 1, (WINDOWS, CHANNELS, 8, 8)) + y[:, None, None, None]
    return (
        torch.from_numpy(x.astype(np.float32)),
        torch.from_numpy(images.astype(np.float16)),
        torch.from_numpy(y),
    )


def label_task() -> LabelTask:
    """A task that learns the classes of `problem` from its signals."""
    x, _, y = problem()
    return LabelTask(network(), x, y)


def outspoken(model: WideResNet) -> WideResNet:
    """The same network with logits twenty times as large, as those of a trained one."""
    with torch.no_grad():
        model.head.weight *= 20
    return model


def distill_task(student: WideResNet | None = None, **settings: Any) -> DistillTask:
    """A task that learns from two teachers with random weights, which answer for the fit windows."""
    x, images, y = problem()
    teachers = {
        "signal": Teacher(outspoken(network(1)), x, SUBSET.fit),
        "topology": Teacher(outspoken(network(2, dims=2)), images, SUBSET.fit),
    }
    return DistillTask(student or network(3), x, y, teachers, Distilling(**settings))


def interrupt_at(call: int) -> Callable[..., None]:
    """A progress callback that is interrupted, as by Ctrl-C, the `call`-th time (from 0) it is told."""
    told = iter(range(10**6))

    def progress(task: str, done: int, total: int, note: str = "") -> None:
        if next(told) == call:
            raise KeyboardInterrupt

    return progress


def waves(
    subjects: int, each: int, change: Callable[[np.ndarray, np.ndarray], None] | None = None
) -> WindowSet:
    """`each` windows of three classes and every subject: waves of three speeds, larger by subject.

    `change` may alter the windows in place, given the subject of each.
    """
    rng = np.random.default_rng(0)
    subject, y = (
        grid.ravel() for grid in np.meshgrid(np.repeat(np.arange(1, subjects + 1), each), np.arange(3))
    )
    n = len(y)
    wave = np.sin(np.arange(32) * (0.3 + 0.4 * y)[:, None] + rng.uniform(0, 6, (n, 1)))
    x = np.stack([wave, 0.5 * wave[:, ::-1] + 3], axis=1) * (1 + 0.1 * subject)[:, None, None]
    x = (x + rng.normal(0, 0.2, x.shape)).astype(np.float32)
    if change is not None:
        change(x, subject)
    names = ("run", "sit", "walk")
    return windows_of(x, y, subject.astype(str), names, rate_hz=20.0, channels=("acc_x", "acc_y"))
