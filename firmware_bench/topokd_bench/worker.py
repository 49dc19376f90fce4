"""One pipeline in one fresh process: `python -m topokd_bench.worker` reads a spec and answers a result.

A process of its own makes the cold start and the peak memory those of this pipeline alone, and a runtime
that dies (an illegal instruction, out of memory) takes nothing else with it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from topokd_bench import device
from topokd_bench.accuracy import accuracy_fields
from topokd_bench.timing import NS_PER_MS, measure
from topokd_bench.types import Pipeline
from topokd_bench.windows import HeldOut, timing_windows


def run_spec(spec: dict[str, Any]) -> dict[str, Any]:
    """Measure one pipeline in this process.

    Parameters
    ----------
    spec
        `factory` (see `topokd_bench.pipelines.FACTORIES`), `args` of the factory, `windows` (.npz written
        by `HeldOut.save`), `warmup`, `runs` and `seconds` of `measure`, `accuracy_windows` (None: all).

    Returns
    -------
    dict
        Fields of `BenchResult`, and `predicted`: {"window": [...], "correct": [...]} of the held-out
        windows that were tried. `device` holds three signs of a disturbed run: `cpu_share`, cores this
        process had while timing (below 1: others took them), `others_share`, cores that others used
        meanwhile, and `latency_drift` (see `Timing.drift`).

    Raises
    ------
    ValueError
        When the factory is not one of the known ones.
    """
    baseline = device.peak_memory_bytes()
    windows = timing_windows(Path(spec["windows"]))
    throttled_before = device.throttle_count()
    begin = time.perf_counter_ns()
    pipeline = _load(spec["factory"], spec["args"])
    pipeline.run(windows[:1])
    cold_ms = (time.perf_counter_ns() - begin) / NS_PER_MS
    singles = [windows[index : index + 1] for index in range(len(windows))]
    wall, cpu, everyone = time.perf_counter(), time.process_time(), device.busy_seconds()
    timing = measure(
        lambda index: pipeline.run(singles[index % len(singles)]),
        warmup=spec["warmup"],
        runs=spec["runs"],
        seconds=spec["seconds"],
    )
    own, passed = time.process_time() - cpu, time.perf_counter() - wall
    everyone_after = device.busy_seconds()
    peak = device.peak_memory_bytes()
    throttled_after = device.throttle_count()
    return {
        "runtime": pipeline.runtime,
        "versions": {"numpy": np.__version__, **pipeline.versions},
        "latency_ms": {**timing.percentiles_ms(), "cold": cold_ms},
        "runs": timing.runs,
        "warmup": timing.warmup,
        "ram_bytes": peak,
        "ram_baseline_bytes": baseline,
        "throttled": _throttled(throttled_before, throttled_after),
        "device": {
            **device.describe(),
            "latency_drift": timing.drift(),
            "cpu_share": own / passed,
            "others_share": None
            if everyone is None or everyone_after is None
            else max(0.0, (everyone_after - everyone - own) / passed),
            "khz_after": device.current_khz(),
        },
        **_accuracy(pipeline, Path(spec["windows"]), spec["accuracy_windows"]),
    }


def _load(factory: str, args: dict[str, Any]) -> Pipeline:
    """Import and call the factory; the import is inside because it is part of the cold start."""
    from topokd_bench.pipelines import load

    return load(factory, args)


def _throttled(before: int | None, after: int | None) -> bool | None:
    return None if before is None or after is None else after > before


def _accuracy(pipeline: Pipeline, path: Path, limit: int | None) -> dict[str, Any]:
    held_out = HeldOut.open(path)
    if held_out.y is None:
        return {"accuracy": None, "windows": 0, "predicted": {"window": [], "correct": []}}
    chosen = held_out.spread(len(held_out.x) if limit is None else limit)
    correct: npt.NDArray[np.bool_] = np.array(
        [int(pipeline.run(held_out.x[i : i + 1]).argmax()) == held_out.y[i] for i in chosen], dtype=np.bool_
    )
    return {
        **accuracy_fields(held_out.subject, chosen, correct),
        "predicted": {"window": chosen.tolist(), "correct": correct.tolist()},
    }


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
