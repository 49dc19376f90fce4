"""The bench behind adb, with a stand-in for adb: what it measures, how it fails, and that nothing stays."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from adb_device import ROOT, AdbDevice, run_script
from adbd_device import Adbd, local_path
from export_cases import make_run
from topokd_bench.adb import parse_target
from topokd_bench.adb_state import read_state
from topokd_bench.result import BenchResult
from topokd_export.c import linux
from topokd_export.c.host import find_compiler
from topokd_export.c.tflite_reader import read_integer_graph
from topokd_export.c.writer import app_numbers
from topokd_export.export import export_student

from topokd_edge.bundle import Bundle
from topokd_edge.cli import main


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A bundle with an int8 student alone, and the run it came from."""
    run = make_run(tmp_path_factory.mktemp("run"))
    export_student(run, 1, 0, run.folder.parent / "bundle", targets=("tflite",))
    return run.folder.parent / "bundle", run.folder


@pytest.fixture(scope="module")
def program(made: tuple[Path, Path]) -> bytes:
    """The bench program of the bundle's student, built once, by this machine's compiler for this machine."""
    bundle = Bundle.open(made[0])
    graph = read_integer_graph(bundle.model_path("tflite", "int8").read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linux, "compiler_for", lambda machine: find_compiler())
        return linux.linux_program(graph, app_numbers(bundle.manifest), "x86_64")


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AdbDevice:
    made = AdbDevice(tmp_path / "device")
    monkeypatch.setenv("PATH", f"{made.bin}:{os.environ['PATH']}")
    return made


def arguments(made: tuple[Path, Path], target: str, *more: str) -> list[str]:
    bundle, run = (str(path) for path in made)
    return ["bench", bundle, "--on", target, "--run", run, "--seconds", "0.02", "--windows", "40", *more]


class Answer:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.err = code, err
        self.document: dict[str, Any] = json.loads(out) if out else {}
        self.rows: list[dict[str, Any]] = self.document.get("results", [])


