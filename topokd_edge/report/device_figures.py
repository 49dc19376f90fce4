"""Figures of boards: memory against what there is, energy and battery, and where the instructions go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from topokd_edge.report import numbers
from topokd_edge.report.device_bars import Axis, Bar, Group, bars
from topokd_edge.report.device_names import (
    COLOURS,
    SHORT,
    TDA,
    TOPOLOGY,
    core_name,
    device_name,
    falls_behind,
    limits,
    misfits,
    needs,
    pipeline_name,
    topology_share,
    topology_stages,
)
from topokd_edge.report.device_rows import days
from topokd_edge.report.svg import QUIET
from topokd_edge.run import INT8_STUDENT

NETWORK = "#7A7A7A"
_MOST_SHARES = 2.4
"""Memory beyond so many times what there is goes off the figure; the number stands beside it."""
_MOST_LAYERS = 14


@dataclass(frozen=True)
class Picture:
    """A figure with its heading, what it shows in words, and notes below it."""

    title: str
    svg: str
    alt: str
    caption: str
    notes: tuple[str, ...] = ()


def budgets(results: Sequence[dict[str, Any]]) -> list[Picture]:
    """Return RAM and flash of every pipeline on every board, as shares of what the board has."""
    pictures = []
    for name in ("RAM", "flash"):
        groups, words = [], []
        for board, entries in _boards(results).items():
            rows = [_budget(entry, name) for entry in entries if name in needs(entry)]
            if rows:
                have = limits(entries[0])[name]
                groups.append(Group(f"{board}: {numbers.size(have)}", rows))
                words += [f"{board} {row.label} {row.text}" for row in rows]
        if groups:
            axis = Axis(f"{name}, share of what the board has", _percent, limit=1.0, most=_MOST_SHARES)
            pictures.append(
                Picture(
                    f"{name[0].upper()}{name[1:]} against what the board has",
                    bars(f"budget {name}", groups, axis),
                    f"{name} of each pipeline on each board: {'; '.join(words)}",
                    "The line is all the board has; what crosses it does not fit. kB are 1000 bytes.",
                )
            )
    return pictures


def spans(results: Sequence[dict[str, Any]]) -> list[Picture]:
    """Return energy for one window and battery life on boards, as ranges on logarithmic axes."""
    kinds: tuple[tuple[str, str, str, Callable[[float, float], str], Callable[[float], str]], ...] = (
        ("energy_uj", "Energy for one window", "energy for one window (logarithmic)", numbers.energy_uj, _uj),
        ("battery_days", "Battery life", "days from one charge (logarithmic)", _days, lambda v: f"{v:g}"),
    )
    pictures = []
    for key, title, label, shown, tick in kinds:
        groups, words, notes = [], [], list[str]()
        for board, entries in _boards(results).items():
            there = [entry for entry in entries if _has_span(entry, key)]
            rows = [_ranged(entry, key, shown) for entry in there]
            if rows:
                groups.append(Group(board, rows))
                words += [f"{board} {row.label} {row.text}" for row in rows]
                known = next((entry for entry in there if entry.get(key)), None)
                if known is not None:
                    notes.append(f"{board} ({known['basis']}): {known[key]['basis']}")
        if any(bar.parts for group in groups for bar in group.bars):
            figure = bars(key, groups, Axis(label, tick, log=True))
            alt = f"{title} of each pipeline on each board: {'; '.join(words)}"
            caption = "Ranges from what the rules and sources give, not confidence intervals."
            if any(not bar.parts for group in groups for bar in group.bars):
                caption += " Falls behind: a window takes longer than until the next one comes."
            pictures.append(Picture(title, figure, alt, caption, tuple(notes)))
    return pictures


def stacks(results: Sequence[dict[str, Any]]) -> list[Picture]:
    """Return the stages of TDA beside the student, on the first core that counted them."""
    for core, entries in _cores(results).items():
        tda = next((entry for entry in entries if entry["pipeline"] == TDA and topology_stages(entry)), None)
        if tda is None:
            continue
        rows = [_stacked(tda)]
        rows += [_stacked(entry) for entry in entries if entry["pipeline"] == INT8_STUDENT]
        axis = Axis("instructions for one window", numbers.count)
        words = "; ".join(f"{row.label} {row.text}" for row in rows)
        return [
            Picture(
                f"Topology and network, {core}",
                bars(f"stack {core}", [Group("", rows)], axis),
                f"Instructions on the {core}: {words}",
                "Topology, in dark (persistence) and light (image), is "
                f"{numbers.percent(topology_share(tda))} of the TDA pipeline; the grey rest is input and "
                "network. The student computes none.",
            )
        ]
    return []


def layers(results: Sequence[dict[str, Any]]) -> list[Picture]:
    """Return what each layer of the int8 student costs on the first core that was counted."""
    for core, entries in _cores(results).items():
        for entry in entries:
            if entry["pipeline"] == INT8_STUDENT and entry.get("layers"):
                figure = bars(
                    f"layers {core}", [Group("", _layer_bars(entry))], Axis("instructions", numbers.count)
                )
                title = f"The student\u2019s layers, {core}"
                alt = f"Instructions of each layer of the int8 student on the {core}; the table below has all"
                return [Picture(title, figure, alt, _layers_caption(entry))]
    return []


def _boards(results: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return the results on boards by the board's name."""
    found: dict[str, list[dict[str, Any]]] = {}
    for entry in results:
        if limits(entry):
            name = device_name(entry)
            if not entry["target"].startswith("mcu:"):
                name = f"{name}, {entry['basis']}"
            found.setdefault(name, []).append(entry)
    return found


