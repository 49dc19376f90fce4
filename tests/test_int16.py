"""int16 activations: integers only, much nearer to float than int8, and watched by export and verify."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from export_cases import LENGTH, activities, make_run, random_student, torch_logits, trained_student
from topokd_export.deploy import deploy_form
from topokd_export.describe import check_full_int8, check_int16, describe_tflite
from topokd_export.export import export_student
from topokd_export.gate import loss_of, refuse_loss
from topokd_export.int16_model import judge_int16
from topokd_export.model_files import INT8_FILE, INT16_FILE
from topokd_export.onnx_int8 import read_integers
from topokd_export.quantise import INT16_HEADROOM, quantise, write_int16
from topokd_export.student import load_student
from topokd_export.verify import verify_bundle

from topokd_edge.bundle import Bundle, Student, open_model, write_sums
from topokd_edge.errors import BadInputError, CheckFailedError
from topokd_edge.run import Run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def answer(run: Run) -> dict[str, Any]:
    return export_student(run, 1, 0, run.folder.parent / "bundle", targets=("onnx", "tflite-int16"))


@pytest.fixture
def copy(answer: dict[str, Any], tmp_path: Path) -> Path:
    return Path(shutil.copytree(answer["bundle"], tmp_path / "bundle"))


def test_integers_only_with_int8_weights_and_int64_biases(copy: Path) -> None:
    content = (copy / INT16_FILE).read_bytes()
    described = describe_tflite(content)
    assert set(described.tensor_types) == {"INT8", "INT16", "INT32", "INT64"}
    assert (described.input.dtype, described.output.dtype) == ("INT16", "INT16")
    assert (described.input.zero_point, described.output.zero_point) == (0, 0)
    parameters = sum(
        described.operators[name] for name in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
    )
    assert described.tensor_types["INT8"] == described.tensor_types["INT64"] == parameters
    with pytest.raises(CheckFailedError, match="INT16"):
        check_full_int8(described)
    with pytest.raises(CheckFailedError, match="not full-integer"):
        check_int16(describe_tflite((copy / INT8_FILE).read_bytes()))


def test_the_manifest_has_the_scales_and_the_app_gets_the_logits_by_them(copy: Path) -> None:
    numbers = Bundle.open(copy).manifest.int16
    assert numbers is not None
    interpreter = Interpreter(model_path=str(copy / INT16_FILE))
    interpreter.allocate_tensors()
    first, last = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    window = activities(1, seed=8)[0]
    levels = np.clip(
        np.rint(window.transpose(0, 2, 1)[None] / np.float32(numbers.input_scale)), -32768, 32767
    )
    interpreter.set_tensor(first["index"], levels.astype(np.int16))
    interpreter.invoke()
    logits = interpreter.get_tensor(last["index"]) * np.float32(numbers.output_scale)
    assert np.array_equal(open_model(copy / INT16_FILE).run(window), logits)
    student = Student.load(copy, precision="int16")
    assert student.model.runtime == "litert"
    readme = (copy / "README.md").read_text()
    assert "`_int16` has int8 weights" in readme


def test_where_loud_windows_set_the_ranges_the_error_is_far_below_that_of_int8(tmp_path: Path) -> None:
    student = trained_student()
    graph = deploy_form(student, (LENGTH,))
    calibration, x = activities(256, seed=3)[0], activities(100, seed=9)[0]
    calibration[0] *= 20
    truth, errors = torch_logits(student, x), {}
    for name, write in (("int16", write_int16), ("int8", quantise)):
        path = tmp_path / f"{name}.tflite"
        path.write_bytes(write(graph, calibration))
        errors[name] = float(np.sqrt(((open_model(path).run(x) - truth) ** 2).mean()))
    assert errors["int16"] < 0.1 * errors["int8"], errors
    scale = describe_tflite((tmp_path / "int16.tflite").read_bytes()).input.scale
    assert scale == pytest.approx(INT16_HEADROOM * np.abs(calibration).max() / 32767, rel=1e-3)


def test_infinity_saturates_and_nan_is_refused(copy: Path) -> None:
    model = open_model(copy / INT16_FILE)
    window = activities(1, seed=8)[0][0]
    window[0, :2] = np.inf, -np.inf
    native = model.prepare(window)
    assert native.dtype == np.dtype(np.int16)
    assert (native.max(), native.min()) == (32767, -32768)
    window[1, 3] = np.nan
    with pytest.raises(BadInputError, match="1 NaN"):
        model.prepare(window)


def test_what_it_loses_is_said_and_too_much_is_refused(
    run: Run, answer: dict[str, Any], tmp_path: Path
) -> None:
    names = [entry["name"] for entry in answer["checks"]]
    assert any(name.startswith("int16 loses ") and "held-out windows" in name for name in names)
    assert f"{INT16_FILE} against float32" in names
    student = load_student(run, 1, 0)
    untrained = tmp_path / "untrained.tflite"
    untrained.write_bytes(write_int16(deploy_form(random_student(), (LENGTH,)), activities(128)[0]))
    with pytest.raises(CheckFailedError, match=r"int16 loses .* are allowed"):
        judge_int16(student, untrained, 0.02)
    assert judge_int16(student, Path(answer["bundle"]) / INT16_FILE, 0.02)["agreement"] > 0.95


def test_int16_needs_no_int8_and_comes_last_when_nothing_is_asked_for(run: Run, tmp_path: Path) -> None:
    written = export_student(run, 1, 0, tmp_path / "b", int8=False, targets=("tflite-int16",))
    assert [(item["path"], item["precision"]) for item in written["files"]] == [(INT16_FILE, "int16")]
    verify_bundle(tmp_path / "b")
    both = tmp_path / "both"
    export_student(run, 1, 0, both, targets=("tflite-int16",))
    assert Student.load(both).model.run(activities(1)[0]).shape == (1, 5)
    exact = open_model(both / INT8_FILE).run(activities(9, seed=4)[0])
    assert np.array_equal(Student.load(both).model.run(activities(9, seed=4)[0]), exact)
    with pytest.raises(BadInputError, match="no float32 model"):
        Student.load(both, precision="float32")


def test_the_refusal_of_int8_names_it() -> None:
    y = np.zeros(50, dtype=np.int64)
    right, wrong = (
        np.tile(np.array([1, 0], np.float32), (50, 1)),
        np.tile(np.array([0, 1], np.float32), (50, 1)),
    )
    with pytest.raises(CheckFailedError) as caught:
        refuse_loss(loss_of(y, right, wrong), 0.02, [])
    assert "--targets onnx,tflite,tflite-int16 --no-int8" in str(caught.value.hint)


def test_a_flipped_bit_is_noticed_even_with_honest_hashes(copy: Path) -> None:
    content = bytearray((copy / INT16_FILE).read_bytes())
    weight = next(
        tensor.values
        for tensor in read_integers(bytes(content)).values()
        if tensor.values is not None and tensor.values.dtype == np.int8 and tensor.values.size > 64
    )
    at = content.index(weight.tobytes()) + 20
    content[at] ^= 0x40
    (copy / INT16_FILE).write_bytes(content)
    with pytest.raises(CheckFailedError, match=r"changed|hash"):
        verify_bundle(copy)
    document = json.loads((copy / "manifest.json").read_text())
    for item in document["files"]:
        if item["path"] == INT16_FILE:
            item["sha256"] = hashlib.sha256(content).hexdigest()
    (copy / "manifest.json").write_text(json.dumps(document))
    write_sums(copy)
    with pytest.raises(CheckFailedError, match="do not answer") as caught:
        verify_bundle(copy)
    assert any(INT16_FILE in problem for problem in caught.value.problems)


def test_a_wrong_scale_in_the_manifest_is_noticed(copy: Path) -> None:
    document = json.loads((copy / "manifest.json").read_text())
    document["int16"]["input_scale"] *= 2
    (copy / "manifest.json").write_text(json.dumps(document))
    write_sums(copy)
    with pytest.raises(CheckFailedError, match="do not answer") as caught:
        verify_bundle(copy)
    assert any("int16 numbers" in problem for problem in caught.value.problems)
    document["int16"]["output_zero_point"] = 3
    (copy / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(BadInputError, match="not a usable manifest"):
        Bundle.open(copy)
