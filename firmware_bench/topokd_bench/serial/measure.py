"""Timing a pipeline on a board, and what came of it as a result of the usual schema."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from topokd_bench.result import BenchResult
from topokd_bench.serial.board import Board, Hello
from topokd_bench.timing import NS_PER_MS, Timing
from topokd_bench.types import Array

WARMUP = 2
RUNS = 20
TIMED_WINDOWS = 4
"""Each is sent once and run many times: the wire is slow, and no window takes much longer than another."""


@dataclass
class Seen:
    """What was seen of a board so far; a board that vanishes leaves the rest empty.

    Attributes
    ----------
    hello
        What it says of itself.
    cold_ns
        Nanoseconds of the first window of the session.
    vectors
        Windows proven, every layer of each.
    ticks_hz
        Rate of its counter by this machine's clock.
    ns
        Nanoseconds of each timed run.
    stack_bytes
        The deepest the stack has been.
    accuracy
        Fields of `BenchResult` on held-out windows.
    """

    hello: Hello
    cold_ns: int = 0
    vectors: int = 0
    ticks_hz: float = 0.0
    ns: list[int] = field(default_factory=list)
    stack_bytes: int | None = None
    accuracy: dict[str, Any] = field(default_factory=dict)


def time_windows(board: Board, windows: Sequence[Array], seconds: float, seen: Seen) -> None:
    """Run windows again and again on the board, and add the times to `seen.ns`.

    Parameters
    ----------
    board
        A board that was greeted and has proven itself.
    windows
        Raw windows, float32 (length, channels) each.
    seconds
        Time to spend in all; each window is run several times whatever it says.
    seen
        Takes the times as they come.

    Raises
    ------
    DeviceError
        When the board vanishes or answers nonsense.
    """
    each = -(-RUNS // len(windows))
    for index, window in enumerate(windows):
        board.load(window)
        for _ in range(WARMUP if index == 0 else 0):
            board.run()
        end = time.monotonic() + seconds / len(windows)
        runs = 0
        while runs < each or time.monotonic() < end:
            seen.ns.append(board.run().ns)
            runs += 1


def as_result(target: str, seen: Seen, known: Mapping[str, Any], facts: Mapping[str, Any]) -> BenchResult:
    """Return the result of a board.

    Parameters
    ----------
    target
        As `--on` named it.
    seen
        With at least one timed run.
    known
        More fields of `BenchResult`.
    facts
        More of the device.
    """
    hello, about = seen.hello, seen.hello.about
    timing = Timing(np.array(seen.ns, dtype=np.int64), WARMUP)
    latency = {**timing.percentiles_ms(), "cold": seen.cold_ns / NS_PER_MS}
    cycles = latency["p50"] / 1e3 * hello.clock_hz
    return BenchResult(
        target=target,
        basis="measured",
        pipeline=hello.pipeline,
        runtime="c",
        latency_ms=latency,
        runs=timing.runs,
        warmup=timing.warmup,
        ram_bytes=hello.pipeline_bytes + (seen.stack_bytes or 0),
        flash_bytes=hello.image_bytes,
        cycles=round(cycles) if hello.ticks_hz == hello.clock_hz else None,
        kernel=about.get("kernel", ""),
        compiler=about.get("compiler", ""),
        flags=about.get("flags", ""),
        stack_bytes=seen.stack_bytes,
        device={
            "name": about.get("board", ""),
            "core": about.get("core", ""),
            "code_in": about.get("code", ""),
            "clock_mhz": hello.clock_hz / 1e6,
            "ticks_hz": hello.ticks_hz,
            "ticks_hz_seen": seen.ticks_hz,
            "latency_drift": timing.drift(),
            **facts,
        },
        **known,
        **seen.accuracy,
    )
