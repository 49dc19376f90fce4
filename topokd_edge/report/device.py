"""What the report says of devices: files and their size, and inference with and without topology."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from topokd_edge.report import figures, numbers, svg
from topokd_edge.run import DISTILLED_STUDENT, INT8_STUDENT, SIGNAL_TEACHER, TOPOLOGY_TEACHER

TDA = "tda"
PIPELINES = {
    TDA: "TDA pipeline",
    SIGNAL_TEACHER: "Signal teacher",
    "student.float32": "Student, float32",
    INT8_STUDENT: "Student, int8",
}
_SPOKEN = {
    TDA: "the TDA pipeline",
    SIGNAL_TEACHER: "the signal teacher",
    "student.float32": "the float32 student",
    INT8_STUDENT: "the int8 student",
}
_PROOF = "{vectors} windows exact, {layer_vectors} of them in all {layers} layers"
_COLOURS = {
    TDA: figures.COLOURS[TOPOLOGY_TEACHER],
    SIGNAL_TEACHER: figures.COLOURS[SIGNAL_TEACHER],
    "student.float32": figures.COLOURS[DISTILLED_STUDENT],
    INT8_STUDENT: figures.COLOURS[INT8_STUDENT],
}


def bench_section(bench: dict[str, Any]) -> dict[str, Any]:
    """Return the picture, the table and the sentences of the measurements."""
    results = sorted(bench["results"], key=_order)
    timed = [entry for entry in results if entry.get("latency_ms") and not entry.get("latency_range_ms")]
    by_target = {}
    for target in dict.fromkeys(entry["target"] for entry in results):
        here = [entry for entry in timed if entry["target"] == target]
        by_target[target] = latency_figure(target, here) if here else ""
    mcu = [_mcu_row(entry) for entry in results if entry.get("kernel")]
    found = speedup(bench)
    rows = [_row(entry, found["student"] if found else None) for entry in results]
    return {
        "figures": by_target,
        "rows": rows,
        "counted": [row for row, entry in zip(rows, results, strict=True) if _is_counted(entry)],
        "mcu": mcu,
        "many_targets": len(by_target) > 1,
        "device": _device(results),
        "ratio_words": speedup_words(bench),
        "int8_cost": int8_words(bench),
        "subjects": ", ".join(map(str, bench.get("subjects") or [])),
        "notes": list(bench.get("notes") or []),
    }


def latency_figure(target: str, timed: list[dict[str, Any]]) -> str:
    """Return the bars of one target."""
    rows = [
        (
            f"{PIPELINES.get(entry['pipeline'], entry['pipeline'])}, {entry['runtime']}",
            _COLOURS.get(entry["pipeline"], svg.QUIET),
            float(entry["latency_ms"]["p50"]),
            float(entry["latency_ms"]["p95"]),
        )
        for entry in timed
    ]
    return figures.latency_bars(target, rows)


def speedup(bench: dict[str, Any]) -> dict[str, Any] | None:
    """Compare the quickest student with the quickest TDA pipeline on the same target.

    Returns
    -------
    dict or None
        `student` and `tda` (entries of the results) and `times`; None unless one target measured both.
    """
    timed = [entry for entry in bench["results"] if entry.get("latency_ms")]
    for target in dict.fromkeys(entry["target"] for entry in timed):
        here = [entry for entry in timed if entry["target"] == target]
        tda = [entry for entry in here if entry["pipeline"] == TDA]
        students = [entry for entry in here if entry["pipeline"] == INT8_STUDENT] or [
            entry for entry in here if entry["pipeline"].startswith("student.")
        ]
        if tda and students:
            best, slow = min(students, key=_p50), min(tda, key=_p50)
            return {"student": best, "tda": slow, "times": _p50(slow) / max(_p50(best), 1e-9)}
    return None


def speedup_words(bench: dict[str, Any]) -> str:
    """Return the comparison of `speedup` as a sentence; empty without one."""
    found = speedup(bench)
    if found is None:
        return ""
    student, tda = found["student"], found["tda"]
    return (
        f"On the target {student['target']} ({student['basis']}), {spoken(student['pipeline'])} takes "
        f"{numbers.duration_ms(_p50(student))} a window, without any topology; the quickest pipeline that "
        f"computes topology at inference takes {numbers.duration_ms(_p50(tda))}, "
        f"{numbers.ratio(found['times'])} times as long."
    )


def int8_words(bench: dict[str, Any]) -> str:
    """Return what int8 costs on the device's windows as a sentence; empty when it was not measured."""
    cost = bench.get("int8_cost")
    if not cost:
        return ""
    return (
        f"Through the same runtime, int8 loses {numbers.points(cost['cost'], sign=False)} points "
        f"against float32 (95 % interval {numbers.interval(cost['ci95'])}, over {cost['over']}; "
        f"{cost['windows']} windows of {cost['subjects']} held-out subjects)."
    )


def export_section(export: dict[str, Any]) -> dict[str, Any]:
    """Return the files of a bundle with their sizes, and the checks it passed."""
    return {
        "bundle": export.get("bundle", ""),
        "files": [
            {
                "target": entry["target"],
                "precision": entry.get("precision", ""),
                "path": entry["path"],
                "size": numbers.size(entry["bytes"]),
                "bytes": entry["bytes"],
                "sha256": entry.get("sha256", ""),
            }
            for entry in export["files"]
        ],
        "checks": [
            {
                "name": entry["name"],
                "difference": f"{entry['max_abs_diff']:.2g}"
                if entry.get("max_abs_diff") is not None
                else numbers.MISSING,
                "agreement": numbers.percent(entry.get("agreement")),
                "ok": bool(entry["ok"]),
            }
            for entry in export.get("checks", [])
        ],
    }


