"""Timing a call: warm-up, many runs, percentiles."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

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
    times: list[int] = []
    stop = clock() + int(seconds * 1e9)
    while True:
        begin = clock()
        if len(times) >= runs and begin >= stop:
            return Timing(np.array(times, dtype=np.int64), warmup)
        run_once(len(times))
        times.append(clock() - begin)
