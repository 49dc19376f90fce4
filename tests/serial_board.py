"""The bench firmware of a board in Unicorn: its serial port a pseudo-terminal, registers as the manuals say.

A port sends and hears nothing unless the firmware has set clocks, pins and divider right. Run as a program,
this takes a line of JSON, says the path of the terminal, and is the board.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, ClassVar, Self

PAGE = 0x1000
QUIET = {"seed": 0, "drop": 0.0, "flip": 0.0, "repeat": 0.0, "delay": 0.0}


class Wire:
    """A pseudo-terminal whose bytes may be lost, changed, repeated and late."""

    def __init__(self, noise: dict[str, float], cut_after: int) -> None:
        import pty

        self.master, self.slave = pty.openpty()
        self.path = os.ttyname(self.slave)
        self.random = random.Random(int(noise["seed"]))
        self.noise, self.left = noise, cut_after
        self.waiting = bytearray()

    def through(self, byte: int) -> bytes:
        noise, chance = self.noise, self.random.random
        if noise["delay"] and chance() < noise["delay"]:
            time.sleep(0.05)
        if noise["drop"] and chance() < noise["drop"]:
            return b""
        if noise["flip"] and chance() < noise["flip"]:
            byte ^= 1 << self.random.randrange(8)
        return bytes([byte] * (2 if noise["repeat"] and chance() < noise["repeat"] else 1))

    def ready(self) -> bool:
        if not self.waiting and select.select([self.master], [], [], 0.002)[0]:
            for byte in os.read(self.master, 512):
                self.waiting += self.through(byte)
        return bool(self.waiting)

    def take(self) -> int:
        return self.waiting.pop(0) if self.waiting else 0

    def send(self, byte: int) -> None:
        if self.left == 0:
            os._exit(9)
        self.left -= 1
        os.write(self.master, self.through(byte))


class Registers:
    """Memory that remembers what was written, with some places that behave."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.kept: dict[int, int] = {}
        self.begun = time.monotonic()
        self.hz = 0.0
        self.speed = 1.0
        self.for_fpu = False

    def get(self, address: int) -> int:
        return self.kept.get(address, 0)

    def read(self, address: int) -> int:
        return self.get(address)

    def write(self, address: int, value: int) -> None:
        self.kept[address] = value

    def elapsed(self, hz: float) -> int:
        return int((time.monotonic() - self.begun) * hz * self.speed) & 0xFFFFFFFF

    def runs(self) -> bool:
        """A float is a fault where the unit is off (CPACR); Unicorn's is on after reset already."""
        return not self.for_fpu or self.get(0xE000ED88) >> 20 & 15 == 15

    def cycles(self) -> int:
        on = self.get(0xE000EDFC) >> 24 & 1 and self.get(0xE0001000) & 1
        return self.elapsed(self.hz) if on else 0


class Nrf52840(Registers):
    """nRF52840: UART of the older kind; 64 MHz, which only the crystal makes exact."""

    PAGES = (0x40000000, 0x40002000, 0x4001E000, 0x50000000, 0xE0001000, 0xE000E000)
    UART = 0x40002000

    def on(self) -> bool:
        uart, pins = self.UART, self.get(0x50000518) >> 6 & 1
        right = [self.get(uart + at) for at in (0x500, 0x50C, 0x514, 0x524)]
        return self.runs() and bool(pins) and right == [4, 6, 8, 0x01D7E000] and self.get(0x50000720) & 3 == 0

    def read(self, address: int) -> int:
        if address == self.UART + 0x108 and self.on() and self.get(self.UART):
            return int(bool(self.get(address)) or self.wire.ready())
        if address == self.UART + 0x518:
            return self.wire.take()
        return self.cycles() if address == 0xE0001004 else super().read(address)

    def write(self, address: int, value: int) -> None:
        super().write(address, value)
        if address == 0x40000000 and value == 1:
            self.kept[0x40000100], self.hz = 1, 64e6
        if address == self.UART + 0x51C and self.on() and self.get(self.UART + 8):
            self.wire.send(value & 0xFF)
            self.kept[self.UART + 0x11C] = 1


