"""Microcontrollers without the hardware: exact counts, proof before counting, ranges with their basis."""

from __future__ import annotations

import functools
import importlib.util
import json
import shutil
import sys
from collections import Counter
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from c_cases import any_levels, app, graph_of, random_int8, tflm_logits
from export_cases import make_run
from made_bench import counts as made_counts
from test_bench import topokd
from topokd_bench.boards import QUALITIES, board_names, open_board, read_board
from topokd_bench.local import Measured
from topokd_bench.mcu import Duty, board_result, core_result
from topokd_bench.result import RANGES, BenchResult
from topokd_bench.windows import HeldOut
from topokd_export.c import emulated, on_core
from topokd_export.c.cores import CORES
from topokd_export.c.cycles import RULES, SOURCES, _kind, _registers, cycles
from topokd_export.c.emulated import Block, Execution, count_instructions, run_firmware
from topokd_export.c.firmware import APP, NETWORK, build_firmware
from topokd_export.c.on_core import StudentOnCore
from topokd_export.c.on_m55 import student_on
from topokd_export.c.qemu import build_for_qemu, run_in_qemu
from topokd_export.c.writer import write_c
from topokd_export.export import export_student

from topokd_edge.bundle import Bundle
from topokd_edge.cli import _bench_mcu
from topokd_edge.errors import CheckFailedError, MissingError
from topokd_edge.progress import silent
from topokd_edge.report import device, model_card, numbers

EMULATED = [name for name, core in CORES.items() if core.emulator]
SMALL = 7
PINNED = {
    "0.17.1": {
        "cortex-m0plus": 600013,
        "cortex-m3": 247486,
        "cortex-m4": 195172,
        "cortex-m7": 195284,
        "cortex-m33": 195133,
        "cortex-m55": 65500,
        "rv32imc": 328820,
    }
}
"""Instructions of the small student, raw samples to logits, by ziglang's version and core.

They change when a kernel or the way C is written does, and then are looked at and pinned anew.
"""
QUICK = ("cortex-m0plus", "cortex-m4", "rv32imc")
every_core = pytest.mark.parametrize(
    "core", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in EMULATED]
)


@functools.cache
def small(core: str) -> StudentOnCore:
    content = random_int8(SMALL)
    student = StudentOnCore(content, app(graph_of(content)), core)
    student.build()
    return student


def windows(student: StudentOnCore, n: int = 4) -> np.ndarray:
    """Normalised windows, (n, channels, length)."""
    graph = student.graph
    levels = any_levels(graph, n, seed=2).astype(np.float32)
    return np.moveaxis((levels - graph.input.zero_point) * np.float32(graph.input.scale), 2, 1)


# --- counting


@every_core
def test_counts_are_pinned_and_add_up(core: str) -> None:
    student = small(core)
    counts = student.prove(windows(student))
    assert (counts.proven, counts.windows) == (4, on_core.COUNTED)
    assert sum(number for _, number in counts.layers) == counts.instructions
    assert [name for name, _ in counts.layers][1:] == [layer.name for layer in student.graph.layers]
    assert all(number > 0 for _, number in counts.layers)
    pinned = PINNED.get(metadata.version("ziglang"))
    if pinned is None:
        pytest.skip("no counts are pinned for this version of the compiler")
    assert counts.instructions == pinned[core]


