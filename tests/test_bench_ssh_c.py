"""Pipelines in C on a device behind SSH: all four without a runtime there, persistence always."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export_cases import add_teachers, make_run, torch_logits
from sshd_device import SshDevice, arguments, package, run_bench
from topokd_bench.local import Measured
from topokd_bench.remote import Candidate
from topokd_bench.result import BenchResult
from topokd_export.c import linux
from topokd_export.c.float_graph import FloatConv
from topokd_export.c.float_writer import FloatPipeline
from topokd_export.c.host import find_compiler
from topokd_export.export import export_student

from topokd_edge.bundle import Bundle
from topokd_edge.cli import _bench_candidates, _bench_tables
from topokd_edge.cli._bench_candidates import candidates
from topokd_edge.cli._bench_plan import make_plan
from topokd_edge.run import Run
from topokd_edge.topology.image import persistence_images
from topokd_edge.topology.params import ImageParams


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A bundle, and the run it came from, with both teachers."""
    run = make_run(tmp_path_factory.mktemp("run"))
    add_teachers(run)
    export_student(run, 1, 0, run.folder.parent / "bundle", targets=("onnx", "tflite"))
    return run.folder.parent / "bundle", run.folder


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SshDevice]:
    """A device for which this machine's own compiler builds, whose Python looks into `tmp_path / "site"`."""
    made = SshDevice(tmp_path / "device", PYTHONPATH=str(tmp_path / "site"))
    monkeypatch.setenv("PATH", f"{made.client}:{os.environ['PATH']}")
    monkeypatch.setattr("topokd_edge.cli.bench._verify", lambda bundle: [])
    monkeypatch.setattr(linux, "compiler_for", lambda machine: find_compiler())
    yield made
    made.close()


