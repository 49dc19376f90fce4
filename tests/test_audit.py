"""The audit finds leaks and classes that cannot be learned, and passes an honest split."""

from __future__ import annotations

import numpy as np
import pytest
from made_recordings import recording, window_set

from topokd_edge.data.audit import audit, audit_fold, overlapping
from topokd_edge.data.split import Fold, subject_folds
from topokd_edge.data.windows import make_windows
from topokd_edge.errors import BadInputError

AB = ("a", "b")


def test_a_random_split_of_overlapping_windows_leaks_and_a_subject_split_does_not() -> None:
    # 2000 windows, 50 % overlap, random 20 % test. A test window is clean only if both its neighbours are
    # in the test too: about 0.2^2 = 4 %, so about 96 to 97 % leak.
    made = [recording(str(who), samples=25 * 201) for who in range(10)]
    windows = make_windows(made, seconds=2.0, overlap=0.5, made={})
    assert len(windows) == 2000
    order = np.random.default_rng(0).permutation(2000)
    assert overlapping(windows, order[400:], order[:400]) / 400 == pytest.approx(0.96, abs=0.03)
    for fold in subject_folds(windows.subjects, 5, 1, 0):
        fit, test = windows.of_subjects(fold.fit), windows.of_subjects(fold.test)
        assert overlapping(windows, fit, test) == 0
        assert audit_fold(windows, fold) == []


def test_overlap_counts_shared_samples_only() -> None:
    windows = make_windows([recording(samples=100)], seconds=2.0, overlap=0.5, made={})
    assert windows.start.tolist() == [0, 25, 50]
    one = np.array([0])
    assert overlapping(windows, one, np.array([1, 2])) == 1  # 0-49 and 25-74 share; 50-99 does not
    assert overlapping(windows, one, one) == 1
    assert overlapping(windows, one, np.array([], dtype=np.int64)) == 0


def test_the_same_window_place_in_two_recordings_is_no_overlap() -> None:
    windows = make_windows([recording("1", 50), recording("2", 50)], seconds=2.0, overlap=0.0, made={})
    assert overlapping(windows, np.array([0]), np.array([1])) == 0


def test_an_honest_split_passes_and_counts() -> None:
    windows = window_set(["1", "1", "2", "2", "3", "3", "3"], [0, 1, 0, 1, 0, 1, 1], AB)
    passed = audit(windows, subject_folds(windows.subjects, 3, 1, 0))
    assert passed.counts.tolist() == [[1, 1, 1], [1, 1, 2]]
    assert passed.subjects == ("1", "2", "3")
    assert passed.warnings == ()


def test_a_subject_in_two_groups_is_found() -> None:
    windows = window_set(["1", "1", "2", "2"], [0, 1, 0, 1], AB)
    problems = audit_fold(windows, Fold(1, test=("1",), validation=(), fit=("1", "2")))
    assert any("subject(s) 1 are in fit and in test" in problem for problem in problems)
    assert any("2 test window(s) share samples with fit" in problem for problem in problems)


def test_a_class_of_one_person_is_an_error_with_the_way_out() -> None:
    windows = window_set(["1", "1", "2", "2", "3", "3", "3"], [0, 1, 0, 1, 0, 1, 2], (*AB, "only"))
    with pytest.raises(BadInputError) as caught:
        audit(windows, subject_folds(windows.subjects, 3, 1, 0))
    text = str(caught.value)
    assert "class 'only': only subject 3 has it" in text
    assert "class 'only' is tested (subjects 3), but no fit subject has it" in text
    assert "--min-subjects-per-class 2" in text


def test_an_empty_class_is_an_error() -> None:
    with pytest.raises(BadInputError, match="class 'empty': no window has it"):
        audit(window_set(["1", "1", "2", "2"], [0, 1, 0, 1], (*AB, "empty")))


def test_a_class_that_only_test_and_validation_have_is_an_error() -> None:
    windows = window_set(["1", "2", "3", "1", "2"], [0, 0, 0, 1, 1], AB)
    problems = audit_fold(windows, Fold(1, test=("1",), validation=("2",), fit=("3",)))
    assert problems == ["fold 1: class 'b' is tested (subjects 1), but no fit subject has it"]


def test_what_is_allowed_is_told() -> None:
    # Subject 3 has one class only; as the validation subject it cannot check class b.
    windows = window_set(["1", "1", "2", "2", "3"], [0, 1, 0, 1, 0], AB)
    folds = [
        Fold(1, ("1",), ("3",), ("2",)),
        Fold(2, ("2",), ("3",), ("1",)),
        Fold(3, ("3",), ("1",), ("2",)),
    ]
    warnings = audit(windows, folds).warnings
    assert "subject 3: one class only" in warnings
    assert "fold 1: no validation subject shows b" in warnings


def test_strangers_and_subjects_not_tested_once_are_found() -> None:
    windows = window_set(["1", "1", "2", "2", "3", "3"], [0, 1] * 3, AB)
    with pytest.raises(BadInputError) as caught:
        audit(windows, [Fold(1, ("1",), ("9",), ("2", "3")), Fold(2, ("1",), (), ("2", "3"))])
    text = str(caught.value)
    assert "subject 1: tested 2 times" in text
    assert "subject 2: tested 0 times" in text
    assert "validation subject(s) 9 have no window" in text
