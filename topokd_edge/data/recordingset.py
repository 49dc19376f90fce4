"""Recordings of one rate and one set of channels, their samples in one array that may stay on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import accumulate
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from topokd_edge.arrays import map_npy, row_blocks, write_npy
from topokd_edge.data.recording import Clock, Gap, LabelInterval, Recording
from topokd_edge.errors import BadInputError
from topokd_edge.files import read_json, write_json

SAMPLES = "samples.npy"
RECORDINGS = "recordings.json"
_AGAIN = "make it again with: topokd-edge data import"


@dataclass(frozen=True)
class RecordingSet(Sequence[Recording]):
    """Recordings that share rate, channels and units.

    Attributes
    ----------
    items
        The recordings; their `samples` are parts of `samples`.
    samples
        float32, shape (samples of all recordings, channels); may be memory-mapped.
    offsets
        int64, shape (recordings,): row of `samples` at which each recording begins.
    """

    items: tuple[Recording, ...]
    samples: npt.NDArray[np.float32]
    offsets: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, index: int) -> Recording: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Recording, ...]: ...
    def __getitem__(self, index: int | slice) -> Recording | tuple[Recording, ...]:
        return self.items[index]

    @classmethod
    def of(cls, recordings: Sequence[Recording]) -> RecordingSet:
        """Return `recordings` as a set; other sequences are copied into one array in memory.

        Raises
        ------
        BadInputError
            When there is none, or they differ in rate, channels or units; every difference is named.
        """
        if isinstance(recordings, RecordingSet):
            return recordings
        refuse_mixture(recordings)
        samples = np.concatenate([np.asarray(item.samples, np.float32).T for item in recordings])
        return cls.placed(recordings, samples)

    @classmethod
    def placed(cls, recordings: Sequence[Recording], samples: npt.NDArray[np.float32]) -> RecordingSet:
        """Return the set of `recordings` whose samples lie one after the other in `samples`."""
        ends = list(accumulate(item.samples.shape[1] for item in recordings))
        starts = [0, *ends[:-1]]
        items = tuple(
            replace(item, samples=samples[start:stop].T)
            for item, start, stop in zip(recordings, starts, ends, strict=True)
        )
        return cls(items, samples, np.array(starts, dtype=np.int64))

    def save(self, folder: Path) -> None:
        """Write `samples.npy` and `recordings.json` into `folder`."""
        write_npy(folder / SAMPLES, self.samples.shape, np.float32, row_blocks(self.samples))
        write_descriptions(folder, self.items)

    @classmethod
    def open(cls, folder: Path) -> RecordingSet:
        """Open a saved set; the samples stay on disk until they are read.

        Raises
        ------
        BadInputError
            When a file is missing or damaged, or the parts do not fit together.
        """
        samples = map_npy(folder / SAMPLES, hint=_AGAIN)
        document = read_json(folder / RECORDINGS)
        try:
            described = [_from_json(item) for item in document]
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise BadInputError(
                f"{folder / RECORDINGS}: not a description of recordings ({error})", hint=_AGAIN
            ) from None
        total = sum(item.samples.shape[1] for item in described)
        columns = len(described[0].channels) if described else 0
        if samples.shape != (total, columns) or samples.dtype != np.float32:
            raise BadInputError(
                f"{folder / SAMPLES}: {samples.dtype} of shape {samples.shape}, but {RECORDINGS} speaks of "
                f"float32 of shape ({total}, {columns})",
                hint=_AGAIN,
            )
        return cls.placed(described, samples)


def refuse_mixture(recordings: Sequence[Recording]) -> None:
    """Raise BadInputError unless there are recordings and all share rate, channels and units."""
    if not recordings:
        raise BadInputError("there is no recording to cut windows from")
    first = recordings[0]
    problems = []
    hint = "import them separately, or choose channels they share with --channels"
    for name in ("rate_hz", "channels", "units"):
        want = getattr(first, name)
        others = [item for item in recordings if getattr(item, name) != want]
        problems += [
            f"{item.source}: {name} is {getattr(item, name)}, but {want} in {first.source}" for item in others
        ]
        if others and name == "rate_hz":
            hint = "bring them to one clock: --resample HZ (or, for rates that mean the same, --rate HZ)"
    if problems:
        raise BadInputError(
            "recordings of different rate, channels or units do not make one window set",
            problems=problems,
            hint=hint,
        )


def write_descriptions(folder: Path, recordings: Sequence[Recording]) -> None:
    """Write `recordings.json`: all but the samples."""
    write_json(folder / RECORDINGS, [describe(item) for item in recordings])


def describe(recording: Recording) -> dict[str, Any]:
    """Return everything but the samples, as JSON-able data; a NaN becomes null."""
    document = {
        field.name: getattr(recording, field.name)
        for field in fields(recording)
        if field.name not in ("samples", "clock", "labels", "gaps")
    }
    clock = None if recording.clock is None else asdict(recording.clock)
    if clock is not None:
        clock["segment_hz"] = [None if np.isnan(hz) else hz for hz in clock["segment_hz"]]
    return {
        **document,
        "about": dict(recording.about),
        "samples": recording.samples.shape[1],
        "labels": [[item.start, item.stop, item.label] for item in recording.labels],
        "gaps": [[gap.after_sample, gap.seconds] for gap in recording.gaps],
        "clock": clock,
    }


def _from_json(document: dict[str, Any]) -> Recording:
    """Read a description; its samples are an array of the right shape that holds nothing."""
    values = dict(document)
    values["channels"], values["units"] = tuple(values["channels"]), tuple(values["units"])
    empty = np.broadcast_to(np.float32(0), (len(values["channels"]), int(values["samples"])))
    values["samples"] = empty
    values["labels"] = tuple(LabelInterval(*item) for item in values["labels"])
    values["gaps"] = tuple(Gap(*item) for item in values["gaps"])
    values["filled"] = tuple((int(start), int(stop)) for start, stop in values["filled"])
    values["notes"] = tuple(values["notes"])
    if values["clock"] is not None:
        segments = tuple(float("nan") if hz is None else hz for hz in values["clock"]["segment_hz"])
        values["clock"] = Clock(**{**values["clock"], "segment_hz": segments})
    return Recording(**values)
