"""A student with activation after the sum: trained by a recipe, and the same in every file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from c_cases import any_levels, compiled, graph_of, lite_tensors, tflm_logits
from export_cases import activities, noise, random_student, torch_logits
from made_training import waves
from test_c_exact import checksums, difference, fnv
from topokd_export.c.integer_graph import Add, Scale
from topokd_export.deploy import DeployGraph, deploy_form
from topokd_export.describe import describe_tflite
from topokd_export.onnx_int8 import write_onnx_int8
from topokd_export.onnx_writer import write_onnx
from topokd_export.qat import QuantisedStudent
from topokd_export.quantise import calibrated, write_int8
from topokd_export.ranges import find_ranges
from topokd_export.simulate import grids_of, simulate

from topokd_edge.bundle import open_model
from topokd_edge.distill.checkpoint import load_model
from topokd_edge.distill.recipe import parse_recipe
from topokd_edge.distill.run_training import start_run, train_run
from topokd_edge.errors import UsageError
from topokd_edge.files import read_json, write_json
from topokd_edge.models.wrn import WRNSpec

SPEC = WRNSpec(1, 16, 1, 3, 5, activation="post")
RECIPE = """
name = "tiny"
split = { folds = 3, validation_subjects = 1 }
topology = { size = [16, 16] }
signal_teacher = { network = { depth = 10 }, training = { epochs = 1, batch_size = 16 } }

[topology_teacher]
network = { depth = 10, activation = "post" }
training = { epochs = 1, batch_size = 16 }