@pytest.fixture
def bench(
    made: tuple[Path, Path],
    program: bytes,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Any:
    """Call the command; the program is there already."""
    monkeypatch.setattr("topokd_edge.cli.bench._verify", lambda bundle: [])
    monkeypatch.setattr(linux, "linux_program", lambda *_: program)
    monkeypatch.setattr(linux, "compiler_for", lambda machine: find_compiler())

    def call(target: str = "adb", *more: str) -> Answer:
        monkeypatch.setattr(sys, "argv", ["topokd-edge", *arguments(made, target, "--json", *more)])
        try:
            code = main()
        except SystemExit as ended:
            code = ended.code
        return Answer(int(code or 0), *capsys.readouterr())

    return call


def test_the_student_is_proven_timed_and_tried_and_nothing_stays(
    device: AdbDevice, bench: Any, made: tuple[Path, Path]
) -> None:
    answer = bench("adb:emulator-5554", "--sustained", "0.01")
    assert answer.code == 0, answer.err
    assert device.leftovers() == []
    steady, sustained = answer.rows
    assert BenchResult.from_dict(steady).to_dict() == steady
    assert (steady["target"], steady["runtime"], steady["mode"]) == ("adb:emulator-5554", "c", "steady")
    assert steady["self_test"] == {"vectors": 16, "bundle": Bundle.open(made[0]).digest}
    assert steady["runs"] >= 50 and 0 < steady["latency_ms"]["min"] <= steady["latency_ms"]["p50"]
    assert len(steady["cold"]["total_ms"]) == 3 and steady["device"]["cold_clock"] == "device"
    assert steady["latency_ms"]["p50"] < steady["latency_ms"]["cold"]
    assert (steady["windows"], steady["accuracy"]) == (40, 1.0)
    assert 0 < steady["ram_bytes"] < 20e6 and steady["throttled"] is False
    facts = steady["device"]
    assert (facts["board"], facts["cpu"], facts["android"]) == ("Pixel ?[2J7", "GS201", "14")
    assert (facts["supply"], facts["battery_c_after"], facts["machine"]) == ("mains", 28.7, "x86_64")
    assert sustained["mode"] == "sustained" and sustained["accuracy"] is None
    assert len(sustained["sustained"]["p50_ms"]) == 10 and sustained["sustained"]["calls"] >= 10
    assert answer.document["partial"] is False


def test_options_that_do_not_apply_are_named(device: AdbDevice, bench: Any) -> None:
    answer = bench("adb", "--every", "1", "--threads", "1,2")
    assert answer.code == 0, answer.err
    assert any("--every, --threads not measured" in note for note in answer.document["notes"])
    assert [row["threads"] for row in answer.rows] == [1]


def test_nothing_that_was_given_gets_into_a_script(device: AdbDevice, bench: Any) -> None:
    assert bench().code == 0
    scripts = [words[3] for words in device.commands() if words[0] == "-s" and words[2] == "shell"]
    pushed = [words[4] for words in device.commands() if words[0] == "-s" and words[2] == "push"]
    folder = pushed[0].rpartition("/")[0]
    assert (
        folder.startswith(f"{ROOT}/topokd-bench-") and folder.removeprefix(f"{ROOT}/topokd-bench-").isalnum()
    )
    assert {path.removeprefix(f"{folder}/") for path in pushed} == {
        *("student", "test", "timing", "one", "windows")
    }
    assert len(scripts) > 8 and not any("Pixel" in script or "emulator" in script for script in scripts)


@pytest.mark.parametrize(
    "text", ["adb:", "adb:-d", "adb:a b", "adb:$(id)", "adb:a;b", "adbx", "adb:a\n", "adb:/dev"]
)
def test_a_serial_that_is_none_is_a_usage_error(bench: Any, text: str) -> None:
    with pytest.raises(ValueError, match="adb:SERIAL"):
        parse_target(text)
    if text == text.strip():
        assert bench(text).code == 2


@pytest.mark.parametrize(
    "text", ["emulator-5554", "192.168.1.5:5555", "adb-3A1_x._adb-tls-connect._tcp", "R58M12ABCDE"]
)
def test_serials_as_adb_names_them(text: str) -> None:
    assert parse_target(f"adb:{text}") == text


# --- how it fails


def test_without_adb_it_is_said_what_to_install(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    answer = bench()
    assert answer.code == 4 and "apt install adb" in answer.err


@pytest.mark.parametrize(
    ("devices", "target", "said"),
    [
        ({}, "adb", ["no such device", "USB debugging"]),
        ({"A1": "device"}, "adb:B2", ["no such device; there are A1"]),
        ({"A1": "unauthorized"}, "adb", ["A1 is unauthorized", "allow USB debugging"]),
        ({"A1": "offline"}, "adb:A1", ["A1 is offline", "adb reconnect"]),
        ({"A1": "no permissions (user in plugdev group); see"}, "adb", ["no permissions", "plug in again"]),
        ({"A1": "recovery"}, "adb", ["A1 is recovery", "start up"]),
        (
            {"A1": "device", "B2": "unauthorized"},
            "adb",
            ["sees 2 devices", "B2: unauthorized", "--on adb:A1"],
        ),
    ],
)
def test_a_device_that_is_not_there_or_lets_nobody_in(
    device: AdbDevice, bench: Any, devices: dict[str, str], target: str, said: list[str]
) -> None:
    device.set(devices=devices)
    answer = bench(target)
    assert answer.code == 5 and all(words in answer.err for words in said), answer.err


def test_an_abi_without_c(device: AdbDevice, bench: Any) -> None:
    device.set(properties={"ro.product.cpu.abi": "x86"})
    answer = bench()
    assert answer.code == 5 and "ABI is 'x86'" in answer.err and device.leftovers() == []


def test_a_full_device(device: AdbDevice, bench: Any) -> None:
    device.set(full="windows")
    answer = bench()
    assert answer.code == 5 and "No space left" in answer.err and "make room" in answer.err
    assert device.leftovers() == []


def test_an_illegal_instruction_is_told(device: AdbDevice, bench: Any, tmp_path: Path) -> None:
    died = tmp_path / "died"
    died.write_text("#!/bin/sh\nkill -4 $$\n")
    died.chmod(0o755)
    device.set(emulator=[str(died)])
    answer = bench()
    assert answer.code == 5 and "SIGILL (illegal instruction" in answer.err
    assert answer.rows[0]["latency_ms"] is None and device.leftovers() == []


def test_a_wrong_answer_is_never_timed(device: AdbDevice, bench: Any, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text('#!/bin/sh\n"$@" | sed "s/^[-0-9]*/99/"\n')
    wrong.chmod(0o755)
    device.set(emulator=[str(wrong)])
    answer = bench()
    assert answer.code == 5 and "self-test failed: logits differ by" in answer.err
    assert answer.rows[0]["latency_ms"] is None and device.leftovers() == []


@pytest.mark.parametrize("lines", ["hello", "1 x", "5\\n-7"])
def test_a_device_that_answers_nonsense(device: AdbDevice, bench: Any, tmp_path: Path, lines: str) -> None:
    liar = tmp_path / "liar"
    liar.write_text(f'#!/bin/sh\nif [ "$2" = time ]; then printf "{lines}\\n"; else exec "$@"; fi\n')
    liar.chmod(0o755)
    device.set(emulator=[str(liar)])
    answer = bench()
    assert answer.code == 5 and "answered nonsense" in answer.err and "Traceback" not in answer.err


def test_a_device_that_vanishes_before_it_was_timed(device: AdbDevice, bench: Any) -> None:
    device.set(vanish="student time")
    answer = bench()
    assert answer.code == 5 and "vanished" in answer.err and "not found" in answer.err
    assert answer.document == {}


def test_a_device_that_vanishes_afterwards_leaves_its_times(device: AdbDevice, bench: Any) -> None:
    device.set(vanish="label < windows")
    answer = bench()
    assert answer.code == 5 and "vanished" in answer.err
    assert answer.document["partial"] is True
    (row,) = answer.rows
    assert row["latency_ms"]["p50"] > 0 and row["accuracy"] is None
    assert any("partial" in note for note in answer.document["notes"])


def test_ctrl_c_ends_the_student_and_leaves_nothing(device: AdbDevice, made: tuple[Path, Path]) -> None:
    code = (
        "import sys, topokd_edge.cli, topokd_edge.cli.bench as b\n"
        "from topokd_export.c import host, linux\n"
        "b._verify, linux.compiler_for = lambda bundle: [], lambda machine: host.find_compiler()\n"
        "sys.exit(topokd_edge.cli.main())"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, *arguments(made, "adb", "--seconds", "60")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    end = time.monotonic() + 60
    while not any("student time" in words[-1] for words in device.commands()):
        assert time.monotonic() < end and child.poll() is None
        time.sleep(0.05)
    time.sleep(0.3)
    child.send_signal(signal.SIGINT)
    assert child.wait(20) == 130
    assert device.leftovers() == []
    running = [path for path in Path("/proc").glob("[0-9]*/exe") if str(device.root) in _target(path)]
    assert running == []


def _target(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""


# --- what a device says of itself


def test_the_state_is_read_from_whatever_may_be_read() -> None:
    lines = """khz: 1803000
khz: 2850000
khz:
zone cpu-0-0: 41200
zone battery: 99000
zone cpu-1-0: 43500
governor: sched_pixel
load: 3.52 3.1 2.9 1/812 9
  AC powered: false
  USB powered: false
  temperature: 312
Thermal Status: 2""".splitlines()
    assert read_state(lines) == {
        "khz": 2850000,
        "temperature_c": 43.5,
        "battery_c": 31.2,
        "load": 3.52,
        "governor": "sched_pixel",
        "supply": "battery",
        "thermal_status": 2,
    }
    assert set(read_state([]).values()) == {None}


def test_throttling_is_what_android_says(device: AdbDevice, bench: Any) -> None:
    device.set(thermal="Thermal Status: 1\n")
    answer = bench()
    assert answer.rows[0]["throttled"] is True
    assert any("throttled" in note for note in answer.document["notes"])


# --- the real adb


@pytest.fixture(params=[True, False], ids=["shell_v2", "one stream"])
def adbd(
    request: pytest.FixtureRequest, device: AdbDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Adbd]:
    """A device that the real adb is connected to, with a server of its own."""
    real = shutil.which("adb", path=os.environ["PATH"].partition(":")[2])
    if real is None:
        pytest.skip("apt-get install adb: the bench is tried with the real client too")
    (device.bin / "adb").unlink()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(free.getsockname()[1]))
    monkeypatch.setenv("HOME", str(tmp_path))

    def store(path: str, content: bytes) -> str:
        if path.endswith(f"/{device.settings['full'] or '-'}"):
            return "couldn't write file: No space left on device"
        local_path(device.root, path).write_bytes(content)
        return ""

    made = Adbd(
        lambda script: run_script(device.root.parent, device.settings, script), store, shell_v2=request.param
    )
    subprocess.run([real, "connect", made.serial], check=True, capture_output=True, timeout=60)
    yield made
    made.close()
    subprocess.run([real, "kill-server"], check=True, capture_output=True, timeout=60)


def test_the_real_adb_pushes_runs_and_removes(adbd: Adbd, device: AdbDevice, bench: Any) -> None:
    answer = bench(f"adb:{adbd.serial}")
    assert answer.code == 0, answer.err
    (row,) = answer.rows
    assert (row["accuracy"], row["windows"], row["self_test"]["vectors"]) == (1.0, 40, 16)
    assert row["runs"] >= 50 and row["device"]["cold_clock"] == "device"
    assert device.leftovers() == []
    device.set(full="windows")
    answer = bench()
    assert answer.code == 5 and "No space left" in answer.err and device.leftovers() == []


def test_the_real_adb_when_the_plug_is_pulled(adbd: Adbd, device: AdbDevice, bench: Any) -> None:
    run_it = adbd.shell

    def pulled(script: str) -> tuple[bytes, int]:
        if "label < windows" in script:
            adbd.close()
        return run_it(script)

    adbd.shell = pulled
    answer = bench(f"adb:{adbd.serial}")
    assert answer.code == 5 and "vanished" in answer.err and "Traceback" not in answer.err
    assert answer.document["partial"] is True and answer.rows[0]["latency_ms"]["p50"] > 0


# --- Arm


@pytest.mark.slow
@pytest.mark.parametrize(
    ("abi", "machine", "emulator"),
    [("arm64-v8a", "aarch64", "qemu-aarch64-static"), ("armeabi-v7a", "armv7l", "qemu-arm-static")],
)
def test_the_program_for_a_phone_runs_under_an_emulator(
    device: AdbDevice, bench: Any, monkeypatch: pytest.MonkeyPatch, abi: str, machine: str, emulator: str
) -> None:
    if shutil.which(emulator) is None:
        pytest.skip("apt-get install qemu-user-static: it runs the Arm program")
    monkeypatch.undo()
    monkeypatch.setenv("PATH", f"{device.bin}:{os.environ['PATH']}")
    device.set(emulator=[str(shutil.which(emulator))], properties={"ro.product.cpu.abi": abi})
    answer = bench()
    assert answer.code == 0, answer.err
    assert (answer.rows[0]["device"]["machine"], answer.rows[0]["accuracy"]) == (machine, 1.0)
    assert answer.rows[0]["self_test"]["vectors"] == 16
