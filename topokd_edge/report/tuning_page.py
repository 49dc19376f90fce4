"""The page of a search: what was found, what it costs, and what its numbers are worth."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from topokd_edge import __version__
from topokd_edge.errors import BadInputError
from topokd_edge.files import read_json, refuse_existing, write_text
from topokd_edge.report import numbers, tuning_figures
from topokd_edge.report.inputs import reading
from topokd_edge.report.page import render

TEMPLATE = "tuning.html.j2"
JOB, TRIALS, SPACE = "tune.json", "trials.json", "space.json"
"""Files of a search; see `topokd_edge.distill.tuning.job.Search`, which is not imported: it brings torch."""
COSTS: dict[str, tuple[str, str, Callable[[float | None], str]]] = {
    "macs": ("MACs", "the multiply-accumulates of the student", numbers.count),
    "latency_ms": ("latency", "the time of the int8 student", numbers.duration_ms),
}
_EDGE = 0.03
"""Share of a range from its end on which a value counts as lying at that end."""


def is_search(folder: Path) -> bool:
    """Tell whether a folder is one that `tune` made."""
    return (folder / JOB).is_file()


def write_search_page(folder: Path, out: Path, *, overwrite: bool = False) -> None:
    """Write what a search found as one HTML file that needs no network.

    Parameters
    ----------
    folder
        Of the search; it may still be going on.
    out
        The file to write, whole or not at all.
    overwrite
        Replace `out` when it exists.

    Raises
    ------
    BadInputError
        When no trial has ended yet, `out` exists, or a file of the search is damaged.
    """
    refuse_existing(out, overwrite=overwrite)
    if not (folder / TRIALS).is_file():
        raise BadInputError(
            f"{folder}: no trial of this search has ended yet", hint="topokd-edge tune ... --resume"
        )
    found, space = read_json(folder / TRIALS), read_json(folder / SPACE)
    with reading(folder / TRIALS):
        page = collect(folder, found, space)
    write_text(out, render(TEMPLATE, page))


def collect(folder: Path, found: dict[str, Any], space: dict[str, Any]) -> dict[str, Any]:
    """Return everything the page shows, formatted, with figures as SVG text."""
    complete = [row for row in found["trials"] if row["state"] == "complete"]
    by_number = {row["number"]: row for row in complete}
    front = [by_number[number] for number in found["pareto"]]
    costs = [key for key in COSTS if any(row[key] is not None for row in complete)]
    return {
        "title": f"{folder.resolve().name}: a search for a recipe's values",
        "version": __version__,
        "sentences": _sentences(found, complete, front, costs),
        "caveats": list(found["caveats"]),
        "tiles": _tiles(found, complete, front, costs),
        "fronts": [_front_figure(key, complete, found["pareto"]) for key in costs],
        "progress": tuning_figures.progress([(row["number"], row["accuracy"]) for row in complete])
        if complete
        else "",
        "slices": _slices(space, complete, found["pareto"]) if complete else "",
        "front": _table("Trials that no other beats in all objectives", front, costs, space),
        "trials": _table(
            "Every trial that was finished, the most accurate first",
            sorted(complete, key=lambda row: (-row["accuracy"], row["macs"], row["number"])),
            costs,
            space,
        ),
        "failed": [(row["number"], row["failed"]) for row in found["trials"] if row["failed"]],
        "edges": _edges(space, front),
        "space": _space_table(space),
        "facts": _facts(found, space),
        "best": str(folder / "best.toml") if front else "",
        "command": _command(folder, found) if front else "",
    }


def _sentences(
    found: dict[str, Any], complete: list[dict[str, Any]], front: list[dict[str, Any]], costs: list[str]
) -> list[str]:
    states = [row["state"] for row in found["trials"]]
    others = {"failed": states.count("fail"), "going on": states.count("running")}
    text = f"{len(complete)} of {len(states)} trials were finished"
    text += "".join(f", {number} {what}" for what, number in others.items() if number) + "."
    if not front:
        return [text]
    first, last = front[0], front[-1]
    sentences = [text, f"Trial {first['number']} is the most accurate: {_worth(first, costs)}."]
    if last is not first:
        sentences.append(f"At the other end of the front, trial {last['number']} has {_worth(last, costs)}.")
    return sentences


def _worth(row: dict[str, Any], costs: list[str]) -> str:
    """Say a trial's accuracy and costs."""
    said = [f"{numbers.percent(row['accuracy'])} of the validation windows"]
    said += [f"{COSTS[key][2](row[key])}{' MACs' if key == 'macs' else ''}" for key in costs]
    return ", ".join(said)


