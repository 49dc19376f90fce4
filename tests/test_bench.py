"""What a bench promises: fresh processes, accuracy through the runtime itself, honest failures."""

import json
import os
import subprocess
import sys
import time

import numpy as np
import onnx
import pytest
from export_cases import add_teachers, make_run, torch_logits
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from topokd_bench import device, local, pipelines
from topokd_bench.accuracy import bootstrap95, interval95, paired95, wilson95
from topokd_bench.device import peak_memory_bytes
from topokd_bench.result import BenchResult
from topokd_bench.timing import measure
from topokd_bench.windows import HeldOut, timing_windows
from topokd_export.export import export_student

from topokd_edge.bundle import Bundle
from topokd_edge.cli import _bench_plan
from topokd_edge.cli._bench_int8 import int8_cost
from topokd_edge.cli.bench import bench
from topokd_edge.errors import DeviceError
from topokd_edge.run import Run
from topokd_edge.topology.image import persistence_images
from topokd_edge.topology.params import ImageParams

QUICK = local.Effort(seconds=0.05, runs=20, warmup=2, timeout=120)


# --- timing


def test_every_call_is_counted_and_warm_up_is_not():
    calls = []
    timing = measure(calls.append, warmup=3, runs=7, seconds=0.0)
    assert calls == [0, 1, 2, *range(7)]
    assert (timing.runs, timing.warmup) == (7, 3)


def test_a_slow_call_still_gets_its_runs_and_a_quick_one_fills_the_time():
    slow = measure(lambda _: time.sleep(0.002), warmup=0, runs=5, seconds=0.0)
    assert slow.runs == 5 and slow.ns.min() >= 2e6
    quick = measure(lambda _: None, warmup=0, runs=5, seconds=0.02)
    assert quick.runs > 5


def test_percentiles_are_ordered_and_are_times_that_occurred():
    timing = measure(lambda i: sum(range(100 * (i % 7))), warmup=0, runs=200, seconds=0.0)
    found = timing.percentiles_ms()
    assert found["min"] <= found["p50"] <= found["p95"] <= found["p99"]
    assert set(found.values()) <= {value / 1e6 for value in timing.ns.tolist()}


# --- accuracy


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 3000), st.data())
def test_wilson_is_scipys(trials, data):
    successes = data.draw(st.integers(0, trials))
    low, high = binomtest(successes, trials).proportion_ci(method="wilson")
    assert wilson95(successes, trials) == pytest.approx((low, high), abs=1e-9)


def test_few_subjects_give_an_interval_over_windows_and_many_one_over_subjects():
    correct = np.arange(400) % 10 > 0
    assert interval95(correct, np.repeat(["a", "b"], 200))[1] == "windows"
    assert interval95(correct, np.repeat([f"s{i}" for i in range(20)], 20))[1] == "subjects"


def test_windows_of_one_subject_are_not_independent():
    subject = np.repeat([f"s{i}" for i in range(20)], 50)
    correct = np.repeat(np.arange(20) % 2 == 0, 50)
    low, high = bootstrap95(correct.astype(float), subject)
    wilson_low, wilson_high = wilson95(int(correct.sum()), len(correct))
    assert high - low > 4 * (wilson_high - wilson_low)


def test_a_paired_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(5)
    hits = 0
    for gained, lost, _ in rng.multinomial(200, (0.05, 0.02, 0.93), size=2000):
        low, high = paired95(int(gained), int(lost), 200)
        hits += low <= 0.03 <= high
    assert 0.93 <= hits / 2000 <= 0.98


# --- records


def test_a_result_is_read_back_as_it_was_written():
    result = BenchResult(
        "local",
        "measured",
        "student.int8",
        "litert",
        latency_ms={"p50": 0.1, "p95": 0.2, "p99": 0.3, "min": 0.1, "cold": 9.0},
        accuracy=0.5,
        accuracy_ci95=(0.4, 0.6),
    )
    assert BenchResult.from_dict(json.loads(json.dumps(result.to_dict()))) == result


@pytest.mark.parametrize(
    "change",
    [
        {"basis": "guessed"},
        {"latency_ms": {"p50": 1}},
        {"latency_ms": {"p50": 1, "p95": 1, "p99": 1, "min": 1}},
        {"latency_ms": {"p50": -1, "p95": 1, "p99": 1, "min": 1, "cold": 1}},
        {"latency_ms": {"p50": "1", "p95": 1, "p99": 1, "min": 1, "cold": 1}},
    ],
)
def test_nonsense_from_a_device_is_refused(change):
    good = {"target": "local", "basis": "measured", "pipeline": "tda", "runtime": "x"}
    with pytest.raises(ValueError, match=next(iter(change))):
        BenchResult.from_dict({**good, **change})


