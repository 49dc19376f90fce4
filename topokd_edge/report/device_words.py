"""The sentence a decision hangs on: the student beside the topological pipeline on one target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from topokd_edge.report import numbers
from topokd_edge.report.device_names import (
    BOARD,
    CORE,
    TDA,
    C,
    Kind,
    core_name,
    device_name,
    falls_behind,
    is_steady,
    kind_of,
    latency_span,
    limits,
    misfits,
    needs,
    rank,
    spoken,
    topology_share,
)
from topokd_edge.run import INT8_STUDENT


@dataclass(frozen=True)
class Comparison:
    """One target: the quickest student, and the quickest TDA pipeline where one ran.

    Attributes
    ----------
    student, tda
        Entries of the results; `tda` is None where none has a figure.
    refused
        The entry of a TDA pipeline that does not fit the board; None when it fits or was not tried.
    """

    kind: Kind
    student: dict[str, Any]
    tda: dict[str, Any] | None
    refused: dict[str, Any] | None

    @property
    def tells(self) -> bool:
        """Whether both sides are known: two figures, or that one does not fit."""
        return self.tda is not None or self.refused is not None

    @property
    def times(self) -> float | None:
        """How many times as long (on a core alone: as many instructions) topology takes."""
        return None if self.tda is None else cost(self.tda) / max(cost(self.student), 1e-9)


def comparisons(bench: dict[str, Any]) -> list[Comparison]:
    """Return a comparison for every target whose student has a figure, what is most like a watch first.

    Of a kind, measured ones come first. The student is int8 where that ran, and both sides have the
    fewest threads that were tried. Where topology ran as C alone, the student is the one in C too.
    """
    found = []
    results = [entry for entry in bench["results"] if is_steady(entry)]
    for target in dict.fromkeys(entry["target"] for entry in results):
        here = [entry for entry in results if entry["target"] == target]
        valued = [entry for entry in here if cost_known(entry)]
        fewest = min((entry.get("threads", 1) for entry in valued), default=1)
        valued = [entry for entry in valued if entry.get("threads", 1) == fewest]
        students = [entry for entry in valued if entry["pipeline"] == INT8_STUDENT] or [
            entry for entry in valued if entry["pipeline"].startswith("student.")
        ]
        if students:
            tda = [entry for entry in valued if entry["pipeline"] == TDA]
            student = min(_alike(students, tda), key=cost)
            tda = [entry for entry in tda if same_measure(entry, student)]
            refused = [entry for entry in here if entry["pipeline"] == TDA and misfits(entry)]
            slow = min(tda, key=cost, default=None)
            found.append(
                Comparison(kind_of(student), student, slow, refused[0] if refused and not slow else None)
            )
    return sorted(found, key=lambda item: rank(item.student))


def _alike(students: list[dict[str, Any]], tda: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the students to compare with topology: those in C where it has nothing else, else all."""
    in_c = [entry for entry in students if entry["runtime"] == C]
    return in_c if tda and in_c and all(entry["runtime"] == C for entry in tda) else students


def lead(bench: dict[str, Any]) -> Comparison | None:
    """Return the comparison that a decision should hang on; None unless one target knows both sides."""
    return next((item for item in comparisons(bench) if item.tells), None)


def lead_sentence(bench: dict[str, Any]) -> str:
    """Return the words of `lead`, and how much of it is topology where that is known; empty without one."""
    found = lead(bench)
    return _sentence(found) + (_of_it(found.tda) if found.tda else "") if found else ""


def _sentence(found: Comparison) -> str:
    """Return a comparison in words, with the basis, and the range of everything modelled."""
    student, tda = found.student, found.tda
    opening = f"On {place(found)}, {spoken(student['pipeline'])}"
    if not student.get("latency_ms"):
        return _counted(opening, found)
    takes = f"answers in {latency(student)}"
    if found.refused is not None:
        return f"{opening} {takes}{_room(student)}; {refusal(found.refused)}."
    if tda is None:
        return f"{opening} {takes}; no pipeline with topology was tried there."
    if student.get("latency_range_ms"):
        return (
            f"{opening} {takes} where the quickest topological pipeline would take {latency(tda)}, "
            f"about {numbers.ratio(found.times or 0)} times as long ({ends(found)}){_too_late(tda)}."
        )
    return (
        f"{opening} {takes}, without any topology; the quickest pipeline that computes topology at inference "
        f"takes {latency(tda)}, {numbers.ratio(found.times or 0)} times as long."
    )


