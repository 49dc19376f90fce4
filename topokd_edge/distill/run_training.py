"""A whole training run: folder, folds, seeds; started fresh or continued."""

from __future__ import annotations

import dataclasses
import platform
import shutil
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from topokd_edge.data.audit import audit
from topokd_edge.data.split import Fold
from topokd_edge.data.windowset import WindowSet, subject_key
from topokd_edge.distill import distributed
from topokd_edge.distill.fold import train_fold
from topokd_edge.distill.inputs import Residency
from topokd_edge.distill.preprocessing import student_channels
from topokd_edge.distill.recipe import Recipe
from topokd_edge.errors import BadInputError, MissingError, UsageError
from topokd_edge.files import new_folder, refuse_existing, remove_halves, write_json, write_text
from topokd_edge.progress import Progress, silent
from topokd_edge.run import DISTILLED_STUDENT, FoldRun, Run

_PACKAGES = ("topokd-edge", "numpy", "torch", "numba", "ripser", "persim", "scikit-learn", "scipy")


def start_run(out: Path, data: Path, recipe: Recipe, *, overwrite: bool = False) -> Run:
    """Make the folder of a new run: recipe, environment, data description and audited folds.

    Raises
    ------
    BadInputError
        When `out` exists, the data is not a window set, or its subjects do not fit the folds.
    CheckFailedError
        When the audit of the folds fails.
    UsageError
        When the student has a channel that the window set has not.
    """
    refuse_existing(out, overwrite=overwrite, also="--resume to go on with it")
    windows = WindowSet.open(data)
    student_channels(windows, recipe.student.channels)
    folds = planned_folds(windows, recipe)
    with new_folder(out, overwrite=overwrite) as folder:
        write_text(folder / "recipe.toml", recipe.to_toml())
        write_json(folder / "environment.json", environment())
        write_json(folder / "data.json", {**windows.describe(), "path": str(data.resolve())})
        write_json(folder / "folds.json", [dataclasses.asdict(fold) for fold in folds])
    return Run.open(out)


def continue_run(out: Path, data: Path, recipe: Recipe) -> Run:
    """Open an unfinished run and check that it is the same job; the recipe may have more seeds than the run.

    Raises
    ------
    BadInputError
        When anything else in the recipe, or the data, differs from what the run was started with.
    """
    run = Run.open(out)
    problems = []
    more_seeds = recipe.adds_seeds_to(out / "recipe.toml")
    if not more_seeds and not recipe.is_in(out / "recipe.toml"):
        problems.append("the recipe differs from the run's recipe.toml")
    if WindowSet.open(data).content_hash != run.data["content_hash"]:
        problems.append(f"{data} is not the window set of the run")
    if problems:
        raise BadInputError(
            f"{out}: cannot be resumed with these settings",
            hint="give the run's own recipe and data, or start another run with another --out",
            problems=problems,
        )
    if more_seeds:
        write_text(out / "recipe.toml", recipe.to_toml())
    return run


def planned_folds(windows: WindowSet, recipe: Recipe) -> list[Fold]:
    """Return the outer folds of a recipe on a window set, audited.

    The published protocol has no validation subjects: they are fitted on.
    """
    folds = recipe.split.plan().deal(windows)
    if recipe.protocol == "paper":
        folds = [
            dataclasses.replace(
                fold, validation=(), fit=tuple(sorted({*fold.fit, *fold.validation}, key=subject_key))
            )
            for fold in folds
        ]
    audit(windows, folds).require()
    return folds


def train_run(
    run: Run,
    recipe: Recipe,
    *,
    only_folds: Sequence[int] = (),
    device: str = "auto",
    residency: Residency = "auto",
    progress: Progress = silent,
    after_fold: Callable[[Run, FoldRun], None] | None = None,
) -> None:
    """Train every fold and seed that is not finished; several processes do it together.

    Parameters
    ----------
    run
        From `start_run` or `continue_run`.
    recipe
        The run's recipe.
    only_folds
        Numbers of the folds to train; empty trains all.
    device
        `auto` takes CUDA where there is one; else `cpu` or `cuda`.
    residency
        `memory` keeps signals and images on the device, `disk` reads them batch by batch, `auto` decides
        by size. The result is the same.
    progress
        Where to tell.
    after_fold
        Called when a fold and seed is finished, in the first process.

    Raises
    ------
    UsageError
        When a fold does not exist.
    MissingError
        When CUDA is asked for and absent.
    """
    windows = run.windows()
    folds = [
        Fold(item["fold"], *(tuple(item[key]) for key in ("test", "validation", "fit"))) for item in run.folds
    ]
    strangers = sorted(set(only_folds) - {fold.fold for fold in folds})
    if strangers:
        raise UsageError(f"--folds {strangers}: the run has folds 1 to {len(folds)}")
    place_of = choose_device(device)
    torch.backends.cudnn.deterministic = True  # a resumed run must end in the same last bits
    chosen = [fold for fold in folds if not only_folds or fold.fold in only_folds]
    with distributed.own_run(run) as own:
        for fold in chosen:
            cache = run.folder / "cache" / f"fold-{fold.fold}"
            if distributed.first():
                remove_halves(cache)
            for seed in recipe.seeds:
                place = own.fold_run(fold.fold, seed)
                remove_halves(place.folder)
                if not place.predictions_path(DISTILLED_STUDENT).is_file():
                    train_fold(
                        place,
                        windows,
                        fold,
                        recipe,
                        cache=cache,
                        device=place_of,
                        progress=progress if distributed.first() else silent,
                        residency=residency,
                    )
                if after_fold is not None and distributed.first():
                    after_fold(run, place)
            distributed.wait()
            if distributed.first():
                shutil.rmtree(cache, ignore_errors=True)


def choose_device(name: str) -> torch.device:
    """Return the device called `auto`, `cpu` or `cuda`."""
    if name not in ("auto", "cpu", "cuda"):
        raise UsageError(f"--device {name}: expected auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise MissingError("--device cuda: no usable CUDA device", hint="use --device auto")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def environment() -> dict[str, Any]:
    """Return what the numbers of a run may depend on besides recipe and data."""
    return {
        "command": ["topokd-edge", *sys.argv[1:]],
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        "processes": distributed.size(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "versions": {name: metadata.version(name) for name in _PACKAGES},
        "numpy_blas": np.show_config(mode="dicts")["Build Dependencies"]["blas"]["name"],
    }
