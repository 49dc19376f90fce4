"""Frames on the wire: the parsers of host and firmware against each other, published vectors, noise."""

from __future__ import annotations

import ctypes
import random
import subprocess
import time
import zlib
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from topokd_bench.serial.board import Board, Hello
from topokd_bench.serial.frames import MOST_PAYLOAD, VERSION, Frame, Unpacker, pack, stuff, unstuff
from topokd_bench.serial.link import ATTEMPTS, Kind, Link, RefusedError, Why
from topokd_export.c.host import compile_c, find_compiler

from topokd_edge.errors import DeviceError

SOURCES = resources.files("topokd_export.c") / "boards"
SHIM = """#include <stdio.h>
#include <stdlib.h>
#include "topokd_serial.h"
static uint8_t *to;
static uint32_t written;
static void put(uint8_t byte) { to[written] = byte; written++; }
uint32_t pack(uint8_t kind, uint8_t sequence, const uint8_t *payload, uint32_t count, uint8_t *out);
uint32_t pack(uint8_t kind, uint8_t sequence, const uint8_t *payload, uint32_t count, uint8_t *out)
{
    ts_frame frame;
    ts_begin(&frame, kind, sequence);
    if (ts_add(&frame, payload, count) == 0) { return 0U; }
    to = out;
    written = 0U;
    ts_send(&frame, put);
    return written;
}
/* Each event as its length (0 for damaged) and bytes. */
uint32_t feed(const uint8_t *in, uint32_t count, uint8_t *out);
uint32_t feed(const uint8_t *in, uint32_t count, uint8_t *out)
{
    static ts_receiver receiver;
    uint32_t i, j, at = 0U;
    receiver = (ts_receiver){0};
    for (i = 0U; i < count; i++) {
        const ts_event event = ts_feed(&receiver, in[i]);
        const uint32_t length = (event == TS_FRAME) ? receiver.frame.length : 0U;
        if (event == TS_MORE) { continue; }
        out[at++] = (uint8_t)(length & 0xFFU);
        out[at++] = (uint8_t)(length >> 8);
        for (j = 0U; j < length; j++) { out[at++] = receiver.frame.body[j]; }
    }
    return at;
}
#ifdef ALONE
int main(void)
{
    static uint8_t in[1U << 22], out[1U << 23], again[1U << 12];
    const uint32_t count = (uint32_t)fread(in, 1U, sizeof(in), stdin);
    const uint32_t events = feed(in, count, out);
    uint32_t i;
    for (i = 0U; i < 2000U; i++) { (void)pack(in[i], in[i + 1U], &in[i], (i * 7U) % 1100U, again); }
    printf("%u", (unsigned)events);
    return 0;
}
#endif
"""
COBS = [
    ("00", "0101"),
    ("0000", "010101"),
    ("001100", "01021101"),
    ("11220033", "0311220233"),
    ("11223344", "0511223344"),
    ("11000000", "0211010101"),
    (bytes(range(1, 255)).hex(), "ff" + bytes(range(1, 255)).hex()),
    (bytes(range(0, 255)).hex(), "01ff" + bytes(range(1, 255)).hex()),
    (bytes(range(1, 256)).hex(), "ff" + bytes(range(1, 255)).hex() + "02ff"),
    ((bytes(range(2, 256)) + b"\0").hex(), "ff" + bytes(range(2, 256)).hex() + "0101"),
    ((bytes(range(3, 256)) + b"\0\1").hex(), "fe" + bytes(range(3, 256)).hex() + "0201"),
]
"""Of https://en.wikipedia.org/wiki/Consistent_Overhead_Byte_Stuffing, without the last zero."""