def _cores(results: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return the counted results by core, of each pipeline one: boards with one core share its counts."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for entry in results:
        if entry.get("layers") and entry.get("instructions"):
            facts = entry.get("device") or {}
            core = core_name(str(facts.get("core") or facts.get("name") or entry["target"]))
            found.setdefault(core, {}).setdefault(entry["pipeline"], entry)
    return {core: list(entries.values()) for core, entries in found.items()}


def _budget(entry: dict[str, Any], name: str) -> Bar:
    need, have = needs(entry)[name], limits(entry)[name]
    over = name in misfits(entry)
    text = numbers.size(need) + (": too much" if over else "")
    return Bar(_label(entry), [(0.0, need / have, _colour(entry))], text, loud=over)


def _has_span(entry: dict[str, Any], key: str) -> bool:
    behind = key == "battery_days" and falls_behind(entry)
    return not entry.get("error") and (behind or bool(entry.get(key)))


def _ranged(entry: dict[str, Any], key: str, shown: Callable[[float, float], str]) -> Bar:
    """Return a range; what falls behind has no battery life, as it never sleeps and still loses windows."""
    if key == "battery_days" and falls_behind(entry):
        return Bar(_label(entry), [], "falls behind", loud=True)
    span = entry[key]
    low, high = float(span["low"]), float(span["high"])
    return Bar(_label(entry), [(low, high, _colour(entry))], shown(low, high))


def _stacked(entry: dict[str, Any]) -> Bar:
    parts, start = [], 0.0
    stages = topology_stages(entry)
    for name, number in stages.items():
        parts.append((start, start + number, TOPOLOGY[name]))
        start += number
    whole = float(entry["instructions"])
    parts.append((start, whole, NETWORK if stages else _colour(entry)))
    return Bar(_label(entry), parts, numbers.count(whole))


def _layer_bars(entry: dict[str, Any]) -> list[Bar]:
    """Return the costliest layers in the order they run, and all others together."""
    counts = [(str(layer["name"]), int(layer["instructions"])) for layer in entry["layers"]]
    kept = set(sorted(range(len(counts)), key=lambda index: -counts[index][1])[:_MOST_LAYERS])
    shown = [counts[index] for index in sorted(kept)]
    rest = [counts[index][1] for index in range(len(counts)) if index not in kept]
    if rest:
        shown.append((f"{len(rest)} others", sum(rest)))
    whole = max(1, int(entry["instructions"]))
    return [
        Bar(name, [(0.0, number, _colour(entry))], f"{numbers.count(number)}, {100 * number / whole:.0f} %")
        for name, number in shown
    ]


def _layers_caption(entry: dict[str, Any]) -> str:
    more = (
        f" The {_MOST_LAYERS} costliest, in the order they run."
        if len(entry["layers"]) > _MOST_LAYERS
        else ""
    )
    return f"Counted on an emulated core, {entry.get('kernel', '')} kernels.{more}"


def _label(entry: dict[str, Any]) -> str:
    return SHORT.get(entry["pipeline"], pipeline_name(entry["pipeline"]))


def _colour(entry: dict[str, Any]) -> str:
    return COLOURS.get(entry["pipeline"], QUIET)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _uj(value: float) -> str:
    for scale, unit in ((1e6, "J"), (1e3, "mJ")):
        if value >= scale:
            return f"{value / scale:g} {unit}"
    return f"{value:g} µJ"


def _days(low: float, high: float) -> str:
    return numbers.from_to(low, high, days)
