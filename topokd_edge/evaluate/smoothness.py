"""How smooth a run is: what mixup and temperature add to the targets, and what becomes of the answers.

Mixup and distillation both smooth. Whether they add up is measured here at both ends: the entropy of what a
student learned from, and the entropy, margin and calibration of what it says of people it has never seen.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from topokd_edge.evaluate.metrics import Labels, Logits, expected_calibration_error, softmax
from topokd_edge.run import SCRATCH_STUDENT, FoldRun, Predictions

TEMPERATURES = (1.0, 2.0, 4.0, 8.0, 12.0)
_TARGETS = "train_entropy_"


def smoothness(finished: Sequence[FoldRun], said: Mapping[str, Predictions]) -> dict[str, Any]:
    """Return how smooth targets and answers are, in nats and as fractions.

    Parameters
    ----------
    finished
        Folds and seeds of a run.
    said
        Held-out predictions of each model, all folds and seeds together.

    Returns
    -------
    dict
        `answers`: per model `answer_smoothness`, and for students `ece_added` and `entropy_added`, each
        less that of the student from scratch. `targets`: per distilled student the mean entropy of the
        mixed labels (`labels`) and of the softened answers of each teacher, in the last epoch. `softened`:
        per teacher its mean entropy on held-out windows at each of `TEMPERATURES`, without mixup.
    """
    answers: dict[str, dict[str, float]] = {
        name: answer_smoothness(item.logits, item.y) for name, item in said.items()
    }
    if SCRATCH_STUDENT in answers:
        plain = answers[SCRATCH_STUDENT]
        for name, row in answers.items():
            if name.startswith("student."):
                row |= {f"{key}_added": row[key] - plain[key] for key in ("ece", "entropy")}
    targets = {name: _targets(finished, name) for name in said}
    return {
        "answers": answers,
        "targets": {name: row for name, row in targets.items() if row},
        "softened": {
            name: {f"{t:g}": entropy(item.logits, t) for t in TEMPERATURES}
            for name, item in said.items()
            if name.startswith("teacher.")
        },
    }


def answer_smoothness(logits: Logits, y: Labels) -> dict[str, float]:
    """Return `entropy`, `confidence`, `margin`, `accuracy` and `ece` of logits, shape (n, classes), at T = 1.

    The margin is the probability of the true class less the largest other, mean over windows: negative
    where a window is named wrongly.
    """
    probability = softmax(logits)
    true = probability[np.arange(len(y)), y]
    others = probability.copy()
    others[np.arange(len(y)), y] = -np.inf
    return {
        "entropy": entropy(logits),
        "confidence": float(probability.max(1).mean()),
        "margin": float((true - others.max(1)).mean()),
        "accuracy": float((logits.argmax(1) == y).mean()),
        "ece": expected_calibration_error(logits, y),
    }


def entropy(logits: Logits, temperature: float = 1.0) -> float:
    """Return the mean entropy in nats of softmax(logits / T)."""
    probability = softmax(np.asarray(logits, np.float64) / temperature)
    terms = np.where(probability > 0, probability * np.log(np.maximum(probability, 1e-300)), 0.0)
    return float(-terms.sum(1).mean())


def _targets(finished: Sequence[FoldRun], model: str) -> dict[str, float]:
    """Return the mean over folds and seeds of each entropy that the last epoch of `model` learned from."""
    found: dict[str, list[float]] = {}
    for item in finished:
        path = item.model_folder(model) / "metrics.jsonl"
        lines = path.read_text("utf-8").splitlines() if path.is_file() else []
        for key, value in (json.loads(lines[-1]) if lines else {}).items():
            if key.startswith(_TARGETS):
                found.setdefault(key.removeprefix(_TARGETS), []).append(value)
    return {name: float(np.mean(values)) for name, values in found.items()}