def _tiles(
    found: dict[str, Any], complete: list[dict[str, Any]], front: list[dict[str, Any]], costs: list[str]
) -> list[dict[str, str]]:
    judges, honest = found["chosen_on"], found["untouched_folds"]
    tiles = [
        {
            "label": "Trials",
            "value": str(len(complete)),
            "detail": f"finished, of {len(found['trials'])}",
        }
    ]
    if front:
        best = front[0]
        tiles.append(
            {
                "label": "Best on validation",
                "value": numbers.percent(best["accuracy"]),
                "detail": f"trial {best['number']}, {len(judges)} subjects; chosen there, so optimistic",
            }
        )
        tiles += [
            {
                "label": f"{COSTS[key][0][:1].upper()}{COSTS[key][0][1:]} of the best",
                "value": COSTS[key][2](best[key]),
                "detail": f"from {COSTS[key][2](min(row[key] for row in front))} on the front",
            }
            for key in costs
        ]
    tiles.append(
        {
            "label": "Honest folds",
            "value": ", ".join(map(str, honest)) or "none",
            "detail": "whose test subjects had no part in the choice",
        }
    )
    return [{**tile, "tone": ""} for tile in tiles]


def _front_figure(key: str, complete: list[dict[str, Any]], pareto: list[int]) -> dict[str, str]:
    name, label, shown = COSTS[key]
    points = [(row["number"], row[key], row["accuracy"], row["number"] in pareto) for row in complete]
    return {
        "name": name,
        "about": label,
        "svg": tuning_figures.front(key, f"{name} for one window", points, lambda value: shown(value)),
    }


def _slices(space: dict[str, Any], complete: list[dict[str, Any]], pareto: list[int]) -> str:
    panels = [
        (
            _short(key),
            bool(item["log"]),
            [row["parameters"][key] for row in complete],
            [row["accuracy"] for row in complete],
            [row["number"] in pareto for row in complete],
        )
        for key, item in space["vary"].items()
    ]
    return tuning_figures.slices(panels)


def _table(title: str, rows: list[dict[str, Any]], costs: list[str], space: dict[str, Any]) -> dict[str, Any]:
    keys = list(space["vary"])
    return {
        "title": title,
        "columns": ["trial", "accuracy", *(COSTS[key][0] for key in costs), *map(_short, keys)],
        "rows": [
            [
                str(row["number"]),
                numbers.percent(row["accuracy"]),
                *(COSTS[key][2](row[key]) for key in costs),
                *(_value(row["parameters"][key]) for key in keys),
            ]
            for row in rows
        ],
    }


def _edges(space: dict[str, Any], front: list[dict[str, Any]]) -> list[str]:
    """Name ranges at whose end the best trial lies: beyond it may be a better one."""
    lines = []
    for key, item in space["vary"].items() if front else ():
        low, high, value = item["low"], item["high"], front[0]["parameters"][key]
        if low is None or high is None:
            continue
        room = _EDGE * (high - low)
        for end in (low, high):
            if abs(value - end) <= room:
                lines.append(f"{_short(key)} of the best trial is {_value(value)}, an end of its range.")
    return lines


def _space_table(space: dict[str, Any]) -> dict[str, Any]:
    rows = []
    for key, item in space["vary"].items():
        if item["choices"]:
            values = ", ".join(_value(value) for value in item["choices"])
        else:
            values = f"{_value(item['low'])} to {_value(item['high'])}"
            values += f", step {_value(item['step'])}" if item["step"] else ""
            values += ", logarithmic" if item["log"] else ""
        rows.append([key, values, item["source"]])
    return {"title": "What was varied", "columns": ["key", "values", "source"], "rows": rows}


def _facts(found: dict[str, Any], space: dict[str, Any]) -> list[tuple[str, str]]:
    sampler = found["sampler"]
    return [
        ("Study", found["study"]),
        ("Space", space["name"]),
        ("Objectives", ", ".join(found["objectives"])),
        ("Sampler", f"{sampler['name']}, seed {sampler['seed']}"),
        ("Chosen in folds", ", ".join(map(str, found["folds"]))),
        ("Parts of each", str(found["parts"])),
        ("Validation subjects", ", ".join(found["chosen_on"])),
        ("Memory of the trials", found["storage"] or "journal in the folder"),
        ("Data", found["data"]),
        ("Content hash (SHA-256)", found["content_hash"]),
        *((name, version) for name, version in found["versions"].items()),
    ]


def _command(folder: Path, found: dict[str, Any]) -> str:
    honest = ",".join(map(str, found["untouched_folds"]))
    only = f" --folds {honest}" if honest else ""
    return f"topokd-edge train --data {found['data']} --recipe {folder / 'best.toml'}{only}"


def _short(key: str) -> str:
    return str(key).rpartition(".")[2].replace("_", " ")


def _value(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
