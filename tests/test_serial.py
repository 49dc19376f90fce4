"""The bench firmware of real boards in an emulator, and `bench --on serial:` against it over a terminal."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import pty
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from c_cases import any_levels, app, graph_of, random_int8, tflm_logits
from export_cases import make_run
from serial_board import EmulatedBoard
from topokd_bench.result import BenchResult
from topokd_bench.serial import link, port
from topokd_bench.serial.board import Board
from topokd_bench.serial.frames import Frame, Unpacker, pack
from topokd_bench.serial.link import Kind, Link, RefusedError, Why
from topokd_bench.serial.port import Port, VanishedError, parse_target
from topokd_export.c.boards import BOARD_PORTS, BoardImage, Place, build_board, open_port
from topokd_export.c.images import RP2040_FAMILY, flat, intel_hex, load_parts, uf2
from topokd_export.c.on_core import raw_samples, reference
from topokd_export.export import export_student

from topokd_edge.bundle import Bundle
from topokd_edge.cli import main
from topokd_edge.errors import CheckFailedError, DeviceError, UsageError

CONTENT, SEED = b"", 7
DIGEST = "c0ffee" + 58 * "1"
every_board = pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n == "nrf52840-dk" else pytest.mark.slow) for n in BOARD_PORTS]
)


@functools.cache
def content() -> bytes:
    return random_int8(SEED)


@functools.cache
def image(name: str = "nrf52840-dk") -> BoardImage:
    return build_board(content(), app(graph_of(content())), DIGEST, open_port(name))


def cases(n: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Quantised windows, some of them extreme, and the same in the app's units."""
    graph = graph_of(content())
    levels = any_levels(graph, n, seed=3)
    normalisation = app(graph).normalisation
    return levels, np.stack([raw_samples(one, graph, normalisation) for one in levels])


@contextlib.contextmanager
def connected(made: BoardImage, **how: float) -> Iterator[tuple[Board, Link]]:
    with EmulatedBoard(made, **how) as emulated, Port(emulated.path) as opened:  # type: ignore[arg-type]
        talk = Link(opened, work_s=5.0)
        yield Board(talk), talk


# --- the firmware


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
    again = build_board(content(), app(graph_of(content())), DIGEST, open_port("nrf52840-dk"))
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
        build_board(content(), app(graph_of(content())), DIGEST, small)
    assert [text.partition(":")[0] for text in caught.value.problems] == ["RAM", "flash"]
    with pytest.raises(UsageError, match=r"nrf52840-dk, nucleo-l4r5zi, pico"):
        open_port("arduino")


@pytest.mark.slow
def test_code_that_does_not_fit_is_refused_by_the_linker() -> None:
    graph = graph_of(content())
    room = sum(layer.weight.size for layer in graph.layers if hasattr(layer, "weight")) + 100
    small = replace(open_port("nrf52840-dk"), flash=Place(0, room))
    with pytest.raises(CheckFailedError) as caught:
        build_board(content(), app(graph), DIGEST, small)
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


@pytest.mark.parametrize(
    ("kind", "payload", "why"),
    [
        (Kind.SAMPLES, b"abc", Why.LENGTH),
        (Kind.SAMPLES, struct.pack("<I", 10**6) + b"x", Why.PLACE),
        (Kind.SAMPLES, struct.pack("<I", 0xFFFFFFFF) + b"xx", Why.PLACE),
        (Kind.SAMPLES, struct.pack("<I", 0) + bytes(100), None),
        (Kind.RUN, b"", Why.LENGTH),
        (Kind.HELLO, b"x", Why.LENGTH),
        (Kind.TAKEN, b"", Why.KIND),
    ],
)
def test_the_firmware_refuses_what_makes_no_sense(
    shared_board: Link, kind: Kind, payload: bytes, why: Why | None
) -> None:
    with contextlib.nullcontext() if why is None else pytest.raises(RefusedError) as caught:
        shared_board.ask(kind, payload)
    assert why is None or caught.value.why == why


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
    assert found == [Frame(Kind.ERROR, 77, bytes([Why.VERSION]), 1)]


@pytest.fixture(scope="module")
def shared_board() -> Iterator[Link]:
    with connected(image()) as (board, talk):
        board.greet()
        yield talk


# --- ports


@pytest.mark.parametrize("text", ["serial:", "serial:COM3", "serial:ttyACM0", "ssh://x", "serial:/dev/tty\n"])
def test_what_is_no_port(text: str) -> None:
    with pytest.raises(ValueError, match="expected serial:/dev/ttyACM0"):
        parse_target(text)


