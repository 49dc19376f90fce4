"""Compare adaptive mixup with fixed alphas at equal cost: python benchmarks/adaptive_mixup.py RUN OUT.md

RUN was trained with the recipe adaptive-mixup. In every fold and seed each side is searched: of its students,
equally many, the one that is best on the validation subjects is taken. Students without mixup stand apart.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from topokd_edge.evaluate.compare import compare
from topokd_edge.evaluate.metrics import accuracy_by_subject
from topokd_edge.files import write_json, write_text
from topokd_edge.run import FoldRun, Run

Candidate = dict[str, Any]


def adaptive(settings: dict[str, Any]) -> bool:
    return bool(settings["alpha"] == "adaptive")


def fixed(settings: dict[str, Any]) -> bool:
    return not adaptive(settings) and max(settings["alpha_signal"], settings["alpha_topology"]) > 0


def labelled(label: str) -> Callable[[dict[str, Any]], bool]:
    return lambda settings: bool(settings["label"] == label)


SIDES: dict[str, Callable[[dict[str, Any]], bool]] = {
    "no mixup": labelled("none"),
    "published alphas": labelled("published"),
    "adaptive": labelled("adaptive"),
    "best of fixed": fixed,
    "best of adaptive": adaptive,
}
PAIRS = [
    ("no mixup", "adaptive"),
    ("published alphas", "adaptive"),
    ("best of fixed", "best of adaptive"),
    ("best of fixed", "adaptive"),
]


def of_side(place: FoldRun, side: Callable[[dict[str, Any]], bool]) -> list[Candidate]:
    return [row for row in place.selection()["candidates"] if side(row["settings"])]


def best_of(rows: list[Candidate]) -> Candidate:
    return max(rows, key=lambda row: (row["validation_accuracy"], -row["candidate"]))


def scores(run: Run, side: Callable[[dict[str, Any]], bool]) -> dict[str, float]:
    """Accuracy of each held-out subject, mean over seeds, by the student that a search of this side takes."""
    windows = run.windows()
    found: dict[str, list[float]] = {}
    for place in run.finished():
        taken = best_of(of_side(place, side))
        said = place.predictions(f"student.{taken['settings']['label']}")
        for who, accuracy in accuracy_by_subject(said.logits, said.y, windows.subject[said.window]).items():
            found.setdefault(who, []).append(accuracy)
    return {who: float(np.mean(values)) for who, values in found.items()}


def strengths(run: Run) -> list[str]:
    """What each teacher got with the default budget, by fold and seed."""
    lines = []
    for place in run.finished():
        (row,) = of_side(place, SIDES["adaptive"])
        made = row["settings"]
        lines.append(
            f"| {place.fold} | {place.seed} | {made['alpha_signal']} | {made['mixup_share']} "
            f"| {made['alpha_topology']} | {made['mixup_share_topology']} |"
        )
    return lines


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    run, out = Run.open(Path(sys.argv[1])), Path(sys.argv[2])
    first = run.finished()[0]
    costs = {name: len(of_side(first, side)) for name, side in SIDES.items()}
    by_side = {name: scores(run, side) for name, side in SIDES.items()}
    compared = [compare(a, b, by_side[a], by_side[b]) for a, b in PAIRS]
    parts = [
        f"# {run.folder.name}: adaptive mixup against fixed alphas",
        "| | distillations | accuracy % |\n|---|---|---|\n"
        + "\n".join(
            f"| {name} | {costs[name]} | {100 * np.mean([*values.values()]):.1f} |"
            for name, values in by_side.items()
        ),
        "Accuracy is the mean over held-out subjects. Where there are several distillations, the best on the "
        "validation subjects is taken, fold by fold.",
        "\n".join(f"- {item.sentence}" for item in compared),
        "## What each teacher got\n\n| fold | seed | alpha, signal | share | alpha, topology | share |\n"
        "|---|---|---|---|---|---|\n" + "\n".join(strengths(run)),
        "## Command",
        f"```sh\npython benchmarks/adaptive_mixup.py {run.folder} {out}\n```",
    ]
    write_text(out, "\n\n".join(parts) + "\n")
    write_json(
        out.with_suffix(".json"),
        {"costs": costs, "subjects": by_side, "comparisons": [item.to_json() for item in compared]},
    )
    print(*(item.sentence for item in compared), sep="\n")


if __name__ == "__main__":
    main()
