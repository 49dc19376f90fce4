"""Metrics of predictions, from logits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Logits = npt.NDArray[np.floating]
Labels = npt.NDArray[np.int64]

ECE_BINS = 15
"""Guo et al., On Calibration of Modern Neural Networks, ICML 2017, section 5."""


def softmax(logits: Logits) -> npt.NDArray[np.float64]:
    """Return class probabilities, float64, shape (n, classes), of logits of the same shape."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    weights = np.exp(shifted)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float64)


def accuracy(logits: Logits, y: Labels) -> float:
    """Return the share of windows whose largest logit, shape (n, classes), is the true class, shape (n,)."""
    return float(np.mean(logits.argmax(axis=1) == y))


def confusion_matrix(logits: Logits, y: Labels) -> npt.NDArray[np.int64]:
    """Return windows by true class (rows) and predicted class (columns), shape (classes, classes)."""
    matrix = np.zeros((logits.shape[1], logits.shape[1]), dtype=np.int64)
    np.add.at(matrix, (y, logits.argmax(axis=1)), 1)
    return matrix


def f1_by_class(matrix: npt.NDArray[np.int64]) -> list[float | None]:
    """Return the F1 score of each class of a confusion matrix; None for a class that has no true window."""
    hits = np.diag(matrix)
    truth, predicted = matrix.sum(axis=1), matrix.sum(axis=0)
    return [
        2.0 * hit / (true + said) if true else None
        for hit, true, said in zip(hits.tolist(), truth.tolist(), predicted.tolist(), strict=True)
    ]


def macro_f1(logits: Logits, y: Labels) -> float:
    """Return the mean F1 score over the classes present in the truth.

    A class that a subject never performed has no F1 score, so it does not enter the mean; predicting it
    still costs, as a miss of the true class. Equal to scikit-learn's `f1_score(y, predicted,
    labels=np.unique(y), average="macro")`.
    """
    scores = [score for score in f1_by_class(confusion_matrix(logits, y)) if score is not None]
    return float(np.mean(scores))


def expected_calibration_error(logits: Logits, y: Labels, *, bins: int = ECE_BINS) -> float:
    """Return the expected calibration error of the most probable class.

    sum over bins of (n_bin / n) * |accuracy_bin - confidence_bin|, with bins of equal width, each open
    at its lower and closed at its upper end (Guo et al. 2017, equation 3).
    """
    probability = softmax(logits)
    confidence = probability.max(axis=1)
    correct = logits.argmax(axis=1) == y
    index = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    surplus = np.bincount(index, weights=correct - confidence, minlength=bins)
    return float(np.abs(surplus).sum() / len(y))


def accuracy_by_subject(logits: Logits, y: Labels, subject: npt.NDArray[np.str_]) -> dict[str, float]:
    """Return the accuracy of each subject's own windows; `subject` has shape (n,)."""
    correct = logits.argmax(axis=1) == y
    return {str(who): float(np.mean(correct[subject == who])) for who in np.unique(subject)}
