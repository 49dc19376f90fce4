"""Tables of the device page: every figure of a result as text, with its basis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from topokd_edge.report import numbers
from topokd_edge.report.device_names import (
    COLOURS,
    STEADY,
    core_name,
    device_name,
    falls_behind,
    is_steady,
    limits,
    pipeline_name,
    runtime_name,
)
from topokd_edge.report.device_words import Comparison, cost, ends, same_measure
from topokd_edge.report.svg import QUIET
from topokd_edge.run import INT8_STUDENT

_PROOF = "{vectors} windows exact, {layer_vectors} of them in all {layers} layers"


def row(entry: dict[str, Any], compared: Sequence[Comparison]) -> dict[str, Any]:
    """Return a line of the tables that every target is in."""
    latency = entry.get("latency_ms") or {}
    bounds = entry.get("accuracy_ci95")
    energy = entry.get("energy_uj") or {}
    mode = "" if is_steady(entry) else entry["mode"]
    return {
        "target": entry["target"],
        "pipeline": pipeline_name(entry["pipeline"]),
        "colour": COLOURS.get(entry["pipeline"], QUIET),
        "runtime": entry["runtime"],
        "runtime_words": runtime_name(entry["runtime"]) + (f", {mode}" if mode else ""),
        "mode": mode or STEADY,
        "basis": entry["basis"],
        "error": entry.get("error", ""),
        **{key: numbers.duration_ms(latency.get(key)) for key in ("p50", "p95", "p99", "cold")},
        **_modelled_latency(entry),
        "times": _times(entry, compared),
        "accuracy": numbers.percent(entry.get("accuracy")),
        "ci95": numbers.from_to(bounds[0], bounds[1], numbers.percent) if bounds else "",
        "windows": numbers.count(entry.get("windows")),
        "model": numbers.size(entry.get("model_bytes")),
        "ram": numbers.size(_above_baseline(entry)),
        "flash": numbers.size(entry.get("flash_bytes")),
        "macs": numbers.count(entry.get("macs")),
        "instructions": numbers.count(entry.get("instructions")),
        "cycles": numbers.count(entry.get("cycles")),
        "energy": numbers.energy_uj(energy.get("low"), energy.get("high")),
        "energy_basis": energy.get("basis", ""),
        "runs": entry.get("runs", 0),
        "warmup": entry.get("warmup", 0),
        "threads": entry.get("threads", 1),
        "throttled": "not told"
        if entry.get("throttled") is None
        else ("yes" if entry["throttled"] else "no"),
    }


def compared_row(found: Comparison) -> dict[str, Any]:
    """Return the student beside the TDA pipeline on one target, in few words."""
    student, tda = found.student, found.tda
    name = device_name(student)
    times = "" if found.times is None else numbers.ratio(found.times)
    within = ends(found)
    return {
        "target": student["target"],
        "name": "" if name == student["target"] else name,
        "takes": _cost_words(student),
        "whose": "" if student["pipeline"] == INT8_STUDENT else pipeline_name(student["pipeline"]),
        "topology": "does not fit" if found.refused else _cost_words(tda) if tda else "not tried",
        "times": (f"{times} ({within})" if within else times) or numbers.MISSING,
        "basis": student["basis"] + ("" if student.get("latency_ms") else " instructions"),
    }


def mcu_row(entry: dict[str, Any]) -> dict[str, Any]:
    """Return what was counted on an emulated core, and what was modelled of a board, with every basis."""
    energy, test = entry.get("energy_uj") or {}, entry.get("self_test") or {}
    ranges = {"latency": "latency_range_ms", "cycles": "cycles_range", "battery": "battery_days"}
    bases = {name: entry[key]["basis"] for name, key in ranges.items() if entry.get(key)}
    whole = max(1, entry.get("instructions") or 1)
    return {
        "target": entry["target"],
        "pipeline": pipeline_name(entry["pipeline"]),
        "colour": COLOURS.get(entry["pipeline"], QUIET),
        "name": device_name(entry) if limits(entry) else "the core alone",
        "error": entry.get("error", ""),
        "built": f"{entry['kernel']} kernels, {entry.get('compiler', '')} {entry.get('flags', '')}",
        "instructions": numbers.count(entry.get("instructions")),
        "cycles": _span(entry.get("cycles_range"), numbers.count),
        "latency": _span(entry.get("latency_range_ms"), numbers.duration_ms),
        "energy": numbers.energy_uj(energy.get("low"), energy.get("high")),
        "battery": "falls behind" if falls_behind(entry) else _span(entry.get("battery_days"), days),
        "ram": numbers.size(entry.get("ram_bytes")),
        "stack": numbers.size(entry.get("stack_bytes")),
        "flash": numbers.size(entry.get("flash_bytes")),
        "bases": {**bases, **({"energy": energy["basis"]} if energy else {})},
        "proof": _PROOF.format(**test) if {"vectors", "layer_vectors", "layers"} <= set(test) else "",
        "layers": [
            (layer["name"], numbers.count(layer["instructions"]), layer["instructions"] / whole)
            for layer in entry.get("layers") or []
        ],
    }


def is_emulated(entry: dict[str, Any]) -> bool:
    """Tell whether a result is of C on an emulated core."""
    return bool(entry["target"].startswith("mcu:") and entry.get("kernel"))


def is_counted(entry: dict[str, Any]) -> bool:
    """Tell whether a result has counts or energy, and no line of its own in the table of emulated cores."""
    told = any(entry.get(key) is not None for key in ("instructions", "cycles", "energy_uj"))
    return told and not is_emulated(entry)


def days(value: float) -> str:
    """Return a battery's life."""
    return f"{float(f'{value:.2g}'):g} days"


