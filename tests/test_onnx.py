"""The ONNX files: float32 gives the torch model's logits, int8 those of the TFLite file, for any batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from export_cases import SPEC, activities, noise, random_student, torch_logits, trained_student
from onnx import numpy_helper
from topokd_export.deploy import DeployGraph, deploy_form
from topokd_export.describe import describe_tflite
from topokd_export.onnx_int8 import read_integers, write_onnx_int8
from topokd_export.onnx_writer import export_onnx, write_onnx
from topokd_export.quantise import calibrated, write_int8

from topokd_edge.bundle import open_model
from topokd_edge.errors import BadInputError
from topokd_edge.models.wrn import WRNSpec


@pytest.mark.parametrize("batch", [1, 2, 3, 7])
def test_any_batch(tmp_path: Path, batch: int) -> None:
    model = random_student()
    export_onnx(model, (50,), tmp_path / "m.onnx")
    x = noise(batch)
    assert np.abs(open_model(tmp_path / "m.onnx").run(x) - torch_logits(model, x)).max() < 1e-4
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


def test_an_image_teacher_and_equal_axes(tmp_path: Path) -> None:
    for spec, size in (
        (WRNSpec(2, 16, 1, 3, 14, stem_stride=2), (64, 64)),
        (WRNSpec(1, 16, 1, 16, 4), (16,)),
    ):
        model = random_student(spec)
        export_onnx(model, size, tmp_path / "m.onnx")
        opened = open_model(tmp_path / "m.onnx")
        x = noise(2, spec, size)
        assert opened.input_shape == (spec.in_channels, *size)
        assert np.abs(opened.run(x) - torch_logits(model, x)).max() < 1e-4


def test_graph_and_metadata() -> None:
    graph = deploy_form(random_student(), (50,))
    content = write_onnx(graph, {"class_names": '["a"]', "rate_hz": "30.5"})
    assert content == write_onnx(graph, {"class_names": '["a"]', "rate_hz": "30.5"})
    model = onnx.load_from_string(content)
    operators = {node.op_type for node in model.graph.node}
    assert operators == {"Conv", "Relu", "Add", "ReduceMean", "Gemm"}
    assert model.opset_import[0].version >= 18
    assert {entry.key: entry.value for entry in model.metadata_props}["rate_hz"] == "30.5"


def test_what_cannot_be_run_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    with pytest.raises(BadInputError, match=r"bad\.onnx"):
        open_model(tmp_path / "bad.onnx")
    with pytest.raises(BadInputError, match="no such file"):
        open_model(tmp_path / "absent.onnx")
    (tmp_path / "model.bin").touch()
    with pytest.raises(BadInputError, match=r"not one of \.onnx, \.tflite"):
        open_model(tmp_path / "model.bin")
    export_onnx(random_student(), (50,), tmp_path / "m.onnx")
    with pytest.raises(BadInputError, match=r"\(50, 3\)"):
        open_model(tmp_path / "m.onnx").run(noise(1, SPEC).transpose(0, 2, 1))


@pytest.fixture(scope="module")
def int8() -> tuple[DeployGraph, bytes]:
    """A trained student's deploy form, and the int8 TFLite file written from it."""
    graph, ranges = calibrated(deploy_form(trained_student(), (50,)), activities(128, seed=5)[0])
    return graph, write_int8(graph, ranges)


def _written(folder: Path, content: bytes, name: str = "m.onnx") -> Path:
    (folder / name).write_bytes(content)
    return folder / name


@pytest.mark.parametrize("batch", [1, 2, 3, 7])
def test_int8_answers_like_the_tflite_file_for_any_batch(
    tmp_path: Path, int8: tuple[DeployGraph, bytes], batch: int
) -> None:
    graph, content = int8
    x = activities(batch, seed=6)[0]
    got = open_model(_written(tmp_path, write_onnx_int8(graph, content))).run(x)
    expected = open_model(_written(tmp_path, content, "m.tflite"), reference_kernels=True).run(x)
    assert got.shape == (batch, SPEC.classes)
    assert np.abs(got - expected).max() <= 4.5 * describe_tflite(content).output.scale
    assert np.array_equal(got.argmax(1), expected.argmax(1))


