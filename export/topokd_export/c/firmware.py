"""Linking the C student with nothing else, for a core without an operating system."""

from __future__ import annotations

import importlib.util
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from topokd_edge.errors import CheckFailedError, MissingError
from topokd_export.c.cores import CORES
from topokd_export.c.host import SOURCES, WARNINGS

Compiler = Literal["zig", "gcc"]
ROM = 0x10000
FLAGS = ("-O2",)
NETWORK = """#include "student.h"
static student_t student;
int32_t start(const int8_t *in, int8_t *out);
int32_t start(const int8_t *in, int8_t *out) { return (int32_t)student_invoke(&student, in, out); }
"""
"""Quantised window to logits."""
APP = """#include "student.h"
static student_t student;
int32_t start(const float *samples, int8_t *out);
int32_t start(const float *samples, int8_t *out)
{
    int32_t row;
    int32_t label;
    student_status status = student_init(&student, STUDENT_DEFAULT_STEP);
    for (row = 0; (row < STUDENT_LENGTH) && (status == STUDENT_OK); row++) {
        status = student_push(&student, &samples[row * STUDENT_CHANNELS]);
    }
    return (status == STUDENT_WINDOW) ? (int32_t)student_classify(&student, out, &label) : -100;
}
"""
"""Raw samples, as an app has them, to logits."""
FLOAT_APP = """#include "pipeline.h"
static pipeline_t pipeline;
int32_t start(const float *samples, float *out);
int32_t start(const float *samples, float *out)
{
    return (int32_t)pipeline_classify(&pipeline, samples, out);
}
"""
"""The same of a float pipeline."""
_GCC = "arm-none-eabi-gcc"
_AT = {"zig": f"-Wl,--image-base={ROM:#x}", "gcc": f"-Wl,-Ttext={ROM:#x}"}
_FUNCTION, _OBJECT = 2, 1


@dataclass(frozen=True)
class Firmware:
    """A linked student.

    Attributes
    ----------
    core
        A key of `CORES`.
    elf
        The whole file.
    segments
        (address, content, size in memory) to load.
    entry
        Where the one function starts.
    functions, objects
        (start, end) of symbols by name.
    """

    core: str
    elf: bytes
    segments: tuple[tuple[int, bytes, int], ...]
    entry: int
    functions: Mapping[str, tuple[int, int]]
    objects: Mapping[str, tuple[int, int]]

    @property
    def flash_bytes(self) -> int:
        """Code, constants and initial data."""
        return sum(len(content) for _, content, _ in self.segments)


def build_firmware(
    files: Mapping[str, str],
    core: str,
    flags: Sequence[str] = FLAGS,
    *,
    program: str = NETWORK,
    compiler: Compiler = "zig",
    sources: Sequence[str] = SOURCES,
    fpu: bool = False,
) -> Firmware:
    """Compile and link the C files for a core, nothing else in it.

    Parameters
    ----------
    files
        C files by name, as `write_c` gives them.
    core
        A key of `CORES`.
    flags
        More flags for the compiler.
    program
        `NETWORK` or `APP`: what the one function does.
    compiler
        `zig` for that of the package ziglang, `gcc` for arm-none-eabi-gcc.
    sources
        Names of the files to compile beside the program.
    fpu
        Whether floats go to the core's floating-point unit, if it has one.

    Raises
    ------
    MissingError
        When the compiler is not installed, or does not know the core.
    CheckFailedError
        With what the compiler said.
    """
    elf = link({**files, "entry.c": program}, core, flags, ("entry.c", *sources), compiler, fpu=fpu)
    symbols = {kind: dict(_symbols(elf, kind)) for kind in (_FUNCTION, _OBJECT)}
    entry = int(struct.unpack_from("<I", elf, 24)[0])
    return Firmware(core, elf, tuple(_segments(elf)), entry, symbols[_FUNCTION], symbols[_OBJECT])


