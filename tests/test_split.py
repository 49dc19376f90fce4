"""Splits by subject: everyone is tested once, nobody is in two groups, the same seed gives the same split."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topokd_edge.data.split import subject_folds
from topokd_edge.errors import BadInputError, UsageError


@settings(max_examples=100, deadline=None)
@given(
    people=st.integers(3, 30), folds=st.integers(2, 10), validation=st.integers(0, 4), seed=st.integers(0, 99)
)
def test_every_subject_is_tested_exactly_once(people: int, folds: int, validation: int, seed: int) -> None:
    subjects = [str(number) for number in range(1, people + 1)]
    largest = -(-people // folds)
    if people < folds or people - largest - validation < 1:
        with pytest.raises(BadInputError):
            subject_folds(subjects, folds, validation, seed)
        return
    dealt = subject_folds(subjects, folds, validation, seed)
    assert sorted(who for fold in dealt for who in fold.test) == sorted(subjects)
    sizes = [len(fold.test) for fold in dealt]
    assert max(sizes) - min(sizes) <= 1
    for fold in dealt:
        assert sorted((*fold.test, *fold.validation, *fold.fit)) == sorted(subjects)
        assert len(fold.validation) == validation
    assert [fold.fold for fold in dealt] == list(range(1, folds + 1))


def test_same_seed_same_folds_whatever_the_order_of_subjects() -> None:
    subjects = [str(number) for number in range(1, 11)]
    assert subject_folds(subjects, 5, 2, 3) == subject_folds(subjects[::-1] * 2, 5, 2, 3)
    assert subject_folds(subjects, 5, 2, 3) != subject_folds(subjects, 5, 2, 4)


def test_subjects_are_listed_by_number() -> None:
    fit = subject_folds([str(number) for number in range(1, 13)], 12, 0, 0)[0].fit
    assert list(fit) == sorted(fit, key=int)


def test_fewer_subjects_than_folds_names_both_and_the_way_out() -> None:
    with pytest.raises(BadInputError, match=r"5 folds(.|\n)*3 subject\(s\): 1, 2, 3(.|\n)*at most 3"):
        subject_folds(["1", "2", "3"], 5, 1, 0)


def test_nobody_left_to_fit_on() -> None:
    with pytest.raises(BadInputError, match="nobody is left to fit on"):
        subject_folds(["1", "2", "3"], 3, 2, 0)


@pytest.mark.parametrize(("folds", "validation", "seed"), [(1, 1, 0), (3, -1, 0), (3, 1, -1)])
def test_senseless_numbers_are_refused(folds: int, validation: int, seed: int) -> None:
    with pytest.raises(UsageError):
        subject_folds([str(n) for n in range(9)], folds, validation, seed)
