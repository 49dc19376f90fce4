"""`topokd-edge train`: two teachers, then the student with and without them, per fold and seed."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from topokd_edge.cli import console
from topokd_edge.cli.evaluate import show_experiments
from topokd_edge.errors import BadInputError, UsageError

if TYPE_CHECKING:
    from topokd_edge.progress import Progress
    from topokd_edge.run import FoldRun, Run


class _Inputs(enum.StrEnum):
    auto = "auto"
    memory = "memory"
    disk = "disk"


def train(
    data: Annotated[Path, typer.Option(help="A window set, from: topokd-edge data import.")],
    *,
    recipe: Annotated[
        str, typer.Option(help="Name of a recipe that comes along, or a .toml file.")
    ] = "default",
    change: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one value of the recipe.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; default runs/<recipe>.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an unfinished run, or add --seeds to it.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing run.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    devices: Annotated[int, typer.Option(min=1, help="Processes, or GPUs, on each machine.")] = 1,
    nodes: Annotated[int, typer.Option(min=1, help="Machines; start the command on each.")] = 1,
    inputs: Annotated[
        _Inputs, typer.Option(help="Where windows and images lie while training; auto decides by size.")
    ] = _Inputs.auto,
    folds: Annotated[str, typer.Option(help="Only these folds, such as 1,3.")] = "",
    seeds: Annotated[
        int, typer.Option(help="Train each fold with this many seeds; 0 leaves the recipe's.")
    ] = 0,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Train the teachers and the student on every fold.

    Interrupt it at any time; --resume goes on to the same result.

    Example: topokd-edge train --data windows/watch --recipe demo --set student.distilling.tau=0.5
    """
    only = fold_numbers(folds)
    if resume and overwrite:
        raise UsageError("--resume and --overwrite exclude each other")
    from topokd_edge.distill import distributed
    from topokd_edge.distill.recipe import load_recipe
    from topokd_edge.distill.run_training import continue_run, start_run, train_run

    changes = [*(change or []), *([f"seeds={list(range(seeds))}"] if seeds > 0 else [])]
    loaded = load_recipe(recipe, changes)
    folder = out or Path("runs") / loaded.name
    distributed.start(devices, nodes, device)
    with distributed.first_ahead():
        resume = resume or not distributed.first()
        run = (
            continue_run(folder, data, loaded)
            if resume
            else start_run(folder, data, loaded, overwrite=overwrite)
        )
    with console.progress() as progress:
        train_run(
            run,
            loaded,
            only_folds=only,
            device=device,
            residency=inputs.value,
            progress=progress,
            after_fold=lambda run, place: _after_fold(run, place, progress),
        )
    if not distributed.end():
        return
    finished = [{"fold": place.fold, "seed": place.seed} for place in run.finished()]
    decided = _decide(run) if loaded.experiments and finished else {}
    if json:
        console.answer_json(
            {
                "run": str(folder),
                "recipe": loaded.name,
                "protocol": loaded.protocol,
                "finished": finished,
                "experiments": decided.get("experiments", []),
            }
        )
    else:
        typer.echo(
            f"{folder}: {len(finished)} of {len(run.folds) * len(loaded.seeds)} folds and seeds are finished"
        )
        if decided:
            show_experiments(decided)
        elif run.optimistic:
            from topokd_edge.run import OPTIMISTIC

            console.note(f"warning: protocol paper is {OPTIMISTIC}")
        typer.echo(f"next: topokd-edge evaluate {folder}")


def _decide(run: Run) -> dict[str, Any]:
    """Evaluate the finished folds, since the recipe makes claims."""
    from topokd_edge.evaluate.run_table import evaluate_run

    table = evaluate_run(run)
    run.write("evaluation.json", table)
    return table


def _after_fold(run: Run, place: FoldRun, progress: Progress) -> None:
    """Predict in int8, and tell which known failures the validation subjects show."""
    _int8(run, place, progress)
    for item in place.selection().get("signatures", []):
        if item["found"]:
            console.note(
                f"fold {place.fold}, seed {place.seed}: {item['name']}: {item['says']}; "
                f"what to do: {item['advice']}"
            )


def _int8(run: Run, place: FoldRun, progress: Progress) -> None:
    """Predict with the fold's int8 student; a student that cannot go to int8 does not stop the training."""
    from topokd_export.student import predict_int8_once

    try:
        predict_int8_once(run, place.fold, place.seed, progress)
    except (BadInputError, UsageError) as error:
        console.note(f"fold {place.fold}, seed {place.seed}: no int8 student: {error}")


def fold_numbers(text: str) -> list[int]:
    """Return the fold numbers of `--folds 1,3`; none means all."""
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise UsageError(f"--folds {text}: expected numbers, such as 1,3") from None