def int8_file(export: dict[str, Any]) -> dict[str, Any] | None:
    """Return the int8 TFLite file of an export, or the smallest int8 file; None when there is none."""
    quantised = [entry for entry in export["files"] if entry.get("precision") == "int8"]
    preferred = [entry for entry in quantised if entry["target"] == "tflite"]
    return min(preferred or quantised, key=lambda entry: int(entry["bytes"]), default=None)


def _row(entry: dict[str, Any], yardstick: dict[str, Any] | None) -> dict[str, Any]:
    latency = entry.get("latency_ms") or {}
    bounds = entry.get("accuracy_ci95")
    energy = entry.get("energy_uj") or {}
    return {
        "target": entry["target"],
        "pipeline": PIPELINES.get(entry["pipeline"], entry["pipeline"]),
        "colour": _COLOURS.get(entry["pipeline"], svg.QUIET),
        "runtime": entry["runtime"],
        "runtime_words": entry["runtime"].replace("+", " + "),
        "basis": entry["basis"],
        "error": entry.get("error", ""),
        **{key: numbers.duration_ms(latency.get(key)) for key in ("p50", "p95", "p99", "cold")},
        **_modelled_latency(entry),
        "times": _times(entry, yardstick),
        "accuracy": numbers.percent(entry.get("accuracy")),
        "ci95": f"{numbers.percent(bounds[0])} to {numbers.percent(bounds[1])}" if bounds else "",
        "windows": numbers.count(entry.get("windows")),
        "model": numbers.size(entry.get("model_bytes")),
        "ram": numbers.size(_above_baseline(entry)),
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


def _times(entry: dict[str, Any], yardstick: dict[str, Any] | None) -> str:
    """Return how many times as long as the student an entry takes; only on the student's own target."""
    if yardstick is None or not entry.get("latency_ms") or entry["target"] != yardstick["target"]:
        return numbers.MISSING
    return f"{numbers.ratio(_p50(entry) / max(_p50(yardstick), 1e-9))}\u00d7"


def _is_counted(entry: dict[str, Any]) -> bool:
    figures = any(entry.get(key) is not None for key in ("instructions", "cycles", "energy_uj"))
    return figures and not entry.get("kernel")


def _modelled_latency(entry: dict[str, Any]) -> dict[str, str]:
    """Return a model's range in place of percentiles, which it has none of."""
    span = entry.get("latency_range_ms")
    if not span:
        return {}
    return {"p50": _span(span, numbers.duration_ms), "p95": numbers.MISSING, "p99": numbers.MISSING}


def _mcu_row(entry: dict[str, Any]) -> dict[str, Any]:
    """Return what was counted on an emulated core, and what was modelled of a board, with every basis."""
    energy, test = entry.get("energy_uj") or {}, entry.get("self_test") or {}
    ranges = {"latency": "latency_range_ms", "cycles": "cycles_range", "battery": "battery_days"}
    bases = {name: entry[key]["basis"] for name, key in ranges.items() if entry.get(key)}
    return {
        "target": entry["target"],
        "name": entry["device"]["name"] if entry.get("latency_range_ms") else "the core alone",
        "built": f"{entry['kernel']} kernels, {entry.get('compiler', '')} {entry.get('flags', '')}",
        "instructions": numbers.count(entry.get("instructions")),
        "cycles": _span(entry.get("cycles_range"), numbers.count),
        "latency": _span(entry.get("latency_range_ms"), numbers.duration_ms),
        "energy": numbers.energy_uj(energy.get("low"), energy.get("high")),
        "battery": _span(entry.get("battery_days"), lambda days: f"{days:.3g} d"),
        "ram": numbers.size(entry.get("ram_bytes")),
        "stack": numbers.size(entry.get("stack_bytes")),
        "flash": numbers.size(entry.get("flash_bytes")),
        "bases": {**bases, **({"energy": energy["basis"]} if energy else {})},
        "proof": _PROOF.format(**test) if test else "",
        "layers": [
            (
                layer["name"],
                numbers.count(layer["instructions"]),
                layer["instructions"] / entry["instructions"],
            )
            for layer in entry.get("layers") or []
        ],
    }


def _span(value: dict[str, Any] | None, shown: Callable[[float], str]) -> str:
    return f"{shown(value['low'])} to {shown(value['high'])}" if value else numbers.MISSING


def _above_baseline(entry: dict[str, Any]) -> float | None:
    """Return the memory that is added to a bare interpreter, or all of it when no baseline is known."""
    whole, baseline = entry.get("ram_bytes"), entry.get("ram_baseline_bytes")
    return whole if whole is None or baseline is None else max(0, whole - baseline)


def _device(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what each target is, once."""
    devices: dict[str, dict[str, str]] = {}
    for entry in results:
        facts = {**entry.get("device", {}), **entry.get("versions", {})}
        devices.setdefault(entry["target"], {}).update({str(k): str(v) for k, v in facts.items()})
    return [{"target": target, "facts": facts} for target, facts in devices.items()]


def spoken(pipeline: str) -> str:
    """Return a pipeline's name as it stands in a sentence."""
    return _SPOKEN.get(pipeline, pipeline)


def _p50(entry: dict[str, Any]) -> float:
    return float(entry["latency_ms"]["p50"])


def _order(entry: dict[str, Any]) -> tuple[str, int, float]:
    places = list(PIPELINES)
    place = places.index(entry["pipeline"]) if entry["pipeline"] in places else len(places)
    latency = entry.get("latency_ms")
    return (entry["target"], place, -float(latency["p50"]) if latency else 0.0)
