"""All four pipelines in Chromium made to look like a phone; slow. No real phone has been tried."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium_phone import phone
from export_cases import add_teachers, make_run
from test_bench_phone import ENDED, STATE, answer_of, benched, look
from test_bench_ssh_c import teachers_right
from topokd_export.export import export_student

from topokd_edge.cli._bench_network import own_address
from topokd_edge.errors import MissingError
from topokd_edge.run import Run

pytestmark = pytest.mark.slow
NAMES = ["student.int8", "student.int8", "tda", "teacher.signal", "student.float32"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    made = make_run(tmp_path_factory.mktemp("run"))
    add_teachers(made)
    return made


@pytest.fixture(scope="module")
def exported(run: Run) -> Path:
    out = run.folder.parent / "bundle"
    export_student(run, 1, 0, out, targets=("onnx", "wasm"))
    return out


def bench(exported: Path, tmp_path: Path, picture: str, *words: str) -> dict[str, Any]:
    with phone(tmp_path) as tab, benched(exported, *words) as (address, child, _):
        tab.open(address)
        tab.until(ENDED)
        look(tab, tmp_path, picture)
        assert tab.value(STATE) == "pass", tab.value("document.body.innerText")
        assert tab.value("document.documentElement.scrollWidth") == 390
        said = tab.value('document.getElementById("state").textContent')
        assert said.startswith("Done: every self-test"), said
        return answer_of(child)


def check(results: list[dict[str, Any]]) -> None:
    assert [row["pipeline"] for row in results] == NAMES
    for row in results[2:]:
        assert (row["runtime"], row["kernel"], row["error"]) == ("wasm", "wasm simd", "")
        assert row["self_test"]["vectors"] == 16
        assert 0 <= row["latency_ms"]["min"] <= row["latency_ms"]["p50"] < 500


def test_all_four_with_held_out_windows(run: Run, exported: Path, tmp_path: Path) -> None:
    words = ("--address", "127.0.0.1", "--windows", "40", "--run", str(run.folder))
    results = bench(exported, tmp_path, "pipelines", *words)["results"]
    check(results)
    right = {**teachers_right(run.folder, 40), "student.float32": 1.0}
    assert {row["pipeline"]: row["accuracy"] for row in results[2:]} == pytest.approx(right)


def test_all_four_over_plain_http_without_held_out_windows(exported: Path, tmp_path: Path) -> None:
    """The run is found by itself, beside the bundle; hashes are checked though there is no secure context."""
    try:
        address = own_address()
    except MissingError:
        pytest.skip("this machine is in no network")
    document = bench(exported, tmp_path, "pipelines-plain", "--address", address)
    check(document["results"])
    assert all(row["accuracy"] is None for row in document["results"])
    assert not document["results"][-1]["device"]["secure_context"]


def test_one_that_is_wrong_leaves_the_rest_as_it_is(
    run: Run, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bench expects other logits of persistence than it gives."""
    import test_bench_phone as there

    wrong = (
        "import dataclasses, topokd_edge.cli._bench_browser_floats as f; real = f.float_proof; "
        "f.float_proof = lambda job, *more: dataclasses.replace(p := real(job, *more), "
        "expected=p.expected + (1 if job.pipeline == 'tda' else 0)); "
    )
    monkeypatch.setattr(there, "CLI", [*there.CLI[:2], wrong + there.CLI[2]])
    with phone(tmp_path) as tab, benched(exported, "--address", "127.0.0.1") as (address, child, _):
        tab.open(address)
        tab.until(ENDED)
        assert tab.value(STATE) == "pass", tab.value("document.body.innerText")
        said = tab.value('document.getElementById("state").textContent')
        results = answer_of(child)["results"]
    assert "without tda: other answers than the export" in said
    assert [bool(row["error"]) for row in results] == [False, False, True, False, False]
    assert results[2]["latency_ms"] is None and "largest difference 1" in results[2]["error"]
    assert np.isfinite(results[3]["latency_ms"]["p50"])
