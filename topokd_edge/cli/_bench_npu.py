"""What a bench says of NPUs: estimates of the int8 student, modelled and not measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from topokd_bench import npu
from topokd_bench.local import Measured

from topokd_edge.bundle import Bundle
from topokd_edge.cli import console
from topokd_edge.progress import Progress

_HEADS = ["target", "ms", "range ms", "cycles", "clock MHz", "SRAM kB", "weights kB", "system, memory mode"]


def estimates(bundle: Bundle, targets: Sequence[str], progress: Progress) -> list[Measured]:
    """Return an estimate of the bundle's int8 student for every `npu:...` of `targets`.

    Raises
    ------
    BadInputError, MissingError, DeviceError, CheckFailedError
        When the bundle has no int8 TFLite file; and see `topokd_bench.npu.estimate`.
    """
    asked = [target for target in targets if target.startswith(npu.TARGET)]
    found = []
    for index, target in enumerate(asked):
        progress("npu", index, len(asked), target)
        path = bundle.model_path("tflite", "int8")
        found.append(Measured(npu.estimate(path, target.removeprefix(npu.TARGET))))
    if asked:
        progress("npu", len(asked), len(asked))
    return found


def show(name: str, modelled: Sequence[Measured]) -> None:
    """Print the estimates as a table of their own."""
    rows = []
    for result in (item.result for item in modelled):
        device: dict[str, Any] = result.device
        rows.append(
            [
                result.target,
                f"{(result.latency_ms or {})['p50']:.3f}",
                " to ".join(f"{(result.latency_range_ms or {})[end]:.3f}" for end in ("low", "high")),
                f"{result.cycles:,}",
                f"{device['clock_mhz']:g}",
                f"{(result.ram_bytes or 0) / 1e3:.1f}",
                f"{(result.flash_bytes or 0) / 1e3:.1f}",
                f"{device['system_config']}, {device['memory_mode']}",
            ]
        )
    if rows:
        version = next(iter(modelled[0].result.versions.values()))
        console.table(f"{name}: student.int8 modelled by vela {version}, not measured", _HEADS, rows)
