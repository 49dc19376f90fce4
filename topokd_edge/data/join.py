"""Files of one person's sensors, one file each, as one stream whose rows are in the order of time."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

import numpy as np
import numpy.typing as npt

from topokd_edge.data.labels import seconds_since
from topokd_edge.data.stream import Chunk, Opened, Stream
from topokd_edge.errors import BadInputError

_AXIS = re.compile(r"q?[xyzw]", re.IGNORECASE)
"""A name that says the axis and not the sensor."""


@dataclass(frozen=True, slots=True)
class _Part:
    """A stream, the columns of the whole that it fills, and its start in seconds after that of the whole."""

    stream: Stream
    columns: tuple[int, ...]
    late: float


def join_streams(opened: Opened) -> Opened:
    """Join the streams of the same folder, subject and session.

    A joined stream has the channels of all its parts, and a row for each of theirs, NaN in the others'
    channels. Channels that are called by their axis alone in several files get the name of the file in front.
    Stamps that count from no date are taken to count from the same moment in all files of a folder.

    Raises
    ------
    BadInputError
        When there is nothing to join; and with all problems: channels of the same name, starts with and
        without date or time zone.
    """
    units: defaultdict[object, list[Stream]] = defaultdict(list)
    for stream in opened.streams:
        units[stream.path and stream.path.parent, stream.subject, stream.session].append(stream)
    if opened.streams and all(len(unit) == 1 for unit in units.values()):
        raise BadInputError(
            "--join: no two files are of the same folder, subject and session",
            problems=[
                *(f"{stream.source}: subject {stream.subject}" for stream in opened.streams[:10]),
                *(f"{item.file}: not readable: {item.reason}" for item in opened.refused[:10]),
            ],
            hint="put the files of one recording in one folder, or leave out --join",
        )
    problems = [problem for unit in units.values() for problem in _problems(unit)]
    if problems:
        raise BadInputError(
            "--join: files that cannot be one recording",
            problems=problems,
            hint="--subject-from tells whose a file is; recordings need folders of their own",
        )
    joined = (_joined(unit) if len(unit) > 1 else unit[0] for unit in units.values())
    return replace(opened, streams=tuple(joined))


def _named(unit: Sequence[Stream]) -> list[Stream]:
    """Put the name of the file before channels that are called by an axis and are in several files."""
    count = Counter(name for stream in unit for name in stream.channels)
    named = []
    for stream in unit:
        stem = stream.path.name.split(".")[0] if stream.path else stream.source
        channels = tuple(
            f"{stem}_{name}" if count[name] > 1 and _AXIS.fullmatch(name) else name
            for name in stream.channels
        )
        named.append(replace(stream, channels=channels))
    return named


def _problems(unit: Sequence[Stream]) -> list[str]:
    """Say why streams cannot be joined."""
    if len(unit) == 1:
        return []
    holders: defaultdict[str, list[str]] = defaultdict(list)
    for stream in _named(unit):
        for name in stream.channels:
            holders[name].append(stream.source)
    found = [f"channel {name} is in {' and in '.join(by)}" for name, by in holders.items() if len(by) > 1]
    kinds = [_kind_of_start(stream) for stream in unit]
    if len(set(kinds)) > 1:
        other = next(index for index, kind in enumerate(kinds) if kind != kinds[0])
        found.append(
            f"the stamps of {unit[0].source} have {kinds[0]}, those of {unit[other].source} {kinds[other]}"
        )
    elif kinds[0] == "no time":
        found.append(f"{unit[0].source}: has no time stamps")
    return found


def _kind_of_start(stream: Stream) -> str:
    if stream.start is None:
        return "no time" if stream.first_stamp is None else "no date"
    zone = datetime.fromisoformat(stream.start).tzinfo
    return "a date without zone" if zone is None else "a date with zone"


def _joined(unit: Sequence[Stream]) -> Stream:
    """Make one stream of several that `_problems` has nothing to say about."""
    named = _named(unit)
    first = min(named, key=_seconds_of)
    parts, width = [], 0
    for stream in named:
        columns = tuple(range(width, width + len(stream.channels)))
        parts.append(_Part(stream, columns, _seconds_of(stream) - _seconds_of(first)))
        width += len(columns)
    names = [stream.path.name if stream.path else stream.source for stream in named]
    notes = [f"{name}: {note}" for name, stream in zip(names, named, strict=True) for note in stream.notes]
    if [stream.channels for stream in named] != [stream.channels for stream in unit]:
        notes.append("channels called by an axis alone have the name of their file in front")
    if first.start is None:
        notes.append("the stamps have no date; those of all files are taken to count from the same moment")
    devices = {stream.device for stream in named}
    return replace(
        first,
        source=f"{first.path.parent if first.path else ''}: {' + '.join(names)}",
        channels=tuple(name for stream in named for name in stream.channels),
        units=tuple(unit for stream in named for unit in stream.units),
        rate_hz=None,
        chunks=partial(_chunks, tuple(parts), width),
        device=devices.pop() if len(devices) == 1 else "unknown",
        label=None,
        lost_as_nan=all(stream.lost_as_nan for stream in named),
        about={key: value for stream in named for key, value in stream.about.items()},
        notes=tuple(notes),
    )


def _seconds_of(stream: Stream) -> float:
    if stream.start is None:
        return stream.first_stamp or 0.0
    return seconds_since(datetime.fromisoformat(stream.start))


def _chunks(parts: tuple[_Part, ...], width: int) -> Iterator[Chunk]:
    """Give the rows of all parts in the order of time; memory for one chunk of each."""
    readers = [_Reader(part) for part in parts]
    last = ""
    while any([reader.fill() for reader in readers]):
        until = min(float(reader.key[-1]) for reader in readers if len(reader.key))
        taken = [reader.take(until) for reader in readers]
        order = np.argsort(np.concatenate([item.key for item in taken]), kind="stable")
        samples = np.full((len(order), width), np.nan, dtype=np.float32)
        row = 0
        for item, part in zip(taken, parts, strict=True):
            samples[row : row + len(item.key), part.columns] = item.samples
            row += len(item.key)
        labels = None
        if any(reader.labelled for reader in readers):
            known = np.repeat([reader.labelled for reader in readers], [len(item.key) for item in taken])
            labels = _carried(np.concatenate([item.labels for item in taken])[order], known[order], last)
            last = str(labels[-1])
        yield Chunk(
            samples[order],
            np.concatenate([item.time for item in taken])[order],
            labels,
            notes=tuple(note for reader in readers for note in reader.notes()),
        )


def _carried(labels: npt.NDArray[np.str_], known: npt.NDArray[np.bool_], last: str) -> npt.NDArray[np.str_]:
    """Give rows of files without labels the label of the row before."""
    before = np.maximum.accumulate(np.where(known, np.arange(len(labels)), -1))
    return np.where(before < 0, last, labels[before])


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows of one part; `key` is the latest stamp so far, so that rows stay in the order of their file."""

    key: npt.NDArray[np.float64]
    time: npt.NDArray[np.float64]
    samples: npt.NDArray[np.float32]
    labels: npt.NDArray[np.str_]

    def cut(self, rows: slice) -> _Rows:
        return _Rows(self.key[rows], self.time[rows], self.samples[rows], self.labels[rows])