def devices(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what each target is, once."""
    found: dict[str, dict[str, str]] = {}
    for entry in results:
        facts = {**entry.get("device", {}), **entry.get("versions", {})}
        found.setdefault(entry["target"], {}).update({str(k): str(v) for k, v in facts.items()})
    return [{"target": target, "facts": facts} for target, facts in found.items()]


def conditions(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what was timed otherwise than back to back for seconds, beside what was, and what throttled."""
    rows = []
    for entry in results:
        if (is_steady(entry) and not entry.get("throttled")) or not entry.get("latency_ms"):
            continue
        steady = next((other for other in results if _is_same(entry, other) and is_steady(other)), None)
        times = cost(entry) / max(cost(steady), 1e-9) if steady and steady is not entry else None
        rows.append(
            {
                "target": entry["target"],
                "pipeline": pipeline_name(entry["pipeline"]),
                "colour": COLOURS.get(entry["pipeline"], QUIET),
                "runtime": entry["runtime"],
                "mode": entry.get("mode") or STEADY,
                "p50": numbers.duration_ms(entry["latency_ms"]["p50"]),
                "times": numbers.MISSING if times is None else f"{times:.2f}\u00d7",
                "facts": "; ".join(_condition_facts(entry)) or numbers.MISSING,
            }
        )
    return rows


def _is_same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    same = all(one[key] == other[key] for key in ("target", "pipeline", "runtime"))
    return same and one.get("threads", 1) == other.get("threads", 1) and bool(other.get("latency_ms"))


def _condition_facts(entry: dict[str, Any]) -> list[str]:
    long, facts = entry.get("sustained") or {}, []
    every = (entry.get("device") or {}).get("every_s")
    if entry.get("mode") == "duty-cycled" and every:
        facts.append(f"one window every {every:g} s, asleep between")
    if long.get("minutes"):
        facts.append(f"{long['minutes']:g} minutes on end")
    if long.get("first_ms") and long.get("last_ms"):
        first, last = (numbers.duration_ms(long[key]) for key in ("first_ms", "last_ms"))
        facts.append(f"median {first} in the first tenth, {last} in the last")
    for key, shown in (("temperature_c", lambda value: f"{value:.0f} °C"), ("khz", _clock)):
        told = [value for value in long.get(key) or [] if value is not None]
        if told:
            facts.append(f"{shown(told[0])} at first, {shown(told[-1])} at last")
    if entry.get("throttled"):
        facts.append("the processor slowed itself down")
    return facts


def _clock(khz: float) -> str:
    return f"{khz / 1e6:.2f} GHz"


def not_on_the_map(results: Sequence[dict[str, Any]]) -> list[str]:
    """Return what the figure of latency and accuracy leaves out, and why."""
    refused = [
        f"{entry['target']}, {pipeline_name(entry['pipeline'])}: {entry['error']}"
        for entry in results
        if entry.get("error")
    ]
    timeless = dict.fromkeys(
        core_name(entry["target"].partition(":")[2])
        for entry in results
        if not entry.get("error") and not entry.get("latency_ms")
    )
    counted = f"{', '.join(timeless)}: counted, so there is no time" if timeless else ""
    return [*refused, *([counted] if counted else [])]


def _times(entry: dict[str, Any], compared: Sequence[Comparison]) -> str:
    """Return how many times as long an entry takes as the student of its own target."""
    for found in compared:
        student = found.student
        if student["target"] == entry["target"] and _has_cost(entry) and same_measure(entry, student):
            return f"{numbers.ratio(cost(entry) / max(cost(student), 1e-9))}\u00d7"
    return numbers.MISSING


def _cost_words(entry: dict[str, Any]) -> str:
    if not entry.get("latency_ms"):
        return numbers.count(entry["instructions"])
    if entry["basis"] == "modelled" and not entry.get("latency_range_ms"):
        return f"{numbers.duration_ms(entry['latency_ms']['p50'])}, no range"
    return _modelled_latency(entry).get("p50") or numbers.duration_ms(entry["latency_ms"]["p50"])


def _has_cost(entry: dict[str, Any]) -> bool:
    return bool(entry.get("latency_ms") or entry.get("instructions"))


def _modelled_latency(entry: dict[str, Any]) -> dict[str, str]:
    """Return a model's range in place of percentiles, which it has none of."""
    if entry["basis"] != "modelled" or not entry.get("latency_ms"):
        return {}
    span = entry.get("latency_range_ms")
    middle = _span(span, numbers.duration_ms) if span else numbers.duration_ms(entry["latency_ms"]["p50"])
    return {"p50": middle, "p95": numbers.MISSING if span else "no range", "p99": numbers.MISSING}


def _span(value: dict[str, Any] | None, shown: Callable[[float], str]) -> str:
    return numbers.from_to(value["low"], value["high"], shown) if value else numbers.MISSING


def _above_baseline(entry: dict[str, Any]) -> float | None:
    """Return the memory that is added to a bare interpreter, or all of it when no baseline is known."""
    whole, baseline = entry.get("ram_bytes"), entry.get("ram_baseline_bytes")
    return whole if whole is None or baseline is None else max(0, whole - baseline)
