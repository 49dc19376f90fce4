"""What an Arm Ethos-U would take for the int8 student, as Arm's compiler vela models it; none is measured."""

from __future__ import annotations

import csv
import importlib.util
import math
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from topokd_bench.result import BenchResult
from topokd_edge.bundle import BadInputError, CheckFailedError, DeviceError, MissingError

TARGET = "npu:"
CONFIG = "Arm/vela.ini"
"""The file that comes with vela: clocks, bandwidths and memories of Arm's own example systems."""
TIMEOUT_S = 120.0
_PACKAGE = "ethos-u-vela"
_PARTS = (
    *("cycles_npu", "cycles_sram_access", "cycles_dram_access"),
    *("cycles_on_chip_flash_access", "cycles_off_chip_flash_access"),
)
_RANGE = (
    "vela's cycles of computing and of each memory: least, all at the same time; most, one after another. "
    "Arm publishes no error of them"
)
_KIB = 1024


@dataclass(frozen=True)
class System:
    """A system of `CONFIG`: clocks and bandwidths, and where weights and activations lie."""

    system_config: str
    memory_mode: str


_U55 = System("Ethos_U55_High_End_Embedded", "Shared_Sram")
_U65 = System("Ethos_U65_High_End", "Dedicated_Sram")
SYSTEMS = {
    **{f"ethos-u55-{macs}": _U55 for macs in (32, 64, 128, 256)},
    **{f"ethos-u65-{macs}": _U65 for macs in (256, 512)},
}
"""The high-end system of each family. The last number of a name is its multiply-accumulates a cycle."""


def estimate(path: Path, accelerator: str, *, timeout: float = TIMEOUT_S) -> BenchResult:
    """Have vela compile an int8 TFLite student, and return what its performance model says.

    Parameters
    ----------
    path
        The model file.
    accelerator
        A key of `SYSTEMS`.
    timeout
        Seconds after which vela is stopped.

    Returns
    -------
    BenchResult
        basis `modelled`: latency and cycles with their range, SRAM and flash; no cold start.

    Raises
    ------
    MissingError
        When vela is not installed.
    DeviceError
        When it fails, or does not end in time.
    CheckFailedError
        When an operator would fall back to the CPU, which the figures leave out.
    """
    if importlib.util.find_spec("ethosu") is None:
        raise MissingError(
            f"an estimate for {accelerator} needs the package {_PACKAGE}",
            hint="pip install 'topokd-edge[npu]'",
        )
    if not path.is_file():
        raise BadInputError(f"{path}: no such file")
    with tempfile.TemporaryDirectory(prefix="topokd-vela-") as folder:
        told = _run(path, accelerator, Path(folder), timeout)
        tables = sorted(Path(folder).glob("*_summary_*.csv"))
        if len(tables) != 1:
            raise DeviceError(f"vela wrote {len(tables)} summaries of {path.name}, expected one")
        numbers = _summary(tables[0])
    on_npu, on_cpu = _operators(told)
    if on_cpu:
        raise CheckFailedError(
            f"{path}: {on_cpu} operators are not for the {accelerator} and would run on the CPU",
            hint="only a full-integer model runs whole on it: student_int8.tflite",
        )
    return _result(path, accelerator, numbers, on_npu)


def _run(path: Path, accelerator: str, folder: Path, timeout: float) -> str:
    """Run vela in a child process; return what it printed."""
    system = SYSTEMS[accelerator]
    command = [
        *(sys.executable, "-m", "ethosu.vela", str(path.resolve())),
        *("--accelerator-config", accelerator),
        *("--config", CONFIG),
        *("--system-config", system.system_config),
        *("--memory-mode", system.memory_mode),
        *("--output-dir", str(folder)),
    ]
    try:
        child = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, check=False, cwd=folder
        )
    except subprocess.TimeoutExpired:
        raise DeviceError(f"vela did not end within {timeout:g} s and was stopped ({path.name})") from None
    if child.returncode != 0:
        lines = (child.stderr.strip() or child.stdout.strip()).splitlines() or ["no message"]
        raise DeviceError(f"vela refuses {path.name} with status {child.returncode} ({lines[-1]})")
    return child.stdout


def _summary(table: Path) -> dict[str, float]:
    """Return the numbers of the one row of vela's summary."""
    with table.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    wanted = (
        *("core_clock", "inference_time", "cycles_total", "nn_macs", "sram_memory_used"),
        *("on_chip_flash_memory_used", "off_chip_flash_memory_used", "dram_memory_used"),
        *_PARTS,
    )
    numbers = {}
    for name in wanted:
        try:
            numbers[name] = float(rows[0][name])
        except (IndexError, KeyError, TypeError, ValueError):
            numbers[name] = math.nan
    wrong = [name for name, value in numbers.items() if not 0 <= value < math.inf]
    if wrong:
        raise DeviceError(
            f"the summary of vela has no usable {', '.join(wrong)}", hint="pip install 'topokd-edge[npu]'"
        )
    return numbers


def _operators(told: str) -> tuple[int, int]:
    """Return how many operators run on the NPU and on the CPU, from what vela printed."""
    found = [re.search(rf"{where} operators = (\d+)", told) for where in ("NPU", "CPU")]
    if found[0] is None or found[1] is None:
        raise DeviceError("vela did not say how many operators the NPU runs")
    return int(found[0][1]), int(found[1][1])


def _result(path: Path, accelerator: str, numbers: dict[str, float], on_npu: int) -> BenchResult:
    system, milliseconds = SYSTEMS[accelerator], numbers["inference_time"] * 1e3
    parts, period_ms = [numbers[name] for name in _PARTS], 1e3 / numbers["core_clock"]
    least, most = max(parts), sum(parts)
    flash = numbers["on_chip_flash_memory_used"] + numbers["off_chip_flash_memory_used"]
    return BenchResult(
        target=f"{TARGET}{accelerator}",
        basis="modelled",
        pipeline="student.int8",
        runtime="vela",
        latency_ms=dict.fromkeys(("p50", "p95", "p99", "min"), milliseconds),
        latency_range_ms={"low": least * period_ms, "high": most * period_ms, "basis": _RANGE},
        cycles_range={"low": least, "high": most, "basis": _RANGE},
        ram_bytes=round(numbers["sram_memory_used"] * _KIB),
        flash_bytes=round((flash + numbers["dram_memory_used"]) * _KIB),
        model_bytes=path.stat().st_size,
        macs=round(numbers["nn_macs"]),
        cycles=round(numbers["cycles_total"]),
        device={
            "name": accelerator,
            "clock_mhz": numbers["core_clock"] / 1e6,
            "config": CONFIG,
            "system_config": system.system_config,
            "memory_mode": system.memory_mode,
            "npu_operators": on_npu,
            "covers": "the network alone, from int8 window to int8 logits",
        },
        versions={_PACKAGE: metadata.version(_PACKAGE)},
    )
