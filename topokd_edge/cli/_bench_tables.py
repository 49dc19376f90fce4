"""What a bench prints of runtimes on one machine: time, memory and accuracy, and what disturbed them."""

from __future__ import annotations

from topokd_bench.local import Measured

from topokd_edge.cli import console
from topokd_edge.cli._bench_outcome import Outcome

_COSTS = ["pipeline", "runtime", "p50 ms", "p95 ms", "p99 ms", "cold ms", "model kB", "peak MB", "ratio"]
_ACCURACIES = ["pipeline", "runtime", "accuracy", "95 % interval", "over", "windows"]
_YARDSTICK = "student.int8"


def show(name: str, outcome: Outcome, threads: int) -> None:
    """Print time and memory, and accuracy, of every target."""
    for target, items in outcome.by_target().items():
        console.table(f"{name} on {target}, {threads} thread(s)", _COSTS, _costs(items))
        if outcome.subjects:
            console.table(f"held-out subjects {', '.join(outcome.subjects)}", _ACCURACIES, _accuracies(items))


def _costs(measured: list[Measured]) -> list[list[str]]:
    """Return time and memory; `ratio` is p50 against that of the quickest int8 student."""
    speeds = [
        item.result.latency_ms["p50"]
        for item in measured
        if item.result.pipeline == _YARDSTICK and item.result.latency_ms is not None
    ]
    rows = []
    for result in (item.result for item in measured):
        latency = result.latency_ms
        if latency is None:
            rows.append([result.pipeline, result.runtime, "failed", *["-"] * (len(_COSTS) - 3)])
            continue
        rows.append(
            [
                result.pipeline,
                result.runtime,
                *(f"{latency[name]:.3f}" for name in ("p50", "p95", "p99")),
                f"{latency['cold']:.0f}",
                "-" if result.model_bytes is None else f"{result.model_bytes / 1e3:.1f}",
                "-" if result.ram_bytes is None else f"{result.ram_bytes / 1e6:.0f}",
                f"{latency['p50'] / min(speeds):.1f}x" if speeds else "-",
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
        name = f"{result.pipeline} on {result.runtime}"
        if result.error:
            found.append(f"{name} failed: {result.error}")
        elif result.device.get("busy"):
            disturbed.append(name)
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


def _int8_is_slower(measured: list[Measured]) -> bool:
    """Tell whether the same TFLite runtime is slower with int8 on a CPU without int8 dot products."""
    speeds = {
        item.result.pipeline: item.result.latency_ms["p50"]
        for item in measured
        if item.result.latency_ms is not None and item.result.runtime != "onnxruntime"
    }
    plain = not any(item.result.device.get("int8_dot_products") for item in measured)
    return plain and speeds.get(_YARDSTICK, 0.0) > speeds.get("student.float32", float("inf"))
