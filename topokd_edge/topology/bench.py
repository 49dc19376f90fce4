"""What a persistence image costs: ours beside ripser and persim, one thread, equal images."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from topokd_edge.progress import Progress, silent
from topokd_edge.topology.image import persistence_images
from topokd_edge.topology.params import fit_params
from topokd_edge.topology.sublevel import diagram

SHAPES = ((3, 500, 100.0), (18, 125, 25.0), (40, 100, 100.0 / 3.0))
"""Channels, samples, rate in Hz: a wrist accelerometer, three inertial units, PAMAP2 as published."""


@dataclass(frozen=True)
class Case:
    """One line of the table; times are medians of CPU time in microseconds per window, one thread, warm."""

    name: str
    pairs_per_channel: float
    fast_us: float
    reference_us: float
    speedup: float
    max_rel_diff: float
    threads: int = 1


def synthetic_windows(
    windows: int, channels: int, length: int, rate_hz: float, *, seed: int = 0
) -> npt.NDArray[np.float32]:
    """Return movement-like windows: a 2 Hz swing with a harmonic, noise, and the steps of a 12-bit sensor.

    Returns
    -------
    ndarray
        float32, shape (windows, channels, length), about -2 to 2.
    """
    rng = np.random.default_rng(seed)
    t = np.arange(length) / rate_hz
    phase = rng.uniform(0.0, 2.0 * np.pi, (2, windows, channels, 1))
    swing = np.sin(2.0 * np.pi * 2.0 * t + phase[0]) + 0.3 * np.sin(2.0 * np.pi * 6.0 * t + phase[1])
    noisy = swing + 0.1 * rng.standard_normal(swing.shape)
    stepped: npt.NDArray[np.float32] = (np.round(noisy * 512.0) / 512.0).astype(np.float32)
    return stepped


def bench_case(
    x: npt.NDArray[np.float32], *, name: str = "", turns: int = 7, repeats: int = 3, **options: Any
) -> Case:
    """Time both backends on the same windows and compare their images.

    Parameters
    ----------
    x
        float32, shape (windows, channels, length).
    name
        Of the case; by default channels x samples.
    turns
        How many of the windows the reference computes, one at a time.
    repeats
        How often the fast backend computes all windows after each of them.
    options
        Of `fit_params`.
    """
    params = fit_params(x, **options)
    turns = min(turns, len(x))
    slow: dict[int, npt.NDArray[np.float32]] = {}

    def reference(turn: int) -> None:
        slow[turn] = persistence_images(x[turn : turn + 1], params, backend="reference")[0]

    def fast(turn: int) -> npt.NDArray[np.float32]:
        return persistence_images(x, params, threads=1)[0]

    images = fast(0)
    reference_us, *fast_us = in_turns(turns, reference, *[fast] * repeats)
    own_us = float(np.median(fast_us)) / len(x)
    expected = np.concatenate([slow[turn] for turn in range(turns)])
    largest = expected.max(axis=(2, 3), keepdims=True)
    difference = np.abs(images[:turns] - expected) / np.where(largest > 0.0, largest, 1.0)
    pairs = [len(diagram(channel)) for window in x[:turns] for channel in window]
    return Case(
        name=name or f"{x.shape[1]}x{x.shape[2]}",
        pairs_per_channel=float(np.mean(pairs)),
        fast_us=own_us,
        reference_us=reference_us,
        speedup=reference_us / own_us,
        max_rel_diff=float(difference.max()),
    )


def in_turns(turns: int, *functions: Callable[[int], object]) -> list[float]:
    """Return the median microseconds of each function over turns 0, 1, ..., after a warm-up.

    It is CPU time of this thread, and every turn calls them all: what else the machine does falls on each.
    """
    for function in functions:
        function(0)
    times = np.empty((turns, len(functions)))
    for turn in range(turns):
        for number, function in enumerate(functions):
            start = time.thread_time_ns()
            function(turn)
            times[turn, number] = (time.thread_time_ns() - start) / 1000.0
    medians: list[float] = np.median(times, axis=0).tolist()
    return medians


def bench(*, progress: Progress = silent) -> list[Case]:
    """Run every case of `SHAPES` on synthetic windows."""
    cases = []
    for done, (channels, length, rate_hz) in enumerate(SHAPES):
        cases.append(bench_case(synthetic_windows(32, channels, length, rate_hz)))
        progress("topology bench", done + 1, len(SHAPES), cases[-1].name)
    return cases


def table_rows(cases: list[Case]) -> tuple[list[str], list[list[str]]]:
    """Return column titles and rows of the table that a person reads."""
    columns = [
        "channels x samples",
        "pairs per channel",
        "fast us",
        "reference us",
        "speed-up",
        "largest difference",
    ]
    rows = [
        [
            case.name,
            f"{case.pairs_per_channel:.1f}",
            f"{case.fast_us:.0f}",
            f"{case.reference_us:.0f}",
            f"{case.speedup:.0f}x",
            f"{case.max_rel_diff:.1e}",
        ]
        for case in cases
    ]
    return columns, rows
