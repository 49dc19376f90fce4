"""Other engines in a phone's browser: what is taken of their packages, served, run by the page, believed."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser_cases import CLASSES, VECTORS, expected_of, read, small_bundle, sound_post
from made_engines import made_litert, made_onnxruntime, write_package
from topokd_bench.browser.engines import read_engine
from topokd_bench.browser.handler import MOST_BYTES
from topokd_bench.browser.post import MOST_TIMES, PostError
from topokd_bench.result import BenchResult
from topokd_bench.windows import HeldOut
from wasm_cases import printed

from topokd_edge.bundle import Bundle
from topokd_edge.cli._bench_browser import ENGINE_POST_BYTES, MOST_WINDOWS, _made_files, page_files
from topokd_edge.cli._bench_browser_engines import EnginePlan, engine_results, plan
from topokd_edge.cli._bench_browser_results import notes, results
from topokd_edge.errors import BadInputError, TopokdError, UsageError

MODELS = (
    ("onnx", "float32", "student_float32.onnx"),
    ("onnx", "int8", "student_int8.onnx"),
    ("tflite", "float32", "student_float32.tflite"),
    ("tflite", "int8", "student_int8.tflite"),
    ("tflite-float-io", "int8", "student_int8_float_io.tflite"),
)
RUNS = {
    "onnxruntime-web float32": MODELS[0][2],
    "onnxruntime-web int8": MODELS[1][2],
    "litert.js float32": MODELS[2][2],
    "litert.js int8": MODELS[4][2],
}
NAMES = tuple(RUNS)


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `node_modules`."""
    folder = tmp_path_factory.mktemp("npm") / "node_modules"
    made_onnxruntime(folder)
    made_litert(folder)
    return folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return small_bundle(tmp_path_factory.mktemp("engines") / "watch", models=MODELS)


@pytest.fixture(scope="module")
def both(bundle: Bundle, modules: Path) -> EnginePlan:
    return plan(bundle, [modules / "onnxruntime-web", modules / "@litertjs/core"])


# --- the packages


def test_only_what_a_page_needs_is_taken_with_its_versions(modules: Path) -> None:
    engine = read_engine(modules / "onnxruntime-web")
    assert (engine.runtime, engine.versions) == ("onnxruntime-web", {"onnxruntime-web": "1.2.3"})
    assert sorted(Path(name).name for name in engine.files) == [
        "ort-wasm-simd-threaded.mjs",
        "ort-wasm-simd-threaded.wasm",
        "ort.wasm.min.mjs",
    ]
    litert = read_engine(modules / "@litertjs/core")
    assert litert.versions == {"@litertjs/core": "2.3.4", "@litertjs/wasm-utils": "2.3.5"}
    assert len(litert.files) == 6 and not any("threaded" in name for name in litert.files)
    before = (modules / "@litertjs/core/dist/index.js").read_bytes()
    assert litert.files["litert/index.js"] == before.replace(b"@litertjs/wasm-utils", b"./wasm-utils.js")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "expected the package.json of one of onnxruntime-web, @litertjs/core"),
        (b"", "expected the package.json"),
        (b"\xff\xfe{", "expected the package.json"),
        (b"[" * 100_000, "expected the package.json"),
        (b"[1]", "expected the package.json"),
        (b'{"name": "onnxruntime-web"}', "with name and version"),
        (b'{"name": "onnxruntime-web", "version": 3}', "with name and version"),
        (b'{"name": "onnxruntime-web", "version": "1\\u001b[2J"}', "with name and version"),
        (
            b'{"name": "onnxruntime-node", "version": "1.2.3"}',
            "the package onnxruntime-node, expected one of",
        ),
        (b'{"name": "onnxruntime-web", "version": "1.2.3"}', "onnxruntime-web 1.2.3 without files"),
    ],
)
def test_what_is_no_engine_is_refused_with_the_command(
    tmp_path: Path, content: bytes | None, said: str
) -> None:
    if content is not None:
        (tmp_path / "package.json").write_bytes(content)
    with pytest.raises(BadInputError) as caught:
        read_engine(tmp_path)
    assert said in caught.value.message and str(tmp_path) in caught.value.message
    assert "npm install onnxruntime-web" in caught.value.hint


def test_every_missing_file_is_named(modules: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(modules / "onnxruntime-web", tmp_path / "onnxruntime-web"))
    lost = [folder / "dist/ort.wasm.min.mjs", folder / "dist/ort-wasm-simd-threaded.wasm"]
    for path in lost:
        path.unlink()
    with pytest.raises(BadInputError) as caught:
        read_engine(folder)
    assert caught.value.problems == tuple(map(str, lost))


