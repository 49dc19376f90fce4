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
        ]
        for name, row in table["models"].items()
    ]
    columns = ["model", "accuracy %", "± subjects", "± seeds", "macro F1 %", "ECE", "parameters", "MACs"]
    console.table(f"Held-out subjects, protocol {table['protocol']}", columns, rows)
    if table["optimistic"]:
        for name, row in table["models"].items():
            typer.echo(
                f"{name}: {_percent(row['accuracy'])} ± {_percent(row['published_error'])} as published"
            )
        console.note(f"warning: these accuracies are {table['optimistic']}")
    names = list(table["models"])
    people = [
        [item["subject"], str(item["windows"]), *(_percent(item["models"].get(name)) for name in names)]
        for item in table["subjects"]
    ]
    console.table("Accuracy % by subject", ["subject", "windows", *names], people)
    for item in table["comparisons"]:
        typer.echo(item["sentence"])
    show_experiments(table)
    for item in table["signatures"]:
        typer.echo(f"fold {item['fold']}, seed {item['seed']}: {item['name']}: {item['says']}")
    if table["folds_missing"]:
        console.note(f"warning: folds {table['folds_missing']} are not finished and not in these numbers")


def show_experiments(table: dict[str, Any]) -> None:
    """Print the verdict on each claim of the recipe."""
    doubt = " (optimistic protocol)" if table["optimistic"] else ""
    for number, item in enumerate(table["experiments"], start=1):
        typer.echo(f"\nexperiment {number}: {item['claim']}")
        for sentence in item["sentences"]:
            typer.echo(f"  {sentence}")
        typer.echo(f"  verdict{doubt}: {item['verdict']}")


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"
