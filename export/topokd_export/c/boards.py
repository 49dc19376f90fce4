"""The bench firmware of real boards: a pipeline and a program that answers a bench over a serial port."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

from topokd_edge.errors import CheckFailedError, UsageError
from topokd_export.c import literals
from topokd_export.c.board_programs import Program
from topokd_export.c.firmware import compiler_version, link
from topokd_export.c.images import RP2040_FAMILY, flat, intel_hex, load_parts, uf2
from topokd_export.c.on_core import Needs

BAUD = 115_200
STACK_BYTES = 0x4000
"""Kept free for the stack, and painted to see how deep it goes."""
LEAST = Needs(ram_bytes=3_100, flash_bytes=10_000)
"""Of every image beside its pipeline's own: frames in memory; the code of kernels and bench."""
_SHARED = ("topokd_serial.h", "topokd_serial.c", "board.h", "bench.c", "startup.c")
_PROGRAM = ("startup.c", "bench.c", "topokd_serial.c")
_VECTORS, _CODE = "KEEP(*(.vectors))", "KEEP(*(.first))"


@dataclass(frozen=True)
class Place:
    """Memory: address and bytes."""

    address: int
    size: int


@dataclass(frozen=True)
class BoardPort:
    """A board the firmware is built for.

    Attributes
    ----------
    name, title
        As users write it, and as its maker does.
    core
        A key of `CORES`.
    source
        C file with its clocks, pins and serial port.
    flash
        Where the program lies; None when all of it lies in RAM.
    ram
        Where everything else does.
    suffix
        Of the image that its programmer takes: `hex`, `bin` or `uf2`.
    flashing
        How a person gets it there, one sentence.
    """

    name: str
    title: str
    core: str
    source: str
    flash: Place | None
    ram: Place
    suffix: str
    flashing: str


BOARD_PORTS = {
    port.name: port
    for port in (
        BoardPort(
            "nrf52840-dk",
            "Nordic nRF52840-DK",
            "cortex-m4",
            "nrf52840.c",
            Place(0, 0x100000),
            Place(0x20000000, 0x40000),
            "hex",
            "copy the .hex to the drive JLINK, or: nrfjprog --program FILE --chiperase --reset",
        ),
        BoardPort(
            "nucleo-l4r5zi",
            "ST NUCLEO-L4R5ZI",
            "cortex-m4",
            "stm32l4r5.c",
            Place(0x08000000, 0x200000),
            Place(0x20000000, 0x30000),
            "bin",
            "copy the .bin to the drive NOD_L4R5ZI, or: st-flash write FILE 0x8000000",
        ),
        BoardPort(
            "pico",
            "Raspberry Pi Pico",
            "cortex-m0plus",
            "rp2040.c",
            None,
            Place(0x20000000, 0x42000),
            "uf2",
            "hold BOOTSEL while plugging in, copy the .uf2 to the drive RPI-RP2; it is gone when power is",
        ),
    )
}
"""RAM of the STM32: only its first bank, which every access reaches without wait states."""


@dataclass(frozen=True)
class BoardImage:
    """A built firmware.

    Attributes
    ----------
    port
        The board.
    files
        By suffix: `elf` for a debugger, the images `bin` and `hex`, and `uf2` for boards that take it.
    about
        What it says of itself over the wire.
    """

    port: BoardPort
    files: Mapping[str, bytes]
    about: Mapping[str, str]


def open_port(name: str) -> BoardPort:
    """Return a board by name.

    Raises
    ------
    UsageError
        When there is none.
    """
    if name not in BOARD_PORTS:
        raise UsageError(f"no board {name!r}: expected one of {', '.join(BOARD_PORTS)}")
    return BOARD_PORTS[name]


def build_board(program: Program, digest: str, port: BoardPort) -> BoardImage:
    """Build the firmware that benches a pipeline on a board.

    Parameters
    ----------
    program
        The pipeline, for the board's core.
    digest
        SHA-256 of the bundle, hexadecimal, which the firmware says over the wire.
    port
        The board.

    Raises
    ------
    MissingError
        When ziglang is not installed.
    CheckFailedError
        When the pipeline does not fit, or the C does not compile.
    """
    _refuse_misfit(program, port)
    about = {
        "board": port.name,
        "core": port.core,
        "pipeline": program.pipeline,
        "compiler": compiler_version("zig"),
        "kernel": program.kernel,
        "flags": " ".join(program.flags),
        "code": "RAM" if port.flash is None else "flash",
    }
    folder = resources.files("topokd_export.c") / "boards"
    texts = {name: (folder / name).read_text("utf-8") for name in (*_SHARED, port.source)}
    texts["board.ld"] = _script((folder / "board.ld").read_text("utf-8"), port)
    texts["config.h"] = _config(program, digest, about)
    elf = link(
        {**program.files, **texts},
        port.core,
        (*program.flags, *program.more_flags, "-Wl,-T,board.ld"),
        (*_PROGRAM, port.source, *program.sources),
        placed=True,
        fpu=program.fpu,
    )
    return BoardImage(port, _images(elf, port), about)


def _images(elf: bytes, port: BoardPort) -> dict[str, bytes]:
    parts = load_parts(elf)
    files = {"elf": elf, "bin": flat(parts)[1], "hex": intel_hex(parts).encode("ascii")}
    return {**files, "uf2": uf2(parts, RP2040_FAMILY)} if port.suffix == "uf2" else files


def _refuse_misfit(program: Program, port: BoardPort) -> None:
    """Refuse what cannot fit before anything is built: samples of a window are kept as floats."""
    needs = program.needs
    ram = needs.ram_bytes + LEAST.ram_bytes + program.window_bytes + STACK_BYTES
    code = needs.flash_bytes + LEAST.flash_bytes
    limits = {"RAM": (ram + (code if port.flash is None else 0), port.ram.size)}
    if port.flash is not None:
        limits["flash"] = (code, port.flash.size)
    problems = [
        f"{kind}: needs over {need:,} bytes, {port.title} has {have:,}"
        for kind, (need, have) in limits.items()
        if need > have
    ]
    if problems:
        raise CheckFailedError(
            f"{program.pipeline} does not fit {port.title}",
            problems=problems,
            hint="take another board, or train a narrower model or shorter windows",
        )


def _config(program: Program, digest: str, about: Mapping[str, str]) -> str:
    text = literals.string("".join(f"{key}={value}\n" for key, value in about.items()))
    values = ", ".join(f"0x{byte:02x}" for byte in bytes.fromhex(digest))
    numbers = {"DIGEST": values, "ABOUT": text, "STACK_BYTES": f"{STACK_BYTES}U"}
    numbers["OUTPUTS"] = ", ".join(f"{{{value}U, {size}U}}" for value, size in (*program.outputs, (0, 0)))
    return "".join(f"#define BENCH_{key} {value}\n" for key, value in numbers.items())


def _script(template: str, port: BoardPort) -> str:
    places = {"RAM": port.ram} if port.flash is None else {"FLASH": port.flash, "RAM": port.ram}
    values = {
        "TITLE": port.title,
        "WHERE": "RAM alone" if port.flash is None else "flash and RAM",
        "MEMORY": "\n".join(
            f"  {name} (rwx) : ORIGIN = {place.address:#x}, LENGTH = {place.size:#x}"
            for name, place in places.items()
        ),
        "CODE": "RAM" if port.flash is None else "FLASH",
        "FIRST": f"{_CODE} {_VECTORS}" if port.flash is None else f"{_VECTORS} {_CODE}",
        "STACK_BYTES": str(STACK_BYTES),
    }
    for key, value in values.items():
        template = template.replace(f"@{key}@", value)
    return template
