"""What int8 costs: the student in float32 and in int8 on the same held-out windows, paired."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from topokd_bench.accuracy import paired95
from topokd_bench.local import Measured

_ENOUGH_SUBJECTS = 3
"""With fewer, a t interval over subjects is wider than anything of use."""
_TFLITE_RUNTIMES = ("litert", "tflite-runtime")


@dataclass(frozen=True)
class Int8Cost:
    """Accuracy of float32 less that of int8, as a share.

    Attributes
    ----------
    cost
        Mean over windows, or over subjects when the interval is over subjects; negative when int8 is better.
    ci95
        Its 95 % interval.
    over
        What the interval is over: `windows` or `subjects`.
    windows, subjects
        How many of each are behind it.
    """

    cost: float
    ci95: tuple[float, float]
    over: str
    windows: int
    subjects: int

    def to_dict(self) -> dict[str, Any]:
        """Return the cost as JSON-able data."""
        return {**vars(self), "ci95": list(self.ci95)}

    def sentence(self) -> str:
        """Say it in points of accuracy."""
        low, high = self.ci95
        people = "1 subject" if self.subjects == 1 else f"{self.subjects} subjects"
        return (
            f"taking int8 costs {100 * self.cost:.2f} points "
            f"(95 % interval {100 * low:.2f} to {100 * high:.2f}, over {self.over}; "
            f"{self.windows} windows of {people})"
        )


def int8_cost(measured: list[Measured], subject: npt.NDArray[np.str_] | None) -> Int8Cost | None:
    """Compare the float32 and int8 student through the same TFLite runtime.

    Parameters
    ----------
    measured
        Results of a bench; each tells which held-out windows it classified right.
    subject
        Shape (windows,): subject of each held-out window; None when unknown.

    Returns
    -------
    Int8Cost
        None when one of the two was not measured.
    """
    wide, narrow = (_correct(measured, f"student.{precision}") for precision in ("float32", "int8"))
    common = sorted(set(wide) & set(narrow))
    if not common or subject is None:
        return None
    difference = np.array([float(wide[i]) - float(narrow[i]) for i in common])
    who = subject[common]
    names = sorted(set(who.tolist()))
    if len(names) >= _ENOUGH_SUBJECTS:
        over_subjects = _over_subjects(np.array([difference[who == name].mean() for name in names]))
        if over_subjects is not None:
            return Int8Cost(*over_subjects, "subjects", len(common), len(names))
    interval = paired95(int((difference > 0).sum()), int((difference < 0).sum()), len(common))
    return Int8Cost(float(difference.mean()), interval, "windows", len(common), len(names))


def _over_subjects(differences: npt.NDArray[np.float64]) -> tuple[float, tuple[float, float]] | None:
    """Return mean and t interval; None where scipy, which has the quantile, is not installed (a Pi)."""
    from topokd_edge.evaluate.compare import interval_of_difference

    try:
        mean, interval = interval_of_difference(differences)
    except ModuleNotFoundError:
        return None
    return None if interval is None else (mean, interval)


def _correct(measured: list[Measured], pipeline: str) -> dict[int, bool]:
    for item in measured:
        if item.result.pipeline == pipeline and item.result.runtime in _TFLITE_RUNTIMES:
            return item.correct
    return {}
