"""What the report says of smoothness, of the recipe's claims, and of known failures."""

from __future__ import annotations

from typing import Any

import numpy as np

from topokd_edge.report import numbers
from topokd_edge.report.accuracy import TONES, name_of
from topokd_edge.report.svg import INK, svg

_TONES = {"confirmed": "good", "refuted": "bad", **TONES}
_LEARNED = {"labels": ("#D55E00", "o"), "signal": ("#009E73", "s"), "topology": ("#B65F94", "^")}
_LOUD, _SHY = "#D55E00", "#0072B2"


def claims(evaluation: dict[str, Any]) -> list[dict[str, Any]]:
    """Return each claim of the recipe with its verdict and the comparisons behind it."""
    return [
        {**item, "tone": _TONES.get(item["verdict"], "neutral")} for item in evaluation.get("experiments", [])
    ]


def failures(evaluation: dict[str, Any]) -> list[dict[str, Any]]:
    """Return each known failure once: what it says in which folds, and what to try."""
    found: dict[str, dict[str, Any]] = {}
    for item in evaluation.get("signatures", []):
        entry = found.setdefault(item["name"], {"name": item["name"], "advice": item["advice"], "seen": []})
        entry["seen"].append(f"fold {item['fold']}, seed {item['seed']}: {item['says']}")
    return list(found.values())


def section(evaluation: dict[str, Any]) -> dict[str, Any] | None:
    """Return the table and figure of smoothness; None where it was not measured."""
    measured = evaluation.get("smoothness")
    if not measured or not measured["answers"]:
        return None
    rows = [
        {
            "name": name_of(name),
            "targets": [_nats(measured["targets"].get(name, {}).get(key)) for key in _LEARNED],
            "entropy": _nats(row["entropy"]),
            "confidence": numbers.percent(row["confidence"]),
            "margin": numbers.points(row["margin"]),
            "ece": numbers.percent(row["ece"]),
            "added": numbers.points(row.get("ece_added")),
        }
        for name, row in measured["answers"].items()
    ]
    return {"rows": rows, "figure": figure(measured), "columns": list(_LEARNED)}


def figure(measured: dict[str, Any]) -> str:
    """Draw the entropy of what each model learned from, and how far its confidence is from its accuracy."""
    names = list(measured["answers"])

    def draw(drawing: Any) -> None:
        learned, sure = drawing.subplots(1, 2, sharey=True)
        for line, name in enumerate(names):
            for key, entropy in measured["targets"].get(name, {}).items():
                colour, marker = _LEARNED[key]
                learned.scatter(entropy, line, s=26, color=colour, marker=marker, linewidths=0)
            row = measured["answers"][name]
            surplus = 100 * (row["confidence"] - row["accuracy"])
            sure.barh(line, surplus, height=0.5, color=_LOUD if surplus > 0 else _SHY)
        for key, (colour, marker) in _LEARNED.items():
            learned.scatter([], [], s=26, color=colour, marker=marker, linewidths=0, label=key)
        learned.legend(loc="upper center", bbox_to_anchor=(0.5, 1.16), ncols=3, frameon=False)
        learned.set_xlim(left=0)
        learned.set_xlabel("entropy of the targets, nats")
        sure.axvline(0, color=INK, linewidth=0.8)
        sure.set_xlabel("confidence less accuracy, points")
        learned.set_yticks(np.arange(len(names)), [name_of(name) for name in names])
        learned.set_ylim(len(names) - 0.5, -0.5)

    return svg("smoothness", (7.4, 0.34 * len(names) + 1.0), draw)


def _nats(value: float | None) -> str:
    return numbers.MISSING if value is None else f"{value:.3f}"
