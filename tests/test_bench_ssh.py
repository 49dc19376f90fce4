"""The bench over SSH, against a real sshd: what it measures, how it fails, and that nothing stays behind."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from export_cases import make_run
from sshd_device import Answer, SshDevice, arguments, package, run_bench
from topokd_bench import agent
from topokd_bench.remote_states import throttled
from topokd_bench.result import BenchResult
from topokd_bench.ssh import parse_address
from topokd_export.export import export_student

from topokd_edge.bundle import Bundle
from topokd_edge.cli._bench_ssh import wheels_for

REAL_PYTHON = f'exec {sys.executable} "$@"'


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A bundle, and the run it came from."""
    run = make_run(tmp_path_factory.mktemp("run"))
    export_student(run, 1, 0, run.folder.parent / "bundle", targets=("onnx", "tflite"))
    return run.folder.parent / "bundle", run.folder


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SshDevice]:
    """A device whose Python looks into `tmp_path / "site"` first."""
    made = SshDevice(tmp_path / "device", PYTHONPATH=str(tmp_path / "site"))
    monkeypatch.setenv("PATH", f"{made.client}:{os.environ['PATH']}")
    yield made
    made.close()


@pytest.fixture
def bench(
    made: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Any:
    """Call the command; hashes and self-test here are tested elsewhere and take seconds."""
    monkeypatch.setattr("topokd_edge.cli.bench._verify", lambda bundle: [])

    def call(target: str, *more: str) -> Answer:
        return run_bench(arguments(made, target, *more), monkeypatch, capsys)

    return call


# --- what it measures


def test_every_model_is_proven_and_timed_and_nothing_stays(
    device: SshDevice, bench: Any, made: tuple[Path, Path]
) -> None:
    device.python(f"echo 'Welcome to the device!'\n{REAL_PYTHON}")
    (device.bin / "vcgencmd").write_text("#!/bin/sh\necho throttled=0x50000\n")
    (device.bin / "vcgencmd").chmod(0o755)
    answer = bench(device.url)
    assert answer.code == 0, answer.err
    assert device.leftovers() == []
    assert set(answer.rows) == {"student.float32", "student.int8"}
    for row in answer.rows.values():
        assert BenchResult.from_dict(row).to_dict() == row
        assert (row["target"], row["basis"], row["runtime"]) == (device.url, "measured", "litert")
        assert row["self_test"] == {"vectors": 16, "bundle": Bundle.open(made[0]).digest}
        assert row["runs"] >= 50 and row["warmup"] == 10
        assert 0 < row["latency_ms"]["min"] <= row["latency_ms"]["p50"] < row["latency_ms"]["cold"]
        assert (row["windows"], row["accuracy"]) == (40, 1.0)  # the run's truth is what this student answers
        assert 10e6 < row["ram_bytes"] < 500e6
        assert row["device"]["get_throttled_after"] == 0x50000
        assert (row["throttled"], row["device"]["under_voltage"]) == (False, True)
        assert {"governor", "khz_before", "khz_after", "temperature_c_after", "uname"} <= set(row["device"])
    assert answer.document["partial"] is False
    assert any("supply voltage" in note for note in answer.document["notes"])


def test_an_illegal_instruction_costs_a_runtime_and_not_the_bench(
    device: SshDevice, bench: Any, tmp_path: Path
) -> None:
    package(tmp_path, "ai_edge_litert.interpreter", "import os\nos.kill(os.getpid(), 4)\n")
    answer = bench(device.url)
    assert answer.code == 0, answer.err
    assert {row["runtime"] for row in answer.rows.values()} == {"onnxruntime"}
    assert sum("SIGILL (illegal instruction" in note for note in answer.document["notes"]) == 2
    assert device.leftovers() == []
    assert not (device.folder / ".cache").exists()  # ONNX Runtime's reports to its maker are off


def test_without_a_runtime_and_without_c_the_rows_say_what_is_missing(
    device: SshDevice, bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package(tmp_path, "numpy", "raise ImportError('no numpy here')\n")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    answer = bench(device.url)
    assert answer.code == 5
    for row in answer.rows.values():
        assert row["error"].startswith(
            "litert, tflite-runtime, onnxruntime: not on the device (no numpy here); c: "
        )
        assert "needs the package ziglang" in row["error"]
    assert any("to have one: pip install ai-edge-litert" in note for note in answer.document["notes"])
    assert device.leftovers() == []


def test_a_wrong_answer_is_a_failure_and_no_other_runtime_hides_it(
    device: SshDevice, bench: Any, tmp_path: Path
) -> None:
    zeros = """
import numpy as np
class Interpreter:
    def __init__(self, **_): pass
    def allocate_tensors(self): pass
    def get_input_details(self): return [{"shape": (1, 1, 50, 3), "dtype": np.float32, "index": 0}]
    def get_output_details(self): return [{"index": 1}]
    def set_tensor(self, index, value): pass
    def invoke(self): pass
    def get_tensor(self, index): return np.zeros((1, 5), np.float32)
"""
    package(tmp_path, "ai_edge_litert.interpreter", zeros)
    answer = bench(device.url)
    assert answer.code == 5 and "no pipeline could be measured" in answer.err
    for row in answer.rows.values():
        assert row["latency_ms"] is None and row["error"].startswith("self-test failed: logits differ by")


# --- how it fails


def test_a_key_the_device_does_not_know(device: SshDevice, bench: Any) -> None:
    device.trust("other")
    answer = bench(device.url)
    assert answer.code == 5 and "refuses the key" in answer.err and "ssh-copy-id" in answer.err


def test_a_host_that_is_not_known_is_not_trusted(device: SshDevice, bench: Any) -> None:
    device.forget_host()
    answer = bench(device.url)
    assert answer.code == 5 and "does not know this host's key" in answer.err
    assert (device.folder / "known").read_text() == ""
    assert f"ssh -p {device.port} " in answer.err


def test_a_device_that_is_off(device: SshDevice, bench: Any, tmp_path: Path) -> None:
    device.close()
    answer = bench(device.url, "--out", str(tmp_path / "out.json"))
    assert answer.code == 5 and "cannot be reached" in answer.err and "refused" in answer.err
    assert not (tmp_path / "out.json").exists()


def test_a_device_without_python(device: SshDevice, bench: Any) -> None:
    device.python("echo 'sh: 1: exec: python3: not found' >&2; exit 127")
    answer = bench(device.url)
    assert answer.code == 5 and "no python3 on the device" in answer.err


def test_a_python_too_old(device: SshDevice, bench: Any) -> None:
    old = "import sys; sys.version_info = (3, 7, 3); code = sys.argv.pop(1); exec(code)"
    device.python(f'exec {sys.executable} -c "{old}" "$2" "$3"')
    answer = bench(device.url)
    assert answer.code == 5 and "Python 3.7, the agent needs 3.9" in answer.err


@pytest.mark.parametrize("blocks", [4, 128])  # of 512 bytes: the agent does not fit, or the windows do not
def test_a_full_disk(device: SshDevice, bench: Any, blocks: int) -> None:
    device.python(f"ulimit -f {blocks}\n{REAL_PYTHON}")
    answer = bench(device.url)
    assert answer.code == 5 and "cannot take the files" in answer.err and "too large" in answer.err
    assert device.leftovers() == []


def wait_for(device: SshDevice, name: str) -> None:
    end = time.monotonic() + 20
    while not list(device.tmp.glob(f"*/{name}")):
        assert time.monotonic() < end, f"{name} never came"
        time.sleep(0.005)


def test_a_device_that_vanishes_leaves_a_partial_result(device: SshDevice, bench: Any) -> None:
    def cut() -> None:
        wait_for(device, "student.int8-litert-expected")
        device.cut()

    thread = threading.Thread(target=cut)
    thread.start()
    answer = bench(device.url, "--seconds", "1")
    thread.join()
    assert answer.code == 5 and "vanished" in answer.err
    assert answer.document["partial"] is True
    assert answer.rows["student.float32"]["error"] == ""
    assert "vanished" in answer.rows["student.int8"]["error"]
    assert any("partial" in note for note in answer.document["notes"])
    assert device.leftovers() == []


def test_a_killed_agent_leaves_nothing(device: SshDevice, bench: Any) -> None:
    def kill() -> None:
        wait_for(device, "student.float32-litert-expected")
        (name,) = (path.name for path in device.tmp.iterdir())
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            words = entry.read_bytes().split(b"\0")
            if any(word.endswith(name.encode()) for word in words) and b"-B" in words:
                os.kill(int(entry.parent.name), signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    answer = bench(device.url, "--seconds", "1")
    thread.join()
    assert answer.code == 5 and "vanished" in answer.err
    assert device.leftovers() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_host_that_is_interrupted_or_dies(
    device: SshDevice, made: tuple[Path, Path], number: signal.Signals
) -> None:
    child = subprocess.Popen(
        [
            *(sys.executable, "-c", "import sys, topokd_edge.cli; sys.exit(topokd_edge.cli.main())"),
            *arguments(made, device.url, "--seconds", "20"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for(device, "student.float32-litert-expected")
    child.send_signal(number)
    assert child.wait(20) == (130 if number == signal.SIGINT else -number)
    assert device.leftovers() == []


NONSENSE = """
import json, os, sys
sys.stdin.buffer.read(int(sys.argv[2]))
facts = {"cpu": "x\\x1b[2J", "deep": {}, "n": 1}
print(json.dumps({"event": "hello", "folder": "/", "device": facts}), flush=True)
for line in sys.stdin.buffer:
    command = json.loads(line)
    if command["command"] == "put":
        sys.stdin.buffer.read(command["bytes"])
        print(json.dumps({"event": "stored"}), flush=True)
    elif command["command"] == "run":
        print(ANSWER, flush=True)
    else:
        break
"""


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ('{"event": "measured", "answer": {"ns": [-1]}}', "answered nonsense"),
        ('{"event": "measured", "answer": {"ns": "many", "cpu_share": []}}', "answered nonsense"),
        ('{"event": "measured", "answer": 7}', "answered nonsense"),
        ('{"event": "measured", "answer": {"error": "\\u001b[31mred"}}', "?[31mred"),
        ("gibberish", "answered nonsense: 'gibberish'"),
    ],
)
def test_a_device_that_answers_nonsense(
    device: SshDevice, bench: Any, tmp_path: Path, answer: str, said: str
) -> None:
    (tmp_path / "liar.py").write_text(NONSENSE.replace("ANSWER", repr(answer)))
    device.python(f'exec {sys.executable} {tmp_path / "liar.py"} "$2" "$3"')
    got = bench(device.url)
    assert got.code == 5 and said in got.err and "\x1b" not in got.err and "Traceback" not in got.err
    assert all(row["latency_ms"] is None for row in got.rows.values())


@pytest.mark.parametrize(
    ("machine", "python", "said"),
    [
        ("aarch64", "3.13.5", "ai-edge-litert"),
        ("armv7l", "3.11.2", "tflite-runtime==2.14.0"),
        ("armv7l", "3.13.5", "no wheel of one for Python 3.13.5"),
        ("armv6l", "3.11.2", "no wheel of one for armv6l"),
    ],
)
def test_a_device_is_told_what_there_is_for_it(machine: str, python: str, said: str) -> None:
    assert said in wheels_for({"machine": machine, "python": python})


# --- addresses and the agent


@pytest.mark.parametrize(
    ("text", "host", "user", "port"),
    [
        ("ssh://pi@raspberrypi.local", "raspberrypi.local", "pi", None),
        ("ssh://pi@10.0.0.7:2222", "10.0.0.7", "pi", 2222),
        ("ssh://watch", "watch", None, None),
        ("ssh://a.b-c@[fe80::1]:22/", "fe80::1", "a.b-c", 22),
    ],
)
def test_addresses(text: str, host: str, user: str | None, port: int | None) -> None:
    address = parse_address(text)
    assert (address.host, address.user, address.port) == (host, user, port)
    command = address.command("true")
    assert command[-3:] == ["--", host, "true"] and "BatchMode=yes" in command
    assert not any("StrictHostKeyChecking" in word for word in command)


@pytest.mark.parametrize(
    "text",
    [
        *("ssh://", "ssh://pi@", "ssh://pi@host:0", "ssh://pi@host:65536", "ssh://pi@host:22x"),
        *("ssh://-oProxyCommand=id@host", "ssh://pi@-oProxyCommand=id", "ssh://pi:secret@host"),
        *(
            "ssh://pi@host;id",
            "ssh://pi@$(id)",
            "ssh://pi@host name",
            "ssh://pi@host/path",
            "ssh://pi@host\n",
        ),
    ],
)
def test_an_address_that_is_none_is_a_usage_error(bench: Any, text: str) -> None:
    with pytest.raises(ValueError, match="expected ssh://user@host"):
        parse_address(text)
    assert bench(text if text.strip() == text else "ssh://pi@a b").code == 2


def test_the_agent_stands_alone_and_old_python_reads_it() -> None:
    text = Path(agent.__file__).read_text("utf-8")
    tree = ast.parse(text, feature_version=(3, 9))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in names} <= set(sys.stdlib_module_names)
    assert "from __future__ import annotations" in text  # so that no `X | None` is evaluated


def test_the_agent_refuses_what_arrives_otherwise_and_names_outside_its_folder(tmp_path: Path) -> None:
    alone = tmp_path / "alone" / "agent.py"
    alone.parent.mkdir()
    alone.write_bytes(Path(agent.__file__).read_bytes())

    def talk(**header: Any) -> str:
        folder = tmp_path / "topokd-bench-x"
        folder.mkdir()
        child = subprocess.run(
            [sys.executable, str(alone), str(folder)],
            input=json.dumps({"command": "put", "bytes": 5, **header}).encode() + b"\nhello",
            capture_output=True,
            check=False,
        )
        assert not folder.exists()
        return child.stdout.decode() + child.stderr.decode()

    right = hashlib.sha256(b"hello").hexdigest()
    assert '"stored"' in talk(name="a", sha256=right)
    assert '"hash"' in talk(name="a", sha256="0" * 64)
    assert "file name" in talk(name="../a", sha256=right)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({"get_throttled": 0x0}, {"get_throttled": 0x0}, False),
        ({"get_throttled": 0x50000}, {"get_throttled": 0x50000}, False),  # long ago
        ({"get_throttled": 0x0}, {"get_throttled": 0x40000}, True),  # meanwhile
        ({"get_throttled": 0x0}, {"get_throttled": 0x20002}, True),  # now
        ({"get_throttled": 0x0}, {"get_throttled": 0x10001}, False),  # voltage alone
        ({"throttle_count": 3}, {"throttle_count": 4}, True),
        ({}, {}, None),
    ],
)
def test_throttling(before: dict[str, int], after: dict[str, int], expected: bool | None) -> None:
    assert throttled(before, after) is expected


# --- threads, pauses, minutes


def test_every_mode_is_measured_there_too(
    device: SshDevice, bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("topokd_edge.cli._bench_ssh.refuse_threads", lambda *_: None)
    more = ["--threads", "1,2", "--every", "0.003", "--sustained", "0.01", "--pin"]
    answer = bench(device.url, *more)
    assert answer.code == 0, answer.err
    rows = [row for row in answer.document["results"] if row["pipeline"] == "student.int8"]
    modes = [("steady", 1), ("duty-cycled", 1), ("sustained", 1), ("steady", 2)]
    assert [(row["mode"], row["threads"]) for row in rows] == modes
    assert all(BenchResult.from_dict(row).to_dict() == row for row in rows)
    steady, paced, sustained, two = rows
    assert len(steady["cold"]["total_ms"]) == 3 and 0 < steady["cold"]["again_ms"] < steady["cold"]["load_ms"]
    assert len(steady["device"]["pinned_cores"]) == 1 and steady["device"]["first_tenth"] > 0
    assert (paced["runs"], paced["device"]["every_s"]) == (20, 0.003)
    assert len(sustained["sustained"]["p50_ms"]) == 10 and sustained["accuracy"] is None
    assert two["latency_ms"]["p50"] > 0 and two["accuracy"] is None and two["cold"] is None
    assert device.leftovers() == []


def test_more_threads_than_the_device_has_are_refused(device: SshDevice, bench: Any) -> None:
    answer = bench(device.url, "--threads", "1,999")
    assert answer.code == 2 and f"--threads 999: {device.url} has" in answer.err
    assert device.leftovers() == []
