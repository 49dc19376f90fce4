"""The bench firmware of real boards in emulators, its images, and wires that fail."""

from __future__ import annotations

import contextlib
import random
import re
import shutil
import struct
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from c_cases import app, graph_of, tflm_logits
from serial_cases import DIGEST, cases, connected, content, every_board, image, program
from test_serial_frames import a_frame, damaged
from topokd_bench.serial import link
from topokd_bench.serial.board import Board
from topokd_bench.serial.frames import VERSION, Frame, Unpacker, pack
from topokd_bench.serial.link import Kind, Link, RefusedError, Why
from topokd_bench.serial.port import Port
from topokd_export.c import boards
from topokd_export.c.boards import Place, build_board, open_port
from topokd_export.c.images import RP2040_FAMILY, flat, intel_hex, load_parts, uf2
from topokd_export.c.on_core import reference

from topokd_edge.errors import CheckFailedError, UsageError


@every_board
def test_a_board_boots_and_answers_as_the_reference(name: str) -> None:
    """Clocks, pins and divider as the manuals say, or the port is dead; logits as of TFLite Micro."""
    graph = graph_of(content())
    levels, windows = cases()
    expected = reference(graph, app(graph), levels)
    logits = tflm_logits(content(), levels)
    with connected(image(name)) as (board, talk):
        hello = board.greet()
        assert (hello.digest, hello.about["board"], hello.about["core"]) == (
            DIGEST,
            name,
            open_port(name).core,
        )
        assert hello.clock_hz == {"nrf52840-dk": 64e6, "nucleo-l4r5zi": 120e6, "pico": 125e6}[name]
        assert (hello.length, hello.channels) == levels.shape[1:] and hello.classes == logits.shape[1]
        assert hello.image_bytes == len(image(name).files["bin"])
        assert board.ticks_hz_seen(0.5) == pytest.approx(hello.ticks_hz, rel=0.02)
        for window, (sums, _), wanted in zip(windows, expected, logits, strict=True):
            board.load(window)
            ran = board.run()
            assert (ran.logits == wanted).all() and 0 < ran.ns < 5e9
            again, checksums = board.layers()
            assert (again == wanted).all() and checksums[:-1] == sums[:-1]
        assert 100 < board.stack_bytes() < 2000
        assert talk.repeats == 0


@every_board
def test_the_images_hold_what_was_linked(name: str, tmp_path: Path) -> None:
    """An ELF file, read by binutils, gives the same flat image; so does the HEX file."""
    files, place = image(name).files, open_port(name)
    copy = shutil.which("arm-none-eabi-objcopy") or shutil.which("objcopy")
    if copy is None:
        pytest.skip("needs binutils")
    (tmp_path / "x.hex").write_bytes(files["hex"])
    subprocess.run([copy, "-I", "ihex", "-O", "binary", "x.hex", "hex.bin"], cwd=tmp_path, check=True)
    assert (tmp_path / "hex.bin").read_bytes() == files["bin"]
    (tmp_path / "x.elf").write_bytes(files["elf"])
    if "arm" in copy:
        subprocess.run([copy, "-O", "binary", "x.elf", "elf.bin"], cwd=tmp_path, check=True)
        assert (tmp_path / "elf.bin").read_bytes().rstrip(b"\0") == files["bin"].rstrip(b"\0")
    first, _ = flat(load_parts(files["elf"]))
    assert first == (0x20000000 if place.flash is None else place.flash.address)
    if place.flash is not None:
        stack, start = struct.unpack_from("<2I", files["bin"])
        assert (
            stack == place.ram.address + place.ram.size
            and start & 1
            and start & ~1 < first + len(files["bin"])
        )
    assert ("uf2" in files) == (place.suffix == "uf2")


def test_the_same_bundle_gives_the_same_image() -> None:
    again = build_board(program(), DIGEST, open_port("nrf52840-dk"))
    assert again.files["bin"] == image().files["bin"]


def test_uf2_is_blocks_that_put_the_image_back_together() -> None:
    parts = [(0x20000000, bytes(range(256)) * 2 + b"end"), (0x20000300, b"more")]
    blocks = [uf2(parts, RP2040_FAMILY)[at : at + 512] for at in range(0, 2048, 512)]
    memory = bytearray(b"\xff" * 1024)
    for index, block in enumerate(blocks):
        *magic, flags, address, size, number, count, family = struct.unpack_from("<8I", block)
        assert magic == [0x0A324655, 0x9E5D5157] and block[-4:] == bytes.fromhex("306fb10a")
        assert (flags, size, number, count, family) == (0x2000, 256, index, 4, 0xE48BFF56)
        memory[address - 0x20000000 :][:size] = memory[address - 0x20000000 :][:size]
        memory[address - 0x20000000 : address - 0x20000000 + size] = block[32 : 32 + size]
    assert (
        memory[:515] == parts[0][1] and memory[0x300:0x304] == b"more" and memory[515:0x300] == b"\xff" * 253
    )


