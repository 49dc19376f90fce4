"""What a bench prints of runtimes on one machine: time, memory and accuracy, and what disturbed them."""

from __future__ import annotations

from collections.abc import Sequence

from topokd_bench.local import Measured
from topokd_bench.result import BenchResult

from topokd_edge.cli import console
from topokd_edge.cli._bench_outcome import Outcome

_COSTS = ["pipeline", "runtime", "p50 ms", "p95 ms", "p99 ms", "cold ms", "model kB", "peak MB", "ratio"]
_ACCURACIES = ["pipeline", "runtime", "accuracy", "95 % interval", "over", "windows"]
_PACED = ["pipeline", "runtime", "p50 ms", "p95 ms", "against steady"]
_SUSTAINED = ["pipeline", "runtime", "calls", "first p50 ms", "last p50 ms", "drift", "deg C", "throttled"]
_YARDSTICK = "student.int8"
_COLD_STEP = 1.1
"""First tenth of the timed calls over the others, above which the warm-up was too short."""
_SLOWED = 1.1
"""Last tenth of a sustained run over the first, above which it is remarked on."""


def show(name: str, outcome: Outcome, threads: Sequence[int]) -> None:
    """Print time and memory, accuracy, and what else was asked for, of every target."""
    for target, items in outcome.by_target().items():
        first = firsts(items)
        console.table(f"{name} on {target}, {threads[0]} thread(s)", _COSTS, _costs(first))
        if outcome.subjects:
            console.table(f"held-out subjects {', '.join(outcome.subjects)}", _ACCURACIES, _accuracies(first))
        if len(threads) > 1:
            heads = ["pipeline", "runtime", *(f"{count} thread(s)" for count in threads)]
            console.table("p50 ms by threads", heads, _by_threads(items, threads))
        if rows := _paced(items):
            console.table("the same with pauses between windows, as a wearable has them", _PACED, rows)
        if rows := _sustained(items):
            console.table("back to back for minutes", _SUSTAINED, rows)


def firsts(items: Sequence[Measured]) -> list[Measured]:
    """Return the first steady result of each pipeline in each runtime: those that are compared."""
    found: dict[tuple[str, str], Measured] = {}
    for item in items:
        if item.result.mode == "steady":
            found.setdefault((item.result.pipeline, item.result.runtime), item)
    return list(found.values())


def _by_threads(items: Sequence[Measured], threads: Sequence[int]) -> list[list[str]]:
    steady = [item.result for item in items if item.result.mode == "steady" and item.result.latency_ms]
    times = {(each.pipeline, each.runtime, each.threads): (each.latency_ms or {})["p50"] for each in steady}
    return [
        [
            *name,
            *(f"{times[*name, count]:.3f}" if (*name, count) in times else "-" for count in threads),
        ]
        for name in dict.fromkeys((each.pipeline, each.runtime) for each in steady)
    ]


def _paced(items: Sequence[Measured]) -> list[list[str]]:
    steady = {(item.result.pipeline, item.result.runtime): item.result for item in firsts(items)}
    rows = []
    for result in (item.result for item in items if item.result.mode == "duty-cycled"):
        own, back_to_back = result.latency_ms or {}, steady[result.pipeline, result.runtime].latency_ms or {}
        rows.append(
            [
                result.pipeline,
                f"{result.runtime}, every {result.device['every_s']:g} s",
                f"{own['p50']:.3f}",
                f"{own['p95']:.3f}",
                f"{own['p50'] / back_to_back['p50']:.2f}x",
            ]
        )
    return rows


def _sustained(items: Sequence[Measured]) -> list[list[str]]:
    rows = []
    for result in (item.result for item in items):
        if result.sustained is None:
            continue
        before, after = (result.device.get(f"temperature_c_{when}") for when in ("before", "after"))
        rows.append(
            [
                result.pipeline,
                f"{result.runtime}, {result.sustained['minutes']:g} min",
                f"{result.sustained['calls']:,}",
                f"{result.sustained['first_ms']:.3f}",
                f"{result.sustained['last_ms']:.3f}",
                f"{result.sustained['drift']:.2f}",
                "-" if before is None or after is None else f"{before:.0f} to {after:.0f}",
                {None: "-", True: "yes", False: "no"}[result.throttled],
            ]
        )
    return rows


