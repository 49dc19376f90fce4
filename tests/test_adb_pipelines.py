"""All four pipelines in C behind adb, with a stand-in for adb: proven, timed and tried one after another."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from adb_device import AdbDevice
from export_cases import add_teachers, make_run
from test_adb import Answer, arguments
from test_bench_ssh_c import teachers_right
from topokd_export.c import linux
from topokd_export.c.host import find_compiler
from topokd_export.export import export_student

from topokd_edge.bundle import Bundle
from topokd_edge.cli import _bench_candidates, main
from topokd_edge.errors import MissingError

FLOATS = ("tda", "teacher.signal", "student.float32")
PIPELINES = (*FLOATS, "student.int8")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A bundle, and the run it came from, with both teachers."""
    run = make_run(tmp_path_factory.mktemp("run"))
    add_teachers(run)
    export_student(run, 1, 0, run.folder.parent / "bundle", targets=("onnx", "tflite"))
    return run.folder.parent / "bundle", run.folder


@pytest.fixture(scope="module")
def built() -> dict[Any, bytes]:
    """Programs that were built, so that each is built once."""
    return {}


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, built: dict[Any, bytes]) -> AdbDevice:
    """A device for which this machine's own compiler builds."""
    made = AdbDevice(tmp_path / "device")
    monkeypatch.setenv("PATH", f"{made.bin}:{os.environ['PATH']}")
    monkeypatch.setattr("topokd_edge.cli.bench._verify", lambda bundle: [])
    monkeypatch.setattr(linux, "compiler_for", lambda machine: find_compiler())
    monkeypatch.setattr(_bench_candidates, "REFERENCE_WINDOWS", 20)
    monkeypatch.setattr(linux, "_built", kept(built, linux._built))
    return made


def kept(built: dict[Any, bytes], build: Any) -> Any:
    def call(files: dict[str, str], *more: Any) -> bytes:
        key = (*files.values(), *more)
        if key not in built:
            built[key] = build(files, *more)
        return built[key]

    return call


@pytest.fixture
def bench(
    made: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Any:
    def call(*more: str) -> Answer:
        monkeypatch.setattr(sys, "argv", ["topokd-edge", *arguments(made, "adb", "--json", *more)])
        try:
            code = main()
        except SystemExit as ended:
            code = ended.code
        return Answer(int(code or 0), *capsys.readouterr())

    return call


def named(answer: Answer) -> dict[str, dict[str, Any]]:
    return {row["pipeline"]: row for row in answer.rows if row["mode"] == "steady"}


def test_all_four_are_proven_timed_and_tried(device: AdbDevice, bench: Any, made: tuple[Path, Path]) -> None:
    answer = bench("--sustained", "0.01")
    assert answer.code == 0, answer.err
    rows = named(answer)
    assert tuple(rows) == PIPELINES and device.leftovers() == []
    for row in rows.values():
        assert (row["target"], row["runtime"], row["error"]) == ("adb", "c", "")
        assert row["self_test"] == {"vectors": 16, "bundle": Bundle.open(made[0]).digest}
        assert row["runs"] >= 50 and 0 < row["latency_ms"]["min"] <= row["latency_ms"]["p50"]
        assert 0 < row["ram_bytes"] < 20e6 and 50_000 < row["model_bytes"] < 5e6
    assert {name: row["windows"] for name, row in rows.items()} == {
        **dict.fromkeys(FLOATS, 20),
        "student.int8": 40,
    }
    right = {**teachers_right(made[1], 20), "student.float32": 1.0, "student.int8": 1.0}
    assert {name: row["accuracy"] for name, row in rows.items()} == pytest.approx(right)
    assert [row["pipeline"] for row in answer.rows if row["mode"] == "sustained"] == ["student.int8"]
    notes = answer.document["notes"]
    assert any("float pipelines in C were tried on 20 of 80" in note for note in notes)
    assert any("adb: tried on 40 of 80" in note for note in notes)


def wrapper(path: Path, script: str) -> list[str]:
    """What the stand-in runs a program by."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return [str(path)]


@pytest.mark.parametrize("odd", ["99", "nan"])
def test_float_c_that_answers_otherwise_fails_and_the_rest_goes_on(
    device: AdbDevice, bench: Any, tmp_path: Path, odd: str
) -> None:
    lie = f'if [ "$2" = logits ]; then "$@" | sed "s/^[^ ]*/{odd}/"; else exec "$@"; fi'
    device.set(emulator=wrapper(tmp_path / "liar", lie))
    answer = bench()
    assert answer.code == 0, answer.err
    for name, row in named(answer).items():
        assert row["error"].startswith("self-test failed: logits differ") == (name in FLOATS), row
        assert (row["latency_ms"] is None) == (name in FLOATS)
    assert any("tda on c failed: self-test failed" in note for note in answer.document["notes"])


def test_what_was_measured_before_it_vanished_stays(device: AdbDevice, bench: Any, tmp_path: Path) -> None:
    gone = device.root.parent / "gone"
    pull = f'if [ "$2" = logits ]; then n=$(cat {tmp_path}/n 2>/dev/null); echo x$n > {tmp_path}/n; '
    pull += f'[ "$n" = x ] && touch {gone}; fi; exec "$@"'
    device.set(emulator=wrapper(tmp_path / "pull", pull))
    answer = bench()
    assert answer.code == 5 and "vanished" in answer.err and answer.document["partial"] is True
    rows = named(answer)
    assert tuple(rows) == PIPELINES and rows["tda"]["latency_ms"]["p50"] > 0
    assert all("vanished" in rows[name]["error"] for name in PIPELINES[1:])
    said = "not measured: teacher.signal, student.float32, student.int8"
    assert any(note.endswith(said) for note in answer.document["notes"])


def test_without_a_compiler_it_is_said_what_to_install(
    device: AdbDevice, bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(machine: str) -> list[str]:
        raise MissingError("no ziglang", hint="pip install 'topokd-edge[c]'")

    monkeypatch.setattr(linux, "compiler_for", nothing)
    answer = bench()
    assert answer.code == 4 and "pip install" in answer.err and device.leftovers() == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("abi", "emulator"), [("arm64-v8a", "qemu-aarch64-static"), ("armeabi-v7a", "qemu-arm-static")]
)
def test_every_program_for_a_phone_runs_under_an_emulator(
    device: AdbDevice, bench: Any, monkeypatch: pytest.MonkeyPatch, abi: str, emulator: str
) -> None:
    if shutil.which(emulator) is None:
        pytest.skip("apt-get install qemu-user-static: it runs the Arm programs")
    monkeypatch.undo()
    monkeypatch.setenv("PATH", f"{device.bin}:{os.environ['PATH']}")
    device.set(emulator=[str(shutil.which(emulator))], properties={"ro.product.cpu.abi": abi})
    answer = bench()
    assert answer.code == 0, answer.err
    assert tuple(named(answer)) == PIPELINES
    assert all(row["error"] == "" and row["self_test"]["vectors"] == 16 for row in answer.rows)
