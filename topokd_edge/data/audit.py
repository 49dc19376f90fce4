"""Proof that a split tests on nobody and nothing it was fitted on, and that every class can be learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from topokd_edge.data.copied import Copied, copied_recordings, leaks
from topokd_edge.data.duplicates import find_copies
from topokd_edge.data.split import Fold, class_by_subject
from topokd_edge.data.windowset import WindowSet, subject_key
from topokd_edge.errors import CheckFailedError

CHECKS = {
    "classes": "every class that is tested can be learned",
    "choice": "validation subjects show more than one class",
    "subjects": "no subject is in two groups of a fold, or tested twice",
    "samples": "no sample is in two groups of a fold",
    "recordings": "no recording stands under two subjects",
    "copies": "no signal is in two groups of a fold under two subjects",
}
"""What an audit proves, by the name of the check."""

_RARE = (
    "leave rare classes out when importing: topokd-edge data import ... --min-subjects-per-class 2 "
    "(3 where validation subjects are held out too)"
)
_COPIED = (
    "import again without one recording of each pair, or keep both subjects in one group of every fold "
    "with fixed lists: --split FILE.toml"
)


@dataclass(frozen=True, slots=True)
class Audit:
    """What an audit has counted and found.

    Attributes
    ----------
    class_names, subjects
        Rows and columns of `counts`.
    counts
        int64, shape (classes, subjects): windows.
    copied
        Pairs of recordings of different subjects with the same signal.
    looked_up
        Windows that were compared with all others for near copies; fewer than all in a very large set.
    found
        By check (the keys of `CHECKS`): every problem; an empty list is a passed check.
    warnings
        What is allowed but should be known.
    hint
        What to do about the problems.
    """

    class_names: tuple[str, ...]
    subjects: tuple[str, ...]
    counts: npt.NDArray[np.int64]
    copied: tuple[Copied, ...]
    looked_up: int
    found: dict[str, list[str]]
    warnings: tuple[str, ...]
    hint: str

    @property
    def problems(self) -> tuple[str, ...]:
        """Why the split cannot be trusted, or a class cannot be learned; empty when the audit passed."""
        return tuple(problem for problems in self.found.values() for problem in problems)

    def require(self) -> None:
        """Refuse what has problems.

        Raises
        ------
        CheckFailedError
            With every problem.
        """
        if self.problems:
            raise CheckFailedError(
                f"the split cannot be trusted or a class cannot be learned ({len(self.problems)} problem(s))",
                problems=self.problems,
                hint=self.hint,
            )


def audit(windows: WindowSet, folds: Sequence[Fold]) -> Audit:
    """Audit a window set and its folds.

    Problems are: an empty class, a class that only one subject has, a subject tested repeatedly, one
    recording under two subjects, one signal in two groups of a fold, and those of `audit_fold`.
    """
    counts = class_by_subject(windows)
    found: dict[str, list[str]] = {name: [] for name in CHECKS}
    found["classes"], warnings = _classes(windows, counts)
    for fold in folds:
        for name, problems in audit_fold(windows, fold).items():
            found[name] += problems
        warnings += _unchecked(windows, fold)
    tested = [subject for fold in folds for subject in fold.test]
    for subject in windows.subjects:
        if tested.count(subject) > 1:
            found["subjects"].append(
                f"subject {subject}: tested {tested.count(subject)} times, expected once"
            )
    if never := [subject for subject in windows.subjects if subject not in tested]:
        warnings.append(f"subject(s) {', '.join(never)}: never tested, so no result speaks of them")
    found["recordings"], suspicious = _twice(windows)
    copies, looked_up = find_copies(windows)
    copied = copied_recordings(windows, copies)
    found["copies"], harmless = leaks(copied, folds)
    if looked_up < len(windows):
        warnings.append(f"near copies: {looked_up} of {len(windows)} windows were looked up among all others")
    return Audit(
        windows.class_names,
        windows.subjects,
        counts,
        copied,
        looked_up,
        found,
        warnings=(*warnings, *suspicious, *harmless),
        hint="; ".join([_RARE] * bool(found["classes"]) + [_COPIED] * bool(found["copies"])),
    )


def audit_fold(windows: WindowSet, fold: Fold) -> dict[str, list[str]]:
    """Return the problems of one fold by check; none means an honest test of classes that can be learned.

    Checked are: subjects in two groups, unknown subjects, empty groups, windows of different groups that
    share samples, classes that the test subjects show but the fit subjects do not, and validation subjects
    that show only one class.
    """
    groups = {"fit": fold.fit, "validation": fold.validation, "test": fold.test}
    indices = {name: windows.of_subjects(who) for name, who in groups.items()}
    where = f"fold {fold.fold}"
    found: dict[str, list[str]] = {"subjects": [], "samples": [], "classes": [], "choice": []}
    for name, who in groups.items():
        strangers = sorted(set(who) - set(windows.subjects))
        if strangers:
            found["subjects"].append(f"{where}: {name} subject(s) {', '.join(strangers)} have no window")
        if name != "validation" and len(indices[name]) == 0:
            found["subjects"].append(f"{where}: no {name} window")
    for one, other in combinations(groups, 2):
        both = sorted(set(groups[one]) & set(groups[other]))
        if both:
            found["subjects"].append(f"{where}: subject(s) {', '.join(both)} are in {one} and in {other}")
        shared = overlapping(windows, indices[one], indices[other])
        if shared:
            found["samples"].append(f"{where}: {shared} {other} window(s) share samples with {one} windows")
    shown = {name: set(windows.y[index].tolist()) for name, index in indices.items()}
    for label in sorted(shown["test"] - shown["fit"]):
        found["classes"].append(
            f"{where}: class {windows.class_names[label]!r} is tested (subjects {', '.join(fold.test)}), "
            "but no fit subject has it"
        )
    if len(shown["validation"]) == 1 and len(windows.class_names) > 1:
        found["choice"].append(
            f"{where}: validation subject(s) {', '.join(fold.validation)} show one class only, "
            f"{windows.class_names[min(shown['validation'])]}: nothing can be chosen on them"
        )
    return found


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


def _classes(windows: WindowSet, counts: npt.NDArray[np.int64]) -> tuple[list[str], list[str]]:
    """Find classes that cannot be learned and tested, and subjects who lack classes."""
    problems, warnings = [], []
    for name, row in zip(windows.class_names, counts, strict=True):
        number = int(np.count_nonzero(row))
        only = windows.subjects[int(np.argmax(row))]
        if number == 0:
            problems.append(f"class {name!r}: no window has it")
        elif number == 1:
            problems.append(
                f"class {name!r}: only subject {only} has it, so it is unseen whenever {only} is tested"
            )
    for subject, column in zip(windows.subjects, counts.T, strict=True):
        missing = [name for name, n in zip(windows.class_names, column, strict=True) if n == 0]
        if missing and len(missing) == len(windows.class_names) - 1:
            has = windows.class_names[int(np.argmax(column))]
            warnings.append(
                f"subject {subject}: {has} only; accuracy on {subject} is the recall of that class"
            )
        elif missing:
            warnings.append(f"subject {subject}: no window of {', '.join(missing)}")
    return problems, warnings


def _unchecked(windows: WindowSet, fold: Fold) -> list[str]:
    """Tell which classes no validation subject of a fold shows."""
    shown = set(windows.y[windows.of_subjects(fold.validation)].tolist())
    unchecked = sorted(set(windows.y.tolist()) - shown)
    if not fold.validation or not unchecked:
        return []
    names = ", ".join(windows.class_names[label] for label in unchecked)
    return [f"fold {fold.fold}: no validation subject shows {names}"]


def _twice(windows: WindowSet) -> tuple[list[str], list[str]]:
    """Find recordings that stand under two subjects: the same source, or the same device and start."""
    sources: dict[str, set[str]] = {}
    starts: dict[tuple[str, str], set[str]] = {}
    for item in windows.recordings:
        sources.setdefault(item.source, set()).add(item.subject)
        if item.start and "serial" in item.about:
            starts.setdefault((item.about["serial"], item.start), set()).add(item.subject)
    problems = [
        f"{source}: one recording under subjects {', '.join(sorted(who, key=subject_key))}"
        for source, who in sources.items()
        if len(who) > 1
    ]
    warnings = [
        f"device {serial}: recordings of subjects {', '.join(sorted(who, key=subject_key))} start together, "
        f"{start}"
        for (serial, start), who in starts.items()
        if len(who) > 1
    ]
    return problems, warnings
