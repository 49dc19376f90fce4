"""How a bench measures on this machine: threads, pinned cores, cold starts, pauses, minutes on end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export_cases import make_run
from topokd_bench import device, local, worker
from topokd_bench.pipelines import MODEL_FILE
from topokd_bench.result import BenchResult
from topokd_bench.timing import Timing, measure_paced
from topokd_export.export import export_student

from topokd_edge.bundle import Bundle
from topokd_edge.cli import _bench_tables, main
from topokd_edge.cli._bench_local import refuse_threads, thread_counts
from topokd_edge.cli._bench_plan import make_plan
from topokd_edge.errors import UsageError

QUICK = local.Effort(seconds=0.02, runs=20, warmup=2, timeout=120)


# --- timing


def test_paced_calls_begin_as_far_apart_as_asked() -> None:
    begun: list[float] = []
    start = time.monotonic()
    timing = measure_paced(lambda _: begun.append(time.monotonic()), runs=6, every=0.02)
    assert (timing.runs, timing.warmup) == (6, 0)
    assert all(moment - start >= 0.02 * (index + 1) for index, moment in enumerate(begun))
    assert np.median(timing.ns) < 15e6  # the pause is not in the times


def test_a_paced_call_that_takes_too_long_does_not_make_the_next_ones_hurry() -> None:
    begun: list[float] = []

    def work(index: int) -> None:
        begun.append(time.monotonic())
        time.sleep(0.05 if index == 0 else 0.0)

    measure_paced(work, runs=4, every=0.02)
    assert begun[2] - begun[0] >= 0.05 + 0.02 and begun[3] - begun[0] >= 0.05 + 2 * 0.02


def test_the_first_tenth_is_held_against_the_rest() -> None:
    cold = Timing(np.array([300] * 2 + [100] * 18, np.int64), 0)
    assert cold.first_tenth() == 3.0
    assert Timing(np.array([100] * 20, np.int64), 0).first_tenth() == 1.0
    assert Timing(np.array([7], np.int64), 0).first_tenth() == 1.0


def test_a_sustained_run_shows_a_machine_that_slows_down() -> None:
    begin = time.monotonic()

    def slower(_: int) -> None:
        time.sleep(0.001 + 0.02 * (time.monotonic() - begin))

    fields = worker._sustained(slower, 0.5)
    summary = fields["sustained"]
    assert len(summary["p50_ms"]) == len(summary["khz"]) == len(summary["temperature_c"]) == 10
    assert summary["drift"] == pytest.approx(summary["last_ms"] / summary["first_ms"])
    assert summary["drift"] > 2 and fields["latency_ms"]["p50"] == summary["last_ms"]
    assert summary["calls"] > fields["runs"] and summary["minutes"] == pytest.approx(0.5 / 60)


# --- the machine


def write(folder: Path, **files: object) -> None:
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")


@pytest.mark.parametrize(
    ("capacity", "siblings", "count", "chosen"),
    [
        ([400, 400, 1024, 1024], None, 1, [3]),  # two small and two big ones of a phone
        ([400, 400, 1024, 1024], None, 3, [1, 2, 3]),
        ([0, 0, 0, 0], ["0,2", "1,3", "0,2", "1,3"], 2, [2, 3]),  # two physical cores, not one twice
        ([0, 0, 0, 0], ["0-1", "0-1", "2-3", "2-3"], 2, [1, 3]),
        ([0, 0, 0, 0], ["0-1", "0-1", "2-3", "2-3"], 3, [1, 2, 3]),
    ],
)
def test_which_cores_are_pinned(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capacity: list[int],
    siblings: list[str] | None,
    count: int,
    chosen: list[int],
) -> None:
    for core, value in enumerate(capacity):
        if value:
            write(tmp_path, **{f"cpu{core}__cpu_capacity": value})
        if siblings:
            write(tmp_path, **{f"cpu{core}__topology__thread_siblings_list": siblings[core]})
    pinned: list[list[int]] = []
    monkeypatch.setattr(device, "_CPU", tmp_path)
    monkeypatch.setattr(device.os, "sched_getaffinity", lambda _: set(range(4)))
    monkeypatch.setattr(device.os, "sched_setaffinity", lambda _, cores: pinned.append(sorted(cores)))
    assert device.pin(count) == chosen and pinned == [chosen]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="pinning is Linux's")
def test_a_pinned_process_has_only_these_cores() -> None:
    code = (
        "import os\nfrom topokd_bench import device\nprint(device.pin(1) == sorted(os.sched_getaffinity(0)))"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout == "True\n"


def test_temperature_and_supply_as_the_kernel_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_ZONES", tmp_path / "zones")
    monkeypatch.setattr(device, "_SUPPLIES", tmp_path / "supplies")
    assert device.temperature_c() is None and device._supply() is None
    write(tmp_path, zones__thermal_zone0__type="battery", zones__thermal_zone0__temp=60000)
    assert device.temperature_c() is None
    write(tmp_path, zones__thermal_zone1__type="x86_pkg_temp", zones__thermal_zone1__temp=48500)
    write(tmp_path, zones__thermal_zone2__type="cpu-thermal", zones__thermal_zone2__temp=51000)
    assert device.temperature_c() == 51.0
    write(tmp_path, supplies__BAT0__type="Battery", supplies__AC__type="Mains", supplies__AC__online=0)
    assert device._supply() == "battery"
    write(tmp_path, supplies__AC__online=1)
    assert device._supply() == "mains"


# --- options


@pytest.mark.parametrize(("text", "counts"), [("1", (1,)), ("1,2,4", (1, 2, 4)), (" 4, 1", (4, 1))])
def test_threads_are_one_number_or_several(text: str, counts: tuple[int, ...]) -> None:
    assert thread_counts(text) == counts


@pytest.mark.parametrize("text", ["", "0", "-1", "1,", "1,1", "two", "1.5", "٣", "99999"])
def test_threads_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--threads"):
        thread_counts(text)


def test_more_threads_than_cores_are_refused_by_name() -> None:
    refuse_threads((1, 4), 4, "this machine")
    with pytest.raises(UsageError, match=r"--threads 8: ssh://pi has 4 core") as caught:
        refuse_threads((1, 8), 4, "ssh://pi")
    assert "at most 4" in caught.value.hint


# --- results


def test_a_result_from_before_there_were_modes_is_read() -> None:
    old = {"target": "local", "basis": "measured", "pipeline": "tda", "runtime": "x"}
    assert (BenchResult.from_dict(old).mode, BenchResult.from_dict(old).sustained) == ("steady", None)
    with pytest.raises(ValueError, match="mode 'fast'"):
        BenchResult.from_dict({**old, "mode": "fast"})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A bundle of TFLite files, and the run it came from, which has no teachers."""
    run = make_run(tmp_path_factory.mktemp("run"))
    export_student(run, 1, 0, run.folder.parent / "bundle", targets=("tflite",))
    return run.folder.parent / "bundle", run.folder


