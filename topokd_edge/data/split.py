"""Splits by subject: whoever is tested is never trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from topokd_edge.data.windowset import subject_key
from topokd_edge.errors import BadInputError, UsageError


@dataclass(frozen=True, slots=True)
class Fold:
    """Who is tested, who chooses (epoch, temperature, anything), and who is fitted on; by subject, sorted."""

    fold: int
    test: tuple[str, ...]
    validation: tuple[str, ...]
    fit: tuple[str, ...]


def subject_folds(subjects: Sequence[str], n_folds: int, n_validation: int, seed: int) -> list[Fold]:
    """Deal subjects into outer folds; every subject is tested exactly once.

    Parameters
    ----------
    subjects
        Every subject; order and repetition do not matter.
    n_folds
        Outer folds; their test groups differ in size by at most one.
    n_validation
        Subjects per fold taken from those not tested, to choose on.
    seed
        The same seed gives the same folds.

    Returns
    -------
    list of Fold
        Numbered from 1.

    Raises
    ------
    UsageError
        When the numbers make no sense for any data.
    BadInputError
        When there are fewer subjects than folds, or none would be left to fit on.
    """
    if n_folds < 2:
        raise UsageError(f"folds: {n_folds}, expected 2 or more")
    if n_validation < 0 or seed < 0:
        raise UsageError(f"validation subjects {n_validation} and seed {seed}: expected 0 or more")
    everyone = sorted(set(subjects), key=subject_key)
    if len(everyone) < n_folds:
        raise BadInputError(
            f"{n_folds} folds by subject were asked for, but there are only {len(everyone)} subject(s): "
            f"{', '.join(everyone)}",
            hint=f"at most {len(everyone)} folds"
            if len(everyone) >= 2
            else "a split by subject needs more people",
        )
    largest = -(-len(everyone) // n_folds)
    if len(everyone) - largest - n_validation < 1:
        raise BadInputError(
            f"{len(everyone)} subjects, up to {largest} tested and {n_validation} for validation: "
            "nobody is left to fit on",
            hint="fewer validation subjects, or more folds",
        )
    generator = np.random.default_rng(seed)
    shuffled = [everyone[index] for index in generator.permutation(len(everyone))]
    folds = []
    for number in range(n_folds):
        test = shuffled[number::n_folds]
        rest = [subject for subject in everyone if subject not in test]
        drawn = set(generator.choice(len(rest), n_validation, replace=False).tolist())
        folds.append(
            Fold(
                fold=number + 1,
                test=tuple(sorted(test, key=subject_key)),
                validation=tuple(rest[index] for index in sorted(drawn)),
                fit=tuple(subject for index, subject in enumerate(rest) if index not in drawn),
            )
        )
    return folds
