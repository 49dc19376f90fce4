"""The report: collect what a run, its export and its measurements say, and write one HTML file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from topokd_edge import __version__
from topokd_edge.data.windowset import WindowSet
from topokd_edge.errors import BadInputError
from topokd_edge.files import refuse_existing, write_text
from topokd_edge.report import accuracy, device, numbers, smoothness, training, verdict
from topokd_edge.report.examples import examples
from topokd_edge.report.inputs import Inputs, Missing, read_inputs, reading
from topokd_edge.report.page import render
from topokd_edge.run import OPTIMISTIC, Run

TEMPLATE = "template.html.j2"
_NO_IMAGES = Missing(
    "Signals beside their images",
    "no candidate of the recipe learns from the topology teacher, so no image was made",
    "topokd-edge train with such a candidate",
)
DROPPED = {
    "unlabelled": "without a label",
    "too_short": "in labelled stretches shorter than a window",
    "gap": "cut off by a gap",
    "tail": "left over at the end of a stretch",
    "rare_class": "of classes that were left out",
}


def write_report(
    run: Run,
    out: Path,
    *,
    bench: dict[str, Any] | None = None,
    export: Path | None = None,
    bundle: Path | None = None,
    overwrite: bool = False,
) -> list[Missing]:
    """Write the report of a run as one HTML file that needs no network.

    Parameters
    ----------
    run
        The run; what it lacks is named in the report together with the command that makes it.
    out
        The file to write, whole or not at all.
    bench
        The answer of `bench`, or several as one; None where nothing was measured.
    export, bundle
        The JSON answer of `export`, or the bundle it wrote; None takes `export.json` of the run, if there.
    overwrite
        Replace `out` when it exists.

    Returns
    -------
    list of Missing
        What the run lacks, as the report says it.

    Raises
    ------
    BadInputError
        When `out` exists and `overwrite` is false, or a part of the run is damaged.
    """
    refuse_existing(out, overwrite=overwrite)
    page = collect(read_inputs(run, bench=bench, export=export, bundle=bundle))
    write_text(out, render(TEMPLATE, page))
    missing: list[Missing] = page["missing"]
    return missing


def collect(inputs: Inputs) -> dict[str, Any]:
    """Return everything the page shows, formatted, with figures as SVG text."""
    missing = list(inputs.missing)
    windows = _windows(inputs.run, missing)
    folder = inputs.run.folder
    page: dict[str, Any] = {
        "title": _title(inputs),
        "note": str(inputs.recipe.get("note", "")),
        "version": __version__,
        "run": folder.name,
        "evaluation": None,
        "bench": None,
        "export": None,
    }
    with reading(folder / "evaluation.json"):
        if inputs.evaluation is not None:
            page["evaluation"] = _evaluation(inputs.evaluation, inputs.data["class_names"])
    with reading("the results of bench"):
        if inputs.bench is not None:
            page["bench"] = device.bench_section(inputs.bench)
    with reading("the answer of export"):
        if inputs.export is not None:
            page["export"] = device.export_section(inputs.export)
    page["examples"] = _examples(inputs, windows, missing)
    with reading(folder):
        page |= {
            "sentences": verdict.sentences(inputs),
            "tiles": verdict.tiles(inputs),
            "curves": training.curves(inputs),
            "folds": training.folds_table(inputs),
            "protocol": inputs.recipe.get("protocol", ""),
            "optimistic": OPTIMISTIC if inputs.run.optimistic else "",
            "validated": any(fold["validation"] for fold in inputs.folds),
            "seeds": list(inputs.recipe.get("seeds", [])),
            "data": _data(inputs, windows),
            "recipe": inputs.recipe_text,
            "environment": _lines(inputs.environment),
            "missing": missing,
        }
    return page


def _title(inputs: Inputs) -> str:
    made = inputs.data["made"]
    name = made.get("source") or "wearable data"
    return f"{inputs.recipe.get('name', inputs.run.folder.name)}: a student distilled on {name}"


def _windows(run: Run, missing: list[Missing]) -> WindowSet | None:
    try:
        return run.windows()
    except BadInputError as error:
        missing.append(Missing("Signals beside their images, windows by subject", error.message, error.hint))
        return None


def _examples(inputs: Inputs, windows: WindowSet | None, missing: list[Missing]) -> list[dict[str, Any]]:
    """Return the example windows; a fold that is damaged leaves the rest of the page standing."""
    if windows is None or not inputs.finished:
        return []
    try:
        with reading(inputs.finished[0].folder):
            if "topology" not in inputs.finished[0].preprocessing():
                missing.append(_NO_IMAGES)
                return []
            return examples(windows, inputs.finished[0])
    except BadInputError as error:
        missing.append(Missing("Signals beside their images", error.message, error.hint))
        return []


def _evaluation(evaluation: dict[str, Any], class_names: list[str]) -> dict[str, Any]:
    return {
        "results": accuracy.results_table(evaluation),
        "subjects": accuracy.subjects_section(evaluation),
        "comparisons": accuracy.comparisons_table(evaluation),
        "confusions": accuracy.confusions(evaluation, evaluation.get("class_names", class_names)),
        "folds": _fold_scores(evaluation),
        "claims": smoothness.claims(evaluation),
        "failures": smoothness.failures(evaluation),
        "smoothness": smoothness.section(evaluation),
        "raw": json.dumps(evaluation, indent=1, ensure_ascii=False),
    }


def _fold_scores(evaluation: dict[str, Any]) -> dict[str, Any]:
    models = list(evaluation["models"])
    rows = []
    for index, fold in enumerate(evaluation["folds"], start=1):
        scores = [fold["models"].get(model, {}) for model in models]
        rows.append(
            {
                "fold": fold.get("fold", index),
                "subjects": ", ".join(fold["subjects"]),
                "cells": [
                    f"{numbers.percent(entry.get('accuracy'))} / {numbers.percent(entry.get('macro_f1'))}"
                    for entry in scores
                ],
            }
        )
    return {"columns": [accuracy.name_of(model) for model in models], "rows": rows}


def _data(inputs: Inputs, windows: WindowSet | None) -> dict[str, Any]:
    """Return where the data come from, what they hold, and what was left out."""
    data = inputs.data
    made = data["made"]
    dropped = made.get("dropped", {})
    total = dropped.get("samples") or 0
    own = inputs.recipe.get("student", {}).get("channels", [])
    return {
        "facts": [
            ("Source", made.get("source", "not told")),
            ("Credit", made.get("credit", "not told")),
            ("Licence", made.get("licence", "not told")),
            (
                "Windows",
                f"{data['windows']} of {data['length'] / data['rate_hz']:.3g} s ({data['length']} samples)",
            ),
            ("Overlap", numbers.percent(made["overlap"]) if made.get("overlap") else "none"),
            ("Rate", f"{data['rate_hz']:g} Hz"),
            (
                "Channels",
                ", ".join(f"{c} ({u})" for c, u in zip(data["channels"], data["units"], strict=True)),
            ),
            *([("Channels of the student", f"{', '.join(own)}; its teachers have all")] if own else []),
            ("Subjects", f"{len(data['subjects'])}"),
            ("Content hash (SHA-256)", data["content_hash"]),
        ],
        "dropped": [
            (why, numbers.count(dropped[key]), f"{100 * dropped[key] / total:.1f} %" if total else "")
            for key, why in DROPPED.items()
            if key in dropped
        ],
        "in_windows": f"{100 * dropped.get('in_windows', 0) / total:.1f} %" if total else "",
        "left_out": list(made.get("left_out_classes", {}).items()),
        "classes": data["class_names"],
        "counts": _counts(windows) if windows is not None else [],
    }


def _counts(windows: WindowSet) -> list[dict[str, Any]]:
    """Return windows by subject and class."""
    labels = np.asarray(windows.y)
    rows = []
    for who in windows.subjects:
        cells = np.bincount(labels[windows.of_subjects([who])], minlength=len(windows.class_names))
        rows.append({"subject": who, "cells": cells.tolist(), "total": int(cells.sum())})
    return rows


def _lines(document: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested values as (dotted name, text)."""
    lines: list[tuple[str, str]] = []
    for key, value in document.items():
        if isinstance(value, dict):
            lines += _lines(value, f"{prefix}{key}.")
        else:
            text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
            lines.append((f"{prefix}{key}", text))
    return lines
