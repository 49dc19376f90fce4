"""Which recordings of different subjects hold the same signal, and whether that spoils a split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from topokd_edge.data.duplicates import Copies
from topokd_edge.data.split import Fold
from topokd_edge.data.windowset import WindowSet

_SHOWN = 4


@dataclass(frozen=True, slots=True)
class Copied:
    """Two recordings of different subjects that hold the same signal.

    Attributes
    ----------
    subjects, recordings
        Of both: name, and index.
    sources
        Of both: the file, and which recording in it.
    windows
        Of both: how many of their windows are copies.
    exact
        Whether they are equal bit by bit; else up to unit, resolution or slight noise.
    """

    subjects: tuple[str, str]
    recordings: tuple[int, int]
    sources: tuple[str, str]
    windows: tuple[int, int]
    exact: bool


def copied_recordings(windows: WindowSet, copies: Copies) -> tuple[Copied, ...]:
    """Gather pairs of windows by pairs of recordings."""
    pairs = np.stack([windows.recording[copies.a], windows.recording[copies.b]])
    found = []
    for one, other in np.unique(pairs, axis=1).T.tolist():
        mine = copies.at((pairs[0] == one) & (pairs[1] == other))
        both = windows.recordings[one], windows.recordings[other]
        found.append(
            Copied(
                subjects=(both[0].subject, both[1].subject),
                recordings=(one, other),
                sources=(both[0].source, both[1].source),
                windows=(len(np.unique(mine.a)), len(np.unique(mine.b))),
                exact=bool(mine.exact.all()),
            )
        )
    return tuple(found)


def leaks(copied: Sequence[Copied], folds: Sequence[Fold]) -> tuple[list[str], list[str]]:
    """Say which copies stand in two groups of a fold, and which do no harm; one line per two subjects."""
    harmful, harmless = [], []
    people: dict[tuple[str, str], list[Copied]] = {}
    for pair in copied:
        one, other = pair.subjects
        people.setdefault((min(one, other), max(one, other)), []).append(pair)
    for (one, other), pairs in people.items():
        listed = [_told(pair) for pair in pairs[:_SHOWN]]
        if len(pairs) > _SHOWN:
            rest = [pair.windows[0] for pair in pairs[_SHOWN:]]
            listed.append(f"and {len(rest)} more pairs of recordings with {sum(rest)} window(s)")
        what = f"subjects {one} and {other} share signals: {'; '.join(listed)}"
        apart = [str(fold.fold) for fold in folds if _apart(fold, one, other)]
        if apart:
            harmful.append(f"{what}. They are in different groups of fold(s) {', '.join(apart)}")
        else:
            harmless.append(f"{what}. No fold has them in different groups")
    return harmful, harmless


def _told(pair: Copied) -> str:
    one, other = pair.sources
    n, m = pair.windows
    how = "bit by bit" if pair.exact else "up to scale, resolution or slight noise"
    return f"{one} equals {other} {how} in {n} window(s)" + (
        "" if n == m else f" of the one, {m} of the other"
    )


def _apart(fold: Fold, one: str, other: str) -> bool:
    groups = [
        {name for name in ("test", "validation", "fit") if who in getattr(fold, name)} for who in (one, other)
    ]
    return bool(groups[0] and groups[1]) and groups[0] != groups[1]
