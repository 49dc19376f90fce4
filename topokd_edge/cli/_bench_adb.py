"""What a bench does on an Android device behind adb: every pipeline that there is C of."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from topokd_bench.adb import Phone
from topokd_bench.adb_bench import PhoneBench, machine_of
from topokd_bench.local import Job, Measured, lasting
from topokd_bench.windows import HeldOut

from topokd_edge.cli import _bench_tables
from topokd_edge.cli._bench_candidates import c_candidates, c_jobs, elsewhere
from topokd_edge.cli._bench_local import effort_of
from topokd_edge.cli._bench_outcome import Asked, Outcome, tried_on
from topokd_edge.cli._bench_plan import find_run, make_plan
from topokd_edge.errors import DeviceError
from topokd_edge.progress import Progress


def measure(asked: Asked, targets: Sequence[str], progress: Progress) -> Outcome:
    """Return results of every `adb...`; a device that vanishes after something was timed gives what it has.

    Raises
    ------
    MissingError
        When this machine has no adb, or nothing to build the C with.
    DeviceError
        When a device is not there, does not let us in, or vanishes before anything was timed.
    BadInputError
        When the bundle has no int8 TFLite file.
    """
    asked.bundle.model_path("tflite", "int8")
    with tempfile.TemporaryDirectory(prefix="topokd-bench-") as folder:
        run = find_run(asked.bundle, asked.run)
        plan = make_plan(asked.bundle, run, Path(folder), windows=asked.windows)
        jobs, notes = elsewhere(plan)
        found = Outcome(subjects=plan.subjects, notes=notes, hint="see docs/devices/adb.md")
        for target in targets:
            _measure_one(asked, target, c_jobs(jobs), plan.held_out, found, progress)
            if left_out := _left_out(asked):
                found.notes.append(
                    f"{target}: {left_out} not measured: the C program has one thread and no pauses"
                )
    found.notes += [
        f"{target}: {text}"
        for target, items in found.by_target().items()
        for text in _bench_tables.remarks(items)
    ]
    found.show = lambda: _bench_tables.show(asked.name, found, (1,))
    return found


def _measure_one(
    asked: Asked, target: str, jobs: list[Job], held_out: HeldOut, found: Outcome, progress: Progress
) -> None:
    from topokd_export.c.linux import compiler_for

    progress(target, 0, len(jobs), "connecting")
    done: list[str] = []
    with Phone(target) as phone:
        machine = machine_of(phone)
        compiler_for(machine)
        effort = replace(effort_of(asked), pin=False, every=None)
        bench = PhoneBench(phone, held_out, asked.bundle.digest, effort=effort, windows=asked.windows)
        model = phone.properties.get("ro.product.model", phone.serial)
        for index, job in enumerate(jobs):
            progress(target, index, len(jobs), f"{job.pipeline} on {model}")
            try:
                results, ended = _measured(asked, bench, job, machine, held_out, lasting(jobs))
            except DeviceError as error:
                if not done:
                    raise
                results, ended = [], error
            found.measured += results
            done += [job.pipeline] if results else []
            if ended is not None:
                rest = [other.pipeline for other in jobs if other.pipeline not in done]
                found.cut_short(target, ended, rest)
                break
    found.notes += tried_on(target, found.by_target()[target], len(bench.chosen), held_out)
    progress(target, len(jobs), len(jobs))


def _measured(
    asked: Asked, bench: PhoneBench, job: Job, machine: str, held_out: HeldOut, longest: str
) -> tuple[list[Measured], DeviceError | None]:
    """Build and measure a pipeline; one that cannot be built is a result with an error."""
    why: list[str] = []
    for candidate in c_candidates(asked.bundle, [job], held_out, machine, why):
        return bench.measure(candidate, lasting=job.pipeline == longest)
    return [bench.failed(job, "; ".join(why))], None


def _left_out(asked: Asked) -> str:
    """Return the options that were given and do not apply."""
    given = {"--every": asked.every is not None, "--pin": asked.pin, "--threads": asked.threads != (1,)}
    return ", ".join(name for name, is_given in given.items() if is_given)
