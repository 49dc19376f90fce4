"""The TFLite files: float32 equals torch, int8 is integer throughout and close to it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from export_cases import SPEC, activities, noise, random_student, torch_logits, trained_student
from topokd_export.deploy import deploy_form
from topokd_export.describe import check_full_int8, describe_tflite
from topokd_export.quantise import calibration_windows, quantise
from topokd_export.tflite_writer import write_tflite

from topokd_edge.bundle import open_model, quantise_input
from topokd_edge.errors import BadInputError, CheckFailedError
from topokd_edge.models.wrn import WideResNet, WRNSpec

OPERATORS = {"CONV_2D", "DEPTHWISE_CONV_2D", "ADD", "PAD", "MEAN", "FULLY_CONNECTED"}


@pytest.fixture(scope="module")
def student() -> WideResNet:
    return trained_student()


@pytest.fixture(scope="module")
def int8(student: WideResNet) -> bytes:
    return quantise(deploy_form(student, (50,)), activities(128, seed=5)[0])


@pytest.mark.parametrize(
    ("spec", "size"),
    [
        (SPEC, (50,)),
        (WRNSpec(1, 16, 1, 16, 4), (16,)),
        (WRNSpec(1, 10, 2, 3, 5, stem_stride=2), (33,)),
        (WRNSpec(2, 10, 1, 3, 5), (12, 9)),
        (WRNSpec(1, 16, 1, 3, 5, activation="post"), (50,)),
        (WRNSpec(2, 10, 1, 3, 5, activation="post"), (12, 9)),
    ],
)
def test_float32_equals_torch(tmp_path: Path, spec: WRNSpec, size: tuple[int, ...]) -> None:
    model = random_student(spec)
    content = write_tflite(deploy_form(model, size))
    assert content == write_tflite(deploy_form(model, size))
    (tmp_path / "m.tflite").write_bytes(content)
    x = noise(3, spec, size)
    expected = torch_logits(model, x)
    for reference in (False, True):
        opened = open_model(tmp_path / "m.tflite", reference_kernels=reference)
        assert opened.input_shape == (spec.in_channels, *size)
        assert np.abs(opened.run(x) - expected).max() < 1e-4
    scaled = {"DEPTHWISE_CONV_2D"} if spec.activation == "pre" else set()
    assert set(describe_tflite(content).operators) == OPERATORS - {"DEPTHWISE_CONV_2D"} | scaled


def test_int8_is_integer_throughout(int8: bytes) -> None:
    description = describe_tflite(int8)
    assert set(description.operators) == OPERATORS
    assert sum(description.operators.values()) == 32
    assert set(description.tensor_types) == {"INT8", "INT32"}
    assert (description.input.dtype, description.output.dtype) == ("INT8", "INT8")
    assert (description.input.shape, description.output.shape) == ((1, 1, 50, 3), (1, 5))
    assert description.bytes == len(int8) < 100_000


def test_int8_answers_like_torch(tmp_path: Path, student: WideResNet, int8: bytes) -> None:
    (tmp_path / "m.tflite").write_bytes(int8)
    x, y = activities(300, seed=6)
    expected = torch_logits(student, x)
    assert (expected.argmax(1) == y).mean() >= 0.9
    got = open_model(tmp_path / "m.tflite").run(x)
    reference = open_model(tmp_path / "m.tflite", reference_kernels=True).run(x)
    scale = describe_tflite(int8).output.scale
    assert (got.argmax(1) == expected.argmax(1)).mean() >= 0.95
    assert np.sqrt(np.mean((got - expected) ** 2)) < 0.05 * np.ptp(expected)
    assert np.abs(got - reference).max() <= max(4.5 * scale, np.abs(reference - expected).max())


def test_calibration_takes_smallest_and_largest_value_and_not_an_average(student: WideResNet) -> None:
    windows = activities(128, seed=5)[0]
    windows[17, 1, 3], windows[90, 2, 8] = 12.0, -9.0
    first = describe_tflite(quantise(deploy_form(student, (50,)), windows)).input
    assert first.scale == pytest.approx(21.0 / 255, rel=1e-5)
    assert first.zero_point == round(-128 + 9.0 / (21.0 / 255))


def test_same_windows_same_bytes_and_no_noise(
    student: WideResNet, int8: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    assert quantise(deploy_form(student, (50,)), activities(128, seed=5)[0]) == int8
    assert capfd.readouterr() == ("", "")
    os.write(2, b"heard again")
    assert capfd.readouterr().err == "heard again"


def test_dead_channels_survive_int8(tmp_path: Path) -> None:
    model = trained_student()
    with torch.no_grad():
        for block in model.blocks:
            for norm in (block.bn1, block.bn2):
                norm.weight[::4] = 1e-9
                norm.bias[::4] = 1.0
    (tmp_path / "m.tflite").write_bytes(quantise(deploy_form(model, (50,)), activities(128, seed=5)[0]))
    x, _ = activities(200, seed=6)
    expected = torch_logits(model, x)
    for reference in (False, True):
        got = open_model(tmp_path / "m.tflite", reference_kernels=reference).run(x)
        assert np.sqrt(np.mean((got - expected) ** 2)) < 0.05 * np.ptp(expected)


def test_tensorflow_lite_micro_agrees_with_the_reference_kernels(tmp_path: Path, int8: bytes) -> None:
    runtime = pytest.importorskip("tflite_micro.python.tflite_micro.runtime")
    (tmp_path / "m.tflite").write_bytes(int8)
    reference = open_model(tmp_path / "m.tflite", reference_kernels=True)
    micro = runtime.Interpreter.from_bytes(int8)
    first = describe_tflite(int8).input
    for window in activities(50, seed=7)[0]:
        native = reference.prepare(window)
        assert np.array_equal(native, quantise_input(window.T[None, None], first.scale, first.zero_point))
        micro.set_input(native, 0)
        micro.invoke()
        difference = micro.get_output(0).astype(int) - reference.invoke(native).astype(int)
        assert np.abs(difference).max() <= 1


def test_a_float_model_is_not_passed_off_as_int8(student: WideResNet) -> None:
    content = write_tflite(deploy_form(student, (50,)))
    with pytest.raises(CheckFailedError, match="FLOAT32") as caught:
        check_full_int8(describe_tflite(content))
    assert len(caught.value.problems) == 3
    with pytest.raises(BadInputError, match="not a TFLite model"):
        describe_tflite(b"PK\x03\x04 something else")


def test_calibration_windows_are_spread_over_classes_and_training_subjects() -> None:
    rng = np.random.default_rng(0)
    y = np.where(rng.random(5000) < 0.97, 0, rng.integers(0, 4, 5000))
    subject = rng.choice(["a", "b", "c", "d"], 5000, p=[0.7, 0.1, 0.1, 0.1])
    chosen = calibration_windows(y, subject, ["a", "b", "c"], n=200, seed=3)
    assert len(set(chosen.tolist())) == len(chosen) == 200
    assert set(subject[chosen]) == {"a", "b", "c"}
    assert set(y[chosen]) == {0, 1, 2, 3}
    for label in (1, 2, 3):
        for person in ("b", "c"):
            there = int(((y == label) & (subject == person)).sum())
            taken = int(((y[chosen] == label) & (subject[chosen] == person)).sum())
            assert taken == there  # fewer than an equal share exist, so all are taken
    assert np.array_equal(chosen, calibration_windows(y, subject, ["a", "b", "c"], n=200, seed=3))
    assert not np.array_equal(chosen, calibration_windows(y, subject, ["a", "b", "c"], n=200, seed=4))


def test_too_few_calibration_windows_are_refused(student: WideResNet) -> None:
    y, subject = np.zeros(500, dtype=np.int64), np.repeat(["a", "b"], [127, 373])
    with pytest.raises(BadInputError, match="there are 127"):
        calibration_windows(y, subject, ["a"])
    with pytest.raises(BadInputError, match="at least 128 windows, not 64"):
        calibration_windows(y, subject, ["b"], n=64)
    assert len(calibration_windows(y, subject, ["b"])) == 256
    with pytest.raises(BadInputError, match="127 are given"):
        quantise(deploy_form(student, (50,)), activities(127)[0])
    broken = activities(128)[0]
    broken[4, 0, 0] = np.nan
    with pytest.raises(BadInputError, match="NaN"):
        quantise(deploy_form(student, (50,)), broken)
