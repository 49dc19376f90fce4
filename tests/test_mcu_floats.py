"""Float pipelines on microcontrollers: the bits of the same C here, counts, rows beside the int8 student."""

from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from export_cases import add_teachers, make_run, noise
from test_bench import topokd
from test_float_c import by_onnxruntime, onnx_of, topology_case, waves
from test_mcu import execution
from topokd_bench.boards import open_board
from topokd_bench.result import BenchResult
from topokd_export.c.cores import CORES
from topokd_export.c.cycles import cycles
from topokd_export.c.firmware import FLOAT_APP, build_firmware
from topokd_export.c.float_host import EXACT
from topokd_export.c.float_on_core import FloatOnCore
from topokd_export.c.float_on_m55 import pipeline_on
from topokd_export.c.float_writer import FloatPipeline, signal_pipeline
from topokd_export.export import export_student

from topokd_edge.errors import CheckFailedError
from topokd_edge.models.wrn import WRNSpec
from topokd_edge.topology.image import persistence_images

SPEC = WRNSpec(1, 10, 1, 2, 4)
NO_QEMU = pytest.mark.skipif(not shutil.which("qemu-system-arm"), reason="qemu-system-arm is not installed")
every_core = pytest.mark.parametrize(
    "core",
    [
        pytest.param(
            name,
            marks=[
                *([pytest.mark.slow] if name != "cortex-m4" else []),
                *([] if core.emulator else [NO_QEMU]),
            ],
        )
        for name, core in CORES.items()
    ],
)
PIPELINES = ["tda", "teacher.signal", "student.float32", "student.int8"]


@functools.cache
def student() -> tuple[FloatPipeline, np.ndarray, np.ndarray]:
    """A student, raw windows, and its logits by onnxruntime."""
    content = onnx_of(SPEC, (16,))
    x = noise(5, SPEC, (16,))
    return signal_pipeline(content, (0.0, 0.0), (1.0, 1.0)), x, by_onnxruntime(content, x)


@functools.cache
def teacher() -> tuple[FloatPipeline, np.ndarray, np.ndarray]:
    """The same of a topology teacher."""
    pipeline, content, params = topology_case(WRNSpec(2, 10, 1, 2, 3, stem_stride=2), size=(8, 8), sigma=0.05)
    x = waves(3, 2, pipeline.length, seed=1)
    images = (persistence_images(x, params, threads=1)[0] - np.float32(0.01)) / np.float32(0.05)
    return pipeline, x, by_onnxruntime(content, images)


@every_core
def test_a_core_gives_the_bits_of_the_same_c_here(core: str) -> None:
    for pipeline, x, expected in (student(), teacher()):
        there = pipeline_on(pipeline, core)
        firmware = there.build()
        counts = there.prove(x, expected)
        assert (counts.windows, counts.proven) == (1, len(x))
        assert [name for name, _ in counts.layers] == ["input", *(layer.name for layer in pipeline.layers)]
        assert sum(number for _, number in counts.layers) == counts.instructions
        assert all(number > 0 for _, number in counts.layers)
        assert counts.cycles[0] <= counts.cycles[1] < 2.5 * counts.instructions
        assert 0 < firmware.flash_bytes - there.needs.flash_bytes < 32_000
        assert there.classify(x).tolist() == expected.argmax(axis=1).tolist()
        assert there.kernel == ("FPU" if core[-2:] in ("m4", "m7", "33", "55") else "soft-float")


def test_an_fpu_is_used_where_there_is_one() -> None:
    """Thirteen instructions a product would be fast for software; with an FPU it is under five."""
    pipeline, x, expected = student()
    products = (
        16 * (16 * 2 * 3 + 2 * 16 * 48)
        + 8 * (32 * 48 + 32 * 96 + 16 * 32)
        + 4 * (64 * 96 + 64 * 192 + 32 * 64)
    )
    assert FloatOnCore(pipeline, "cortex-m4").prove(x, expected).instructions < 5 * products


def test_what_the_c_does_wrong_is_found() -> None:
    pipeline, x, expected = student()
    with pytest.raises(CheckFailedError, match="window 2: the C gives the logits"):
        wrong = expected.copy()
        wrong[2, 1] += 1e-3 * np.abs(expected[2]).max()
        FloatOnCore(pipeline, "cortex-m4").prove(x, wrong)
    there = FloatOnCore(pipeline, "cortex-m4")
    files = dict(there._files)
    at = files["pipeline.c"].index("bias_1[") + files["pipeline.c"].split("bias_1[")[1].index("{") + 9
    end = files["pipeline.c"].index(",", at)
    files["pipeline.c"] = f"{files['pipeline.c'][:at]} 0.625f{files['pipeline.c'][end:]}"
    there.firmware = build_firmware(
        files, "cortex-m4", EXACT, program=FLOAT_APP, sources=pipeline.sources, fpu=True
    )
    with pytest.raises(CheckFailedError, match="cortex-m4: window 0: logits"):
        there.prove(x, expected)


