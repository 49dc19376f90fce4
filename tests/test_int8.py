"""Int8 that is understood: simulator, ranges, bias correction, the report of tensors, the gate, training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from export_cases import SPEC, activities, make_run, noise, random_student, torch_logits, trained_student
from made_training import CHANNELS, LENGTH, SUBSET, TRAINING, distill_task, network, waves
from topokd_export.correct import correct_bias
from topokd_export.deploy import DeployGraph, deploy_form
from topokd_export.gate import loss_of, refuse_loss
from topokd_export.int8_model import make_int8
from topokd_export.layers import layers_report, worst
from topokd_export.qat import TRAINED_INT8, QuantisedStudent
from topokd_export.quantise import calibrated, quantise, write_int8
from topokd_export.ranges import find_ranges
from topokd_export.simulate import Grid, Ranges, grid, grids_of, range_of, rounded, simulate
from topokd_export.student import int8_predictions, int8_settings, load_student

from topokd_edge.bundle import open_model
from topokd_edge.cli import main
from topokd_edge.distill.int8_part import Int8
from topokd_edge.distill.recipe import parse_recipe
from topokd_edge.distill.run_training import start_run, train_run
from topokd_edge.distill.trainer import train
from topokd_edge.errors import CheckFailedError, UsageError
from topokd_edge.models.wrn import WideResNet, WRNSpec
from topokd_edge.run import Run


@pytest.fixture(scope="module")
def student() -> WideResNet:
    return trained_student()


@pytest.fixture(scope="module")
def graph(student: WideResNet) -> DeployGraph:
    return deploy_form(student, (50,)).with_floored_weights()


@pytest.fixture(scope="module")
def windows() -> np.ndarray:
    return activities(128, seed=5)[0]


def simulated(graph: DeployGraph, x: np.ndarray, ranges: Ranges | None = None) -> np.ndarray:
    with torch.no_grad():
        grids = None if ranges is None else grids_of(ranges)
        return simulate(graph, torch.from_numpy(x), grids)[graph.ops[-1].name].numpy()


def answers(content: bytes, folder: Path, x: np.ndarray) -> np.ndarray:
    (folder / "m.tflite").write_bytes(content)
    return open_model(folder / "m.tflite", reference_kernels=True).run(x)


def tensors(content: bytes) -> dict[str, tuple[float, int]]:
    """Scale and zero point of every int8 activation of a file."""
    from ai_edge_litert import schema_py_generated as schema

    found = schema.ModelT.InitFromPackedBuf(content, 0).subgraphs[0].tensors
    names = {b"x": "input", b"logits": "head"}
    return {
        names.get(item.name, item.name.decode()): (
            float(item.quantization.scale[0]),
            int(item.quantization.zeroPoint[0]),
        )
        for item in found
        if item.type == 9 and b"/" not in item.name and not item.name.endswith(b".pad")
    }


@pytest.mark.parametrize(
    ("spec", "size"),
    [
        (SPEC, (50,)),
        (WRNSpec(1, 10, 2, 3, 5, stem_stride=2), (33,)),
        (WRNSpec(2, 10, 1, 3, 5), (12, 9)),
        (WRNSpec(1, 16, 1, 3, 5, activation="post"), (50,)),
    ],
)
def test_the_simulator_without_rounding_equals_torch(spec: WRNSpec, size: tuple[int, ...]) -> None:
    model = random_student(spec)
    x = noise(4, spec, size)
    assert np.abs(simulated(deploy_form(model, size), x) - torch_logits(model, x)).max() < 1e-4


@pytest.mark.parametrize("choice", ["min-max", "percentile", "mse"])
def test_the_file_answers_as_simulated(
    choice: str, graph: DeployGraph, windows: np.ndarray, tmp_path: Path
) -> None:
    ranges = find_ranges(graph, windows, choice)
    x = activities(300, seed=6)[0]
    x[:20] *= 3.0  # saturates
    got, expected = answers(write_int8(graph, ranges), tmp_path, x), simulated(graph, x, ranges)
    step = grid(*ranges["head"]).scale
    assert np.abs(got - expected).max() <= 3.01 * step
    assert (got.argmax(1) == expected.argmax(1)).mean() >= 0.99


def test_the_file_carries_every_range(graph: DeployGraph, windows: np.ndarray) -> None:
    ranges = {
        name: (1.3 * low - 0.1, 0.7 * high)
        for name, (low, high) in find_ranges(graph, windows, "min-max").items()
    }
    carried = tensors(write_int8(graph, ranges))
    assert set(carried) == set(ranges)
    for name, (scale, zero_point) in carried.items():
        assert scale == pytest.approx(grid(*ranges[name]).scale, rel=1e-5), name
        assert zero_point == grid(*ranges[name]).zero_point, name


def test_a_grid_holds_zero_and_goes_back_to_its_range() -> None:
    assert grid(2.0, 5.1) == Grid(pytest.approx(0.02), -128)
    assert grid(-5.1, -2.0) == Grid(pytest.approx(0.02), 127)
    assert grid(0.0, 0.0).scale > 0
    scale, zero = grid(-1.0, 3.0)
    low, high = range_of(float(scale), zero)
    assert high - low == pytest.approx(4.0)
    assert abs(low + 1.0) <= float(scale) / 2


def test_gradients_of_rounding_are_those_of_torch() -> None:
    x = torch.linspace(-3, 3, 301).requires_grad_()
    scale = torch.tensor(0.015, requires_grad=True)
    weight = torch.randn(301, generator=torch.Generator().manual_seed(0))
    out = rounded(x, Grid(scale, 20))
    mine = torch.autograd.grad((out * weight).sum(), (x, scale))
    theirs_x, theirs_scale = x.detach().requires_grad_(), torch.tensor([0.015], requires_grad=True)
    theirs = torch._fake_quantize_learnable_per_tensor_affine(
        theirs_x, theirs_scale, torch.tensor([20.0]), -128, 127, 1.0
    )
    other = torch.autograd.grad((theirs * weight).sum(), (theirs_x, theirs_scale))
    assert torch.allclose(out, theirs, atol=1e-6)
    assert torch.equal(mine[0], other[0])
    assert float(mine[1]) == pytest.approx(float(other[1]), rel=1e-4)


def heavy_tailed(n: int = 128) -> np.ndarray:
    x = np.random.default_rng(0).standard_t(2.2, (n, SPEC.in_channels, 50)).astype(np.float32)
    x[3, 1, 7] = 300.0
    return x


def test_ranges_are_what_they_are_called(graph: DeployGraph) -> None:
    x = heavy_tailed()
    extremes = find_ranges(graph, x, "min-max")
    assert extremes["input"] == (float(x.min()), float(x.max()))
    with torch.no_grad():
        stem = simulate(graph, torch.from_numpy(x))["stem"].numpy()
    assert extremes["stem"] == pytest.approx((float(stem.min()), float(stem.max())), rel=1e-6)
    assert set(extremes) == {"input", *(op.name for op in graph.ops if op.kind != "pad")}
    few = find_ranges(graph, x, "percentile", 0.01)
    bin_ = float(x.max() - x.min()) / 8192
    assert few["input"] == pytest.approx(tuple(np.quantile(x, (0.005, 0.995))), abs=2 * bin_)
    clipped = find_ranges(graph, np.clip(x, *few["input"]), "min-max")
    assert (few["head"], few["mean"]) == (clipped["head"], clipped["mean"])
    assert few["blocks.0"][1] < clipped["blocks.0"][1]


def test_mse_ranges_have_the_least_error() -> None:
    graph = deploy_form(random_student(WRNSpec(1, 10, 1, 3, 5)), (50,))
    x = np.random.default_rng(0).normal(size=(2000, 3, 50)).astype(np.float32)
    x[0, 0, :2] = 100.0, -100.0
    low, high = find_ranges(graph, x, "mse")["input"]

    def error(a: float, b: float) -> float:
        scale = (b - a) / 255
        zero = round(-128 - a / scale)
        levels = np.clip(np.rint(x.astype(np.float64) / scale) + zero, -128, 127)
        return float(np.mean(((levels - zero) * scale - x) ** 2))

    parts = np.linspace(0.02, 1.0, 150)
    least = min(error(float(x.min()) * part, float(x.max()) * part) for part in parts)
    assert error(low, high) <= 1.05 * least
    assert error(low, high) < 0.8 * error(float(x.min()), float(x.max()))


def test_bias_correction_mends_the_mean(graph: DeployGraph, windows: np.ndarray) -> None:
    ranges = find_ranges(graph, windows, "percentile", 0.02)
    corrected = correct_bias(graph, windows, ranges)
    wanted = simulated(graph, windows).mean(0)
    before = np.abs(simulated(graph, windows, ranges).mean(0) - wanted).max()
    after = np.abs(simulated(corrected, windows, ranges).mean(0) - wanted).max()
    assert after < 0.2 * before
    asked, plain = (
        calibrated(graph, windows, Int8(ranges="percentile", tail=0.02, bias_correction=on))[0]
        for on in (True, False)
    )
    assert np.array_equal(asked.ops[0].bias, corrected.ops[0].bias)
    assert not np.array_equal(plain.ops[0].bias, corrected.ops[0].bias)


def test_every_setting_of_ranges_changes_the_file(student: WideResNet, windows: np.ndarray) -> None:
    form = deploy_form(student, (50,))
    settings = [
        Int8(),
        Int8(ranges="mse"),
        Int8(ranges="percentile"),
        Int8(ranges="percentile", tail=0.05),
        Int8(bias_correction=True),
    ]
    files = [quantise(form, windows, item) for item in settings]
    assert len(set(files)) == len(files)
    assert files[0] == quantise(form, windows)


def test_the_report_measures_what_it_says(graph: DeployGraph, windows: np.ndarray) -> None:
    ranges = find_ranges(graph, windows, "min-max") | {"blocks.0": (-1.0, 1.5)}
    layers = {item.name: item for item in layers_report(graph, windows, ranges)}
    assert list(layers) == list(find_ranges(graph, windows, "min-max"))
    with torch.no_grad():
        exact = simulate(graph, torch.from_numpy(windows))["blocks.0"].numpy()
    scale, zero = (2.5 / 255), round(-128 + 1.0 / (2.5 / 255))
    coarse = (np.clip(np.rint(exact / scale) + zero, -128, 127) - zero) * scale
    own = 10 * np.log10((exact**2).mean() / ((coarse - exact) ** 2).mean())
    broken = layers["blocks.0"]
    assert broken.own_db == pytest.approx(own, abs=0.05)
    assert broken.saturated == pytest.approx(((exact < -1) | (exact > 1.5)).mean(), abs=0.01)
    assert broken.range_used == pytest.approx(1.0, abs=0.01)
    assert layers["input"].saturated == 0
    assert layers["head"].quiet_db is None
    assert worst([*layers.values()], 1) == [broken]
    assert broken.changed > 0.02
    assert layers["bn"].signal_to_noise_db < layers["bn"].own_db
    assert "blocks.0: rounded alone it changes" in broken.sentence()


def test_movement_below_a_step_shows_in_quiet_windows(graph: DeployGraph, windows: np.ndarray) -> None:
    mixed = windows.copy()
    mixed[:64] *= 0.002
    usual = {
        item.name: item for item in layers_report(graph, windows, find_ranges(graph, windows, "min-max"))
    }
    lost = {item.name: item for item in layers_report(graph, mixed, find_ranges(graph, mixed, "min-max"))}
    assert usual["input"].quiet_db > 30
    assert lost["input"].quiet_db < 3
    assert lost["input"].own_db > 30  # what the loud windows say


def test_loss_and_its_interval_by_hand() -> None:
    y = np.zeros(100, dtype=np.int64)
    right, wrong = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    sound = np.array([right] * 90 + [wrong] * 10, dtype=np.float32)
    worse = np.array([right] * 80 + [wrong] * 20, dtype=np.float32)
    loss = loss_of(y, sound, worse)
    assert (loss.loss, loss.float32, loss.int8) == pytest.approx((0.1, 0.9, 0.8))
    half = 1.98422 * np.std([1.0] * 10 + [0.0] * 90, ddof=1) / 10  # t quantile of 99 degrees of freedom
    assert loss.ci95 == pytest.approx((0.1 - half, 0.1 + half), abs=1e-4)
    assert loss.exceeds(0.05)
    assert not loss.exceeds(0.1001)
    few = loss_of(y[:30], sound[60:90], np.concatenate([sound[60:89], sound[-1:]]))
    assert few.loss == pytest.approx(1 / 30)
    assert not few.exceeds(0.02)  # one window of thirty is within noise
    with pytest.raises(CheckFailedError, match=r"loses 10\.0 points"):
        refuse_loss(loss, 0.05, [])


def cli(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["topokd-edge", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0)


def test_export_refuses_a_loss_and_names_the_tensor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path, spike=2e4)
    out = tmp_path / "bundle"
    argv = ["export", str(run.folder), "--out", str(out), "--targets", "tflite"]
    assert cli(monkeypatch, *argv) == 1
    said = capsys.readouterr().err
    assert "int8 loses" in said
    assert said.count("rounded alone it changes") == 3
    assert not out.exists()
    assert cli(monkeypatch, *argv, "--max-int8-loss", "90", "--json") == 0
    lost = json.loads(capsys.readouterr().out)["int8"]
    assert lost["loss"]["loss"] > 0.2
    assert {item["name"]: item["changed"] for item in lost["layers"]}["input"] > 0.5
    assert cli(monkeypatch, *argv, "--ranges", "percentile", "--overwrite", "--json") == 0
    cured = json.loads(capsys.readouterr().out)["int8"]
    assert cured["loss"]["loss"] < 0.02
    assert cured["settings"]["ranges"] == "percentile"
    assert {"input", "stem", "head"} <= {item["name"] for item in cured["layers"]}
    assert cli(monkeypatch, *argv, "--ranges", "psychic") == 2


def test_settings_of_a_run_and_of_the_command_line(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert int8_settings(run) == Int8()
    (tmp_path / "recipe.toml").write_text('[student.int8]\nranges = "mse"\nwindows = 300\n')
    assert int8_settings(run, bias_correction=True) == Int8(ranges="mse", windows=300, bias_correction=True)
    with pytest.raises(UsageError) as caught:
        int8_settings(run, ranges="psychic")
    assert caught.value.problems[0].startswith("student.int8.ranges")
    with pytest.raises(UsageError) as caught:
        int8_settings(run, training={"epochs": 1, "precision": "bfloat16"})
    assert "float32" in caught.value.problems[0]


def test_training_with_rounding_ends_in_a_file_that_answers_alike(tmp_path: Path) -> None:
    start = network(3).eval()
    many = np.random.default_rng(0).normal(size=(128, CHANNELS, LENGTH)).astype(np.float32)
    form, ranges = calibrated(deploy_form(start, (LENGTH,)), many, Int8(ranges="percentile", tail=0.01))
    net = QuantisedStudent(form, start.spec, ranges)
    task = distill_task(net, similarity=0.5)
    scales, weights = net.log_scales.detach().clone(), net.weights[0].detach().clone()
    train(task, SUBSET, TRAINING, seed=0, folder=tmp_path / "net", meta={})
    assert not torch.equal(scales, net.log_scales)
    assert not torch.equal(weights, net.weights[0])
    again = QuantisedStudent(form, start.spec, ranges)
    again.load_state_dict(net.state_dict())
    with torch.no_grad():
        expected = again(torch.from_numpy(many)).numpy()
    got = answers(write_int8(net.graph().with_floored_weights(), net.ranges()), tmp_path, many)
    step = grid(*net.ranges()["head"]).scale
    apart = np.abs(got - expected) / step  # hardly trained, so single windows amplify a step within
    assert np.quantile(apart, 0.99) <= 3.01
    assert apart.max() < 6
    clear = np.abs(expected[:, 0] - expected[:, 1]) > step
    assert (got.argmax(1) == expected.argmax(1))[clear].mean() >= 0.99


TINY = """
name = "tiny"
split = { folds = 2, validation_subjects = 1 }
topology = { size = [16, 16] }
signal_teacher = { network = { depth = 10 }, training = { epochs = 1 } }
topology_teacher = { network = { depth = 10, stem_stride = 2 }, training = { epochs = 1 } }

