"""Pipelines measured on this machine, one after another, each in a worker process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from topokd_bench import device
from topokd_bench.result import BenchResult

TARGET = "local"
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


@dataclass(frozen=True)
class Job:
    """One pipeline to measure.

    Attributes
    ----------
    pipeline
        `tda`, `teacher.signal`, `student.float32` or `student.int8`.
    runtime
        What it is expected to run on; the worker says what it did run on.
    factory, args
        See `topokd_bench.pipelines`.
    model_bytes
        Size of the model file.
    macs
        Multiply-accumulates of one window; None when not known.
    accuracy_windows
        Held-out windows to try; None tries all.
    """

    pipeline: str
    runtime: str
    factory: str
    args: Mapping[str, Any]
    model_bytes: int
    macs: int | None = None
    accuracy_windows: int | None = None


@dataclass(frozen=True)
class Measured:
    """A result, and for each held-out window that was tried whether it was classified right."""

    result: BenchResult
    correct: dict[int, bool] = field(default_factory=dict)


@dataclass(frozen=True)
class Effort:
    """How long to measure each pipeline.

    Attributes
    ----------
    seconds
        Time to spend on timed calls.
    runs
        Timed calls at least, whatever `seconds` says.
    warmup
        Calls before.
    timeout
        Seconds after which a worker is stopped, accuracy included.
    """

    seconds: float = 3.0
    runs: int = 50
    warmup: int = 10
    timeout: float = 900.0


def run(job: Job, windows: Path, *, threads: int = 1, effort: Effort | None = None) -> Measured:
    """Measure one pipeline in a worker process.

    Parameters
    ----------
    job
        What to measure.
    windows
        .npz written by `topokd_bench.windows.HeldOut.save`.
    threads
        Threads for the runtime and the numeric libraries.
    effort
        How long to measure.

    Returns
    -------
    Measured
        With `result.error` set when the worker died, ran out of time or refused; never an exception.
    """
    effort = effort or Effort()
    spec = {
        "factory": job.factory,
        "args": {**job.args, "threads": threads},
        "windows": str(windows),
        "warmup": effort.warmup,
        "runs": effort.runs,
        "seconds": effort.seconds,
        "accuracy_windows": job.accuracy_windows,
    }
    load_before = device.load_average()
    answer = _ask_worker(spec, threads, effort.timeout)
    predicted = answer.pop("predicted", {"window": [], "correct": []})
    facts = answer.get("device", device.describe())
    busy = device.is_busy(facts.get("others_share"), facts.get("cpu_share"))
    loads = {"load_before": load_before, "load_after": device.load_average(), "busy": busy}
    answer["device"] = {**facts, **loads}
    correct = dict(zip(predicted["window"], predicted["correct"], strict=True))
    return as_measured(job, answer, TARGET, threads, correct)


def as_measured(
    job: Job, answer: Mapping[str, Any], target: str, threads: int, correct: dict[int, bool] | None = None
) -> Measured:
    """Return the result of a job from what was answered; an answer that makes no sense becomes its error.

    Parameters
    ----------
    job
        What was measured.
    answer
        Fields of `BenchResult` beyond those the job knows.
    target, threads
        Where, and with how many threads.
    correct
        By held-out window, whether it was classified right.
    """
    known = {
        "target": target,
        "basis": "measured",
        "pipeline": job.pipeline,
        "runtime": job.runtime,
        "threads": threads,
        "flash_bytes": job.model_bytes,
        "model_bytes": job.model_bytes,
        "macs": job.macs,
    }
    try:
        return Measured(BenchResult.from_dict({**known, **answer}), correct or {})
    except (TypeError, ValueError) as error:
        return Measured(BenchResult.from_dict({**known, "error": f"the worker answered nonsense ({error})"}))


def run_all(
    jobs: list[Job],
    windows: Path,
    *,
    threads: int = 1,
    effort: Effort | None = None,
    before: Callable[[int, Job], None] = lambda index, job: None,
) -> list[Measured]:
    """Measure pipelines one after another, never two at once; `before` is told what comes next."""
    measured = []
    for index, job in enumerate(jobs):
        before(index, job)
        measured.append(run(job, windows, threads=threads, effort=effort))
    return measured


def _ask_worker(spec: dict[str, Any], threads: int, timeout: float) -> dict[str, Any]:
    """Run a worker; a worker that fails in any way becomes {"error": ...}."""
    environment = {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(threads))}
    command = [sys.executable, "-m", "topokd_bench.worker"]
    try:
        child = subprocess.run(
            command,
            input=json.dumps(spec),
            capture_output=True,
            text=True,
            timeout=timeout,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"no answer within {timeout:g} s, stopped"}
    try:
        answer = json.loads(child.stdout)
    except ValueError:
        last = (child.stderr.strip().splitlines() or ["no message"])[-1]
        return {"error": f"the worker ended with status {child.returncode} ({last})"}
    return answer if isinstance(answer, dict) else {"error": "the worker answered nonsense"}
