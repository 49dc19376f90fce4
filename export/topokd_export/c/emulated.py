"""The C student on an emulated core: exact counts of instructions, layer by layer, and its answers there.

Run by Unicorn. A count is exact for one compiler and its options; it is not a time. What an `it` of Arm skips
is counted too: the core spends a cycle on it.
"""

from __future__ import annotations

import collections
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from topokd_edge.errors import CheckFailedError, MissingError
from topokd_export.c.cores import CORES
from topokd_export.c.counter import Counter
from topokd_export.c.firmware import Firmware

INPUT = 0
"""Index of what comes before the first layer: normalising and quantising, with the program `APP`."""
_RAM, _RETURN, _PAGE = 0x20000000, 0x9000, 0x1000
_STACK = 0x10000
_PAINT = b"\xa5"
_KERNEL_PREFIX = "tk_run_"


@dataclass(frozen=True)
class Block:
    """A straight piece of code in one layer; `jumped`: it was reached by a jump and not from above."""

    layer: int
    address: int
    code: bytes
    jumped: bool


@dataclass(frozen=True)
class Execution:
    """One run.

    Attributes
    ----------
    logits
        (classes,): int8, of a float pipeline float32.
    blocks
        How often each piece of code was run; empty when nothing was counted.
    outputs
        What each layer wrote, for the layers that were watched.
    stack_bytes
        The deepest the stack has been.
    by_function
        Instructions by symbol.
    """

    logits: npt.NDArray[Any]
    blocks: dict[Block, int]
    outputs: tuple[bytes, ...]
    stack_bytes: int
    by_function: dict[str, int]

    @property
    def instructions(self) -> int:
        """All of them."""
        return sum(self.by_function.values())


def run_firmware(
    firmware: Firmware,
    window: npt.NDArray[np.int8] | npt.NDArray[np.float32],
    classes: int,
    *,
    count: bool = True,
    watch: Sequence[tuple[int, int]] = (),
    answer: npt.DTypeLike = np.int8,
) -> Execution:
    """Run one window.

    Parameters
    ----------
    firmware
        Of `build_firmware`.
    window
        (length, channels): quantised for the program `NETWORK`, raw samples for `APP`.
    classes
        Number of logits.
    count
        Whether to count.
    watch
        (offset, bytes) in the student's memory of each layer's output, all but the last.
    answer
        Type of a logit.

    Raises
    ------
    MissingError
        When Unicorn is not installed.
    CheckFailedError
        When the program does not end as it should.
    """
    size = classes * np.dtype(answer).itemsize
    machine = _Machine(firmware, np.ascontiguousarray(window).tobytes(), size)
    pieces = machine.run(count or bool(watch), watch)
    logits = np.frombuffer(machine.read(machine.target, size), dtype=answer)
    blocks = {
        Block(layer, address, machine.read(address, size), bool(jumped)): times
        for times, address, size, layer, jumped in pieces
    }
    by_function = _by_function(firmware, blocks)
    return Execution(logits, blocks, tuple(machine.outputs), machine.stack_bytes(), by_function)


def by_layer(execution: Execution, riscv: bool = False) -> list[int]:
    """Return the instructions of every layer; the first entry is what comes before them."""
    found: collections.Counter[int] = collections.Counter()
    for block, times in execution.blocks.items():
        found[block.layer] += times * count_instructions(block.code, riscv=riscv)
    return [found[index] for index in range(max(found) + 1)]


def count_instructions(code: bytes, *, riscv: bool = False) -> int:
    """Count instructions of 2 and 4 bytes.

    Thumb: a first halfword of 0b11101, 0b11110 or 0b11111 begins a long one; RISC-V: one that ends in 0b11.
    """
    at = count = 0
    while at < len(code):
        long = code[at] & 3 == 3 if riscv else code[at + 1] >> 3 in (0b11101, 0b11110, 0b11111)
        at += 4 if long else 2
        count += 1
    return count


