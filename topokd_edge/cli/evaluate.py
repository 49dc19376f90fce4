"""`topokd-edge evaluate`: what a run's models do on subjects they have never seen."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from topokd_edge.cli import console


def evaluate(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")],
    *,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Evaluate every model of a run on its held-out subjects; also written to RUN/evaluation.json.

    Example: topokd-edge evaluate runs/demo
    """
    from topokd_edge.evaluate.run_table import evaluate_run
    from topokd_edge.run import Run

    run = Run.open(folder)
    table = evaluate_run(run)
    run.write("evaluation.json", table)
    if json:
        console.answer_json(table)
    else:
        _show(table)


def _show(table: dict[str, Any]) -> None:
    doubt = ", OPTIMISTIC" if table["optimistic"] else ""
    _show_models(table, doubt)
    _show_subjects(table, doubt)
    _show_smoothness(table["smoothness"])
    told = {sentence for item in table["experiments"] for sentence in item["sentences"]}
    for item in table["comparisons"]:
        if item["sentence"] not in told:
            typer.echo(item["sentence"])
    show_experiments(table)
    for item in table["signatures"]:
        typer.echo(f"fold {item['fold']}, seed {item['seed']}: {item['name']}: {item['says']}")


def _show_models(table: dict[str, Any], doubt: str) -> None:
    rows = [
        [
            name,
            _percent(row["accuracy"]),
            _percent(row["std_subjects"]),
            _percent(row["std_seeds"]),
            _percent(row["macro_f1"]),
            f"{row['ece']:.3f}",
            _count(row["params"]),
            _count(row["macs"]),
            *([_percent(row["published_error"])] if table["optimistic"] else []),
        ]
        for name, row in table["models"].items()
    ]
    columns = ["model", "accuracy %", "± subjects", "± seeds", "macro F1 %", "ECE", "parameters", "MACs"]
    columns += ["± as published"] if table["optimistic"] else []
    console.table(f"Held-out subjects, protocol {table['protocol']}{doubt}", columns, rows)


def _show_subjects(table: dict[str, Any], doubt: str) -> None:
    """Show accuracies with a column for each model, or for each subject where these are fewer."""
    names, people = list(table["models"]), table["subjects"]
    cells = [[_percent(item["models"].get(name)) for name in names] for item in people]
    title = f"Accuracy % by subject{doubt}"
    if len(names) <= len(people):
        rows = [
            [item["subject"], str(item["windows"]), *row] for item, row in zip(people, cells, strict=True)
        ]
        console.table(title, ["subject", "windows", *names], rows)
        return
    rows = [["windows", *(str(item["windows"]) for item in people)]]
    rows += [[name, *column] for name, column in zip(names, zip(*cells, strict=True), strict=True)]
    console.table(title, ["model", *(item["subject"] for item in people)], rows)


def _show_smoothness(measured: dict[str, Any]) -> None:
    kinds = ("labels", "signal", "topology")
    rows = [
        [
            name,
            *(_number(measured["targets"].get(name, {}).get(kind)) for kind in kinds),
            _number(row["entropy"]),
            _percent(row["confidence"]),
            _percent(row["margin"]),
            _number(row.get("ece_added")),
        ]
        for name, row in measured["answers"].items()
    ]
    columns = ["model", *kinds, "answers", "confidence %", "margin %", "ECE added"]
    console.table("Smoothness: entropy in nats of targets and of answers", columns, rows)


def show_experiments(table: dict[str, Any]) -> None:
    """Print the verdict on each claim of the recipe, and what to know of all numbers."""
    doubt = " (optimistic protocol)" if table["optimistic"] else ""
    for number, item in enumerate(table["experiments"], start=1):
        typer.echo(f"\nexperiment {number}: {item['claim']}")
        for sentence in item["sentences"]:
            typer.echo(f"  {sentence}")
        typer.echo(f"  verdict{doubt}: {item['verdict']}")
    if table["optimistic"]:
        console.note(f"warning: these accuracies are {table['optimistic']}")
    if table["folds_missing"]:
        console.note(f"warning: folds {table['folds_missing']} are not finished and not in these numbers")


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"