@pytest.fixture
def bench(
    made: tuple[Path, Path],
    device: SshDevice,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Any:
    return lambda: run_bench(arguments(made, device.url), monkeypatch, capsys)


def test_without_a_runtime_all_four_run_as_c(
    device: SshDevice,
    bench: Any,
    made: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    package(tmp_path, "numpy", "raise ImportError('no numpy here')\n")
    monkeypatch.setattr(_bench_candidates, "REFERENCE_WINDOWS", 20)
    answer = bench()
    assert answer.code == 0, answer.err
    assert list(answer.rows) == ["tda", "teacher.signal", "student.float32", "student.int8"]
    for row in answer.rows.values():
        assert (row["runtime"], row["error"], row["threads"]) == ("c", "", 1)
        assert row["self_test"] == {"vectors": 16, "bundle": Bundle.open(made[0]).digest}
        assert row["runs"] >= 50 and 0 < row["latency_ms"]["min"] <= row["latency_ms"]["cold"]
        assert 0 < row["ram_bytes"] < 20e6 and 50_000 < row["model_bytes"] < 5e6
    assert {name: row["windows"] for name, row in answer.rows.items()} == {
        **dict.fromkeys(("tda", "teacher.signal", "student.float32"), 20),
        "student.int8": 40,
    }
    expected = {**teachers_right(made[1], 20), "student.float32": 1.0}
    assert {name: answer.rows[name]["accuracy"] for name in expected} == pytest.approx(expected)
    assert any("no runtime for model files works there" in note for note in answer.document["notes"])
    assert any("float pipelines in C were tried on 20 of 80" in note for note in answer.document["notes"])
    assert device.leftovers() == []


def teachers_right(folder: Path, count: int) -> dict[str, float]:
    """Share of held-out windows that torch classifies right, of as many as are tried on a device."""
    run = Run.open(folder)
    place, windows = run.fold_run(1, 0), run.windows()
    signal, topology = add_teachers(run)
    fitted = place.preprocessing()
    index = windows.of_subjects(["3"])[:: 80 // count]
    raw, y = np.asarray(windows.x[index]), windows.y[index]
    images, _ = persistence_images(raw, ImageParams.from_dict(fitted["topology"]))
    scale = {name: [np.array(value) for value in fitted[name].values()] for name in ("image", "signal")}
    x = {
        "tda": (images - scale["image"][0][:, None, None]) / scale["image"][1][:, None, None],
        "teacher.signal": (raw - scale["signal"][0][:, None]) / scale["signal"][1][:, None],
    }
    models = {"tda": topology, "teacher.signal": signal}
    return {
        name: float((torch_logits(models[name], value.astype(np.float32)).argmax(1) == y).mean())
        for name, value in x.items()
    }


def test_a_runtime_of_the_device_comes_first_and_persistence_is_c(bench: Any) -> None:
    answer = bench()
    assert answer.code == 0, answer.err
    rows = [row for row in answer.document["results"] if not row["error"]]
    assert [(row["pipeline"], row["runtime"]) for row in rows] == [
        ("tda", "c"),
        ("teacher.signal", "onnxruntime"),
        ("student.float32", "litert"),
        ("student.float32", "c"),  # to compare persistence in C with
        ("student.int8", "litert"),
        ("student.int8", "c"),
    ]
    assert not any("no runtime" in note for note in answer.document["notes"])


def test_a_ratio_is_of_c_against_c() -> None:
    def item(pipeline: str, runtime: str, p50: float) -> Measured:
        latency = dict.fromkeys(("min", "p50", "p95", "p99", "max", "mean", "cold"), p50)
        return Measured(BenchResult("ssh://pi", "measured", pipeline, runtime, latency_ms=latency))

    rows = _bench_tables._costs(
        [
            *(item("tda", "c", 10.0), item("teacher.signal", "onnxruntime", 3.0)),
            *(item("student.int8", "litert", 0.5), item("student.int8", "c", 4.0)),
        ]
    )
    assert [row[-1] for row in rows] == ["2.5x", "6.0x", "1.0x", "1.0x"]


def test_c_that_answers_otherwise_is_a_failure(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = linux.pipeline_program

    def wrong(pipeline: FloatPipeline, machine: str) -> bytes:
        layers = [replace(x, bias=x.bias + 0.1) if isinstance(x, FloatConv) else x for x in pipeline.layers]
        return real(replace(pipeline, layers=tuple(layers)), machine)

    monkeypatch.setattr(linux, "pipeline_program", wrong)
    answer = bench()
    assert answer.rows["tda"]["error"].startswith("self-test failed: logits differ by up to")
    assert answer.rows["tda"]["latency_ms"] is None
    assert answer.rows["student.int8"]["error"] == ""


def test_images_that_have_no_c_leave_their_pipeline_out(
    bench: Any, made: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("topokd_edge.cli._bench_plan.backend_for", lambda params: "reference")
    answer = bench()
    assert set(answer.rows) == {"teacher.signal", "student.float32", "student.int8"}
    assert any("tda was left out: there is no C for images of loops" in n for n in answer.document["notes"])


EMULATED = {
    "aarch64": (183, "qemu-aarch64-static -cpu cortex-a53"),
    "armv7l": (40, "qemu-arm-static -cpu cortex-a7"),
    "armv8l": (40, "qemu-arm-static -cpu cortex-a15"),
    "armv6l": (40, "qemu-arm-static -cpu arm1176"),
    "x86_64": (62, "env"),
    "riscv64": (243, "qemu-riscv64-static"),
}
"""`e_machine` of ELF, and what runs a program of it here."""


@pytest.mark.slow
@pytest.mark.parametrize("machine", linux.MACHINES)
def test_ziglang_builds_every_pipeline_for_every_machine(
    made: tuple[Path, Path], machine: str, tmp_path: Path
) -> None:
    bundle, notes = Bundle.open(made[0]), []
    plan = make_plan(bundle, Run.open(made[1]), tmp_path)
    jobs = [job for job in plan.jobs if job.args.get("backend") != "reference"]
    found = [c for c in candidates(bundle, jobs, plan.held_out, machine, notes) if c.runtime == "c"]
    assert [c.job.pipeline for c in found] == [
        *("tda", "teacher.signal", "student.float32", "student.int8"),
    ]
    number, emulator = EMULATED[machine]
    for candidate in found:
        content, proof = candidate.content, candidate.proof
        assert content[:4] == b"\x7fELF" and int.from_bytes(content[18:20], "little") == number
        if shutil.which(emulator.split()[0]):
            logits = (run(tmp_path, emulator, candidate) - proof.zero_point) * proof.scale
            assert np.abs(logits - proof.expected).max() <= proof.tolerance
            assert (logits.argmax(1) == proof.expected.argmax(1)).all()


def run(folder: Path, emulator: str, candidate: Candidate) -> np.ndarray:
    """Have a program answer its proof."""
    program = folder / "program"
    program.write_bytes(candidate.content)
    program.chmod(0o700)
    child = subprocess.run(
        [*emulator.split(), str(program), candidate.verb],
        input=np.ascontiguousarray(candidate.proof.x).tobytes(),
        stdout=subprocess.PIPE,
        check=True,
    )
    return np.array([[float(word) for word in line.split()] for line in child.stdout.decode().splitlines()])
