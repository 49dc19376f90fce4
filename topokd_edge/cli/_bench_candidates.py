"""Ways to run a pipeline on a device without this package, and what each must answer before it is timed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from topokd_bench.local import Job
from topokd_bench.pipelines import TDA, load
from topokd_bench.remote import Candidate, Proof
from topokd_bench.types import Array
from topokd_bench.windows import HeldOut

from topokd_edge.bundle import Bundle, open_model, quantise_input
from topokd_edge.cli._bench_plan import REFERENCE_WINDOWS, BenchPlan
from topokd_edge.errors import TopokdError
from topokd_edge.student import AGREEMENT
from topokd_edge.topology.params import ImageParams

if TYPE_CHECKING:
    from topokd_export.c.float_writer import FloatPipeline

RUNTIMES = ("litert", "tflite-runtime", "onnxruntime", "c")
"""In the order they are tried."""
VECTORS = 16
"""Windows that a teacher or a float pipeline must answer as here."""


def elsewhere(plan: BenchPlan) -> tuple[list[Job], list[str]]:
    """Return what of a plan can run without this package, and the notes that hold there."""
    jobs = [job for job in plan.jobs if job.args.get("backend") != "reference"]
    notes = [note for note in plan.notes if not note.startswith("ripser+persim")]
    if len(jobs) < len(plan.jobs) and not any(job.factory == TDA for job in jobs):
        notes.append("tda was left out: there is no C for images of loops")
    return jobs, notes


def candidates(
    bundle: Bundle, jobs: list[Job], held_out: HeldOut, machine: str, notes: list[str]
) -> Iterator[Candidate]:
    """Yield ways to run one pipeline, in the order of `RUNTIMES`; the C is built only when it is its turn."""
    for runtime in RUNTIMES[:-1]:
        wanted = "litert" if runtime == "tflite-runtime" else runtime
        for job in jobs:
            if job.runtime == wanted:
                yield _model(bundle, job, runtime, held_out)
    yield from c_candidates(bundle, jobs, held_out, machine, notes)


def c_jobs(jobs: list[Job]) -> list[Job]:
    """Return the jobs that there may be C of, one of each pipeline."""
    return [job for job in jobs if _building(job) is not None]


def c_candidates(
    bundle: Bundle, jobs: list[Job], held_out: HeldOut, machine: str, notes: list[str]
) -> Iterator[Candidate]:
    """Yield the jobs that there is C of, each built when it is its turn; what cannot be built is noted."""
    for job in jobs:
        build = _building(job)
        if build is not None:
            try:
                yield build(bundle, job, machine, held_out)
            except TopokdError as error:
                notes.append(f"c: {error.message}")


def _building(job: Job) -> Callable[[Bundle, Job, str, HeldOut], Candidate] | None:
    """Return what builds the C of a job: one file of each pipeline is what it is made from."""
    if job.pipeline == "student.int8":
        return c_candidate if job.runtime == "litert" else None
    return float_candidate if Path(str(job.args["path"])).suffix == ".onnx" else None


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
    raw = held_out.x[held_out.spread(VECTORS)].take(channels, axis=1)
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


def float_candidate(bundle: Bundle, job: Job, machine: str, held_out: HeldOut) -> Candidate:
    """Build a float pipeline as C; to raw windows it must answer as the pipeline does on this machine."""
    from topokd_export.c.linux import pipeline_program

    channels = _channels(job, held_out)
    program = pipeline_program(float_pipeline(job, held_out.x.shape[2]), machine)
    proof = float_proof(job, np.asarray(held_out.x[held_out.spread(VECTORS)]), channels)
    windows = min(REFERENCE_WINDOWS, job.accuracy_windows or REFERENCE_WINDOWS)
    own = replace(job, runtime="c", model_bytes=len(program), accuracy_windows=windows)
    return Candidate(own, "c", program, channels, proof, "logits")


def float_proof(job: Job, raw: Array, channels: Sequence[int]) -> Proof:
    """Return what C of a float pipeline must answer to raw windows, float32 (n, channels, length)."""
    from topokd_export.verify import FLOAT_TOLERANCE

    expected = load(job.factory, job.args).run(raw)
    tolerance = FLOAT_TOLERANCE * max(1.0, float(np.abs(expected).max()))
    return Proof(np.moveaxis(raw.take(list(channels), axis=1), 1, 2), expected, tolerance, 1.0)


def float_pipeline(job: Job, length: int) -> FloatPipeline:
    """Return what C is written of; `length` is that of a window."""
    from topokd_export.c.float_writer import signal_pipeline, topology_pipeline

    onnx = Path(str(job.args["path"])).read_bytes()
    if job.factory != TDA:
        return signal_pipeline(onnx, job.args["mean"], job.args["std"])
    fitted = job.args["preprocessing"]
    params = ImageParams.from_dict(fitted["topology"])
    return topology_pipeline(onnx, params, length, fitted["image"]["mean"], fitted["image"]["std"])