class Stm32l4r5(Registers):
    """STM32L4R5: after reset 4 MHz from MSI, normal range, flash without wait states, ports analogue."""

    PAGES = (0x40007000, 0x40008000, 0x40021000, 0x40022000, 0x48001000, 0xE0001000, 0xE000E000)
    RCC, UART = 0x40021000, 0x40008000

    def __init__(self, wire: Wire) -> None:
        super().__init__(wire)
        self.kept |= {self.RCC: 0x63, 0x40007080: 0x100, 0x48001800: 0xFFFFFFFF, 0x40022000: 0x600}
        self.kept[self.RCC + 0x0C] = 0x1000
        self.hz = 4e6

    def read(self, address: int) -> int:
        value = super().read(address)
        if address == self.RCC:
            return value | (value >> 8 & 1) << 10 | (value >> 24 & 1) << 25
        if address == self.RCC + 8:
            return value | (value & 3) << 2
        if address == self.UART + 0x1C:
            return 0x80 | (0x20 if self.on() and self.wire.ready() else 0)
        if address == self.UART + 0x24:
            return self.wire.take()
        return self.cycles() if address == 0xE0001004 else value

    def write(self, address: int, value: int) -> None:
        gpio = 0x48001800 <= address < 0x48001C00
        if gpio and not (self.get(self.RCC + 0x4C) >> 6 & 1):
            return
        if PAGE * 8 + 0x40000000 <= address < 0x40009000 and not self.get(self.RCC + 0x5C) & 1:
            return
        super().write(address, value)
        if address == self.RCC + 8:
            self.hz = self.clock()
        if address == self.UART + 0x28 and self.on():
            self.wire.send(value & 0xFF)

    def clock(self) -> float:
        """As the PLL and dividers say; a speed that flash or supply cannot take is a fault."""
        config, pll = self.get(self.RCC + 8), self.get(self.RCC + 0x0C)
        if config & 3 != 3:
            return 4e6
        source = {1: 4e6, 2: 16e6}[pll & 3]
        vco = source / ((pll >> 4 & 15) + 1) * (pll >> 8 & 127)
        assert 64e6 <= vco <= 344e6 and pll >> 24 & 1 and self.get(self.RCC) >> 24 & 1
        system = vco / (2 * (pll >> 25 & 3) + 2)
        divided = {0: 1, 8: 2}[config >> 4 & 15]
        assert system <= 80e6 or not self.get(0x40007080) >> 8 & 1, "boost range"
        assert self.get(0x40022000) & 15 >= 5, "flash wait states"
        assert self.hz >= system / 2 or divided == 2, "80 MHz and above are reached in two steps"
        return system / divided

    def on(self) -> bool:
        alternate = self.get(0x48001820) >> 28 == 8 and self.get(0x48001824) & 15 == 8
        pins = alternate and self.get(0x48001800) >> 14 & 15 == 0b1010 and self.get(0x40007004) >> 9 & 1
        by_hsi = self.get(self.RCC + 0x88) >> 10 & 3 == 2 and self.get(self.RCC) >> 8 & 1
        divider = self.get(self.UART + 0x0C)
        right = divider and abs(256 * 16e6 / divider / 115200 - 1) < 0.01
        return bool(self.runs() and pins and by_hsi and right and self.get(self.UART) & 0b1101 == 0b1101)


class Rp2040(Registers):
    """RP2040: blocks in reset hear nothing; clocks switch only to what runs."""

    PAGES = (0x40008000, 0x4000C000, 0x4000F000, 0x40014000, 0x40024000, 0x40028000, 0x4002B000, 0x40034000)
    PAGES = (*PAGES, 0x40054000, 0x40058000)
    RESETS, CLOCKS, PLL, UART = 0x4000C000, 0x40008000, 0x40028000, 0x40034000
    BLOCKS: ClassVar = {0x40014000: 5, 0x40028000: 12, 0x4002B000: 12, 0x40034000: 22, 0x40054000: 21}

    def __init__(self, wire: Wire) -> None:
        super().__init__(wire)
        self.kept |= {self.RESETS: 0x01FFFFFF, self.PLL: 1, self.PLL + 4: 0x2D, self.PLL + 12: 0x77000}

    def held(self, address: int) -> bool:
        block = self.BLOCKS.get(address & ~0xFFF)
        return block is not None and bool(self.get(self.RESETS) >> block & 1)

    def read(self, address: int) -> int:
        value = super().read(address)
        if self.held(address):
            return 0
        if address == self.RESETS + 8:
            return ~self.get(self.RESETS) & 0x01FFFFFF
        if address == 0x40024004:
            return (self.get(0x40024000) == 0xFABAA0) << 31
        if address in (self.CLOCKS + 0x38, self.CLOCKS + 0x44):
            return 1 << (self.get(address - 8) & 3)
        if address == self.PLL:
            return value | (self.get(self.PLL + 4) & 0b100001 == 0) << 31
        if address == self.UART + 0x18:
            return 0 if self.on() and self.wire.ready() else 0x10
        if address == self.UART:
            return self.wire.take()
        tick = self.get(0x4005802C)
        return self.elapsed(12e6 / (tick & 511)) if address == 0x40054028 and tick >> 9 else value

    def write(self, address: int, value: int) -> None:
        if self.held(address):
            return
        if address & ~0xFFF in (0x4000F000, 0x4002B000):
            address, value = address - 0x3000, self.get(address - 0x3000) & ~value
        super().write(address, value)
        if address == self.CLOCKS + 0x3C and value & 1:
            self.hz = self.clock()
        if address == self.UART and self.on():
            self.wire.send(value & 0xFF)

    def clock(self) -> float:
        assert self.read(self.PLL) >> 31 and not self.get(self.PLL + 4) >> 3 & 1, "the PLL is off"
        assert self.get(self.CLOCKS + 0x30) & 3 == 2 and self.get(self.CLOCKS + 0x3C) >> 5 & 7 == 0
        vco = 12e6 / (self.get(self.PLL) & 63) * self.get(self.PLL + 8)
        assert 750e6 <= vco <= 1600e6
        dividers = self.get(self.PLL + 12)
        return vco / (dividers >> 16 & 7) / (dividers >> 12 & 7)

    def on(self) -> bool:
        pins = self.get(0x40014004) & 31 == 2 and self.get(0x4001400C) & 31 == 2
        divider = self.get(self.UART + 0x24) + self.get(self.UART + 0x28) / 64
        right = divider and abs(self.hz / 16 / divider / 115200 - 1) < 0.01
        set_up = self.get(self.UART + 0x2C) == 0x70 and self.get(self.UART + 0x30) & 0x301 == 0x301
        return bool(pins and right and set_up and self.get(self.CLOCKS + 0x48) >> 11 & 1)


