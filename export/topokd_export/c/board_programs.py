"""What the bench firmware of a board runs: the int8 student, or a float pipeline, for its core."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from topokd_export.c.float_on_core import FloatOnCore
from topokd_export.c.float_plan import layer_outputs
from topokd_export.c.float_writer import FloatPipeline, write_pipeline
from topokd_export.c.host import SOURCES
from topokd_export.c.on_core import Needs, StudentOnCore
from topokd_export.c.qemu import WRAP
from topokd_export.c.writer import AppNumbers, write_c

INT8_STUDENT = "student.int8"
PIPELINES = (INT8_STUDENT, "student.float32", "teacher.signal", "tda")


@dataclass(frozen=True)
class Program:
    """A pipeline for the core of a board.

    Attributes
    ----------
    pipeline
        Its name: `student.int8`, `student.float32`, `teacher.signal` or `tda`.
    kernel, flags
        Which kernels it is built with, and the flags that a result names.
    files, sources
        C files by name, and which of them to compile.
    needs
        Bytes known before it is built.
    window_bytes
        Of a raw window, which the firmware keeps beside it.
    more_flags
        For the compiler, beside `flags`.
    outputs
        Of a float pipeline: (first value in the arena, bytes) of every layer but the last.
    fpu
        Whether it is built for the core's floating-point unit, if it has one.
    """

    pipeline: str
    kernel: str
    flags: Sequence[str]
    files: Mapping[str, str]
    sources: Sequence[str]
    needs: Needs
    window_bytes: int
    more_flags: Sequence[str]
    outputs: Sequence[tuple[int, int]] = ()
    fpu: bool = False


def student_program(tflite: bytes, app: AppNumbers, core: str) -> Program:
    """Return the int8 student for a core.

    Parameters
    ----------
    tflite
        Content of the int8 TFLite file.
    app
        What the app must know.
    core
        A key of `CORES`.
    """
    student = StudentOnCore(tflite, app, core)
    wrapped = (resources.files("topokd_export.c") / "emulation" / "wrapped.h").read_text("utf-8")
    return Program(
        INT8_STUDENT,
        student.kernel,
        student.flags,
        {**write_c(student.graph, app, None), "measured.h": _measured("student"), "wrapped.h": wrapped},
        SOURCES,
        student.needs,
        4 * student.graph.input.bytes,
        WRAP,
    )


def pipeline_program(name: str, pipeline: FloatPipeline, core: str) -> Program:
    """Return a float pipeline, named as a bench names it, for a core; see `student_program`."""
    there = FloatOnCore(pipeline, core)
    return Program(
        name,
        there.kernel,
        there.flags,
        {**write_pipeline(pipeline), "measured.h": _measured("pipeline")},
        pipeline.sources,
        there.needs,
        4 * pipeline.length * pipeline.channels,
        ("-DPIPELINE_WATCHED",),
        layer_outputs(pipeline),
        fpu=True,
    )


def _measured(what: str) -> str:
    return (resources.files("topokd_export.c") / "boards" / f"measured_{what}.h").read_text("utf-8")