def test_the_package_that_litert_needs_is_found_beside_or_inside(modules: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(modules / "@litertjs/core", tmp_path / "a/@litertjs/core"))
    with pytest.raises(BadInputError, match="needs @litertjs/wasm-utils, which is not there") as caught:
        read_engine(folder)
    assert len(caught.value.problems) == 2 and "npm install @litertjs/core" in caught.value.hint
    shutil.copytree(modules / "@litertjs/wasm-utils", folder / "node_modules/@litertjs/wasm-utils")
    assert read_engine(folder).files == read_engine(modules / "@litertjs/core").files


@pytest.mark.parametrize("script", ["", 'import "x" from "@litertjs/wasm-utils";' * 2])
def test_a_litert_that_is_put_together_otherwise_is_refused(tmp_path: Path, script: str) -> None:
    with pytest.raises(BadInputError, match=r"index\.js: expected one import"):
        read_engine(made_litert(tmp_path, script))


# --- the plan


def test_each_engine_runs_the_model_files_it_takes(both: EnginePlan, bundle: Bundle) -> None:
    assert {run.name: run.item.path for run in both.runs} == RUNS and both.notes == ()
    assert [run.proof.agreement for run in both.runs] == [1.0, 0.9, 1.0, 0.9]
    assert both.runs[0].proof.tolerance == 1e-4


def test_what_the_bundle_lacks_is_told_or_refused(modules: Path, tmp_path: Path) -> None:
    some = small_bundle(tmp_path / "some", models=MODELS[2:4])
    found = plan(some, [modules / "@litertjs/core"])
    assert found.names == ("litert.js float32",)
    assert "litert.js: no int8 file of target tflite-float-io" in found.notes[0]
    assert "--targets tflite-float-io" in found.notes[0]
    with pytest.raises(BadInputError, match="no float32 file of target onnx") as caught:
        plan(some, [modules / "onnxruntime-web"])
    assert "--targets onnx,wasm" in caught.value.hint


def test_an_engine_named_twice_is_wrong_usage(bundle: Bundle, modules: Path) -> None:
    folder = modules / "onnxruntime-web"
    with pytest.raises(UsageError, match="onnxruntime-web was named already"):
        plan(bundle, [folder, folder])


# --- what is served


def test_nothing_of_an_engine_is_served_unless_asked_for(bundle: Bundle, both: EnginePlan) -> None:
    plain, more = page_files(bundle), page_files(bundle, both)
    assert not any("engine" in name or "ort" in name or "litert" in name for name in plain)
    added = set(more) - set(plain)
    assert added == {
        "engine.js",
        "engine.onnxruntime-web.js",
        "engine.litert.js",
        "selftest.f32",
        *RUNS.values(),
        *both.runs[0].engine.files,
        *both.runs[2].engine.files,
    }
    assert more["litert/wasm/litert_wasm_internal.wasm"].kind == "application/wasm"
    assert more["onnxruntime-web/ort.wasm.min.mjs"].kind.startswith("text/javascript")
    assert json.loads(_made_files(bundle, 1.0, None, EnginePlan())["config.json"].content)["engines"] == []


CODE = """
import { readFileSync } from "node:fs";
import { createContext, runInThisContext } from "node:vm";
const said = [];
globalThis.self = globalThis;
globalThis.onmessage = null;
globalThis.postMessage = (message) => message.progress || said.push(message);
globalThis.fetch = async (url) => new Response(readFileSync(new URL(url, import.meta.url)));
globalThis.importScripts = (url) => runInThisContext(readFileSync(new URL(url), "utf8"));
const { engines } = JSON.parse(readFileSync("config.json", "utf8"));
await import("./engine.js");
for (const engine of engines) await onmessage({ data: { ...engine, seconds: 0.02, windows: 3 } });
console.log(JSON.stringify(said));
"""


def run_page(bundle: Bundle, asked: EnginePlan, folder: Path) -> list[dict[str, Any]]:
    """Run the workers of the page under Node.js, on the files as they are served; what they say."""
    x = bundle.self_test()["x"]
    held_out = HeldOut(x[:3], np.array([0, 1, 2]))
    table = {**page_files(bundle, asked), **_made_files(bundle, 0.02, held_out, asked)}
    for name, served in table.items():
        path = folder / (name or "index.html")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(served.content)
    info = {"length": 10, "channels": ["a", "b", "c"], "classes": list(CLASSES)}
    (folder / "student.js").write_text(f"export const info = {json.dumps(info)};")
    samples = json.dumps(np.moveaxis(x, 1, 2).reshape(VECTORS, -1).tolist())
    (folder / "selftest.js").write_text(
        f"export const windows = () => {samples}.map((w) => new Float32Array(w));"
    )
    (folder / "package.json").write_text('{"type": "module"}')
    found: list[dict[str, Any]] = json.loads(printed(folder, CODE, ""))
    return found


