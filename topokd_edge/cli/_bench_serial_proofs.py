"""What a pipeline must give on a board, layer by layer, for windows that this machine has run as well."""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from topokd_bench.pipelines import load
from topokd_bench.types import Array
from topokd_bench.windows import HeldOut
from topokd_export.c.arena import plan_arena
from topokd_export.c.board_programs import INT8_STUDENT
from topokd_export.c.bundled import levels_of
from topokd_export.c.float_host import HostPipeline
from topokd_export.c.float_on_core import refuse_far_logits
from topokd_export.c.float_plan import plan_floats
from topokd_export.c.float_writer import FloatPipeline
from topokd_export.c.on_core import checksum, raw_samples, reference
from topokd_export.c.tflite_reader import read_integer_graph
from topokd_export.c.writer import app_numbers

from topokd_edge.bundle import Bundle
from topokd_edge.cli._bench_mcu_floats import PROVEN, FloatJob, float_jobs
from topokd_edge.cli._bench_plan import BenchPlan, find_run, make_plan, student_windows
from topokd_edge.errors import BadInputError
from topokd_edge.rows import evenly


@dataclass(frozen=True)
class Proof:
    """A pipeline, and what proves it.

    Attributes
    ----------
    layers
        Their names, in the order they run.
    cases
        Raw windows, float32 (length, channels), each with the checksum of every layer; the last is that of
        the logits.
    checksum
        Of the logits' bytes.
    fields
        Of `BenchResult`.
    held_out
        Windows of the channels that it takes.
    subjects, notes
        Whose windows they are, and what a reader of the figures must know.
    """

    layers: Sequence[str]
    cases: Sequence[tuple[Array, list[int]]]
    checksum: Callable[[bytes], int]
    fields: dict[str, Any]
    held_out: HeldOut
    subjects: tuple[str, ...]
    notes: Sequence[str]


def proof_of(name: str, bundle: Bundle, run: Path | None) -> Proof:
    """Return what proves a pipeline of a bundle, `student.int8` or what `find_float` takes.

    Raises
    ------
    BadInputError
        When the bundle or the run has no such pipeline.
    CheckFailedError
        When the C of a float pipeline gives other logits here than onnxruntime.
    MissingError
        When this machine has no C compiler.
    """
    if name == INT8_STUDENT:
        return _of_student(bundle, run)
    with tempfile.TemporaryDirectory(prefix="topokd-bench-") as folder:
        job, pipeline, plan = find_float(name, bundle, run, Path(folder))
        return _of_pipeline(bundle, job, pipeline, plan)


def find_float(
    name: str, bundle: Bundle, run: Path | None, work: Path
) -> tuple[FloatJob, FloatPipeline, BenchPlan]:
    """Return a float pipeline of a bundle or its run, and the plan with its windows.

    Parameters
    ----------
    name
        `student.float32`, `teacher.signal` or `tda`.
    bundle, run
        The student, and the folder of the run with its teachers; None looks for it near the bundle.
    work
        An existing folder for the teachers' ONNX files.

    Raises
    ------
    BadInputError
        When there is no such pipeline, or it cannot be had in C.
    """
    found = find_run(bundle, run)
    plan = make_plan(bundle, found, work)
    job = next((job for job in float_jobs(plan, bundle.manifest.length) if job.name == name), None)
    if job is None:
        raise BadInputError(
            f"{bundle.folder if found is None else found.folder}: has no {name}",
            problems=[note for note in plan.notes if "left out" in note or "not found" in note],
            hint="teachers come from the run (--run), student.float32 from the bundle's ONNX file",
        )
    if job.pipeline is None:
        raise BadInputError(f"{name} cannot be had in C: {job.error}")
    return job, job.pipeline, plan


def _of_student(bundle: Bundle, run: Path | None) -> Proof:
    """Prove by the self-test windows and the plain kernels, compiled here."""
    path, app = bundle.model_path("tflite", "int8"), app_numbers(bundle.manifest)
    graph = read_integer_graph(path.read_bytes())
    levels = levels_of(graph, bundle.self_test()["x"])
    cases = [
        (raw_samples(one, graph, app.normalisation), [*sums[:-1], checksum(logits)])
        for one, (sums, logits) in zip(levels, reference(graph, app, levels), strict=True)
    ]
    fields = {
        "model_bytes": path.stat().st_size,
        "macs": bundle.manifest.macs,
        "arena_bytes": plan_arena(graph).arena_bytes,
    }
    held_out, subjects, notes = student_windows(bundle, find_run(bundle, run))
    return Proof([layer.name for layer in graph.layers], cases, checksum, fields, held_out, subjects, notes)


def _of_pipeline(bundle: Bundle, job: FloatJob, pipeline: FloatPipeline, plan: BenchPlan) -> Proof:
    """Prove by held-out windows and the same C, compiled here, whose logits onnxruntime proves."""
    chosen = evenly(len(plan.held_out.x), PROVEN)
    windows = job.windows(plan.held_out)
    host = HostPipeline(pipeline)
    expected = load(job.job.factory, job.job.args)
    answers = [expected.run(window[np.newaxis]) for window in plan.held_out.x[chosen]]
    refuse_far_logits(host.run(windows[chosen]), np.concatenate(answers))
    fields = {
        "model_bytes": job.job.model_bytes,
        "macs": job.job.macs,
        "arena_bytes": plan_floats(pipeline).arena_bytes,
    }
    return Proof(
        [layer.name for layer in pipeline.layers],
        [(window.T, host.layers(window)[0]) for window in windows[chosen]],
        zlib.crc32,
        fields,
        HeldOut(windows, plan.held_out.y, plan.held_out.subject),
        plan.subjects,
        [note for note in plan.notes if "ripser" not in note],
    )
