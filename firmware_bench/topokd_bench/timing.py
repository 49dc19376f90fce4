"""Timing a call: warm-up, many runs, percentiles; back to back, or with pauses."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

NS_PER_MS = 1e6


@dataclass(frozen=True)
class Timing:
    """Times of single calls.

    Attributes
    ----------
    ns
        int64, shape (runs,): nanoseconds of each call, in the order they were made.
    warmup
        Calls made before, not counted.
    """

    ns: npt.NDArray[np.int64]
    warmup: int

    @property
    def runs(self) -> int:
        """Number of timed calls."""
        return len(self.ns)

    def percentiles_ms(self) -> dict[str, float]:
        """Return `p50`, `p95`, `p99` and `min` in milliseconds.

        Percentiles are nearest-rank: each is a time that one of the calls really took.
        """
        p50, p95, p99 = np.percentile(self.ns, (50, 95, 99), method="inverted_cdf") / NS_PER_MS
        return {
            "p50": float(p50),
            "p95": float(p95),
            "p99": float(p99),
            "min": float(self.ns.min() / NS_PER_MS),
        }

    def drift(self) -> float:
        """Return the median of the last quarter of the calls over that of the first quarter.

        Well above 1 on a device that throttles or a machine that became busy.
        """
        quarter = max(1, self.runs // 4)
        return float(np.median(self.ns[-quarter:]) / max(1.0, float(np.median(self.ns[:quarter]))))

    def first_tenth(self) -> float:
        """Return the median of the first tenth of the calls over that of the others.

        Well above 1 where the calls to warm up were too few.
        """
        tenth = max(1, self.runs // 10)
        others = self.ns[tenth:] if self.runs > tenth else self.ns
        return float(np.median(self.ns[:tenth]) / max(1.0, float(np.median(others))))


def sustained_summary(
    seconds: float, calls: int, medians_ms: Sequence[float], states: Sequence[Mapping[str, float | None]]
) -> dict[str, Any]:
    """Return `BenchResult.sustained`.

    Parameters
    ----------
    seconds
        That it took.
    calls
        All of them.
    medians_ms
        Of equally long slices of the time.
    states
        After each slice: `khz` and `temperature_c`.
    """
    return {
        "minutes": seconds / 60,
        "calls": calls,
        "p50_ms": list(medians_ms),
        "khz": [state.get("khz") for state in states],
        "temperature_c": [state.get("temperature_c") for state in states],
        "first_ms": medians_ms[0],
        "last_ms": medians_ms[-1],
        "drift": medians_ms[-1] / max(1e-9, medians_ms[0]),
    }


def measure(run_once: Callable[[int], object], *, warmup: int, runs: int, seconds: float) -> Timing:
    """Call `run_once` with 0, 1, 2, ... and time each call.

    Parameters
    ----------
    run_once
        The work; its argument counts the calls, so that it can take another window each time.
    warmup
        Calls that are made first and not counted.
    runs
        Calls that are timed at least, however long they take.
    seconds
        Time after which no further call starts once `runs` are done.

    Returns
    -------
    Timing
        At least `runs` times.

    Raises
    ------
    ValueError
        When `runs` is less than one.
    """
    if runs < 1:
        raise ValueError(f"runs: expected at least 1, found {runs}")
    for index in range(warmup):
        run_once(index)
    clock = time.perf_counter_ns
    times = array("q")
    stop = clock() + int(seconds * 1e9)
    while True:
        begin = clock()
        if len(times) >= runs and begin >= stop:
            return Timing(np.array(times, dtype=np.int64), warmup)
        run_once(len(times))
        times.append(clock() - begin)


def measure_paced(run_once: Callable[[int], object], *, runs: int, every: float) -> Timing:
    """Time `runs` calls that begin `every` seconds apart, asleep between them, as an app of a wearable calls.

    A call that takes longer than `every` is followed by the next at once. There is no warm-up: each call
    finds the caches and the clock as the pause has left them.

    Raises
    ------
    ValueError
        When `runs` is less than one.
    """
    if runs < 1:
        raise ValueError(f"runs: expected at least 1, found {runs}")
    clock = time.perf_counter_ns
    times = np.empty(runs, dtype=np.int64)
    due = time.monotonic()
    for index in range(runs):
        due = max(due + every, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))
        begin = clock()
        run_once(index)
        times[index] = clock() - begin
    return Timing(times, 0)
