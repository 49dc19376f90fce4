"""Float pipelines as WebAssembly in a browser: what the page is given, and what its answers become."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from topokd_bench.browser import TARGET
from topokd_bench.browser.post import BuildRun, Post
from topokd_bench.local import Job, Measured
from topokd_bench.remote import Proof
from topokd_bench.result import BenchResult
from topokd_bench.windows import HeldOut

from topokd_edge.bundle import Bundle
from topokd_edge.cli._bench_browser_engines import why_wrong
from topokd_edge.cli._bench_browser_results import timed_fields
from topokd_edge.cli._bench_candidates import VECTORS, c_jobs, elsewhere, float_pipeline, float_proof
from topokd_edge.cli._bench_plan import (
    REFERENCE_WINDOWS,
    BenchPlan,
    make_plan,
    self_test_windows,
    student_channels,
)
from topokd_edge.errors import MissingError, TopokdError, UsageError
from topokd_edge.progress import Progress
from topokd_edge.run import Run

SCRIPT = "pipeline.js"
RUNTIME = "wasm"
EVERY_CHANNEL = "windows-all.f32"
"""Held-out windows with the channels that the student does not take."""


@dataclass(frozen=True)
class FloatRun:
    """One float pipeline.

    Attributes
    ----------
    job
        The same on this machine.
    modules
        The WebAssembly by build.
    proof
        Raw windows, float32 (n, length, channels), and what it must answer to them.
    as_student
        Whether it takes the channels of the student; else those of the run.
    """

    job: Job
    modules: Mapping[str, bytes]
    proof: Proof
    as_student: bool

    @property
    def name(self) -> str:
        """As the page posts it."""
        return self.job.pipeline

    def module(self, build: str) -> str:
        """Return the name of a module as it is served."""
        return f"{self.name}.{build}.wasm"


@dataclass(frozen=True)
class FloatPlan:
    """The float pipelines that run beside the int8 student; nothing without the run of the bundle.

    Attributes
    ----------
    runs
        The slowest first.
    held_out
        Windows the page classifies, of all channels; None for none.
    notes
        What was left out and why.
    """

    runs: tuple[FloatRun, ...] = ()
    held_out: HeldOut | None = None
    notes: tuple[str, ...] = ()

    @property
    def tried(self) -> int:
        """Number of windows that each pipeline classifies, evenly spread."""
        return 0 if self.held_out is None else min(REFERENCE_WINDOWS, len(self.held_out.x))

    @property
    def wanted(self) -> dict[str, tuple[int, int]]:
        """Names, and of each the windows it is proven on and those it classifies."""
        return {run.name: (len(run.proof.x), self.tried) for run in self.runs}


def plan(
    bundle: Bundle, run: Run | None, windows: int | None, progress: Progress, *, sure: bool = True
) -> FloatPlan:
    """Build the teachers of a run and the float student, where there is a run and a compiler.

    Parameters
    ----------
    bundle, run
        The student, and the run it came from.
    windows
        Held-out windows that the page is given; None for none, and then no recording but the self-test of the
        bundle goes out.
    progress
        Told of each pipeline.
    sure
        Whether the user named the run; one that was found by itself may be of no use.

    Raises
    ------
    BadInputError
        When a run that was named is not the one the bundle was exported from.
    """
    if run is None:
        return FloatPlan()
    try:
        return _built(bundle, run, windows, progress)
    except TopokdError as error:
        if sure and not isinstance(error, MissingError):
            raise
        return FloatPlan(notes=(f"float pipelines were left out: {error.message}",))


def _built(bundle: Bundle, run: Run, windows: int | None, progress: Progress) -> FloatPlan:
    from topokd_export.wasm.build import refuse_without_compiler

    refuse_without_compiler()
    with TemporaryDirectory(prefix="topokd-bench-") as folder:
        every = make_plan(bundle, run, Path(folder))
        held_out = None if windows is None else every.held_out.some(windows)
        jobs, notes = elsewhere(every)
        notes = [note for note in notes if not note.startswith("tried on")]
        alike = student_channels(bundle, run) is None
        runs = []
        for job in c_jobs(jobs):
            if job.pipeline == "student.int8":
                continue
            progress(TARGET, 0, 2, f"building {job.pipeline} as WebAssembly")
            try:
                as_student = alike or job.pipeline.startswith("student.")
                runs.append(_run(bundle, job, every, held_out, as_student=as_student))
            except TopokdError as error:
                notes.append(f"{job.pipeline} was left out: {error.message}")
    return FloatPlan(tuple(runs), held_out, tuple(notes))


def _run(
    bundle: Bundle, job: Job, every: BenchPlan, held_out: HeldOut | None, *, as_student: bool
) -> FloatRun:
    from topokd_export.wasm.build import CPUS, build_pipeline

    if as_student:
        raw = self_test_windows(bundle).x
        job = replace(job, args={name: arg for name, arg in job.args.items() if name != "channels"})
    elif held_out is not None:
        raw = held_out.x[held_out.spread(VECTORS)]
    else:
        raise UsageError("it takes channels that the self-test has not; say --windows to give held-out ones")
    pipeline = float_pipeline(job, every.held_out.x.shape[2])
    proof = float_proof(job, np.asarray(raw), range(raw.shape[1]))
    return FloatRun(job, {build: build_pipeline(pipeline, build) for build in CPUS}, proof, as_student)


def scripts(asked: FloatPlan) -> list[str]:
    """Return the files of the page itself that drive the pipelines."""
    return [SCRIPT] if asked.runs else []


def contents(asked: FloatPlan) -> dict[str, bytes]:
    """Return what the page is given, by name; beside its own script."""
    given: dict[str, bytes] = {}
    for run in asked.runs:
        given |= {run.module(build): content for build, content in run.modules.items()}
        given[f"{run.name}.f32"] = np.ascontiguousarray(run.proof.x, dtype="<f4").tobytes()
    if asked.held_out is not None and not all(run.as_student for run in asked.runs):
        given[EVERY_CHANNEL] = np.moveaxis(asked.held_out.x, 1, 2).astype("<f4").tobytes()
    return given


def config(asked: FloatPlan) -> list[dict[str, Any]]:
    """Return what the page must know of each pipeline."""
    from topokd_export.wasm.writer import integrity

    return [
        {
            "build": run.name,
            "kernels": {
                build: {"file": run.module(build), "hash": integrity(content)}
                for build, content in run.modules.items()
            },
            "vectors": f"{run.name}.f32",
            "size": int(np.prod(run.proof.x.shape[1:])),
            "file": "windows.f32" if run.as_student else EVERY_CHANNEL,
            "windows": asked.tried,
            "proof": {
                "expected": run.proof.expected.tolist(),
                "tolerance": run.proof.tolerance,
                "agreement": run.proof.agreement,
            },
        }
        for run in asked.runs
    ]


def float_results(bundle: Bundle, post: Post, asked: FloatPlan) -> list[Measured]:
    """Return a result for each pipeline: with figures when its answers are right, else with why not."""
    done = {one.build: one for one in post.builds}
    build = "simd" if "simd" in done else "scalar"
    held_out = None if asked.held_out is None else asked.held_out.some(asked.tried)
    return [_measured(bundle, post.facts, run, done[run.name], build, held_out) for run in asked.runs]


def _measured(
    bundle: Bundle,
    facts: Mapping[str, Any],
    run: FloatRun,
    done: BuildRun,
    build: str,
    held_out: HeldOut | None,
) -> Measured:
    error = done.error or why_wrong(run.proof, done)
    own: dict[str, Any] = {"device": dict(facts)} if error else timed_fields(bundle, facts, done, held_out)
    size = len(run.modules[build])
    result = BenchResult(
        target=TARGET,
        basis="measured",
        pipeline=run.name,
        runtime=RUNTIME,
        flash_bytes=size,
        model_bytes=size,
        macs=run.job.macs,
        kernel=f"wasm {build}",
        error=error,
        **own,
    )
    return Measured(result)
