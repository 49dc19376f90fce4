"""Reading what a report is made of: each part may be missing, and then a command that makes it is named."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from topokd_edge.bundle import Bundle
from topokd_edge.errors import BadInputError
from topokd_edge.files import read_json
from topokd_edge.run import TRAINED, FoldRun, Run


@dataclass(frozen=True)
class Missing:
    """A part the report cannot show: what it is, why, and the command that makes it."""

    what: str
    why: str
    command: str


@dataclass(frozen=True)
class Inputs:
    """Everything a report reads, already parsed; None or empty where it is missing.

    Attributes
    ----------
    run
        The run; its windows and predictions are opened where they are needed.
    evaluation, export, bench
        The answers of `evaluate`, `export` and `bench`.
    recipe, recipe_text
        The resolved recipe, parsed and as written.
    finished
        The folds and seeds that were trained to their end.
    missing
        What is not there.
    """

    run: Run
    data: dict[str, Any]
    folds: list[dict[str, Any]]
    environment: dict[str, Any]
    recipe: dict[str, Any]
    recipe_text: str
    evaluation: dict[str, Any] | None
    export: dict[str, Any] | None
    bench: dict[str, Any] | None
    finished: list[FoldRun]
    missing: list[Missing] = field(default_factory=list)


def read_inputs(
    run: Run, *, bench: dict[str, Any] | None = None, export: Path | None = None, bundle: Path | None = None
) -> Inputs:
    """Read the parts of a report; `export` defaults to the file of that name in the run.

    `bundle` takes the place of the answer of `export` that wrote it.

    Raises
    ------
    BadInputError
        When a part is there but damaged, or a file that was named does not exist.
    """
    missing: list[Missing] = []
    folder = run.folder
    evaluation = _part(
        folder / "evaluation.json",
        missing,
        Missing(
            "Accuracy, comparisons and confusion matrices",
            "the run was not evaluated",
            f"topokd-edge evaluate {folder}",
        ),
    )
    exported = _exported(folder, export, bundle, missing)
    if bench is None:
        missing.append(
            Missing(
                "Latency with and without topology at inference",
                "nothing was measured on a device",
                f"topokd-edge bench {folder / 'bundle'} --on local --out {folder / 'bench.json'}",
            )
        )
    finished = run.finished()
    recipe_text, recipe = _recipe(folder / "recipe.toml", missing)
    _unfinished(run, recipe, finished, missing)
    return Inputs(
        run=run,
        data=run.data,
        folds=run.folds,
        environment=run.environment if (folder / "environment.json").is_file() else {},
        recipe=recipe,
        recipe_text=recipe_text,
        evaluation=evaluation,
        export=exported,
        bench=bench,
        finished=finished,
        missing=missing,
    )


def metrics(fold_run: FoldRun, model: str) -> list[dict[str, Any]]:
    """Return the lines of a model's metrics.jsonl; none when it was not trained.

    Raises
    ------
    BadInputError
        When a line is not a JSON object; the message names it.
    """
    path = fold_run.model_folder(model) / "metrics.jsonl"
    if not path.is_file():
        return []
    lines = []
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            line = json.loads(text)
        except ValueError:
            line = None
        if not isinstance(line, dict):
            raise BadInputError(f"{path}, line {number}: expected one JSON object an epoch")
        lines.append(line)
    return lines


def bundle_files(bundle: Path) -> dict[str, Any]:
    """Return the files of a bundle as the answer of the export that wrote it names them."""
    return {"bundle": bundle.name, "files": [asdict(file) for file in Bundle.open(bundle).manifest.files]}


@contextmanager
def reading(place: Path | str) -> Iterator[None]:
    """Turn a key or type that does not fit into an error that names the file.

    Raises
    ------
    BadInputError
        In place of KeyError, TypeError, ValueError, IndexError and AttributeError.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise BadInputError(
            f"{place}: not in the expected form ({reason})",
            hint="make it again with the command that wrote it",
        ) from error


def _part(
    path: Path, missing: list[Missing], absent: Missing, *, required: bool = False
) -> dict[str, Any] | None:
    if not path.is_file() and not required:
        missing.append(absent)
        return None
    document = read_json(path)
    if not isinstance(document, dict):
        raise BadInputError(f"{path}: expected a JSON object, found {type(document).__name__}")
    return document


def _exported(
    folder: Path, export: Path | None, bundle: Path | None, missing: list[Missing]
) -> dict[str, Any] | None:
    """Return the files for devices: of a bundle, of the answer that was named, or of the run."""
    if bundle is not None:
        return bundle_files(bundle)
    return _part(
        export or folder / "export.json",
        missing,
        Missing(
            "Files for devices and their size",
            "no answer of an export",
            f"topokd-edge export {folder} --out {folder / 'bundle'} --int8 --json > {folder / 'export.json'}",
        ),
        required=export is not None,
    )


def _recipe(path: Path, missing: list[Missing]) -> tuple[str, dict[str, Any]]:
    if not path.is_file():
        missing.append(Missing("The recipe", "recipe.toml is not in the run", "topokd-edge train"))
        return "", {}
    text = path.read_text(encoding="utf-8")
    try:
        return text, tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadInputError(f"{path}: not valid TOML ({error})") from None


def _unfinished(run: Run, recipe: dict[str, Any], finished: list[FoldRun], missing: list[Missing]) -> None:
    planned = len(run.folds) * max(1, len(recipe.get("seeds", ())))
    if len(finished) < planned:
        missing.append(
            Missing(
                f"{planned - len(finished)} of {planned} trainings (a fold with a seed)",
                "they did not run to their end or were not asked for; all figures are of the finished ones",
                f"topokd-edge train --out {run.folder} --resume",
            )
        )


def trained_models(inputs: Inputs) -> list[str]:
    """Return the models that have metrics in at least one finished fold, in the order of training."""
    return [
        model
        for model in TRAINED
        if any((item.model_folder(model) / "metrics.jsonl").is_file() for item in inputs.finished)
    ]
