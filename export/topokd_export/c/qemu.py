"""The C student in QEMU, for the Cortex-M55 that Unicorn does not have: answers, counts by the virtual clock.

With `-icount shift=0` an instruction takes one virtual nanosecond, so SysTick at 32 MHz counts them in steps
of 31.25. Counts are the same every time, and right to a step. Other cores are here to check Unicorn's counts.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from topokd_edge.errors import CheckFailedError, DeviceError, MissingError
from topokd_export.c.firmware import Compiler, link
from topokd_export.c.host import SOURCES

TIMEOUT_S = 600.0
MACHINES = {
    "cortex-m3": ("mps2-an385", 40.0),
    "cortex-m4": ("mps2-an386", 40.0),
    "cortex-m7": ("mps2-an500", 40.0),
    "cortex-m55": ("mps3-an547", 31.25),
}
"""QEMU's board for a core, and instructions between two ticks of its SysTick (25 or 32 MHz)."""
_QEMU = "qemu-system-arm"
WRAP = tuple(f"-Wl,--wrap=tk_run_{kind}" for kind in ("conv", "scale", "add", "mean"))
"""So that the program around the student sees every layer (`wrapped.h`)."""


@dataclass(frozen=True)
class Found:
    """What one window came to.

    Attributes
    ----------
    logits
        (classes,): int8, of a float pipeline float32.
    instructions, layer_instructions
        From raw samples to logits, and of each layer.
    checksums
        Of every layer's output; a float pipeline has none.
    stack_bytes
        The deepest the stack has been, some 300 bytes of the program around it included.
    """

    logits: npt.NDArray[Any]
    instructions: int
    layer_instructions: tuple[int, ...]
    checksums: tuple[int, ...]
    stack_bytes: int


def require_qemu() -> str:
    """Return QEMU's version.

    Raises
    ------
    MissingError
        When it is not installed.
    """
    if shutil.which(_QEMU) is None:
        raise MissingError(f"emulating a Cortex-M55 needs {_QEMU}", hint="apt-get install qemu-system-arm")
    told = subprocess.run([_QEMU, "--version"], capture_output=True, text=True, check=False).stdout
    return told.partition("version ")[2].split()[0] if "version " in told else "unknown"


def run_in_qemu(
    elf: bytes,
    windows: npt.NDArray[np.float32],
    *,
    core: str,
    layers: int,
    classes: int,
    answer: npt.DTypeLike = np.int8,
    timeout: float = TIMEOUT_S,
) -> list[Found]:
    """Run raw windows, float32 (n, length, channels), through a program of `build_for_qemu`.

    `answer` is the type of a logit.

    Raises
    ------
    MissingError
        When QEMU is not installed.
    DeviceError
        When it does not end in time.
    CheckFailedError
        When the program does not answer for every window.
    """
    require_qemu()
    with tempfile.TemporaryDirectory(prefix="topokd-qemu-") as name:
        folder = Path(name)
        (folder / "student.elf").write_bytes(elf)
        (folder / "windows.bin").write_bytes(np.ascontiguousarray(windows, dtype="<f4").tobytes())
        machine, per_tick = MACHINES[core]
        command = [_QEMU, "-M", machine, "-display", "none", "-monitor", "none", "-serial", "none"]
        command += ["-semihosting-config", "enable=on,target=native", "-icount", "shift=0"]
        try:
            child = subprocess.run(
                [*command, "-kernel", "student.elf"],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise DeviceError(f"QEMU did not end within {timeout:g} s and was stopped") from None
        answers = (folder / "found.bin").read_bytes() if (folder / "found.bin").is_file() else b""
        said = child.stderr.decode("utf-8", "replace").strip().splitlines()
    kind = np.dtype(answer)
    padding = -classes * kind.itemsize % 4
    record = struct.Struct(f"<i2I{layers}I{layers}I{classes}{kind.char}{padding}x")
    if child.returncode != 0 or len(answers) != record.size * len(windows):
        raise CheckFailedError(
            f"the student ended with status {child.returncode} on the emulated {core} after "
            f"{len(answers) // record.size} of {len(windows)} windows",
            problems=said[-3:],
        )
    return [_found(values, layers, per_tick, kind) for values in record.iter_unpack(answers)]


def build_for_qemu(
    files: Mapping[str, str], core: str, flags: tuple[str, ...], compiler: Compiler = "zig"
) -> bytes:
    """Compile and link the C files with the program that runs windows; return the ELF file.

    Raises
    ------
    MissingError, CheckFailedError
        As `build_firmware`.
    """
    extra = {name: _port(name) for name in ("mps3.c", "wrapped.h", "mps3.ld")}
    return _linked({**files, **extra}, core, (*flags, *WRAP), SOURCES, compiler)


def build_pipeline_for_qemu(
    files: Mapping[str, str],
    sources: Sequence[str],
    core: str,
    flags: tuple[str, ...],
    compiler: Compiler = "zig",
) -> bytes:
    """Do the same with a float pipeline, whose weights may need more room than there is beside the code.

    Raises
    ------
    MissingError, CheckFailedError
        As `build_firmware`.
    """
    apart = _port("mps3.ld").replace(" *(.rodata*) }", " }\n  .rodata 0x01000000 : { *(.rodata*) }")
    extra = {"mps3.c": _port("mps3.c"), "mps3.ld": apart}
    watched = ("-DBENCH_PIPELINE", "-DPIPELINE_WATCHED")
    return _linked({**files, **extra}, core, (*flags, *watched), sources, compiler, fpu=True)


def _port(name: str) -> str:
    return (resources.files("topokd_export.c") / "emulation" / name).read_text("utf-8")


def _linked(
    files: Mapping[str, str],
    core: str,
    flags: tuple[str, ...],
    sources: Sequence[str],
    compiler: Compiler,
    *,
    fpu: bool = False,
) -> bytes:
    own = (*flags, "-Wl,-T,mps3.ld")
    return link(files, core, own, ("mps3.c", *sources), compiler, placed=True, fpu=fpu)


def _found(values: tuple[Any, ...], layers: int, per_tick: float, kind: np.dtype[Any]) -> Found:
    status, ticks, stack = values[:3]
    if status != 0:
        raise CheckFailedError(f"the student answered {status} in QEMU")
    per_layer = values[3 : 3 + layers]
    return Found(
        np.array(values[3 + 2 * layers :], dtype=kind),
        round(ticks * per_tick),
        tuple(round(value * per_tick) for value in per_layer),
        tuple(values[3 + layers : 3 + 2 * layers]),
        stack,
    )
