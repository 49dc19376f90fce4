"""A whole bench in Chromium made to look like a phone; slow. No real phone has been tried."""

from __future__ import annotations

import json
import os
import queue
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import export_cases
import numpy as np
import pytest
from c_cases import graph_of, tflm_logits
from chromium_phone import Phone, phone
from topokd_export.export import export_student

from topokd_edge.bundle import Bundle, quantise_input, write_sums
from topokd_edge.cli._bench_network import own_address
from topokd_edge.errors import MissingError
from topokd_edge.run import Run

pytestmark = pytest.mark.slow
CLI = [sys.executable, "-c", "import sys; from topokd_edge.cli import main; sys.exit(main())"]
STATE = 'document.getElementById("state")?.dataset.state'
ENDED = f'["pass", "fail"].includes({STATE})'
SHAKE = """(async () => {
  const begin = performance.now();
  for (let n = 0; n < 360; n++) {
    const angle = (2 * Math.PI * 2 * n) / 60;
    dispatchEvent(new DeviceMotionEvent("devicemotion", {
      accelerationIncludingGravity: { x: 4 * Math.sin(angle), y: 4 * Math.cos(angle), z: 9.8 },
      rotationRate: { alpha: 0, beta: 0, gamma: 0 }, interval: 16 }));
    await new Promise((resolve) => setTimeout(resolve, begin + ((n + 1) * 1000) / 60 - performance.now()));
  }
  return document.getElementById("liveNote").textContent;
})()"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose student takes an accelerometer in g."""
    own = {"x": ("g", 0.0, 0.5), "y": ("g", -0.5, 0.4), "z": ("g", 0.6, 0.5)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export_cases, "OWN", own)
        return export_cases.make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def exported(run: Run) -> Path:
    out = run.folder.parent / "bundle"
    export_student(run, 1, 0, out, targets=("wasm",))
    return out


@contextmanager
def benched(bundle: Path, *words: str) -> Iterator[tuple[str, subprocess.Popen[str], queue.Queue[str]]]:
    """The command in a process of its own; gives the address it shows, and what it says after."""
    command = [
        *CLI,
        "bench",
        str(bundle),
        "--on",
        "browser",
        "--json",
        "--seconds",
        "0.5",
        "--wait",
        "60",
        *words,
    ]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    said: queue.Queue[str] = queue.Queue()
    assert child.stderr is not None
    reader = threading.Thread(target=lambda: [said.put(line) for line in child.stderr])
    reader.start()
    try:
        while not (found := re.search(r"http://\S+", said.get(timeout=30))):
            continue
        yield found[0], child, said
    finally:
        child.kill()
        child.wait()
        reader.join()
        for stream in (child.stdout, child.stderr):
            stream.close()  # type: ignore[union-attr]


def answer_of(child: subprocess.Popen[str]) -> dict[str, Any]:
    assert child.stdout is not None
    document = json.loads(child.stdout.read())
    assert child.wait(20) == 0
    return document


def look(tab: Phone, tmp_path: Path, name: str) -> None:
    """Keep a picture; where TOPOKD_PICTURES names a folder, there."""
    tab.picture(Path(os.environ.get("TOPOKD_PICTURES", tmp_path)) / f"{name}.png")


