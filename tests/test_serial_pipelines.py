"""Float pipelines on boards on a wire: bits of the same C here, every layer, the verbs, what does not fit."""

from __future__ import annotations

import json
import shutil
import sys
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export_cases import add_teachers, make_run
from serial_board import EmulatedBoard
from serial_cases import DIGEST, connected, every_board
from test_float_c import waves
from test_mcu_floats import student, teacher
from test_serial_firmware import in_qemu
from topokd_bench.result import BenchResult
from topokd_bench.serial.board import Board
from topokd_export.c import boards
from topokd_export.c.board_programs import pipeline_program
from topokd_export.c.boards import BoardImage, Place, build_board, open_port
from topokd_export.c.float_graph import FloatConv
from topokd_export.c.float_host import HostPipeline
from topokd_export.c.float_plan import packed
from topokd_export.c.float_writer import FloatPipeline
from topokd_export.export import export_student

from topokd_edge.bundle import Bundle
from topokd_edge.cli import main
from topokd_edge.cli._bench_documents import read_documents
from topokd_edge.cli._bench_serial_proofs import find_float
from topokd_edge.errors import CheckFailedError

PIPELINES = ["student.float32", "teacher.signal", "tda"]


def flashed(pipeline: FloatPipeline, name: str = "nrf52840-dk", called: str = "tda") -> BoardImage:
    port = open_port(name)
    return build_board(pipeline_program(called, pipeline, port.core), DIGEST, port)


def answers_as_here(board: Board, pipeline: FloatPipeline, x: np.ndarray) -> None:
    host = HostPipeline(pipeline)
    hello = board.greet()
    assert (hello.length, hello.channels, hello.classes, hello.layers) == (
        pipeline.length,
        pipeline.channels,
        pipeline.classes,
        len(pipeline.layers),
    )
    for window, logits in zip(x, host.run(x), strict=True):
        board.load(window.T)
        ran = board.run()
        assert ran.logits.tobytes() == logits.tobytes() and ran.ns > 0
        found, sums = board.layers()
        assert found.tobytes() == logits.tobytes() and sums == host.layers(window)[0]
        assert len(set(sums)) >= len(sums) - 1


@every_board
def test_a_board_gives_the_bits_of_the_same_c_here_in_every_layer(name: str) -> None:
    both = ((student(), "student.float32"), (teacher(), "tda"))
    for (pipeline, x, _), called in both[: 1 if name == "pico" else 2]:  # the teacher has 300 kB
        image = flashed(pipeline, name, called)
        with connected(image) as (board, _):
            answers_as_here(board, pipeline, x)
            hello = board.hello
            assert hello.pipeline == called and hello.digest == DIGEST
            assert hello.about["kernel"] == ("soft-float" if name == "pico" else "FPU")
            assert hello.image_bytes == len(image.files["bin"])
            assert hello.pipeline_bytes <= pipeline_program(called, pipeline, "cortex-m4").needs.ram_bytes
            assert 100 < board.stack_bytes() < 2000


def test_a_windows_layers_do_not_depend_on_the_window_before() -> None:
    """Diagrams leave a part of their place as it was."""
    pipeline, x, _ = teacher()
    host = HostPipeline(pipeline)
    first = host.layers(x[0])
    host.run(waves(5, 2, pipeline.length, seed=9))
    assert host.layers(x[0]) == first and host.layers(x[1]) != first
    assert first[0][-1] == zlib.crc32(first[1]) and first[1] == host.run(x[:1])[0].tobytes()


