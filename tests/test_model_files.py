"""The ONNX and TFLite files of a bundle: all of them answer alike, carry the manifest, and are verified."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export_cases import activities, make_run
from topokd_export.app_metadata import document_of
from topokd_export.c.writer import app_numbers
from topokd_export.describe import describe_tflite
from topokd_export.export import export_student
from topokd_export.model_files import INT8_FILE, SUFFIXES, carried
from topokd_export.onnx_int8 import read_integers
from topokd_export.tflite_float_io import with_float_io
from topokd_export.tflite_metadata import with_metadata
from topokd_export.verify import verify_bundle

from topokd_edge.bundle import Bundle, Student, open_model, write_sums
from topokd_edge.errors import BadInputError, CheckFailedError, UsageError
from topokd_edge.run import Run

FILES = {
    "student_float32.onnx": ("onnx", "float32"),
    "student_float32_static.onnx": ("onnx-static", "float32"),
    "student_float32.tflite": ("tflite", "float32"),
    "student_int8.tflite": ("tflite", "int8"),
    "student_int8_float_io.tflite": ("tflite-float-io", "int8"),
    "student_int8.onnx": ("onnx", "int8"),
    "student_int8_static.onnx": ("onnx-static", "int8"),
    "student_int16.tflite": ("tflite-int16", "int16"),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def answer(run: Run) -> dict[str, Any]:
    return export_student(run, 1, 0, run.folder.parent / "bundle", targets=tuple(SUFFIXES))


@pytest.fixture
def exported(answer: dict[str, Any]) -> Path:
    return Path(answer["bundle"])


@pytest.fixture
def copy(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "bundle"))


def test_every_target_is_written_checked_and_verified(answer: dict[str, Any], exported: Path) -> None:
    assert {item["path"]: (item["target"], item["precision"]) for item in answer["files"]} == FILES
    names = [entry["name"] for entry in answer["checks"]]
    told = [
        entry
        for entry in answer["checks"]
        if entry["name"].startswith(f"student_int8.onnx against {INT8_FILE}")
    ]
    assert told[0]["agreement"] >= 0.95, names
    checked = [entry["name"] for entry in verify_bundle(exported)]
    for path in FILES:
        assert any(name.startswith(path) for name in checked)
        assert f"{path}, labels and normalisation inside" in checked


def test_the_app_is_given_the_file_that_defines_int8_first(exported: Path) -> None:
    paths = [item.path for item in Bundle.open(exported).manifest.files if item.precision == "int8"]
    assert paths[0] == INT8_FILE
    assert Student.load(exported, precision="int8").model.runtime == "litert"


def test_every_file_carries_the_manifest(exported: Path) -> None:
    expected = document_of(app_numbers(Bundle.open(exported).manifest))
    assert expected["class_names"] == ["lie", "run", "sit", "stand", "walk"]
    assert expected["normalisation"] == {"mean": [100.0, -3.0, 0.01], "std": [50.0, 1.0, 0.002]}
    for path in FILES:
        assert carried(exported / path) == expected, path


@pytest.mark.parametrize("path", FILES)
@pytest.mark.parametrize("batch", [1, 2, 3, 7])
def test_every_file_answers_for_any_number_of_windows(exported: Path, path: str, batch: int) -> None:
    x = activities(batch, seed=9)[0]
    truth = open_model(exported / "student_float32.onnx").run(x)
    got = open_model(exported / path).run(x)
    near = 1e-4 if FILES[path][1] == "float32" else 0.05 * np.ptp(truth)
    assert got.shape == truth.shape
    assert np.abs(got - truth).max() <= near
    assert np.array_equal(got.argmax(1), truth.argmax(1))


def test_float_ends_hold_the_same_integers(exported: Path) -> None:
    float_io, inside = exported / "student_int8_float_io.tflite", exported / INT8_FILE
    described = describe_tflite(float_io.read_bytes())
    assert (described.input.dtype, described.output.dtype) == ("FLOAT32", "FLOAT32")
    assert (described.input.name, described.output.name) == ("x", "logits")
    assert described.tensor_types["FLOAT32"] == 2
    assert (described.operators["QUANTIZE"], described.operators["DEQUANTIZE"]) == (1, 1)
    own, other = (read_integers(path.read_bytes()) for path in (inside, float_io))
    ends = {"x": "x_int8", "logits": "logits_int8"}
    assert set(other) == {ends.get(name, name) for name in own}
    for name, tensor in own.items():
        twin = other[ends.get(name, name)]
        assert np.array_equal(tensor.scale, twin.scale)
        assert tensor.zero_point == twin.zero_point
        assert tensor.values is None or np.array_equal(tensor.values, twin.values)
    x = activities(100, seed=8)[0]
    answers = [open_model(path, reference_kernels=True).run(x) for path in (inside, float_io)]
    step = own["logits"].scale[0]
    assert (
        np.abs(answers[0] - answers[1]).max() <= 1.5 * step
    )  # rounding half away from zero, and half to even
    assert (answers[0] == answers[1]).mean() > 0.99


def test_tensorflow_lite_micro_runs_float_ends(exported: Path) -> None:
    runtime = pytest.importorskip("tflite_micro.python.tflite_micro.runtime")
    path = exported / "student_int8_float_io.tflite"
    window = activities(1, seed=8)[0]
    micro = runtime.Interpreter.from_bytes(path.read_bytes())
    micro.set_input(np.ascontiguousarray(window.transpose(0, 2, 1))[None], 0)
    micro.invoke()
    expected = open_model(path, reference_kernels=True).run(window)
    step = read_integers(path.read_bytes())["logits_int8"].scale[0]
    assert np.abs(micro.get_output(0) - expected).max() <= 1.5 * step


def test_a_float_file_gets_no_float_ends(exported: Path) -> None:
    with pytest.raises(CheckFailedError, match="FLOAT32"):
        with_float_io((exported / "student_float32.tflite").read_bytes())


def _rewritten(folder: Path, path: str, content: bytes) -> None:
    """Replace a file, with honest sizes and hashes everywhere."""
    (folder / path).write_bytes(content)
    document = json.loads((folder / "manifest.json").read_text())
    for item in document["files"]:
        if item["path"] == path:
            item |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(document))
    write_sums(folder)


def test_swapped_labels_inside_a_file_are_noticed(copy: Path) -> None:
    app = app_numbers(Bundle.open(copy).manifest)
    other = replace(app, class_names=tuple(reversed(app.class_names)))
    for path in ("student_float32.onnx", INT8_FILE):
        content = (copy / path).read_bytes()
        if path == INT8_FILE:
            swapped = with_metadata(content[: content.index(b"PK\x03\x04")], other)
        else:
            swapped = content.replace(b'"lie"', b'"lay"')
        assert swapped != content
        _rewritten(copy, path, swapped)
        with pytest.raises(CheckFailedError, match=f"{path}, labels and normalisation inside"):
            verify_bundle(copy)
        _rewritten(copy, path, content)
    verify_bundle(copy)


def test_a_file_that_is_not_what_its_name_says_is_noticed(copy: Path) -> None:
    content = (copy / "student_float32.tflite").read_bytes()
    _rewritten(copy, "student_int8_float_io.tflite", content)
    with pytest.raises(CheckFailedError, match="int8 between float32 ends"):
        verify_bundle(copy)


def test_a_file_without_metadata_is_refused(copy: Path) -> None:
    content = (copy / "student_float32.tflite").read_bytes()
    _rewritten(copy, "student_float32.tflite", content[: content.index(b"PK\x03\x04")])
    with pytest.raises(BadInputError, match=r"student_float32\.tflite: the TFLite file carries no usable"):
        verify_bundle(copy)


def test_float_ends_without_int8_are_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="tflite-float-io is int8"):
        export_student(run, 1, 0, tmp_path / "b", int8=False, targets=("tflite-float-io",))
    written = export_student(run, 1, 0, tmp_path / "b", int8=False, targets=("onnx-static",))
    assert [item["path"] for item in written["files"]] == ["student_float32_static.onnx"]
    verify_bundle(tmp_path / "b")


def test_what_was_made_from_an_int8_file_is_not_judged_without_it(copy: Path) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["files"] = [item for item in manifest["files"] if item["path"] != INT8_FILE]
    (copy / "manifest.json").write_text(json.dumps(manifest))
    (copy / INT8_FILE).unlink()
    write_sums(copy)
    with pytest.raises(CheckFailedError, match=f"without the {INT8_FILE} that .*student_int8.onnx"):
        verify_bundle(copy)
