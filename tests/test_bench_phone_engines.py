"""Other engines in Chromium made to look like a phone; slow.

The real packages are not part of the project. Where TOPOKD_NPM names a `node_modules` that holds
onnxruntime-web and @litertjs/core, they are tried; everywhere stand-ins are.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium_phone import phone
from export_cases import make_run
from made_engines import made_litert, made_onnxruntime
from test_bench_phone import ENDED, STATE, answer_of, benched, look
from topokd_export.export import export_student

from topokd_edge.bundle import Bundle, open_model
from topokd_edge.cli._bench_network import own_address
from topokd_edge.errors import MissingError
from topokd_edge.run import Run

pytestmark = pytest.mark.slow
NAMES = ("onnxruntime-web", "@litertjs/core")
FILES = {
    ("onnxruntime-web", "student.float32"): ("onnx", "float32"),
    ("onnxruntime-web", "student.int8"): ("onnx", "int8"),
    ("litert.js", "student.float32"): ("tflite", "float32"),
    ("litert.js", "student.int8"): ("tflite-float-io", "int8"),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def exported(run: Run) -> Path:
    out = run.folder.parent / "bundle"
    export_student(run, 1, 0, out, targets=("onnx", "tflite", "tflite-float-io", "wasm"))
    return out


@pytest.fixture(scope="module")
def packages() -> Path:
    if not (given := os.environ.get("TOPOKD_NPM")):
        pytest.skip("TOPOKD_NPM names no node_modules with onnxruntime-web and @litertjs/core")
    return Path(given)


def bench(
    exported: Path, tmp_path: Path, modules: Path, picture: str, *words: str
) -> tuple[dict[str, Any], str]:
    """The results, and what the page says at the end."""
    engines = [word for name in NAMES for word in ("--engine", str(modules / name))]
    with phone(tmp_path) as tab, benched(exported, *engines, *words) as (address, child, _):
        tab.open(address)
        tab.until(ENDED)
        tab.value("document.body.scrollIntoView()")
        look(tab, tmp_path, picture)
        assert tab.value(STATE) == "pass", tab.value("document.body.innerText")
        assert tab.value("document.documentElement.scrollWidth") == 390
        said = tab.value('document.getElementById("state").textContent')
        return answer_of(child), said


def expected_accuracy(run: Run, bundle: Bundle, target: str, precision: str, count: int) -> float:
    """By the runtime on this machine, of windows spread over the held-out subject's."""
    windows = run.windows()
    index = windows.of_subjects(["3"])
    index = index[np.arange(count) * len(index) // count]
    x = bundle.manifest.normalisation.apply(np.asarray(windows.x[index], np.float32))
    logits = open_model(bundle.model_path(target, precision)).run(x)
    return float((logits.argmax(1) == windows.y[index]).mean())


@pytest.mark.parametrize("where", ["localhost", "network"])
def test_the_real_engines_run_the_student_as_those_of_this_machine(
    run: Run, exported: Path, packages: Path, tmp_path: Path, where: str
) -> None:
    """Over plain http of the network there is neither a fine clock nor memory that threads share."""
    try:
        address = "127.0.0.1" if where == "localhost" else own_address()
    except MissingError:
        pytest.skip("this machine is in no network")
    words = ("--address", address, "--windows", "60", "--run", str(run.folder))
    document, said = bench(exported, tmp_path, packages, f"engines-{where}", *words)
    assert said.startswith("Done: every self-test")
    found = {(one["runtime"], one["pipeline"]): one for one in document["results"][2:6]}
    assert list(found) == list(FILES)
    bundle = Bundle.open(exported)
    for key, result in found.items():
        assert result["error"] == "" and result["self_test"]["vectors"] == 16
        assert 0 <= result["latency_ms"]["min"] <= result["latency_ms"]["p50"] < 100
        expected = expected_accuracy(run, bundle, *FILES[key], 60)
        assert result["accuracy"] == pytest.approx(expected, abs=1.5 / 60)
        assert 5e6 < result["flash_bytes"] < 30e6 and result["device"]["download_ms"] > 0
        assert sum(name.endswith(".wasm") for name in result["device"]["engine_files"]) == 1
    assert set(found["litert.js", "student.int8"]["versions"]) == {"@litertjs/core", "@litertjs/wasm-utils"}


def test_engines_that_are_wrong_or_break_leave_the_rest_as_it_is(exported: Path, tmp_path: Path) -> None:
    """One stand-in refuses the model file, the other gives three logits."""
    made_onnxruntime(tmp_path / "npm")
    folder = made_litert(tmp_path / "npm")
    script = (folder / "dist/index.js").read_text()
    refuses = 'if (!new TextDecoder().decode(model).startsWith("content of "))'
    assert refuses in script
    made_litert(tmp_path / "npm", script.replace(refuses, "if (false)"))
    document, said = bench(exported, tmp_path, tmp_path / "npm", "engines-failed", "--address", "127.0.0.1")
    results = document["results"]
    assert [one["error"] == "" for one in results] == [True, True, False, False, False, False, True]
    assert [one["error"] for one in results[2:4]] == ["not the model file"] * 2
    assert all(one["error"].endswith("expected 5 finite logits") for one in results[4:6])
    assert said.startswith("Done, without onnxruntime-web float32: not the model file")
    assert any("litert.js int8 failed" in note for note in document["notes"])