def test_a_port_that_is_not_there_is_used_or_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    for path, text in [(tmp_path / "no", "no such port"), (tmp_path / "file", "not a serial port")]:
        with pytest.raises(DeviceError, match=text), Port(str(path)):
            pass
    one, other = pty.openpty()
    name = os.ttyname(other)
    before = port.termios.tcgetattr(other)
    with Port(name), pytest.raises(DeviceError, match="another program uses"), Port(name):
        pass
    with pytest.raises(DeviceError, match="12345 baud"), Port(name, 12345):
        pass
    assert port.termios.tcgetattr(other) == before, "the port is left as it was found"
    with Port(name):
        pass
    monkeypatch.setattr(port.os, "open", lambda *_: (_ for _ in ()).throw(PermissionError(13, "denied")))
    with pytest.raises(DeviceError, match="may not use") as caught, Port(name):
        pass
    assert "dialout" in caught.value.hint
    os.close(one)
    os.close(other)


def test_bytes_pass_a_port_unchanged() -> None:
    one, other = pty.openpty()
    every = bytes(range(256)) * 4
    with Port(os.ttyname(other)) as opened:
        os.write(one, every)
        back = b""
        while len(back) < len(every):
            back += opened.read(time.monotonic() + 5.0)
        assert back == every
        opened.write(every)
        back = b""
        while len(back) < len(every):
            back += os.read(one, 4096)
        assert back == every and opened.read(0.0) == b""
        os.close(one)
        with pytest.raises(VanishedError, match="vanished"):
            opened.read(time.monotonic() + 5.0)
            opened.write(b"x")
    os.close(other)


# --- the command


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A bundle, and the run it came from."""
    run = make_run(tmp_path_factory.mktemp("run"))
    export_student(run, 1, 0, run.folder.parent / "bundle", targets=("onnx", "tflite"))
    return run.folder.parent / "bundle", run.folder


@pytest.fixture(scope="module")
def flashed(made: tuple[Path, Path]) -> BoardImage:
    bundle = Bundle.open(made[0])
    from topokd_export.c.writer import app_numbers

    tflite = bundle.model_path("tflite", "int8").read_bytes()
    return build_board(tflite, app_numbers(bundle.manifest), bundle.digest, open_port("nrf52840-dk"))


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Call the program; hashes and self-test here are tested elsewhere and take seconds."""
    monkeypatch.setattr("topokd_edge.cli.bench._verify", lambda bundle: [])
    monkeypatch.setattr(Board.ticks_hz_seen, "__defaults__", (0.4,))

    def call(*words: str) -> tuple[int, dict[str, Any], str]:
        monkeypatch.setattr(sys, "argv", ["topokd-edge", *words])
        try:
            code = main()
        except SystemExit as ended:
            code = ended.code
        out, err = capsys.readouterr()
        return int(code or 0), json.loads(out) if "--json" in words and out else {}, err + out

    return call


def words(made: tuple[Path, Path], path: str, *more: str) -> tuple[str, ...]:
    bundle, run = map(str, made)
    on = ("--on", f"serial:{path}", "--run", run)
    return ("bench", bundle, *on, "--seconds", "0.1", "--windows", "12", *more)


def test_a_bench_on_a_board_proves_times_and_classifies(
    made: tuple[Path, Path], flashed: BoardImage, command: Any, tmp_path: Path
) -> None:
    with EmulatedBoard(flashed) as board:
        code, _, shown = command(*words(made, board.path, "--out", str(tmp_path / "out.json")))
    assert code == 0 and "nrf52840-dk" in shown and "cortex-m4" in shown, shown
    document = json.loads((tmp_path / "out.json").read_text())
    (row,) = document["results"]
    assert row["target"] == f"serial:{board.path}" and document["partial"] is False
    assert BenchResult.from_dict(row).to_dict() == row
    assert (row["basis"], row["pipeline"], row["runtime"], row["warmup"]) == (
        "measured",
        "student.int8",
        "c",
        2,
    )
    assert row["runs"] >= 20 and row["windows"] == 12 and row["accuracy"] > 0.8
    assert 0 < row["latency_ms"]["min"] <= row["latency_ms"]["p50"] <= row["latency_ms"]["p99"] < 5000
    assert row["cycles"] == pytest.approx(row["latency_ms"]["p50"] * 64e3, rel=1e-6)
    assert row["ram_bytes"] > row["stack_bytes"] > 100 and row["kernel"] == "SMLAD"
    assert row["self_test"]["layers"] > 20 and row["self_test"]["vectors"] >= 8
    assert row["flash_bytes"] == len(flashed.files["bin"]) and row["device"]["clock_mhz"] == 64


@pytest.mark.slow
def test_a_board_that_vanishes_leaves_a_partial_result(
    made: tuple[Path, Path], flashed: BoardImage, command: Any, tmp_path: Path
) -> None:
    """Its power fails some bytes after the last timed run: while held-out windows are classified."""
    out = tmp_path / "out.json"
    with EmulatedBoard(flashed, cut_after=9000) as board:
        code, document, err = command(
            *words(made, board.path, "--json", "--windows", "80", "--out", str(out))
        )
    assert code == 5 and document["partial"] is True and "vanished" in err
    (row,) = document["results"]
    assert row["runs"] >= 1 and row["latency_ms"] and row["accuracy"] is None
    assert any("partial" in note and "no accuracy" in note for note in document["notes"])
    assert json.loads(out.read_text()) == document