def expected_accuracy(run: Run, bundle: Bundle, count: int) -> float:
    """By TensorFlow Lite Micro, of `count` windows spread over the held-out subject's."""
    windows = run.windows()
    index = windows.of_subjects(["3"])
    index = index[np.arange(count) * len(index) // count]
    content = bundle.model_path("tflite", "int8").read_bytes()
    graph = graph_of(content)
    x = np.moveaxis(bundle.manifest.normalisation.apply(np.asarray(windows.x[index], np.float32)), 1, 2)
    logits = tflm_logits(content, quantise_input(x, graph.input.scale, graph.input.zero_point))
    return float((logits.argmax(1) == windows.y[index]).mean())


def test_a_phone_measures_and_then_answers_live(run: Run, exported: Path, tmp_path: Path) -> None:
    words = ("--address", "127.0.0.1", "--windows", "60", "--run", str(run.folder))
    with phone(tmp_path) as tab, benched(exported, *words) as (address, child, _):
        tab.open(address)
        tab.until(f'{STATE} === "running" && document.getElementById("progress").value > 0')
        look(tab, tmp_path, "running")
        tab.until(ENDED)
        assert tab.value(STATE) == "pass", tab.value("document.body.innerText")
        document = answer_of(child)
        look(tab, tmp_path, "done")
        tab.value('document.getElementById("live").click()', tapped=True)
        tab.until('document.getElementById("liveNote").textContent.includes("seems to have none")')
        said = tab.value(SHAKE)
        look(tab, tmp_path, "live")
        answer = tab.value('document.getElementById("answer").textContent')
        width = tab.value("document.documentElement.scrollWidth")
    assert [item["kernel"] for item in document["results"]] == ["wasm simd", "wasm scalar"]
    bundle = Bundle.open(exported)
    for result in document["results"]:
        assert (result["basis"], result["self_test"]["vectors"]) == ("measured", 16)
        assert 0 < result["latency_ms"]["min"] <= result["latency_ms"]["p50"] < 50
        assert result["accuracy"] == pytest.approx(expected_accuracy(run, bundle, 60))
        assert result["device"]["secure_context"] and result["device"]["cross_origin_isolated"]
        assert "Pixel 7" in result["device"]["user_agent"]
    assert document["subjects"] == ["3"] and width == 390
    assert answer in bundle.manifest.class_names
    # 6 s at 30.5 Hz are 182 samples; windows of 50 every 25 end at 50, 75, ... 175.
    assert re.search(r"resampled to 30.5; [56] answers", said), said


def test_over_plain_http_it_measures_and_says_why_there_are_no_sensors(
    exported: Path, tmp_path: Path
) -> None:
    """No secure context: the modules' hashes are then checked by the browser as it fetches them."""
    try:
        address = own_address()
    except MissingError:
        pytest.skip("this machine is in no network")
    with phone(tmp_path) as tab, benched(exported, "--address", address) as (url, child, _):
        tab.open(url)
        tab.until(ENDED)
        look(tab, tmp_path, "plain-http")
        document = answer_of(child)
        note = tab.value('document.getElementById("liveNote").textContent')
        assert tab.value('document.getElementById("liveButtons").hidden')
    assert not document["results"][0]["device"]["secure_context"]
    assert "adb reverse" in note and "https" in note


def fails(exported: Path, tmp_path: Path, seen: str) -> tuple[int, str]:
    """Bench what was tampered with after its hashes were checked; the exit code, and what was said."""
    with phone(tmp_path) as tab, benched(exported, "--address", "127.0.0.1") as (address, child, said):
        tab.open(address)
        tab.until(ENDED)
        look(tab, tmp_path, "failed")
        assert tab.value(STATE) == seen, tab.value("document.body.innerText")
        code = child.wait(20)
    return code, "".join(iter(lambda: said.get_nowait() if not said.empty() else "", ""))


def test_other_answers_than_the_export_fail_with_exit_code_1(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Expected logits are changed where this side reads them, past the check of the bundle."""
    copy = Path(shutil.copytree(exported, tmp_path / "bundle"))
    vectors = dict(np.load(copy / "selftest.npz"))
    for name in vectors:
        if name.startswith("wasm/"):
            vectors[name] = np.roll(vectors[name], 1, axis=1)
    np.savez(copy / "selftest.npz", **vectors)
    write_sums(copy)
    unverified = "import topokd_edge.cli.bench as b; b._verify = lambda bundle: []; "
    monkeypatch.setattr(sys.modules[__name__], "CLI", [*CLI[:2], unverified + CLI[2]])
    code, said = fails(copy, tmp_path, "pass")
    assert code == 1 and "this browser answers otherwise than the export" in said


def test_a_changed_module_is_noticed_by_the_page_itself(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Path(shutil.copytree(exported, tmp_path / "bundle"))
    path = copy / "wasm/student.simd.wasm"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    unverified = "import topokd_edge.cli.bench as b; b._verify = lambda bundle: []; "
    monkeypatch.setattr(sys.modules[__name__], "CLI", [*CLI[:2], unverified + CLI[2]])
    code, said = fails(copy, tmp_path, "fail")
    assert code == 5 and "could not run the student" in said


def test_a_changed_bundle_is_not_even_served(exported: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(exported, tmp_path / "bundle"))
    with (copy / "wasm/student.simd.wasm").open("r+b") as stream:
        stream.write(b"x")
    child = subprocess.run(
        [*CLI, "bench", str(copy), "--on", "browser", "--address", "127.0.0.1"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert child.returncode == 1 and "student.simd.wasm" in child.stderr and "http://" not in child.stderr


def test_a_port_in_use_ends_with_exit_code_2(exported: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        words = ["--address", "127.0.0.1", "--port", str(taken.getsockname()[1])]
        child = subprocess.run(
            [*CLI, "bench", str(exported), "--on", "browser", *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert child.returncode == 2 and "something else listens there already" in child.stderr