def test_a_pipeline_in_every_mode(made: tuple[Path, Path], tmp_path: Path) -> None:
    plan = make_plan(Bundle.open(made[0]), None, tmp_path)
    plan.held_out.save(tmp_path / "windows.npz")
    job = next(job for job in plan.jobs if job.pipeline == "student.int8")
    effort = local.Effort(0.02, 20, 2, 120, starts=3, pin=True, every=0.005, sustained=0.2)
    results = [item.result for item in local.run_modes(job, tmp_path / "windows.npz", effort=effort)]
    assert [result.mode for result in results] == ["steady", "duty-cycled", "sustained"]
    assert [result.error for result in results] == ["", "", ""]
    steady, paced, sustained = results
    cold = steady.cold
    assert cold is not None and len(cold["total_ms"]) == 3
    assert steady.latency_ms is not None and steady.latency_ms["cold"] == sorted(cold["total_ms"])[1]
    assert 0 < cold["again_ms"] < cold["load_ms"]  # the second time, the runtime is imported
    assert cold["first_ms"] > 0
    assert len(steady.device["pinned_cores"]) == 1
    assert (paced.runs, paced.warmup, paced.device["every_s"]) == (20, 0, 0.005)
    assert paced.device["cpu_share"] is None
    assert sustained.sustained is not None and len(sustained.sustained["p50_ms"]) == 10
    names = {"virtual", "supply", "khz_before", "khz_after", "temperature_c_before", "first_tenth"}
    assert all(names <= set(result.device) for result in results)
    assert [BenchResult.from_dict(json.loads(json.dumps(each.to_dict()))) for each in results] == results


