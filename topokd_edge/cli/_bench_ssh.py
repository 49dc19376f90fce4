"""What a bench does on a device behind SSH: every model in the first of its runtimes that works."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from topokd_bench.local import Job, Measured, lasting
from topokd_bench.pipelines import TDA
from topokd_bench.remote import Bench
from topokd_bench.ssh import Agent, parse_address
from topokd_bench.windows import HeldOut

from topokd_edge.cli import _bench_tables
from topokd_edge.cli._bench_candidates import candidates, elsewhere
from topokd_edge.cli._bench_local import effort_of, refuse_threads
from topokd_edge.cli._bench_outcome import Asked, Outcome, tried_on
from topokd_edge.cli._bench_plan import BenchPlan, find_run, make_plan
from topokd_edge.errors import DeviceError
from topokd_edge.progress import Progress


def measure(asked: Asked, targets: Sequence[str], progress: Progress) -> Outcome:
    """Return results of every `ssh://...`; a device that vanishes gives part of them.

    Raises
    ------
    DeviceError
        When a device cannot be reached or cannot take the agent.
    MissingError
        When this machine has no ssh.
    """
    found = Outcome(
        hint="install a runtime there (pip install ai-edge-litert), "
        "or here what builds the C: pip install 'topokd-edge[c]'"
    )
    with tempfile.TemporaryDirectory(prefix="topokd-bench-") as folder:
        bundle, run = asked.bundle, find_run(asked.bundle, asked.run)
        plan = make_plan(bundle, run, Path(folder), windows=asked.windows)
        jobs, notes = elsewhere(plan)
        found.subjects = plan.subjects
        found.notes += notes
        for target in targets:
            _measure_one(asked, target, plan, jobs, found, progress)
    found.notes += _remarks(found)
    found.show = lambda: _bench_tables.show(asked.name, found, asked.threads)
    return found


def _remarks(found: Outcome) -> list[str]:
    """Return what there is to remark on the results of each device, and on its power supply."""
    each = found.by_target().items()
    remarks = [f"{target}: {text}" for target, items in each for text in _bench_tables.remarks(items)]
    weak = [item.result.target for item in found.measured if item.result.device.get("under_voltage")]
    return remarks + [
        f"{target}: the supply voltage was too low since boot; a Raspberry Pi then runs slower"
        for target in dict.fromkeys(weak)
    ]


def _measure_one(
    asked: Asked,
    target: str,
    plan: BenchPlan,
    jobs: list[Job],
    found: Outcome,
    progress: Progress,
) -> None:
    pipelines = list(dict.fromkeys(job.pipeline for job in jobs))
    progress(target, 0, len(pipelines), "connecting")
    done: set[str] = set()
    try:
        with Agent(parse_address(target)) as agent:
            refuse_threads(asked.threads, int(agent.facts.get("usable_cores") or 1), target)
            bench = Bench(
                agent,
                plan.held_out,
                asked.bundle.digest,
                threads=asked.threads,
                effort=effort_of(asked),
                windows=asked.windows,
            )
            for index, pipeline in enumerate(pipelines):
                progress(target, index, len(pipelines), pipeline)
                machine = str(agent.facts.get("machine"))
                results, notes = _first_that_works(asked, bench, plan, jobs, pipeline, machine)
                found.measured += results
                found.notes += [f"{target}: {pipeline}: {note}" for note in notes]
                done.add(pipeline)
            found.notes += _about(target, found.by_target()[target], bench, plan.held_out, agent.facts)
    except DeviceError as error:
        if not done:
            raise
        rest = [pipeline for pipeline in pipelines if pipeline not in done]
        found.cut_short(target, error, rest, asked.threads[0])
    progress(target, len(pipelines), len(pipelines))


def _about(
    target: str, items: list[Measured], bench: Bench, held_out: HeldOut, facts: dict[str, Any]
) -> list[str]:
    """Return on how many windows pipelines were tried, and that a device has no runtime."""
    notes = tried_on(target, items, len(bench.chosen), held_out)
    if {item.result.runtime for item in items if not item.result.error} <= {"c"}:
        notes.append(f"{target}: no runtime for model files works there; {wheels_for(facts)}")
    return notes


def _first_that_works(
    asked: Asked, bench: Bench, plan: BenchPlan, jobs: list[Job], pipeline: str, machine: str
) -> tuple[list[Measured], list[str]]:
    """Measure a pipeline with the first runtime that is there and lives; return why others were not used.

    A student is measured as C too where persistence is, so that there is C to compare that with.
    """
    own = [job for job in jobs if job.pipeline == pipeline]
    beside = pipeline.startswith("student.") and any(job.factory == TDA for job in jobs)
    notes: list[str] = []
    found: list[Measured] = []
    for candidate in candidates(asked.bundle, own, plan.held_out, machine, notes):
        if found and candidate.runtime != "c":
            continue
        results, why = bench.measure(candidate, lasting=pipeline == lasting(jobs) and not found)
        found += results
        if found and not beside:
            break
        notes += [why] * (not results)
    if found:
        return found, [note for note in notes if "not on the device" not in note]
    return [bench.failed(own[0], _together(notes) or "no runtime")], []


def _together(notes: list[str]) -> str:
    """Join notes `runtime: reason`; runtimes with the same reason are named together."""
    runtimes: dict[str, list[str]] = {}
    for runtime, _, reason in (note.partition(": ") for note in notes):
        runtimes.setdefault(reason, []).append(runtime)
    return "; ".join(f"{', '.join(names)}: {reason}" for reason, names in runtimes.items())


def wheels_for(facts: dict[str, Any]) -> str:
    """Say what gives a device a runtime, by the wheels that PyPI has (looked up in November 2026).

    Parameters
    ----------
    facts
        `machine` and `python`, as `topokd_bench.agent.describe` has them.
    """
    machine, python = str(facts.get("machine")), str(facts.get("python"))
    if machine in ("aarch64", "x86_64"):
        return "to have one: pip install ai-edge-litert"
    if machine not in ("armv7l", "armv8l"):
        return f"PyPI has no wheel of one for {machine}"
    if python.startswith(("3.9.", "3.10.", "3.11.")):
        return (
            "to have one: apt install python3-numpy, pip install tflite-runtime==2.14.0 "
            "(needs glibc 2.34, as Raspberry Pi OS 12 has)"
        )
    return f"PyPI has no wheel of one for Python {python} on {machine}"
