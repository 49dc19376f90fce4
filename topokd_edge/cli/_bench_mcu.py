"""What a bench says of microcontrollers: pipelines in C on an emulated core, counted, and on boards."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from topokd_bench.accuracy import judge
from topokd_bench.boards import Board, board_names, open_board
from topokd_bench.local import Measured
from topokd_bench.mcu import BATTERY_MWH, TARGET, CoreCounts, Duty, board_result, core_result
from topokd_bench.result import BenchResult
from topokd_bench.types import Basis
from topokd_bench.windows import HeldOut
from topokd_export.c.cores import CORES
from topokd_export.c.cycles import SOURCES
from topokd_export.c.firmware import FLAGS, Compiler
from topokd_export.c.on_core import StudentOnCore
from topokd_export.c.on_m55 import student_on
from topokd_export.c.qemu import require_qemu
from topokd_export.c.writer import app_numbers

from topokd_edge.bundle import Bundle
from topokd_edge.cli import _bench_mcu_floats, console
from topokd_edge.cli._bench_mcu_floats import Counted, FloatJob, Trial, core_counts
from topokd_edge.cli._installed import installed_version
from topokd_edge.errors import CheckFailedError
from topokd_edge.progress import Progress
from topokd_edge.run import INT8_STUDENT

WINDOWS = 100
"""Held-out windows tried on an emulated core: some are seconds each."""
_AT_ONCE = 10
"""Windows between two reports of progress."""
_COUNTS = [
    *("target", "pipeline", "kernel", "instructions", "a MAC", "M cycles"),
    *("RAM B", "stack B", "flash B", "accuracy"),
]
_MODELS = ["target", "pipeline", "MHz", "ms", "energy uJ", "battery days"]
_PACKAGES = ("ziglang", "unicorn", "capstone")


@dataclass(frozen=True)
class Options:
    """How to bench: the windows to classify, compiler, and the duty that battery days are for.

    `every_s` None is half a window's time, `battery_mwh` None is `BATTERY_MWH`. `floats` are counted beside
    the int8 student, on the windows `teachers_held_out`, which have all channels of the recordings.
    """

    held_out: HeldOut
    windows: int | None = None
    compiler: Compiler = "zig"
    every_s: float | None = None
    battery_mwh: float | None = None
    floats: tuple[FloatJob, ...] = ()
    teachers_held_out: HeldOut | None = None


def target_names() -> list[str]:
    """Return every `mcu:...` that can be asked for: cores and boards."""
    return [f"{TARGET}{name}" for name in (*CORES, *board_names())]


def measure(bundle: Bundle, targets: Sequence[str], options: Options, progress: Progress) -> list[Measured]:
    """Return a result for every `mcu:...` of `targets`; cores that several boards share are run once.

    Raises
    ------
    CheckFailedError
        When the student does not fit a board, before anything is built where that can be told; or when it
        does not prove itself.
    BadInputError, MissingError
        When the bundle has no int8 TFLite file; when a package or compiler is not installed.
    """
    asked = [target.removeprefix(TARGET) for target in targets if target.startswith(TARGET)]
    if not asked:
        return []
    boards = {name: open_board(name) for name in asked if name not in CORES}
    content = bundle.model_path("tflite", "int8").read_bytes()
    cores = dict.fromkeys(boards[name].core if name in boards else name for name in asked)
    students = {core: student_on(content, app_numbers(bundle.manifest), core) for core in cores}
    for board in boards.values():
        needs = students[board.core].needs
        _refuse_misfit(board, needs.ram_bytes, needs.flash_bytes, "before any code and stack")
    done: dict[str, _OnCore] = {}
    for index, (core, student) in enumerate(students.items()):
        progress("mcu", index, len(students), core)
        own = [boards[name] for name in asked if name in boards and boards[name].core == core]
        floats = _count_floats(bundle, core, [] if core in asked else own, options, progress)
        done[core] = _OnCore(
            _count(bundle, student, options.compiler), *_accuracy(student, options, progress), floats
        )
    progress("mcu", len(students), len(students))
    return [row for name in asked for row in _rows(bundle, name, boards.get(name), done, options)]


@dataclass(frozen=True)
class _OnCore:
    """What was found on a core: counts of the int8 student, its accuracy, and the float pipelines."""

    counts: CoreCounts
    accuracy: dict[str, Any]
    correct: dict[int, bool]
    floats: list[Counted]


def _count_floats(
    bundle: Bundle, core: str, boards: Sequence[Board], options: Options, progress: Progress
) -> list[Counted]:
    trial = Trial(
        options.teachers_held_out or options.held_out,
        options.windows or WINDOWS,
        options.compiler,
        _versions(core),
        bundle.digest,
    )
    found = []
    for index, job in enumerate(options.floats):
        progress("mcu pipelines", index, len(options.floats), f"{job.name} on {core}")
        found.append(_bench_mcu_floats.count(job, core, boards, trial))
    return found


def _rows(
    bundle: Bundle, name: str, board: Board | None, done: dict[str, _OnCore], options: Options
) -> list[Measured]:
    """Return the rows of one target: float pipelines, slowest first, and the int8 student."""
    core = done[name if board is None else board.core]
    rows = []
    for item in core.floats:
        error = item.why_not(board)
        if error or item.counts is None:
            basis: Basis = "counted" if board is None else "modelled"
            rows.append(Measured(BenchResult(f"{TARGET}{name}", basis, item.name, "c", error=error), {}))
        else:
            rows.append(_result(bundle, board, item.counts, item.accuracy, item.correct, options))
    if board is not None:
        counts = core.counts
        _refuse_misfit(board, counts.ram_bytes + counts.stack_bytes, counts.flash_bytes, "as built")
    return [*rows, _result(bundle, board, core.counts, core.accuracy, core.correct, options)]


def _result(
    bundle: Bundle,
    board: Board | None,
    counts: CoreCounts,
    accuracy: dict[str, Any],
    correct: dict[int, bool],
    options: Options,
) -> Measured:
    if board is None:
        return Measured(replace(core_result(counts), **accuracy), correct)
    manifest = bundle.manifest
    every = options.every_s or math.ceil(manifest.length / 2) / manifest.rate_hz
    result = board_result(counts, board, Duty(every, options.battery_mwh or BATTERY_MWH))
    return Measured(replace(result, **accuracy), correct)


def _refuse_misfit(board: Board, ram_bytes: int, flash_bytes: int, when: str) -> None:
    problems = board.shortfalls(ram_bytes=ram_bytes, flash_bytes=flash_bytes)
    if problems:
        raise CheckFailedError(
            f"the student does not fit {board.title}, {when}",
            problems=problems,
            hint="train a narrower student or shorter windows, or take another board",
        )


def _count(bundle: Bundle, student: StudentOnCore, compiler: Compiler) -> CoreCounts:
    """Build, prove and count."""
    firmware = student.build(compiler)
    x = bundle.self_test()["x"]
    counts = student.prove(x)
    return core_counts(
        student,
        firmware,
        counts,
        cycle_rules=SOURCES[student.core],
        model_bytes=bundle.model_path("tflite", "int8").stat().st_size,
        macs=bundle.manifest.macs or 0,
        self_test={
            "vectors": counts.proven,
            "layers": len(counts.layers) - 1,
            "layer_vectors": counts.windows,
            "instructions_least": counts.instructions_range[0],
            "instructions_most": counts.instructions_range[1],
            "bundle": bundle.digest,
        },
        versions=_versions(student.core),
    )


def _versions(core: str) -> dict[str, str]:
    found = {name: version for name in _PACKAGES if (version := installed_version(name))}
    return found if CORES[core].emulator else {**found, "qemu": require_qemu()}


def _accuracy(
    student: StudentOnCore, options: Options, progress: Progress
) -> tuple[dict[str, Any], dict[int, bool]]:
    """Classify held-out windows on the core; nothing when their truth is not known."""
    held_out = options.held_out
    if held_out.y is None:
        return {}, {}
    chosen = held_out.spread(options.windows or WINDOWS)
    answers = []
    for first in range(0, len(chosen), _AT_ONCE):
        progress("mcu windows", first, len(chosen), student.core)
        answers.append(student.classify(held_out.x[chosen[first : first + _AT_ONCE]]))
    progress("mcu windows", len(chosen), len(chosen))
    return judge(held_out, chosen, np.concatenate(answers))


def notes(measured: Sequence[Measured], options: Options) -> list[str]:
    """Return what a reader of the figures must know."""
    found = []
    tried = max((item.result.windows for item in measured), default=0)
    there = len(options.held_out.x)
    if 0 < tried < there:
        found.append(f"emulated cores: accuracy on {tried} of {there} held-out windows, evenly spread")
    for result in (item.result for item in measured):
        if result.error:
            found.append(f"{result.target}, {result.pipeline}: {result.error}")
        elif result.latency_range_ms and result.latency_range_ms["high"] > 1e3 * result.device["every_s"]:
            found.append(
                f"{result.target}, {result.pipeline}: may not keep up with a window every "
                f"{result.device['every_s']:g} s"
            )
    soft = dict.fromkeys(item.result.target for item in measured if _is_soft_float(item.result))
    if soft:
        found.append(
            f"{', '.join(soft)}: no FPU, so float32 is computed in software; teachers have no int8, and the "
            "two students show what that would spare"
        )
    duties = [item.result.device for item in measured if item.result.battery_days]
    if duties:
        every, battery = duties[0]["every_s"], duties[0]["battery_mwh"]
        found.append(
            f"battery days: a window every {every:.3g} s from {battery:g} mWh, no sensor and no radio"
        )
    return found


def _is_soft_float(result: BenchResult) -> bool:
    core = result.device.get("core") or result.device.get("name")
    return result.pipeline != INT8_STUDENT and core in CORES and not CORES[core].has_fpu


def show(name: str, measured: Sequence[Measured]) -> None:
    """Print counts, and for boards what is modelled, as ranges."""
    results = [item.result for item in measured]
    if not results:
        return
    compiler = next(result.compiler for result in results if result.compiler)
    title = f"{name}: counted on an emulated core, built by {compiler} {' '.join(FLAGS)}"
    rows = [
        [
            result.target,
            result.pipeline,
            *(["-"] * (len(_COUNTS) - 2) if result.error else _counts(result)),
        ]
        for result in results
    ]
    console.table(title, _COUNTS, rows)
    modelled = [
        [
            result.target,
            result.pipeline,
            f"{result.device['clock_mhz']:g}",
            *map(_span, (result.latency_range_ms, result.energy_uj)),
            _span(result.battery_days) if result.battery_days else "falls behind",
        ]
        for result in results
        if result.latency_range_ms is not None
    ]
    if modelled:
        console.table("modelled from the counts, not measured; --json has the basis", _MODELS, modelled)


def _counts(result: BenchResult) -> list[str]:
    return [
        result.kernel,
        f"{result.instructions or 0:,}",
        f"{(result.instructions or 0) / result.macs:.2f}" if result.macs else "-",
        _span(result.cycles_range, 1e6),
        f"{result.ram_bytes or 0:,}",
        f"{result.stack_bytes or 0:,}",
        f"{result.flash_bytes or 0:,}",
        "-" if result.accuracy is None else f"{result.accuracy:.3f}",
    ]


def _span(value: dict[str, Any] | None, unit: float = 1.0) -> str:
    if value is None:
        return "-"
    ends = (value[key] / unit for key in ("low", "high"))
    return " to ".join(f"{end:,.0f}" if end >= 100 else f"{end:.3g}" for end in ends)
