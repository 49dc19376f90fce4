"""The evaluation of a run: every model on every subject it has never seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from topokd_edge.data.windowset import WindowSet, subject_key
from topokd_edge.errors import BadInputError
from topokd_edge.evaluate.compare import compare
from topokd_edge.evaluate.experiments import decide, signatures
from topokd_edge.evaluate.metrics import (
    accuracy,
    accuracy_by_subject,
    confusion_matrix,
    expected_calibration_error,
    f1_by_class,
    macro_f1,
)
from topokd_edge.evaluate.smoothness import smoothness
from topokd_edge.files import read_json
from topokd_edge.run import (
    DISTILLED_STUDENT,
    INT8_STUDENT,
    OPTIMISTIC,
    SCRATCH_STUDENT,
    SIGNAL_TEACHER,
    TOPOLOGY_TEACHER,
    FoldRun,
    Predictions,
    Run,
)

PAIRS = (
    (SCRATCH_STUDENT, DISTILLED_STUDENT),
    (DISTILLED_STUDENT, INT8_STUDENT),
    (SIGNAL_TEACHER, DISTILLED_STUDENT),
    (TOPOLOGY_TEACHER, DISTILLED_STUDENT),
)
"""(a, b): b is judged against a."""


@dataclass(frozen=True, slots=True)
class _Outcome:
    """Held-out predictions of one model in one fold and seed."""

    fold: int
    seed: int
    predictions: Predictions


def evaluate_run(run: Run) -> dict[str, Any]:
    """Evaluate every model of a run on its held-out subjects.

    Several seeds are averaged: first each subject's accuracy over seeds, then over subjects, so that every
    subject counts the same.

    Returns
    -------
    dict
        JSON-able, free of NaN. `protocol`, and in `optimistic` what to know of it, or None. `folds`: per
        fold its test `subjects` and per model accuracy, macro F1 and
        ECE. `models`: per model `accuracy` (mean over subjects), `accuracy_windows` (share of all windows),
        `macro_f1` and `ece` (over all windows, mean over seeds), `std_subjects` and `std_seeds` (sample
        standard deviations of accuracy; None with fewer than two), `published_error` (see
        `_published_error`; None under the honest protocol), `params`, `macs` (None if the
        checkpoint does not say). `subjects`: accuracy of each model on each subject. `confusion`: windows
        by true and predicted class, summed over seeds. `f1_by_class`: from the same. `comparisons`: see
        `compare`; `b` is judged against `a`. `experiments`: the recipe's claims, each with its verdict (see
        `decide`). `signatures`: known failures, see `signatures`. `smoothness`: see `smoothness`.

    Raises
    ------
    BadInputError
        When nothing is finished, the window set has changed, or predictions do not belong to the held-out
        windows of their fold.
    """
    finished = run.finished()
    if not finished:
        raise BadInputError(
            f"{run.folder}: no fold is finished, so there is nothing to evaluate",
            hint="train it to the end of at least one fold: topokd-edge train --resume",
        )
    windows = run.windows()
    folds = {int(fold["fold"]): fold for fold in run.folds}
    outcomes = _read_outcomes(finished, windows, folds)
    by_subject = {name: _subject_scores(items, windows) for name, items in outcomes.items()}
    confusion = {name: _confusion(items) for name, items in outcomes.items()}
    done = sorted({item.fold for item in finished})
    experiments = run.recipe.get("experiments", [])
    asked = [(a, b) for experiment in experiments for a, b in experiment["pairs"]]
    compared = {
        (a, b): compare(a, b, by_subject[a], by_subject[b])
        for a, b in dict.fromkeys([*PAIRS, *asked])
        if set(by_subject.get(a, {})) & set(by_subject.get(b, {}))
    }
    return {
        "protocol": run.recipe.get("protocol", "nested-subject"),
        "optimistic": OPTIMISTIC if run.optimistic else None,
        "folds_missing": sorted(set(folds) - set(done)),
        "seeds": sorted({item.seed for item in finished}),
        "class_names": list(windows.class_names),
        "folds": [_fold_row(number, folds[number], outcomes) for number in done],
        "models": {
            name: {
                **_model_row(items, by_subject[name], windows),
                **_cost(finished[0], name),
                "published_error": _published_error(items, by_subject[name]) if run.optimistic else None,
            }
            for name, items in outcomes.items()
        },
        "subjects": _subject_rows(by_subject, windows),
        "confusion": {name: matrix.tolist() for name, matrix in confusion.items()},
        "f1_by_class": {
            name: dict(zip(windows.class_names, f1_by_class(matrix), strict=True))
            for name, matrix in confusion.items()
        },
        "comparisons": [item.to_json() for item in compared.values()],
        "experiments": [decide(experiment, compared, finished) for experiment in experiments],
        "signatures": signatures(finished),
        "smoothness": smoothness(finished, {name: _pooled(items) for name, items in outcomes.items()}),
    }


def _read_outcomes(
    finished: Sequence[FoldRun], windows: WindowSet, folds: Mapping[int, dict[str, Any]]
) -> dict[str, list[_Outcome]]:
    """Read what predictions there are, by model in the order they are shown, and refuse wrong ones."""
    outcomes: dict[str, list[_Outcome]] = {}
    problems = []
    for item in finished:
        if item.fold not in folds:
            problems.append(f"{item.folder}: fold {item.fold} is not in folds.json")
            continue
        test = windows.of_subjects(folds[item.fold]["test"])
        for model in item.models():
            path = item.predictions_path(model)
            predictions = Predictions.open(path)
            wrong = _wrong(predictions, windows, test)
            if wrong:
                problems.append(f"{path}: {wrong}")
            outcomes.setdefault(model, []).append(_Outcome(item.fold, item.seed, predictions))
    if problems:
        raise BadInputError(
            "predictions do not belong to the held-out windows", problems=problems, hint="train the run again"
        )
    order = dict.fromkeys(name for item in finished for name in item.models())
    return {model: outcomes[model] for model in order if model in outcomes}


def _wrong(predictions: Predictions, windows: WindowSet, test: npt.NDArray[np.int64]) -> str:
    """Say why predictions cannot be those of the windows `test`; empty when they can."""
    shape = (len(test), len(windows.class_names))
    if predictions.logits.shape != shape or predictions.y.shape != shape[:1]:
        return f"logits of shape {predictions.logits.shape}, expected {shape}"
    if not np.array_equal(np.sort(predictions.window), test):
        return "the windows are not those of the fold's test subjects, each once"
    if not np.array_equal(predictions.y, windows.y[predictions.window]):
        return "the true classes differ from those of the window set"
    if not np.isfinite(predictions.logits).all():
        return "logits that are not finite"
    return ""


def _metrics(items: Sequence[Predictions]) -> dict[str, float]:
    """Mean over `items` (one per seed) of accuracy, macro F1 and ECE."""
    return {
        "accuracy": _mean([accuracy(item.logits, item.y) for item in items]),
        "macro_f1": _mean([macro_f1(item.logits, item.y) for item in items]),
        "ece": _mean([expected_calibration_error(item.logits, item.y) for item in items]),
    }


def _fold_row(
    number: int, fold: Mapping[str, Any], outcomes: Mapping[str, Sequence[_Outcome]]
) -> dict[str, Any]:
    models = {}
    for name, items in outcomes.items():
        here = [item.predictions for item in items if item.fold == number]
        if here:
            models[name] = _metrics(here)
    return {"fold": number, "subjects": list(fold["test"]), "models": models}


def _model_row(
    items: Sequence[_Outcome], scores: Mapping[str, float], windows: WindowSet
) -> dict[str, float | None]:
    by_seed = {
        seed: _pooled([item for item in items if item.seed == seed])
        for seed in sorted({item.seed for item in items})
    }
    pooled = _metrics(list(by_seed.values()))
    by_seed_scores = [
        accuracy_by_subject(item.logits, item.y, windows.subject[item.window]) for item in by_seed.values()
    ]
    complete = [_mean(list(each.values())) for each in by_seed_scores if each.keys() == scores.keys()]
    return {
        "accuracy": _mean(list(scores.values())),
        "accuracy_windows": pooled["accuracy"],
        "macro_f1": pooled["macro_f1"],
        "ece": pooled["ece"],
        "std_subjects": _spread(list(scores.values())),
        "std_seeds": _spread(complete),
    }


def _published_error(items: Sequence[_Outcome], scores: Mapping[str, float]) -> float | None:
    """Return the error as published: population standard deviation over subjects by sqrt(trainings - 1).

    Trainings are subjects times seeds, 27 for PAMAP2. That is no error of the mean over people: subjects are
    few, and seeds are not people.
    """
    trainings = len(scores) * len({item.seed for item in items})
    return float(np.std([*scores.values()]) / np.sqrt(trainings - 1)) if trainings > 1 else None


def _pooled(items: Sequence[_Outcome]) -> Predictions:
    """Join the folds of one seed."""
    parts = [item.predictions for item in items]
    return Predictions(
        window=np.concatenate([part.window for part in parts]),
        y=np.concatenate([part.y for part in parts]),
        logits=np.concatenate([part.logits for part in parts]),
    )


def _subject_scores(items: Sequence[_Outcome], windows: WindowSet) -> dict[str, float]:
    """Accuracy of each subject, averaged over seeds."""
    found: dict[str, list[float]] = {}
    for item in items:
        told = item.predictions
        subject = windows.subject[told.window]
        for who, score in accuracy_by_subject(told.logits, told.y, subject).items():
            found.setdefault(who, []).append(score)
    return {who: _mean(found[who]) for who in sorted(found, key=subject_key)}


def _subject_rows(by_subject: Mapping[str, Mapping[str, float]], windows: WindowSet) -> list[dict[str, Any]]:
    everyone = {who for scores in by_subject.values() for who in scores}
    return [
        {
            "subject": who,
            "windows": len(windows.of_subjects([who])),
            "models": {name: scores[who] for name, scores in by_subject.items() if who in scores},
        }
        for who in sorted(everyone, key=subject_key)
    ]


def _confusion(items: Sequence[_Outcome]) -> npt.NDArray[np.int64]:
    matrices = [confusion_matrix(item.predictions.logits, item.predictions.y) for item in items]
    return np.asarray(np.sum(matrices, axis=0), dtype=np.int64)


def _cost(item: FoldRun, model: str) -> dict[str, Any]:
    """Parameters and multiply-accumulates per window; quantisation changes neither."""
    trained = DISTILLED_STUDENT if model == INT8_STUDENT else model
    path = item.model_folder(trained) / "checkpoint.json"
    told = read_json(path) if path.is_file() else {}
    return {"params": told.get("params"), "macs": told.get("macs")}


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _spread(values: Sequence[float]) -> float | None:
    """Sample standard deviation; None of fewer than two values."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None
