"""What an Android device says of its clocks, temperatures and power while it is measured."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from topokd_bench.ssh import clean

STATE = """sh -c '
for f in /sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq; do echo "khz: $(cat $f)"; done
for z in /sys/class/thermal/thermal_zone*; do echo "zone $(cat $z/type): $(cat $z/temp)"; done
echo "governor: $(cat /sys/devices/system/cpu/cpu0/cpufreq/scaling_governor)"
echo "load: $(cat /proc/loadavg)"
dumpsys battery; dumpsys thermalservice' 2>/dev/null"""
"""Everything that may be read without root; what may not, or is not there, is simply missing."""
_LINE = re.compile(r"^\s*([A-Za-z][\w .-]*): *(.*?)\s*$")


def read_state(lines: Sequence[str]) -> dict[str, Any]:
    """Read what `STATE` prints.

    Returns
    -------
    dict
        `khz` of the quickest core, `temperature_c` of the hottest processor zone, `battery_c`, `load` of the
        last minute, `governor`, `supply` ("mains" or "battery"), and `thermal_status`, of which 1 and more is
        throttling (Android's PowerManager.THERMAL_STATUS_LIGHT); what is not said is None.
    """
    pairs = [(found[1], clean(found[2])) for line in lines if (found := _LINE.match(line))]
    said = dict(reversed(pairs))
    clocks = [int(value) for name, value in pairs if name == "khz" and value.isdecimal()]
    zones = [
        int(value) / 1000
        for name, value in pairs
        if name.startswith("zone ") and "cpu" in name.lower() and value.isdecimal()
    ]
    battery, status = said.get("temperature", ""), said.get("Thermal Status", "")
    load = re.match(r"\d+\.\d+", said.get("load", ""))
    powered = [value == "true" for name, value in pairs if name.endswith(" powered")]
    return {
        "khz": max(clocks, default=None),
        "temperature_c": max((value for value in zones if value < 200), default=None),
        "battery_c": int(battery) / 10 if battery.isdecimal() else None,
        "load": float(load[0]) if load else None,
        "governor": said.get("governor") or None,
        "supply": ("mains" if any(powered) else "battery") if powered else None,
        "thermal_status": int(status) if status.isdecimal() else None,
    }


def before_after(first: dict[str, Any], last: dict[str, Any]) -> dict[str, Any]:
    """Return two states as facts of a device."""
    both = {
        f"{name}_{when}": state[name]
        for name in ("khz", "temperature_c", "battery_c", "load", "thermal_status")
        for when, state in (("before", first), ("after", last))
    }
    return {"governor": first["governor"], "supply": first["supply"], **both}


def throttled(*states: dict[str, Any]) -> bool | None:
    """Return whether Android said in any state that it throttled; None when it said nothing."""
    known = [state["thermal_status"] for state in states if state["thermal_status"] is not None]
    return max(known) > 0 if known else None
