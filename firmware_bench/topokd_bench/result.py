"""The record of one measurement: what ran, on what, how the figure was obtained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, get_args

from topokd_bench.types import Basis

LATENCY_KEYS = ("p50", "p95", "p99", "min", "cold")
MODES = ("steady", "duty-cycled", "sustained")
RANGES = ("energy_uj", "latency_range_ms", "cycles_range", "battery_days")


@dataclass(frozen=True)
class BenchResult:
    """One pipeline measured on one target; the same schema for every device.

    Attributes
    ----------
    target
        What `bench --on` was asked for, e.g. `local`.
    basis
        How the figures were obtained: `measured`, `counted` or `modelled`.
    pipeline
        `tda`, `teacher.signal`, `student.float32` or `student.int8`.
    runtime
        What executed it, e.g. `litert` or `ripser+persim+onnxruntime`.
    latency_ms
        Milliseconds a window of raw signal takes to logits, normalisation included: `p50`, `p95`, `p99`,
        `min`; and `cold`: import of the runtime, loading and first window in a fresh process, the median
        over several where `cold` is there. Where nothing is measured the former are one number, and `cold`
        is left out.
    mode
        How calls followed each other: `steady`, back to back; `duty-cycled`, every `device["every_s"]`
        seconds and asleep between; `sustained`, back to back for minutes.
    cold
        {"total_ms": [of each fresh process], "load_ms": .., "first_ms": .., "again_ms": ..}: medians of
        import and loading, of the first window, and of both again with all imported; the last process apart.
    sustained
        {"minutes": .., "calls": .., "p50_ms", "khz", "temperature_c": [after each tenth of the time],
        "first_ms": .., "last_ms": .., "drift": ..}: medians of the first and last tenth, and the latter over
        the former. `latency_ms` is then that of the last tenth.
    runs, warmup
        Timed calls, and calls before them that are not counted.
    threads
        Threads the runtime was allowed.
    accuracy, accuracy_ci95, accuracy_basis
        Share of `windows` held-out windows classified right through this very runtime, its 95 %
        interval, and what the interval resamples: `subjects` or `windows`.
    windows
        Number of held-out windows behind `accuracy`.
    ram_bytes, ram_baseline_bytes
        Peak resident memory of the process while timing, and that of the bare interpreter with numpy; of a
        microcontroller or NPU, the working memory of the model.
    flash_bytes, model_bytes
        Bytes of storage the pipeline needs on the target, and of its model file alone.
    macs, instructions, cycles
        Multiply-accumulates of the model, and counted instructions and cycles where a target has them.
    energy_uj
        {"low": .., "high": .., "basis": ..} per window, where a target has it.
    latency_range_ms, cycles_range, battery_days
        Likewise what a model says of latency, cycles and battery; its middle is `latency_ms` and `cycles`.
    kernel, compiler, flags
        Which kernels, compiled by what and how, where the target's code was compiled for it.
    arena_bytes, stack_bytes
        Part of `ram_bytes` that holds activations, and the deepest the stack has been.
    layers
        [{"name": .., "instructions": ..}, ..] in the order they run, `input` first.
    self_test
        What was proven before anything was counted: {"vectors": .., "layers": .., "bundle": hash}.
    throttled
        Whether the CPU throttled during the run; None when the target does not tell.
    device, versions
        What it ran on and which software.
    error
        Why there are no figures; empty when there are.
    """

    target: str
    basis: Basis
    pipeline: str
    runtime: str
    latency_ms: dict[str, float] | None = None
    mode: str = "steady"
    cold: dict[str, Any] | None = None
    sustained: dict[str, Any] | None = None
    runs: int = 0
    warmup: int = 0
    threads: int = 1
    accuracy: float | None = None
    accuracy_ci95: tuple[float, float] | None = None
    accuracy_basis: str = ""
    windows: int = 0
    ram_bytes: int | None = None
    ram_baseline_bytes: int | None = None
    flash_bytes: int | None = None
    model_bytes: int | None = None
    macs: int | None = None
    instructions: int | None = None
    cycles: int | None = None
    energy_uj: dict[str, Any] | None = None
    latency_range_ms: dict[str, Any] | None = None
    cycles_range: dict[str, Any] | None = None
    battery_days: dict[str, Any] | None = None
    kernel: str = ""
    compiler: str = ""
    flags: str = ""
    arena_bytes: int | None = None
    stack_bytes: int | None = None
    layers: list[dict[str, Any]] = field(default_factory=list)
    self_test: dict[str, Any] | None = None
    throttled: bool | None = None
    device: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    error: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON-able data."""
        document = asdict(self)
        if self.accuracy_ci95 is not None:
            document["accuracy_ci95"] = list(self.accuracy_ci95)
        return document

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> BenchResult:
        """Read a result that came from a file or a device; keys it does not know are ignored.

        Raises
        ------
        ValueError
            When a key that is needed is missing, or the basis, mode or latencies are not what they must be.
        """
        known = {item.name for item in fields(cls)}
        values = {name: value for name, value in document.items() if name in known}
        missing = sorted({"target", "basis", "pipeline", "runtime"} - set(values))
        if missing:
            raise ValueError(f"a bench result needs {', '.join(missing)}")
        if values["basis"] not in get_args(Basis):
            raise ValueError(f"basis {values['basis']!r}: expected one of {', '.join(get_args(Basis))}")
        if values.get("mode", MODES[0]) not in MODES:
            raise ValueError(f"mode {values['mode']!r}: expected one of {', '.join(MODES)}")
        latency = values.get("latency_ms")
        if latency is not None:
            _check_latency(latency, values["basis"])
        for name in RANGES:
            if values.get(name) is not None:
                _check_range(name, values[name])
        if values.get("accuracy_ci95") is not None:
            low, high = values["accuracy_ci95"]
            values["accuracy_ci95"] = (float(low), float(high))
        return cls(**values)


def _check_latency(latency: Any, basis: str) -> None:
    keys = set(latency) if isinstance(latency, Mapping) else set()
    if keys != set(LATENCY_KEYS) and (basis == "measured" or keys != set(LATENCY_KEYS) - {"cold"}):
        raise ValueError(f"latency_ms: expected the keys {', '.join(LATENCY_KEYS)}")
    for name, value in latency.items():
        if not isinstance(value, int | float) or not 0 <= value < float("inf"):
            raise ValueError(f"latency_ms.{name}: expected milliseconds, found {value!r}")


def _check_range(name: str, value: Any) -> None:
    if not isinstance(value, Mapping) or not {"low", "high", "basis"} <= set(value) or not value["basis"]:
        raise ValueError(f"{name}: expected low, high and basis")
    low, high = value["low"], value["high"]
    if not all(isinstance(item, int | float) for item in (low, high)) or not 0 <= low <= high < float("inf"):
        raise ValueError(f"{name}: expected 0 <= low <= high, found {low!r} and {high!r}")
