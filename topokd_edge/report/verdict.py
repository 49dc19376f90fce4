"""The first thing a reader sees: five figures, and what they mean in plain words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from topokd_edge.report import device, device_words, numbers
from topokd_edge.report.accuracy import TONES, comparison, subjects_of
from topokd_edge.report.device_names import runtime_name, spoken
from topokd_edge.report.inputs import Inputs
from topokd_edge.run import DISTILLED_STUDENT, INT8_STUDENT, SCRATCH_STUDENT


@dataclass(frozen=True)
class Tile:
    """One figure: what it is, the figure, what to know about it, and `good`, `bad`, `neutral` or `absent`."""

    label: str
    value: str
    detail: str
    tone: str


@dataclass(frozen=True)
class Int8Cost:
    """Accuracy lost to int8 as a share, its 95 % interval, a verdict on int8, and where it was found."""

    lost: float
    ci95: list[float] | None
    verdict: str
    where: str


def tiles(inputs: Inputs) -> list[Tile]:
    """Return the five figures that matter, in the order of the questions they answer."""
    return [
        _accuracy_tile(inputs.evaluation),
        _gain_tile(inputs.evaluation),
        _int8_tile(inputs),
        _latency_tile(inputs.bench),
        _size_tile(inputs.export),
    ]


def sentences(inputs: Inputs) -> list[str]:
    """Return the verdict, one sentence a finding; what is missing is left out here and listed elsewhere."""
    said = []
    if doubt := (inputs.evaluation or {}).get("optimistic"):
        said.append(f"All accuracies on this page are {doubt}.")
    if inputs.evaluation and DISTILLED_STUDENT in inputs.evaluation["models"]:
        said += _on_accuracy(inputs.evaluation)
    if cost := int8_cost(inputs):
        said.append(_on_int8(cost))
    if inputs.bench and (words := device_words.lead_sentence(inputs.bench)):
        said.append(words)
    if inputs.export and (file := device.int8_file(inputs.export)):
        said.append(f"Its int8 model file takes {numbers.size(file['bytes'])}.")
    for item in (inputs.evaluation or {}).get("experiments", []):
        said.append(f"Claim \u201c{item['claim']}\u201d: {item['verdict']}.")
    return said or ["Nothing has been evaluated or measured yet; the list below says which commands do it."]


def _on_accuracy(evaluation: dict[str, Any]) -> list[str]:
    accuracy = evaluation["models"][DISTILLED_STUDENT]["accuracy"]
    scores = subjects_of(evaluation, DISTILLED_STUDENT)
    people = (
        f" (from {numbers.percent(min(scores.values()))} to {numbers.percent(max(scores.values()))} "
        f"over {len(scores)} of them)"
        if scores
        else ""
    )
    said = [
        f"On people it has never seen, the distilled student names the right class in "
        f"{numbers.percent(accuracy)} of each person\u2019s windows, on average{people}."
    ]
    gain = comparison(evaluation, SCRATCH_STUDENT, DISTILLED_STUDENT)
    if gain:
        said.append(_on_gain(gain))
    return said


def _on_gain(gain: dict[str, Any]) -> str:
    by = f"{numbers.points(gain['difference'])} points{_between(gain.get('ci95'))}"
    if gain["verdict"] == "better":
        return f"Distillation helps: {by}."
    if gain["verdict"] == "worse":
        return f"Distillation harms: {by}."
    return f"Whether distillation helps cannot be told from this run: {by} is within noise."


def _on_int8(cost: Int8Cost) -> str:
    by = f"{numbers.points(cost.lost, sign=False)} points{_between(cost.ci95)}"
    if cost.verdict == "within noise":
        return f"What int8 costs cannot be told from zero: {by}."
    return f"Going to int8 costs {by}."


def int8_cost(inputs: Inputs) -> Int8Cost | None:
    """Return what int8 costs: over all held-out subjects if evaluated, else as measured on a device."""
    found = comparison(inputs.evaluation, DISTILLED_STUDENT, INT8_STUDENT) if inputs.evaluation else None
    if found:
        bounds = found.get("ci95")
        flipped = [-bounds[1], -bounds[0]] if bounds else None
        return Int8Cost(-found["difference"], flipped, found["verdict"], "all held-out subjects")
    measured = (inputs.bench or {}).get("int8_cost")
    if not measured:
        return None
    low, high = measured["ci95"]
    verdict = "worse" if low > 0 else "better" if high < 0 else "within noise"
    where = f"{measured['windows']} windows of {measured['subjects']} held-out subjects"
    return Int8Cost(measured["cost"], [low, high], verdict, where)


def _accuracy_tile(evaluation: dict[str, Any] | None) -> Tile:
    label = "Accuracy"
    if not evaluation or DISTILLED_STUDENT not in evaluation["models"]:
        return _absent(label, "topokd-edge evaluate")
    entry = evaluation["models"][DISTILLED_STUDENT]
    scores = list(subjects_of(evaluation, DISTILLED_STUDENT).values())
    detail = "distilled student, mean over held-out subjects"
    if entry.get("std_subjects") is not None:
        detail += f" ± {numbers.points(entry['std_subjects'], sign=False)} points between them"
    if scores:
        detail += f"; worst {numbers.percent(min(scores))}, best {numbers.percent(max(scores))}"
    return Tile(label, numbers.percent(entry["accuracy"]), detail, "neutral")


def _gain_tile(evaluation: dict[str, Any] | None) -> Tile:
    label = "Gain of distillation"
    entry = comparison(evaluation, SCRATCH_STUDENT, DISTILLED_STUDENT) if evaluation else None
    if entry is None:
        return _absent(label, "topokd-edge evaluate")
    bounds = entry.get("ci95")
    between = f"95 % interval {numbers.interval(bounds)}; " if bounds else ""
    value = f"{numbers.points(entry['difference'])} points"
    return Tile(label, value, between + entry["verdict"], TONES.get(entry["verdict"], "neutral"))


def _int8_tile(inputs: Inputs) -> Tile:
    label = "Accuracy lost to int8"
    cost = int8_cost(inputs)
    if cost is None:
        return _absent(label, "topokd-edge export --int8, then evaluate or bench")
    between = f"95 % interval {numbers.interval(cost.ci95)}; " if cost.ci95 else ""
    detail = f"{between}{cost.verdict}; {cost.where}"
    return Tile(
        label, f"{numbers.points(cost.lost, sign=False)} points", detail, TONES.get(cost.verdict, "neutral")
    )


def _latency_tile(bench: dict[str, Any] | None) -> Tile:
    found = device_words.lead(bench) if bench else None
    if found is None:
        return _absent("Time for one window", "topokd-edge bench")
    student, span = found.student, found.student.get("latency_range_ms")
    if not student.get("latency_ms"):
        label, value = "Instructions for one window", numbers.count(student["instructions"])
    else:
        label, value = "Time for one window", numbers.duration_ms(student["latency_ms"]["p50"])
        if span:
            value = numbers.from_to(span["low"], span["high"], numbers.duration_ms).replace(" to ", "\u2013")
    basis = "median" if student["basis"] == "measured" else student["basis"]
    if found.tda is None:
        beside = "the TDA pipeline does not fit"
    else:
        as_much = "as long" if student.get("latency_ms") else "as many"
        slow = f"{numbers.ratio(found.times or 0)} times {as_much} ({runtime_name(found.tda['runtime'])})"
        beside = f"the TDA pipeline takes {slow}"
    whose = f"{spoken(student['pipeline'])}, {basis} on {student['target']}"
    return Tile(label, value, f"{whose}; {beside}", "neutral")


def _size_tile(export: dict[str, Any] | None) -> Tile:
    label = "Model file"
    file = device.int8_file(export) if export else None
    if file is None:
        return _absent(label, "topokd-edge export --int8")
    return Tile(
        label,
        numbers.size(file["bytes"]),
        f"{file['target']}, int8 weights and activations; {file['bytes']} bytes",
        "neutral",
    )


def _absent(label: str, command: str) -> Tile:
    return Tile(label, numbers.MISSING, f"not there yet: {command}", "absent")


def _between(bounds: list[float] | None) -> str:
    return f" (95 % interval {numbers.interval(bounds)})" if bounds else ""
