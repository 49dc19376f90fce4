"""What the report says of accuracy: results, subjects, comparisons and confusion matrices."""

from __future__ import annotations

from typing import Any

from topokd_edge.evaluate.compare import FEWEST
from topokd_edge.report import figures, numbers, svg
from topokd_edge.run import (
    DISTILLED_STUDENT,
    INT8_STUDENT,
    MODELS,
    SCRATCH_STUDENT,
    SIGNAL_TEACHER,
    TOPOLOGY_TEACHER,
)

NAMES = {
    SIGNAL_TEACHER: "Signal teacher",
    TOPOLOGY_TEACHER: "Topology teacher",
    SCRATCH_STUDENT: "Student, not distilled",
    DISTILLED_STUDENT: "Student, distilled",
    INT8_STUDENT: "Student, distilled, int8",
}
SPOKEN = {
    SIGNAL_TEACHER: "the signal teacher",
    TOPOLOGY_TEACHER: "the topology teacher",
    SCRATCH_STUDENT: "the student without distillation",
    DISTILLED_STUDENT: "the distilled student",
    INT8_STUDENT: "the int8 student",
}
CONFUSIONS = (DISTILLED_STUDENT, INT8_STUDENT)
TONES = {"better": "good", "worse": "bad"}


def name_of(model: str) -> str:
    """Return a model's name for people."""
    return NAMES.get(model, model)


def colour_of(model: str) -> str:
    """Return a model's colour, the same in every figure."""
    return figures.COLOURS.get(model, svg.QUIET)


def results_table(evaluation: dict[str, Any]) -> list[dict[str, str]]:
    """Return one row of formatted figures a model, in the order models are shown."""
    rows = []
    for model in _shown(evaluation):
        entry = evaluation["models"][model]
        spread = list(subjects_of(evaluation, model).values())
        rows.append(
            {
                "name": name_of(model),
                "colour": colour_of(model),
                "accuracy": numbers.percent(entry["accuracy"]),
                "range": f"{numbers.percent(min(spread))} to {numbers.percent(max(spread))}"
                if spread
                else numbers.MISSING,
                "std_subjects": numbers.points(entry.get("std_subjects"), sign=False),
                "std_seeds": numbers.points(entry.get("std_seeds"), sign=False),
                "macro_f1": numbers.percent(entry["macro_f1"]),
                "ece": numbers.percent(entry.get("ece")),
                "params": numbers.count(entry.get("params")),
                "macs": numbers.count(entry.get("macs")),
            }
        )
    return rows


def subjects_section(evaluation: dict[str, Any]) -> dict[str, Any]:
    """Return the strip of all models and the pairs without and with distillation, with their table."""
    models = [model for model in _shown(evaluation) if subjects_of(evaluation, model)]
    by_model = {model: subjects_of(evaluation, model) for model in models}
    subjects = [str(row["subject"]) for row in evaluation.get("subjects", [])]
    section: dict[str, Any] = {"strip": "", "pairs": "", "columns": [name_of(model) for model in models]}
    if models:
        section["strip"] = figures.subject_strip(
            [(model, name_of(model), list(by_model[model].values())) for model in models]
        )
    before, after = by_model.get(SCRATCH_STUDENT, {}), by_model.get(DISTILLED_STUDENT, {})
    paired = sorted((who for who in subjects if who in before and who in after), key=lambda who: after[who])
    if paired:
        section["pairs"] = figures.subject_pairs(
            paired, [before[who] for who in paired], [after[who] for who in paired]
        )
    section["gained"] = sum(after[who] > before[who] for who in paired)
    section["lost"] = sum(after[who] < before[who] for who in paired)
    section["paired"] = len(paired)
    section["rows"] = [
        {"subject": who, "cells": [numbers.percent(by_model[model].get(who)) for model in models]}
        for who in subjects
    ]
    return section


def comparison(evaluation: dict[str, Any], a: str, b: str) -> dict[str, Any] | None:
    """Return the comparison of `b` against `a`; None when it was not made."""
    for entry in evaluation.get("comparisons", []):
        if (entry["a"], entry["b"]) == (a, b):
            return dict(entry)
    return None


def comparisons_table(evaluation: dict[str, Any]) -> list[dict[str, str]]:
    """Return one row a comparison: in words, with interval, p and verdict."""
    rows = []
    for entry in evaluation.get("comparisons", []):
        bounds = entry.get("ci95")
        rows.append(
            {
                "a": name_of(entry["a"]),
                "b": name_of(entry["b"]),
                "difference": numbers.points(entry["difference"]),
                "ci95": numbers.interval(bounds) if bounds else "none (one subject)",
                "p": numbers.probability(entry["p"]),
                "test": entry["test"],
                "verdict": entry["verdict"],
                "tone": TONES.get(entry["verdict"], "neutral"),
                "words": in_words(entry),
            }
        )
    return rows


def in_words(entry: dict[str, Any]) -> str:
    """Return what a comparison found as a sentence."""
    a, b = (SPOKEN.get(entry[key], entry[key]) for key in ("a", "b"))
    b = b[:1].upper() + b[1:]
    size = f"{numbers.points(abs(entry['difference']), sign=False)} points"
    if entry["verdict"] in TONES:
        return f"{b} is {entry['verdict']} than {a}, by {size}."
    words = f"{b} and {a} differ by {size}: within noise, so this run does not tell them apart."
    subjects = entry.get("subjects")
    if subjects is not None and subjects < FEWEST:
        words += f" With {subjects} subjects it could not: at least {FEWEST} are needed."
    return words


def confusions(evaluation: dict[str, Any], class_names: list[str]) -> list[dict[str, Any]]:
    """Return the confusion matrices that are shown: counts, and the share of each row for the shade."""
    shown = []
    for model in CONFUSIONS:
        matrix = evaluation.get("confusion", {}).get(model)
        if not matrix:
            continue
        scores = evaluation.get("f1_by_class", {}).get(model, {})
        rows = []
        for index, (label, counts) in enumerate(zip(class_names, matrix, strict=True)):
            total = sum(counts)
            cells = [
                {
                    "count": numbers.count(value),
                    "percent": f"{100 * value / total:.0f} %" if total else numbers.MISSING,
                    "shade": round(value / total, 3) if total else 0.0,
                    "hit": place == index,
                }
                for place, value in enumerate(counts)
            ]
            rows.append(
                {
                    "label": label,
                    "cells": cells,
                    "total": numbers.count(total),
                    "f1": numbers.percent(scores.get(label)),
                }
            )
        shown.append(
            {"name": name_of(model), "colour": colour_of(model), "labels": class_names, "rows": rows}
        )
    return shown


def subjects_of(evaluation: dict[str, Any], model: str) -> dict[str, float]:
    """Return the accuracy of `model` on each subject it was tested on."""
    return {
        str(row["subject"]): float(row["models"][model])
        for row in evaluation.get("subjects", [])
        if model in row["models"]
    }


def _shown(evaluation: dict[str, Any]) -> list[str]:
    known = [model for model in MODELS if model in evaluation["models"]]
    return [*known, *sorted(set(evaluation["models"]) - set(known))]
