"""What this machine is, and what may have disturbed a measurement on it."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any

_CPU = Path("/sys/devices/system/cpu")
_ZONES = Path("/sys/class/thermal")
_SUPPLIES = Path("/sys/class/power_supply")
_CPU_ZONE = ("cpu", "pkg", "soc", "core")
"""What the kernel names a temperature sensor of the processor by; `thermal_zone*/type` holds it."""
_INT8_DOT_PRODUCTS = frozenset({"avx512_vnni", "avx_vnni", "asimddp", "i8mm", "amx_int8"})
"""Instructions, as /proc/cpuinfo spells them, without which int8 is often no faster than float32."""
_OTHERS = 0.25
"""Cores that other processes used while a run was timed, above which its figures are marked as disturbed."""
_OWN_CORE = 0.95
"""Part of one core a run that never waits must have had; with less, something else ran in its place."""


def describe() -> dict[str, Any]:
    """Return the CPU, cores, clock governor, memory and operating system; what cannot be read is None.

    `int8_dot_products` lists the CPU's own instructions for int8 arithmetic, `virtual` tells a virtual
    machine, and `supply` is "mains" or "battery".
    """
    return {
        "cpu": _cpu_name(),
        "int8_dot_products": sorted(_INT8_DOT_PRODUCTS & set(_cpu_info("flags", "Features").split())),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "usable_cores": len(usable_cores()),
        "memory_bytes": _memory_bytes(),
        "virtual": _virtual(),
        "supply": _supply(),
        "governor": _text(_CPU / "cpu0/cpufreq/scaling_governor"),
        "max_khz": _number(_CPU / "cpu0/cpufreq/cpuinfo_max_freq"),
        "os": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def load_average() -> float | None:
    """Return the processes that wanted a core over the last minute, on average."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def busy_seconds() -> float | None:
    """Return the seconds all cores together have worked since boot; None where the kernel does not tell.

    A load average would not do: it remembers the last minutes, such as the training just before a bench.
    """
    first, *counts = (_text(Path("/proc/stat")) or "").partition("\n")[0].split() or [""]
    if first != "cpu" or len(counts) < 8:
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = (int(count) for count in counts[:8])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def is_busy(others_share: float | None, cpu_share: float | None) -> bool:
    """Tell whether a run was disturbed: by the cores others used while it ran, or by those it did not get."""
    disturbed = others_share is not None and others_share > _OTHERS
    return disturbed or (cpu_share is not None and cpu_share < _OWN_CORE)


def throttle_count() -> int | None:
    """Return how often the kernel has seen the cores throttle since boot; None when it does not tell."""
    counts = [_number(path) for path in _CPU.glob("cpu[0-9]*/thermal_throttle/core_throttle_count")]
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def current_khz() -> int | None:
    """Return the clock now, in kHz, of the quickest core that this process may use; None when not known."""
    clocks = [_number(_CPU / f"cpu{core}/cpufreq/scaling_cur_freq") for core in usable_cores()]
    return max((clock for clock in clocks if clock is not None), default=None)


def temperature_c() -> float | None:
    """Return the hottest of the processor's temperature sensors, in degrees Celsius; None without one."""
    found = [
        _number(zone / "temp")
        for zone in _ZONES.glob("thermal_zone*")
        if any(word in (_text(zone / "type") or "").lower() for word in _CPU_ZONE)
    ]
    return max((value / 1000 for value in found if value is not None), default=None)


def state(when: str) -> dict[str, float | None]:
    """Return clock and temperature now, with `when` behind their names."""
    return {f"khz_{when}": current_khz(), f"temperature_c_{when}": temperature_c()}


def usable_cores() -> list[int]:
    """Return the numbers of the cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def pin(count: int) -> list[int] | None:
    """Keep this process and its threads to come on `count` cores; None where the system cannot.

    Quickest first, of each physical core one before the second of any, and of alike ones those with the
    highest numbers, since the first core often serves the interrupts.
    """
    if not hasattr(os, "sched_setaffinity"):
        return None
    ranked = sorted(usable_cores(), key=lambda core: (_capacity(core), core), reverse=True)
    seen: set[str] = set()
    second: dict[int, bool] = {}
    for core in ranked:
        physical = _text(_CPU / f"cpu{core}/topology/thread_siblings_list") or str(core)
        second[core] = physical in seen
        seen.add(physical)
    chosen = sorted(ranked, key=lambda core: second[core])[:count]
    os.sched_setaffinity(0, chosen)
    return sorted(chosen)


def peak_memory_bytes() -> int:
    """Return the peak resident memory of this process since it was started.

    `ru_maxrss` survives `exec` on Linux, so a child of a large process reports its parent's peak;
    `VmHWM` begins anew and is used where there is one.
    """
    for line in (_text(Path("/proc/self/status")) or "").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _cpu_name() -> str:
    board = (_text(Path("/proc/device-tree/model")) or "").strip("\0 ")
    return _cpu_info("model name") or board or platform.processor() or platform.machine()


def _cpu_info(*keys: str) -> str:
    """Return the first value in /proc/cpuinfo that has one of `keys`; empty when there is none."""
    for line in (_text(Path("/proc/cpuinfo")) or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in keys:
            return value.strip()
    return ""


def _capacity(core: int) -> int:
    """Return how quick a core is: on Arm relative to the others, elsewhere its highest clock; 0 not known."""
    own = _CPU / f"cpu{core}"
    return _number(own / "cpu_capacity") or _number(own / "cpufreq/cpuinfo_max_freq") or 0


def _virtual() -> bool | None:
    """Tell a virtual machine: x86 has a flag of it; on Arm only some hypervisors tell."""
    if Path("/proc/device-tree/hypervisor").exists():
        return True
    flags = _cpu_info("flags").split()
    return "hypervisor" in flags if flags else None


def _supply() -> str | None:
    """Return what feeds the machine, as the kernel knows it: a mains adapter, or a battery that is not."""
    kinds = [(_text(path / "type"), path) for path in sorted(_SUPPLIES.glob("*"))]
    if any(kind in ("Mains", "USB") and _number(path / "online") for kind, path in kinds):
        return "mains"
    return "battery" if any(kind == "Battery" for kind, _ in kinds) else None


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text is not None and text.isdecimal() else None
