"""Metrics agree with scikit-learn and with hand calculation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score
from sklearn.metrics import confusion_matrix as sklearn_confusion

from topokd_edge.evaluate import metrics


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 60), classes=st.integers(2, 6), seen=st.integers(1, 6))
def test_agreement_with_scikit_learn(seed: int, n: int, classes: int, seen: int) -> None:
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(n, classes)).astype(np.float32)
    y = generator.integers(0, min(seen, classes), n)
    predicted = logits.argmax(axis=1)
    assert metrics.accuracy(logits, y) == pytest.approx(accuracy_score(y, predicted))
    expected = f1_score(y, predicted, labels=np.unique(y), average="macro", zero_division=0)
    assert metrics.macro_f1(logits, y) == pytest.approx(expected)
    truth = sklearn_confusion(y, predicted, labels=range(classes))
    np.testing.assert_array_equal(metrics.confusion_matrix(logits, y), truth)


def test_a_class_nobody_performed_has_no_f1() -> None:
    logits = np.eye(3)[[0, 1, 2, 0]]
    matrix = metrics.confusion_matrix(logits, np.array([0, 1, 0, 0]))
    # Class 0: 2 of 3 found, nothing else called 0: F1 = 2*2/(3+2). Class 1: 1. Class 2: absent.
    assert metrics.f1_by_class(matrix) == [pytest.approx(0.8), 1.0, None]
    assert metrics.macro_f1(logits, np.array([0, 1, 0, 0])) == pytest.approx(0.9)


def test_expected_calibration_error_by_hand() -> None:
    # Confidences 0.9, 0.9 (one right), 0.6 (right), in bins (13/15, 14/15] and (8/15, 9/15]:
    # (2/3) * |0.5 - 0.9| + (1/3) * |1 - 0.6| = 0.4.
    probability = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4]])
    value = metrics.expected_calibration_error(np.log(probability), np.array([0, 1, 0]))
    assert value == pytest.approx(0.4)


def test_calibration_error_at_the_extremes() -> None:
    sure = np.array([[1000.0, 0.0], [1000.0, 0.0]])
    assert metrics.expected_calibration_error(sure, np.array([0, 0])) == 0.0
    assert metrics.expected_calibration_error(sure, np.array([1, 1])) == 1.0
    undecided = np.zeros((4, 2))
    assert metrics.expected_calibration_error(undecided, np.array([0, 1, 0, 1])) == pytest.approx(0.0)


def test_calibration_error_of_calibrated_predictions_is_small() -> None:
    generator = np.random.default_rng(1)
    logits = generator.normal(size=(40_000, 4))
    probability = metrics.softmax(logits)
    y = (generator.random((40_000, 1)) > probability.cumsum(axis=1)).sum(axis=1)
    assert metrics.expected_calibration_error(logits, y) < 0.01
    assert metrics.expected_calibration_error(4 * logits, y) > 0.1


def test_softmax_of_large_logits_is_finite() -> None:
    value = metrics.softmax(np.array([[1e30, -1e30, 0]], dtype=np.float32))
    np.testing.assert_array_equal(value, [[1, 0, 0]])


def test_accuracy_by_subject() -> None:
    logits = np.eye(2)[[0, 0, 1, 1]]
    subject = np.array(["1", "1", "1", "2"])
    result = metrics.accuracy_by_subject(logits, np.array([0, 1, 1, 0]), subject)
    assert result == {"1": pytest.approx(2 / 3), "2": 0.0}
