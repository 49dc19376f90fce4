"""What the report says of devices: files and their size, and inference with and without topology."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from topokd_edge.report import device_figures, device_map, device_rows, figures, numbers
from topokd_edge.report.device_names import COLOURS, PIPELINES, pipeline_name, rank
from topokd_edge.report.device_words import comparisons, lead_sentence
from topokd_edge.report.svg import QUIET


def bench_section(bench: dict[str, Any]) -> dict[str, Any]:
    """Return the pictures, the tables and the sentences of the measurements."""
    results = sorted(bench["results"], key=_order)
    timed = [entry for entry in results if entry.get("latency_ms") and not entry.get("latency_range_ms")]
    by_target = {}
    for target in dict.fromkeys(entry["target"] for entry in results):
        here = [entry for entry in timed if entry["target"] == target]
        by_target[target] = latency_figure(target, here) if here else ""
    found = comparisons(bench)
    rows = [device_rows.row(entry, found) for entry in results]
    asked = list(dict.fromkeys(entry["target"] for entry in bench["results"]))
    watches_first = sorted(results, key=lambda entry: (rank(entry), asked.index(entry["target"])))
    mapped = device_map.collect(watches_first)
    return {
        "lead": lead_sentence(bench),
        "compared": [device_rows.compared_row(item) for item in found],
        "int8_cost": int8_words(bench),
        "subjects": ", ".join(map(str, bench.get("subjects") or [])),
        "notes": list(bench.get("notes") or []),
        "map": {
            "wide": device_map.figure(mapped, narrow=False),
            "narrow": device_map.figure(mapped, narrow=True),
            "targets": mapped.targets,
            "pipelines": mapped.pipelines,
            "absent": device_rows.not_on_the_map(results),
        }
        if mapped.points
        else None,
        "budgets": device_figures.budgets(watches_first),
        "spans": device_figures.spans(watches_first),
        "stacks": device_figures.stacks(watches_first),
        "layers": device_figures.layers(watches_first),
        "figures": by_target,
        "rows": rows,
        "counted": [row for row, entry in zip(rows, results, strict=True) if device_rows.is_counted(entry)],
        "mcu": [device_rows.mcu_row(entry) for entry in results if device_rows.is_emulated(entry)],
        "many_targets": len(by_target) > 1,
        "device": device_rows.devices(results),
        "conditions": device_rows.conditions(results),
    }


def latency_figure(target: str, timed: Sequence[dict[str, Any]]) -> str:
    """Return the bars of one target."""
    rows = [
        (
            f"{pipeline_name(entry['pipeline'])}, {entry['runtime']}",
            COLOURS.get(entry["pipeline"], QUIET),
            float(entry["latency_ms"]["p50"]),
            float(entry["latency_ms"]["p95"]),
        )
        for entry in timed
    ]
    return figures.latency_bars(target, rows)


def int8_words(bench: dict[str, Any]) -> str:
    """Return what int8 costs on the device's windows as a sentence; empty when it was not measured."""
    cost = bench.get("int8_cost")
    if not cost:
        return ""
    return (
        f"Through the same runtime, int8 costs {numbers.points(cost['cost'], sign=False)} points "
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


def _order(entry: dict[str, Any]) -> tuple[str, int, float]:
    places = list(PIPELINES)
    place = places.index(entry["pipeline"]) if entry["pipeline"] in places else len(places)
    latency = entry.get("latency_ms")
    return (entry["target"], place, -float(latency["p50"]) if latency else 0.0)
