"""What the device page calls and how it paints pipelines and kinds of target; what a board has room for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from topokd_edge.report import figures
from topokd_edge.run import DISTILLED_STUDENT, INT8_STUDENT, SIGNAL_TEACHER, TOPOLOGY_TEACHER

TDA, FLOAT32 = "tda", "student.float32"
PIPELINES = {
    TDA: "TDA pipeline",
    SIGNAL_TEACHER: "Signal teacher",
    FLOAT32: "Student, float32",
    INT8_STUDENT: "Student, int8",
}
SHORT = {TDA: "TDA", SIGNAL_TEACHER: "teacher", FLOAT32: "float32", INT8_STUDENT: "int8"}
COLOURS = {
    TDA: figures.COLOURS[TOPOLOGY_TEACHER],
    SIGNAL_TEACHER: figures.COLOURS[SIGNAL_TEACHER],
    FLOAT32: figures.COLOURS[DISTILLED_STUDENT],
    INT8_STUDENT: figures.COLOURS[INT8_STUDENT],
}
_SPOKEN = {
    TDA: "the TDA pipeline",
    SIGNAL_TEACHER: "the signal teacher",
    FLOAT32: "the float32 student",
    INT8_STUDENT: "the int8 student",
}
STEADY = "steady"
C = "c"
"""The runtime of our own C."""
TOPOLOGY = {"persistence": "#8a3b6b", "image": "#d9a9c5"}
"""Entries of a result's `layers` that are topology, and their colours."""


@dataclass(frozen=True)
class Kind:
    """A kind of target: its rank from what is most like a watch, its name, and its marker in figures."""

    place: int
    name: str
    marker: str
    sign: str


BOARD = Kind(0, "board", "s", "■")
CORE = Kind(1, "emulated core", "X", "✖")
ADB = Kind(2, "Android device", "^", "▲")
SSH = Kind(3, "Linux device", "D", "◆")
BROWSER = Kind(4, "browser", "v", "▼")
NPU = Kind(5, "NPU", "P", "✚")
LOCAL = Kind(6, "this machine", "o", "●")
_BY_PREFIX = {"serial": BOARD, "adb": ADB, "ssh": SSH, "browser": BROWSER, "npu": NPU, "local": LOCAL}


def runtime_name(runtime: str) -> str:
    """Return what the page calls a runtime, such as `fast + onnxruntime`; our own C is one."""
    return "C99" if runtime == C else runtime.replace("+", " + ")


def topology_stages(entry: dict[str, Any]) -> dict[str, int]:
    """Return the instructions of a result's stages that are topology, by name; empty where none is known."""
    return {
        layer["name"]: int(layer["instructions"])
        for layer in entry.get("layers") or []
        if layer["name"] in TOPOLOGY
    }


def topology_share(entry: dict[str, Any]) -> float | None:
    """Return the share of a result's instructions that is topology; None where it is not known."""
    stages = topology_stages(entry)
    return sum(stages.values()) / entry["instructions"] if stages else None


def kind_of(entry: dict[str, Any]) -> Kind:
    """Return the kind of a result's target."""
    prefix = entry["target"].partition(":")[0]
    if prefix == "mcu":
        return BOARD if limits(entry) else CORE
    return _BY_PREFIX.get(prefix, LOCAL)


def rank(entry: dict[str, Any]) -> tuple[int, bool]:
    """Return what targets are sorted by: the most like a watch first, and of a kind what was measured."""
    return (kind_of(entry).place, entry["basis"] != "measured")


def pipeline_name(pipeline: str) -> str:
    """Return a pipeline's name as it stands in a table."""
    return PIPELINES.get(pipeline, pipeline)


def spoken(pipeline: str) -> str:
    """Return a pipeline's name as it stands in a sentence."""
    return _SPOKEN.get(pipeline, pipeline)


def device_name(entry: dict[str, Any]) -> str:
    """Return what a device is called by its maker; the target itself where that says as much."""
    target, facts = str(entry["target"]), entry.get("device") or {}
    known = next((str(facts[key]) for key in ("name", "board", "model", "cpu") if facts.get(key)), "")
    return target if known.lower() in target.lower() else known


def core_name(name: str) -> str:
    """Return `cortex-m4` as its maker writes it; other names as they are."""
    if name == "cortex-m0plus":
        return "Cortex-M0+"
    return re.sub(r"^cortex-m", "Cortex-M", name)


def limits(entry: dict[str, Any]) -> dict[str, int]:
    """Return the bytes of `RAM` and `flash` that a board has; empty for what is no board."""
    facts = entry.get("device") or {}
    if facts.get("board_ram_bytes") and facts.get("board_flash_bytes"):
        return {"RAM": int(facts["board_ram_bytes"]), "flash": int(facts["board_flash_bytes"])}
    return {}


def needs(entry: dict[str, Any]) -> dict[str, int]:
    """Return the bytes of `RAM` and `flash` that a result takes, as counted or as its refusal says."""
    told = re.findall(r"(RAM|flash): needs ([\d,]+) bytes", entry.get("error") or "")
    found = {name: int(number.replace(",", "")) for name, number in told}
    for name, key in (("RAM", "ram_bytes"), ("flash", "flash_bytes")):
        if entry.get(key):
            found[name] = int(entry[key])
    return found


def misfits(entry: dict[str, Any]) -> list[str]:
    """Return of `RAM` and `flash` what a result needs more of than its board has."""
    have = limits(entry)
    return [name for name, need in needs(entry).items() if name in have and need > have[name]]


def falls_behind(entry: dict[str, Any]) -> bool:
    """Tell whether a window takes longer, even at best, than until the next one comes."""
    every = (entry.get("device") or {}).get("every_s")
    if not every or not entry.get("latency_ms"):
        return False
    return latency_span(entry)[0] > 1e3 * float(every)


def is_steady(entry: dict[str, Any]) -> bool:
    """Tell whether a result was timed back to back, as every target is unless told otherwise."""
    return (entry.get("mode") or STEADY) == STEADY


def latency_span(entry: dict[str, Any]) -> tuple[float, float, float]:
    """Return (low, middle, high) in ms: a model's range, or from the median to p95."""
    latency, span = entry["latency_ms"], entry.get("latency_range_ms")
    if span:
        return float(span["low"]), float(latency["p50"]), float(span["high"])
    return float(latency["p50"]), float(latency["p50"]), float(latency["p95"])