@pytest.mark.parametrize(
    ("code", "low", "high"),
    [
        # vmul.f32 s2, s0, s1; vadd.f32 s3, s2, s0 (waits); bx lr
        ("20ee201a 71ee001a 7047", 2 + 1 + 1, 2 + 1 + 1),
        # vmul.f32 s2, s0, s1; vadd.f32 s2, s0, s1 (does not)
        ("20ee201a 30ee201a", 1 + 1, 1 + 1),
        # vldr s0, [r1]; vldr s0, [r1]; vfma.f32 s2, s0, s1; vdiv.f32 s2, s0, s1
        ("91ed000a 91ed000a a0ee201a 80ee201a", 1 + 2 + 3 + 14, 2 + 2 + 3 + 14),
        # vmul.f32 s2, s0, s1; vfma.f32 s2, s0, s1: an addend is needed later
        ("20ee201a a0ee201a", 1 + 3, 1 + 3),
        # vpush {d8, d9}: one, and one for each half
        ("2ded048b", 1 + 4, 1 + 4),
    ],
)
def test_cycles_of_floats_are_those_of_the_table(code: str, low: float, high: float) -> None:
    assert cycles(execution(code), "cortex-m4") == (low, high)


# --- the verb


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("mcu-floats")
    run = make_run(made)
    add_teachers(run)
    export_student(run, 1, 0, made / "bundle", targets=("onnx", "tflite"))
    return made


def test_four_pipelines_stand_side_by_side_on_a_core_and_on_boards(folder: Path) -> None:
    on = ["mcu:cortex-m4", "mcu:nrf52840", "mcu:max32660"]
    child = topokd("bench", "bundle", "--on", ",".join(on), "--windows", 5, "--json", cwd=folder)
    assert child.returncode == 0, child.stderr
    answer = json.loads(child.stdout)
    results = [BenchResult.from_dict(item) for item in answer["results"]]
    assert [(item.target, item.pipeline) for item in results] == [(t, name) for t in on for name in PIPELINES]
    fits = {item.pipeline: item for item in results if item.target == "mcu:nrf52840"}
    for item in fits.values():
        assert item.runtime == "c" and item.windows == 5 and item.accuracy is not None
        assert item.instructions == sum(layer["instructions"] for layer in item.layers)
        assert (
            item.latency_range_ms is not None and item.energy_uj is not None and item.battery_days is not None
        )
    names = [layer["name"] for layer in fits["tda"].layers]
    assert names[:4] == ["input", "persistence", "image", "stem"]
    assert fits["student.float32"].kernel == "FPU" and fits["student.int8"].kernel == "SMLAD"
    assert "table 7-1" in fits["tda"].cycles_range["basis"]  # type: ignore[index]
    assert "table 7-1" not in fits["student.int8"].cycles_range["basis"]  # type: ignore[index]
    # Random teachers of the size of a student, and a board of 262,144 bytes of flash.
    board = open_board("max32660")
    for item in (item for item in results if item.target == "mcu:max32660"):
        needed = fits[item.pipeline].flash_bytes or 0
        assert bool(item.error) == (needed > board.flash_bytes), item.pipeline
        assert f"flash: needs {needed:,} bytes" in item.error or not item.error
        assert (item.instructions is None) == bool(item.error)
    assert any(item.error for item in results)


@pytest.mark.slow
def test_without_a_run_there_are_the_two_students(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "bundle", tmp_path / "bundle")
    child = topokd("bench", "bundle", "--on", "mcu:cortex-m4", "--json", cwd=tmp_path)
    assert child.returncode == 0, child.stderr
    results = json.loads(child.stdout)["results"]
    assert [item["pipeline"] for item in results] == PIPELINES[2:]
    assert all(item["accuracy"] is None for item in results) and "no accuracy" in child.stderr


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("arm-none-eabi-gcc"), reason="arm-none-eabi-gcc is not installed")
def test_gcc_builds_the_same_pipelines() -> None:
    for core in ("cortex-m0plus", "cortex-m4"):
        for pipeline, x, expected in (student(), teacher()):
            there = FloatOnCore(pipeline, core)
            there.build("gcc")
            assert there.prove(x, expected).proven == len(x)
            assert there.compiler.startswith("arm-none-eabi-gcc ")


def test_loops_make_a_row_that_says_why(folder: Path) -> None:
    from topokd_bench.local import Job
    from topokd_bench.pipelines import TDA

    from topokd_edge.cli import _bench_mcu_floats
    from topokd_edge.cli._bench_plan import BenchPlan

    path = folder / "loops.onnx"
    path.write_bytes(onnx_of(WRNSpec(2, 10, 1, 2, 3), (8, 8)))
    _, _, params = topology_case(WRNSpec(2, 10, 1, 2, 3), size=(8, 8))
    fitted = {
        "topology": {**params.to_dict(), "filtration": "delay"},
        "image": {"mean": [0.0] * 2, "std": [1.0] * 2},
    }
    job = Job("tda", "ripser+persim+onnxruntime", TDA, {"path": str(path), "preprocessing": fitted}, 1)
    (found,) = _bench_mcu_floats.float_jobs(BenchPlan([job], None, (), ()), 60)  # type: ignore[arg-type]
    assert found.pipeline is None and "delay" in found.error
