"""What a bench does on this machine: every pipeline of a bundle and of its run, one after another."""

from __future__ import annotations

import tempfile
from pathlib import Path

from topokd_bench import local

from topokd_edge.cli import _bench_tables
from topokd_edge.cli._bench_int8 import int8_cost
from topokd_edge.cli._bench_outcome import Asked, Outcome
from topokd_edge.cli._bench_plan import find_run, make_plan
from topokd_edge.progress import Progress


def measure(asked: Asked, progress: Progress) -> Outcome:
    """Measure every pipeline on this machine."""
    with tempfile.TemporaryDirectory(prefix="topokd-bench-") as folder:
        work = Path(folder)
        plan = make_plan(asked.bundle, find_run(asked.bundle, asked.run), work, windows=asked.windows)
        plan.held_out.save(work / "windows.npz")
        count = len(plan.jobs)
        measured = local.run_all(
            plan.jobs,
            work / "windows.npz",
            threads=asked.threads,
            effort=local.Effort(seconds=asked.seconds),
            before=lambda index, job: progress("bench", index, count, f"{job.pipeline} on {job.runtime}"),
        )
    progress("bench", count, count)
    outcome = Outcome(
        measured,
        plan.subjects,
        [*plan.notes, *_bench_tables.remarks(measured)],
        cost=int8_cost(measured, plan.held_out.subject),
        hint="topokd-edge doctor lists what is missing",
    )
    outcome.show = lambda: _bench_tables.show(asked.name, outcome, asked.threads)
    return outcome
