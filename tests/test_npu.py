"""NPU estimates: vela's own numbers, marked as modelled, and honest refusals."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from export_cases import activities, make_run, trained_student
from topokd_bench import npu
from topokd_bench.result import BenchResult
from topokd_export.c.writer import app_numbers
from topokd_export.deploy import deploy_form
from topokd_export.export import export_student
from topokd_export.quantise import quantise
from topokd_export.tflite_metadata import with_metadata
from topokd_export.tflite_writer import write_tflite

from topokd_edge.bundle import Bundle
from topokd_edge.cli import main
from topokd_edge.errors import BadInputError, CheckFailedError, DeviceError, MissingError
from topokd_edge.models.wrn import count

WIDTHS = ("ethos-u55-32", "ethos-u55-256", "ethos-u65-512")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = make_run(tmp_path_factory.mktemp("run"))
    export_student(run, 1, 0, run.folder.parent / "bundle", targets=("tflite",))
    return run.folder.parent / "bundle"


@pytest.fixture
def vela() -> None:
    pytest.importorskip("ethosu.vela")


@pytest.mark.usefixtures("vela")
def test_the_numbers_are_those_that_vela_writes(bundle: Path, tmp_path: Path) -> None:
    path = bundle / "student_int8.tflite"
    subprocess.run(
        [
            *(sys.executable, "-m", "ethosu.vela", path, "--output-dir", tmp_path),
            *("--accelerator-config", "ethos-u55-128", "--config", "Arm/vela.ini"),
            *("--system-config", "Ethos_U55_High_End_Embedded", "--memory-mode", "Shared_Sram"),
        ],
        check=True,
        capture_output=True,
    )
    with (tmp_path / "student_int8_summary_Ethos_U55_High_End_Embedded.csv").open() as stream:
        (row,) = csv.DictReader(stream)
    result = npu.estimate(path, "ethos-u55-128")
    assert (result.basis, result.pipeline, result.target) == ("modelled", "student.int8", "npu:ethos-u55-128")
    assert result.cycles == round(float(row["cycles_total"]))
    assert result.latency_ms["p50"] == pytest.approx(result.cycles / 500e6 * 1e3, rel=1e-3)  # 500 MHz
    parts = [
        float(row[f"cycles_{part}"])
        for part in ("npu", "sram_access", "dram_access", "on_chip_flash_access", "off_chip_flash_access")
    ]
    assert result.cycles_range is not None
    assert result.latency_range_ms is not None
    assert (result.cycles_range["low"], result.cycles_range["high"]) == (max(parts), sum(parts))
    assert result.latency_range_ms["high"] == pytest.approx(sum(parts) / 500e6 * 1e3)
    assert result.ram_bytes == pytest.approx(1024 * float(row["sram_memory_used"]), abs=1)
    assert result.model_bytes == path.stat().st_size
    # More than the weights alone, less than the whole file; and the network's own multiply-accumulates.
    params, macs = count(trained_student().spec, (50,))
    assert params < result.flash_bytes < result.model_bytes
    assert macs <= result.macs < 1.05 * macs
    assert result.device["npu_operators"] == 31
    assert result.versions == {"ethos-u-vela": "5.2.0"}


@pytest.mark.usefixtures("vela")
def test_a_wider_npu_is_not_slower_and_every_family_has_its_system(bundle: Path) -> None:
    found = {name: npu.estimate(bundle / "student_int8.tflite", name) for name in WIDTHS}
    cycles = [found[f"ethos-u55-{macs}"].cycles for macs in (32, 256)]
    assert cycles == sorted(cycles, reverse=True)
    for name, result in found.items():
        assert result.latency_ms["p50"] * result.device["clock_mhz"] * 1e3 == pytest.approx(
            result.cycles, rel=1e-3
        ), name
        assert BenchResult.from_dict(json.loads(json.dumps(result.to_dict()))) == result
        assert "cold" not in result.latency_ms
        assert result.cycles_range["low"] <= result.cycles <= result.cycles_range["high"], name
        assert result.latency_range_ms["low"] < result.latency_ms["p50"] < result.latency_range_ms["high"]


@pytest.mark.usefixtures("vela")
def test_what_would_run_on_the_cpu_is_refused(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "float.tflite").write_bytes(write_tflite(deploy_form(trained_student(), (50,))))
    with pytest.raises(CheckFailedError, match="32 operators are not for the ethos-u55-128"):
        npu.estimate(tmp_path / "float.tflite", "ethos-u55-128")
    (tmp_path / "bad.tflite").write_bytes(b"not a model, by far")
    with pytest.raises(DeviceError, match=r"vela refuses bad\.tflite"):
        npu.estimate(tmp_path / "bad.tflite", "ethos-u55-128")
    with pytest.raises(DeviceError, match=r"did not end within 0\.01 s"):
        npu.estimate(bundle / "student_int8.tflite", "ethos-u55-128", timeout=0.01)
    with pytest.raises(BadInputError, match="no such file"):
        npu.estimate(tmp_path / "absent.tflite", "ethos-u55-128")


@pytest.mark.usefixtures("vela")
def test_metadata_does_not_change_the_estimate(bundle: Path, tmp_path: Path) -> None:
    bare = quantise(deploy_form(trained_student(), (50,)), activities(128, seed=5)[0])
    answers = []
    for content in (bare, with_metadata(bare, app_numbers(Bundle.open(bundle).manifest))):
        (tmp_path / "m.tflite").write_bytes(content)
        answers.append(npu.estimate(tmp_path / "m.tflite", "ethos-u55-128"))
    assert answers[0].cycles == answers[1].cycles
    assert answers[0].flash_bytes == answers[1].flash_bytes


def test_without_vela_the_extra_is_named(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ethosu", None)
    with pytest.raises(MissingError, match="ethos-u-vela") as caught:
        npu.estimate(bundle / "student_int8.tflite", "ethos-u55-128")
    assert caught.value.hint == "pip install 'topokd-edge[npu]'"


@pytest.mark.parametrize(
    "change", [("cycles_total", "nan"), ("inference_time", "soon"), ("core_clock", "-1")]
)
def test_a_summary_that_is_no_summary_is_refused(tmp_path: Path, change: tuple[str, str]) -> None:
    names = ("core_clock", "inference_time", "cycles_total", "nn_macs", "sram_memory_used")
    memories = ("on_chip_flash_memory_used", "off_chip_flash_memory_used", "dram_memory_used")
    row = dict.fromkeys((*names, *memories, *npu._PARTS), "1.5")
    table = tmp_path / "m_summary_x.csv"
    for values, message in ((row | dict([change]), change[0]), ({"core_clock": "1"}, "cycles_total")):
        table.write_text(f"{','.join(values)}\n{','.join(values.values())}\n")
        with pytest.raises(DeviceError, match=f"no usable .*{message}"):
            npu._summary(table)
    table.write_text(f"{','.join(row)}\n")
    with pytest.raises(DeviceError, match="no usable core_clock"):
        npu._summary(table)
    table.write_text(f"{','.join(row)}\n{','.join(row.values())}\n")
    assert npu._summary(table)["nn_macs"] == 1.5


@pytest.mark.usefixtures("vela")
def test_bench_puts_it_beside_the_measured_and_marks_it(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["topokd-edge", "bench", str(bundle), *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        told = capsys.readouterr()
        return int(caught.value.code or 0), told.out, told.err

    code, out, _ = answer("--on", "npu:ethos-u55-128,npu:ethos-u55-128", "--json")
    assert code == 0
    results = json.loads(out)["results"]
    assert [item["target"] for item in results] == ["npu:ethos-u55-128"]
    assert {item["basis"] for item in results} == {"modelled"}
    code, out, _ = answer("--on", "npu:ethos-u55-128")
    assert code == 0
    assert "modelled by vela 5.2.0, not measured" in out
    code, out, told = answer("--on", "npu:hexagon")
    assert (code, out) == (2, "")
    assert "ethos-u55-128" in told