def test_the_page_drives_both_engines_and_its_result_is_believed(
    bundle: Bundle, both: EnginePlan, tmp_path: Path
) -> None:
    """Under Node.js with stand-ins; layouts, normalisation and files are the page's own."""
    said = [message["done"] for message in run_page(bundle, both, tmp_path)]
    document = sound_post(bundle, windows=3)
    document["builds"] += said
    post = read(document, bundle, windows=3, engines=NAMES)
    x = bundle.self_test()["x"]
    for run in post.builds[2:]:
        np.testing.assert_allclose(run.logits, expected_of(x), atol=1e-5)
        assert run.predicted.tolist() == expected_of(x[:3]).argmax(1).tolist()
        assert run.timing.runs >= 50 and run.cold_ms > 0
    found = engine_results(bundle, post, both, set(), None)
    assert [item.result.error for item in found] == [""] * 4


def test_an_engine_that_fails_is_told_and_one_that_is_wrong_is_not_timed(
    bundle: Bundle, tmp_path: Path
) -> None:
    broken = made_onnxruntime(
        tmp_path / "npm", "export const env = { wasm: {} }; export const InferenceSession = {};"
    )
    asked = plan(bundle, [broken])
    said = run_page(bundle, asked, tmp_path / "page")
    assert all("create" in message["error"] for message in said)
    script = (made_onnxruntime(tmp_path / "npm") / "dist/ort.wasm.min.mjs").read_text()
    wrong = made_onnxruntime(tmp_path / "npm", script.replace("(n + 1), 0)", "(n + 1), 0.01)"))
    asked = plan(bundle, [wrong])
    runs = [message["done"] for message in run_page(bundle, asked, tmp_path / "page")]
    assert runs[0]["times_ms"] == [] and runs[0]["predicted"] == [0, 0, 0]
    document = sound_post(bundle, windows=3)
    document["builds"] += runs
    post = read(document, bundle, windows=3, engines=asked.names)
    first = engine_results(bundle, post, asked, set(), None)[0].result
    assert first.error.startswith("its self-test is wrong: largest difference 0.001")


@pytest.mark.parametrize(
    ("change", "answered"),
    [("/ length)", "/ 0)"), ("length: channels", "length: 2")],
    ids=["infinite", "two"],
)
def test_what_are_not_logits_is_an_error_of_the_engine(
    bundle: Bundle, tmp_path: Path, change: str, answered: str
) -> None:
    script = (made_onnxruntime(tmp_path / "npm") / "dist/ort.wasm.min.mjs").read_text()
    assert change in script
    asked = plan(bundle, [made_onnxruntime(tmp_path / "npm", script.replace(change, answered))])
    said = run_page(bundle, asked, tmp_path / "page")
    assert all(message["error"].endswith("expected 3 finite logits") for message in said)


# --- what is posted


def test_the_results_have_engine_precision_versions_and_sizes(bundle: Bundle, both: EnginePlan) -> None:
    held_out = HeldOut(np.zeros((5, 3, 10), np.float32), np.array([0, 1, 2, 0, 2]))
    document = sound_post(bundle, windows=5, engines=RUNS)
    post = read(document, bundle, windows=5, engines=NAMES)
    pair = {f"litert/wasm/litert_wasm_internal.{suffix}" for suffix in ("js", "wasm")}
    given = {"", "worker.js", "litert/index.js", *pair}
    found = [item.result for item in engine_results(bundle, post, both, given, held_out)]
    assert [(one.runtime, one.pipeline) for one in found] == [
        ("onnxruntime-web", "student.float32"),
        ("onnxruntime-web", "student.int8"),
        ("litert.js", "student.float32"),
        ("litert.js", "student.int8"),
    ]
    last = found[3]
    assert (last.basis, last.accuracy, last.runs) == ("measured", 0.8, 300) and last.latency_ms is not None
    assert last.versions["@litertjs/core"] == "2.3.4"
    sizes = last.device["engine_files"]
    assert set(sizes) == {"litert/index.js", *pair} and sizes["litert/wasm/litert_wasm_internal.wasm"] == 8
    assert last.model_bytes == len(b"content of student_int8_float_io.tflite")
    assert last.flash_bytes == last.model_bytes + sum(sizes.values())
    assert BenchResult.from_dict(json.loads(json.dumps(last.to_dict()))) == last
    assert len(results(bundle, post, held_out)) == 2