class _Machine:
    """An emulated core with the firmware loaded, and what is seen while it runs."""

    def __init__(self, firmware: Firmware, window: bytes, answer: int) -> None:
        try:
            import unicorn
        except ModuleNotFoundError:
            raise MissingError(
                f"running on an emulated {firmware.core} needs the package unicorn",
                hint="pip install 'topokd-edge[mcu]'",
            ) from None
        self._firmware = firmware
        self._core, self._registers = _open(firmware.core)
        self._stopped = unicorn.UcError
        self._block_hook = unicorn.UC_HOOK_BLOCK
        self.top = _RAM + _STACK
        self.source, self.target = self.top, self.top + _pages(len(window))
        low_end = max(address + size for address, _, size in firmware.segments)
        self._core.mem_map(0, _pages(low_end))
        # Memory that no code is run from is quicker to write to.
        data = unicorn.UC_PROT_READ | unicorn.UC_PROT_WRITE
        self._core.mem_map(_RAM, self.target - _RAM + _pages(answer), data)
        for address, content, _ in firmware.segments:
            self._core.mem_write(address, content)
        self._core.mem_write(self.source, window)
        self._core.mem_write(_RAM, _PAINT * _STACK)
        self.outputs: list[bytes] = []

    def run(self, count: bool, watch: Sequence[tuple[int, int]]) -> list[tuple[int, ...]]:
        """Call the one function of the firmware and come back; return what `Counter.pieces` found."""
        thumb = 0 if CORES[self._firmware.core].is_riscv else 1
        values = (self.source, self.target, self.top, _RETURN | thumb)
        for name, value in zip(self._registers, values, strict=True):
            self._core.reg_write(name, value)
        functions = self._firmware.functions
        kernels = {start for name, (start, _) in functions.items() if name.startswith(_KERNEL_PREFIX)}
        counter = Counter(self._core, kernels) if count else None
        if watch:
            self._watch(kernels, watch)
        try:
            self._core.emu_start(self._firmware.entry | thumb, _RETURN)
        except self._stopped as error:
            raise CheckFailedError(
                f"the student crashed on the emulated {self._firmware.core}: {error}"
            ) from None
        answer = self._core.reg_read(self._registers[0])
        if answer != 0:
            raise CheckFailedError(f"the student answered {answer} on the emulated {self._firmware.core}")
        return [] if counter is None else counter.pieces().tolist()

    def read(self, address: int, size: int) -> bytes:
        """Return memory."""
        return bytes(self._core.mem_read(address, size))

    def stack_bytes(self) -> int:
        """Return how far down the paint is gone."""
        stack = self.read(_RAM, _STACK)
        return len(stack.lstrip(_PAINT))

    def _watch(self, kernels: set[int], watch: Sequence[tuple[int, int]]) -> None:
        """Keep what each layer wrote, once the next one begins."""
        memory = self._firmware.objects["student"][0]
        layer = INPUT

        def begins(_core: Any, _address: int, _size: int, _data: Any) -> None:
            nonlocal layer
            if INPUT < layer <= len(watch):
                offset, length = watch[layer - 1]
                self.outputs.append(self.read(memory + offset, length))
            layer += 1

        for address in kernels:
            self._core.hook_add(self._block_hook, begins, begin=address, end=address)


def _open(core: str) -> tuple[Any, tuple[int, int, int, int]]:
    """Return an emulator of a core, and its registers: two arguments, stack pointer, return address."""
    import unicorn

    chosen = CORES[core]
    if not chosen.emulator:
        raise MissingError(f"Unicorn does not have the {core}", hint="it runs in QEMU")
    if chosen.is_riscv:
        from unicorn import riscv_const as riscv

        machine = unicorn.Uc(unicorn.UC_ARCH_RISCV, unicorn.UC_MODE_RISCV32)
        machine.ctl_set_cpu_model(getattr(riscv, chosen.emulator))
        names = ("A0", "A1", "SP", "RA")
        return machine, tuple(getattr(riscv, f"UC_RISCV_REG_{name}") for name in names)
    from unicorn import arm_const as arm

    machine = unicorn.Uc(unicorn.UC_ARCH_ARM, unicorn.UC_MODE_THUMB | unicorn.UC_MODE_MCLASS)
    machine.ctl_set_cpu_model(getattr(arm, chosen.emulator))
    return machine, tuple(getattr(arm, f"UC_ARM_REG_{name}") for name in ("R0", "R1", "SP", "LR"))


def _pages(size: int) -> int:
    return -(-size // _PAGE) * _PAGE


def _by_function(firmware: Firmware, blocks: dict[Block, int]) -> dict[str, int]:
    riscv = CORES[firmware.core].is_riscv
    functions = sorted((start, end, name) for name, (start, end) in firmware.functions.items())
    starts = [start for start, _, _ in functions]
    found: collections.Counter[str] = collections.Counter()
    for block, times in blocks.items():
        at = bisect_right(starts, block.address) - 1
        inside = at >= 0 and block.address < functions[at][1]
        found[functions[at][2] if inside else "?"] += times * count_instructions(block.code, riscv=riscv)
    return dict(found)
