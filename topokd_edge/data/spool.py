"""From a stream to arrays on disk, chunk by chunk."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from topokd_edge.arrays import RowWriter, appended_npy, map_npy
from topokd_edge.data.intervals import label_intervals
from topokd_edge.data.recording import LabelInterval
from topokd_edge.data.stream import Chunk, Stream
from topokd_edge.errors import BadInputError

_MOST_NOTES = 10


@dataclass(frozen=True)
class Spooled:
    """What a stream held.

    Attributes
    ----------
    samples
        float32, memory-mapped, shape (samples, channels); may hold NaN.
    time
        float64, memory-mapped, shape (samples,); None without time stamps.
    labels
        Label intervals.
    borders
        Samples before which an unknown time passed, ascending.
    notes
        Of the stream and its chunks.
    """

    samples: npt.NDArray[np.float32]
    time: npt.NDArray[np.float64] | None
    labels: tuple[LabelInterval, ...]
    borders: tuple[int, ...]
    notes: tuple[str, ...]


def spool(stream: Stream, channels: tuple[str, ...], folder: Path) -> Spooled:
    """Write the chosen channels of a stream to files in `folder`.

    Parameters
    ----------
    stream
        What to read.
    channels
        Names of the channels to keep, in this order.
    folder
        An empty folder.

    Raises
    ------
    BadInputError
        When the file cannot be read, a value is infinite, or there is no sample.
    """
    columns = [stream.channels.index(name) for name in channels]
    gathered = _Gathered(stream)
    with ExitStack() as stack:
        samples = stack.enter_context(appended_npy(folder / "samples.npy", (len(columns),), np.float32))
        time = stack.enter_context(appended_npy(folder / "time.npy", (), np.float64))
        for chunk in stream.chunks():
            _append(chunk, columns, samples, time, stream)
            gathered.add(chunk)
    if gathered.samples == 0:
        raise BadInputError(f"{stream.source}: there is no sample in it")
    hint = "import again"
    return Spooled(
        samples=map_npy(folder / "samples.npy", hint=hint),
        time=map_npy(folder / "time.npy", hint=hint) if gathered.timed else None,
        labels=gathered.intervals(),
        borders=tuple(gathered.borders),
        notes=tuple(gathered.notes),
    )


def _append(chunk: Chunk, columns: list[int], samples: RowWriter, time: RowWriter, stream: Stream) -> None:
    chosen = chunk.samples[:, columns]
    infinite = np.argwhere(np.isinf(chosen))
    if len(infinite):
        row, column = infinite[0].tolist()
        name = stream.channels[columns[column]]
        raise BadInputError(
            f"{stream.source}: channel {name!r}, sample {samples.rows + row}: {chosen[row, column]}"
            + (f" (and {len(infinite) - 1} more)" if len(infinite) > 1 else ""),
            hint="correct the file; a value that was lost is written as NaN or left empty",
        )
    samples.append(chosen)
    if chunk.time is not None:
        time.append(chunk.time)


@dataclass
class _Gathered:
    """Labels, borders and notes of the chunks read so far."""

    stream: Stream
    samples: int = 0
    timed: bool = False
    borders: list[int] = field(default_factory=list)
    notes: list[str] = field(init=False)
    _runs: list[tuple[int, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.notes = list(self.stream.notes)

    def add(self, chunk: Chunk) -> None:
        timed = chunk.time is not None
        if self.samples and timed != self.timed:
            raise BadInputError(f"{self.stream.source}: only a part of its samples has a time stamp")
        self.timed = timed
        self.borders += [self.samples + at for at in chunk.borders if self.samples + at > 0]
        for note in chunk.notes:
            if len(self.notes) < _MOST_NOTES and note not in self.notes:
                self.notes.append(note)
        if chunk.labels is not None and len(chunk.labels):
            changes = np.flatnonzero(chunk.labels[1:] != chunk.labels[:-1]) + 1
            for at in (0, *changes.tolist()):
                name = str(chunk.labels[at])
                if not self._runs or self._runs[-1][1] != name:
                    self._runs.append((self.samples + at, name))
        self.samples += len(chunk.samples)

    def intervals(self) -> tuple[LabelInterval, ...]:
        """Return where the labels lie."""
        if self.stream.label is not None:
            return (LabelInterval(0, self.samples, self.stream.label),)
        return label_intervals(self._runs, self.samples)
