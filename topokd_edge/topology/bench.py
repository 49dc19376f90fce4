"""What a persistence image costs: ours beside ripser and persim, one thread, equal images."""

from __future__ import annotations

import time
from dataclasses import dataclass

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
    """One line of the table; times are medians in microseconds per window, one thread, after a warm-up."""

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


def bench_case(x: npt.NDArray[np.float32], *, slow_windows: int = 7, repeats: int = 3) -> Case:
    """Time both backends on the same windows and compare their images.

    Parameters
    ----------
    x
        float32, shape (windows, channels, length).
    slow_windows
        How many of the windows the reference computes, one at a time.
    repeats
        How often the fast backend computes all windows after each of them.
    """
    params = fit_params(x)
    slow_windows = min(slow_windows, len(x))
    fast, _ = persistence_images(x, params, threads=1)
    persistence_images(x[:1], params, backend="reference")
    slow, slow_us, fast_us = [], [], []
    # In turns, so that whatever else the machine does falls on both.
    for i in range(slow_windows):
        start = time.perf_counter_ns()
        slow.append(persistence_images(x[i : i + 1], params, backend="reference")[0])
        slow_us.append((time.perf_counter_ns() - start) / 1000.0)
        for _ in range(repeats):
            start = time.perf_counter_ns()
            persistence_images(x, params, threads=1)
            fast_us.append((time.perf_counter_ns() - start) / 1000.0 / len(x))
    reference = np.concatenate(slow)
    largest = reference.max(axis=(2, 3), keepdims=True)
    difference = np.abs(fast[:slow_windows] - reference) / np.where(largest > 0.0, largest, 1.0)
    pairs = [len(diagram(channel)) for window in x[:slow_windows] for channel in window]
    return Case(
        name=f"{x.shape[1]}x{x.shape[2]}",
        pairs_per_channel=float(np.mean(pairs)),
        fast_us=float(np.median(fast_us)),
        reference_us=float(np.median(slow_us)),
        speedup=float(np.median(slow_us) / np.median(fast_us)),
        max_rel_diff=float(difference.max()),
    )


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
