"""Pipelines measured on this machine, one after another, each in a worker process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from topokd_bench import device
from topokd_bench.result import BenchResult

TARGET = "local"
PACED_RUNS = 20
"""Calls of the duty-cycled mode, at least: a window may come every second only."""
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
        Seconds after which a worker is stopped, accuracy included; `every` and `sustained` add to it.
    starts
        Fresh processes whose cold start is measured, the one that is timed being the last.
    pin
        Whether to keep a pipeline on as many cores as it has threads.
    every
        Seconds between windows of a duty-cycled mode that is measured too; None: not.
    sustained
        Seconds of a sustained mode that is measured too; None: not.
    """

    seconds: float = 3.0
    runs: int = 50
    warmup: int = 10
    timeout: float = 900.0
    starts: int = 1
    pin: bool = False
    every: float | None = None
    sustained: float | None = None

    def paced(self) -> dict[str, float] | None:
        """Return how the duty-cycled mode is timed: for `seconds`, at least 20 calls; None when not asked."""
        if self.every is None:
            return None
        return {"runs": max(PACED_RUNS, round(self.seconds / self.every)), "every": self.every}

    def allowed(self) -> float:
        """Return the seconds after which a worker is stopped."""
        paced = self.paced()
        waits = 0.0 if paced is None else paced["runs"] * paced["every"]
        return self.timeout + waits + (self.sustained or 0.0)


def run(job: Job, windows: Path, *, threads: int = 1, effort: Effort | None = None) -> Measured:
    """Measure one pipeline in a worker process, back to back only; see `run_modes`."""
    effort = replace(effort or Effort(), every=None, sustained=None)
    return run_modes(job, windows, threads=threads, effort=effort)[0]


def run_modes(job: Job, windows: Path, *, threads: int = 1, effort: Effort | None = None) -> list[Measured]:
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
        How long to measure, and how.

    Returns
    -------
    list of Measured
        Back to back first, then the other modes that were asked for. With `result.error` set, and alone, when
        the worker died, ran out of time or refused; never an exception.
    """
    effort = effort or Effort()
    spec = {
        "factory": job.factory,
        "args": {**job.args, "threads": threads},
        "windows": str(windows),
        "pin": threads if effort.pin else None,
        "cold_only": False,
        "warmup": effort.warmup,
        "runs": effort.runs,
        "seconds": effort.seconds,
        "accuracy_windows": job.accuracy_windows,
        "paced": effort.paced(),
        "sustained": effort.sustained,
    }
    load_before = device.load_average()
    cold = _cold_starts(spec, threads, effort)
    answer = cold if "error" in cold else _ask_worker(spec, threads, effort.allowed())
    predicted = answer.pop("predicted", {"window": [], "correct": []})
    modes = answer.pop("modes", {})
    loads = {"load_before": load_before, "load_after": device.load_average()}
    answer["device"] = _with_busy({**answer.get("device", device.describe()), **loads})
    if cold and answer.get("latency_ms"):
        answer["cold"] = with_own_start(cold, answer["latency_ms"])
    correct = dict(zip(predicted["window"], predicted["correct"], strict=True))
    steady = as_measured(job, answer, TARGET, threads, correct)
    return [steady, *(other_mode(steady.result, mode, fields) for mode, fields in modes.items())]


def _cold_starts(spec: dict[str, Any], threads: int, effort: Effort) -> dict[str, Any]:
    """Start processes for nothing but the first window; {"error": ...} of the first that fails."""
    answers = []
    for _ in range(effort.starts - 1):
        answers.append(_ask_worker({**spec, "cold_only": True}, threads, effort.timeout))
        if "error" in answers[-1]:
            return answers[-1]
    if not answers:
        return {}
    parts = {name: median(answer[name] for answer in answers) for name in ("load_ms", "first_ms", "again_ms")}
    return {"total_ms": [answer["total_ms"] for answer in answers], **parts}


def with_own_start(cold: dict[str, Any], latency_ms: dict[str, float]) -> dict[str, Any]:
    """Return the cold starts with that of the timed process, and make `latency_ms` have their median."""
    totals = [*cold["total_ms"], latency_ms["cold"]]
    latency_ms["cold"] = median(totals)
    return {**cold, "total_ms": totals}


def _with_busy(facts: dict[str, Any]) -> dict[str, Any]:
    return {**facts, "busy": device.is_busy(facts.get("others_share"), facts.get("cpu_share"))}


def other_mode(steady: BenchResult, mode: str, fields: dict[str, Any]) -> Measured:
    """Return the result of another mode.

    Parameters
    ----------
    steady
        The result of the same process, of which all is kept that is not measured anew; without accuracy.
    mode
        See `BenchResult`.
    fields
        `latency_ms` without `cold`, `runs`, `warmup`, `throttled`, `device` and, if sustained, `sustained`.
    """
    cold = (steady.latency_ms or {})["cold"]
    return Measured(
        replace(
            steady,
            mode=mode,
            latency_ms={**fields["latency_ms"], "cold": cold},
            runs=fields["runs"],
            warmup=fields["warmup"],
            throttled=fields["throttled"],
            sustained=fields.get("sustained"),
            device=_with_busy({**steady.device, **fields["device"]}),
            accuracy=None,
            accuracy_ci95=None,
            accuracy_basis="",
            windows=0,
        )
    )


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
    threads: Sequence[int] = (1,),
    effort: Effort | None = None,
    before: Callable[[int, Job], None] = lambda index, job: None,
) -> list[Measured]:
    """Measure pipelines one after another, never two at once; `before` is told what comes next.

    Accuracy, cold starts and other modes are measured with the first number of threads only, and the
    sustained mode of `lasting(jobs)` only: it takes minutes.
    """
    effort = effort or Effort()
    brief = replace(effort, starts=1, every=None, sustained=None)
    measured = []
    for number, count in enumerate(threads):
        for index, job in enumerate(jobs):
            before(number * len(jobs) + index, job)
            own, how = (replace(job, accuracy_windows=0), brief) if number else (job, effort)
            if job.pipeline != lasting(jobs):
                how = replace(how, sustained=None)
            measured += run_modes(own, windows, threads=count, effort=how)
    return measured


def lasting(jobs: Sequence[Job]) -> str:
    """Return the pipeline that is measured for minutes: the int8 student, else the student."""
    names = {job.pipeline for job in jobs}
    return "student.int8" if "student.int8" in names else "student.float32"


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