def _costs(measured: list[Measured]) -> list[list[str]]:
    """Return time and memory; `ratio` is p50 against that of the quickest int8 student, of C against C."""
    speeds: dict[bool, float] = {}
    for result in (item.result for item in measured):
        if result.pipeline == _YARDSTICK and result.latency_ms is not None:
            plain = result.runtime == "c"
            speeds[plain] = min(result.latency_ms["p50"], speeds.get(plain, float("inf")))
    rows = []
    for result in (item.result for item in measured):
        latency = result.latency_ms
        if latency is None:
            rows.append([result.pipeline, result.runtime, "failed", *["-"] * (len(_COSTS) - 3)])
            continue
        yardstick = speeds.get(result.runtime == "c")
        rows.append(
            [
                result.pipeline,
                result.runtime,
                *(f"{latency[name]:.3f}" for name in ("p50", "p95", "p99")),
                f"{latency['cold']:.0f}",
                "-" if result.model_bytes is None else f"{result.model_bytes / 1e3:.1f}",
                "-" if result.ram_bytes is None else f"{result.ram_bytes / 1e6:.0f}",
                f"{latency['p50'] / yardstick:.1f}x" if yardstick else "-",
            ]
        )
    return rows


def _accuracies(measured: list[Measured]) -> list[list[str]]:
    rows = []
    for result in (item.result for item in measured):
        if result.accuracy is not None and result.accuracy_ci95 is not None:
            low, high = result.accuracy_ci95
            interval = [f"{low:.3f} to {high:.3f}", result.accuracy_basis, str(result.windows)]
            rows.append([result.pipeline, result.runtime, f"{result.accuracy:.3f}", *interval])
    return rows


def remarks(measured: list[Measured]) -> list[str]:
    """Return what went wrong, and which runs were disturbed."""
    found, disturbed = [], []
    for result in (item.result for item in measured):
        name = _name(result)
        if result.error:
            found.append(f"{name} failed: {result.error}")
        elif result.device.get("busy"):
            disturbed.append(name)
        if result.mode == "steady" and result.device.get("first_tenth", 0.0) > _COLD_STEP:
            found.append(
                f"{name}: the first tenth of the timed calls took "
                f"{result.device['first_tenth']:.2f} times the others: not yet warm; "
                "measure longer with --seconds"
            )
        if result.sustained is not None and result.sustained["drift"] > _SLOWED:
            found.append(
                f"{name}: slowed to {result.sustained['drift']:.2f} times its first median within "
                f"{result.sustained['minutes']:g} minutes"
            )
        if result.throttled:
            found.append(f"{name}: the CPU throttled while it was timed")
    if disturbed:
        which = "every pipeline" if len(disturbed) == len(measured) else ", ".join(disturbed)
        found.append(
            f"the machine was busy with something else during {which}: "
            "these latencies are too high; measure again on an idle machine"
        )
    if _int8_is_slower(measured):
        found.append(
            "int8 is slower than float32 here, on a CPU without int8 dot product instructions; "
            "it says nothing of a device that has them, or that has no fast float32"
        )
    return found


def _name(result: BenchResult) -> str:
    more = [] if result.threads == 1 else [f"{result.threads} threads"]
    more += [] if result.mode == "steady" else [result.mode]
    return f"{result.pipeline} on {result.runtime}" + (f" ({', '.join(more)})" if more else "")


def _int8_is_slower(measured: list[Measured]) -> bool:
    """Tell whether the same TFLite runtime is slower with int8 on a CPU without int8 dot products."""
    speeds = {
        item.result.pipeline: item.result.latency_ms["p50"]
        for item in reversed(firsts(measured))  # of several runtimes the first
        if item.result.latency_ms is not None and item.result.runtime not in ("onnxruntime", "c")
    }
    plain = not any(item.result.device.get("int8_dot_products") for item in measured)
    return plain and speeds.get(_YARDSTICK, 0.0) > speeds.get("student.float32", float("inf"))
