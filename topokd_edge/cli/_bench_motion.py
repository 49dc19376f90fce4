"""Whether a phone's motion sensors can feed a student, and how its channels come from theirs."""

from __future__ import annotations

import math
import re
from typing import Any

from topokd_edge.data.sensors import Sensor, sensors
from topokd_edge.data.units import factor
from topokd_edge.manifest import Manifest

_SENSOR_OF = {"g": "acceleration", "m/s2": "acceleration", "deg/s": "rotation", "rad/s": "rotation"}
_WITHOUT_GRAVITY = re.compile(r"lin(ear)?(?![a-z])|linear|lin(?=acc)|user|without_?gravity", re.IGNORECASE)
_NOTE = (
    "Answers as the phone's own sensors give them, resampled to the student's rate. The phone's axes are not "
    "those of the device that was trained on: wear it at that place and turn it that way."
)


def motion_plan(manifest: Manifest) -> dict[str, Any]:
    """Return how the channels of a student come from a phone's events, or why they cannot.

    An event has the acceleration with gravity in m/s2 and the rotation in degrees a second (W3C Device
    Orientation and Motion), each along the phone's x, y and z.

    Returns
    -------
    dict
        {"why": sentence}, or {"note": .., "channels": [{"sensor": "acceleration" or "rotation", "axis": ..,
        "factor": ..}, ..]} in the order of the student's channels; the factor is to its units.
    """
    found = sensors(manifest.channel_names, manifest.units)
    why = _why_not(found, manifest)
    if why:
        return {"why": f"A phone cannot feed this student: {why}."}
    channels: list[dict[str, Any]] = [{} for _ in manifest.channel_names]
    for sensor in found:
        kind = _SENSOR_OF[sensor.unit]
        scale = _from_event(sensor.unit)
        for index, axis in zip(sensor.channels, "xyz", strict=True):
            channels[index] = {"sensor": kind, "axis": axis, "factor": scale}
    return {"note": _NOTE, "channels": channels}


def _why_not(found: tuple[Sensor, ...], manifest: Manifest) -> str:
    others = [
        f"{manifest.channel_names[sensor.channels[0]]} [{sensor.unit}]"
        for sensor in found
        if len(sensor.channels) != 3 or sensor.unit not in _SENSOR_OF
    ]
    kinds = [_SENSOR_OF.get(sensor.unit, "") for sensor in found]
    if others:
        return (
            f"it has {', '.join(others[:4])}, and a page gets a three-axis accelerometer and a gyroscope only"
        )
    if kinds.count("acceleration") != 1:
        return f"it has {kinds.count('acceleration')} three-axis accelerometers, and a phone has one"
    if kinds.count("rotation") > 1:
        return f"it has {kinds.count('rotation')} gyroscopes, and a phone has one"
    if any(_WITHOUT_GRAVITY.search(sensor.name) for sensor in found):
        return "its acceleration seems to be without gravity, by the name of its channels"
    return ""


def _from_event(unit: str) -> float:
    """Return what turns m/s2, or degrees a second, into a unit."""
    if unit == "rad/s":
        return math.pi / 180
    scale = factor("deg/s" if unit == "deg/s" else "m/s2", unit)
    assert scale is not None
    return scale
