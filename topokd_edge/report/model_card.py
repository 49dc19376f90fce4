"""The model card of a bundle, as Hugging Face reads it: YAML front matter, then sections for a person."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from topokd_edge.bundle import Manifest
from topokd_edge.data.windowset import WindowSet
from topokd_edge.evaluate.compare import interval_of_difference
from topokd_edge.evaluate.metrics import accuracy_by_subject
from topokd_edge.evaluate.run_table import evaluate_run
from topokd_edge.files import read_json
from topokd_edge.report import numbers
from topokd_edge.run import DISTILLED_STUDENT, INT8_STUDENT, FoldRun, Run

MODEL_CARD = "MODEL_CARD.md"
_WEAKEST = 5
_LICENCE = "unknown"
"""Who publishes the weights says under which licence; the data's licence may bind them."""
_LIMITS = """- It knows {count} classes and no other: it names one of them whatever a person does, also for a
  watch that lies on a table.
- It was trained with sensors where the data have them (channels: {channels}). With a sensor elsewhere on the
  body, or turned round, it guesses.
- Its probability is a softmax, off by {ece} on held-out people (expected calibration error).
- A window is {seconds:.3g} s long: what is shorter is missed, and at a change it may name either activity.
- {people} people are few. Age, illness, impairment and other devices were not tested unless the data say so.
- It is no medical device."""


def model_card(
    run: Run,
    place: FoldRun,
    windows: WindowSet,
    manifest: Manifest,
    int8_loss: Mapping[str, Any] | None = None,
) -> str:
    """Return the card of the student of one fold and seed, as Markdown; the same run gives the same text.

    Parameters
    ----------
    run, place
        The run, and the fold and seed of the student.
    windows
        The window set of the run.
    manifest
        Of the bundle.
    int8_loss
        What int8 costs this very student: `float32`, `int8`, `loss`, `ci95`, `windows`; None without int8.

    Raises
    ------
    BadInputError
        As `evaluate_run`.
    """
    table = evaluate_run(run)
    own = _own(place, windows)
    sections = {
        "In and out": _in_and_out(manifest),
        "Data": _data(windows),
        "Who taught it and who tests it": _split(run, place, table),
        "How well it does": _metrics(table, own),
        "What int8 costs": _int8(table, int8_loss),
        "Devices measured": _devices(run, manifest),
        "Limits": _limits(manifest, table, windows),
        "How it was made": _making(run, place, manifest),
        "Licence": _licence(windows),
    }
    name = f"{run.folder.resolve().name}, fold {place.fold}, seed {place.seed}"
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items())
    title = f"A student of {manifest.params:,} parameters that names {len(manifest.class_names)} activities"
    return f"{_front_matter(name, windows, manifest, own)}\n# {title}\n\n{body}\n"


def _own(place: FoldRun, windows: WindowSet) -> dict[str, Any]:
    """Return the accuracy of this student on its held-out subjects, with the interval over windows."""
    told = place.predictions(DISTILLED_STUDENT)
    right = (told.logits.argmax(axis=1) == told.y).astype(np.float64)
    mean, interval = interval_of_difference(right)
    by_subject = accuracy_by_subject(told.logits, told.y, windows.subject[told.window])
    return {"accuracy": mean, "ci95": interval, "windows": len(right), "subjects": by_subject}


def _front_matter(name: str, windows: WindowSet, manifest: Manifest, own: Mapping[str, Any]) -> str:
    """Return the YAML; texts are written as JSON, which YAML reads."""
    targets = sorted({item.target for item in manifest.files})
    data = str(windows.made.get("source", "recordings"))
    tags = [
        "human-activity-recognition",
        "time-series-classification",
        "knowledge-distillation",
        "topological-data-analysis",
        *targets,
    ]
    metric = {"type": "accuracy", "value": round(100 * own["accuracy"], 2)}
    result = {
        "task": {"type": "time-series-classification"},
        "dataset": {"type": str(windows.made.get("format", "recordings")), "name": data},
        "metrics": [{**metric, "name": "accuracy on held-out subjects, %"}],
    }
    lines = {
        "license": _LICENCE,
        "library_name": "topokd-edge",
        "tags": tags,
        "metrics": ["accuracy"],
        "model-index": [{"name": name, "results": [result]}],
    }
    told = "\n".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in lines.items())
    return f"---\n{told}\n---\n"