ARM_PORT = """#include "board.h"
#define UART 0x40004000U
void board_init(void) { REGISTER(UART + 0x10U) = 16U; REGISTER(UART + 0x08U) = 3U; COUNT_CYCLES(); }
int32_t board_read(void)
{
    return ((REGISTER(UART + 4U) & 2U) == 0U) ? -1 : (int32_t)(REGISTER(UART) & 0xFFU);
}
void board_write(uint8_t byte)
{
    while ((REGISTER(UART + 4U) & 1U) != 0U) {
    }
    REGISTER(UART) = byte;
}
uint32_t board_ticks(void) { static uint32_t ticks; return ++ticks; }
uint32_t board_ticks_hz(void) { return 1000000U; }
uint32_t board_clock_hz(void) { return 25000000U; }
"""
"""Of Arm's board MPS2 with a Cortex-M4 (AN386; its UART: Cortex-M System Design Kit, chapter 4.3)."""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("qemu-system-arm") is None, reason="needs QEMU")
@pytest.mark.parametrize("on", [True, False])
def test_the_fpu_is_off_until_the_start_turns_it_on(
    on: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """QEMU's core faults at a float where the unit is off, as silicon does."""
    link_as_it_is = boards.link

    def link_with_own_port(files: dict[str, str], core: str, *more: Any, **how: Any) -> bytes:
        startup = files["startup.c"] if on else files["startup.c"].replace("0xF00000", "0")
        files = {**files, "nrf52840.c": ARM_PORT, "startup.c": startup}
        return link_as_it_is(files, core, *more, **how)

    monkeypatch.setattr(boards, "link", link_with_own_port)
    pipeline, x, _ = student()
    memory = {"flash": Place(0, 0x400000), "ram": Place(0x20000000, 0x100000)}
    port = replace(open_port("nrf52840-dk"), **memory)  # type: ignore[arg-type]
    image = build_board(pipeline_program("student.float32", pipeline, port.core), DIGEST, port)
    with in_qemu("mps2-an386", image.files["elf"], tmp_path) as board:
        if on:
            answers_as_here(board, pipeline, x[:2])
            return
        board._link._work_s = 0.5
        board.greet()
        board.load(x[0].T)
        monkeypatch.setattr("topokd_bench.serial.link.ATTEMPTS", 1)
        with pytest.raises(Exception, match="no answer to RUN"):
            board.run()


def test_what_does_not_fit_is_refused_before_anything_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boards, "link", lambda *_, **__: pytest.fail("built"))
    pipeline, _, _ = student()
    port = open_port("pico")
    program = pipeline_program("teacher.signal", pipeline, port.core)
    own, least = program.needs, boards.LEAST
    needs = own.ram_bytes + own.flash_bytes + program.window_bytes + boards.STACK_BYTES
    needs += least.ram_bytes + least.flash_bytes
    tight = replace(port, ram=replace(port.ram, size=needs - 1))
    with pytest.raises(CheckFailedError, match=r"teacher\.signal does not fit Raspberry Pi Pico") as caught:
        build_board(program, DIGEST, tight)
    assert caught.value.problems == (f"RAM: needs over {needs:,} bytes, Raspberry Pi Pico has {needs - 1:,}",)


# --- the verbs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("serial-floats")
    run = make_run(made)
    add_teachers(run)
    export_student(run, 1, 0, made / "bundle", targets=("onnx", "tflite"))
    return made