[student]
network = { depth = 10, activation = "post" }
scratch = { epochs = 1, batch_size = 16 }
distilled = { epochs = 1, batch_size = 16, learning_rate = 0.02 }
distilling = { similarity = 10.0 }
"""


@pytest.fixture(scope="module")
def int8() -> tuple[DeployGraph, bytes]:
    """Deploy form and int8 file of a student, random but calibrated."""
    graph, ranges = calibrated(deploy_form(random_student(SPEC), (50,)), activities(128, seed=5)[0])
    return graph, write_int8(graph, ranges)


def test_the_int8_file_has_no_operator_that_only_scales(int8: tuple[DeployGraph, bytes]) -> None:
    found = describe_tflite(int8[1])
    assert found.operators == {"CONV_2D": 15, "ADD": 6, "PAD": 2, "MEAN": 1, "FULLY_CONNECTED": 1}
    assert set(found.tensor_types) == {"INT8", "INT32"}


def test_the_file_answers_as_simulated_and_like_torch(
    int8: tuple[DeployGraph, bytes], tmp_path: Path
) -> None:
    graph, content = int8
    (tmp_path / "m.tflite").write_bytes(content)
    x = activities(200, seed=6)[0]
    got = open_model(tmp_path / "m.tflite", reference_kernels=True).run(x)
    grids = grids_of(find_ranges(graph, activities(128, seed=5)[0], "min-max"))
    with torch.no_grad():
        simulated = simulate(graph, torch.from_numpy(x), grids)["head"].numpy()
    assert np.abs(got - simulated).max() <= 3.01 * float(grids["head"].scale)
    expected = torch_logits(random_student(SPEC), x)
    assert np.sqrt(np.mean((got - expected) ** 2)) < 0.05 * np.ptp(expected)


def test_onnx_equals_torch_and_its_int8_the_tflite_file(
    int8: tuple[DeployGraph, bytes], tmp_path: Path
) -> None:
    model, (graph, content) = random_student(SPEC), int8
    (tmp_path / "f.onnx").write_bytes(write_onnx(deploy_form(model, (50,))))
    x = noise(7, SPEC)
    assert np.abs(open_model(tmp_path / "f.onnx").run(x) - torch_logits(model, x)).max() < 1e-4
    (tmp_path / "m.tflite").write_bytes(content)
    (tmp_path / "i.onnx").write_bytes(write_onnx_int8(graph, content))
    x = activities(50, seed=6)[0]
    reference = open_model(tmp_path / "m.tflite", reference_kernels=True).run(x)
    step = describe_tflite(content).output.scale
    assert np.abs(open_model(tmp_path / "i.onnx").run(x) - reference).max() <= 4.5 * step


def test_onnx_int8_is_fused_to_integer_kernels(int8: tuple[DeployGraph, bytes], tmp_path: Path) -> None:
    (tmp_path / "i.onnx").write_bytes(write_onnx_int8(*int8))
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "fused.onnx"), 3
    onnxruntime.InferenceSession(str(tmp_path / "i.onnx"), options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "fused.onnx").graph.node]
    assert (kinds.count("QLinearConv"), kinds.count("QLinearAdd")) == (15, 6)
    assert not {"Conv", "Add", "Relu"} & set(kinds)


def test_the_c_is_exact_with_relu_after_the_sum(int8: tuple[DeployGraph, bytes], tmp_path: Path) -> None:
    content = int8[1]
    graph = graph_of(content)
    assert not [layer for layer in graph.layers if isinstance(layer, Scale)]
    assert {layer.output.zero_point for layer in graph.layers if isinstance(layer, Add)} == {-128}
    levels = any_levels(graph, 100, seed=3)
    expected = tflm_logits(content, levels)
    for kernel in ("REF", "BLK"):
        assert difference(compiled(content, kernel).invoke(levels), expected) == 0, kernel
    student = compiled(content, "BLK", "-DSTUDENT_DEBUG")
    student.invoke(levels[7:8])
    tensors = lite_tensors(content, levels[7], tmp_path)
    found = checksums(student, len(graph.layers))[:-2]  # LiteRT's MEAN may differ by one step
    assert len(found) == len(graph.layers) - 2
    for name, hashed in found:
        assert hashed == fnv(tensors[name]), name


def test_it_learns_on_with_rounding_and_shows_its_stages(int8: tuple[DeployGraph, bytes]) -> None:
    graph, x = int8[0], torch.from_numpy(activities(16, seed=7)[0])
    ranges = find_ranges(graph, activities(128, seed=5)[0], "min-max")
    student = QuantisedStudent(graph, SPEC, ranges)
    logits, seen = student.observe(x, lambda features: features)
    _, exact = random_student(SPEC).observe(x, lambda features: features)
    for got, expected in zip(seen, exact, strict=True):
        got, expected = got.detach(), expected.detach().squeeze(2)
        assert got.shape == expected.shape
        assert float(got.min()) == 0.0
        assert float((got - expected).abs().max()) < 0.1 * float(expected.max())
    logits.square().mean().backward()  # type: ignore[no-untyped-call]
    assert all(weight.grad is not None and bool(weight.grad.any()) for weight in student.weights)


def test_a_recipe_asks_for_it(tmp_path: Path) -> None:
    waves(6, 4).save(tmp_path / "w")
    recipe = parse_recipe(RECIPE, "tiny")
    run = start_run(tmp_path / "run", tmp_path / "w", recipe)
    train_run(run, recipe, only_folds=[1], device="cpu")
    place = run.fold_run(1, 0)
    found = {
        name: load_model(place.model_folder(name))[0].spec.activation
        for name in ("teacher.signal", "teacher.topology", "student.scratch", "student.distilled")
    }
    assert list(found.values()) == ["pre", "post", "post", "post"]
    meta = place.model_folder("teacher.signal") / "checkpoint.json"
    document = read_json(meta)
    del document["spec"]["activation"]  # as older versions wrote it
    write_json(meta, document)
    assert load_model(meta.parent)[0].spec.activation == "pre"


def test_weights_of_another_activation_are_not_inherited() -> None:
    inherits = 'student.distilling.annealing_from="signal-teacher"'
    with pytest.raises(UsageError) as caught:
        parse_recipe(RECIPE, "tiny", [inherits])
    assert "signal_teacher.network: expected that of student.network" in caught.value.problems[0]
