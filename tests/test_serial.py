"""`bench --on serial:` over a terminal: ports, the command, its failures, and what it writes."""

from __future__ import annotations

import json
import os
import pty
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from c_cases import graph_of
from export_cases import make_run
from serial_board import EmulatedBoard
from serial_cases import every_board, image
from topokd_bench.result import BenchResult
from topokd_bench.serial import link, port
from topokd_bench.serial.board import Board
from topokd_bench.serial.port import Port, VanishedError, parse_target
from topokd_export.c.board_programs import student_program
from topokd_export.c.boards import BOARD_PORTS, BoardImage, build_board, open_port
from topokd_export.c.integer_graph import Conv
from topokd_export.export import export_student

from topokd_edge.bundle import Bundle
from topokd_edge.cli import main
from topokd_edge.errors import DeviceError

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
    return build_board(
        student_program(tflite, app_numbers(bundle.manifest), "cortex-m4"),
        bundle.digest,
        open_port("nrf52840-dk"),
    )


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
    index = next(i for i, layer in enumerate(graph.layers) if i > 3 and isinstance(layer, Conv))
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
    port = open_port(name)
    program = student_program(tflite, app_numbers(bundle.manifest), port.core)
    built = build_board(program, bundle.digest, port)
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
