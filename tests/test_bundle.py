"""What a device relies on: int8 conversion, and a bundle that is whole or refused."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export_cases import make_run, torch_logits
from hypothesis import given, settings
from hypothesis import strategies as st
from topokd_export.export import export_student
from topokd_export.student import int8_predictions
from topokd_export.verify import verify_bundle

from topokd_edge.bundle import (
    SUMS,
    Bundle,
    Manifest,
    Normalisation,
    dequantise,
    open_model,
    quantise_input,
    write_sums,
)
from topokd_edge.cli import main
from topokd_edge.distill.checkpoint import load_model
from topokd_edge.errors import BadInputError, CheckFailedError, UsageError
from topokd_edge.run import DISTILLED_STUDENT, INT8_STUDENT, Run

SCALES = st.floats(2**-20, 1024, width=32)
ZERO_POINTS = st.integers(-128, 127)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def exported(run: Run) -> Path:
    out = run.folder.parent / "bundle"
    export_student(run, 1, 0, out)
    return out


@pytest.fixture
def copy(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "bundle"))


def test_quantise_as_reported_by_users() -> None:
    x = np.array([-1.2, 0.3, 0.98])
    assert quantise_input(x, 0.0313, -5).tolist() == [-43, 5, 26]
    assert quantise_input([0.5, 1.5, 2.5, -0.5, -1.5], 1.0, 0).tolist() == [0, 2, 2, 0, -2]
    assert quantise_input([1e9, -1e9, np.inf, -np.inf, 3e38], 0.0313, -5).tolist() == [
        127,
        -128,
        127,
        -128,
        127,
    ]
    with pytest.raises(BadInputError, match=r"1 NaN, the first at index \(1,\)"):
        quantise_input([0.0, np.nan], 0.0313, -5)
    for scale, zero_point in ((0.0, 0), (-1.0, 0), (np.nan, 0), (1.0, 128)):
        with pytest.raises(BadInputError, match="positive scale"):
            quantise_input([0.0], scale, zero_point)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.floats(-1e9, 1e9, width=32), min_size=1, max_size=20), SCALES, ZERO_POINTS)
def test_quantise_is_the_nearest_level(x: list[float], scale: float, zero_point: int) -> None:
    q = quantise_input(x, scale, zero_point)
    low, high = (-128 - zero_point) * scale, (127 - zero_point) * scale
    nearest = np.clip(np.array(x), low, high)
    assert q.dtype == np.int8
    # Half a step, and what float32 division may lose at up to 255 steps.
    assert np.abs(dequantise(q, scale, zero_point) - nearest).max() <= scale * (0.5 + 1e-4)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(-128, 127), min_size=1, max_size=20), SCALES, ZERO_POINTS)
def test_dequantise_then_quantise_gives_the_same_bytes(q: list[int], scale: float, zero_point: int) -> None:
    levels = np.array(q, dtype=np.int8)
    assert np.array_equal(quantise_input(dequantise(levels, scale, zero_point), scale, zero_point), levels)


def test_normalisation_is_per_channel() -> None:
    normalisation = Normalisation((1.0, -2.0), (2.0, 0.5))
    x = np.array([[[3.0, 1.0], [-1.5, -2.0]]], dtype=np.float32)
    assert normalisation.apply(x).tolist() == [[[1.0, 0.0], [1.0, 0.0]]]
    with pytest.raises(BadInputError, match="2 channels"):
        normalisation.apply(x[:, :1])


def test_an_exported_bundle_is_complete_and_verified(run: Run, exported: Path) -> None:
    bundle = Bundle.open(exported)
    assert {(item.target, item.precision) for item in bundle.manifest.files} == {
        ("onnx", "float32"),
        ("onnx", "int8"),
        ("tflite", "float32"),
        ("tflite", "int8"),
    }
    assert all(entry["ok"] for entry in verify_bundle(exported))
    assert bundle.manifest.class_names == ("lie", "run", "sit", "stand", "walk")
    assert bundle.manifest.provenance["held_out"] == ["3"]
    assert Manifest.from_json(bundle.manifest.to_json(), "again") == bundle.manifest
    vectors = bundle.self_test()["x"]
    assert len(vectors) >= 16
    raw = run.windows().x
    normalised = bundle.manifest.normalisation.apply(np.asarray(raw))
    distance = np.abs(vectors[:, None] - normalised[None]).mean(axis=(2, 3))
    assert distance.min() > 0.3, "a self-test vector looks like a person's window"


def test_the_app_gets_the_class_from_raw_units(run: Run, exported: Path) -> None:
    bundle = Bundle.open(exported)
    x = bundle.manifest.normalisation.apply(np.asarray(run.windows().x[:40]))
    answers = [
        open_model(bundle.model_path(target, precision)).run(x).argmax(axis=1)
        for target, precision in (("onnx", "float32"), ("tflite", "float32"), ("tflite", "int8"))
    ]
    assert np.array_equal(answers[0], answers[1])
    assert (answers[0] == answers[2]).mean() >= 0.9
    assert (answers[0] == run.windows().y[:40]).mean() >= 0.9
    with pytest.raises(BadInputError, match="no onnx int16 model"):
        bundle.model_path("onnx", "int16")


def test_same_run_same_bytes(run: Run, exported: Path, tmp_path: Path) -> None:
    export_student(run, 1, 0, tmp_path / "again")
    for path in exported.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


def test_int8_predictions_are_of_the_exported_model(run: Run, exported: Path) -> None:
    predictions = int8_predictions(run, 1, 0)
    windows = run.windows()
    assert np.array_equal(predictions.window, windows.of_subjects(["3"]))
    assert np.array_equal(predictions.y, windows.y[predictions.window])
    bundle = Bundle.open(exported)
    x = bundle.manifest.normalisation.apply(np.asarray(windows.x[predictions.window]))
    assert np.array_equal(open_model(bundle.model_path("tflite", "int8")).run(x), predictions.logits)
    assert np.array_equal(run.fold_run(1, 0).predictions(INT8_STUDENT).logits, predictions.logits)


def test_a_student_with_fewer_channels_than_its_teachers(tmp_path: Path) -> None:
    run = make_run(tmp_path, channels=("w", "z", "x", "v", "y"))
    export_student(run, 1, 0, tmp_path / "bundle")
    assert all(entry["ok"] for entry in verify_bundle(tmp_path / "bundle"))
    bundle, windows = Bundle.open(tmp_path / "bundle"), run.windows()
    assert bundle.manifest.channels == 3
    assert bundle.manifest.channel_names == ("x", "y", "z")
    assert bundle.manifest.units == ("mV", "g", "uT")
    assert bundle.manifest.normalisation.mean == (100.0, -3.0, 0.01)
    assert bundle.self_test()["x"].shape[1] == 3
    model, _ = load_model(run.fold_run(1, 0).model_folder(DISTILLED_STUDENT))
    index = windows.of_subjects(["3"])
    x = bundle.manifest.normalisation.apply(np.asarray(windows.x[index])[:, [2, 4, 1]])
    logits = torch_logits(model, x)
    for target in ("onnx", "tflite"):
        got = open_model(bundle.model_path(target, "float32")).run(x)
        np.testing.assert_allclose(got, logits, atol=1e-3)
    assert (logits.argmax(1) == windows.y[index]).mean() > 0.9
    int8 = int8_predictions(run, 1, 0).logits
    assert (int8.argmax(1) == logits.argmax(1)).mean() > 0.9


def test_export_refuses_to_overwrite_and_leaves_nothing_half_written(run: Run, exported: Path) -> None:
    before = sorted(path.name for path in exported.parent.iterdir())
    with pytest.raises(BadInputError, match="already exists"):
        export_student(run, 1, 0, exported)
    with pytest.raises(UsageError, match="abacus"):
        export_student(run, 1, 0, exported.parent / "other", targets=("onnx", "abacus"))
    with pytest.raises(BadInputError, match="no fold 7"):
        export_student(run, 7, 0, exported.parent / "other")
    assert sorted(path.name for path in exported.parent.iterdir()) == before


def test_too_little_data_for_int8_says_so(tmp_path: Path) -> None:
    small = make_run(tmp_path, windows_each=20)
    with pytest.raises(BadInputError, match="there are 40"):
        export_student(small, 1, 0, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
    answer = export_student(small, 1, 0, tmp_path / "bundle", int8=False, targets=("onnx",))
    assert [item["path"] for item in answer["files"]] == ["student_float32.onnx"]
    assert Bundle.open(tmp_path / "bundle").manifest.int8 is None
    verify_bundle(tmp_path / "bundle")


@pytest.mark.parametrize("place", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_one_flipped_bit_in_any_file_is_noticed(copy: Path, place: float) -> None:
    for path in sorted(copy.iterdir()):
        content = path.read_bytes()
        where = round(place * (len(content) - 1))
        for bit in (0x01, 0x20, 0x80):
            flipped = bytearray(content)
            flipped[where] ^= bit
            path.write_bytes(flipped)
            with pytest.raises((CheckFailedError, BadInputError)):
                Bundle.open(copy).check_hashes()
        path.write_bytes(content)
    Bundle.open(copy).check_hashes()


def test_what_changed_is_named(copy: Path) -> None:
    with (copy / "README.md").open("a") as stream:
        stream.write("\n")
    (copy / "more.txt").write_text("x")
    (copy / "selftest.npz").unlink()
    with pytest.raises(BadInputError, match=r"selftest\.npz is named and is not there"):
        Bundle.open(copy)
    (copy / "selftest.npz").write_bytes(b"")
    with pytest.raises(CheckFailedError) as caught:
        Bundle.open(copy).check_hashes()
    assert sorted(problem.split(":")[0] for problem in caught.value.problems) == [
        "README.md",
        "more.txt",
        "selftest.npz",
    ]


def test_a_model_that_answers_wrong_fails_although_its_hashes_fit(copy: Path) -> None:
    """The files of another student, with honest hashes, are still refused: the self-test runs them."""
    document = json.loads((copy / "manifest.json").read_text())
    vectors = dict(np.load(copy / "selftest.npz"))
    vectors["student_int8.tflite"] = vectors["student_int8.tflite"] + 1.0
    np.savez(copy / "selftest.npz", **vectors)
    document["int8"]["input_zero_point"] += 1
    (copy / "manifest.json").write_text(json.dumps(document))
    write_sums(copy)
    with pytest.raises(CheckFailedError) as caught:
        verify_bundle(copy)
    assert any("reference kernels" in problem for problem in caught.value.problems)
    assert any("int8 numbers" in problem for problem in caught.value.problems)


def test_a_target_that_cannot_be_checked_is_not_passed_over(copy: Path) -> None:
    document = json.loads((copy / "manifest.json").read_text())
    document["files"][1]["target"] = "abacus"
    (copy / "manifest.json").write_text(json.dumps(document))
    write_sums(copy)
    with pytest.raises(CheckFailedError, match=r"(?s)cannot run.*student_float32\.tflite: abacus"):
        verify_bundle(copy)


def _change(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        place: Any = document
        for part in parents:
            place = place[int(part)] if isinstance(place, list) else place[part]
        if value is ...:
            del place[last]
        else:
            place[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_change("format", "topokd-bundle/2"), "format topokd-bundle/2.*pip install --upgrade"),
        (_change("format", ...), "not a bundle manifest"),
        (_change("files.0.path", "../model.onnx"), r"files\[0\].path: '../model.onnx' is not a path inside"),
        (_change("files.0.path", "/etc/passwd"), "is not a path inside"),
        (_change("files.0.path", "C:\\model.onnx"), "is not a path inside"),
        (_change("self_test", "absent.npz"), "absent.npz is named and is not there"),
        (_change("files", []), "no model file"),
        (_change("files.1.bytes", "many"), r"files\[1\].bytes: expected int, found 'many'"),
        (_change("input.length", True), "input.length: expected int"),
        (_change("input.rate_hz", 0), "input.rate_hz: expected a positive number"),
        (_change("normalisation.std", [1.0, 0.0, 1.0]), "normalisation.std: expected a positive number"),
        (_change("normalisation.mean", [1.0]), "normalisation.mean: expected 3 numbers, found 1"),
        (_change("class_names", []), "class_names: expected some names"),
        (_change("int8.input_scale", "0.1"), "int8.input_scale: expected a positive number"),
        (_change("int8.output_zero_point", 0.5), "int8.output_zero_point: expected int"),
        (_change("input", None), "input.channels"),
    ],
)
def test_a_wrong_manifest_says_what_is_wrong(copy: Path, change: Any, message: str) -> None:
    document = json.loads((copy / "manifest.json").read_text())
    change(document)
    (copy / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(BadInputError) as caught:
        Bundle.open(copy)
    assert re.search(message, str(caught.value), re.DOTALL), str(caught.value)


def test_a_link_that_leads_outside_is_refused(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.onnx").write_bytes((copy / "student_float32.onnx").read_bytes())
    (copy / "student_float32.onnx").unlink()
    (copy / "student_float32.onnx").symlink_to(tmp_path / "elsewhere.onnx")
    with pytest.raises(BadInputError, match="leads outside"):
        Bundle.open(copy)


def test_damaged_sums_are_refused(copy: Path) -> None:
    for text in ("", "abc  README.md\n", "0" * 64 + "  README.md"):
        (copy / SUMS).write_text(text)
        with pytest.raises(CheckFailedError, match="damaged"):
            Bundle.open(copy).check_hashes()


def _main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["topokd-edge", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0)


def test_export_and_verify_as_commands(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "bundle")
    assert _main(monkeypatch, "export", str(run.folder), "--out", out, "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert {item["precision"] for item in answer["files"]} == {"float32", "int8"}
    for item in answer["files"]:
        content = (tmp_path / "bundle" / item["path"]).read_bytes()
        assert (item["bytes"], item["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert all(entry["ok"] for entry in answer["checks"])
    assert _main(monkeypatch, "export", str(run.folder), "--out", out) == 3
    assert "--overwrite" in capsys.readouterr().err
    assert _main(monkeypatch, "verify", out) == 0
    assert "hashes of all files" in capsys.readouterr().out
    with (tmp_path / "bundle" / "student_float32.onnx").open("r+b") as stream:
        stream.seek(1000)
        stream.write(b"\x00\x01")
    assert _main(monkeypatch, "verify", out, "--json") == 1
    answered = capsys.readouterr()
    assert json.loads(answered.out)["ok"] is False
    assert "student_float32.onnx" in answered.err
    assert _main(monkeypatch, "export", str(run.folder), "--out", f"{out}2", "--fold", "4") == 3
    assert "finished: fold 1 seed 0" in capsys.readouterr().err


def test_a_device_needs_numpy_only() -> None:
    code = "import sys, topokd_edge.bundle; print(*{name.partition('.')[0] for name in sys.modules})"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "onnx", "onnxruntime", "ai_edge_litert", "typer", "rich", "topokd_export"}
    assert not heavy & set(child.stdout.split())