def test_hex_crosses_64_kilobytes_and_has_its_checksums() -> None:
    """The data record is the example of Intel's specification as Wikipedia has it."""
    example = bytes.fromhex("214601360121470136007EFE09D21901")
    assert ":10010000214601360121470136007EFE09D2190140" in intel_hex([(0x100, example)]).splitlines()
    lines = intel_hex([(0x0800FFF8, bytes(16))]).splitlines()
    assert lines[0] == ":020000040800F2" and lines[2] == ":020000040801F1" and lines[-1] == ":00000001FF"
    assert all(sum(bytes.fromhex(line[1:])) & 0xFF == 0 for line in lines)


def test_parts_that_overlap_and_no_parts_are_refused() -> None:
    for parts in ([], [(0, b"ab"), (1, b"c")]):
        with pytest.raises(ValueError, match=r"overlap|at least one"):
            flat(parts)


def test_a_student_that_does_not_fit_is_refused_with_the_numbers() -> None:
    small = replace(open_port("nrf52840-dk"), ram=Place(0x20000000, 0x4400), flash=Place(0, 100))
    with pytest.raises(CheckFailedError, match="does not fit") as caught:
        build_board(program(), DIGEST, small)
    assert [text.partition(":")[0] for text in caught.value.problems] == ["RAM", "flash"]
    with pytest.raises(UsageError, match=r"nrf52840-dk, nucleo-l4r5zi, pico"):
        open_port("arduino")


@pytest.mark.slow
def test_code_that_does_not_fit_is_refused_by_the_linker() -> None:
    graph = graph_of(content())
    room = sum(layer.weight.size for layer in graph.layers if hasattr(layer, "weight"))
    room += boards.LEAST.flash_bytes + 100
    small = replace(open_port("nrf52840-dk"), flash=Place(0, room))
    with pytest.raises(CheckFailedError) as caught:
        build_board(program(), DIGEST, small)
    assert "FLASH" in str(caught.value)


# --- a wire that fails


@pytest.mark.parametrize(
    "seed", [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)]
)
def test_a_wire_that_loses_changes_doubles_and_delays_bytes_gives_the_same(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "ANSWER_S", 0.2)
    levels, windows = cases()
    wanted = tflm_logits(content(), levels)
    noise = {"seed": seed, "drop": 4e-4, "flip": 4e-4, "repeat": 4e-4, "delay": 1e-4}
    with connected(image(), **noise) as (board, talk):
        hello = board.greet()
        assert hello.digest == DIGEST
        for _ in range(3):
            for window, logits in zip(windows, wanted, strict=True):
                board.load(window)
                assert (board.run().logits == logits).all()
        assert talk.repeats > 3


def test_a_board_that_forgot_the_window_is_sent_it_again() -> None:
    levels, windows = cases()
    with connected(image()) as (board, talk):
        board.greet()
        board.load(windows[1])
        board._window = windows[3].astype("<f4").tobytes()
        with pytest.raises(RefusedError) as caught:
            talk.ask(Kind.RUN, bytes(4))
        assert caught.value.why == Why.WINDOW
        assert (board.run().logits == tflm_logits(content(), levels[3:])[0]).all()


WINDOW = 38 * 6 * 4
"""Bytes of a window of the small student."""


@pytest.mark.parametrize(
    ("kind", "payload", "why"),
    [
        (Kind.SAMPLES, b"abc", Why.LENGTH),
        (Kind.SAMPLES, struct.pack("<I", 10**6) + b"x", Why.PLACE),
        (Kind.SAMPLES, struct.pack("<I", 0xFFFFFFFF) + b"xx", Why.PLACE),
        (Kind.SAMPLES, struct.pack("<I", WINDOW - 1) + b"xx", Why.PLACE),
        (Kind.SAMPLES, struct.pack("<I", WINDOW + 1), Why.PLACE),
        (Kind.SAMPLES, struct.pack("<I", WINDOW - 2) + b"xx", None),
        (Kind.SAMPLES, struct.pack("<I", 0) + bytes(100), None),
        (Kind.RUN, b"", Why.LENGTH),
        (Kind.HELLO, b"x", Why.LENGTH),
        (Kind.TAKEN, b"", Why.KIND),
    ],
)
def test_the_firmware_refuses_what_makes_no_sense(
    shared_board: Link, kind: Kind, payload: bytes, why: Why | None
) -> None:
    assert cases(1)[1].nbytes == WINDOW
    with contextlib.nullcontext() if why is None else pytest.raises(RefusedError) as caught:
        shared_board.ask(kind, payload)
    assert why is None or caught.value.why == why