[student]
network = { depth = 10 }
scratch = { epochs = 1 }
distilled = { epochs = 1 }
int8 = { method = "train", ranges = "percentile", training = { epochs = 2, learning_rate = 0.01 } }
"""


@pytest.mark.slow
def test_a_run_whose_recipe_trains_int8(tmp_path: Path) -> None:
    data = tmp_path / "w"
    waves(6, 24).save(data)
    recipe = parse_recipe(TINY, "tiny")
    run = start_run(tmp_path / "r", data, recipe)
    train_run(run, recipe, device="cpu", only_folds=[1])
    place = run.fold_run(1, 0)
    before = {path: path.read_bytes() for path in place.folder.rglob("*.safetensors")}
    said = int8_predictions(run, 1, 0).logits
    learned = place.model_folder(TRAINED_INT8)
    assert len((learned / "metrics.jsonl").read_text().splitlines()) == 2
    stamp = (learned / "checkpoint.safetensors").read_bytes()
    assert np.array_equal(int8_predictions(run, 1, 0).logits, said)  # loaded, not trained again
    student = load_student(run, 1, 0)
    plain = make_int8(run, student, int8_settings(run, method="calibrate"))
    assert plain.content != make_int8(run, student).content
    (learned / "checkpoint.json").unlink()
    assert np.array_equal(int8_predictions(run, 1, 0).logits, said)  # the same, trained anew
    assert (learned / "checkpoint.safetensors").read_bytes() == stamp
    assert {path: path.read_bytes() for path in before} == before
    assert not (run.folder / "cache" / "int8-fold-1").exists()