def test_timing_uses_few_windows_spread_over_all(tmp_path):
    x = np.arange(1000, dtype=np.float32).reshape(1000, 1, 1)
    HeldOut(x, np.zeros(1000, dtype=np.int64)).save(tmp_path / "w.npz")
    few = timing_windows(tmp_path / "w.npz").ravel()
    assert len(few) == 64 and few[0] == 0 and few[-1] > 950 and (np.diff(few) > 10).all()
    assert len(HeldOut.open(tmp_path / "w.npz").x) == 1000


def measured(pipeline, runtime, correct):
    result = BenchResult("local", "measured", pipeline, runtime)
    return local.Measured(result, dict(enumerate(correct)))


def test_what_int8_costs_is_paired_and_through_the_same_runtime():
    subject = np.repeat(["a", "b", "c", "d"], 25)
    wide = np.ones(100, dtype=bool)
    narrow = np.arange(100) % 25 >= 2
    results = [
        measured("student.float32", "onnxruntime", ~wide),
        measured("student.float32", "litert", wide),
        measured("student.int8", "litert", narrow),
    ]
    cost = int8_cost(results, subject)
    assert (cost.over, cost.windows, cost.subjects) == ("subjects", 100, 4)
    assert cost.cost == pytest.approx(0.08) and cost.ci95 == pytest.approx((0.08, 0.08))
    one = int8_cost(results, np.repeat("a", 100))
    assert one.over == "windows" and one.ci95[0] < 0.08 < one.ci95[1]
    assert "8.00 points" in one.sentence() and "1 subject)" in one.sentence()
    assert int8_cost(results[:2], subject) is None


# --- the worker


@pytest.fixture(scope="module")
def linear(tmp_path_factory):
    """Write a linear classifier of raw windows as ONNX, and windows of which it gets 90 % right."""
    folder = tmp_path_factory.mktemp("linear")
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(3 * 40, 4)).astype(np.float32)
    mean, std = [5.0, 0.0, -2.0], [2.0, 1.0, 0.5]
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Flatten", ["x"], ["flat"]),
            onnx.helper.make_node("MatMul", ["flat", "w"], ["y"]),
        ],
        "linear",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 3, 40])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 4])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, folder / "m.onnx")
    normal = rng.normal(size=(300, 3, 40)).astype(np.float32)
    y = (normal.reshape(300, -1) @ weights).argmax(axis=1)
    y[:30] = (y[:30] + 1) % 4
    raw = normal * np.array(std, np.float32)[:, None] + np.array(mean, np.float32)[:, None]
    HeldOut(raw.astype(np.float32), y, np.repeat(["a", "b", "c"], 100)).save(folder / "windows.npz")
    args = {"path": str(folder / "m.onnx"), "mean": mean, "std": std}
    size = (folder / "m.onnx").stat().st_size
    return local.Job(
        "student.float32", "onnxruntime", pipelines.MODEL_FILE, args, size
    ), folder / "windows.npz"


def test_a_pipeline_is_measured_from_raw_window_to_logits(linear):
    job, windows = linear
    measured = local.run(job, windows, effort=QUICK)
    result = measured.result
    assert result.error == ""
    assert (result.accuracy, result.windows, result.accuracy_basis) == (0.9, 300, "windows")
    assert [index for index, right in measured.correct.items() if not right] == list(range(30))
    assert result.latency_ms["cold"] > result.latency_ms["p99"] >= result.latency_ms["min"] > 0
    assert result.ram_bytes > result.ram_baseline_bytes > 0
    assert result.runs >= QUICK.runs and result.model_bytes == job.model_bytes
    assert {"numpy", "onnxruntime"} <= set(result.versions)
    disturbed = {"load_before", "load_after", "cpu_share", "others_share"}
    assert {"cpu", "cores", "governor"} | disturbed <= set(result.device)


