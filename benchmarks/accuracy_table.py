"""Write a run's held-out accuracies as a Markdown table, simpler models beside them.

python benchmarks/accuracy_table.py RUN docs/results/NAME.md --peer MINIROCKET.json

A forest is trained here unless its file (`forest.py`) is given; other peers are measured before
(`minirocket.py`). A file that saw other windows, folds or channels than the student is refused.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import forest
import numpy as np
from peers import measure, read_peer, student_channels

from topokd_edge.errors import TopokdError
from topokd_edge.evaluate.compare import compare
from topokd_edge.evaluate.run_table import evaluate_run
from topokd_edge.files import read_json, write_json, write_text
from topokd_edge.run import DISTILLED_STUDENT, INT8_STUDENT, Run

WEIGHT_BYTES = {INT8_STUDENT: 1}
"""Bytes of a parameter; four where none are named."""

Peers = dict[str, dict[str, Any]]
"""What `peers.measure` returns, by name."""


def forest_of(run: Run) -> dict[str, Any]:
    """Train and test a forest on every finished outer fold."""
    folds = [run.fold(number) for number in sorted({place.fold for place in run.finished()})]
    return measure(forest.NAME, forest.ABOUT, forest.learn, run.windows(), folds, student_channels(run))


def table(columns: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def models_table(evaluated: dict[str, Any], peers: Peers) -> str:
    rows = [
        [
            name,
            f"{100 * row['accuracy']:.1f}",
            *("-" if row[key] is None else f"{100 * row[key]:.1f}" for key in ("std_subjects", "std_seeds")),
            f"{100 * row['macro_f1']:.1f}",
            f"{row['ece']:.3f}",
            f"{row['params']:,}",
            f"{WEIGHT_BYTES.get(name, 4) * row['params'] / 1000:,.0f}",
            f"{row['macs'] / 1e6:.2f} M",
        ]
        for name, row in evaluated["models"].items()
    ]
    tested = [item["subject"] for item in evaluated["subjects"]]
    for name, made in peers.items():
        values = [made["by_subject"][who] for who in tested]
        spread = f"{100 * np.std(values, ddof=1):.1f}" if len(values) > 1 else "-"
        whole = made["by_subject"].keys() == set(tested)
        f1 = f"{100 * made['macro_f1']:.1f}" if whole else "-"
        rows.append(
            [
                name,
                f"{100 * np.mean(values):.1f}",
                spread,
                "-",
                f1,
                "-",
                "-",
                f"{made['bytes'] / 1000:,.0f}",
                "-",
            ]
        )
    columns = [
        "model",
        "accuracy %",
        "± subjects",
        "± seeds",
        "macro F1 %",
        "ECE",
        "parameters",
        "kB",
        "MACs",
    ]
    return table(columns, rows)


def subjects_table(evaluated: dict[str, Any], peers: Peers) -> str:
    names = list(evaluated["models"])
    rows = [
        [
            item["subject"],
            str(item["windows"]),
            *(f"{100 * item['models'][name]:.1f}" if name in item["models"] else "-" for name in names),
            *(f"{100 * made['by_subject'][item['subject']]:.1f}" for made in peers.values()),
        ]
        for item in evaluated["subjects"]
    ]
    return table(["subject", "windows", *names, *peers], rows)


def compared(evaluated: dict[str, Any], peers: Peers) -> list[dict[str, Any]]:
    """Judge the students against each peer, on the subjects that both have answered for."""
    found = []
    for name, made in peers.items():
        for model in (DISTILLED_STUDENT, INT8_STUDENT):
            rows = [item for item in evaluated["subjects"] if model in item["models"]]
            if rows:
                scores = {item["subject"]: item["models"][model] for item in rows}
                found.append(compare(name, model, made["by_subject"], scores).to_json())
    return found


def page(run: Run, evaluated: dict[str, Any], peers: Peers, asked: list[str]) -> str:
    data, made = run.data, run.environment
    classes, subjects = len(data["class_names"]), len(data["subjects"])
    done = len({place.fold for place in run.finished()})
    seeds = len({place.seed for place in run.finished()})
    facts = [
        f"{data['windows']} windows of {data['made']['window_seconds']} s, {len(data['channels'])} channels "
        f"({len(student_channels(run))} for student and peers), {classes} classes, {subjects} subjects; "
        f"window set `{data['content_hash'][:12]}`",
        f"{done} of {len(run.folds)} outer folds by subject, {seeds} seed(s); "
        + (
            evaluated["optimistic"]
            or "epoch and candidate are chosen on inner validation subjects, never on test subjects"
            if _chosen(run)
            else "the last epoch is kept and nothing is chosen; all but the tested subjects are learned from"
        ),
        f"made on {made['device']} ({made['platform']}, {made['threads']} thread(s)), "
        f"torch {made['versions']['torch']}",
        *(f"{name}: {one['about']}; {len(one['seeds'])} seed(s)" for name, one in peers.items()),
        "kB: four bytes a parameter, one in int8; of a peer, its largest fold",
    ]
    commands = [
        " ".join(made["command"]),
        f"python benchmarks/accuracy_table.py {' '.join(asked)}",
    ]
    said = [item["sentence"] for item in [*evaluated["comparisons"], *compared(evaluated, peers)]]
    parts = [
        f"# {run.folder.name}: accuracy on held-out subjects",
        "\n".join(f"- {fact}" for fact in facts),
        models_table(evaluated, peers),
        "Accuracy is the mean over subjects; ± is the sample standard deviation between subjects, or seeds.",
        subjects_table(evaluated, peers),
        "\n".join(f"- {sentence}" for sentence in said),
        *(("## Chosen on the inner validation subjects", selection_table(run)) if _chosen(run) else ()),
        "## Command",
        "```sh\n" + "\n".join(commands) + "\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _chosen(run: Run) -> bool:
    """Return whether anybody was held back to choose on: validation subjects, or as published the tested."""
    return run.optimistic or any(fold["validation"] for fold in run.folds)


def selection_table(run: Run) -> str:
    rows = []
    for place in run.finished():
        made = read_json(place.folder / "selection.json")
        for row in made["candidates"]:
            settings = row["settings"]
            fixed = f"{settings['alpha_signal']}, {settings['alpha_topology']}, {settings['mixup_share']}"
            mixup = fixed if settings["alpha"] == "fixed" else settings["alpha"]
            rows.append(
                [
                    str(place.fold),
                    str(place.seed),
                    ", ".join(made["on_subjects"]),
                    f"{settings['eta']}",
                    mixup,
                    "-" if (share := row["validation_accuracy"]) is None else f"{100 * share:.1f}",
                    "chosen" if row["candidate"] == made["chosen"] else "",
                ]
            )
    columns = ["fold", "seed", "validation subjects", "eta", "alphas and share", "validation accuracy %", ""]
    return table(columns, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--peer", type=Path, action="append", default=[], help="of minirocket.py; repeatable")
    asked = parser.parse_args()
    try:
        run = Run.open(asked.run)
        read = {made["peer"]: made for made in [read_peer(path, run) for path in asked.peer]}
        evaluated = evaluate_run(run)
        peers = read if forest.NAME in read else {forest.NAME: forest_of(run), **read}
        write_text(asked.out, page(run, evaluated, peers, sys.argv[1:]))
    except TopokdError as error:
        sys.exit(f"error: {error}")
    document = {"evaluation": evaluated, "peers": peers, "against_peers": compared(evaluated, peers)}
    write_json(asked.out.with_suffix(".json"), document)
    print(f"{asked.out}: {len(evaluated['subjects'])} subjects")


if __name__ == "__main__":
    main()
