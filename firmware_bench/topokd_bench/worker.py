"""One pipeline in one fresh process: `python -m topokd_bench.worker` reads a spec and answers a result.

A process of its own makes the cold start and the peak memory those of this pipeline alone, and a runtime
that dies (an illegal instruction, out of memory) takes nothing else with it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from topokd_bench import device
from topokd_bench.accuracy import judge
from topokd_bench.timing import NS_PER_MS, Timing, measure, measure_paced, sustained_summary
from topokd_bench.types import Array, Pipeline
from topokd_bench.windows import HeldOut, timing_windows

SLICES = 10
"""Parts of a sustained run, each with a median, clock and temperature of its own."""


def run_spec(spec: dict[str, Any]) -> dict[str, Any]:
    """Measure one pipeline in this process.

    Parameters
    ----------
    spec
        `factory` (see `topokd_bench.pipelines.FACTORIES`), `args` of the factory, `windows` (.npz written
        by `HeldOut.save`), `pin` (None: not at all; else the number of cores), and either `cold_only` true,
        or `warmup`, `runs` and `seconds` of `measure`, `accuracy_windows` (None: all), `paced` (None, or
        `runs` and `every` of `measure_paced`) and `sustained` (None, or seconds).

    Returns
    -------
    dict
        When `cold_only`: `total_ms`, `load_ms`, `first_ms` and `again_ms` (see `BenchResult.cold`). Else
        fields of `BenchResult`; `predicted`: {"window": [...], "correct": [...]} of the held-out windows that
        were tried; and `modes`: by mode, the fields that differ. `device` holds signs of a disturbed run:
        `cpu_share`, cores this process had while timing (below 1: others took them), `others_share`, cores
        that others used meanwhile, `latency_drift` and `first_tenth` (see `Timing`), clock and temperature
        before and after.

    Raises
    ------
    ValueError
        When the factory is not one of the known ones.
    """
    cores = None if spec["pin"] is None else device.pin(spec["pin"])
    baseline = device.peak_memory_bytes()
    windows = timing_windows(Path(spec["windows"]))
    pipeline, cold = _start(spec, windows[:1])
    if spec["cold_only"]:
        _, again = _start(spec, windows[:1])
        return {**cold, "again_ms": again["total_ms"]}
    singles = [windows[index : index + 1] for index in range(len(windows))]

    def run_once(index: int) -> Array:
        return pipeline.run(singles[index % len(singles)])

    counts = {name: spec[name] for name in ("warmup", "runs", "seconds")}
    timing, signs = _observed(lambda: measure(run_once, **counts))
    peak = device.peak_memory_bytes()
    throttled = signs.pop("throttled")
    return {
        "runtime": pipeline.runtime,
        "versions": {"numpy": np.__version__, **pipeline.versions},
        "latency_ms": {**timing.percentiles_ms(), "cold": cold["total_ms"]},
        "runs": timing.runs,
        "warmup": timing.warmup,
        "ram_bytes": peak,
        "ram_baseline_bytes": baseline,
        "throttled": throttled,
        "device": {**device.describe(), "pinned_cores": cores, **signs},
        "modes": _modes(run_once, spec),
        **_accuracy(pipeline, Path(spec["windows"]), spec["accuracy_windows"]),
    }


def _start(spec: dict[str, Any], window: Array) -> tuple[Pipeline, dict[str, float]]:
    """Import, load and run once."""
    begin = time.perf_counter_ns()
    pipeline = _load(spec["factory"], spec["args"])
    loaded = time.perf_counter_ns()
    pipeline.run(window)
    end = time.perf_counter_ns()
    took = {"total_ms": end - begin, "load_ms": loaded - begin, "first_ms": end - loaded}
    return pipeline, {name: value / NS_PER_MS for name, value in took.items()}


def _observed(timed: Callable[[], Timing]) -> tuple[Timing, dict[str, Any]]:
    """Time calls, and see what the machine did meanwhile."""
    throttled, before = device.throttle_count(), device.state("before")
    wall, cpu, everyone = time.perf_counter(), time.process_time(), device.busy_seconds()
    timing = timed()
    own, passed = time.process_time() - cpu, time.perf_counter() - wall
    everyone_after = device.busy_seconds()
    return timing, {
        "latency_drift": timing.drift(),
        "first_tenth": timing.first_tenth(),
        "cpu_share": own / passed,
        "others_share": None
        if everyone is None or everyone_after is None
        else max(0.0, (everyone_after - everyone - own) / passed),
        **before,
        **device.state("after"),
        "throttled": _throttled(throttled, device.throttle_count()),
    }


def _modes(run_once: Callable[[int], object], spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return by mode what is measured otherwise than back to back for a moment."""
    found: dict[str, dict[str, Any]] = {}
    if spec["paced"] is not None:
        timing, signs = _observed(lambda: measure_paced(run_once, **spec["paced"]))
        signs["cpu_share"] = None  # asleep most of the time, so it says nothing of others
        signs["every_s"] = spec["paced"]["every"]
        found["duty-cycled"] = _fields(timing, signs)
    if spec["sustained"] is not None:
        found["sustained"] = _sustained(run_once, spec["sustained"])
    return found


