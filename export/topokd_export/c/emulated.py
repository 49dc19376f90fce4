"""The C student on an emulated Cortex-M: exact counts of instructions, and its answers there.

Compiled by ziglang, run by Unicorn. A count is exact for that compiler and those options; it is not a time.
"""

from __future__ import annotations

import struct
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from topokd_edge.errors import CheckFailedError
from topokd_export.c.host import SOURCES, WARNINGS

CPUS = {
    "cortex_m0plus": "UC_CPU_ARM_CORTEX_M0",
    "cortex_m3": "UC_CPU_ARM_CORTEX_M3",
    "cortex_m4": "UC_CPU_ARM_CORTEX_M4",
    "cortex_m7": "UC_CPU_ARM_CORTEX_M7",
    "cortex_m33+dsp": "UC_CPU_ARM_CORTEX_M33",
}
"""Cores by the compiler's name. Helium (Cortex-M55) is not among what Unicorn runs."""
_ENTRY = """#include "student.h"
static student_t student;
int32_t start(const int8_t *in, int8_t *out);
int32_t start(const int8_t *in, int8_t *out) { return (int32_t)student_invoke(&student, in, out); }
"""
_ROM, _RAM, _SIZE, _RETURN = 0x10000, 0x20000000, 0x100000, 0x9000
_PAINT = b"\xa5"


@dataclass(frozen=True)
class Firmware:
    """A linked student.

    Attributes
    ----------
    cpu
        Of `CPUS`.
    elf
        The whole file.
    segments
        (address, content, size in memory) to load.
    entry
        Where the one function starts.
    """

    cpu: str
    elf: bytes
    segments: tuple[tuple[int, bytes, int], ...]
    entry: int

    @property
    def flash_bytes(self) -> int:
        """Code, constants and initial data."""
        return sum(len(content) for _, content, _ in self.segments)


@dataclass(frozen=True)
class Execution:
    """One run: logits int8 (classes,), instructions, by symbol too, and the deepest stack in bytes."""

    logits: npt.NDArray[np.int8]
    instructions: int
    by_function: dict[str, int]
    stack_bytes: int


def build_firmware(files: Mapping[str, str], cpu: str, flags: Sequence[str] = ("-O2",)) -> Firmware:
    """Compile and link the C files for a core, nothing else in it.

    Raises
    ------
    CheckFailedError
        With what the compiler said.
    """
    target = ["-target", "thumb-freestanding-eabi", f"-mcpu={cpu}"]
    link = ["-Wl,--gc-sections", f"-Wl,--image-base={_ROM:#x}", "-Wl,-e,start", "-ffunction-sections"]
    with tempfile.TemporaryDirectory(prefix="topokd-mcu-") as name:
        folder = Path(name)
        for file, text in {**files, "entry.c": _ENTRY}.items():
            (folder / file).write_text(text, "utf-8")
        command = [sys.executable, "-m", "ziglang", "cc", *target, "-std=c99", *WARNINGS, "-g", *flags, *link]
        child = subprocess.run(
            [*command, "entry.c", *SOURCES, "-o", "student.elf"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if child.returncode != 0:
            raise CheckFailedError(
                f"the C does not compile for {cpu}", problems=child.stderr.strip().splitlines()[:20]
            )
        elf = (folder / "student.elf").read_bytes()
    return Firmware(cpu, elf, tuple(_segments(elf)), struct.unpack_from("<I", elf, 24)[0])


def run_firmware(firmware: Firmware, window: npt.NDArray[np.int8], classes: int) -> Execution:
    """Run one quantised window, int8 (length, channels), and count."""
    import unicorn
    from unicorn import arm_const

    machine = unicorn.Uc(unicorn.UC_ARCH_ARM, unicorn.UC_MODE_THUMB | unicorn.UC_MODE_MCLASS)
    machine.ctl_set_cpu_model(getattr(arm_const, CPUS[firmware.cpu]))
    machine.mem_map(0, _SIZE)
    machine.mem_map(_RAM, _SIZE)
    for address, content, _ in firmware.segments:
        machine.mem_write(address, content)
    top = _RAM + _SIZE
    source, target, stack = top - 0x10000, top - 0x1000, top - 0x20000
    machine.mem_write(source, np.ascontiguousarray(window).tobytes())
    machine.mem_write(stack - 0x1000, _PAINT * 0x1000)
    registers = {"R0": source, "R1": target, "SP": stack, "LR": _RETURN | 1}
    for name, value in registers.items():
        machine.reg_write(getattr(arm_const, f"UC_ARM_REG_{name}"), value)
    blocks: Counter[tuple[int, int]] = Counter()

    def count(_machine: Any, address: int, size: int, _data: Any) -> None:
        blocks[address, size] += 1

    machine.hook_add(unicorn.UC_HOOK_BLOCK, count)
    machine.emu_start(firmware.entry | 1, _RETURN)
    if machine.reg_read(arm_const.UC_ARM_REG_R0) != 0:
        raise CheckFailedError("student_invoke did not answer STUDENT_OK on the emulated core")
    untouched = bytes(machine.mem_read(stack - 0x1000, 0x1000))
    deepest = len(untouched) - (len(untouched) - len(untouched.lstrip(_PAINT)))
    logits = np.frombuffer(bytes(machine.mem_read(target, classes)), dtype=np.int8)
    by_function = _by_function(firmware, machine, blocks)
    return Execution(logits, sum(by_function.values()), by_function, deepest)


def _by_function(firmware: Firmware, machine: Any, blocks: Counter[tuple[int, int]]) -> dict[str, int]:
    functions = sorted(_functions(firmware.elf))
    found: Counter[str] = Counter()
    for (address, size), times in blocks.items():
        name = next((name for start, end, name in functions if start <= address < end), "?")
        found[name] += times * _instructions(bytes(machine.mem_read(address, size)))
    return dict(found)


def _instructions(code: bytes) -> int:
    """Count Thumb instructions: a first halfword of 0b11101, 0b11110 or 0b11111 begins a long one."""
    at = count = 0
    while at < len(code):
        at += 4 if code[at + 1] >> 3 in (0b11101, 0b11110, 0b11111) else 2
        count += 1
    return count


def _segments(elf: bytes) -> list[tuple[int, bytes, int]]:
    """Return the loadable parts of a 32-bit little-endian ELF file."""
    table, size, count = struct.unpack_from("<I", elf, 28)[0], *struct.unpack_from("<HH", elf, 42)
    found = []
    for index in range(count):
        kind, offset, address, _, in_file, in_memory = struct.unpack_from("<6I", elf, table + index * size)
        if kind == 1 and in_memory:
            found.append((address, elf[offset : offset + in_file], in_memory))
    return found


def _functions(elf: bytes) -> list[tuple[int, int, str]]:
    """Return (start, end, name) of every function symbol."""
    table, size, count = struct.unpack_from("<I", elf, 32)[0], *struct.unpack_from("<HH", elf, 46)
    sections = [struct.unpack_from("<10I", elf, table + index * size) for index in range(count)]
    found = []
    for section in (section for section in sections if section[1] == 2):
        names = sections[section[6]][4]
        for at in range(section[4], section[4] + section[5], 16):
            name, value, length, info = struct.unpack_from("<IIIB", elf, at)
            if info & 15 == 2:
                end = elf.index(b"\0", names + name)
                found.append((value & ~1, (value & ~1) + length, elf[names + name : end].decode()))
    return found
