"""What a bench does on this machine: every pipeline of a bundle and of its run, one after another."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from topokd_bench import local

from topokd_edge.cli import _bench_tables
from topokd_edge.cli._bench_int8 import int8_cost
from topokd_edge.cli._bench_outcome import Asked, Outcome
from topokd_edge.cli._bench_plan import find_run, make_plan
from topokd_edge.errors import UsageError
from topokd_edge.progress import Progress

STARTS = 3
"""Fresh processes whose cold start is measured; the median counts."""


def measure(asked: Asked, progress: Progress) -> Outcome:
    """Measure every pipeline on this machine."""
    with tempfile.TemporaryDirectory(prefix="topokd-bench-") as folder:
        work = Path(folder)
        plan = make_plan(asked.bundle, find_run(asked.bundle, asked.run), work, windows=asked.windows)
        plan.held_out.save(work / "windows.npz")
        count = len(plan.jobs) * len(asked.threads)
        measured = local.run_all(
            plan.jobs,
            work / "windows.npz",
            threads=asked.threads,
            effort=effort_of(asked),
            before=lambda index, job: progress("bench", index, count, f"{job.pipeline} on {job.runtime}"),
        )
    progress("bench", count, count)
    unpinned = asked.pin and all(item.result.device.get("pinned_cores") is None for item in measured)
    outcome = Outcome(
        measured,
        plan.subjects,
        [
            *plan.notes,
            *_bench_tables.remarks(measured),
            *(["--pin: this system cannot keep a process on a core"] if unpinned else []),
        ],
        cost=int8_cost(measured, plan.held_out.subject),
        hint="topokd-edge doctor lists what is missing",
    )
    outcome.show = lambda: _bench_tables.show(asked.name, outcome, asked.threads)
    return outcome


def effort_of(asked: Asked) -> local.Effort:
    """Return how long and how to measure on a machine that runs processes."""
    return local.Effort(
        seconds=asked.seconds,
        starts=STARTS,
        pin=asked.pin,
        every=asked.every,
        sustained=None if asked.sustained is None else 60 * asked.sustained,
    )


def thread_counts(text: str) -> tuple[int, ...]:
    """Read `--threads`: one number, or several with commas.

    Raises
    ------
    UsageError
        When it is anything else, or names a number twice.
    """
    words = [word.strip() for word in text.split(",")]
    counts = tuple(int(word) for word in words if word.isascii() and word.isdigit() and len(word) < 5)
    if len(counts) != len(words) or min(counts) < 1 or len(set(counts)) != len(counts):
        raise UsageError(f"--threads {text}: expected a number, or different ones as 1,2,4")
    return counts


def refuse_threads(counts: Sequence[int], cores: int, where: str) -> None:
    """Raise UsageError for more threads than there are cores: they would time the scheduler."""
    if max(counts) > cores:
        raise UsageError(
            f"--threads {max(counts)}: {where} has {cores} core(s) to use",
            hint=f"ask for at most {cores}",
        )
