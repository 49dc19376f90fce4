"""Proof that a split tests on nobody and nothing it was fitted on, and that every class can be learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from topokd_edge.data.split import Fold
from topokd_edge.data.windowset import WindowSet
from topokd_edge.errors import BadInputError

_HINT = (
    "leave rare classes out when importing: topokd-edge data import ... --min-subjects-per-class 2 "
    "(3 where validation subjects are held out too)"
)


@dataclass(frozen=True, slots=True)
class Audit:
    """What an audit that passed has counted.

    Attributes
    ----------
    class_names, subjects
        Rows and columns of `counts`.
    counts
        int64, shape (classes, subjects): windows.
    warnings
        What is allowed but should be known.
    """

    class_names: tuple[str, ...]
    subjects: tuple[str, ...]
    counts: npt.NDArray[np.int64]
    warnings: tuple[str, ...]


def class_by_subject(windows: WindowSet) -> npt.NDArray[np.int64]:
    """Count windows, shape (classes, subjects)."""
    counts = np.zeros((len(windows.class_names), len(windows.subjects)), dtype=np.int64)
    column = {subject: index for index, subject in enumerate(windows.subjects)}
    columns = np.array([column[subject] for subject in windows.subject.tolist()], dtype=np.int64)
    np.add.at(counts, (windows.y, columns), 1)
    return counts


def overlapping(windows: WindowSet, train: npt.NDArray[np.int64], test: npt.NDArray[np.int64]) -> int:
    """Count the windows of `test` that share at least one sample with a window of `train`.

    Parameters
    ----------
    train, test
        Window indices, int64, shape (n,) and (m,).
    """
    if len(train) == 0 or len(test) == 0:
        return 0
    # One axis for all recordings, with more than a window's length between any two.
    stride = int(windows.start.max()) + 2 * windows.length + 1
    place = windows.recording * stride + windows.start
    known = np.sort(place[train])
    at = np.searchsorted(known, place[test])
    after = known[np.minimum(at, len(known) - 1)] - place[test]
    before = place[test] - known[np.maximum(at - 1, 0)]
    return int(np.count_nonzero(np.minimum(np.abs(after), np.abs(before)) < windows.length))


def audit_fold(windows: WindowSet, fold: Fold) -> list[str]:
    """Return every problem of one fold; none means that its test is honest and its classes can be learned.

    Checked are: subjects in two groups, unknown subjects, empty groups, windows of different groups that
    share samples, and classes that the test subjects show but the fit subjects do not.
    """
    groups = {"fit": fold.fit, "validation": fold.validation, "test": fold.test}
    indices = {name: windows.of_subjects(who) for name, who in groups.items()}
    where = f"fold {fold.fold}"
    problems = []
    for name, who in groups.items():
        strangers = sorted(set(who) - set(windows.subjects))
        if strangers:
            problems.append(f"{where}: {name} subject(s) {', '.join(strangers)} have no window")
        if name != "validation" and len(indices[name]) == 0:
            problems.append(f"{where}: no {name} window")
    for one, other in combinations(groups, 2):
        both = sorted(set(groups[one]) & set(groups[other]))
        if both:
            problems.append(f"{where}: subject(s) {', '.join(both)} are in {one} and in {other}")
        shared = overlapping(windows, indices[one], indices[other])
        if shared:
            problems.append(f"{where}: {shared} {other} window(s) share samples with {one} windows")
    learned = set(windows.y[indices["fit"]].tolist())
    for label in sorted(set(windows.y[indices["test"]].tolist()) - learned):
        problems.append(
            f"{where}: class {windows.class_names[label]!r} is tested (subjects {', '.join(fold.test)}), "
            "but no fit subject has it"
        )
    return problems


def audit(windows: WindowSet, folds: Sequence[Fold] = ()) -> Audit:
    """Audit a window set and its folds.

    Raises
    ------
    BadInputError
        With every problem: an empty class, a class that only one subject has, a subject never or
        repeatedly tested, and those of `audit_fold`.
    """
    counts = class_by_subject(windows)
    problems, warnings = [], []
    people = (counts > 0).sum(axis=1)
    for name, row, number in zip(windows.class_names, counts, people.tolist(), strict=True):
        if number == 0:
            problems.append(f"class {name!r}: no window has it")
        elif number == 1:
            only = windows.subjects[int(np.argmax(row))]
            problems.append(
                f"class {name!r}: only subject {only} has it, so it is unseen whenever {only} is tested"
            )
    for subject, column in zip(windows.subjects, counts.T, strict=True):
        missing = [name for name, n in zip(windows.class_names, column, strict=True) if n == 0]
        if len(missing) == len(windows.class_names) - 1:
            warnings.append(f"subject {subject}: one class only")
        elif missing:
            warnings.append(f"subject {subject}: no window of {', '.join(missing)}")
    if folds:
        tested = [subject for fold in folds for subject in fold.test]
        for subject in windows.subjects:
            if tested.count(subject) != 1:
                problems.append(f"subject {subject}: tested {tested.count(subject)} times, expected once")
    for fold in folds:
        problems += audit_fold(windows, fold)
        unchecked = set(windows.y.tolist()) - set(windows.y[windows.of_subjects(fold.validation)].tolist())
        if fold.validation and unchecked:
            names = ", ".join(windows.class_names[label] for label in sorted(unchecked))
            warnings.append(f"fold {fold.fold}: no validation subject shows {names}")
    if problems:
        raise BadInputError(
            f"the split cannot be trusted or a class cannot be learned ({len(problems)} problem(s))",
            problems=problems,
            hint=_HINT,
        )
    return Audit(windows.class_names, windows.subjects, counts, tuple(warnings))
