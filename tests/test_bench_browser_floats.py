"""Float pipelines in a phone's browser: built, served, run by the page under Node.js, proven and believed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser_cases import PIXEL
from export_cases import add_teachers, make_run, torch_logits
from test_bench_ssh_c import teachers_right
from topokd_bench.browser.post import Post, PostError, Wanted, read_post
from topokd_bench.result import BenchResult
from topokd_bench.windows import HeldOut
from topokd_export.export import export_student
from topokd_export.wasm import build
from wasm_cases import printed

from topokd_edge.bundle import Bundle
from topokd_edge.cli import _bench_browser_floats
from topokd_edge.cli._bench_browser import _made_files, page_files
from topokd_edge.cli._bench_browser_engines import EnginePlan
from topokd_edge.cli._bench_browser_floats import EVERY_CHANNEL, FloatPlan, config, float_results, plan
from topokd_edge.cli._bench_browser_results import notes, show
from topokd_edge.cli._bench_plan import student_windows
from topokd_edge.errors import BadInputError, MissingError
from topokd_edge.run import Run

FLOATS = ("tda", "teacher.signal", "student.float32")
TRIED = 20


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Run]:
    """A bundle with WebAssembly, and the run it came from, with both teachers."""
    run = make_run(tmp_path_factory.mktemp("run"))
    add_teachers(run)
    export_student(run, 1, 0, run.folder.parent / "bundle", targets=("onnx", "wasm"))
    return Bundle.open(run.folder.parent / "bundle"), run


@pytest.fixture(scope="module")
def asked(made: tuple[Bundle, Run]) -> FloatPlan:
    """All three, which classify windows as many as `TRIED`."""
    return plan(*made, TRIED, lambda *_: None)


CODE = """
import { readFileSync } from "node:fs";
const said = [];
globalThis.onmessage = null;
globalThis.postMessage = (message) => message.progress || said.push(message);
globalThis.fetch = async (url) => new Response(readFileSync(new URL(url, import.meta.url)));
if (VALIDATE) WebAssembly.validate = () => false;
const { pipelines } = JSON.parse(readFileSync("config.json", "utf8"));
await import("./pipeline.js");
for (const pipeline of pipelines) await onmessage({ data: { seconds: 0.02, windows: 40, ...pipeline } });
console.log(JSON.stringify(said));
"""


def run_page(made: tuple[Bundle, Run], asked: FloatPlan, folder: Path, *, simd: bool = True) -> Any:
    """Run the worker of the page under Node.js, on the files as they are served; what it says."""
    bundle, run = made
    held_out = student_windows(bundle, run)[0].some(TRIED) if asked.tried else None
    table = page_files(bundle, None, asked) | _made_files(bundle, 0.02, held_out, EnginePlan(), asked)
    for name, served in table.items():
        path = folder / (name or "index.html")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(served.content)
    (folder / "package.json").write_text('{"type": "module"}')
    return json.loads(printed(folder, CODE.replace("VALIDATE", "false" if simd else "true"), ""))


def document_of(bundle: Bundle, said: list[dict[str, Any]], *, simd: bool = True) -> dict[str, Any]:
    """What the page posts; the int8 builds are as the bundle has them."""
    vectors = bundle.self_test()
    own = [
        {
            **{"build": name, "logits": vectors[f"wasm/student.{name}.wasm"].ravel().tolist()},
            **{"times_ms": [1.0] * 100, "warmup": 48, "cold_ms": 1.0, "download_ms": 1.0, "error": ""},
            **{"windows_per_time": 1, "clock_ms": 0.1, "predicted": [0] * TRIED},
        }
        for name in (("simd", "scalar") if simd else ("scalar",))
    ]
    facts = {
        **{"user_agent": PIXEL, "cores": 8, "memory_gb": None, "screen": "390x844 at 2"},
        **dict.fromkeys(("secure_context", "cross_origin_isolated", "hidden_while_timed"), False),
    }
    return {"bundle": bundle.digest, "facts": facts, "builds": own + said, "error": ""}


def read(bundle: Bundle, document: Any, asked: FloatPlan) -> Post:
    count = len(bundle.self_test()["x"])
    wanted = Wanted(bundle.digest, count, len(bundle.manifest.class_names), TRIED, (), asked.wanted)
    return read_post(json.dumps(document).encode(), wanted)


@pytest.mark.parametrize("simd", [True, False], ids=["simd", "scalar"])
def test_the_page_runs_all_three_and_its_result_is_believed(
    made: tuple[Bundle, Run], asked: FloatPlan, tmp_path: Path, simd: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, run = made
    said = [message["done"] for message in run_page(made, asked, tmp_path, simd=simd)]
    document = document_of(bundle, said, simd=simd)
    found = float_results(bundle, read(bundle, document, asked), asked)
    rows = {item.result.pipeline: item.result for item in found}
    assert tuple(rows) == FLOATS
    for row in rows.values():
        assert (row.error, row.runtime, row.basis) == ("", "wasm", "measured")
        assert row.kernel == ("wasm simd" if simd else "wasm scalar")
        assert row.latency_ms is not None and 0 < row.latency_ms["min"] <= row.latency_ms["p50"]
        assert row.self_test["vectors"] == 16 and 50_000 < (row.model_bytes or 0) < 5e6
        assert BenchResult.from_dict(json.loads(json.dumps(row.to_dict()))) == row
    right = {**teachers_right(run.folder, TRIED), "student.float32": 1.0}
    assert {name: row.accuracy for name, row in rows.items()} == pytest.approx(right)
    show("watch", found)
    assert f"tda {rows['tda'].kernel}" in capsys.readouterr().out


def test_the_answers_are_those_of_torch(made: tuple[Bundle, Run], asked: FloatPlan, tmp_path: Path) -> None:
    """The proof itself is by onnxruntime; torch says the same of the same windows."""
    _, run = made
    said = [message["done"] for message in run_page(made, asked, tmp_path)]
    x = np.asarray(asked.runs[1].proof.x)
    scale = run.fold_run(1, 0).preprocessing()["signal"]
    mean, std = (np.array(scale[name], np.float32) for name in ("mean", "std"))
    expected = torch_logits(add_teachers(run)[0], np.moveaxis((x - mean) / std, 1, 2).astype(np.float32))
    got = np.array(said[1]["logits"]).reshape(expected.shape)
    assert np.abs(got - expected).max() <= 1e-4 * np.abs(expected).max()


# --- what goes out


def test_no_recording_but_the_self_test_goes_out_unless_asked_for(
    made: tuple[Bundle, Run], asked: FloatPlan
) -> None:
    bundle, _ = made
    none = replace(asked, held_out=None)
    table = page_files(bundle, None, none) | _made_files(bundle, 1.0, None, EnginePlan(), none)
    scale = bundle.manifest.normalisation
    std, mean = (np.array(v, np.float32)[:, None] for v in (scale.std, scale.mean))
    raw = np.moveaxis(bundle.self_test()["x"] * std + mean, 1, 2)
    samples = {name for name in table if name.endswith(".f32")}
    assert samples == {f"{name}.f32" for name in FLOATS}
    for name in samples:
        np.testing.assert_allclose(np.frombuffer(table[name].content, "<f4"), raw.ravel(), rtol=1e-5)
    assert all(one["windows"] == 0 for one in config(none))
    assert not any("tda" in name or name == "pipeline.js" for name in page_files(bundle))


def test_teachers_of_more_channels_wait_for_held_out_windows(
    made: tuple[Bundle, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The self-test has the student's channels alone."""
    monkeypatch.setattr(_bench_browser_floats, "student_channels", lambda bundle, run: [0, 1])
    monkeypatch.setattr(build, "build_pipeline", lambda pipeline, cpu: b"module")
    none = plan(*made, None, lambda *_: None)
    assert [run.name for run in none.runs] == ["student.float32"]
    assert any("tda was left out: it takes channels that the self-test has not" in n for n in none.notes)
    some = plan(*made, TRIED, lambda *_: None)
    assert [run.as_student for run in some.runs] == [False, False, True]
    assert [one["file"] for one in config(some)] == [EVERY_CHANNEL, EVERY_CHANNEL, "windows.f32"]
    given = np.frombuffer(_bench_browser_floats.contents(some)[EVERY_CHANNEL], "<f4")
    assert isinstance(some.held_out, HeldOut)
    assert np.array_equal(given, np.moveaxis(some.held_out.x, 1, 2).ravel())


