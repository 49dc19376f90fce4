"""What stands beside the int8 student on microcontrollers: both teachers and the float32 student, in C."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from topokd_bench.accuracy import judge
from topokd_bench.boards import Board
from topokd_bench.local import Job
from topokd_bench.mcu import CoreCounts
from topokd_bench.pipelines import TDA, load
from topokd_bench.windows import HeldOut
from topokd_export.c.cores import CORES
from topokd_export.c.cycles import FLOAT_SOURCE, RULES, SOURCES
from topokd_export.c.firmware import Compiler, Firmware
from topokd_export.c.float_on_core import FloatOnCore
from topokd_export.c.float_on_m55 import pipeline_on
from topokd_export.c.float_writer import FloatPipeline, signal_pipeline, topology_pipeline
from topokd_export.c.on_core import Counts, StudentOnCore

from topokd_edge.cli._bench_plan import BenchPlan
from topokd_edge.errors import TopokdError
from topokd_edge.rows import evenly
from topokd_edge.run import SIGNAL_TEACHER
from topokd_edge.topology.params import ImageParams

PROVEN = 8
"""Windows of which the C's logits are compared with onnxruntime's; one of them also runs on the core."""
_FLOAT_STUDENT = "student.float32"


@dataclass(frozen=True)
class FloatJob:
    """A float pipeline to count, or why there is none.

    Attributes
    ----------
    name
        `tda`, `teacher.signal` or `student.float32`.
    job
        The same by onnxruntime; it says what is right.
    pipeline
        In C; None when it cannot be had, and `error` says why.
    """

    name: str
    job: Job
    pipeline: FloatPipeline | None
    error: str = ""

    def windows(self, held_out: HeldOut) -> npt.NDArray[np.float32]:
        """Return raw windows, float32 (n, channels, length), of the channels that it takes."""
        channels = self.job.args.get("channels")
        own = held_out.x if channels is None else held_out.x.take(channels, axis=1)
        return np.asarray(own, dtype=np.float32)


def float_jobs(plan: BenchPlan, length: int) -> list[FloatJob]:
    """Return the float pipelines of a plan, slowest first; `length` is that of a window."""
    chosen: dict[str, Job] = {}
    for job in plan.jobs:
        if job.pipeline == "tda" or (
            job.pipeline in (SIGNAL_TEACHER, _FLOAT_STUDENT) and job.runtime == "onnxruntime"
        ):
            chosen[job.pipeline] = job  # of two backends the quick one comes last
    return [_float_job(job, length) for job in chosen.values()]


def _float_job(job: Job, length: int) -> FloatJob:
    try:
        content = Path(job.args["path"]).read_bytes()
        if job.factory != TDA:
            return FloatJob(job.pipeline, job, signal_pipeline(content, job.args["mean"], job.args["std"]))
        fitted = job.args["preprocessing"]
        params, scale = ImageParams.from_dict(fitted["topology"]), fitted["image"]
        pipeline = topology_pipeline(content, params, length, scale["mean"], scale["std"])
        return FloatJob(job.pipeline, job, pipeline)
    except TopokdError as error:
        return FloatJob(job.pipeline, job, None, error.message)


@dataclass(frozen=True)
class Trial:
    """How float pipelines are tried.

    Attributes
    ----------
    held_out, windows
        Raw windows, and how many of them to classify where their truth is known.
    compiler, versions
        Of the C.
    bundle
        Hash of the bundle they stand beside.
    """

    held_out: HeldOut
    windows: int
    compiler: Compiler
    versions: dict[str, str]
    bundle: str


@dataclass(frozen=True)
class Counted:
    """A float pipeline on a core: counts and accuracy; without counts it fits no board, or `error` says why.

    Attributes
    ----------
    needs
        Bytes of memory and flash, by `Board.shortfalls`' names: as built, or what is known before.
    """

    name: str
    needs: dict[str, int]
    counts: CoreCounts | None = None
    accuracy: dict[str, Any] = field(default_factory=dict)
    correct: dict[int, bool] = field(default_factory=dict)
    error: str = ""

    def why_not(self, board: Board | None) -> str:
        """Return why there is no figure, with the numbers where it does not fit; empty when there is one."""
        problems = board.shortfalls(**self.needs) if board is not None and self.needs else []
        return f"does not fit: {'; '.join(problems)}" if problems else self.error


def count(job: FloatJob, core: str, boards: Sequence[Board], trial: Trial) -> Counted:
    """Build, prove and count a float pipeline on a core.

    Parameters
    ----------
    job, core
        The pipeline, and a key of `CORES`.
    boards
        When it fits none of them, nothing is built. Empty where the core itself was asked for.
    trial
        How.

    Raises
    ------
    CheckFailedError
        When the C does not prove itself.
    """
    if job.pipeline is None:
        return Counted(job.name, {}, error=job.error)
    student = pipeline_on(job.pipeline, core)
    needs = asdict(student.needs)
    if boards and all(board.shortfalls(**needs) for board in boards):
        return Counted(job.name, needs)
    firmware = student.build(trial.compiler)
    found = _prove(student, job, trial.held_out)
    accuracy, correct = _accuracy(student, job, trial)
    counts = core_counts(
        student,
        firmware,
        found,
        cycle_rules=f"{SOURCES[core]}; {FLOAT_SOURCE}" if _by_table(core) else SOURCES[core],
        model_bytes=job.job.model_bytes,
        macs=job.job.macs or 0,
        self_test={"vectors": found.proven, "bit_by_bit": found.windows, "bundle": trial.bundle},
        versions=trial.versions,
        pipeline=job.name,
    )
    built = {"ram_bytes": counts.ram_bytes + counts.stack_bytes, "flash_bytes": counts.flash_bytes}
    return Counted(job.name, built, counts, accuracy, correct)


def core_counts(
    student: StudentOnCore | FloatOnCore, firmware: Firmware, found: Counts, **own: Any
) -> CoreCounts:
    """Return the counts of what ran on a core, `own` fields beside those every pipeline has."""
    return CoreCounts(
        core=student.core,
        kernel=student.kernel,
        compiler=student.compiler,
        flags=" ".join(student.flags),
        instructions=found.instructions,
        layers=found.layers,
        cycles=found.cycles,
        ram_bytes=student.needs.ram_bytes,
        arena_bytes=student.arena_bytes,
        stack_bytes=found.stack_bytes,
        flash_bytes=firmware.flash_bytes,
        windows_counted=found.windows,
        **own,
    )


def _by_table(core: str) -> bool:
    """Whether cycles of a floating-point unit are known: of the M55 only instructions are."""
    return CORES[core].has_fpu and core in RULES


def _prove(student: FloatOnCore, job: FloatJob, held_out: HeldOut) -> Counts:
    chosen = evenly(len(held_out.x), PROVEN)
    reference = load(job.job.factory, job.job.args)
    expected = np.concatenate([reference.run(window[np.newaxis]) for window in held_out.x[chosen]])
    return student.prove(job.windows(held_out)[chosen], expected)


def _accuracy(student: FloatOnCore, job: FloatJob, trial: Trial) -> tuple[dict[str, Any], dict[int, bool]]:
    held_out = trial.held_out
    if held_out.y is None:
        return {}, {}
    chosen = held_out.spread(trial.windows)
    return judge(held_out, chosen, student.classify(job.windows(held_out)[chosen]))