def _in_and_out(manifest: Manifest) -> str:
    rows = [[n, u] for n, u in zip(manifest.channel_names, manifest.units, strict=True)]
    files = [[f"`{f.path}`", f.target, f.precision, f"{f.bytes:,}"] for f in manifest.files]
    seconds = manifest.length / manifest.rate_hz
    return "\n\n".join(
        [
            f"In: {manifest.length} samples ({seconds:.3g} s at {manifest.rate_hz:.6g} Hz) of these channels "
            "in this order; the normalisation is in the manifest.",
            _table(["channel", "unit"], rows),
            f"Out: a logit for each of {', '.join(manifest.class_names)}.",
            f"{manifest.params:,} parameters, {manifest.macs:,} multiply-accumulates a window.",
            _table(["file", "target", "precision", "bytes"], files),
        ]
    )


def _data(windows: WindowSet) -> str:
    made = windows.made
    classes = np.bincount(windows.y, minlength=len(windows.class_names)).tolist()
    lines = [
        f"{made.get('source', 'recordings')} (format {made.get('format', 'not stated')}): "
        f"{len(windows)} windows of {len(windows.subjects)} people, {windows.rate_hz:.6g} Hz. "
        f"Credit: {made.get('credit', 'not stated')}. Licence: {made.get('licence', 'not stated')}.",
        _table(
            ["class", "windows"],
            [[name, str(n)] for name, n in zip(windows.class_names, classes, strict=True)],
        ),
        f"Content of the window set (SHA-256): `{windows.content_hash}`.",
    ]
    if made.get("left_out_classes"):
        lines.insert(1, f"Classes left out: {', '.join(made['left_out_classes'])}.")
    return "\n\n".join(lines)


def _split(run: Run, place: FoldRun, table: Mapping[str, Any]) -> str:
    fold = run.fold(place.fold)
    rows = [
        ["fit: their windows taught the weights", ", ".join(fold["fit"])],
        ["validation: epoch and settings were chosen on them", ", ".join(fold["validation"]) or "none"],
        ["held out: nothing was learned from or chosen on them", ", ".join(fold["test"])],
    ]
    text = _table(["subjects", "who"], rows)
    text += f"\n\nProtocol {table['protocol']}, split by subject: fold {place.fold} of {len(run.folds)}."
    if table["optimistic"]:
        text += f"\n\n**These numbers are {table['optimistic']}.**"
    return text


