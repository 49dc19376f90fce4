"""Labels of WFDB records: the heart beats or the rhythms of an annotation file (`.atr`)."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from topokd_edge.errors import BadInputError

KINDS = ("beats", "rhythm")
BEATS = frozenset("NLRBAaJSVrFejnE/fQ?")
"""Symbols of annotations that stand for a heart beat."""
REACH_S = 1.5
"""A sample farther than this from every beat has no label."""
HINT = "copy or download the record again"

Intervals: TypeAlias = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.str_]]
"""Starts, ends (excluded) and labels."""


def read_intervals(path: Path, rate_hz: float, length: int, kind: str | None) -> Intervals | None:
    """Return the labelled intervals of the record whose header is `path`; None when it has no annotations.

    `length` is the samples per signal; `kind` one of `KINDS`, None for beats where there are any.

    Raises
    ------
    BadInputError
        When the annotations cannot be read, or asked for and not there.
    """
    file = path.with_suffix(".atr")
    if not file.is_file():
        if kind:
            raise BadInputError(f"{file}: no such file; {kind} are labelled from it")
        return None
    import wfdb

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read: Any = wfdb.rdann(str(path.with_suffix("")), "atr")
        at = np.asarray(read.sample, dtype=np.int64)
        symbols, notes = list(read.symbol), [str(note).strip("\0 ") for note in read.aux_note]
        if not len(at) == len(symbols) == len(notes):
            raise ValueError(f"{len(at)} places, {len(symbols)} symbols and {len(notes)} notes")
    except Exception as error:  # whatever wfdb stumbles over in damaged bytes
        raise BadInputError(f"{file}: not readable annotations ({error})", hint=HINT) from None
    if len(at) and (at.min() < 0 or at.max() >= length or np.any(np.diff(at) < 0)):
        raise BadInputError(f"{file}: annotations out of order, or outside the {length} samples", hint=HINT)
    if kind == "rhythm":
        chosen = [number for number, note in enumerate(notes) if note.startswith("(") and len(note) > 1]
        starts, names = at[chosen], [notes[number][1:] for number in chosen]
        ends = np.append(starts[1:], length)[: len(starts)]
    else:
        chosen = [number for number, symbol in enumerate(symbols) if symbol in BEATS]
        starts, ends = around(at[chosen], int(REACH_S * rate_hz))
        names = [symbols[number] for number in chosen]
    if kind and not chosen:
        raise BadInputError(f"{file}: no {kind} among its {len(at)} annotations")
    return starts, ends, np.array(names, dtype=np.str_)


def around(beats: npt.NDArray[np.int64], reach: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the interval of each beat: up to the middle between it and its neighbours, `reach` at most."""
    middle = (beats[:-1] + beats[1:] + 1) // 2
    starts = np.concatenate([beats[:1], np.maximum(middle, beats[1:] - reach)])
    ends = np.concatenate([np.minimum(middle, beats[:-1] + reach + 1), beats[-1:] + 1])
    return starts, ends


def labels_at(
    place: npt.NDArray[np.int64],
    intervals: Intervals | None,
) -> npt.NDArray[np.str_] | None:
    """Return the label of each sample number in `place`, "" where there is none."""
    if intervals is None:
        return None
    starts, ends, names = intervals
    if not len(starts):
        return np.full(len(place), "", dtype=np.str_)
    number = np.searchsorted(starts, place, side="right") - 1
    return np.where((number >= 0) & (place < ends[number]), names[number], "")