def _sustained(run_once: Callable[[int], object], seconds: float) -> dict[str, Any]:
    """Call back to back for so long, in slices; the times of the last one count."""
    slices = [
        _observed(lambda: measure(run_once, warmup=0, runs=1, seconds=seconds / SLICES))
        for _ in range(SLICES)
    ]
    timing, signs = slices[-1]
    medians = [part.percentiles_ms()["p50"] for part, _ in slices]
    throttled = [each["throttled"] for _, each in slices]
    signs = {**signs, **{name: slices[0][1][name] for name in ("khz_before", "temperature_c_before")}}
    signs["throttled"] = None if None in throttled else any(throttled)
    states = [{name: each[f"{name}_after"] for name in ("khz", "temperature_c")} for _, each in slices]
    summary = sustained_summary(seconds, sum(part.runs for part, _ in slices), medians, states)
    return {**_fields(timing, signs), "sustained": summary}


def _fields(timing: Timing, signs: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of one mode; `latency_ms` has no `cold` yet."""
    throttled = signs.pop("throttled")
    own = {"latency_ms": timing.percentiles_ms(), "runs": timing.runs, "warmup": timing.warmup}
    return {**own, "throttled": throttled, "device": signs}


def _load(factory: str, args: dict[str, Any]) -> Pipeline:
    """Import and call the factory; the import is inside because it is part of the cold start."""
    from topokd_bench.pipelines import load

    return load(factory, args)


def _throttled(before: int | None, after: int | None) -> bool | None:
    return None if before is None or after is None else after > before


def _accuracy(pipeline: Pipeline, path: Path, limit: int | None) -> dict[str, Any]:
    held_out = HeldOut.open(path)
    if held_out.y is None or limit == 0:
        return {"accuracy": None, "windows": 0, "predicted": {"window": [], "correct": []}}
    chosen = held_out.spread(len(held_out.x) if limit is None else limit)
    predicted = [int(pipeline.run(held_out.x[i : i + 1]).argmax()) for i in chosen]
    fields, correct = judge(held_out, chosen, predicted)
    return {**fields, "predicted": {"window": list(correct), "correct": list(correct.values())}}


def main() -> int:
    """Read the spec from standard input and answer on standard output, which runtimes must not write to."""
    answer = os.dup(1)
    os.dup2(2, 1)
    try:
        document = run_spec(json.load(sys.stdin))
    except Exception as error:  # whatever a runtime raises becomes the answer
        document = {"error": f"{type(error).__name__}: {error}"}
    with os.fdopen(answer, "w", encoding="utf-8") as stream:
        json.dump(document, stream, allow_nan=False)
    return 1 if "error" in document else 0


if __name__ == "__main__":
    sys.exit(main())