def _metrics(table: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    scores = [row["models"][DISTILLED_STUDENT] for row in table["subjects"]]
    mean, interval = interval_of_difference(np.array(scores, dtype=np.float64))
    model = table["models"][DISTILLED_STUDENT]
    who = ", ".join(f"{name} ({numbers.percent(value)})" for name, value in own["subjects"].items())
    parts = [
        f"**A new person**: {numbers.percent(mean)} of windows{_between(interval)} over {len(scores)} "
        "subjects, each tested by a student of this run that never saw them. "
        f"Macro F1 {numbers.percent(model['macro_f1'])}, expected calibration error {model['ece']:.3f}.",
        f"**This very student**: {numbers.percent(own['accuracy'])} of {own['windows']} windows"
        f"{_between(own['ci95'])}, of subject {who}. This interval is over windows, which are alike in one "
        "person, so it is too narrow for people.",
        _table(
            ["subject", "windows", "accuracy"],
            [
                [row["subject"], str(row["windows"]), numbers.percent(row["models"][DISTILLED_STUDENT])]
                for row in table["subjects"]
            ],
        ),
    ]
    f1 = {name: value for name, value in table["f1_by_class"][DISTILLED_STUDENT].items() if value is not None}
    weak = sorted(f1, key=lambda name: (f1[name], name))[:_WEAKEST]
    told = ", ".join(f"{name} ({numbers.percent(f1[name])})" for name in weak)
    parts.append(f"Weakest classes by F1: {told}.")
    judged = [item["sentence"] for item in table["comparisons"] if item["b"] == DISTILLED_STUDENT]
    if judged:
        parts.append("\n".join(f"- {sentence}" for sentence in judged))
    if table["folds_missing"]:
        parts.append(f"Folds {', '.join(map(str, table['folds_missing']))} are not trained and not in this.")
    return "\n\n".join(parts)


def _int8(table: Mapping[str, Any], loss: Mapping[str, Any] | None) -> str:
    parts = []
    if loss is None:
        parts.append("This bundle has no int8 model.")
    else:
        interval = None if loss["ci95"] is None else (-loss["ci95"][1], -loss["ci95"][0])
        parts.append(
            f"{numbers.points(-loss['loss'])} points on {loss['windows']} held-out windows"
            f"{_between(interval, points=True)}: {numbers.percent(loss['float32'])} in float32, "
            f"{numbers.percent(loss['int8'])} in int8."
        )
    pair = [
        item for item in table["comparisons"] if (item["a"], item["b"]) == (DISTILLED_STUDENT, INT8_STUDENT)
    ]
    parts += [f"Over the subjects of the run: {item['sentence']}" for item in pair]
    return "\n\n".join(parts)


def _devices(run: Run, manifest: Manifest) -> str:
    """Return the measurements of these model files, told by their size, from the run's bench.json."""
    path = run.folder / "bench.json"
    results = read_json(path).get("results", []) if path.is_file() else []
    sizes = {item.bytes for item in manifest.files}
    rows = [
        [
            str(entry.get("target")),
            str(entry.get("device", {}).get("cpu") or entry.get("device", {}).get("name") or "not stated"),
            str(entry.get("basis")),
            f"{entry.get('pipeline')} on {entry.get('runtime')}",
            *_times(entry),
            numbers.size(entry.get("ram_bytes")),
        ]
        for entry in results
        if entry.get("latency_ms") and entry.get("model_bytes") in sizes
    ]
    if not rows:
        return "None yet: `topokd-edge bench BUNDLE --out RUN/bench.json`, then export again."
    return _table(["target", "processor", "basis", "what", "p50", "p95", "memory"], rows)


def _times(entry: Mapping[str, Any]) -> list[str]:
    """Return median and 95th percentile; of a modelled latency both ends of its range, marked as such."""
    modelled, measured = entry.get("latency_range_ms"), entry["latency_ms"]
    if modelled:
        return [
            f"at least {numbers.duration_ms(modelled['low'])}",
            f"at most {numbers.duration_ms(modelled['high'])}",
        ]
    return [numbers.duration_ms(measured[key]) for key in ("p50", "p95")]


def _limits(manifest: Manifest, table: Mapping[str, Any], windows: WindowSet) -> str:
    return _LIMITS.format(
        count=len(manifest.class_names),
        channels=", ".join(manifest.channel_names),
        ece=f"{table['models'][DISTILLED_STUDENT]['ece']:.3f}",
        seconds=manifest.length / manifest.rate_hz,
        people=len(windows.subjects),
    )


def _making(run: Run, place: FoldRun, manifest: Manifest) -> str:
    recipe = run.recipe
    teachers = recipe.get("student", {}).get("distilling", {}).get("teachers", [])
    versions = ", ".join(f"{name} {version}" for name, version in manifest.versions.items())
    return (
        f"A student on the raw signal, distilled from these teachers: {', '.join(teachers) or 'not stated'} "
        "(topology is that of persistence images; method: arXiv 2502.00779). "
        f"Recipe {recipe.get('name', 'not stated')}, fold {place.fold}, seed {place.seed}; the whole recipe "
        f"is in the run. Written with {versions}. The same run gives the same bytes; `topokd-edge verify` "
        "checks every file."
    )


def _licence(windows: WindowSet) -> str:
    made = windows.made
    return (
        "The program that made it is under Apache-2.0. Who publishes these weights says under which licence; "
        f"the data they were learned from: {made.get('licence', 'licence not stated')}, "
        f"credit {made.get('credit', 'not stated')}."
    )


def _between(interval: Sequence[float] | None, *, points: bool = False) -> str:
    if interval is None:
        return " (no interval)"
    said = [numbers.points(v) if points else numbers.percent(min(1.0, max(0.0, v))) for v in interval]
    return f" (95 % interval {said[0]} to {said[1]})"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    cells = ([" ".join(cell.replace("|", "/").split()) for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)
