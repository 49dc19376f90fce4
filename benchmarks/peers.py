"""Simpler models on the windows and outer folds of a run: training them, keeping and reading what they reach.

A peer learns from fit and inner validation subjects; if it has anything to choose, it does so on the latter
before. It sees the channels of the student, and no virtual wearers. Needs numpy and this project's package.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from topokd_edge.data.split import parse_split
from topokd_edge.data.windowset import WindowSet
from topokd_edge.errors import BadInputError, TopokdError, UsageError
from topokd_edge.evaluate.metrics import accuracy_by_subject, macro_f1
from topokd_edge.files import read_json, write_json
from topokd_edge.run import Run

FORMAT = "topokd-peer/1"
KEYS = ("peer", "about", "bytes", "seeds", "channels", "content_hash", "folds", "by_subject", "macro_f1")

Signals = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Fold = Mapping[str, Any]


@dataclass(frozen=True)
class Lesson:
    """What a peer learns from in one fold, and is asked then.

    `x` and `y`: signals (windows, channels, length) and classes of fit and validation subjects; `judges`:
    which of them are of validation subjects; `asked`: signals of the test subjects.
    """

    x: Signals
    y: Labels
    judges: npt.NDArray[np.bool_]
    asked: Signals
    channels: tuple[str, ...]
    seed: int


Learn = Callable[[Lesson], tuple[Labels, int]]
"""Returns the classes said of the asked windows, and the bytes of the model."""


def student_channels(run: Run) -> tuple[str, ...]:
    """Return the channels of the student; its teachers may see more."""
    return tuple(run.recipe["student"]["channels"]) or run.windows().channels


def trained_on(fold: Fold) -> list[str]:
    """Return the subjects that a peer learns from."""
    return sorted([*fold["fit"], *fold["validation"]])


def measure(
    name: str,
    about: str,
    learn: Learn,
    windows: WindowSet,
    folds: Sequence[Fold],
    channels: tuple[str, ...],
    seeds: Sequence[int] = (0,),
) -> dict[str, Any]:
    """Train and test a peer on every outer fold with every seed.

    Returns
    -------
    dict
        JSON-able, see `KEYS`. `bytes` is the largest model of any fold; `by_subject` accuracy, mean over
        seeds; `macro_f1` over all windows tested, mean over seeds; `seconds` of one training and test.
    """
    x = np.asarray(windows.x)[:, [windows.channels.index(channel) for channel in channels]]
    told = {seed: np.full(len(windows), -1, dtype=np.int64) for seed in seeds}
    sizes, started = [], time.perf_counter()
    for fold in folds:
        train, test = windows.of_subjects(trained_on(fold)), windows.of_subjects(list(fold["test"]))
        judges = np.isin(windows.subject[train], list(fold["validation"]))
        for seed in seeds:
            lesson = Lesson(x[train], windows.y[train], judges, x[test], channels, seed)
            told[seed][test], size = learn(lesson)
            sizes.append(size)
            print(f"{name}: fold {fold['fold']}, seed {seed} after {time.perf_counter() - started:.0f} s")
    tested = np.flatnonzero(told[seeds[0]] >= 0)
    y, subject = windows.y[tested], windows.subject[tested]
    answers = [np.eye(len(windows.class_names))[told[seed][tested]] for seed in seeds]
    by_seed = [accuracy_by_subject(answer, y, subject) for answer in answers]
    return {
        "format": FORMAT,
        "peer": name,
        "about": about,
        "bytes": max(sizes),
        "seconds": round((time.perf_counter() - started) / len(sizes), 1),
        "seeds": list(seeds),
        "channels": list(channels),
        "content_hash": windows.content_hash,
        "folds": [
            {"fold": fold["fold"], "test": sorted(fold["test"]), "trained_on": trained_on(fold)}
            for fold in folds
        ],
        "by_subject": {who: float(np.mean([scores[who] for scores in by_seed])) for who in by_seed[0]},
        "macro_f1": float(np.mean([macro_f1(answer, y) for answer in answers])),
    }


def read_peer(path: Path, run: Run) -> dict[str, Any]:
    """Read the file of a peer that was measured on the windows, channels and finished folds of a run.

    Raises
    ------
    BadInputError
        When there is no such file, it is none, or it was measured on something else.
    """
    again = "measure the peer again, on this run"
    made = read_json(path)
    if not isinstance(made, dict) or made.get("format") != FORMAT:
        raise BadInputError(f"{path}: not a file of format {FORMAT}", hint=again)
    if missing := [key for key in KEYS if key not in made]:
        raise BadInputError(f"{path}: without {', '.join(missing)}", hint=again)
    problems = []
    if made["content_hash"] != run.data["content_hash"]:
        problems.append(
            f"window set {made['content_hash'][:12]}, the run has {run.data['content_hash'][:12]}"
        )
    if tuple(made["channels"]) != student_channels(run):
        problems.append(
            f"channels {', '.join(made['channels'])}, the student has {', '.join(student_channels(run))}"
        )
    theirs = [(fold["test"], fold["trained_on"]) for fold in made["folds"]]
    for number in sorted({place.fold for place in run.finished()}):
        fold = run.fold(number)
        if (sorted(fold["test"]), trained_on(fold)) not in theirs:
            problems.append(f"fold {number}: other subjects are tested or trained on, or it is missing")
        problems += [
            f"subject {who}: no accuracy between 0 and 1"
            for who in fold["test"]
            if not 0 <= made["by_subject"].get(who, -1) <= 1
        ]
    if problems:
        raise BadInputError(f"{path}: does not belong to {run.folder}", problems=problems, hint=again)
    return made


def command(name: str, about: str, learn: Learn, usage: str | None) -> None:
    """Measure a peer as the command line says, and write its file."""
    parser = argparse.ArgumentParser(description=usage)
    parser.add_argument("source", type=Path, help="a run, or a window set with --split")
    parser.add_argument("--split", help="of a window set, such as folds=7,validation=2,seed=0")
    parser.add_argument("--channels", help="of a window set, a,b,c; a run has those of its student")
    parser.add_argument("--seeds", default="0", help="such as 0,1,2")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    try:
        windows, folds, channels = _source(asked.source, asked.split, asked.channels)
        seeds = [int(seed) for seed in asked.seeds.split(",")]
        write_json(asked.out, measure(name, about, learn, windows, folds, channels, seeds))
    except (TopokdError, ValueError) as error:
        sys.exit(f"error: {error}")


def _source(
    path: Path, split: str | None, names: str | None
) -> tuple[WindowSet, list[dict[str, Any]], tuple[str, ...]]:
    """Open a run, or a window set that is dealt as a recipe with the same `[split]` would deal it."""
    if (path / "folds.json").is_file():
        if split or names:
            raise UsageError(f"{path} is a run: it has its own split and channels")
        run = Run.open(path)
        return run.windows(), run.folds, student_channels(run)
    windows = WindowSet.open(path)
    if split is None:
        raise UsageError(f"{path} is a window set: --split is needed")
    channels = tuple(names.split(",")) if names else windows.channels
    if strangers := sorted(set(channels) - set(windows.channels)):
        raise UsageError(f"--channels: no {', '.join(strangers)}; there are {', '.join(windows.channels)}")
    folds = [
        {"fold": fold.fold, "test": fold.test, "validation": fold.validation, "fit": fold.fit}
        for fold in parse_split(split).deal(windows)
    ]
    return windows, folds, channels