@every_core
def test_counting_blocks_is_counting_every_single_instruction(
    core: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same emulator stepping through one instruction at a time, and again: not one more or less."""
    import unicorn

    student = small(core)
    samples = np.zeros((student.graph.input.rows, student.graph.input.channels), np.float32)
    classes = student.graph.output.channels
    one, two = (run_firmware(student.firmware, samples, classes) for _ in range(2))
    assert one.instructions == two.instructions and one.blocks == two.blocks
    steps: Counter[int] = Counter()
    opened = emulated._open

    def stepped(core: str) -> tuple[unicorn.Uc, tuple[int, ...]]:
        machine, registers = opened(core)
        machine.hook_add(unicorn.UC_HOOK_CODE, lambda _core, address, *_: steps.update([address]))
        return machine, registers

    monkeypatch.setattr(emulated, "_open", stepped)
    blocks, skippable = by_address(run_firmware(student.firmware, samples, classes), CORES[core].is_riscv)
    assert set(steps) <= set(blocks)
    assert {address for address, times in blocks.items() if steps[address] != times} <= skippable


def by_address(execution: Execution, riscv: bool) -> tuple[Counter[int], set[int]]:
    """Times each address was counted, and addresses that an `it` may skip, which stepping does not see."""
    times: Counter[int] = Counter()
    halves = {}
    for block, count in execution.blocks.items():
        at = 0
        while at < len(block.code):
            halves[block.address + at] = half = int.from_bytes(block.code[at : at + 2], "little")
            times[block.address + at] += count
            at += 4 if is_long(half, riscv) else 2
    skippable, left = set(), 0
    for address, half in sorted(halves.items()):  # a block may end between an `it` and what it governs
        if left:
            skippable.add(address)
        left = 4 if not riscv and half >> 8 == 0xBF and half & 15 else max(0, left - 1)
    return times, skippable


def is_long(half: int, riscv: bool) -> bool:
    return half & 3 == 3 if riscv else half >> 11 in (0b11101, 0b11110, 0b11111)


@every_core
def test_the_core_answers_as_tensorflow_lite_micro(core: str) -> None:
    content = random_int8(SMALL)
    student = small(core)
    x = windows(student, 6)
    mean, std = (np.array(v, np.float32)[:, None] for v in vars(app(student.graph).normalisation).values())
    levels = any_levels(student.graph, 6, seed=2)
    expected = tflm_logits(content, levels)
    assert student.classify(x * std + mean).tolist() == expected.argmax(axis=1).tolist()


def test_the_stack_is_as_deep_as_it_is() -> None:
    graph = graph_of(random_int8(SMALL))
    deeper = """#include "student.h"
static student_t student;
int32_t start(const int8_t *in, int8_t *out);
int32_t start(const int8_t *in, int8_t *out)
{
    volatile int8_t deep[1000];
    int32_t i;
    for (i = 0; i < 1000; i++) {
        deep[i] = in[0];
    }
    return (int32_t)student_invoke(&student, in, out) + (deep[7] - in[0]);
}
"""
    files, window = write_c(graph, app(graph), None), any_levels(graph, 4)[3]
    plain, more = (
        run_firmware(build_firmware(files, "cortex-m4", program=program), window, graph.output.channels)
        for program in (NETWORK, deeper)
    )
    assert 1000 <= more.stack_bytes - plain.stack_bytes <= 1032
    assert np.array_equal(plain.logits, more.logits)


# --- proof


def test_a_wrong_weight_is_found_and_its_layer_named(monkeypatch: pytest.MonkeyPatch) -> None:
    student = StudentOnCore(random_int8(SMALL), app(graph_of(random_int8(SMALL))), "cortex-m4")
    third = student.graph.layers[2].name
    files = write_c(student.graph, app(student.graph), None)
    head, _, tail = files["student.c"].partition("int32_t bias_2[")
    start = tail.index("{") + 1
    end = tail.index(",", start)
    files["student.c"] = f"{head}int32_t bias_2[{tail[:start]}{int(tail[start:end]) + 900}{tail[end:]}"
    student.firmware = build_firmware(files, "cortex-m4", student.flags, program=APP)
    with pytest.raises(CheckFailedError, match=f"self-test window 0 goes wrong at {third}: checksum"):
        student.prove(windows(student))


def test_a_student_that_crashes_or_refuses_is_no_result() -> None:
    graph = graph_of(random_int8(SMALL))
    files, window = write_c(graph, app(graph), None), any_levels(graph, 1)[0]
    head = '#include "student.h"\nstatic student_t student;\nint32_t start(const int8_t *in, int8_t *out);\n'
    body = "int32_t start(const int8_t *in, int8_t *out) { (void)student; (void)in; (void)out; return %s; }\n"
    for answer, said in (("3", "answered 3"), ("*(volatile int32_t *)0x70000000", "crashed")):
        firmware = build_firmware(files, "cortex-m4", program=head + body % answer)
        with pytest.raises(CheckFailedError, match=said):
            run_firmware(firmware, window, graph.output.channels)


# --- cycles


def execution(code: str, times: int = 1, *, jumped: bool = False) -> Execution:
    block = Block(0, 0x10000, bytes.fromhex(code), jumped)
    return Execution(np.zeros(1, np.int8), {block: times}, (), 0, {"f": times * 1})


@pytest.mark.parametrize(
    ("core", "code", "low", "high"),
    [
        # By hand, from the tables: ldr r0,[r1]; ldr r2,[r3]; adds r0,r0,r2; bx lr (reached from above)
        ("cortex-m4", "0868 1a68 8018 7047", 1 + 2 + 1 + 1, 1 + 2 + 1 + 1),
        ("cortex-m0plus", "0868 1a68 8018 7047", 2 + 2 + 1 + 1, 2 + 2 + 1 + 1),
        # push {r4-r7, lr}: one and one a register
        ("cortex-m4", "f0b5", 6, 6),
        # smull r0,r1,r2,r3; mla r0,r1,r2,r3
        ("cortex-m4", "82fb0301 01fb0230", 2, 2),
        ("cortex-m3", "82fb0301 01fb0230", 3 + 2, 5 + 2),
        # lw a0,0(a1); mul a0,a0,a1; sw a0,0(a1)
        ("rv32imc", "03a50500 3305b502 23a0a500", 1 + 1 + 1, 2 + 1 + 1),
    ],
)
def test_cycles_are_those_of_the_tables(core: str, code: str, low: float, high: float) -> None:
    assert cycles(execution(code), core) == (low, high)
    jump = RULES[core].jump
    assert cycles(execution(code, 10, jumped=True), core) == (10 * (low + jump[0]), 10 * (high + jump[1]))


def test_what_the_model_reads_is_what_was_counted() -> None:
    for core in QUICK:
        student = small(core)
        counts = student.prove(windows(student, 1))
        least, most = (bound / counts.instructions for bound in counts.cycles)
        assert 1.0 <= least <= most < 2.2
    assert _registers("r0!, {r1, r4-r7, lr}") == 6
    kinds = {
        "ldrsb.w": "load",
        "ldrdeq": "many",
        "itte": "condition",
        "smlad": "",
        "smmul": "",
        "strb": "store",
    }
    assert {name: _kind(name) for name in kinds} == kinds
    assert count_instructions(bytes.fromhex("82fb0301 0868")) == 2
    assert count_instructions(bytes.fromhex("03a50500 0145"), riscv=True) == 2


# --- boards


@pytest.mark.parametrize("name", board_names())
def test_a_board_has_a_core_that_is_modelled_and_a_source_for_every_figure(name: str) -> None:
    board = open_board(name)
    assert board.core in SOURCES
    assert set(board.sources) == set(board.quality) == {"clock", "memory", "energy", "sleep"}
    assert set(board.quality.values()) <= set(QUALITIES)
    assert board.stall[0] == 1.0 and board.stall[1] > 1.0
    for part in ("energy", "sleep", "memory"):
        assert len(board.sources[part]) > 20


BOARD = """
title = "A board"
core = "cortex-m4"
[clock]
mhz = 100
quality = "datasheet"
source = "made up"
[memory]
ram_bytes = 1000
flash_bytes = 100000
flash_wait_states = "none"
stall = [1.0, 1.5]
quality = "datasheet"
source = "made up"
[energy]
pj_per_cycle = [100, 200]
quality = "datasheet"
source = "made up"
[sleep]
uw = [1, 10]
quality = "datasheet"
source = "made up"
"""


def test_what_cannot_keep_up_has_no_battery_life() -> None:
    # 64 MHz: 64 million cycles take a second at least.
    board = open_board("nrf52840")
    counts = made_counts("tda")
    slow = replace(counts, cycles=(64e6, 70e6))
    assert board_result(slow, board, Duty(0.99, 370.0)).battery_days is None
    kept = board_result(slow, board, Duty(1.01, 370.0)).battery_days
    assert kept is not None
    assert kept["low"] <= kept["high"]


def test_float_pipelines_without_an_fpu_are_noted() -> None:
    options = _bench_mcu.Options(HeldOut(np.zeros((1, 3, 8), np.float32)))
    duty = Duty(1e3, 370.0)

    def told(core: str, board: str, pipeline: str) -> list[str]:
        counts = made_counts(pipeline, core)
        results = (core_result(counts), board_result(counts, open_board(board), duty))
        said = _bench_mcu.notes([Measured(replace(item, pipeline=pipeline)) for item in results], options)
        return [note for note in said if "no FPU" in note]

    assert told("cortex-m4", "nrf52840", "tda") == []
    assert told("cortex-m0plus", "rp2040", "student.int8") == []
    (note,) = told("cortex-m0plus", "rp2040", "tda")
    assert note.startswith("mcu:cortex-m0plus, mcu:rp2040: ")


def test_time_energy_and_battery_by_hand() -> None:
    board = read_board("made", BOARD)
    assert board.latency_ms((1e6, 2e6)) == pytest.approx((10.0, 30.0))
    assert board.energy_uj((1e6, 2e6)) == pytest.approx((100.0, 600.0))
    # 1 mWh is 3.6 J; 600 uJ every second and 10 uW make 610 uW: 5,902 s
    days = board.battery_days((100.0, 600.0), every_s=1.0, battery_mwh=1.0)
    assert days == pytest.approx((3.6 / 610e-6 / 86400, 3.6 / 101e-6 / 86400))
    assert board.shortfalls(ram_bytes=1000, flash_bytes=100_000) == []
    assert board.shortfalls(ram_bytes=1001, flash_bytes=100_001) == [
        "RAM: needs 1,001 bytes, A board has 1,000",
        "flash: needs 100,001 bytes, A board has 100,000",
    ]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("mhz = 100\n", "", "mhz"),
        ('quality = "datasheet"', 'quality = "guess"', "guess"),
        ("[100, 200]", "[200, 100]", "pj_per_cycle"),
        ('source = "made up"', 'source = ""', "source"),
    ],
)
def test_a_board_file_without_a_figure_or_source_is_refused(old: str, new: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_board("made", BOARD.replace(old, new))
    with pytest.raises(ValueError, match="nrf52840"):
        open_board("../boards")


def test_the_documentation_has_every_core_and_the_figures_of_every_board() -> None:
    text = (Path(__file__).parent.parent / "docs" / "devices" / "mcu.md").read_text("utf-8")
    for core in CORES.values():
        assert f"| `mcu:{core.name}` | {core.kernel} |" in text
    for board in map(open_board, board_names()):
        energy = " to ".join(f"{value:g}" for value in board.pj_per_cycle)
        qualities = f"{board.quality['energy']} | {board.quality['sleep']}"
        line = f"| `mcu:{board.name}` | {board.core} | {board.clock_mhz:g} | {energy} | {qualities} |"
        assert line in text


# --- the verb


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mcu")
    export_student(make_run(folder), 1, 0, folder / "bundle", targets=("tflite", "c"))
    return folder / "bundle"


def test_a_core_and_a_board_stand_in_the_schema_of_every_other_target(bundle: Path) -> None:
    on = "mcu:cortex-m4,mcu:nrf52840"
    child = topokd("bench", bundle, "--on", on, "--windows", 6, "--json", cwd=bundle.parent)
    assert child.returncode == 0, child.stderr
    answer = json.loads(child.stdout)
    core, board = (BenchResult.from_dict(item) for item in answer["results"])
    assert [f"{item.target} {item.basis}" for item in (core, board)] == [
        "mcu:cortex-m4 counted",
        "mcu:nrf52840 modelled",
    ]
    for result in (core, board):
        assert result.instructions == sum(layer["instructions"] for layer in result.layers)
        assert (result.kernel, result.windows, result.pipeline) == ("SMLAD", 6, "student.int8")
        assert result.accuracy is not None and result.accuracy_ci95 is not None
        assert result.self_test is not None and result.self_test["vectors"] >= 8
        assert result.ram_bytes is not None and result.stack_bytes is not None and result.flash_bytes
        assert result.compiler == f"ziglang {metadata.version('ziglang')}" and "-O2" in result.flags
    assert core.latency_ms is None and core.energy_uj is None and core.cycles_range is not None
    assert board.latency_ms is not None and board.latency_range_ms is not None
    assert board.latency_range_ms["low"] < board.latency_ms["p50"] < board.latency_range_ms["high"]
    for name in RANGES:
        span = getattr(board, name)
        assert span["low"] < span["high"] and len(span["basis"]) > 20
    assert answer["subjects"] == ["3"]
    assert any("accuracy on 6 of 80" in note for note in answer["notes"])
    assert any("a window every 0.82 s from 370 mWh" in note for note in answer["notes"])
    section = device.bench_section(answer)
    assert section["figures"] == {"mcu:cortex-m4": "", "mcu:nrf52840": ""}
    assert [row["target"] for row in section["mcu"]] == on.split(",")
    assert " to " in section["mcu"][1]["latency"] and "cycles" in section["mcu"][1]["bases"]
    assert section["rows"][1]["p50"] == section["mcu"][1]["latency"]
    assert section["rows"][1]["p95"] == numbers.MISSING
    assert model_card._times(answer["results"][1])[0].startswith("at least ")
    (bundle.parent / "run" / "bench.json").write_text(child.stdout)
    shown = topokd("report", "run", "--out", "report.html", cwd=bundle.parent)
    assert shown.returncode == 0, shown.stderr
    page = (bundle.parent / "report.html").read_text("utf-8")
    assert "Nordic nRF52840" in page and section["mcu"][1]["latency"] in page and "blocks.0.conv1" in page


def test_a_student_that_does_not_fit_is_refused_before_anything_is_built(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_args: object, **_more: object) -> None:
        raise AssertionError("built")

    monkeypatch.setattr(_bench_mcu, "open_board", lambda name: read_board(name, BOARD))
    monkeypatch.setattr(StudentOnCore, "build", never)
    opened = Bundle.open(bundle)
    options = _bench_mcu.Options(HeldOut(np.zeros((1, 3, 50), np.float32)))
    with pytest.raises(CheckFailedError, match="does not fit A board, before any") as caught:
        _bench_mcu.measure(opened, ["mcu:made"], options, silent)
    assert caught.value.exit_code == 1
    assert caught.value.problems[0].endswith("bytes, A board has 1,000")


def test_an_unknown_core_is_a_usage_error_that_names_the_known(bundle: Path) -> None:
    child = topokd("bench", bundle, "--on", "mcu:cortex-m9", cwd=bundle.parent)
    assert child.returncode == 2 and "mcu:cortex-m33" in child.stderr and "mcu:rp2040" in child.stderr


@pytest.mark.parametrize(
    "change",
    [
        {"latency_range_ms": {"low": 2, "high": 1, "basis": "x"}},
        {"energy_uj": {"low": 1, "high": 2}},
        {"cycles_range": {"low": 1, "high": 2, "basis": ""}},
        {"battery_days": [1, 2]},
    ],
)
def test_a_range_without_its_ends_or_basis_is_refused(change: dict[str, object]) -> None:
    good = {"target": "mcu:x", "basis": "modelled", "pipeline": "student.int8", "runtime": "c"}
    with pytest.raises(ValueError, match=next(iter(change))):
        BenchResult.from_dict({**good, **change})


@pytest.mark.skipif(not shutil.which("qemu-system-arm"), reason="qemu-system-arm is not installed")
def test_a_cortex_m55_is_proven_in_qemu_and_counted_the_same_every_time() -> None:
    content = random_int8(SMALL)
    student = student_on(content, app(graph_of(content)), "cortex-m55")
    student.build()
    first, again = (student.prove(windows(student)) for _ in range(2))
    assert first == again and student.kernel == "MVE"
    assert sum(number for _, number in first.layers) == first.instructions
    pinned = PINNED.get(metadata.version("ziglang"))
    if pinned is not None:
        assert abs(first.instructions - pinned["cortex-m55"]) <= 32
    levels = any_levels(student.graph, 4, seed=2)
    mean, std = (np.array(v, np.float32)[:, None] for v in vars(app(student.graph).normalisation).values())
    answers = student.classify(windows(student) * std + mean)
    assert answers.tolist() == tflm_logits(content, levels).argmax(axis=1).tolist()


@pytest.mark.skipif(not shutil.which("qemu-system-arm"), reason="qemu-system-arm is not installed")
@pytest.mark.parametrize(
    "core", ["cortex-m4", *(pytest.param(f"cortex-m{n}", marks=pytest.mark.slow) for n in (3, 7))]
)
def test_another_emulator_counts_the_same(core: str) -> None:
    """QEMU's virtual clock against Unicorn's blocks; the program around the student is some 40 a layer."""
    student = small(core)
    graph, files = student.graph, write_c(student.graph, student.app, None)
    levels = any_levels(graph, 4, seed=2)
    samples = np.stack([on_core.raw_samples(window, graph, student.app.normalisation) for window in levels])
    sizes = {"layers": len(graph.layers), "classes": graph.output.channels}
    found = run_in_qemu(build_for_qemu(files, core, student.flags), samples, core=core, **sizes)
    counts = student.prove(windows(student))
    assert 0 <= found[0].instructions - counts.instructions <= 60 * len(graph.layers) + 40
    for ours, (_, theirs) in zip(found[0].layer_instructions, counts.layers[1:], strict=True):
        assert abs(ours - theirs) <= 120
    assert len({one.instructions for one in found[1:]}) > 1


def test_a_missing_package_is_named_with_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    student = small("cortex-m4")
    samples = np.zeros((1, student.graph.input.channels, student.graph.input.rows), np.float32)
    monkeypatch.setitem(sys.modules, "unicorn", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    unbuilt = student_on(random_int8(SMALL), student.app, "cortex-m4")
    for missing, ask in (("ziglang", unbuilt.build), ("unicorn", lambda: student.classify(samples))):
        with pytest.raises(MissingError, match=missing) as caught:
            ask()
        assert "topokd-edge[mcu]" in caught.value.hint


def test_without_qemu_the_m55_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    student = student_on(random_int8(SMALL), app(graph_of(random_int8(SMALL))), "cortex-m55")
    with pytest.raises(MissingError, match="qemu-system-arm") as caught:
        student.build()
    assert "apt-get install" in caught.value.hint


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("arm-none-eabi-gcc"), reason="arm-none-eabi-gcc is not installed")
def test_gcc_builds_the_same_student() -> None:
    student = StudentOnCore(random_int8(SMALL), app(graph_of(random_int8(SMALL))), "cortex-m4")
    student.build("gcc")
    assert student.prove(windows(student)).proven == 4 and student.compiler.startswith("arm-none-eabi-gcc ")
