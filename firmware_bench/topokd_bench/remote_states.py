"""What an agent says of a device's state and of the modes it measured, as fields of `BenchResult`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from topokd_bench.ssh import plain
from topokd_bench.timing import NS_PER_MS, Timing, sustained_summary

_STATES = ("khz", "temperature_c", "load", "get_throttled")
_UNDER_VOLTAGE, _THROTTLED_NOW = 0x1, 0xE
_SINCE_BOOT = 16
"""Bits of `vcgencmd get_throttled` (Raspberry Pi documentation, vcgencmd): 0 under-voltage, 1 clock capped, 2
throttled, 3 soft temperature limit; the same 16 higher for since boot."""


def modes(raw: Mapping[str, Any], job: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return by mode what an agent measured otherwise than back to back for a moment."""
    found = {}
    if "paced" in raw:
        timing = timing_of(raw["paced"]["ns"], 0)
        signs = {"every_s": job["paced"]["every"], "others_share": share(raw["paced"]["others_share"])}
        found["duty-cycled"] = _mode_fields(timing, raw["paced"]["before"], raw["paced"]["after"], signs)
    if "sustained" in raw:
        own = raw["sustained"]
        timing = timing_of(own["ns"], 0)
        medians = [int(each["p50_ns"]) / NS_PER_MS for each in own["slices"]]
        states = [state_of(each, "state") for each in own["slices"]]
        fields = _mode_fields(timing, own["before"], own["slices"][-1]["state"], {})
        calls = [int(each["calls"]) for each in own["slices"]]
        fields["runs"] = calls[-1]
        fields["sustained"] = sustained_summary(job["sustained"], sum(calls), medians, states)
        found["sustained"] = fields
    return found


def _mode_fields(timing: Timing, before: Any, after: Any, signs: Mapping[str, Any]) -> dict[str, Any]:
    first, last = state_of({"state": before}, "state"), state_of({"state": after}, "state")
    return {
        "latency_ms": timing.percentiles_ms(),
        "runs": timing.runs,
        "warmup": timing.warmup,
        "throttled": throttled(first, last),
        "device": {**signs, **both_states(first, last), "cpu_share": None},
    }


def timing_of(ns: Any, warmup: int) -> Timing:
    """Return the times an agent counted, in nanoseconds.

    Raises
    ------
    ValueError, TypeError
        When they are none.
    """
    times = np.array(ns, dtype=np.int64)
    if times.ndim != 1 or not len(times) or times.min() < 0:
        raise ValueError("no times")
    return Timing(times, warmup)


def both_states(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return what changes while a device works, before and after, by names for `BenchResult.device`."""
    both = (("before", before), ("after", after))
    return {f"{name}_{when}": state.get(name) for name in _STATES for when, state in both}


def state_of(answer: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return the state before or after a run; what is not a number is None."""
    return {
        name: value if isinstance(value, int | float) else None
        for name, value in plain(answer.get(key)).items()
    }


def under_voltage(state: Mapping[str, Any]) -> bool | None:
    """Tell whether the supply of a Raspberry Pi is or was too weak; None where it does not tell."""
    value = state.get("get_throttled")
    mask = _UNDER_VOLTAGE | _UNDER_VOLTAGE << _SINCE_BOOT
    return bool(value & mask) if isinstance(value, int) else None


def throttled(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool | None:
    """Tell whether the device throttled: now, or newly since boot; else whether the kernel counted more."""
    first, last = before.get("get_throttled"), after.get("get_throttled")
    if isinstance(first, int) and isinstance(last, int):
        news = last & ~first & _THROTTLED_NOW << _SINCE_BOOT
        return bool(news or (first | last) & _THROTTLED_NOW)
    first, last = before.get("throttle_count"), after.get("throttle_count")
    return None if first is None or last is None else bool(last > first)


def share(value: Any) -> float | None:
    """Return a share of the cores; None where the device does not tell."""
    return None if value is None else float(value)