def link(
    files: Mapping[str, str],
    core: str,
    flags: Sequence[str],
    sources: Sequence[str],
    compiler: Compiler = "zig",
    *,
    placed: bool = False,
    fpu: bool = False,
) -> bytes:
    """Compile and link C files; return the ELF file.

    Parameters
    ----------
    files
        By name: sources, headers, and a linker script when one is named in `flags`.
    core, flags, compiler
        As for `build_firmware`.
    sources
        Names of the files to compile.
    placed
        Whether a linker script says where everything goes.
    fpu
        As for `build_firmware`.

    Raises
    ------
    MissingError, CheckFailedError
        As `build_firmware`.
    """
    command = [*_command(core, compiler, fpu), "-std=c99", *WARNINGS, "-g", "-ffunction-sections", *flags]
    command += [] if placed else [_AT[compiler]]
    with tempfile.TemporaryDirectory(prefix="topokd-mcu-") as name:
        folder = Path(name)
        for file, text in files.items():
            (folder / file).write_text(text, "utf-8")
        child = subprocess.run(
            [*command, *sources, "-o", "student.elf", *(("-lgcc",) if compiler == "gcc" else ())],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if child.returncode != 0:
            raise CheckFailedError(
                f"the C does not compile for {core}", problems=child.stderr.strip().splitlines()[:20]
            )
        return (folder / "student.elf").read_bytes()


def compiler_version(compiler: Compiler) -> str:
    """Return the compiler's name and version; counts are exact for that one only."""
    if compiler == "zig":
        return f"ziglang {metadata.version('ziglang')}"
    told = subprocess.run([_GCC, "-dumpfullversion"], capture_output=True, text=True, check=False)
    return f"{_GCC} {told.stdout.strip()}"


def _command(core: str, compiler: Compiler, fpu: bool) -> list[str]:
    chosen = CORES[core]
    link = ["-Wl,--gc-sections", "-Wl,-e,start"]
    if compiler == "zig":
        if importlib.util.find_spec("ziglang") is None:
            raise MissingError(
                f"building for {core} needs the package ziglang", hint="pip install 'topokd-edge[mcu]'"
            )
        named = chosen.fpu_zig if fpu and chosen.has_fpu else chosen.zig
        return [sys.executable, "-m", "ziglang", "cc", *named, *link]
    if not chosen.gcc:
        raise MissingError(f"{_GCC} does not know {core}", hint="leave --compiler out, or give zig")
    if shutil.which(_GCC) is None:
        raise MissingError(f"{_GCC} is not installed", hint="install it, or leave --compiler out")
    return [_GCC, *(chosen.fpu_gcc if fpu and chosen.has_fpu else chosen.gcc), "-nostdlib", *link]


def _segments(elf: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Yield the loadable parts of a 32-bit little-endian ELF file."""
    table, size, count = struct.unpack_from("<I", elf, 28)[0], *struct.unpack_from("<HH", elf, 42)
    for index in range(count):
        kind, offset, address, _, in_file, in_memory = struct.unpack_from("<6I", elf, table + index * size)
        if kind == 1 and in_memory:
            yield address, elf[offset : offset + in_file], in_memory


def _symbols(elf: bytes, kind: int) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield (name, (start, end)) of every symbol of a kind; the Thumb bit of a function is taken off."""
    table, size, count = struct.unpack_from("<I", elf, 32)[0], *struct.unpack_from("<HH", elf, 46)
    sections = [struct.unpack_from("<10I", elf, table + index * size) for index in range(count)]
    for section in (section for section in sections if section[1] == 2):
        names = sections[section[6]][4]
        for at in range(section[4], section[4] + section[5], 16):
            name, value, length, info = struct.unpack_from("<IIIB", elf, at)
            if info & 15 == kind and length:
                start = value & ~1 if kind == _FUNCTION else value
                end = elf.index(b"\0", names + name)
                yield elf[names + name : end].decode(), (start, start + length)
