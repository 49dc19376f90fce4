"""The C compiles without a word, does nothing undefined, and keeps to its budgets on a small core."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from c_cases import (
    any_levels,
    app,
    c_files,
    compiled,
    graph_of,
    int8_file,
    large_int8_file,
    random_int8,
    tflm_logits,
)
from topokd_export.c.arena import plan_arena
from topokd_export.c.emulated import run_firmware
from topokd_export.c.firmware import build_firmware
from topokd_export.c.host import SOURCES, WARNINGS, find_compiler
from topokd_export.c.integer_graph import Conv
from topokd_export.c.writer import RUNTIME, ram_bytes, weight_bytes, write_c

STRICT = (
    *("-std=c99", *WARNINGS, "-Wshadow", "-Wstrict-prototypes", "-Wmissing-prototypes", "-Wcast-qual"),
    *("-Wswitch-enum", "-Wundef", "-Wvla", "-Wdouble-promotion", "-Wwrite-strings"),
)
ZIG = (sys.executable, "-m", "ziglang", "cc")
TARGETS = {
    "host": ((), ("REF", "BLK")),
    "cortex_m4": (("-target", "thumb-freestanding-eabi", "-mcpu=cortex_m4"), ("BLK", "SMLAD")),
    "cortex_m0plus": (("-target", "thumb-freestanding-eabi", "-mcpu=cortex_m0plus"), ("BLK",)),
    "riscv32": (("-target", "riscv32-freestanding"), ("BLK",)),
    "wasm32": (("-target", "wasm32-freestanding"), ("BLK",)),
    "pi": (("-target", "aarch64-linux-musl"), ("BLK",)),
    "android": (("-target", "aarch64-linux-android"), ("BLK",)),
    "ios": (("-target", "aarch64-ios"), ("BLK",)),
    "windows": (("-target", "x86_64-windows-gnu"), ("BLK",)),
    "cortex_m55": (("-target", "thumb-freestanding-eabihf", "-mcpu=cortex_m55+mve_fp"), ("MVE",)),
}
MAX_FLASH_BEYOND_WEIGHTS, MAX_RAM = 12 * 1024, 20_000
MAX_PER_PRODUCT = {"SMLAD": 1.6, "BLK": 3.0}


def written(folder: Path, content: bytes) -> Path:
    for name, text in c_files(content).items():
        (folder / name).write_text(text)
    return folder


def run(*command: str | Path, cwd: Path) -> None:
    child = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert child.returncode == 0 and not child.stderr, child.stderr[:3000]


def compile_silently(folder: Path, kernels: tuple[str, ...], *command: str) -> None:
    written(folder, random_int8(0))
    for kernel in kernels:
        sources = (*SOURCES, "main.c") if kernel == kernels[0] else SOURCES[1:]
        for source in sources:
            flags = ("-DSTUDENT_DEBUG", f"-DTK_KERNEL=TK_KERNEL_{kernel}", "-c", source, "-o", "x.o")
            run(*command, *STRICT, *flags, cwd=folder)


@pytest.mark.parametrize("target", TARGETS)
def test_clang_is_silent(target: str, tmp_path: Path) -> None:
    flags, kernels = TARGETS[target]
    compile_silently(tmp_path, kernels, *ZIG, *flags, "-O2")


@pytest.mark.parametrize("target", TARGETS)
def test_the_best_kernel_of_the_core_is_the_default(target: str, tmp_path: Path) -> None:
    flags, kernels = TARGETS[target]
    written(tmp_path, random_int8(0))
    wanted = (
        f'#include "student.h"\n#if TK_KERNEL != TK_KERNEL_{kernels[-1]}\n#error another\n#endif\nint x;\n'
    )
    (tmp_path / "default.c").write_text(wanted)
    run(*ZIG, *flags, "-std=c99", "-c", "default.c", "-o", "x.o", cwd=tmp_path)


@pytest.mark.parametrize("level", ["-O0", "-O3"])
def test_gcc_is_silent(level: str, tmp_path: Path) -> None:
    compile_silently(tmp_path, ("REF", "BLK"), *find_compiler(), level)


@pytest.mark.parametrize("kernel", ["REF", "BLK"])
@pytest.mark.parametrize("perturbed", [False, True], ids=["calibrated", "perturbed"])
def test_nothing_undefined_and_no_byte_outside(kernel: str, perturbed: bool, tmp_path: Path) -> None:
    """The example streams extreme and random windows under the sanitizers."""
    written(tmp_path, random_int8(2, perturbed=perturbed))
    checks = "-fsanitize=address,undefined" if shutil.which("gcc") else "-fsanitize=undefined"
    flags = (checks, "-fno-sanitize-recover=all", "-g", f"-DTK_KERNEL=TK_KERNEL_{kernel}", "-std=c99")
    run(*find_compiler(), *flags, "main.c", *SOURCES, "-o", "selftest", cwd=tmp_path)
    run(tmp_path / "selftest", cwd=tmp_path)


def test_no_heap_no_stdio_no_recursion(tmp_path: Path) -> None:
    files = c_files(random_int8(0))
    for name in (*RUNTIME, "student.h", "student.c"):
        included = {line for line in files[name].splitlines() if line.startswith("#include <")}
        assert included <= {
            "#include <stdint.h>", "#include <stddef.h>", "#include <float.h>",
            "#include <arm_mve.h>", "#include <wasm_simd128.h>",
        }  # fmt: skip
    written(tmp_path, random_int8(0))
    run(*find_compiler(), "-std=c99", "-O1", "-c", "student.c", "-o", "s.o", cwd=tmp_path)
    run(*find_compiler(), "-std=c99", "-O1", "-c", "topokd_kernels.c", "-o", "k.o", cwd=tmp_path)
    for name in ("s.o", "k.o"):
        content = (tmp_path / name).read_bytes()
        for symbol in (b"malloc", b"free", b"printf", b"memcpy@", b"floor", b"roundf", b"lrint"):
            assert b"\0" + symbol + b"\0" not in content


@pytest.mark.parametrize("kernel", ["SMLAD", pytest.param("BLK", marks=pytest.mark.slow)])
def test_instructions_flash_and_ram_on_a_cortex_m4(kernel: str) -> None:
    content = large_int8_file()
    graph = graph_of(content)
    products = sum(item.weight.size * item.output.rows for item in graph.layers if isinstance(item, Conv))
    assert products == 10_056_896
    files = write_c(graph, app(graph), None)
    firmware = build_firmware(files, "cortex-m4", ("-O2", f"-DTK_KERNEL=TK_KERNEL_{kernel}"))
    window = any_levels(graph, 4)[3]
    execution = run_firmware(firmware, window, graph.output.channels)
    assert np.array_equal(execution.logits, tflm_logits(content, window[None])[0])
    assert execution.instructions <= MAX_PER_PRODUCT[kernel] * products
    assert firmware.flash_bytes - weight_bytes(graph) <= MAX_FLASH_BEYOND_WEIGHTS
    assert ram_bytes(graph, plan_arena(graph)) <= MAX_RAM
    assert execution.stack_bytes < 512


@pytest.mark.parametrize("perturbed", [False, True], ids=["calibrated", "perturbed"])
def test_odd_sizes_on_a_cortex_m4(perturbed: bool) -> None:
    check_on_m4(3, perturbed=perturbed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 140))
def test_many_more_graphs_on_a_cortex_m4(seed: int) -> None:
    check_on_m4(seed, perturbed=bool(seed % 2))


def check_on_m4(seed: int, *, perturbed: bool) -> None:
    content = random_int8(seed, perturbed=perturbed)
    graph = graph_of(content)
    flags = ("-O2", "-DTK_KERNEL=TK_KERNEL_SMLAD")
    firmware = build_firmware(write_c(graph, app(graph), None), "cortex-m4", flags)
    levels = any_levels(graph, 6, seed=seed)
    for window, expected in zip(levels, tflm_logits(content, levels), strict=True):
        got = run_firmware(firmware, window, graph.output.channels).logits
        assert np.array_equal(got, expected)


def test_memory_is_what_the_export_says() -> None:
    for content in (int8_file(), large_int8_file(), random_int8(0)):
        graph = graph_of(content)
        plan = plan_arena(graph)
        assert compiled(content).ram_bytes == ram_bytes(graph, plan, value_bytes=1) <= ram_bytes(graph, plan)
    assert plan_arena(graph_of(large_int8_file())).arena_bytes == 2 * 500 * 16