def test_peak_memory_is_that_of_the_pipeline_and_not_of_the_program_that_asked(linear):
    job, windows = linear
    ballast = np.ones(300_000_000 // 8)
    assert peak_memory_bytes() > ballast.nbytes
    assert local.run(job, windows, effort=QUICK).result.ram_bytes < 200_000_000


def test_accuracy_can_be_bounded_and_says_so(linear):
    job, windows = linear
    few = local.Job(job.pipeline, job.runtime, job.factory, job.args, job.model_bytes, None, 50)
    measured = local.run(few, windows, effort=QUICK)
    assert measured.result.windows == 50 and len(measured.correct) == 50


def test_a_worker_calls_only_known_factories(linear, tmp_path):
    _, windows = linear
    mark = tmp_path / "made"
    job = local.Job("tda", "x", "os:mkdir", {"path": str(mark)}, 0)
    result = local.run(job, windows, effort=QUICK).result
    assert "os:mkdir" in result.error and result.latency_ms is None
    assert not mark.exists()


def test_a_worker_that_dies_or_hangs_is_a_result_with_the_reason(linear, monkeypatch):
    job, windows = linear
    missing = local.Job(job.pipeline, job.runtime, job.factory, {**job.args, "path": "/no/such.onnx"}, 0)
    assert "/no/such.onnx" in local.run(missing, windows, effort=QUICK).result.error
    hurried = local.Effort(seconds=60, timeout=0.5)
    assert "0.5 s" in local.run(job, windows, effort=hurried).result.error
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert "status 1" in local.run(job, windows, effort=QUICK).result.error


def test_the_device_side_needs_only_numpy_and_the_bundle():
    code = (
        "import sys, topokd_bench.worker, topokd_bench.local, topokd_bench.pipelines\n"
        "heavy = ('torch', 'scipy', 'numba', 'typer', 'rich', 'onnx', 'onnxruntime', "
        "'ai_edge_litert', 'pydantic', 'topokd_export')\n"
        "print([n for n in sys.modules if n.partition('.')[0] in heavy])\n"
        "print(sorted(n for n in sys.modules if n.startswith('topokd_edge')))"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy, ours = child.stdout.splitlines()
    assert heavy == "[]"
    allowed = {"", ".arrays", ".bundle", ".bundle_folder", ".errors", ".evaluate", ".evaluate.metrics"}
    allowed |= {".files", ".manifest", ".runtime", ".streaming", ".student"}
    assert set(json.loads(ours.replace("'", '"'))) <= {f"topokd_edge{name}" for name in allowed}


# --- the verb


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Export a bundle from a run with random teachers, and give torch's own accuracy of each model."""
    folder = tmp_path_factory.mktemp("bench")
    run = make_run(folder)
    place, windows = run.fold_run(1, 0), run.windows()
    signal, topology = add_teachers(run)
    preprocessing = place.preprocessing()
    params, scale = ImageParams.from_dict(preprocessing["topology"]), preprocessing["image"]
    export_student(run, 1, 0, folder / "bundle")
    held_out = windows.of_subjects(["3"])
    raw, y = np.asarray(windows.x[held_out]), windows.y[held_out]
    images, _ = persistence_images(raw, params)
    images = (images - np.array(scale["mean"])[:, None, None]) / np.array(scale["std"])[:, None, None]
    normal = [np.array(preprocessing["signal"][name])[:, None] for name in ("mean", "std")]
    expected = {
        "tda": torch_logits(topology, images.astype(np.float32)),
        "teacher.signal": torch_logits(signal, ((raw - normal[0]) / normal[1]).astype(np.float32)),
    }
    return folder, {name: float((logits.argmax(1) == y).mean()) for name, logits in expected.items()}


def topokd(*args, cwd):
    code = "from topokd_edge.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, args)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "COLUMNS": "200"},
        check=False,
    )


def test_bench_puts_tda_teacher_and_students_side_by_side(exported):
    folder, expected = exported
    child = topokd("bench", "bundle", "--seconds", 0.05, "--json", "--out", "r.json", cwd=folder)
    assert child.returncode == 0, child.stderr
    answer = json.loads(child.stdout)
    results = {(item["pipeline"], item["runtime"]): item for item in answer["results"]}
    assert set(results) == {
        ("tda", "ripser+persim+onnxruntime"),
        ("tda", "fast+onnxruntime"),
        ("teacher.signal", "onnxruntime"),
        ("student.float32", "onnxruntime"),
        ("student.float32", "litert"),
        ("student.int8", "onnxruntime"),
        ("student.int8", "litert"),
    }
    assert not any(item["error"] for item in results.values()), child.stderr
    for (pipeline, _), item in results.items():
        assert item["windows"] == 80 and item["basis"] == "measured"
        if pipeline in expected:
            assert item["accuracy"] == pytest.approx(expected[pipeline], abs=0.02)
    assert answer["subjects"] == ["3"]
    low, high = answer["int8_cost"]["ci95"]
    students = [
        results["student.float32", "litert"]["accuracy"],
        results["student.int8", "litert"]["accuracy"],
    ]
    assert answer["int8_cost"]["cost"] == pytest.approx(students[0] - students[1])
    assert low <= answer["int8_cost"]["cost"] <= high
    assert json.loads((folder / "r.json").read_text()) == answer
    again = topokd("bench", "bundle", "--out", "r.json", cwd=folder)
    assert again.returncode == 3 and "--overwrite" in again.stderr


def test_a_student_with_fewer_channels_is_measured_on_its_own(tmp_path):
    run = make_run(tmp_path, channels=("w", "z", "x", "y"))
    export_student(run, 1, 0, tmp_path / "bundle")
    plan = _bench_plan.make_plan(Bundle.open(tmp_path / "bundle"), run, tmp_path)
    assert plan.held_out.x.shape[1:] == (4, 50)
    assert any("the student has 3 channels, its teachers all 4" in note for note in plan.notes)
    for job in plan.jobs:
        pipeline = pipelines.load(job.factory, job.args)
        logits = np.concatenate([pipeline.run(window[None]) for window in plan.held_out.x])
        assert (logits.argmax(1) == plan.held_out.y).mean() > 0.9
    assert len(plan.jobs) == 4


def test_of_a_very_large_test_subject_some_windows_are_taken_evenly(exported, monkeypatch, tmp_path):
    folder, _ = exported
    bundle, run = Bundle.open(folder / "bundle"), Run.open(folder / "run")
    whole = _bench_plan.make_plan(bundle, run, tmp_path)
    assert len(whole.held_out.x) == 80 and not any("of 80 held-out windows" in n for n in whole.notes[1:])
    monkeypatch.setattr(_bench_plan, "MOST_BYTES", 40 * whole.held_out.x[0].nbytes)
    plan = _bench_plan.make_plan(bundle, run, tmp_path)
    assert plan.notes[1:] == ("tried on 40 of 80 held-out windows, evenly spread",)
    kept = np.linspace(0, 79, 40).astype(int)
    np.testing.assert_array_equal(plan.held_out.x, whole.held_out.x[kept])
    np.testing.assert_array_equal(plan.held_out.y, whole.held_out.y[kept])


def test_without_its_run_a_bundle_is_timed_and_has_no_accuracy(exported, tmp_path):
    folder, _ = exported
    (folder / "run").rename(folder / "moved")
    try:
        child = topokd("bench", folder / "bundle", "--seconds", 0.05, cwd=tmp_path)
    finally:
        (folder / "moved").rename(folder / "run")
    assert child.returncode == 0, child.stderr
    assert "student.int8" in child.stdout and "tda" not in child.stdout
    assert "--run" in child.stderr


def test_a_changed_bundle_is_not_timed(exported, tmp_path):
    folder, _ = exported
    copy = tmp_path / "bundle"
    subprocess.run(["cp", "-r", folder / "bundle", copy], check=True)
    model = copy / "student_int8.tflite"
    content = bytearray(model.read_bytes())
    content[-200] ^= 1
    model.write_bytes(content)
    child = topokd("bench", copy, cwd=tmp_path)
    assert child.returncode == 1 and "student_int8.tflite" in child.stderr and not child.stdout


def test_a_target_that_does_not_exist_yet_is_a_usage_error(exported):
    folder, _ = exported
    child = topokd("bench", "bundle", "--on", "pigeon", cwd=folder)
    assert child.returncode == 2 and "local" in child.stderr and "mcu:" in child.stderr


def test_when_nothing_could_be_measured_the_device_did_not_answer(exported, monkeypatch, capsys):
    folder, _ = exported
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(DeviceError, match=r"student\.int8 on litert: the worker ended with status 1"):
        bench(folder / "bundle", seconds=0.05)
    assert "failed" in capsys.readouterr().out


def test_a_run_is_disturbed_by_what_others_use_meanwhile_and_not_by_the_past():
    assert device.is_busy(0.6, 1.0)
    assert device.is_busy(None, 0.5)
    assert not device.is_busy(0.02, 1.0)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/stat")
def test_busy_seconds_count_this_process_too():
    before, own = device.busy_seconds(), time.process_time()
    while time.process_time() - own < 0.3:
        pass
    assert device.busy_seconds() - before >= 0.25