def test_int8_agrees_with_the_tflite_file_on_many_windows_fused_or_not(
    tmp_path: Path, int8: tuple[DeployGraph, bytes]
) -> None:
    graph, content = int8
    x = activities(400, seed=6)[0]
    x[:20] *= 3.0  # saturates
    path = _written(tmp_path, write_onnx_int8(graph, content))
    expected = open_model(_written(tmp_path, content, "m.tflite"), reference_kernels=True).run(x)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    plain = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    for got in (open_model(path).run(x), plain.run(None, {"windows": x})[0]):
        assert (got.argmax(1) == expected.argmax(1)).mean() >= 0.99
        assert np.abs(got - expected).max() <= 4.5 * describe_tflite(content).output.scale


def test_int8_holds_the_integers_of_the_tflite_file(int8: tuple[DeployGraph, bytes]) -> None:
    graph, content = int8
    model = onnx.load_from_string(write_onnx_int8(graph, content, {"rate_hz": "30.5"}))
    stored = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    tensors = read_integers(content)
    stem = tensors["stem/weight"]
    assert stored["stem.weight.q"].dtype == np.int8
    assert np.array_equal(stored["stem.weight.q"], stem.values[:, 0].transpose(0, 2, 1))
    assert np.array_equal(stored["stem.weight.scale"], stem.scale)
    assert stem.scale.shape == (16,)
    for name, source in (("input", "x"), ("blocks.3", "blocks.3"), ("head", "logits")):
        assert stored[f"{name}.zero_point"].dtype == np.uint8
        assert stored[f"{name}.zero_point"] == tensors[source].zero_point + 128
        assert stored[f"{name}.scale"] == tensors[source].scale[0]
    biases = [name for name in stored if name.endswith(".bias.q")]
    assert len(biases) == 23
    assert all(stored[name].dtype == np.int32 for name in biases)
    floats = [name for name, array in stored.items() if array.dtype == np.float32]
    assert all(name.endswith(".scale") for name in floats), "a weight is stored as float"
    assert model.metadata_props[0].value == "30.5"
    assert model.SerializeToString(deterministic=True) == write_onnx_int8(graph, content, {"rate_hz": "30.5"})


def test_int8_convolutions_are_fused_to_integer_kernels(
    tmp_path: Path, int8: tuple[DeployGraph, bytes]
) -> None:
    path = _written(tmp_path, write_onnx_int8(*int8))
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "fused.onnx"), 3
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "fused.onnx").graph.node]
    assert (kinds.count("QLinearConv"), kinds.count("QLinearAdd"), kinds.count("Conv")) == (22, 6, 0)


def test_a_fixed_batch_is_written_into_the_file(tmp_path: Path, int8: tuple[DeployGraph, bytes]) -> None:
    graph, content = int8
    x = activities(3, seed=6)[0]
    for name, write in (
        ("float32", lambda batch: write_onnx(graph, batch=batch)),
        ("int8", lambda batch: write_onnx_int8(graph, content, batch=batch)),
    ):
        fixed = _written(tmp_path, write(1), f"{name}.onnx")
        shapes = [
            [axis.dim_value for axis in value.type.tensor_type.shape.dim]
            for model in (onnx.load(fixed),)
            for value in (*model.graph.input, *model.graph.output)
        ]
        assert shapes == [[1, 3, 50], [1, 5]]
        free = open_model(_written(tmp_path, write(None), f"{name}-free.onnx"))
        opened = open_model(fixed)
        assert opened.input_shape == (3, 50)
        assert np.abs(opened.run(x) - free.run(x)).max() < 1e-4


def test_int8_of_another_student_is_refused(int8: tuple[DeployGraph, bytes]) -> None:
    other = deploy_form(random_student(WRNSpec(1, 22, 1, 3, 5)), (50,))
    with pytest.raises(BadInputError, match="not that of this student") as caught:
        write_onnx_int8(other, int8[1])
    assert "blocks.8.conv2/weight" in caught.value.problems
    with pytest.raises(BadInputError, match="other shapes") as caught:
        write_onnx_int8(deploy_form(random_student(WRNSpec(1, 16, 1, 4, 5)), (50,)), int8[1])
    assert caught.value.problems == ("stem",)