def test_windows_of_every_channel_are_a_file_of_their_own(
    made: tuple[Bundle, Run], asked: FloatPlan, tmp_path: Path
) -> None:
    """A pipeline that takes other channels than the student classifies these; here they are turned round."""
    assert asked.held_out is not None
    turned = HeldOut(asked.held_out.x[::-1], asked.held_out.y)
    other = replace(asked, held_out=turned, runs=(replace(asked.runs[2], as_student=False), asked.runs[2]))
    there, here = (message["done"]["predicted"] for message in run_page(made, other, tmp_path))
    assert there == here[::-1] != here


def test_without_a_run_or_a_compiler_there_are_none(
    made: tuple[Bundle, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, run = made
    assert plan(bundle, None, None, lambda *_: None) == FloatPlan()

    def nothing() -> None:
        raise MissingError("making WebAssembly needs ziglang")

    monkeypatch.setattr(build, "refuse_without_compiler", nothing)
    assert plan(bundle, run, None, lambda *_: None).notes == (
        "float pipelines were left out: making WebAssembly needs ziglang",
    )


def test_a_run_that_does_not_fit_is_refused_only_when_it_was_named(
    made: tuple[Bundle, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise BadInputError("another run")

    monkeypatch.setattr(_bench_browser_floats, "make_plan", refuse)
    with pytest.raises(BadInputError, match="another run"):
        plan(*made, None, lambda *_: None)
    assert plan(*made, None, lambda *_: None, sure=False).notes == (
        "float pipelines were left out: another run",
    )


# --- what is posted


def answers(asked: FloatPlan) -> list[dict[str, Any]]:
    """What the page says of each pipeline when all is well."""
    return [
        {
            **{"build": run.name, "logits": run.proof.expected.ravel().tolist(), "error": ""},
            **{"times_ms": [2.0] * 60, "warmup": 48, "cold_ms": 1.0, "download_ms": 1.0},
            **{"windows_per_time": 1, "clock_ms": 0.1, "predicted": [0] * asked.tried},
        }
        for run in asked.runs
    ]


@pytest.mark.parametrize(("off", "ok"), [(0.9, True), (1.2, False)])
def test_a_logit_may_differ_by_the_tolerance(
    made: tuple[Bundle, Run], asked: FloatPlan, off: float, ok: bool
) -> None:
    said = answers(asked)
    logits = asked.runs[0].proof.expected.ravel()
    assert asked.runs[0].proof.tolerance == pytest.approx(1e-4 * max(1.0, np.abs(logits).max()))
    said[0]["logits"][7] += off * asked.runs[0].proof.tolerance
    post = read(made[0], document_of(made[0], said), asked)
    found = float_results(made[0], post, asked)
    assert [not item.result.error for item in found] == [ok, True, True]
    failed = [one for one in notes(found) if one.startswith("tda wasm simd failed: its self-test is wrong")]
    assert len(failed) == (not ok) and (ok or found[0].result.latency_ms is None)


def test_one_that_did_not_run_does_not_spoil_the_rest(made: tuple[Bundle, Run], asked: FloatPlan) -> None:
    said = answers(asked)
    said[0].update(logits=[], times_ms=[], predicted=[], error="out of memory")
    post = read(made[0], document_of(made[0], said), asked)
    found = float_results(made[0], post, asked)
    assert [item.result.error for item in found] == ["out of memory", "", ""]


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda said: said.pop(), "builds: expected scalar, tda, teacher.signal"),
        (lambda said: said.reverse(), "builds: expected"),
        (lambda said: said[0].update(predicted=[0] * (TRIED + 1)), "builds.tda.predicted: expected 20"),
        (lambda said: said[1]["logits"].pop(), "builds.teacher.signal.logits: expected 80"),
        (lambda said: said[2].update(times_ms=[-1.0] * 60), "builds.student.float32: times"),
        (lambda said: said[2].update(error="broken"), "builds.student.float32.logits: expected 0"),
    ],
)
def test_a_malformed_post_is_refused_by_name(
    made: tuple[Bundle, Run], asked: FloatPlan, spoil: Any, problem: str
) -> None:
    said = answers(asked)
    spoil(said)
    with pytest.raises(PostError) as caught:
        read(made[0], document_of(made[0], said), asked)
    assert any(one.startswith(problem) for one in caught.value.problems), caught.value.problems
