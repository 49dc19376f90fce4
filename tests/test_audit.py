"""The audit finds leaks and classes that cannot be learned, and passes an honest split."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from made_recordings import recording, window_set, windows_of

from topokd_edge.data import duplicates
from topokd_edge.data.audit import CHECKS, audit, audit_fold, overlapping
from topokd_edge.data.split import Fold, subject_folds
from topokd_edge.data.windows import Cut, make_windows
from topokd_edge.data.windowset import WindowSet
from topokd_edge.errors import CheckFailedError

AB = ("a", "b")


def flat(found: dict[str, list[str]]) -> list[str]:
    return [problem for problems in found.values() for problem in problems]


def test_a_random_split_of_overlapping_windows_leaks_and_a_subject_split_does_not() -> None:
    # 2000 windows, 50 % overlap, random 20 % test. A test window is clean only if both its neighbours are
    # in the test too: about 0.2^2 = 4 %, so about 96 to 97 % leak.
    made = [recording(str(who), samples=25 * 201) for who in range(10)]
    windows = make_windows(made, Cut(2.0, 0.5), made={})
    assert len(windows) == 2000
    order = np.random.default_rng(0).permutation(2000)
    assert overlapping(windows, order[400:], order[:400]) / 400 == pytest.approx(0.96, abs=0.03)
    for fold in subject_folds(windows.subjects, 5, 1, 0):
        fit, test = windows.of_subjects(fold.fit), windows.of_subjects(fold.test)
        assert overlapping(windows, fit, test) == 0
        assert flat(audit_fold(windows, fold)) == []


def test_overlap_counts_shared_samples_only() -> None:
    windows = make_windows([recording(samples=100)], Cut(2.0, 0.5), made={})
    assert windows.start.tolist() == [0, 25, 50]
    one = np.array([0])
    assert overlapping(windows, one, np.array([1, 2])) == 1  # 0-49 and 25-74 share; 50-99 does not
    assert overlapping(windows, one, one) == 1
    assert overlapping(windows, one, np.array([], dtype=np.int64)) == 0


def test_the_same_window_place_in_two_recordings_is_no_overlap() -> None:
    windows = make_windows([recording("1", 50), recording("2", 50)], Cut(2.0, 0.0), made={})
    assert overlapping(windows, np.array([0]), np.array([1])) == 0


def test_an_honest_split_passes_and_counts() -> None:
    windows = window_set(["1", "1", "2", "2", "3", "3", "3"], [0, 1, 0, 1, 0, 1, 1], AB)
    passed = audit(windows, subject_folds(windows.subjects, 3, 1, 0))
    passed.require()
    assert set(passed.found) == set(CHECKS)
    assert passed.problems == ()
    assert passed.counts.tolist() == [[1, 1, 1], [1, 1, 2]]
    assert passed.subjects == ("1", "2", "3")
    assert passed.warnings == ()


def test_a_subject_in_two_groups_is_found() -> None:
    windows = window_set(["1", "1", "2", "2"], [0, 1, 0, 1], AB)
    problems = flat(audit_fold(windows, Fold(1, test=("1",), validation=(), fit=("1", "2"))))
    assert any("subject(s) 1 are in fit and in test" in problem for problem in problems)
    assert any("2 test window(s) share samples with fit" in problem for problem in problems)


def test_a_class_of_one_person_is_an_error_with_the_way_out() -> None:
    windows = window_set(["1", "1", "2", "2", "3", "3", "3"], [0, 1, 0, 1, 0, 1, 2], (*AB, "only"))
    with pytest.raises(CheckFailedError) as caught:
        audit(windows, subject_folds(windows.subjects, 3, 1, 0)).require()
    text = str(caught.value)
    assert "class 'only': only subject 3 has it" in text
    assert "class 'only' is tested (subjects 3), but no fit subject has it" in text
    assert "--min-subjects-per-class 2" in text


def test_an_empty_class_is_an_error() -> None:
    done = audit(window_set(["1", "1", "2", "2"], [0, 1, 0, 1], (*AB, "empty")), [])
    assert done.found["classes"] == ["class 'empty': no window has it"]


def test_a_class_that_only_test_and_validation_have_is_an_error() -> None:
    windows = window_set(["1", "2", "2", "3", "1", "2"], [0, 0, 1, 0, 1, 1], AB)
    found = audit_fold(windows, Fold(1, test=("1",), validation=("2",), fit=("3",)))
    assert flat(found) == ["fold 1: class 'b' is tested (subjects 1), but no fit subject has it"]


def test_a_single_class_is_a_warning_in_test_and_an_error_to_choose_on() -> None:
    # Subject 3 has class a only.
    windows = window_set(["1", "1", "2", "2", "3"], [0, 1, 0, 1, 0], AB)
    alone = Fold(1, ("1",), ("3",), ("2",))
    done = audit(windows, [alone, Fold(2, ("2",), ("1",), ("3",)), Fold(3, ("3",), ("1", "2"), ("2",))])
    assert "subject 3: a only; accuracy on 3 is the recall of that class" in done.warnings
    assert done.found["choice"] == [
        "fold 1: validation subject(s) 3 show one class only, a: nothing can be chosen on them"
    ]
    assert "fold 1: no validation subject shows b" in done.warnings
    together = audit_fold(windows, Fold(1, ("1",), ("2", "3"), ("2",)))
    assert together["choice"] == []


def test_strangers_and_subjects_tested_twice_are_found_and_the_untested_told() -> None:
    windows = window_set(["1", "1", "2", "2", "3", "3"], [0, 1] * 3, AB)
    done = audit(windows, [Fold(1, ("1",), ("9",), ("2", "3")), Fold(2, ("1",), (), ("2", "3"))])
    assert done.found["subjects"] == [
        "fold 1: validation subject(s) 9 have no window",
        "subject 1: tested 2 times, expected once",
    ]
    assert "subject(s) 2, 3: never tested, so no result speaks of them" in done.warnings
    with pytest.raises(CheckFailedError, match="2 problem"):
        done.require()


def people(*, twin: bool) -> WindowSet:
    """Four people of two classes with a window each per class; subject 4 may be a copy of subject 2."""
    x = np.random.default_rng(0).normal(size=(8, 2, 60)).astype(np.float32)
    if twin:
        x[6:] = x[2:4]
    return windows_of(x, np.array([0, 1] * 4), [who for who in "1234" for _ in AB], AB)


def test_a_copy_of_a_signal_in_two_groups_fails_and_names_both_recordings() -> None:
    folds = [
        Fold(1, ("1",), ("3",), ("2", "4")),
        Fold(2, ("2",), ("1",), ("3", "4")),
        Fold(3, ("3",), ("2",), ("1", "4")),
        Fold(4, ("4",), ("1",), ("3",)),
    ]
    done = audit(people(twin=True), folds)
    (problem,) = done.found["copies"]
    assert problem == (
        "subjects 2 and 4 share signals: memory#2 equals memory#6 bit by bit in 1 window(s); "
        "memory#3 equals memory#7 bit by bit in 1 window(s). They are in different groups of fold(s) 2, 3"
    )
    with pytest.raises(CheckFailedError, match="keep both subjects in one group"):
        done.require()
    assert audit(people(twin=False), folds).problems == ()


def test_a_copy_that_no_fold_takes_apart_is_told_but_passes() -> None:
    done = audit(
        people(twin=True), [Fold(1, ("2", "4"), ("1",), ("3",)), Fold(2, ("1",), ("3",), ("2", "4"))]
    )
    assert done.problems == ()
    assert any("subjects 2 and 4 share signals" in warning for warning in done.warnings)
    # Left out of a fold altogether, it does no harm there either.
    done = audit(people(twin=True), [Fold(1, ("2",), ("1",), ("3",))])
    assert done.problems == ()


def test_many_copied_recordings_are_one_problem_per_two_subjects() -> None:
    x = np.random.default_rng(0).normal(size=(20, 2, 60)).astype(np.float32)
    x[10:] = x[:10]
    windows = windows_of(x, np.array([0, 1] * 10), ["1"] * 10 + ["2"] * 10, AB)
    done = audit(windows, [Fold(1, ("1",), (), ("2",))])
    (problem,) = done.found["copies"]
    assert (
        "and 6 more pairs of recordings with 6 window(s). They are in different groups of fold(s) 1"
        in problem
    )
    assert len(done.copied) == 10


def test_one_recording_under_two_subjects_fails_and_one_start_of_a_device_is_told() -> None:
    about = {"serial": "12"}
    items = [
        replace(recording(who, 100 + 50 * number), source=source, start=start, about=about)
        for number, (who, source, start) in enumerate(
            [("1", "x.bin", "2026-01-01"), ("2", "x.bin", "2026-01-02"), ("3", "y.bin", "2026-01-02")]
        )
    ]
    done = audit(make_windows(items, Cut(2.0, 0.5), made={}), [])
    assert done.found["recordings"] == ["x.bin: one recording under subjects 1, 2"]
    assert "device 12: recordings of subjects 2, 3 start together, 2026-01-02" in done.warnings


def test_an_audit_says_when_it_looked_up_a_part_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "_COMPARISONS", 0)
    x = np.random.default_rng(0).normal(size=(2100, 1, 16)).astype(np.float32)
    windows = windows_of(x, np.arange(2100) % 2, ["1", "2", "3"] * 700, AB)
    warnings = audit(windows, []).warnings
    assert "near copies: 2000 of 2100 windows were looked up among all others" in warnings