@pytest.mark.slow
def test_six_thousand_wild_requests_leave_the_firmware_well() -> None:
    """Whole frames of any kind and content, and damaged ones; afterwards it answers as before."""
    rng = random.Random(8)
    levels, windows = cases()
    with connected(image()) as (board, talk):
        for _ in range(6000):
            kind = rng.choice([*Kind, rng.randrange(256)])
            frame = Frame(
                kind,
                rng.randrange(256),
                a_frame(rng).payload,
                rng.choice([VERSION, VERSION, VERSION, rng.randrange(256)]),
            )
            talk._wire.write(pack(frame) if rng.random() < 0.7 else damaged(rng, pack(frame)))
            talk._wire.read(time.monotonic() + 0.02)
        time.sleep(0.5)
        while talk._wire.read(time.monotonic() + 0.2):
            pass
        talk._wire.write(b"\0")
        assert board.greet().digest == DIGEST
        board.load(windows[3])
        assert (board.run().logits == tflm_logits(content(), levels[3:])[0]).all()


def test_the_firmware_answers_another_version_with_its_own(shared_board: Link) -> None:
    wire = shared_board._wire
    wire.write(pack(Frame(Kind.HELLO, 77, version=9)))
    unpacker, found = Unpacker(), []
    while not found:
        found = [
            frame
            for frame in unpacker.feed(wire.read(time.monotonic() + 5.0))
            if frame and frame.sequence == 77
        ]
    assert found == [Frame(Kind.ERROR, 77, bytes([Why.VERSION]), 2)]


@pytest.fixture(scope="module")
def shared_board() -> Iterator[Link]:
    with connected(image()) as (board, talk):
        board.greet()
        yield talk


# --- in QEMU, whose peripherals others wrote

SAME_PORT = """#define UART 0x4000C000U
#define board_init chip_init
#include "rp2040.c"
#undef board_init
void chip_init(void);
void board_init(void)
{
    UART_LINE = (3U << 5) | (1U << 4);
    UART_CONTROL = (1U << 9) | (1U << 8) | 1U;
}
"""
"""The Pico's port on the Stellaris board: both are Arm's PL011; clocks and pins are of another maker."""


@contextlib.contextmanager
def in_qemu(machine: str, elf: bytes, folder: Path) -> Iterator[Board]:
    (folder / "bench.elf").write_bytes(elf)
    command = ["qemu-system-arm", "-M", machine, "-display", "none", "-monitor", "none", "-serial", "pty"]
    child = subprocess.Popen(
        [*command, "-kernel", "bench.elf"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert child.stdout is not None
    try:
        path = re.search(r"/dev/pts/\d+", child.stdout.readline())
        assert path is not None
        with Port(path[0]) as opened:
            yield Board(Link(opened, work_s=5.0))
    finally:
        child.kill()
        child.communicate()


def every_layer_is_right(board: Board) -> None:
    graph = graph_of(content())
    levels, windows = cases()
    assert board.greet().digest == DIGEST
    for window, (sums, logits) in zip(windows, reference(graph, app(graph), levels), strict=True):
        board.load(window)
        found, checksums = board.layers()
        assert found.tobytes() == logits and checksums[:-1] == sums[:-1]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("qemu-system-arm") is None, reason="needs QEMU")
def test_the_nordic_port_talks_through_qemus_nrf51(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The nRF51 of QEMU's micro:bit has the UART and clock that the nRF52840 keeps, and an older core."""
    monkeypatch.setattr(boards, "STACK_BYTES", 0x1000)
    small = {"core": "cortex-m0plus", "flash": Place(0, 0x40000), "ram": Place(0x20000000, 0x4000)}
    own = build_board(program("cortex-m0plus"), DIGEST, replace(open_port("nrf52840-dk"), **small))
    with in_qemu("microbit", own.files["elf"], tmp_path) as board:
        every_layer_is_right(board)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("qemu-system-arm") is None, reason="needs QEMU")
def test_the_picos_port_talks_through_qemus_pl011(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = replace(
        open_port("pico"), core="cortex-m3", flash=Place(0, 0x40000), ram=Place(0x20000000, 0x10000)
    )
    link_as_it_is = boards.link

    def link_with_own_start(files: dict[str, str], core: str, *more: Any, **how: Any) -> bytes:
        files = {**files, "same.c": SAME_PORT}
        flags, sources = more
        return link_as_it_is(files, core, flags, [s.replace("rp2040.c", "same.c") for s in sources], **how)

    monkeypatch.setattr(boards, "link", link_with_own_start)
    built = build_board(program("cortex-m3"), DIGEST, own)
    with in_qemu("lm3s6965evb", built.files["elf"], tmp_path) as board:
        every_layer_is_right(board)