@pytest.mark.slow
def test_a_board_that_vanishes_early_leaves_nothing(
    made: tuple[Path, Path], flashed: BoardImage, command: Any, tmp_path: Path
) -> None:
    out = tmp_path / "out.json"
    with EmulatedBoard(flashed, cut_after=500) as board:
        code, document, err = command(*words(made, board.path, "--json", "--out", str(out)))
    assert code == 5 and not document and "vanished" in err and not out.exists()


def test_firmware_of_another_bundle_is_refused(made: tuple[Path, Path], command: Any) -> None:
    with EmulatedBoard(image()) as board:
        code, _, err = command(*words(made, board.path))
    assert code == 3 and "of another bundle (c0ffee111111)" in err and "topokd-edge firmware" in err


@pytest.mark.slow
def test_a_wrong_weight_on_the_board_names_the_layer(
    made: tuple[Path, Path], flashed: BoardImage, command: Any
) -> None:
    graph = graph_of(Bundle.open(made[0]).model_path("tflite", "int8").read_bytes())
    index = next(i for i, layer in enumerate(graph.layers) if i > 3 and hasattr(layer, "weight"))
    content = np.asarray(graph.layers[index].weight).astype(np.int8).tobytes()  # type: ignore[union-attr]
    binary = bytearray(flashed.files["bin"])
    pieces = (content[at : at + 8] for at in range(0, len(content), 4))
    piece = next(one for one in pieces if binary.count(one) == 1)
    binary[binary.index(piece) + 2] ^= 0x40
    broken = replace(flashed, files={**flashed.files, "bin": bytes(binary)})
    with EmulatedBoard(broken) as board:
        code, _, err = command(*words(made, board.path))
    assert code == 1 and f"goes wrong at {graph.layers[index].name}" in err


@pytest.mark.slow
def test_a_clock_that_is_not_what_the_firmware_says_is_refused(
    made: tuple[Path, Path], flashed: BoardImage, command: Any
) -> None:
    with EmulatedBoard(flashed, speed=0.9) as board:
        code, _, err = command(*words(made, board.path))
    assert code == 5 and "counter runs at 57." in err and "says 64" in err


def test_a_port_on_which_nobody_answers(
    made: tuple[Path, Path], command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "ANSWER_S", 0.02)
    one, other = pty.openpty()
    code, _, err = command(*words(made, os.ttyname(other)))
    assert code == 5 and "no answer to HELLO" in err and "press reset" in err
    os.close(one)
    os.close(other)
    assert command(*words(made, "/dev/no-such-port"))[0] == 5
    assert command("bench", str(made[0]), "--on", "serial:COM3")[0] == 2


def test_the_firmware_command_writes_images_and_says_how_to_flash(
    made: tuple[Path, Path], command: Any, tmp_path: Path
) -> None:
    out = tmp_path / "firmware"
    build = ("firmware", str(made[0]), "--board", "pico", "--out", str(out))
    code, document, err = command(*build, "--json")
    assert code == 0, err
    assert sorted(path.name for path in out.iterdir()) == ["pico.bin", "pico.elf", "pico.hex", "pico.uf2"]
    assert [Path(item["path"]).stat().st_size for item in document["files"]] == [
        f["bytes"] for f in document["files"]
    ]
    assert document["bundle"] == Bundle.open(made[0]).digest and "pico.uf2" not in document["board"]
    assert command(*build)[0] == 3
    assert command(*build[:-1], str(tmp_path / "other"), "--board", "arduino")[0] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["firmware"]


@pytest.mark.slow
@every_board
def test_a_real_bundle_on_every_board(name: str, made: tuple[Path, Path], command: Any) -> None:
    bundle = Bundle.open(made[0])
    from topokd_export.c.writer import app_numbers

    tflite = bundle.model_path("tflite", "int8").read_bytes()
    built = build_board(tflite, app_numbers(bundle.manifest), bundle.digest, open_port(name))
    with EmulatedBoard(built, seed=4, drop=1e-4, flip=1e-4) as board:
        code, document, err = command(*words(made, board.path, "--json"))
    assert code == 0, err
    (row,) = document["results"]
    assert (
        row["device"]["name"] == name
        and row["accuracy"] > 0.8
        and (row["cycles"] is None) == (name == "pico")
    )


def test_the_page_names_every_board_and_says_that_none_was_tried() -> None:
    text = (Path(__file__).parents[1] / "docs" / "devices" / "serial.md").read_text()
    assert all(f"`{name}`" in text for name in BOARD_PORTS) and "never run on a board" in text