class _Reader:
    """Reads one part, a chunk at a time."""

    def __init__(self, part: _Part) -> None:
        self._part = part
        self._chunks = part.stream.chunks()
        self._held = _Rows(
            np.empty(0), np.empty(0), np.empty((0, len(part.columns)), np.float32), np.empty(0, np.str_)
        )
        self._latest = -np.inf
        self._notes: list[str] = []
        self.labelled = part.stream.label is not None

    @property
    def key(self) -> npt.NDArray[np.float64]:
        return self._held.key

    def fill(self) -> bool:
        """Read the next chunk if no row is held; False at the end of the file."""
        while not len(self._held.key):
            chunk = next(self._chunks, None)
            if chunk is None:
                return False
            self._held = self._rows(chunk)
        return True

    def take(self, until: float) -> _Rows:
        """Hand over the rows up to a stamp."""
        count = int(np.searchsorted(self._held.key, until, side="right"))
        taken, self._held = self._held.cut(slice(count)), self._held.cut(slice(count, None))
        return taken

    def notes(self) -> list[str]:
        """Hand over what was noted since the last time."""
        told, self._notes = self._notes, []
        return told

    def _rows(self, chunk: Chunk) -> _Rows:
        stream = self._part.stream
        if chunk.time is None or chunk.borders:
            why = "it has no time stamps" if chunk.time is None else "an unknown time passes within it"
            raise BadInputError(f"{stream.source}: cannot be joined with other files, as {why}")
        name = stream.path.name if stream.path else stream.source
        self._notes += [f"{name}: {note}" for note in chunk.notes]
        self.labelled = self.labelled or chunk.labels is not None
        labels = np.full(len(chunk.time), stream.label or "") if chunk.labels is None else chunk.labels
        time = chunk.time + self._part.late
        key = np.maximum.accumulate(np.maximum(time, self._latest))
        self._latest = float(key[-1]) if len(key) else self._latest
        return _Rows(key, time, chunk.samples, labels)
