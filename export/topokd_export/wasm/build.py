"""Compiling C to WebAssembly with ziglang: with SIMD, and without for old browsers."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

from topokd_edge.errors import CheckFailedError, MissingError
from topokd_export.c.float_writer import FloatPipeline, write_pipeline
from topokd_export.c.host import SOURCES, WARNINGS

CPUS = {"simd": "generic+simd128", "scalar": "mvp"}
"""Compiler's name of what a build needs: 128-bit vectors (browsers since 2021-2023), or nothing at all."""
_STACK_BYTES = 16384
_TARGET = ("-target", "wasm32-freestanding", "-nostdlib", "-fno-builtin", "-O3", "-std=c99", *WARNINGS)
_LINK = ("-Wl,--no-entry", "-Wl,--strip-all", "-Wl,--gc-sections", f"-Wl,-z,stack-size={_STACK_BYTES}")


def refuse_without_compiler() -> None:
    """Raise MissingError where there is no ziglang."""
    if importlib.util.find_spec("ziglang") is None:
        raise MissingError("making WebAssembly needs ziglang", hint="pip install 'topokd-edge[c]'")


def build_wasm(files: Mapping[str, str], cpu: str) -> bytes:
    """Compile and link the C files of a student.

    Parameters
    ----------
    files
        The C files by name, as `topokd_export.c.writer.write_c` gives them.
    cpu
        Of `CPUS`.

    Returns
    -------
    bytes
        A module without imports that exports `memory` and the functions of `runtime/glue.c`. The same
        files and the same ziglang give the same bytes.

    Raises
    ------
    MissingError
        When ziglang is not installed.
    CheckFailedError
        With what the compiler said.
    """
    return _built(files, "glue.c", SOURCES, cpu)


def build_pipeline(pipeline: FloatPipeline, cpu: str) -> bytes:
    """Compile and link a float pipeline; the module exports `memory` and what `runtime/pipeline_glue.c` does.

    Raises
    ------
    MissingError, CheckFailedError
        As `build_wasm`.
    """
    return _built(write_pipeline(pipeline), "pipeline_glue.c", pipeline.sources, cpu)


def _built(files: Mapping[str, str], glue: str, sources: Sequence[str], cpu: str) -> bytes:
    refuse_without_compiler()
    exports = (resources.files("topokd_export.wasm") / "runtime" / glue).read_text("utf-8")
    with tempfile.TemporaryDirectory(prefix="topokd-wasm-") as name:
        folder = Path(name)
        for file, text in {**files, glue: exports}.items():
            (folder / file).write_text(text, "utf-8")
        command = [sys.executable, "-m", "ziglang", "cc", *_TARGET, f"-mcpu={CPUS[cpu]}", *_LINK]
        child = subprocess.run(
            [*command, glue, *sources, "-o", "built.wasm"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if child.returncode != 0:
            raise CheckFailedError(
                f"the C does not compile to WebAssembly ({cpu})",
                problems=child.stderr.strip().splitlines()[:20],
            )
        return (folder / "built.wasm").read_bytes()
