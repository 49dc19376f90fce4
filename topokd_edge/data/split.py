"""Splits by subject: whoever is tested is never trained on."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from topokd_edge.data.windowset import WindowSet, subject_key
from topokd_edge.errors import BadInputError, UsageError

DEALS = 256
"""Random deals of subjects into folds of which the best is taken; fewer when there are very many folds."""
BALANCED = 0.05
"""Total variation between the class shares of a test group and of the whole set that is as good as none."""

_GRAMMAR = (
    "expected leave-one-out, or folds=5,validation=1,seed=0 or parts of it, or a .toml file with [[fold]]"
)
_GROUPS = ("test", "validation", "fit")

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Fold:
    """Who is tested, who chooses (epoch, temperature, anything), and who is fitted on; by subject, sorted."""

    fold: int
    test: tuple[str, ...]
    validation: tuple[str, ...]
    fit: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SplitPlan:
    """How subjects are split, whatever the data.

    Attributes
    ----------
    kind
        `folds`: as many groups as `folds`, each tested once. `leave-one-out`: every subject alone.
        `fixed`: the lists in `fixed`.
    folds, validation_subjects, seed
        See `subject_folds`.
    fixed
        Folds named by the user.
    name
        What messages call the split.
    """

    kind: Literal["folds", "leave-one-out", "fixed"]
    folds: int = 5
    validation_subjects: int = 1
    seed: int = 0
    fixed: tuple[Fold, ...] = ()
    name: str = "split"

    def deal(self, windows: WindowSet) -> list[Fold]:
        """Return the folds of a window set.

        Raises
        ------
        BadInputError
            When the set has no window or too few subjects, or fixed lists do not fit its subjects.
        """
        if not len(windows):
            raise BadInputError(
                "the set has no window: its recordings have no labels",
                hint="import again with --labels FILE.csv (docs/data.md says what is in it)",
            )
        if self.kind == "fixed":
            _refuse_misfits(self.fixed, windows.subjects, self.name)
            return list(self.fixed)
        everyone = windows.subjects
        folds = self.folds if self.kind == "folds" else max(2, len(everyone))
        return subject_folds(
            everyone, folds, self.validation_subjects, self.seed, counts=class_by_subject(windows)
        )


def parse_split(spec: str) -> SplitPlan:
    """Read `leave-one-out`, `folds=5,validation=1,seed=0`, or a TOML file with fixed lists.

    Parts may be left out, and `leave-one-out` may be followed by `,validation=2,seed=1`. A file has a table
    `[[fold]]` per fold, with lists of subject names: `test`, `validation` and `fit`.

    Raises
    ------
    UsageError
        When the text, or the file, is no split; all that is wrong is named.
    """
    if spec.endswith(".toml"):
        return SplitPlan("fixed", fixed=_read_lists(Path(spec)), name=spec)
    first, *rest = [part.strip() for part in spec.split(",")]
    alone = first == "leave-one-out"
    numbers: dict[str, int] = {}
    for part in rest if alone else [first, *rest]:
        key, _, value = part.partition("=")
        least = {"validation": 0, "seed": 0} | ({} if alone else {"folds": 2})
        if key not in least or key in numbers or not value.isdecimal() or int(value) < least[key]:
            ranges = ", ".join(f"{name} {number} or more" for name, number in sorted(least.items()))
            raise UsageError(
                f"--split {spec}: {part!r} is not understood ({ranges}, each once)", hint=_GRAMMAR
            )
        numbers[key] = int(value)
    return SplitPlan(
        "leave-one-out" if alone else "folds",
        folds=numbers.get("folds", 5),
        validation_subjects=numbers.get("validation", 1),
        seed=numbers.get("seed", 0),
        name=spec,
    )


def default_split(windows: WindowSet) -> SplitPlan:
    """Return five folds with one validation subject, or as many folds as there are subjects."""
    folds = max(2, min(5, len(windows.subjects)))
    return parse_split(f"folds={folds},validation=1,seed=0")


def fixed_folds(tables: Any, name: str) -> tuple[Fold, ...]:
    """Read fixed lists: one table per fold with the lists `test`, `validation` and `fit` of subject names.

    Raises
    ------
    UsageError
        With every missing or unknown key, and every value that is no list of names.
    """
    problems = []
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise UsageError(f"{name}: expected one table [[fold]] or more, each with test, validation and fit")
    for number, table in enumerate(tables, start=1):
        where = f"fold {number}"
        problems += [f"{where}: {key}: no such key" for key in sorted(set(table) - set(_GROUPS))]
        for key in _GROUPS:
            who = table.get(key)
            if key not in table:
                problems.append(f"{where}: {key}: missing")
            elif not isinstance(who, list) or not who or not all(isinstance(item, str) for item in who):
                problems.append(f'{where}: {key} = {who!r}: expected subject names, such as ["1", "2"]')
    if problems:
        raise UsageError(f"{name}: {len(problems)} problem(s)", problems=problems)
    lists = [[tuple(sorted(table[key], key=subject_key)) for key in _GROUPS] for table in tables]
    return tuple(Fold(number, *groups) for number, groups in enumerate(lists, start=1))


def class_by_subject(windows: WindowSet) -> Counts:
    """Count windows, shape (classes, subjects)."""
    counts = np.zeros((len(windows.class_names), len(windows.subjects)), dtype=np.int64)
    column = {subject: index for index, subject in enumerate(windows.subjects)}
    columns = np.array([column[subject] for subject in windows.subject.tolist()], dtype=np.int64)
    np.add.at(counts, (windows.y, columns), 1)
    return counts


def subject_folds(
    subjects: Sequence[str], n_folds: int, n_validation: int, seed: int, *, counts: Counts | None = None
) -> list[Fold]:
    """Deal subjects into outer folds; every subject is tested exactly once.

    With `counts`, the best of `DEALS` random deals is taken: first that every tested class is in fit, then
    that validation subjects show as many classes as possible, then that no test group has other class shares
    than the whole set. Of equally good deals it is the first, which is the one made without `counts`.

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
    counts
        Windows, shape (classes, subjects), subjects in the order of `subject_key`.

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
    everyone = sorted(set(subjects), key=subject_key)
    _refuse_impossible(everyone, n_folds, n_validation, seed)
    deal = _deal(len(everyone), n_folds, n_validation, np.random.default_rng(seed))
    if counts is not None:
        fault, number = _fault(deal, counts), 1
        while any(fault) and number < max(16, min(DEALS, 10_000 // n_folds)):
            another = _deal(len(everyone), n_folds, n_validation, np.random.default_rng([seed, number]))
            number += 1
            if (its := _fault(another, counts)) < fault:
                deal, fault = another, its
    return [
        Fold(number, *(tuple(everyone[index] for index in group.tolist()) for group in groups))
        for number, groups in enumerate(deal, start=1)
    ]


def _deal(
    people: int, n_folds: int, n_validation: int, generator: np.random.Generator
) -> list[tuple[Counts, Counts, Counts]]:
    """Deal once; indices of test, validation and fit subjects of each fold, ascending."""
    shuffled = generator.permutation(people)
    folds = []
    for number in range(n_folds):
        test = np.sort(shuffled[number::n_folds])
        rest = np.setdiff1d(np.arange(people), test)
        drawn = np.sort(generator.choice(len(rest), n_validation, replace=False))
        folds.append((test, rest[drawn], np.delete(rest, drawn)))
    return folds


def _fault(deal: list[tuple[Counts, Counts, Counts]], counts: Counts) -> tuple[int, int, float]:
    """Say what is wrong with a deal, worst first; zeros when nothing is."""
    unlearned = unchecked = 0
    imbalance = 0.0
    overall = counts.sum(axis=1) / max(counts.sum(), 1)
    for test, validation, fit in deal:
        tested, chosen, learned = (counts[:, group].sum(axis=1) for group in (test, validation, fit))
        unlearned += int(np.count_nonzero((tested > 0) & (learned == 0)))
        unchecked += int(np.count_nonzero((overall > 0) & (chosen == 0)))
        share = tested / max(tested.sum(), 1)
        imbalance = max(imbalance, float(np.abs(share - overall).sum()) / 2)
    return unlearned, unchecked, max(0.0, round(imbalance - BALANCED, 9))


def _refuse_impossible(everyone: list[str], n_folds: int, n_validation: int, seed: int) -> None:
    if n_folds < 2:
        raise UsageError(f"folds: {n_folds}, expected 2 or more")
    if n_validation < 0 or seed < 0:
        raise UsageError(f"validation subjects {n_validation} and seed {seed}: expected 0 or more")
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


def _read_lists(path: Path) -> tuple[Fold, ...]:
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise UsageError(f"--split {path}: no such file", hint=_GRAMMAR) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"--split {path}: not readable as TOML ({error})") from None
    if strangers := sorted(set(document) - {"fold"}):
        raise UsageError(f"{path}: {', '.join(strangers)}: no such key; known here: fold")
    return fixed_folds(document.get("fold"), str(path))


def _refuse_misfits(folds: Sequence[Fold], subjects: Sequence[str], name: str) -> None:
    """Refuse lists that name a subject who is not there, or one twice where once is right."""
    problems = []
    for fold in folds:
        groups = {key: getattr(fold, key) for key in _GROUPS}
        for key, who in groups.items():
            for stranger in sorted(set(who) - set(subjects), key=subject_key):
                problems.append(f"fold {fold.fold}: {key}: subject {stranger} has no window")
        named = Counter(subject for who in groups.values() for subject in who)
        for subject in (who for who, times in named.items() if times > 1):
            places = [key for key, who in groups.items() for item in who if item == subject]
            problems.append(f"fold {fold.fold}: subject {subject} is named in {' and in '.join(places)}")
    tested: dict[str, list[str]] = {}
    for fold in folds:
        for subject in set(fold.test):
            tested.setdefault(subject, []).append(str(fold.fold))
    for subject, where in sorted(tested.items(), key=lambda item: subject_key(item[0])):
        if len(where) > 1:
            problems.append(f"subject {subject} is tested in folds {', '.join(where)}, expected once")
    if problems:
        known = f"the set's subjects: {', '.join(subjects)}"
        raise BadInputError(
            f"{name}: {len(problems)} problem(s) with the lists", problems=problems, hint=known
        )
