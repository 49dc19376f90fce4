"""Signatures of failure: each is found where it was made to be, and nowhere else."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from topokd_edge.distill.method import Distilling
from topokd_edge.distill.signatures import LEAST, Logits, Signature, find_signatures, lag

N, CLASSES = 200, 4
Y = np.arange(N) % CLASSES


def right(share: float, confidence: float = 4.0) -> Logits:
    """Answers of which the first `share` are right, the rest wrong, with so large a logit."""
    hits = np.arange(N) < round(share * N)
    return (confidence * np.eye(CLASSES)[np.where(hits, Y, (Y + 1) % CLASSES)]).astype(np.float32)


def found(
    teachers: dict[str, float],
    scratch: float,
    candidates: list[tuple[dict[str, Any], Logits]],
    chosen: int = 0,
) -> dict[str, Signature]:
    answers = {name: right(share) for name, share in teachers.items()}
    settings = [(Distilling(**change), logits) for change, logits in candidates]
    made = find_signatures(Y, answers, right(scratch), settings, chosen)  # type: ignore[arg-type]
    assert len({item.name for item in made}) == len(made) == 5
    for item in made:
        assert (item.found is None) == (item.value is None) == (item.threshold is None)
        assert item.says
        assert item.advice
    return {item.name: item for item in made}


def names(signatures: dict[str, Signature]) -> set[str]:
    return {name for name, item in signatures.items() if item.found}


BOTH: dict[str, float] = {"signal": 0.8, "topology": 0.75}
NO_MIXUP = {"alpha_signal": 0.0, "alpha_topology": 0.0}


def test_a_distillation_that_goes_well_shows_none() -> None:
    made = found(BOTH, 0.7, [(NO_MIXUP, right(0.78)), ({}, right(0.8))], chosen=1)
    assert names(made) == set()


def test_a_gap_between_teachers() -> None:
    # Two teachers teach worse than one.
    one, two = ({"teachers": ("signal",)}, right(0.82)), ({"annealing": False}, right(0.7))
    made = found(BOTH, 0.6, [one, two])
    assert "teacher-gap" in names(made)
    assert made["teacher-gap"].value == pytest.approx(0.12)
    assert made["teacher-gap"].advice == "annealing = true"
    assert "eta" in found(BOTH, 0.6, [one, ({}, right(0.7))])["teacher-gap"].advice
    assert "teacher-gap" not in names(found(BOTH, 0.6, [one, ({}, right(0.82))]))
    # No single teacher was tried: far apart and no gain.
    apart = {"signal": 0.8, "topology": 0.6}
    assert "teacher-gap" in names(found(apart, 0.7, [({}, right(0.7))]))
    assert "teacher-gap" not in names(found(apart, 0.7, [({}, right(0.75))]))
    assert "teacher-gap" not in names(found(BOTH, 0.7, [({}, right(0.7))]))
    assert found({"signal": 0.8}, 0.7, [({"teachers": ("signal",)}, right(0.8))])["teacher-gap"].found is None


def test_over_smoothing() -> None:
    plain, mixed = (NO_MIXUP, right(0.8)), ({}, right(0.7))
    assert "over-smoothing" in names(found(BOTH, 0.6, [plain, mixed]))
    assert "over-smoothing" not in names(found(BOTH, 0.6, [plain, ({}, right(0.8))]))
    # Partial mixup of no sample is none.
    assert "over-smoothing" in names(found(BOTH, 0.6, [({"mixup_share": 0.0}, right(0.8)), mixed]))
    # Nothing to compare with: right more often than it dares to say. e^1 / (e^1 + 3) = 0.475.
    shy = found(BOTH, 0.6, [({}, right(0.8, confidence=1.0))])
    assert "over-smoothing" in names(shy)
    assert shy["over-smoothing"].value == pytest.approx(0.8 - np.e / (np.e + 3), abs=1e-6)
    standardised = {"logit_standardisation": "tda-kd"}
    assert found(BOTH, 0.6, [(standardised, right(0.8, 1.0))])["over-smoothing"].found is None


def test_a_weak_teacher() -> None:
    made = found({"signal": 0.8, "topology": 0.5}, 0.7, [({}, right(0.75))])
    assert "weak-teacher" in names(made)
    assert made["weak-teacher"].says == "the topology teacher is 20.0 points behind the student from scratch"
    assert "weak-teacher" not in names(found(BOTH, 0.7, [({}, right(0.75))]))
    assert found({}, 0.7, [({"teachers": ()}, right(0.7))])["weak-teacher"].found is None


def test_a_student_too_small_for_its_teachers() -> None:
    strong = {"signal": 0.95, "topology": 0.9}
    assert "student-capacity" in names(found(strong, 0.7, [({}, right(0.72))]))
    assert "student-capacity" not in names(found(strong, 0.7, [({}, right(0.93))]))
    # Not the student's size, where the student from scratch comes near the teachers.
    assert "student-capacity" not in names(found(strong, 0.93, [({}, right(0.6))]))


def test_a_student_worse_than_from_scratch() -> None:
    assert "below-scratch" in names(found(BOTH, 0.8, [({}, right(0.7))]))
    assert "below-scratch" not in names(found(BOTH, 0.7, [({}, right(0.8))]))


def test_what_may_be_chance_does_not_count() -> None:
    # Two windows of 200 is 1 point, less than twice its error; 40 windows one way is not.
    value, threshold = lag(Y, right(0.80), right(0.79))
    assert value == pytest.approx(0.01)
    assert threshold > value
    difference = np.r_[np.ones(40), np.zeros(160)]
    value, threshold = lag(Y, right(0.8), right(0.6))
    assert threshold == pytest.approx(2 * difference.std(ddof=1) / N**0.5)
    assert value == pytest.approx(0.2)
    assert lag(Y, right(0.8), right(0.8)) == (0, LEAST)
    assert lag(Y[:1], right(1)[:1], right(0)[:1]) == (1.0, 2.0)


def test_they_are_plain_data() -> None:
    import json

    made = found(BOTH, 0.7, [({}, right(0.8))])
    json.dumps([asdict(item) for item in made.values()], allow_nan=False)
