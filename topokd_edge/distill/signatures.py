"""Known ways for distillation to fail, looked for on the validation subjects of a fold.

They are hints, not tests: a difference counts when it exceeds both a least size and twice its standard
error over windows, and windows of one person are alike, so that error is itself too small.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from topokd_edge.distill.method import Distilling, TeacherName
from topokd_edge.evaluate.metrics import softmax

Logits = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

LEAST = 0.01
"""Accuracy, as a fraction, below which no difference counts."""
GAP = 0.10
"""Difference in accuracy between two teachers that is called a gap."""
CAPACITY = 0.05
"""How far the best teacher is ahead when a student is called too small for it."""
UNDER_CONFIDENT = 0.15
"""Accuracy less mean confidence at which a student is called over-smoothed."""


@dataclass(frozen=True)
class Signature:
    """One way to fail.

    Attributes
    ----------
    name
        `teacher-gap`, `over-smoothing`, `weak-teacher`, `student-capacity` or `below-scratch`.
    found
        None where the recipe has nothing to tell it by.
    value, threshold
        What was measured, as a fraction, and from where on it counts.
    says, advice
        What was seen; what to try when it was found.
    """

    name: str
    found: bool | None
    value: float | None
    threshold: float | None
    says: str
    advice: str


@dataclass(frozen=True)
class _Seen:
    """A candidate and what it said of the validation windows."""

    settings: Distilling
    logits: Logits


def find_signatures(
    y: Labels,
    teachers: Mapping[TeacherName, Logits],
    scratch: Logits,
    candidates: Sequence[tuple[Distilling, Logits]],
    chosen: int,
) -> list[Signature]:
    """Return every known signature, found or not.

    Parameters
    ----------
    y
        Class of each validation window, shape (n,).
    teachers, scratch
        Logits of each teacher and of the student from scratch, shape (n, classes).
    candidates
        Settings and logits of each distilled student.
    chosen
        Index of the candidate that was kept.
    """
    seen = [_Seen(settings, logits) for settings, logits in candidates]
    return [
        _teacher_gap(y, teachers, scratch, seen, seen[chosen]),
        _over_smoothing(y, seen, seen[chosen]),
        _weak_teacher(y, teachers, scratch),
        _student_capacity(y, teachers, scratch, seen[chosen]),
        _below_scratch(y, scratch, seen[chosen]),
    ]


def lag(y: Labels, ahead: Logits, behind: Logits) -> tuple[float, float]:
    """Return accuracy(ahead) - accuracy(behind) and from which value on it counts.

    That is the larger of `LEAST` and twice the standard error of the paired difference over the windows.
    """
    difference = _hits(ahead, y) - _hits(behind, y)
    error = float(difference.std(ddof=1)) / len(y) ** 0.5 if len(y) > 1 else 1.0
    return float(difference.mean()), max(LEAST, 2 * error)


def _teacher_gap(
    y: Labels, teachers: Mapping[TeacherName, Logits], scratch: Logits, seen: list[_Seen], chosen: _Seen
) -> Signature:
    advice = (
        "annealing = true"
        if not all(item.settings.annealing for item in seen)
        else "move eta towards the better teacher, or teach with that one alone"
    )
    single = [item for item in seen if len(item.settings.teachers) == 1]
    both = [item for item in seen if len(item.settings.teachers) == 2]
    if not both or len(teachers) < 2:
        return Signature("teacher-gap", None, None, None, "one teacher at most", advice)
    if single:
        value, threshold = lag(y, _best(y, single).logits, _best(y, both).logits)
        says = f"two teachers are {_points(value)} behind one"
        return Signature("teacher-gap", value >= threshold, value, threshold, says, advice)
    value = abs(_accuracy(teachers["signal"], y) - _accuracy(teachers["topology"], y))
    helped = _accuracy(chosen.logits, y) > _accuracy(scratch, y)
    helps = "helps" if helped else "does not help"
    says = f"the teachers are {_points(value)} apart and distillation {helps}"
    return Signature("teacher-gap", value >= GAP and not helped, value, GAP, says, advice)


def _over_smoothing(y: Labels, seen: list[_Seen], chosen: _Seen) -> Signature:
    advice = "lower the alphas, mixup_share = 0.1 to 0.5, or a lower temperature"
    mixed = [item for item in seen if _mixes(item.settings)]
    plain = [item for item in seen if not _mixes(item.settings)]
    if mixed and plain:
        value, threshold = lag(y, _best(y, plain).logits, _best(y, mixed).logits)
        says = f"the best student with mixup is {_points(value)} behind the best without"
        return Signature("over-smoothing", value >= threshold, value, threshold, says, advice)
    if chosen.settings.logit_standardisation != "none":
        says = "with standardised logits the confidence means nothing"
        return Signature("over-smoothing", None, None, None, says, advice)
    value = _accuracy(chosen.logits, y) - float(softmax(chosen.logits).max(1).mean())
    says = f"the student's accuracy exceeds its confidence by {_points(value)}"
    return Signature("over-smoothing", value >= UNDER_CONFIDENT, value, UNDER_CONFIDENT, says, advice)


def _weak_teacher(y: Labels, teachers: Mapping[TeacherName, Logits], scratch: Logits) -> Signature:
    advice = "look at its training curve; train it longer or stop it earlier, or give it less weight (eta)"
    if not teachers:
        return Signature("weak-teacher", None, None, None, "no teacher", advice)
    lags = {name: lag(y, scratch, logits) for name, logits in teachers.items()}
    worst = max(lags, key=lambda name: lags[name][0] - lags[name][1])
    value, threshold = lags[worst]
    says = f"the {worst} teacher is {_points(value)} behind the student from scratch"
    return Signature("weak-teacher", value >= threshold, value, threshold, says, advice)


def _student_capacity(
    y: Labels, teachers: Mapping[TeacherName, Logits], scratch: Logits, chosen: _Seen
) -> Signature:
    advice = "a wider or deeper student.network; WRN16-1 is the smallest advised"
    if not teachers:
        return Signature("student-capacity", None, None, None, "no teacher", advice)
    best = max(teachers.values(), key=lambda logits: _accuracy(logits, y))
    better = chosen.logits if _accuracy(chosen.logits, y) >= _accuracy(scratch, y) else scratch
    value, noise = lag(y, best, better)
    threshold = max(CAPACITY, noise)
    says = f"the best teacher is {_points(value)} ahead of the student, however trained"
    return Signature("student-capacity", value >= threshold, value, threshold, says, advice)


def _below_scratch(y: Labels, scratch: Logits, chosen: _Seen) -> Signature:
    value, threshold = lag(y, scratch, chosen.logits)
    says = f"the distilled student is {_points(value)} behind the student from scratch"
    advice = "check the teachers' training and the student's size; lower tau"
    return Signature("below-scratch", value >= threshold, value, threshold, says, advice)


def _mixes(settings: Distilling) -> bool:
    return any(item.alpha > 0 for item in settings.strengths())


def _best(y: Labels, seen: Sequence[_Seen]) -> _Seen:
    return max(seen, key=lambda item: _accuracy(item.logits, y))


def _hits(logits: Logits, y: Labels) -> npt.NDArray[np.float64]:
    return np.asarray(logits.argmax(1) == y, np.float64)


def _accuracy(logits: Logits, y: Labels) -> float:
    return float(_hits(logits, y).mean())


def _points(value: float) -> str:
    return f"{100 * value:.1f} points"
