"""The verdict on two models: exact p values, honest intervals, words that match the numbers."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from topokd_edge.evaluate.compare import compare, interval_of_difference, sign_flip_test


def scores(values: list[float]) -> dict[str, float]:
    return {str(who): value for who, value in enumerate(values)}


def test_sign_flip_by_hand() -> None:
    # Differences 1, 2, 3: of 8 sign patterns only +++ and --- reach |sum| = 6.
    assert sign_flip_test(np.array([1.0, 2.0, 3.0]))[0] == 2 / 8
    # 1, 2, -3: the sum is 0, which every pattern reaches.
    assert sign_flip_test(np.array([1.0, 2.0, -3.0]))[0] == 1.0


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), n=st.integers(2, 9))
def test_sign_flip_equals_scipy_exact_permutation_test(seed: int, n: int) -> None:
    values = np.random.default_rng(seed).normal(0.3, 1, n)
    truth = stats.permutation_test((values,), np.sum, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip_test(values)[0] == pytest.approx(truth.pvalue)


def test_many_subjects_are_drawn_and_agree_with_the_exact_value() -> None:
    values = np.random.default_rng(3).normal(0.4, 1, 16)
    exact, name = sign_flip_test(values)
    assert "exact" in name
    drawn, name = sign_flip_test(np.append(values, 0.0))  # a zero changes no sum
    assert "draws" in name
    assert drawn == pytest.approx(exact, abs=0.01)


def test_interval_is_the_t_interval_and_covers_as_promised() -> None:
    generator = np.random.default_rng(0)
    values = generator.normal(size=8)
    mean, interval = interval_of_difference(values)
    truth = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert mean == pytest.approx(values.mean())
    assert interval == pytest.approx((truth.low, truth.high))
    covered = 0
    for _ in range(1000):
        _, interval = interval_of_difference(generator.normal(0.5, 1, 8))
        assert interval is not None
        covered += interval[0] <= 0.5 <= interval[1]
    assert covered / 1000 == pytest.approx(0.95, abs=0.025)


def test_a_clear_gain_is_better_and_its_mirror_worse() -> None:
    low = [0.70, 0.72, 0.68, 0.75, 0.71, 0.69, 0.73, 0.70]
    gains = [0.05, 0.04, 0.06, 0.05, 0.03, 0.05, 0.06, 0.04]
    high = [value + gain for value, gain in zip(low, gains, strict=True)]
    up = compare("old", "new", scores(low), scores(high))
    assert (up.verdict, up.p, up.subjects) == ("better", 2 / 256, 8)
    assert up.difference == pytest.approx(np.mean(gains))
    assert "new is better than old: +4.8 points" in up.sentence
    assert compare("old", "new", scores(high), scores(low)).verdict == "worse"


def test_a_mean_gain_from_one_subject_is_within_noise() -> None:
    # +30 points on one of eight subjects: the mean says +3.75, the data say nothing.
    told = compare("a", "b", scores([0.5] * 8), scores([0.8, *[0.5] * 7]))
    assert told.verdict == "within noise"
    assert told.ci95 is not None
    assert told.ci95[0] < 0 < told.ci95[1]


def test_equal_models_and_few_subjects_stay_free_of_nan() -> None:
    for n in (1, 2, 5, 8, 20):
        same = compare("a", "b", scores([0.5] * n), scores([0.5] * n))
        json.dumps(same.to_json(), allow_nan=False)
        assert (same.verdict, same.p) == ("within noise", 1.0)


def test_five_subjects_cannot_show_a_difference_and_the_sentence_says_so() -> None:
    told = compare("a", "b", scores([0.5] * 5), scores([0.6, 0.61, 0.62, 0.6, 0.61]))
    assert told.verdict == "within noise"
    assert told.p == 2 / 32
    assert "fewer than 6 subjects" in told.sentence


def test_only_common_subjects_are_compared() -> None:
    told = compare("a", "b", {"1": 0.5, "2": 0.5}, {"2": 0.7, "3": 0.1})
    assert told.subjects == 1
    assert told.difference == pytest.approx(0.2)
    assert told.ci95 is None
    with pytest.raises(ValueError, match="no subject in common"):
        compare("a", "b", {"1": 0.5}, {"2": 0.5})