def test_how_many_calls_with_pauses_and_how_long_a_worker_may_take() -> None:
    assert local.Effort(seconds=3, every=1.28).paced() == {"runs": 20, "every": 1.28}
    assert local.Effort(seconds=3, every=0.01).paced() == {"runs": 300, "every": 0.01}
    assert local.Effort().paced() is None and local.Effort().allowed() == 900
    assert local.Effort(every=2.0, sustained=600).allowed() == 900 + 40 + 600


def test_only_the_int8_student_is_measured_for_minutes() -> None:
    def job(pipeline: str) -> local.Job:
        return local.Job(pipeline, "x", MODEL_FILE, {}, 0)

    assert local.lasting([job("tda"), job("student.float32"), job("student.int8")]) == "student.int8"
    assert local.lasting([job("tda"), job("student.float32")]) == "student.float32"


def run_cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: object) -> Any:
    monkeypatch.setattr(sys, "argv", ["topokd-edge", "bench", *map(str, words)])
    try:
        code = main()
    except SystemExit as ended:
        code = ended.code
    return int(code or 0), *capsys.readouterr()


def test_the_command_sweeps_threads_and_compares_the_first(
    made: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("topokd_edge.cli.bench._verify", lambda bundle: [])
    monkeypatch.setattr(device, "usable_cores", lambda: [0, 1])
    monkeypatch.setenv("COLUMNS", "200")
    bundle, run = made
    more = ["--threads", "1,2", "--every", 0.005, "--sustained", 0.01, "--out", tmp_path / "r.json"]
    code, out, err = run_cli(capsys, monkeypatch, bundle, "--run", run, "--seconds", 0.02, *more)
    assert code == 0, err
    assert "p50 ms by threads" in out and "with pauses" in out and "back to back for minutes" in out
    rows = json.loads((tmp_path / "r.json").read_text())["results"]
    for pipeline in ("student.float32", "student.int8"):
        own = [row for row in rows if row["pipeline"] == pipeline]
        assert [(row["mode"], row["threads"]) for row in own if row["mode"] != "sustained"] == [
            *(("steady", 1), ("duty-cycled", 1), ("steady", 2)),
        ]
        assert [row["windows"] for row in own if row["threads"] == 1 and row["mode"] == "steady"] == [80]
        assert all(row["accuracy"] is None for row in own[1:]) and own[-1]["cold"] is None
    assert [row["pipeline"] for row in rows if row["mode"] == "sustained"] == ["student.int8"]
    code, _, err = run_cli(capsys, monkeypatch, bundle, "--threads", "1,3")
    assert code == 2 and "--threads 3: this machine has 2 core(s)" in err


def test_notes_name_the_mode_and_a_warm_up_that_was_too_short() -> None:
    def item(mode: str, threads: int, **facts: Any) -> local.Measured:
        result = BenchResult(
            "local", "measured", "student.int8", "litert", mode=mode, threads=threads, device=facts
        )
        return local.Measured(result)

    found = _bench_tables.remarks(
        [item("steady", 1, first_tenth=1.3), item("duty-cycled", 1, busy=True), item("steady", 2)]
    )
    assert "first tenth of the timed calls took 1.30 times" in found[0]
    assert "student.int8 on litert (duty-cycled)" in found[1]
    assert not _bench_tables.remarks([item("steady", 1, first_tenth=1.05)])


def test_a_sustained_run_that_slows_down_is_remarked_on() -> None:
    def lasting(drift: float) -> local.Measured:
        sustained = {"minutes": 30.0, "drift": drift}
        return local.Measured(
            BenchResult("local", "measured", "student.int8", "litert", mode="sustained", sustained=sustained)
        )

    assert (
        "slowed to 1.40 times its first median within 30 minutes" in _bench_tables.remarks([lasting(1.4)])[0]
    )
    assert _bench_tables.remarks([lasting(1.02)]) == []


def test_a_runtime_that_hangs_is_waited_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hanging = tmp_path / "python"
    hanging.write_text(f"#!/bin/sh\necho started >> {tmp_path / 'log'}\nexec sleep 60\n")
    hanging.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(hanging))
    job = local.Job("student.int8", "litert", MODEL_FILE, {}, 0)
    results = local.run_modes(job, tmp_path, effort=local.Effort(timeout=1.0, starts=3))
    assert [item.result.error for item in results] == ["no answer within 1 s, stopped"]
    assert (tmp_path / "log").read_text() == "started\n"