def latency(entry: dict[str, Any]) -> str:
    """Return a latency in words: a model's range, or the median with p95."""
    low, _, high = latency_span(entry)
    if entry.get("latency_range_ms"):
        return numbers.from_to(low, high, numbers.duration_ms)
    if entry["basis"] != "measured":
        return f"{numbers.duration_ms(low)} (one number, the model tells no range)"
    return f"{numbers.duration_ms(low)} (median; 95 % of runs within {numbers.duration_ms(high)})"


def place(found: Comparison) -> str:
    """Return where a comparison holds and on what basis."""
    entry, facts = found.student, found.student.get("device") or {}
    if found.kind is CORE:
        core = core_name(entry["target"].partition(":")[2])
        return f"the {core} core (instructions counted on an emulated core)"
    if found.kind is not BOARD:
        name = device_name(entry)
        own = "" if name == entry["target"] else f", {name}"
        return f"the target {entry['target']}{own} ({entry['basis']})"
    what = core_name(str(facts.get("core", "")))
    if facts.get("clock_mhz"):
        what = f"{what} at {facts['clock_mhz']:g} MHz".strip()
    basis = "modelled, not measured" if entry["basis"] == "modelled" else entry["basis"]
    name = device_name(entry)
    who = f"board at {name}" if name == entry["target"] else name
    return f"the {who} ({', '.join(part for part in (what, basis) if part)})"


def refusal(entry: dict[str, Any]) -> str:
    """Return what the TDA pipeline would need more of than its board has."""
    need, have = needs(entry), limits(entry)
    lacks = " and ".join(
        f"{numbers.size(need[name])} of {name} where the board has {numbers.size(have[name])}"
        for name in misfits(entry)
    )
    return f"the topological pipeline does not fit: it needs {lacks}"


def cost_known(entry: dict[str, Any]) -> bool:
    """Tell whether a result has a latency, or on a core alone instructions."""
    return not entry.get("error") and bool(entry.get("latency_ms") or entry.get("instructions"))


def cost(entry: dict[str, Any]) -> float:
    """Return the median or middle latency in ms, or where there is no time the instructions."""
    return float(entry["latency_ms"]["p50"] if entry.get("latency_ms") else entry["instructions"])


def same_measure(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Tell whether the costs of two results are both times or both instructions."""
    return bool(one.get("latency_ms")) == bool(other.get("latency_ms"))


def _counted(opening: str, found: Comparison) -> str:
    student = f"{opening} takes {numbers.count(found.student['instructions'])} instructions a window"
    if found.tda is None:
        return f"{student}; no pipeline with topology was tried there."
    return (
        f"{student} where the topological pipeline takes {numbers.count(found.tda['instructions'])}, "
        f"{numbers.ratio(found.times or 0)} times as many."
    )


def ends(found: Comparison) -> str:
    """Return the least and the most that the ratio of two modelled ranges can be; empty where none is."""
    if found.tda is None or not (found.tda.get("latency_range_ms") and found.student.get("latency_range_ms")):
        return ""
    (low, _, high), (least, _, most) = latency_span(found.student), latency_span(found.tda)
    return numbers.from_to(least / max(high, 1e-9), most / max(low, 1e-9), numbers.ratio)


def _of_it(tda: dict[str, Any]) -> str:
    share = topology_share(tda)
    if share is None:
        return ""
    return (
        f" Persistence and its image are {numbers.percent(share)} of that pipeline\u2019s instructions, the "
        "rest is the teacher that reads them, in float32."
    )


def _too_late(tda: dict[str, Any]) -> str:
    return f", too slow for a window every {tda['device']['every_s']:.3g} s" if falls_behind(tda) else ""


def _room(student: dict[str, Any]) -> str:
    need, have = needs(student), limits(student)
    if "RAM" not in need or "RAM" not in have:
        return ""
    return f" in {numbers.size(need['RAM'])} of the board's {numbers.size(have['RAM'])} RAM"
