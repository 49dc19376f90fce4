"""The C student as a static Linux program, cross-compiled for a device that has no runtime."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

from topokd_edge.errors import CheckFailedError, DeviceError, MissingError
from topokd_export.c.float_writer import FloatPipeline, write_pipeline
from topokd_export.c.host import SOURCES, WARNINGS
from topokd_export.c.integer_graph import IntegerGraph
from topokd_export.c.writer import AppNumbers, write_c

MACHINES: Mapping[str, tuple[str, ...]] = {
    "aarch64": ("-target", "aarch64-linux-musl"),
    "armv7l": ("-target", "arm-linux-musleabihf"),
    "armv8l": ("-target", "arm-linux-musleabihf"),
    "armv6l": ("-target", "arm-linux-musleabihf", "-mcpu=arm1176jzf_s"),
    "x86_64": ("-target", "x86_64-linux-musl"),
    "riscv64": ("-target", "riscv64-linux-musl"),
}
"""Flags for ziglang by machine, as `uname -m` names it; armv6l is the first Raspberry Pi and the Zero."""
FLAGS = ("-std=c99", "-O2", "-static", "-s")


def linux_program(graph: IntegerGraph, app: AppNumbers, machine: str) -> bytes:
    """Build the bench program (`runtime/linux.c`) of a student.

    Parameters
    ----------
    graph, app
        The student.
    machine
        What the device's `uname -m` says.

    Raises
    ------
    DeviceError
        When nothing is known of the machine.
    MissingError
        When ziglang is not installed.
    CheckFailedError
        When it does not compile without a warning; with what the compiler said.
    """
    return _built(write_c(graph, app, None), SOURCES, machine)


def pipeline_program(pipeline: FloatPipeline, machine: str) -> bytes:
    """Build the same program of a float pipeline: `logits` of raw windows stands in place of `levels`.

    Products may be added without rounding them, where the machine has an instruction for that.

    Raises
    ------
    DeviceError, MissingError, CheckFailedError
        As `linux_program`.
    """
    return _built(write_pipeline(pipeline), pipeline.sources, machine, "-DBENCH_PIPELINE")


def _built(files: Mapping[str, str], sources: Sequence[str], machine: str, *flags: str) -> bytes:
    command = compiler_for(machine)
    with tempfile.TemporaryDirectory(prefix="topokd-linux-") as name:
        folder = Path(name)
        for file, text in {**files, "linux.c": _main()}.items():
            (folder / file).write_text(text, "utf-8")
        arguments = [*command, *FLAGS, *flags, *WARNINGS, "linux.c", *sources, "-o", "student"]
        child = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, check=False)
        if child.returncode != 0:
            raise CheckFailedError(
                f"the C does not compile for {machine}", problems=child.stderr.strip().splitlines()[:20]
            )
        return (folder / "student").read_bytes()


def compiler_for(machine: str) -> list[str]:
    """Return the command of ziglang's C compiler for a machine."""
    if machine not in MACHINES:
        raise DeviceError(f"no C for a {machine!r}: expected one of {', '.join(MACHINES)}")
    if importlib.util.find_spec("ziglang") is None:
        raise MissingError(
            f"building the C for {machine} needs the package ziglang", hint="pip install 'topokd-edge[c]'"
        )
    return [sys.executable, "-m", "ziglang", "cc", *MACHINES[machine]]


def _main() -> str:
    return (resources.files("topokd_export.c") / "runtime" / "linux.c").read_text("utf-8")
