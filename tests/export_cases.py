"""Students and runs that the export tests share: random weights, BatchNorms that folding must respect."""

from __future__ import annotations

import copy
import functools
from pathlib import Path

import numpy as np
import torch
from made_recordings import windows_of

from topokd_edge.distill.checkpoint import save_model
from topokd_edge.files import write_json
from topokd_edge.models.wrn import WideResNet, WRNSpec
from topokd_edge.run import DISTILLED_STUDENT, SIGNAL_TEACHER, TOPOLOGY_TEACHER, Predictions, Run
from topokd_edge.topology.params import fit_params

SPEC = WRNSpec(dims=1, depth=16, width=1, in_channels=3, classes=5)
LENGTH = 50


def random_student(spec: WRNSpec = SPEC, *, seed: int = 0) -> WideResNet:
    """Build a network whose BatchNorms are far from the identity."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = WideResNet(spec)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0, 0.3, generator=generator)
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
    return model.eval()


def noise(n: int, spec: WRNSpec = SPEC, size: tuple[int, ...] = (LENGTH,), seed: int = 0) -> np.ndarray:
    """Asymmetric windows: every channel and every time has another mean."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, spec.in_channels, *size)) + np.linspace(-1, 1, size[-1])
    return (x + np.linspace(0, 1, spec.in_channels).reshape(-1, *[1] * len(size))).astype(np.float32)


def activities(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Normalised windows of five made-up activities, each with its own period, and their classes."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % SPEC.classes
    period, lag = np.array([4.0, 7.0, 12.0, 20.0, 33.0])[y], np.arange(SPEC.in_channels)[:, None]
    phase = np.arange(LENGTH) / period[:, None, None] + rng.uniform(0, 1, (n, 1, 1)) + 0.2 * lag
    x = 1.2 * np.sin(2 * np.pi * phase) + rng.normal(0, 0.3, (n, SPEC.in_channels, LENGTH))
    return x.astype(np.float32), y


def trained_student() -> WideResNet:
    """Train a few seconds, so that logits, margins and int8 errors are like those of a real student."""
    return copy.deepcopy(_trained())


@functools.cache
def _trained() -> WideResNet:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model = random_student().train()
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(30):
        x, y = activities(40, seed=1000 + step)
        loss = torch.nn.functional.cross_entropy(model(torch.from_numpy(x)), torch.from_numpy(y))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    torch.set_num_threads(threads)
    return model.eval()


def torch_logits(model: WideResNet, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model(torch.from_numpy(x)).numpy()


OWN = {"x": ("mV", 100.0, 50.0), "y": ("g", -3.0, 1.0), "z": ("uT", 0.01, 0.002)}
"""Unit, mean and standard deviation of each channel of the student, in its order."""


def make_run(
    folder: Path, *, windows_each: int = 80, channels: tuple[str, ...] = ("x", "y", "z"), spike: float = 0.0
) -> Run:
    """Write a run with one finished fold: three subjects, raw units of very different scale.

    One sample of a fit subject is `spike` standard deviations higher than it was.
    Of the channels, x, y and z are the student's, and what it answers by; others are noise in degC.
    """
    n = 3 * windows_each
    units, mean, std = zip(*(OWN.get(name, ("degC", 20.0, 3.0)) for name in channels), strict=True)
    own, y = activities(n, seed=1)
    own[0, :, 5] += spike
    x = np.random.default_rng(2).normal(size=(n, len(channels), LENGTH))
    x[:, [channels.index(name) for name in OWN]] = own
    windows = windows_of(
        x * np.array(std)[:, None] + np.array(mean)[:, None],
        y,
        np.repeat(["1", "2", "3"], windows_each),
        ("lie", "run", "sit", "stand", "walk"),
        rate_hz=30.5,
        channels=channels,
        units=units,
    )
    windows.save(folder / "windows")
    run = Run(folder / "run")
    run.write("data.json", {**windows.describe(), "path": str(folder / "windows")})
    run.write("folds.json", [{"fold": 1, "test": ["3"], "validation": ["2"], "fit": ["1", "2"]}])
    fold = run.fold_run(1, 0)
    student = dict(
        zip(("mean", "std"), zip(*(scale[1:] for scale in OWN.values()), strict=True), strict=True)
    )
    write_json(
        fold.folder / "preprocessing.json",
        {"signal": {"mean": mean, "std": std}, "student": {"channels": list(OWN), **student}},
    )
    save_model(fold.model_folder(DISTILLED_STUDENT), trained_student(), {})
    index = windows.of_subjects(["3"])
    Predictions(index, windows.y[index], np.zeros((len(index), 5), np.float32)).save(
        fold.predictions_path(DISTILLED_STUDENT)
    )
    return run


def add_teachers(run: Run) -> tuple[WideResNet, WideResNet]:
    """Give the fold of `make_run` teachers with random weights; return those of signal and topology."""
    place, windows = run.fold_run(1, 0), run.windows()
    params = fit_params(windows.x[windows.of_subjects(["1", "2"])], size=(16, 16))
    image = {"mean": [0.1, 0.2, 0.3], "std": [0.2, 0.3, 0.1]}
    write_json(
        place.folder / "preprocessing.json",
        {**place.preprocessing(), "topology": params.to_dict(), "image": image},
    )
    signal = random_student(seed=3)
    topology = random_student(WRNSpec(dims=2, depth=10, width=1, in_channels=3, classes=5), seed=4)
    save_model(place.model_folder(SIGNAL_TEACHER), signal, {"macs": 1})
    save_model(place.model_folder(TOPOLOGY_TEACHER), topology, {"macs": 2})
    return signal, topology