@pytest.fixture
def command(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Call the program on the bundle; hashes and self-test here are tested elsewhere and take seconds."""
    monkeypatch.setattr("topokd_edge.cli.bench._verify", lambda bundle: [])
    monkeypatch.setattr(Board.ticks_hz_seen, "__defaults__", (0.4,))

    def call(verb: str, *words: str) -> tuple[int, dict[str, Any], str]:
        monkeypatch.setattr(sys, "argv", ["topokd-edge", verb, str(folder / "bundle"), *words, "--json"])
        try:
            code = main()
        except SystemExit as ended:
            code = ended.code
        out, err = capsys.readouterr()
        return int(code or 0), json.loads(out) if out.startswith("{") else {}, err + out

    return call


def built(command: Any, name: str, board: str, out: Path) -> BoardImage:
    """Return what the verb wrote, as an image to emulate."""
    code, answer, err = command("firmware", "--pipeline", name, "--board", board, "--out", str(out))
    assert code == 0, err
    assert answer["about"]["pipeline"] == name
    return BoardImage(open_port(board), {"bin": (out / f"{board}.bin").read_bytes()}, answer["about"])


def benched(command: Any, image: BoardImage, out: Path, windows: int = 3) -> BenchResult:
    with EmulatedBoard(image) as board:
        on = ("--on", f"serial:{board.path}", "--seconds", "0.1", "--windows", str(windows))
        code, document, err = command("bench", *on, "--out", str(out))
    assert code == 0, err
    (row,) = document["results"]
    assert not document["partial"] and row["target"] == f"serial:{board.path}"
    return BenchResult.from_dict(row)


def test_a_float_student_is_built_proven_timed_and_classifies(command: Any, tmp_path: Path) -> None:
    image = built(command, "student.float32", "nrf52840-dk", tmp_path / "images")
    row = benched(command, image, tmp_path / "a.json")
    assert (row.pipeline, row.runtime, row.basis, row.kernel) == ("student.float32", "c", "measured", "FPU")
    assert row.runs >= 20 and row.windows == 3 and row.accuracy is not None
    assert row.self_test["vectors"] == row.self_test["layer_vectors"] == 8 and row.self_test["layers"] > 20
    assert row.flash_bytes == len(image.files["bin"]) and "-ffp-contract=off" in row.flags
    assert row.ram_bytes > (row.stack_bytes or 0) > 100 and row.arena_bytes > 0


@pytest.mark.slow
def test_four_flashes_make_a_table_of_four(command: Any, tmp_path: Path) -> None:
    named = ["student.int8", *PIPELINES]
    paths = [tmp_path / f"{name}.json" for name in named]
    for name, path in zip(named, paths, strict=True):
        image = built(command, name, "nucleo-l4r5zi", tmp_path / name)
        assert benched(command, image, path).pipeline == name
    documents = [json.loads(path.read_text()) for path in paths]
    for document, path in zip(documents, paths, strict=True):
        document["results"][0]["target"] = "serial:/dev/ttyACM0"  # each pseudo-terminal has its own name
        path.write_text(json.dumps(document))
    rows = read_documents(paths)["results"]
    assert sorted(row["pipeline"] for row in rows) == sorted(named)
    assert {row["target"] for row in rows} == {"serial:/dev/ttyACM0"}


@pytest.mark.slow
def test_a_wrong_weight_on_the_board_names_the_layer(command: Any, folder: Path, tmp_path: Path) -> None:
    image = built(command, "teacher.signal", "nrf52840-dk", tmp_path / "images")
    _, pipeline, _ = find_float("teacher.signal", Bundle.open(folder / "bundle"), None, tmp_path)
    layer = [layer for layer in pipeline.layers if isinstance(layer, FloatConv)][5]
    weights = packed(layer).tobytes()
    binary = bytearray(image.files["bin"])
    assert binary.count(weights) == 1
    binary[binary.index(weights) + 3] ^= 0x80  # another sign
    with EmulatedBoard(replace(image, files={"bin": bytes(binary)})) as board:
        code, _, err = command("bench", "--on", f"serial:{board.path}")
    assert code == 1 and f"of the proof goes wrong at {layer.name}: " in err


def test_what_cannot_be_built_is_refused(command: Any, folder: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "images")
    build = ("firmware", "--board", "pico", "--out", out, "--pipeline")
    code, _, err = command(*build, "teacher")
    assert code == 2 and "student.int8, student.float32, teacher.signal, tda" in err
    code, _, err = command(*build, "tda")
    assert code == 1 and "tda does not fit Raspberry Pi Pico" in err and "RAM: needs over" in err
    hidden = folder / "run.hidden"
    (folder / "run").rename(hidden)
    try:
        code, _, err = command(*build, "teacher.signal")
    finally:
        hidden.rename(folder / "run")
    assert code == 3 and "has no teacher.signal" in err and "--run" in err
    assert not list(tmp_path.iterdir())


def test_a_pipeline_that_nobody_knows_is_refused(command: Any, folder: Path) -> None:
    pipeline, _, _ = student()
    port = open_port("nrf52840-dk")
    program = pipeline_program("teacher.of.tomorrow", pipeline, port.core)
    image = build_board(program, Bundle.open(folder / "bundle").digest, port)
    with EmulatedBoard(image) as board:
        code, _, err = command("bench", "--on", f"serial:{board.path}")
    assert code == 5 and "'teacher.of.tomorrow', which this program does not know" in err