@pytest.fixture(scope="module")
def firmware(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The firmware's frames, compiled for this machine."""
    folder = tmp_path_factory.mktemp("frames")
    sources(folder)
    compile_c(folder, ("shim.c", "topokd_serial.c"), folder / "frames.so", ("-shared", "-fPIC", "-O1"))
    return ctypes.CDLL(str(folder / "frames.so"))


def sources(folder: Path) -> None:
    for name in ("topokd_serial.h", "topokd_serial.c"):
        (folder / name).write_text((SOURCES / name).read_text())
    (folder / "shim.c").write_text(SHIM)


def c_pack(firmware: ctypes.CDLL, frame: Frame) -> bytes:
    out = ctypes.create_string_buffer(4096)
    size = firmware.pack(frame.kind, frame.sequence, frame.payload, len(frame.payload), out)
    return out.raw[:size]


def c_feed(firmware: ctypes.CDLL, data: bytes) -> list[Frame | None]:
    out = ctypes.create_string_buffer(2 * len(data) + 16)
    raw, found, at = out.raw[: firmware.feed(data, len(data), out)], [], 0
    raw = out.raw[: len(raw)]
    while at < len(raw):
        length = raw[at] + 256 * raw[at + 1]
        body, at = raw[at + 2 : at + 2 + length], at + 2 + length
        found.append(Frame(body[1], body[2], body[3:], body[0]) if length else None)
    return found


def a_frame(rng: random.Random) -> Frame:
    """Any frame: often short, often with many zeros, sometimes of the greatest length."""
    short = [rng.randrange(30) for _ in range(4)]
    size = rng.choice([0, 1, *short, rng.randrange(253, 257), rng.randrange(MOST_PAYLOAD + 1)])
    payload = bytes(byte if byte & 1 else 0 for byte in rng.randbytes(size))
    return Frame(rng.randrange(256), rng.randrange(256), payload)


def damaged(rng: random.Random, data: bytes) -> bytes:
    """The same with bits flipped, bytes lost, doubled and put in."""
    out = bytearray()
    for byte in data:
        way = rng.random()
        if way < 0.01:
            out.append(byte ^ 1 << rng.randrange(8))
        elif way < 0.02:
            out += bytes([byte, byte])
        elif way < 0.03:
            out.append(rng.randrange(256))
        elif way > 0.04:
            out.append(byte)
    return bytes(out)


@pytest.mark.parametrize(("plain", "stuffed"), COBS)
def test_stuffing_is_that_of_the_published_examples(plain: str, stuffed: str) -> None:
    assert stuff(bytes.fromhex(plain)).hex() == stuffed
    assert unstuff(bytes.fromhex(stuffed)) == bytes.fromhex(plain)


@given(st.binary(max_size=1500))
def test_stuffing_holds_no_zero_and_comes_back(body: bytes) -> None:
    assert 0 not in stuff(body) and unstuff(stuff(body)) == body


def test_a_frame_is_written_out() -> None:
    body = b"\x02\x03\x05\x00\xff"
    crc = zlib.crc32(body).to_bytes(4, "little")
    assert pack(Frame(3, 5, b"\x00\xff")) == b"\0" + stuff(body + crc) + b"\0"
    assert zlib.crc32(b"123456789") == 0xCBF43926  # the check value of this CRC


def test_both_sides_pack_alike(firmware: ctypes.CDLL) -> None:
    rng = random.Random(1)
    for _ in range(500):
        frame = a_frame(rng)
        assert c_pack(firmware, frame) == pack(frame)
    assert c_pack(firmware, Frame(1, 1, b"x" * MOST_PAYLOAD)) and not firmware.pack(
        1, 1, b"x" * 1025, 1025, None
    )
    with pytest.raises(ValueError, match="at most 1024"):
        pack(Frame(1, 1, b"x" * 1025))


def test_both_sides_find_the_same_in_six_thousand_damaged_frames(firmware: ctypes.CDLL) -> None:
    rng = random.Random(2)
    whole = broken = 0
    for _ in range(300):
        stream = b"".join(damaged(rng, pack(a_frame(rng))) for _ in range(20))
        found = list(Unpacker().feed(stream))
        assert found == c_feed(firmware, stream)
        whole += sum(frame is not None for frame in found)
        broken += sum(frame is None for frame in found)
    assert whole > 2000 and broken > 2000


def test_a_stream_in_pieces_is_the_same_stream() -> None:
    rng = random.Random(3)
    stream = b"".join(damaged(rng, pack(a_frame(rng))) for _ in range(200))
    whole, unpacker, found, at = list(Unpacker().feed(stream)), Unpacker(), [], 0
    while at < len(stream):
        size = rng.randrange(1, 40)
        found += list(unpacker.feed(stream[at : at + size]))
        at += size
    assert found == whole


def test_a_frame_after_any_garbage_is_found_and_memory_is_bounded(firmware: ctypes.CDLL) -> None:
    rng = random.Random(4)
    frame = Frame(2, 7, b"after")
    for size in (1, 10, 1000, 100_000):
        stream = rng.randbytes(size) + pack(frame)
        assert list(Unpacker().feed(stream))[-1] == frame == c_feed(firmware, stream)[-1]
    unpacker = Unpacker()
    assert list(unpacker.feed(b"\x05" * 1_000_000)) == []
    assert len(unpacker._stuffed) < 1100


def test_the_longest_frame_with_bytes_behind_it_is_none(firmware: ctypes.CDLL) -> None:
    body = unstuff(pack(Frame(1, 2, b"x" * MOST_PAYLOAD))[1:-1])
    assert body is not None
    for more, whole in ((b"", True), (b"y", False), (b"y" * 500, False)):
        stream = b"\0" + stuff(body + more) + b"\0"
        assert [frame is not None for frame in Unpacker().feed(stream)] == [whole]
        assert [frame is not None for frame in c_feed(firmware, stream)] == [whole]


def test_every_flipped_bit_of_a_frame_is_seen(firmware: ctypes.CDLL) -> None:
    data = pack(Frame(2, 9, bytes(range(0, 60, 3))))
    for at in range(1, len(data) - 1):
        for bit in range(8):
            wrong = data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
            assert set(Unpacker().feed(wrong)) == {None} == set(c_feed(firmware, wrong))


@pytest.mark.slow
def test_the_firmware_reads_noise_without_undefined_behaviour(tmp_path: Path) -> None:
    sources(tmp_path)
    checks = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g", "-O1", "-DALONE")
    if find_compiler()[0].endswith("zig"):
        pytest.skip("needs a compiler with the address sanitiser")
    compile_c(tmp_path, ("shim.c", "topokd_serial.c"), tmp_path / "alone", checks)
    rng = random.Random(5)
    stream = b"".join(damaged(rng, pack(a_frame(rng))) for _ in range(6000)) + rng.randbytes(1 << 20)
    child = subprocess.run([tmp_path / "alone"], input=stream, capture_output=True, check=False, timeout=300)
    assert child.returncode == 0 and int(child.stdout) > 10_000, child.stderr[:2000]


# --- the host's side of a conversation


class Script:
    """A wire that answers every request with what a function says, and is silent otherwise."""

    path, baud = "/dev/script", 115_200

    def __init__(self, answer: object) -> None:
        self.answer, self.sent, self.waiting = answer, 0, b""

    def write(self, data: bytes) -> None:
        self.sent += 1
        for frame in Unpacker().feed(data):
            assert frame is not None
            self.waiting += self.answer(frame)  # type: ignore[operator]

    def read(self, until: float) -> bytes:
        assert until - time.monotonic() < 70
        data, self.waiting = self.waiting, b""
        return data


def answering(*payloads: bytes, kind: int | None = None) -> Script:
    return Script(
        lambda frame: b"".join(pack(Frame(kind or frame.kind | 0x80, frame.sequence, p)) for p in payloads)
    )


def test_silence_ends_after_some_attempts() -> None:
    wire = Script(lambda frame: b"")
    with pytest.raises(DeviceError, match="no answer to HELLO") as caught:
        Link(wire).ask(Kind.HELLO)
    assert wire.sent == ATTEMPTS and "topokd-edge firmware" in caught.value.hint


@pytest.mark.parametrize("damage", [pack(Frame(Kind.ERROR, 0, bytes([Why.FRAME]))), b"\0\x09nonsense\0"])
def test_a_damaged_frame_is_sent_again_at_once(damage: bytes) -> None:
    wire = Script(lambda frame: damage if wire.sent == 1 else pack(Frame(frame.kind | 0x80, frame.sequence)))
    read, reads = wire.read, []
    wire.read = lambda until: reads.append(wire.sent) or read(until)  # type: ignore[func-returns-value,method-assign]
    assert Link(wire).ask(Kind.SAMPLES) == b""
    assert reads == [1, 2], "nobody waits for an answer that will not come"


def test_late_answers_to_earlier_requests_are_not_taken() -> None:
    earlier: list[bytes] = []

    def answer(frame: Frame) -> bytes:
        old = b"".join(earlier)
        earlier.append(pack(Frame(frame.kind | 0x80, frame.sequence, bytes([frame.sequence]))))
        return old + (earlier[-1] if len(earlier) % 2 else b"")

    link = Link(Script(answer))
    for number in range(1, 200):
        assert link.ask(Kind.TICKS) == bytes([number])
    assert link.repeats == 198


def test_a_board_of_another_version_is_told_apart() -> None:
    wire = Script(lambda frame: pack(Frame(Kind.ERROR, frame.sequence, bytes([Why.VERSION]), VERSION + 1)))
    with pytest.raises(DeviceError, match=f"speaks version {VERSION + 1} .* this program {VERSION}"):
        Link(wire).ask(Kind.HELLO)
    assert wire.sent == 1


def test_a_refusal_is_passed_on() -> None:
    with pytest.raises(RefusedError, match="refuses STACK") as caught:
        Link(answering(bytes([Why.KIND]), kind=Kind.ERROR)).ask(Kind.STACK)
    assert caught.value.why == Why.KIND


def test_six_thousand_wild_answers_give_an_answer_or_a_device_error() -> None:
    rng = random.Random(6)

    def answer(frame: Frame) -> bytes:
        kinds = (frame.kind | 0x80, Kind.TAKEN, Kind.ERROR, rng.randrange(256))
        wild = a_frame(rng)
        mine = Frame(rng.choice(kinds), rng.choice([frame.sequence, 0, wild.sequence]), wild.payload)
        return damaged(rng, pack(mine)) if rng.random() < 0.3 else pack(mine)

    wire = Script(answer)
    ends: dict[type, int] = {}
    while wire.sent < 6000:
        board = Board(Link(wire))
        try:
            board.greet()
            end: object = board.hello
        except DeviceError as error:
            end = error
        ends[type(end)] = ends.get(type(end), 0) + 1
    assert ends[DeviceError] > 100 and all(issubclass(kind, DeviceError | Hello) for kind in ends)


HELLO = np.array([1000, 1000, 3, 2, 5, 4, 100, 200], "<u4").tobytes() + bytes(32)


def conversation(run: bytes, hello: bytes = HELLO + b"board=x\x1b[2J\npipeline=student.int8\n") -> Board:
    answers = {
        Kind.HELLO: hello,
        Kind.SAMPLES: b"",
        Kind.RUN: run,
        Kind.LAYERS: run,
        Kind.STACK: run,
        Kind.TICKS: run,
    }
    return Board(Link(Script(lambda f: pack(Frame(f.kind | 0x80, f.sequence, answers[Kind(f.kind)])))))


def test_what_a_board_says_of_itself_cannot_steer_a_terminal() -> None:
    assert conversation(b"").greet().about == {"board": "x?[2J", "pipeline": "student.int8"}


@pytest.mark.parametrize("hello", [b"", HELLO[:-1], bytes(64), HELLO + b"board=x\n"])
def test_a_greeting_that_is_none(hello: bytes) -> None:
    with pytest.raises(DeviceError, match="nonsense to HELLO"):
        conversation(b"", hello).greet()


@pytest.mark.parametrize("method", ["run", "layers", "stack_bytes", "ticks_hz_seen"])
@pytest.mark.parametrize("size", [0, 3, 100])
def test_an_answer_of_another_size_is_nonsense(method: str, size: int) -> None:
    board = conversation(bytes(size))
    board.greet()
    board.load(np.zeros((2, 3), np.float32))
    with pytest.raises(DeviceError, match="nonsense"):
        getattr(board, method)()


@pytest.mark.parametrize(
    ("status", "ticks", "text"), [(-2, 1, "answered -2"), (0, 0, "0 s"), (0, 10**9, "1e.06 s")]
)
def test_a_time_that_cannot_be_and_a_student_that_fails(status: int, ticks: int, text: str) -> None:
    board = conversation(np.array([status, ticks], "<i4").tobytes() + bytes(5))
    board.greet()
    board.load(np.zeros((2, 3), np.float32))
    with pytest.raises(DeviceError, match=text):
        board.run()