MODELS: dict[str, type[Registers]] = {"nrf52840-dk": Nrf52840, "nucleo-l4r5zi": Stm32l4r5, "pico": Rp2040}


def emulate(board: str, image: bytes, address: int, ram: int, core: str, wire: Wire, speed: float) -> None:
    """Run an image as the chip does after reset: from the vector table in flash, or from the start of RAM."""
    import unicorn
    from topokd_export.c.cores import CORES
    from unicorn import arm_const as arm

    machine = unicorn.Uc(unicorn.UC_ARCH_ARM, unicorn.UC_MODE_THUMB | unicorn.UC_MODE_MCLASS)
    machine.ctl_set_cpu_model(getattr(arm, CORES[core].emulator))
    machine.mem_map(0x20000000, -(-ram // PAGE) * PAGE)
    if address != 0x20000000:
        machine.mem_map(address, -(-len(image) // PAGE) * PAGE, unicorn.UC_PROT_READ | unicorn.UC_PROT_EXEC)
    machine.mem_write(0x20000000, os.urandom(ram))  # RAM is anything after power comes
    machine.mem_write(address, image)
    registers = MODELS[board](wire)
    registers.speed = speed
    registers.for_fpu = b"kernel=FPU" in image
    for page in registers.PAGES:  # type: ignore[attr-defined]
        machine.mmio_map(
            page,
            PAGE,
            lambda _core, offset, _size, base: registers.read(base + offset),
            page,
            lambda _core, offset, _size, value, base: registers.write(base + offset, value),
            page,
        )
    entry = address | 1
    if address != 0x20000000:
        stack, entry = (int.from_bytes(image[at : at + 4], "little") for at in (0, 4))
        machine.reg_write(arm.UC_ARM_REG_SP, stack)
    machine.emu_start(entry, 0xFFFFFFFE)


class EmulatedBoard:
    """A board in a process of its own, as long as the `with` block lasts.

    Parameters
    ----------
    image
        Of `build_board`.
    cut_after
        Bytes the board sends before its power fails; negative is never.
    speed
        Of its clock, over what it should be.
    noise
        Chance of each byte to be lost, changed, doubled or late: `drop`, `flip`, `repeat`, `delay`; `seed`.

    Attributes
    ----------
    path
        Of its serial port.
    """

    def __init__(self, image: Any, *, cut_after: int = -1, speed: float = 1.0, **noise: float) -> None:
        port = image.port
        flash = 0x20000000 if port.flash is None else port.flash.address
        self._job = {
            "board": port.name,
            "image": image.files["bin"].hex(),
            "address": flash,
            "ram": port.ram.size,
            "core": port.core,
            "noise": {**QUIET, **noise},
            "cut_after": cut_after,
            "speed": speed,
        }

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__))], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(self._job) + "\n")
        self.process.stdin.flush()
        self.path = self.process.stdout.readline().strip()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


def main() -> None:
    job = json.loads(sys.stdin.readline())
    wire = Wire(job["noise"], job["cut_after"])
    sys.stdout.write(f"{wire.path}\n")
    sys.stdout.flush()
    with contextlib.suppress(KeyboardInterrupt):
        emulate(
            job["board"],
            bytes.fromhex(job["image"]),
            job["address"],
            job["ram"],
            job["core"],
            wire,
            job["speed"],
        )


if __name__ == "__main__":
    main()
