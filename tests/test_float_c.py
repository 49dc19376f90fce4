"""Float networks and pipelines in C: the logits of onnxruntime, and of every core the same bits."""

from __future__ import annotations

import platform
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from export_cases import noise, random_student
from onnx import helper
from topokd_export.c.float_graph import FloatConv, read_float_graph
from topokd_export.c.float_host import HostPipeline
from topokd_export.c.float_plan import constant_bytes, float_ram_bytes, plan_floats
from topokd_export.c.float_writer import FloatPipeline, signal_pipeline, topology_pipeline, write_pipeline
from topokd_export.c.linux import MACHINES, pipeline_program
from topokd_export.deploy import deploy_form
from topokd_export.onnx_writer import write_onnx

from topokd_edge.errors import BadInputError, CheckFailedError
from topokd_edge.models.wrn import WRNSpec
from topokd_edge.topology.image import persistence_images
from topokd_edge.topology.params import ImageParams, fit_params

MEAN, STD = (0.5, -3.0, 0.01), (2.0, 1.0, 0.5)


def onnx_of(spec: WRNSpec, size: tuple[int, ...], seed: int = 0) -> bytes:
    return write_onnx(deploy_form(random_student(spec, seed=seed), size))


def by_onnxruntime(content: bytes, x: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(None, {"windows": x})[0]


def signal_case(spec: WRNSpec, length: int, seed: int = 0) -> tuple[FloatPipeline, bytes]:
    content = onnx_of(spec, (length,), seed)
    return signal_pipeline(content, MEAN[: spec.in_channels], STD[: spec.in_channels]), content


def topology_case(
    spec: WRNSpec, length: int = 60, **options: object
) -> tuple[FloatPipeline, bytes, ImageParams]:
    """A pipeline whose ranges were fitted on `waves`."""
    params = fit_params(waves(8, spec.in_channels, length), **options)  # type: ignore[arg-type]
    content = onnx_of(spec, params.size)
    scale = (0.01,) * spec.in_channels, (0.05,) * spec.in_channels
    return topology_pipeline(content, params, length, *scale), content, params


def waves(n: int, channels: int, length: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    swing = np.sin(np.arange(length) / 4.0 + rng.uniform(0, 6, (n, channels, 1)))
    return (swing + 0.3 * rng.standard_normal(swing.shape)).astype(np.float32)


@pytest.mark.parametrize(
    ("spec", "length"),
    [
        (WRNSpec(1, 16, 1, 3, 5), 50),
        (WRNSpec(1, 10, 2, 2, 4), 33),
        (WRNSpec(1, 10, 1, 1, 1), 1),
        (WRNSpec(1, 10, 1, 3, 9, stem_stride=2), 7),
        (WRNSpec(1, 10, 1, 3, 6, activation="post"), 21),
    ],
)
def test_signal_networks_answer_as_onnxruntime(spec: WRNSpec, length: int) -> None:
    pipeline, content = signal_case(spec, length)
    x = noise(6, spec, (length,))
    mean, std = (np.array(v[: spec.in_channels], np.float32)[:, None] for v in (MEAN, STD))
    expected = by_onnxruntime(content, (x - mean) / std)
    found = HostPipeline(pipeline).run(x)
    assert np.abs(found - expected).max() <= 2e-5 * max(1.0, np.abs(expected).max())


@pytest.mark.parametrize(
    ("spec", "size"),
    [
        (WRNSpec(2, 10, 1, 2, 5, stem_stride=2), (24, 24)),
        (WRNSpec(2, 10, 1, 3, 4), (13, 7)),
        pytest.param(WRNSpec(2, 10, 1, 1, 3, stem_stride=2), (9, 30), marks=pytest.mark.slow),
        pytest.param(WRNSpec(2, 10, 1, 2, 3, activation="post"), (5, 8), marks=pytest.mark.slow),
    ],
)
def test_topology_pipelines_answer_as_the_fast_backend_and_onnxruntime(
    spec: WRNSpec, size: tuple[int, int]
) -> None:
    pipeline, content, params = topology_case(spec, size=size)
    x = waves(5, spec.in_channels, pipeline.length, seed=1)
    images = (persistence_images(x, params, threads=1)[0] - np.float32(0.01)) / np.float32(0.05)
    expected = by_onnxruntime(content, images)
    found = HostPipeline(pipeline).run(x)
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


def test_a_row_as_wide_as_the_taps_is_one_piece() -> None:
    """An image of one column: its padded rows are as wide as the kernel."""
    pipeline, content, params = topology_case(WRNSpec(2, 10, 1, 1, 3), size=(12, 1))
    x = waves(3, 1, pipeline.length, seed=2)
    images = (persistence_images(x, params, threads=1)[0] - np.float32(0.01)) / np.float32(0.05)
    assert HostPipeline(pipeline).run(x) == pytest.approx(by_onnxruntime(content, images), rel=1e-4, abs=1e-4)


def test_memory_is_known_before_anything_is_built() -> None:
    for pipeline in (signal_case(WRNSpec(1, 10, 1, 3, 5), 50)[0], topology_case(WRNSpec(2, 10, 1, 2, 5))[0]):
        host = HostPipeline(pipeline)
        ram = float_ram_bytes(pipeline, plan_floats(pipeline))
        assert ram - 8 < host.ram_bytes <= ram
        weights = [layer for layer in pipeline.layers if hasattr(layer, "weight")]
        assert constant_bytes(pipeline) >= 4 * sum(layer.weight.size + layer.bias.size for layer in weights)


def test_tensors_share_the_arena_but_never_at_one_time() -> None:
    """Whole but for what a layer writes over its input, by each tensor's first writing and last reading."""
    pipeline = topology_case(WRNSpec(2, 16, 1, 2, 5, stem_stride=2))[0]
    plan = plan_floats(pipeline)
    born = {layer.output.name: i for i, layer in enumerate(pipeline.layers[:-1])}
    sizes = {layer.output.name: layer.output.bytes for layer in pipeline.layers[:-1]}
    dies = {name: max(i for i, layer in enumerate(pipeline.layers) if name in layer.inputs) for name in born}
    for a in born:
        for b in born:
            together = born[a] < dies[b] and born[b] < dies[a] and a != b
            apart = (
                plan.offsets[a] + sizes[a] <= plan.offsets[b] or plan.offsets[b] + sizes[b] <= plan.offsets[a]
            )
            assert apart or not together, (a, b)
    assert plan.arena_bytes < sum(sizes.values()) / 3


def test_samples_that_are_not_finite_are_refused() -> None:
    pipeline, _ = signal_case(WRNSpec(1, 10, 1, 3, 5), 20)
    host = HostPipeline(pipeline)
    x = noise(1, WRNSpec(1, 10, 1, 3, 5), (20,))
    for bad in (np.nan, np.inf, -np.inf):
        wrong = x.copy()
        wrong[0, 1, 7] = bad
        with pytest.raises(CheckFailedError, match="answered -2"):
            host.run(wrong)


def test_the_same_pipeline_gives_the_same_text() -> None:
    pipeline, _ = signal_case(WRNSpec(1, 10, 1, 3, 5), 20)
    assert write_pipeline(pipeline) == write_pipeline(replace(pipeline))


def test_all_that_is_not_understood_is_named() -> None:
    model = onnx.load_model_from_string(onnx_of(WRNSpec(1, 10, 1, 3, 5), (20,)))
    for node in model.graph.node:
        if node.op_type == "Relu" and node.name.startswith("blocks.1"):
            node.op_type = "Sigmoid"
    with pytest.raises(BadInputError) as caught:
        read_float_graph(model.SerializeToString())
    assert any("blocks.1" in problem and "Sigmoid" in problem for problem in caught.value.problems)
    for content in (b"", b"no model", bytes(range(200))):
        with pytest.raises(BadInputError):
            read_float_graph(content)


@pytest.mark.parametrize(
    ("attribute", "said"),
    [
        (helper.make_attribute("dilations", [2]), "dilation"),
        (helper.make_attribute("pads", [2, 2]), "padding 2"),
        (helper.make_attribute("pads", [1, 0]), "padding"),
        (helper.make_attribute("group", 3), "3 groups"),
    ],
)
def test_other_convolutions_are_refused(attribute: onnx.AttributeProto, said: str) -> None:
    model = onnx.load_model_from_string(onnx_of(WRNSpec(1, 10, 1, 3, 5), (20,)))
    stem = model.graph.node[0]
    kept = [item for item in stem.attribute if item.name != attribute.name]
    del stem.attribute[:]
    stem.attribute.extend([*kept, attribute])
    with pytest.raises(BadInputError) as caught:
        read_float_graph(model.SerializeToString())
    assert said in " ".join(caught.value.problems)


def test_a_network_for_other_images_or_channels_is_refused() -> None:
    content = onnx_of(WRNSpec(1, 10, 1, 3, 5), (20,))
    with pytest.raises(BadInputError, match="3 channels"):
        signal_pipeline(content, MEAN[:2], STD[:2])
    params = fit_params(waves(4, 2, 30), size=(8, 8))
    with pytest.raises(BadInputError, match="its images have 2"):
        topology_pipeline(onnx_of(WRNSpec(2, 10, 1, 3, 5), (8, 8)), params, 30, (0.0,) * 2, (1.0,) * 2)
    with pytest.raises(BadInputError, match="columns"):
        signal_pipeline(onnx_of(WRNSpec(2, 10, 1, 3, 5), (8, 8)), MEAN, STD)


def test_a_bias_is_not_needed() -> None:
    model = onnx.load_model_from_string(onnx_of(WRNSpec(1, 10, 1, 3, 5), (20,)))
    del model.graph.node[0].input[2]
    stem = read_float_graph(model.SerializeToString()).layers[0]
    assert isinstance(stem, FloatConv) and not stem.bias.any()


def run_program(program: Path, *words: str, windows: np.ndarray) -> np.ndarray:
    samples = np.ascontiguousarray(np.moveaxis(windows, 1, 2)).tobytes()
    child = subprocess.run([program, *words], input=samples, capture_output=True, check=True)
    return np.array([line.split() for line in child.stdout.decode().splitlines()], dtype=np.float64)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the program is for x86_64")
def test_a_linux_program_answers_and_times(tmp_path: Path) -> None:
    pipeline, _ = signal_case(WRNSpec(1, 10, 1, 2, 4), 16)
    program = tmp_path / "student"
    program.write_bytes(pipeline_program(pipeline, "x86_64"))
    program.chmod(0o700)
    x = noise(3, WRNSpec(1, 10, 1, 2, 4), (16,))
    expected = HostPipeline(pipeline).run(x)
    logits = run_program(program, "logits", windows=x)
    assert np.abs(logits - expected).max() <= 1e-5 * np.abs(expected).max()
    assert run_program(program, "label", windows=x).ravel().tolist() == expected.argmax(1).tolist()
    peak, *times = run_program(program, "time", "2", "20", "0.01", windows=x).ravel()
    assert len(times) >= 20 and min(times) > 0 and peak > 0
    assert subprocess.run([program, "levels"], check=False).returncode == 2


@pytest.mark.slow
@pytest.mark.parametrize("machine", list(MACHINES))
def test_every_linux_machine_gets_its_program(machine: str) -> None:
    pipeline = topology_case(WRNSpec(2, 10, 1, 1, 3), size=(8, 8))[0]
    program = pipeline_program(pipeline, machine)
    assert program[:4] == b"\x7fELF" and len(program) > constant_bytes(pipeline)
