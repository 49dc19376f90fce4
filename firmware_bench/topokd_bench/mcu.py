"""From counts on an emulated core to a result: cycles, and on a board also time, energy and battery."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from topokd_bench.boards import Board, Span
from topokd_bench.result import BenchResult

TARGET = "mcu:"
BATTERY_MWH = 370.0
"""100 mAh at 3.7 V, as in a wrist band."""


@dataclass(frozen=True)
class CoreCounts:
    """What was counted on a core; the fields are those of `BenchResult` of the same names.

    Attributes
    ----------
    cycles
        (least, most) without wait states.
    cycle_rules
        Where the rules behind `cycles` are from.
    """

    core: str
    kernel: str
    compiler: str
    flags: str
    instructions: int
    layers: Sequence[tuple[str, int]]
    cycles: Span
    cycle_rules: str
    ram_bytes: int
    arena_bytes: int
    stack_bytes: int
    flash_bytes: int
    model_bytes: int
    macs: int
    windows_counted: int
    self_test: dict[str, Any]
    versions: dict[str, str]
    pipeline: str = "student.int8"


@dataclass(frozen=True)
class Duty:
    """One window every so many seconds from a battery of so many milliwatt-hours."""

    every_s: float
    battery_mwh: float


def core_result(counts: CoreCounts) -> BenchResult:
    """Return the result of a core alone: counted, with the cycles its rules give, and no time."""
    low, high = (round(value) for value in counts.cycles)
    return BenchResult(
        target=f"{TARGET}{counts.core}",
        basis="counted",
        pipeline=counts.pipeline,
        runtime="c",
        runs=counts.windows_counted,
        ram_bytes=counts.ram_bytes + counts.stack_bytes,
        flash_bytes=counts.flash_bytes,
        model_bytes=counts.model_bytes,
        macs=counts.macs,
        instructions=counts.instructions,
        cycles=(low + high) // 2,
        cycles_range=_range(low, high, f"no wait states; {counts.cycle_rules}"),
        kernel=counts.kernel,
        compiler=counts.compiler,
        flags=counts.flags,
        arena_bytes=counts.arena_bytes,
        stack_bytes=counts.stack_bytes,
        layers=[{"name": name, "instructions": number} for name, number in counts.layers],
        self_test=counts.self_test,
        device={"name": counts.core, "emulated": True},
        versions=counts.versions,
    )


def board_result(counts: CoreCounts, board: Board, duty: Duty) -> BenchResult:
    """Return the result on a board: the same counts, and modelled time, energy and battery life.

    A pipeline that takes longer at best than until the next window has no battery life.
    """
    latency, energy = board.latency_ms(counts.cycles), board.energy_uj(counts.cycles)
    middle = sum(latency) / 2
    stalls = f"{board.stall[0]:g} to {board.stall[1]:g} times for flash ({board.flash_wait_states})"
    basis = {part: f"{board.quality[part]}: {board.sources[part]}" for part in board.sources}
    return replace(
        core_result(counts),
        target=f"{TARGET}{board.name}",
        basis="modelled",
        latency_ms=dict.fromkeys(("p50", "p95", "p99", "min"), middle),
        latency_range_ms=_range(
            *latency, f"{board.clock_mhz:g} MHz, {stalls}; cycles by: {counts.cycle_rules}"
        ),
        energy_uj=_range(
            *energy, f"{board.pj_per_cycle[0]:g} to {board.pj_per_cycle[1]:g} pJ a cycle, {basis['energy']}"
        ),
        battery_days=_battery_days(energy, board, duty) if latency[0] <= 1e3 * duty.every_s else None,
        device={
            "name": board.title,
            "core": counts.core,
            "emulated": True,
            "clock_mhz": board.clock_mhz,
            "clock_source": basis["clock"],
            "board_ram_bytes": board.ram_bytes,
            "board_flash_bytes": board.flash_bytes,
            "flash_wait_states": board.flash_wait_states,
            "memory_source": basis["memory"],
            "every_s": duty.every_s,
            "battery_mwh": duty.battery_mwh,
        },
    )


def _battery_days(energy_uj: Span, board: Board, duty: Duty) -> dict[str, Any]:
    return _range(
        *board.battery_days(energy_uj, every_s=duty.every_s, battery_mwh=duty.battery_mwh),
        f"one window every {duty.every_s:.3g} s, {duty.battery_mwh:g} mWh, no sensor and no radio; "
        f"asleep {board.sleep_uw[0]:g} to {board.sleep_uw[1]:g} uW, "
        f"{board.quality['sleep']}: {board.sources['sleep']}",
    )


def _range(low: float, high: float, basis: str) -> dict[str, Any]:
    return {"low": low, "high": high, "basis": basis}
