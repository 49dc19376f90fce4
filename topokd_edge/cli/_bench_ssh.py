"""What a bench does on a device behind SSH: every model in the first of its runtimes that works."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from topokd_bench.local import Job, Measured, lasting
from topokd_bench.pipelines import TDA
from topokd_bench.remote import Bench, Candidate, Proof
from topokd_bench.result import BenchResult
from topokd_bench.ssh import Agent, parse_address
from topokd_bench.windows import HeldOut

from topokd_edge.bundle import Bundle, open_model, quantise_input
from topokd_edge.cli import _bench_tables
from topokd_edge.cli._bench_local import effort_of, refuse_threads
from topokd_edge.cli._bench_outcome import Asked, Outcome
from topokd_edge.cli._bench_plan import BenchPlan, find_run, make_plan
from topokd_edge.errors import DeviceError, TopokdError
from topokd_edge.progress import Progress
from topokd_edge.student import AGREEMENT

RUNTIMES = ("litert", "tflite-runtime", "onnxruntime", "c")
"""In the order they are tried."""
_TEACHER_VECTORS = 16


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
        found.subjects = plan.subjects
        found.notes += [note for note in plan.notes if not note.startswith("ripser+persim")]
        jobs = [job for job in plan.jobs if job.factory != TDA]
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
            if plan.held_out.y is not None and len(bench.chosen) < len(plan.held_out.x):
                found.notes.append(
                    f"{target}: tried on {len(bench.chosen)} of {len(plan.held_out.x)} held-out windows"
                )
            for index, pipeline in enumerate(pipelines):
                progress(target, index, len(pipelines), pipeline)
                own = [job for job in jobs if job.pipeline == pipeline]
                results, notes = _first_that_works(
                    bench, asked.bundle, own, plan.held_out, agent.facts, lasting=pipeline == lasting(jobs)
                )
                found.measured += results
                found.notes += [f"{target}: {pipeline}: {note}" for note in notes]
                done.add(pipeline)
    except DeviceError as error:
        if not done:
            raise
        found.ended.append(error)
        rest = [pipeline for pipeline in pipelines if pipeline not in done]
        found.measured += [_missed(target, pipeline, str(error), asked.threads[0]) for pipeline in rest]
        found.notes.append(
            f"{target}: partial: {error.message}; not measured: {', '.join(rest) or 'nothing'}"
        )
    progress(target, len(pipelines), len(pipelines))


def _missed(target: str, pipeline: str, why: str, threads: int) -> Measured:
    return Measured(BenchResult(target, "measured", pipeline, "-", threads=threads, error=why))


def _first_that_works(
    bench: Bench, bundle: Bundle, jobs: list[Job], held_out: HeldOut, facts: dict[str, Any], *, lasting: bool
) -> tuple[list[Measured], list[str]]:
    """Measure with the first runtime that is there and lives; return why others were not used."""
    notes: list[str] = []
    for candidate in _candidates(bundle, jobs, held_out, str(facts.get("machine")), notes):
        results, why = bench.measure(candidate, lasting=lasting)
        if results:
            return results, [note for note in notes if "not on the device" not in note]
        notes.append(why)
    return [bench.failed(jobs[0], "; ".join(notes) or "no runtime")], []


def _candidates(
    bundle: Bundle, jobs: list[Job], held_out: HeldOut, machine: str, notes: list[str]
) -> Iterator[Candidate]:
    """Yield ways to run one pipeline, in the order of `RUNTIMES`; the C is built only when it is its turn."""
    for runtime in RUNTIMES[:-1]:
        wanted = "litert" if runtime == "tflite-runtime" else runtime
        for job in jobs:
            if job.runtime == wanted:
                yield _model(bundle, job, runtime, held_out)
    for job in jobs:
        if job.pipeline == "student.int8" and job.runtime == "litert":
            try:
                yield c_candidate(bundle, job, machine, held_out)
            except TopokdError as error:
                notes.append(f"c: {error.message}")


def _channels(job: Job, held_out: HeldOut) -> list[int]:
    own = job.args.get("channels")
    return list(range(held_out.x.shape[1])) if own is None else list(own)


def _model(bundle: Bundle, job: Job, runtime: str, held_out: HeldOut) -> Candidate:
    path = Path(str(job.args["path"]))
    channels = _channels(job, held_out)
    proof = student_proof(bundle, path) or _teacher_proof(path, job, held_out, channels)
    return Candidate(job, runtime, path.read_bytes(), channels, proof)


def student_proof(bundle: Bundle, path: Path) -> Proof | None:
    """Return the self-test of a model file of the bundle, with the tolerances of verifying it."""
    from topokd_export.verify import FLOAT_TOLERANCE, XNNPACK_TOLERANCE_LSB

    item = next((item for item in bundle.manifest.files if bundle.folder / item.path == path), None)
    if item is None:
        return None
    vectors = bundle.self_test()
    expected = vectors[item.path]
    if item.precision != "int8":
        return Proof(vectors["x"], expected, FLOAT_TOLERANCE, 1.0)
    numbers = bundle.manifest.int8
    loose = (XNNPACK_TOLERANCE_LSB + 0.5) * (numbers.output_scale if numbers else 0.0)
    floats = [vectors[other.path] for other in bundle.manifest.files if other.precision == "float32"]
    loose = max([loose, *(float(np.abs(expected - logits).max()) for logits in floats[:1])])
    return Proof(vectors["x"], expected, loose, AGREEMENT)


def _teacher_proof(path: Path, job: Job, held_out: HeldOut, channels: list[int]) -> Proof:
    """Return windows a teacher answers here, which it must answer alike there."""
    from topokd_export.verify import FLOAT_TOLERANCE

    mean, std = (np.array(job.args[key], np.float32)[:, None] for key in ("mean", "std"))
    raw = held_out.x[held_out.spread(_TEACHER_VECTORS)].take(channels, axis=1)
    x = ((raw - mean) / std).astype(np.float32)
    return Proof(x, open_model(path).run(x), FLOAT_TOLERANCE, 1.0)


def c_candidate(bundle: Bundle, job: Job, machine: str, held_out: HeldOut) -> Candidate:
    """Build the C student for the device from the int8 TFLite file."""
    from topokd_export.c.bundled import MAIN_FILE
    from topokd_export.c.linux import linux_program
    from topokd_export.c.tflite_reader import read_integer_graph
    from topokd_export.c.writer import app_numbers
    from topokd_export.verify import REFERENCE_TOLERANCE_LSB

    path = Path(str(job.args["path"]))
    graph = read_integer_graph(path.read_bytes())
    program = linux_program(graph, app_numbers(bundle.manifest), machine)
    scale, zero_point = graph.output.scale, graph.output.zero_point
    vectors = bundle.self_test()
    exact = MAIN_FILE in vectors
    expected = vectors[MAIN_FILE if exact else path.relative_to(bundle.folder).as_posix()]
    levels = quantise_input(np.moveaxis(vectors["x"], 1, 2), graph.input.scale, graph.input.zero_point)
    tolerance = (0.5 if exact else REFERENCE_TOLERANCE_LSB + 0.5) * scale
    proof = Proof(levels, expected, tolerance, 1.0, scale, zero_point)
    own = replace(job, runtime="c", model_bytes=len(program))
    return Candidate(own, "c", program, _channels(job, held_out), proof)
