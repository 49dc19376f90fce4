"""Is one model better than another? Paired over subjects, because subjects are what a new user is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

LEVEL = 0.05
EXACT_UP_TO = 16
"""Subjects; 2^16 sign patterns are all tried, more are drawn at random."""
DRAWS = 100_000
FEWEST = 6
"""Subjects; with five, the smallest two-sided p of a sign-flip test is 2/32 = 0.0625."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Model `b` against model `a` on the same subjects.

    Attributes
    ----------
    difference
        Mean over subjects of accuracy(b) - accuracy(a), as a fraction.
    ci95
        Its 95 % t interval over subjects; None with fewer than two subjects.
    p
        Two-sided p value that the difference is zero.
    test
        Which test gave `p`.
    verdict
        Of `b`: "better" or "worse" when p < 0.05 and the interval leaves out zero, else "within noise".
    subjects
        How many were compared.
    sentence
        The same in words.
    """

    a: str
    b: str
    difference: float
    ci95: tuple[float, float] | None
    p: float
    test: str
    verdict: str
    subjects: int
    sentence: str

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON-able data."""
        return {**asdict(self), "ci95": list(self.ci95) if self.ci95 else None}


def compare(a: str, b: str, scores_a: Mapping[str, float], scores_b: Mapping[str, float]) -> Comparison:
    """Compare two models by their accuracy on each subject.

    Parameters
    ----------
    a, b
        Names of the models.
    scores_a, scores_b
        Accuracy as a fraction, by subject; those both have are compared.

    Raises
    ------
    ValueError
        When the models have no subject in common.
    """
    common = sorted(set(scores_a) & set(scores_b))
    if not common:
        raise ValueError(f"{a} and {b} have no subject in common")
    differences = np.array([scores_b[who] - scores_a[who] for who in common], dtype=np.float64)
    mean, interval = interval_of_difference(differences)
    p, test = sign_flip_test(differences)
    verdict = "within noise"
    if p < LEVEL and interval is not None and interval[0] * interval[1] > 0:
        verdict = "better" if mean > 0 else "worse"
    sentence = _sentence(a, b, mean, interval, p, verdict, len(common))
    return Comparison(a, b, mean, interval, p, test, verdict, len(common), sentence)


def interval_of_difference(
    differences: npt.NDArray[np.float64],
) -> tuple[float, tuple[float, float] | None]:
    """Return the mean of paired differences, shape (subjects,), and its 95 % t interval.

    The t interval, because a percentile bootstrap of so few subjects is too narrow. The interval is None
    with fewer than two subjects.
    """
    mean = float(differences.mean())
    if len(differences) < 2:
        return mean, None
    from scipy.special import stdtrit

    error = float(differences.std(ddof=1)) / len(differences) ** 0.5
    half = float(stdtrit(len(differences) - 1, 1 - LEVEL / 2)) * error
    return mean, (mean - half, mean + half)


def sign_flip_test(differences: npt.NDArray[np.float64], *, seed: int = 0) -> tuple[float, str]:
    """Test whether the mean of paired differences, shape (subjects,), is zero (two-sided).

    Under the null hypothesis each difference is as likely with the other sign (Fisher's randomisation test);
    all sign patterns are tried up to 16 subjects, beyond that 100,000 are drawn.

    Returns
    -------
    tuple of float and str
        p value and the name of the test.
    """
    size = len(differences)
    observed = abs(differences.sum()) * (1 - 1e-9) - 1e-15
    if size <= EXACT_UP_TO:
        patterns = (np.arange(2**size)[:, None] >> np.arange(size)) & 1
        sums = (1.0 - 2.0 * patterns) @ differences
        return float(np.mean(np.abs(sums) >= observed)), "exact sign-flip test over subjects"
    generator = np.random.default_rng(seed)
    as_extreme = 0
    for block in range(0, DRAWS, 10_000):
        signs = 1.0 - 2.0 * generator.integers(0, 2, size=(min(10_000, DRAWS - block), size))
        as_extreme += int(np.count_nonzero(np.abs(signs @ differences) >= observed))
    return (1 + as_extreme) / (1 + DRAWS), f"sign-flip test over subjects, {DRAWS:,} draws"


def _sentence(
    a: str,
    b: str,
    mean: float,
    interval: tuple[float, float] | None,
    p: float,
    verdict: str,
    subjects: int,
) -> str:
    between = (
        f"95 % interval {100 * interval[0]:+.1f} to {100 * interval[1]:+.1f}" if interval else "no interval"
    )
    words = {"better": "is better than", "worse": "is worse than", "within noise": "is within noise of"}
    sentence = (
        f"{b} {words[verdict]} {a}: {100 * mean:+.1f} points of accuracy "
        f"({between}, p = {p:.3g}, {subjects} subjects)"
    )
    if subjects < FEWEST:
        sentence += f"; with fewer than {FEWEST} subjects no difference can be told from noise"
    return sentence + "."
