"""`topokd-edge tune`: search for a recipe's values on inner validation subjects."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from topokd_edge.cli import console
from topokd_edge.cli.train import fold_numbers
from topokd_edge.errors import CheckFailedError, UsageError

if TYPE_CHECKING:
    from topokd_edge.distill.tuning.job import Search

_SHOWN = 10


def tune(
    data: Annotated[Path, typer.Option(help="A window set, from: topokd-edge data import.")],
    *,
    recipe: Annotated[
        str, typer.Option(help="Name of a recipe that comes along, or a .toml file.")
    ] = "default",
    change: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one value of the recipe.")
    ] = None,
    space: Annotated[str, typer.Option(help="What is varied: default, or a .toml file.")] = "default",
    trials: Annotated[int, typer.Option(min=1, help="Trials in all, those of earlier calls too.")] = 30,
    objective: Annotated[
        str, typer.Option(help="accuracy, alone or with macs and latency (int8, on this machine).")
    ] = "accuracy,macs",
    folds: Annotated[
        str,
        typer.Option(help="Choose on the fit and validation subjects of these folds, never on the tested."),
    ] = "1",
    parts: Annotated[
        int,
        typer.Option(help="Let so many groups of these subjects validate in turn; 1 is the recipe's own."),
    ] = 1,
    seed: Annotated[int, typer.Option(help="Of the sampler; the same seed tries the same values.")] = 0,
    storage: Annotated[
        str, typer.Option(metavar="URL", help="A PostgreSQL or SQLite database; default a journal in --out.")
    ] = "",
    out: Annotated[Path | None, typer.Option(help="Folder; default runs/<recipe>-tune.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on, or join in from another process.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing search.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Search for temperature, weights, mixup and the student's size, on inner validation subjects.

    Teachers are trained once. The values found are written to OUT/best.toml, a recipe for train. Interrupt it
    at any time; --resume goes on to the same result.

    Example: topokd-edge tune --data windows/watch --recipe demo --trials 20 --parts 3
    """
    if resume and overwrite:
        raise UsageError("--resume and --overwrite exclude each other")
    numbers = fold_numbers(folds)
    from topokd_edge.distill.recipe import load_recipe
    from topokd_edge.distill.run_training import choose_device
    from topokd_edge.distill.tuning import results
    from topokd_edge.distill.tuning.job import Plan, check_same, prepare, start
    from topokd_edge.distill.tuning.search import run_trials
    from topokd_edge.distill.tuning.space import load_space
    from topokd_edge.distill.tuning.trials import Trainer

    names = tuple(name.strip() for name in objective.split(",") if name.strip())
    plan = Plan(tuple(numbers), parts, names, seed, storage)
    loaded, place = load_recipe(recipe, change or []), choose_device(device)
    search = prepare(data, loaded, load_space(space), plan, out or Path("runs") / f"{loaded.name}-tune")
    timer = None
    if "latency" in names:
        from topokd_edge.cli._tune_latency import check_latency, time_student

        check_latency(search)
        timer = time_student
    if resume:
        check_same(search)
    else:
        start(search, data, overwrite=overwrite)
    with console.progress() as progress:
        judge = Trainer(
            search.folder, search.windows, search.chosen, search.recipe, parts, place, progress, timer
        )
        study = run_trials(
            search,
            judge,
            trials,
            progress=progress,
            after_trial=lambda study: results.write_results(search, study),
        )
    found = results.write_results(search, study)
    if json:
        console.answer_json({"out": str(search.folder), **found})
    else:
        _show(search, found)
    if found["best"] is None:
        why = [f"trial {row['number']}: {row['failed']}" for row in found["trials"] if row["failed"]]
        raise CheckFailedError(f"{search.folder}: no trial was finished", problems=why)


def _show(search: Search, found: dict[str, Any]) -> None:
    from topokd_edge.distill.tuning.results import ranked

    complete = sorted((row for row in found["trials"] if row["accuracy"] is not None), key=ranked)
    listed = [row for index, row in enumerate(complete) if index < _SHOWN or row["number"] in found["pareto"]]
    keys, timed = list(search.space.vary), "latency" in search.plan.objectives
    rows = [
        [
            f"{row['number']}{' *' if row['number'] in found['pareto'] else ''}",
            f"{100 * row['accuracy']:.1f}",
            f"{row['macs']:,}",
            *([f"{row['latency_ms']:.3f}"] if timed else []),
            *(_value(row["parameters"][key]) for key in keys),
        ]
        for row in listed
    ]
    columns = [
        "trial",
        "accuracy %",
        "MACs",
        *(["ms"] if timed else []),
        *(key.rpartition(".")[2].replace("_", "\n") for key in keys),
    ]
    title = (
        f"Validation subjects, {len(listed)} of {len(complete)} trials; * no other is better in all respects"
    )
    console.table(title, columns, rows)
    for row in found["trials"]:
        if row["failed"]:
            console.note(f"trial {row['number']} failed: {row['failed']}")
    for line in found["caveats"]:
        console.note(line)
    if found["best"] is not None:
        best = search.folder / "best.toml"
        honest = ",".join(map(str, found["untouched_folds"]))
        typer.echo(f"{best}: trial {found['best']}")
        only = f" --folds {honest}" if honest else ""
        typer.echo(f"report: topokd-edge report {search.folder}")
        typer.echo(f"next: topokd-edge train --data {found['data']} --recipe {best}{only}")


def _value(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
