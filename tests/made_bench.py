"""A made answer of `bench` with every kind of target and four pipelines, by the makers of real results."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from topokd_bench.boards import open_board
from topokd_bench.mcu import CoreCounts, Duty, board_result, core_result
from topokd_bench.result import BenchResult

PIPELINES = ("tda", "teacher.signal", "student.float32", "student.int8")
ACCURACY = dict(zip(PIPELINES, (0.84, 0.93, 0.91, 0.905), strict=True))
INSTRUCTIONS = dict(zip(PIPELINES, (151_000_000, 90_000_000, 21_000_000, 4_200_000), strict=True))
"""Topology takes 151.0 / 4.2 = 36 times as many as the int8 student."""
RAM = dict(zip(PIPELINES, (412_000, 60_000, 24_000, 6_200), strict=True))
FLASH = dict(zip(PIPELINES, (730_000, 990_000, 270_000, 76_000), strict=True))
STAGES = {"persistence": 31_000_000, "image": 20_000_000}
BUNDLE = "a" * 64


def counts(pipeline: str, core: str = "cortex-m4", ram: int | None = None) -> CoreCounts:
    whole = INSTRUCTIONS[pipeline]
    stages = STAGES if pipeline == "tda" else {}
    rest = whole - sum(stages.values()) - 400_000
    layers = [("input", 400_000), *stages.items(), ("stem", rest // 4), ("blocks.0.conv1", rest - rest // 4)]
    return CoreCounts(
        core=core,
        kernel="SMLAD" if pipeline == "student.int8" else "FLOAT",
        compiler="ziglang 0",
        flags="-O2",
        instructions=whole,
        layers=layers,
        cycles=(1.3 * whole, 1.6 * whole),
        cycle_rules="rules <of the core>",
        ram_bytes=RAM[pipeline] if ram is None else ram,
        arena_bytes=1000,
        stack_bytes=300,
        flash_bytes=FLASH[pipeline],
        model_bytes=90_000,
        macs=2_600_000,
        windows_counted=3,
        self_test={"vectors": 16, "layers": 3, "layer_vectors": 3, "bundle": BUNDLE},
        versions={"ziglang": "0"},
    )


def scored(result: BenchResult) -> dict[str, Any]:
    accuracy = ACCURACY[result.pipeline]
    interval = (accuracy - 0.04, accuracy + 0.04)
    told = replace(result, accuracy=accuracy, accuracy_ci95=interval, accuracy_basis="windows", windows=100)
    return told.to_dict()


def on_core(core: str = "cortex-m4") -> list[dict[str, Any]]:
    return [scored(replace(core_result(counts(name, core)), pipeline=name)) for name in PIPELINES]


def on_board(name: str, tda_ram: int = 96_000, every_s: float = 10.0) -> list[dict[str, Any]]:
    """Return four pipelines on a board; one that is too large is refused with its numbers."""
    board, rows = open_board(name), []
    for pipeline in PIPELINES:
        made = counts(pipeline, board.core, tda_ram if pipeline == "tda" else None)
        result = replace(board_result(made, board, Duty(every_s, 370.0)), pipeline=pipeline)
        lacks = board.shortfalls(ram_bytes=made.ram_bytes + made.stack_bytes, flash_bytes=made.flash_bytes)
        rows.append(scored(result) if not lacks else refused(result, "; ".join(lacks)))
    return rows


def refused(result: BenchResult, why: str) -> dict[str, Any]:
    bare = BenchResult(
        target=result.target, basis="modelled", pipeline=result.pipeline, runtime="c", kernel=result.kernel,
        ram_bytes=result.ram_bytes, flash_bytes=result.flash_bytes, device=result.device,
        error=f"does not fit: {why}",
    )  # fmt: skip
    return bare.to_dict()


def measured(
    target: str, runtimes: dict[str, tuple[str, float]], basis: str = "measured", **more: Any
) -> list[dict[str, Any]]:
    """Return a result for each pipeline of {pipeline: (runtime, median in ms)}."""
    rows = []
    for pipeline, (runtime, p50) in runtimes.items():
        latency = {"p50": p50, "p95": 1.4 * p50, "p99": 2.1 * p50, "min": 0.9 * p50, "cold": 300 + p50}
        made = BenchResult(
            target, "measured", pipeline, runtime, latency, runs=200, warmup=5, ram_bytes=90_000_000,
            ram_baseline_bytes=30_000_000, model_bytes=90_000, macs=2_600_000,
            device={"cpu": "Some <CPU>"}, versions={runtime: "1.0"},
        )  # fmt: skip
        rows.append({**scored(made), **more})
    return rows


LOCAL = {
    "tda": ("fast+onnxruntime", 3.21),
    "teacher.signal": ("onnxruntime", 0.93),
    "student.float32": ("litert", 0.412),
    "student.int8": ("litert", 0.187),
}
PI = {name: (runtime, 9 * p50) for name, (runtime, p50) in LOCAL.items()}
NPU = {
    **BenchResult("npu:ethos-u55-128", "modelled", "student.int8", "vela").to_dict(),
    "latency_ms": {"p50": 0.5, "p95": 0.5, "p99": 0.5, "min": 0.5},
    "cycles": 250_000,
    "device": {"name": "ethos-u55-128"},
}


def answer(*results: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    rows = [row for group in results for row in group]
    return {"results": rows, "int8_cost": None, "subjects": ["1", "2"], "notes": [], "partial": False, **more}


def on_wire(board: str = "nrf52840") -> list[dict[str, Any]]:
    """Return four pipelines measured on a real board, which says of itself what it is."""
    rows = measured("serial:/dev/ttyACM0", {name: ("c", p50 * 300) for name, (_, p50) in LOCAL.items()})
    told = {"name": board, "core": "cortex-m4", "clock_mhz": 64.0}
    memory = {"ram_baseline_bytes": None, "kernel": "SMLAD", "cycles": 3_600_000}
    return [
        {**row, **memory, "device": told, "ram_bytes": RAM[row["pipeline"]] // 5, "flash_bytes": 100_000}
        for row in rows
    ]


def everywhere() -> dict[str, Any]:
    """Return every kind of target; topology does not fit the RP2040."""
    browser = {"student.int8": ("wasm", 0.9)}
    phone = {"tda": ("c", 61.0), "student.float32": ("c", 3.0), "student.int8": ("c", 1.9)}
    lasting = {"minutes": 10, "calls": 9000, "p50_ms": [1.7, 2.3], "khz": [1_500_000, 1_200_000],
               "temperature_c": [58.1, 71.5], "first_ms": 1.7, "last_ms": 2.3, "drift": 1.353}  # fmt: skip
    long = {"mode": "sustained", "sustained": lasting}
    return answer(
        measured("local", LOCAL),
        measured("local", {"tda": ("ripser+persim+onnxruntime", 41.7)}),
        measured("ssh://pi@watch", PI),
        measured("ssh://pi@watch", {"student.int8": ("litert", 2.3)}, **long),
        measured("browser", browser),
        measured("adb:0A1B", phone, throttled=True),
        on_wire("Nordic nRF52840"),
        on_core("cortex-m4"),
        on_board("nrf52840"),
        on_board("rp2040", tda_ram=412_000),
        on_board("stm32u575"),
        [NPU],
    )
