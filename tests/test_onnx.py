"""The ONNX file gives the torch model's logits, for any batch, from one file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from export_cases import SPEC, noise, random_student, torch_logits
from topokd_export.deploy import deploy_form
from topokd_export.onnx_writer import export_onnx, write_onnx

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
    with pytest.raises(BadInputError, match=r"neither \.tflite nor \.onnx"):
        open_model(tmp_path / "model.bin")
    export_onnx(random_student(), (50,), tmp_path / "m.onnx")
    with pytest.raises(BadInputError, match=r"\(50, 3\)"):
        open_model(tmp_path / "m.onnx").run(noise(1, SPEC).transpose(0, 2, 1))
