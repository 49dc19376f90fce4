"""Splits by subject: everyone is tested once, nobody is in two groups, the same seed gives the same split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_recordings import window_set

from topokd_edge.data.split import default_split, parse_split, subject_folds
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


@settings(max_examples=25, deadline=None)
@given(
    people=st.integers(4, 12),
    folds=st.integers(2, 12),
    validation=st.integers(1, 2),
    classes=st.integers(1, 5),
    seed=st.integers(0, 99),
    spread=st.sampled_from([1, 2, 40]),
)
def test_the_best_deal_is_a_deal(
    people: int, folds: int, validation: int, classes: int, seed: int, spread: int
) -> None:
    folds = min(folds, people)
    if people - -(-people // folds) - validation < 1:
        return
    subjects = [str(number) for number in range(1, people + 1)]
    counts = np.random.default_rng(seed).integers(0, spread, (classes, people))
    dealt = subject_folds(subjects, folds, validation, seed, counts=counts)
    assert sorted(who for fold in dealt for who in fold.test) == sorted(subjects)
    for fold in dealt:
        assert sorted((*fold.test, *fold.validation, *fold.fit)) == sorted(subjects)
        assert len(fold.validation) == validation
    assert dealt == subject_folds(subjects, folds, validation, seed, counts=counts)


@pytest.mark.parametrize("seed", range(5))
def test_equal_subjects_are_dealt_as_if_nothing_were_known(seed: int) -> None:
    subjects = [str(number) for number in range(1, 9)]
    equal = np.full((19, 8), 60)
    assert subject_folds(subjects, 8, 1, seed, counts=equal) == subject_folds(subjects, 8, 1, seed)
    nearly = equal + np.random.default_rng(seed).integers(-3, 4, equal.shape)
    assert subject_folds(subjects, 4, 1, seed, counts=nearly) == subject_folds(subjects, 4, 1, seed)


def test_a_class_of_two_people_is_never_tested_unlearned() -> None:
    # Subjects 1 and 2 alone have class b; tested together, nobody could teach it.
    subjects = [str(number) for number in range(1, 7)]
    counts = np.array([[9] * 6, [9, 9, 0, 0, 0, 0]])
    together = apart = 0
    for seed in range(20):
        plain = subject_folds(subjects, 3, 1, seed)
        together += any({"1", "2"} <= set(fold.test) for fold in plain)
        dealt = subject_folds(subjects, 3, 1, seed, counts=counts)
        apart += all({"1", "2"} & set(fold.fit) for fold in dealt if {"1", "2"} & set(fold.test))
    assert together > 0
    assert apart == 20


def test_validation_subjects_show_what_they_can() -> None:
    # Subjects 1 to 3 have both classes, 4 to 6 one only: the former are to choose on.
    subjects = [str(number) for number in range(1, 7)]
    counts = np.array([[9, 9, 9, 9, 9, 9], [9, 9, 9, 0, 0, 0]])
    for seed in range(5):
        dealt = subject_folds(subjects, 6, 1, seed, counts=counts)
        assert {who for fold in dealt for who in fold.validation} <= {"1", "2", "3"}


def test_test_groups_have_like_shares_of_classes() -> None:
    # Half the subjects mostly walk, half mostly sit: with two in a group, one of each.
    subjects = [str(number) for number in range(1, 9)]
    counts = np.array([[90, 10] * 4, [10, 90] * 4])
    for seed in range(5):
        for fold in subject_folds(subjects, 4, 1, seed, counts=counts):
            assert sorted(int(who) % 2 for who in fold.test) == [0, 1]


def test_the_grammar() -> None:
    plan = parse_split("folds=4, validation=2,seed=7")
    assert (plan.kind, plan.folds, plan.validation_subjects, plan.seed) == ("folds", 4, 2, 7)
    plan = parse_split("seed=3")
    assert (plan.kind, plan.folds, plan.validation_subjects, plan.seed) == ("folds", 5, 1, 3)
    plan = parse_split("leave-one-out,validation=2")
    assert (plan.kind, plan.validation_subjects, plan.seed) == ("leave-one-out", 2, 0)


@pytest.mark.parametrize(
    ("spec", "part"),
    [
        ("fold=3", "'fold=3'"),
        ("folds=1", "'folds=1'"),
        ("folds=many", "'folds=many'"),
        ("folds=3,folds=4", "'folds=4'"),
        ("folds=3,validation=-1", "'validation=-1'"),
        ("folds=3,seed=-1", "'seed=-1'"),
        ("leave-one-out,folds=3", "'folds=3'"),
        ("random", "'random'"),
        ("", "''"),
        ("folds=3,", "''"),
    ],
)
def test_a_split_that_is_not_understood_names_the_part(spec: str, part: str) -> None:
    with pytest.raises(UsageError, match="expected leave-one-out, or folds=5") as caught:
        parse_split(spec)
    assert f"{part} is not understood" in caught.value.message


def test_leave_one_out_tests_each_alone() -> None:
    windows = window_set(["1", "2", "3", "4"] * 2, [0] * 4 + [1] * 4, ("a", "b"))
    dealt = parse_split("leave-one-out").deal(windows)
    assert sorted(fold.test for fold in dealt) == [("1",), ("2",), ("3",), ("4",)]
    assert all(len(fold.validation) == 1 and len(fold.fit) == 2 for fold in dealt)


def test_the_default_fits_few_subjects() -> None:
    few = window_set(["1", "2", "3"] * 2, [0] * 3 + [1] * 3, ("a", "b"))
    assert default_split(few).name == "folds=3,validation=1,seed=0"
    many = window_set([str(number) for number in range(9)], [0] * 9, ("a",))
    assert default_split(many).name == "folds=5,validation=1,seed=0"


def lists(folder: Path, text: str) -> str:
    (folder / "split.toml").write_text(text, encoding="utf-8")
    return str(folder / "split.toml")


def test_fixed_lists(tmp_path: Path) -> None:
    text = """
        [[fold]]
        test = ["10", "1"]
        validation = ["2"]
        fit = ["3"]
        [[fold]]
        test = ["2"]
        validation = ["3"]
        fit = ["1", "10"]
    """
    windows = window_set(["1", "2", "3", "10"], [0] * 4, ("a",))
    first, second = parse_split(lists(tmp_path, text)).deal(windows)
    assert (first.fold, first.test, first.validation, first.fit) == (1, ("1", "10"), ("2",), ("3",))
    assert (second.fold, second.test, second.fit) == (2, ("2",), ("1", "10"))


def test_everything_wrong_with_fixed_lists_is_told_at_once(tmp_path: Path) -> None:
    text = """
        [[fold]]
        test = ["1", "9"]
        validation = ["2"]
        fit = ["2", "3"]
        [[fold]]
        test = ["1"]
        validation = ["3", "3"]
        fit = ["2"]
    """
    windows = window_set(["1", "2", "3"], [0] * 3, ("a",))
    with pytest.raises(BadInputError, match="the set's subjects: 1, 2, 3") as caught:
        parse_split(lists(tmp_path, text)).deal(windows)
    assert list(caught.value.problems) == [
        "fold 1: test: subject 9 has no window",
        "fold 1: subject 2 is named in validation and in fit",
        "fold 2: subject 3 is named in validation and in validation",
        "subject 1 is tested in folds 1, 2, expected once",
    ]


def test_lists_of_the_wrong_shape_are_named(tmp_path: Path) -> None:
    text = """
        [[fold]]
        test = [1]
        validation = []
        fits = ["3"]
        [[fold]]
        test = "1"
        validation = ["2"]
        fit = ["3"]
    """
    with pytest.raises(UsageError) as caught:
        parse_split(lists(tmp_path, text))
    assert [problem.partition(" =")[0] for problem in caught.value.problems] == [
        "fold 1: fits: no such key",
        "fold 1: test",
        "fold 1: validation",
        "fold 1: fit: missing",
        "fold 2: test",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[fold]\ntest = []", "expected one table"),
        ("", "expected one table"),
        ("folds = 3", "folds: no such key"),
        ("[[fold", "not readable as TOML"),
    ],
)
def test_files_that_are_no_split(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_split(lists(tmp_path, text))
    with pytest.raises(UsageError, match="no such file"):
        parse_split(str(tmp_path / "none.toml"))
