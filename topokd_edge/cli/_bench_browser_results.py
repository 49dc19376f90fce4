"""What a browser's post becomes: proven against the bundle, then results, a table and notes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from topokd_bench.accuracy import judge
from topokd_bench.browser import TARGET
from topokd_bench.browser.post import BUILDS, BuildRun, Post, is_disturbed, same_logits
from topokd_bench.local import Measured
from topokd_bench.result import BenchResult
from topokd_bench.windows import HeldOut

from topokd_edge.bundle import Bundle
from topokd_edge.cli import console
from topokd_edge.errors import CheckFailedError, DeviceError

FOLDER = "wasm"
"""Of the bundle."""
_HEADS = ["what", "p50 ms", "p95 ms", "p99 ms", "cold ms", "fetched kB", "accuracy", "drift"]


def results(bundle: Bundle, post: Post, held_out: HeldOut | None) -> list[Measured]:
    """Return the results of the WebAssembly builds of a sound post, once their self-test is right to the bit.

    Raises
    ------
    CheckFailedError
        When a logit differs, with the number of windows for each build.
    DeviceError
        When nothing was timed.
    """
    vectors = bundle.self_test()
    builds = [run for run in post.builds if run.build in BUILDS]
    wrong = []
    for run in builds:
        expected = vectors[_model_file(bundle, run.build).path]
        differ = same_logits(run.logits, expected)
        if differ:
            wrong.append(f"{run.build}: {differ} of {len(expected)} self-test windows answered otherwise")
    if wrong:
        raise CheckFailedError(
            f"{TARGET}: this browser answers otherwise than the export", problems=wrong, hint="do not use it"
        )
    if not all(run.timing.runs for run in builds):
        raise DeviceError(f"{TARGET}: the browser timed nothing, though its self-test is right")
    return [_measured(bundle, post.facts, run, held_out) for run in builds]


def _model_file(bundle: Bundle, build: str) -> Any:
    return next(item for item in bundle.manifest.files if item.path == f"{FOLDER}/student.{build}.wasm")


def _measured(bundle: Bundle, facts: Mapping[str, Any], run: BuildRun, held_out: HeldOut | None) -> Measured:
    size = _model_file(bundle, run.build).bytes
    script = (bundle.folder / FOLDER / "student.js").stat().st_size
    result = BenchResult(
        target=TARGET,
        basis="measured",
        pipeline="student.int8",
        runtime=f"wasm-{run.build}",
        flash_bytes=size + script,
        model_bytes=size,
        macs=bundle.manifest.macs,
        kernel=f"wasm {run.build}",
        **timed_fields(bundle, facts, run, held_out),
    )
    return Measured(result)


def timed_fields(
    bundle: Bundle, facts: Mapping[str, Any], run: BuildRun, held_out: HeldOut | None
) -> dict[str, Any]:
    """Return the fields of a result that every timed run has, whatever ran it."""
    return {
        "latency_ms": {**run.timing.percentiles_ms(), "cold": run.cold_ms},
        "runs": run.timing.runs * run.windows_per_time,
        "warmup": run.timing.warmup,
        "self_test": {"vectors": len(run.logits), "layers": 0, "bundle": bundle.digest},
        "device": {
            **facts,
            "windows_per_time": run.windows_per_time,
            "clock_step_ms": run.clock_ms,
            "download_ms": run.download_ms,
            "latency_drift": run.timing.drift(),
            "busy": is_disturbed(run, facts),
        },
        **_accuracy(run, held_out),
    }


def _accuracy(run: BuildRun, held_out: HeldOut | None) -> dict[str, Any]:
    if held_out is None or held_out.y is None:
        return {}
    return judge(held_out, np.arange(len(held_out.x)), run.predicted)[0]


def _name(result: BenchResult) -> str:
    """Return what ran: the build of the kernels, the float pipeline, or the engine and the precision."""
    if result.kernel and result.pipeline != "student.int8":
        return f"{result.pipeline} {result.kernel}"
    return result.kernel or f"{result.runtime} {result.pipeline.removeprefix('student.')}"


def show(name: str, measured: list[Measured]) -> None:
    """Print what a browser measured."""
    rows = []
    for result in (item.result for item in measured):
        latency = result.latency_ms
        if latency is None:
            rows.append([_name(result), "failed", *["-"] * (len(_HEADS) - 2)])
            continue
        rows.append(
            [
                _name(result),
                *(f"{latency[key]:.3f}" for key in ("p50", "p95", "p99")),
                f"{latency['cold']:.1f}",
                f"{(result.flash_bytes or 0) / 1e3:.1f}",
                "-" if result.accuracy is None else f"{result.accuracy:.3f}",
                f"{result.device['latency_drift']:.2f}",
            ]
        )
    if rows:
        console.table(f"{name} measured in a browser", _HEADS, rows)
        console.note(f"browser: {measured[0].result.device['user_agent']}")


def notes(measured: list[Measured]) -> list[str]:
    """Return what a reader of the figures must know."""
    return [note for item in measured for note in _notes(item.result)]


def _notes(result: BenchResult) -> list[str]:
    name, device = _name(result), result.device
    if result.error:
        return [f"{name} failed: {result.error}"]
    found = []
    if device["windows_per_time"] > 1:
        found.append(
            f"{name}: a time is the mean of {device['windows_per_time']} windows, since the "
            f"browser's clock has steps of {device['clock_step_ms']:.3g} ms; so are p95 and p99"
        )
    if device["hidden_while_timed"]:
        found.append(f"{name}: the page was not in front all the time; measure again")
    elif device["busy"]:
        found.append(
            f"{name}: disturbed or throttled: the last quarter took "
            f"{device['latency_drift']:.2f} times the first, or p95 is over twice p50; measure again "
            "with nothing else running"
        )
    return found