@pytest.mark.parametrize(("off", "ok"), [(0.9e-4, True), (1.2e-4, False)])
def test_a_float_logit_may_differ_by_the_tolerance_of_verify(
    bundle: Bundle, both: EnginePlan, off: float, ok: bool
) -> None:
    document = sound_post(bundle, engines=RUNS)
    document["builds"][2]["logits"][4] += off
    found = engine_results(bundle, read(document, bundle, engines=NAMES), both, set(), None)
    assert [not item.result.error for item in found] == [ok, True, True, True]
    failed = [one for one in notes(found) if one.startswith("onnxruntime-web float32 failed: its self-test")]
    assert len(failed) == (not ok) and (ok or found[0].result.latency_ms is None)


FAILED = {"logits": [], "times_ms": [], "predicted": [], "error": "no such operator"}


def test_an_engine_that_could_not_run_does_not_spoil_the_rest(bundle: Bundle, both: EnginePlan) -> None:
    document = sound_post(bundle, windows=2, engines=RUNS)
    document["builds"][4].update(FAILED)
    found = engine_results(bundle, read(document, bundle, 2, NAMES), both, set(), None)
    assert [item.result.error for item in found] == ["", "", "no such operator", ""]
    assert "litert.js float32 failed: no such operator" in notes(found)


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda builds: builds.pop(), "builds: expected scalar, onnxruntime-web float32"),
        (lambda builds: builds.reverse(), "builds: expected"),
        (lambda builds: builds.append(builds[-1]), "builds: expected"),
        (lambda builds: builds[3].update(error="\x1b[2J"), "builds.onnxruntime-web int8.error"),
        (lambda builds: builds[3].update(error="broken"), "builds.onnxruntime-web int8.logits: expected 0"),
        (lambda builds: builds[3].pop("error"), "builds.onnxruntime-web int8: expected an object"),
        (lambda builds: builds[3].update(FAILED, predicted=[1]), "builds.onnxruntime-web int8.predicted"),
        (lambda builds: builds[0].update(FAILED), "builds.simd.error: expected none"),
        (lambda builds: builds[5].update(times_ms=[1.0] * 3), "builds.litert.js int8.times_ms"),
    ],
)
def test_a_malformed_post_of_an_engine_is_refused_by_name(bundle: Bundle, spoil: Any, problem: str) -> None:
    document = sound_post(bundle, engines=RUNS)
    spoil(document["builds"])
    with pytest.raises(PostError) as caught:
        read(document, bundle, engines=NAMES)
    assert any(said.startswith(problem) for said in caught.value.problems), caught.value.problems


def test_a_post_without_engines_that_were_not_asked_for(bundle: Bundle) -> None:
    with pytest.raises(PostError, match="builds: expected scalar or simd, scalar; or none"):
        read(sound_post(bundle, engines=RUNS), bundle)


def test_the_largest_sound_post_fits(bundle: Bundle) -> None:
    document = sound_post(bundle, windows=MOST_WINDOWS, engines=RUNS)
    rng = random.Random(0)
    for build in document["builds"]:
        build["times_ms"] = [round(rng.uniform(10, 99), 6) for _ in range(MOST_TIMES)]
        build["logits"] = [rng.uniform(-99, 99) for _ in range(16 * 20)]
        build["predicted"] = [rng.randrange(10, 20) for _ in range(MOST_WINDOWS)]
    body = json.dumps(document, separators=(",", ":"))
    assert len(body) < MOST_BYTES + ENGINE_POST_BYTES * len(RUNS)


def test_packages_spoilt_anywhere_are_refused_by_name(modules: Path, tmp_path: Path) -> None:
    """One file of a package after another is lost, emptied or filled with nonsense."""
    rng = random.Random(4)
    known = sorted(path.relative_to(modules) for path in modules.rglob("*") if path.is_file())
    for number, path in enumerate(known * 3):
        there = Path(shutil.copytree(modules, tmp_path / str(number)))
        if number % 3 == 0:
            (there / path).unlink()
        else:
            (there / path).write_bytes(rng.randbytes(rng.choice([0, 50])))
        for name in ("onnxruntime-web", "@litertjs/core"):
            try:
                read_engine(there / name)
            except TopokdError as error:
                assert str(there) in str(error)


def test_another_package_of_that_name_beside_is_told(modules: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(modules, tmp_path / "n"))
    write_package(folder / "@litertjs/wasm-utils", "other", "1", {})
    with pytest.raises(BadInputError, match="wasm-utils: the package other, expected"):
        read_engine(folder / "@litertjs/core")
