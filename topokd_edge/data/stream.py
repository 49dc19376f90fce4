"""What an importer gives: recordings that are still in their file, read chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from topokd_edge.data.recording import UNKNOWN_SUBJECT
from topokd_edge.errors import BadInputError

CHUNK_SAMPLES = 1 << 16
"""Samples an importer reads at a time, about; bounds its memory whatever the size of the file."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive samples of a stream.

    Attributes
    ----------
    samples
        float32, shape (n, channels): one row per sample, in the units of the stream. NaN marks a value that
        was lost.
    time
        float64, shape (n,), seconds since `Stream.start`; None when the format has no time stamps. Either
        all chunks of a stream have it or none.
    labels
        str, shape (n,), "" where a sample has no label; None when the stream's labels are not per sample.
    borders
        Positions in this chunk, ascending, before which an unknown time passed (0: before its first sample).
    notes
        What a person should know, found while reading this chunk.
    """

    samples: npt.NDArray[np.float32]
    time: npt.NDArray[np.float64] | None = None
    labels: npt.NDArray[np.str_] | None = None
    borders: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Stream:
    """One recording, described, with its samples still in the file.

    Attributes
    ----------
    source
        Name for messages: the file and, if there are several recordings in it, which one.
    path
        The file it comes from; None for data that come with a package.
    subject, session, device, channels, units, start, about
        See `topokd_edge.data.recording.Recording`; units are already those of the project.
    rate_hz
        As the format states it; None when only the time stamps can tell.
    chunks
        Reads the samples from the beginning. Picklable, so that another process can do it. Raises
        BadInputError, naming file and row, for what cannot be read.
    label
        Of the whole recording; None when labels are per sample or absent.
    first_stamp
        The first time stamp in seconds as the format counts them, where they count from no known date and
        `start` is None; None otherwise.
    lost_as_nan
        The format is known to write NaN for lost samples, so these become gaps; elsewhere NaN is an error.
    notes
        What a person should know, found while opening.
    """

    source: str
    path: Path | None
    channels: tuple[str, ...]
    units: tuple[str, ...]
    rate_hz: float | None
    chunks: Callable[[], Iterator[Chunk]]
    subject: str = UNKNOWN_SUBJECT
    session: str = "1"
    device: str = "unknown"
    start: str | None = None
    label: str | None = None
    first_stamp: float | None = None
    lost_as_nan: bool = False
    about: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """A file, or a recording in it, that could not be read, and why."""

    file: str
    reason: str


@dataclass(frozen=True, slots=True)
class Opened:
    """The streams of a path, and what of it was refused."""

    streams: tuple[Stream, ...]
    refused: tuple[Refused, ...] = ()


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """What a user says about files that do not say it themselves; None leaves it to the format.

    Attributes
    ----------
    rate_hz
        Samples per second.
    time
        Column of the time stamps and their unit, `COLUMN:UNIT` (s, ms, us, ns, iso); "none" for no stamps.
    columns
        Which columns to read as which channels: `channel=column,...`; a column is a name or a number from 1.
    units
        One unit for all channels, or `channel=unit,...`.
    label
        Column of the label, or for annotated records which annotations: "beats" or "rhythm".
    subject
        Column of the subject.
    assume_yes
        Take guesses that matter (`--yes`).
    """

    rate_hz: float | None = None
    time: str | None = None
    columns: str | None = None
    units: str | None = None
    label: str | None = None
    subject: str | None = None
    assume_yes: bool = False


def files_in(path: Path, patterns: tuple[str, ...]) -> list[Path]:
    """Return the file `path`, or every file below the folder `path` that fits one of `patterns`, sorted.

    Patterns are case-blind globs of the file name.

    Raises
    ------
    BadInputError
        When there is none.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise BadInputError(f"{path}: no such file or folder")
    found = sorted(
        item
        for item in path.rglob("*")
        if item.is_file() and any(Path(item.name.lower()).match(pattern.lower()) for pattern in patterns)
    )
    if not found:
        raise BadInputError(f"{path}: no file named {' or '.join(patterns)} in this folder or below it")
    return found


def open_each(files: Iterable[Path], open_one: Callable[[Path], Iterable[Stream]]) -> Opened:
    """Open every file; one that is refused does not stop the others."""
    streams: list[Stream] = []
    refused = []
    for file in files:
        try:
            streams += open_one(file)
        except BadInputError as error:
            refused.append(Refused(str(file), str(error)))
        except OSError as error:
            refused.append(Refused(str(file), f"{file}: cannot be read ({error.strerror or error})"))
    return Opened(tuple(streams), tuple(refused))
