"""GENEActiv recordings as the maker's PC software exports them (`.csv`): a header, then a row per sample."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from topokd_edge.data.importers import geneactiv_header as head
from topokd_edge.data.stream import Chunk, Opened, ReadOptions, Stream, files_in, open_each
from topokd_edge.errors import BadInputError, UsageError

DEFAULT_CHANNELS = head.DEFAULT_CHANNELS
_BLOCK_BYTES = 1 << 22
"""About 70,000 rows."""
_LINE_BYTES = 1 << 12
"""A line that is longer is none of this format."""
_PROBLEMS = 10
"""Rows that are named at most."""
_STAMP_BYTES = len("2019-08-06 10:25:50:000")
_STAMP_FORM = b"0000-00-00 00:00:00:000"
_ROW = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d:\d{3},")
_COLUMNS = "time, x, y, z, light, button, temperature"
_LOWEST = np.array([-20.0, -20.0, -20.0, 0.0, 0.0, head.TEMPERATURE[0]])
_HIGHEST = np.array([20.0, 20.0, 20.0, 1e6, 1.0, head.TEMPERATURE[1]])
"""Values that are believed of x, y, z, light, button, temperature."""
_EXPORT_AGAIN = "export the recording again from the GENEActiv PC software, or import its .bin file instead"


def open_streams(path: Path | None, _: ReadOptions) -> Opened:
    """Open every `.csv` export of the GENEActiv PC software at `path`, a file or a folder.

    Each file is one stream with the channels acc_x, acc_y, acc_z in g, light in lux, button (0 or 1) and
    temperature in degC; every row has its time. A last line without a line end was cut off, and is left out.

    Raises
    ------
    UsageError
        Without a path.
    BadInputError
        When there is no such file.
    """
    if path is None:
        raise UsageError("the geneactiv-csv format needs a .csv file, or a folder of such files")
    return open_each(files_in(path, ("*.csv",)), _open)


def _open(path: Path) -> list[Stream]:
    lines, row = _read_header(path)
    fields = head.parse(lines, ",")
    problems = head.device_problems(fields)
    stated = fields.get("Measurement Frequency")
    if not problems:
        rate = head.number(stated, "Measurement Frequency", head.RATE_HZ, problems)
    if not problems and not row:
        problems = ["no row of a sample follows the header"]
    if problems:
        raise BadInputError(
            f"{path}: not an export of the GENEActiv PC software that can be read",
            problems=problems,
            hint=_EXPORT_AGAIN,
        )
    problem = _row_problem(row)
    if problem:
        raise BadInputError(f"{path}: line {len(lines) + 1}: {problem}", hint=_EXPORT_AGAIN)
    start = head.stamp(row[:_STAMP_BYTES])
    assert start is not None
    stream = Stream(
        source=str(path),
        path=path,
        channels=head.CHANNELS,
        units=head.UNITS,
        rate_hz=rate,
        chunks=partial(_chunks, path, rate),
        subject=head.subject(fields),
        session=path.stem,
        device=head.device(fields),
        start=start.isoformat(timespec="milliseconds"),
        about=head.about(fields),
    )
    return [stream]


def _read_header(path: Path) -> tuple[list[bytes], bytes]:
    """Return the lines before the first row, and that row; it is empty where there is none that is whole."""
    lines: list[bytes] = []
    try:
        with path.open("rb") as file:
            while len(lines) <= head.HEADER_LINES and (line := file.readline(_LINE_BYTES)):
                if _ROW.match(line):
                    return lines, line.rstrip(b"\r\n") if line.endswith(b"\n") else b""
                lines.append(line)
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read ({error.strerror})") from None
    return lines, b""


def _blocks(path: Path) -> Iterator[tuple[int, bytes, bool]]:
    """Yield first line's number, text, and True for whole lines; at last what has no line end, and False."""
    number = 1 + len(_read_header(path)[0])
    rest = b""
    try:
        with path.open("rb") as file:
            for _ in range(number - 1):
                file.readline(_LINE_BYTES)
            while piece := file.read(_BLOCK_BYTES):
                block, end, rest = (rest + piece).rpartition(b"\n")
                if end:
                    yield number, block, True
                    number += block.count(b"\n") + 1
                if len(rest) > _LINE_BYTES:
                    raise BadInputError(f"{path}: line {number}: too long for a sample", hint=_EXPORT_AGAIN)
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read ({error.strerror})") from None
    yield number, rest, False


def _chunks(path: Path, rate_hz: float) -> Iterator[Chunk]:
    """Read the samples of a file block by block; the last chunk also tells how the file ends."""
    clock = _Clock(rate_hz)
    pending: Chunk | None = None
    for number, block, whole in _blocks(path):
        text = block.replace(b"\r", b"").rstrip(b"\n \0")
        if not text:
            continue
        if not whole:
            note = f"line {number}, the last one, has no line end: it was taken as cut off and left out"
            pending = None if pending is None else replace(pending, notes=(*pending.notes, note))
            break
        if pending is not None:
            yield pending
        parsed = _parse(text)
        if parsed is None:
            raise BadInputError(
                f"{path}: rows that cannot be read",
                problems=_row_problems(text, number),
                hint=f"each row is {_COLUMNS}; {_EXPORT_AGAIN}",
            )
        pending = clock.chunk(*parsed, number)
    if pending is not None:
        yield pending


class _Clock:
    """Turns time stamps into seconds since the first one.

    Where the clock was set back, time goes on by one sample interval, with a border: how much really
    passed is unknown.
    """

    def __init__(self, rate_hz: float) -> None:
        self.interval = 1000 / rate_hz
        self.zero: int | None = None
        self.before = 0
        self.shift = 0.0

    def chunk(self, stamps: npt.NDArray[np.int64], values: npt.NDArray[np.float64], line: int) -> Chunk:
        """Make a chunk of rows, the first in line `line`, with their stamps in milliseconds."""
        if self.zero is None:
            self.zero = self.before = int(stamps[0])
        steps = np.diff(stamps, prepend=self.before)
        back = steps < 0
        shifts = self.shift + np.cumsum(np.where(back, self.interval - steps, 0.0))
        time = (stamps - self.zero + shifts) / 1000
        self.before, self.shift = int(stamps[-1]), float(shifts[-1])
        borders = np.flatnonzero(back)
        notes = []
        if len(borders):
            seconds = -steps[borders[0]] / 1000
            notes.append(
                f"the clock was set back {len(borders)} time(s), first by {seconds:.3f} s in line "
                f"{line + borders[0]}; the time after that counts on from the row before"
            )
        return Chunk(values.astype(np.float32), time, borders=tuple(borders.tolist()), notes=tuple(notes))


def _parse(text: bytes) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]] | None:
    """Return stamps in milliseconds and the six values of each row; None when a row is not as it must be."""
    content = np.frombuffer(text + b"\n", np.uint8)
    ends = np.flatnonzero(content == ord("\n"))
    starts = np.concatenate(([0], ends[:-1] + 1))
    commas = np.flatnonzero(content == ord(","))
    if len(commas) != 6 * len(ends):
        return None
    # A comma after each stamp, always the sixth after the one before: so each row has its seven columns.
    if np.any(commas[::6] != starts + _STAMP_BYTES):
        return None
    stamps = _milliseconds(content[starts[:, None] + np.arange(_STAMP_BYTES)])
    numbers = content.copy()
    numbers[starts[:, None] + np.arange(_STAMP_BYTES + 1)] = ord(" ")
    numbers[ends] = ord(",")
    try:
        values = np.fromstring(numbers[:-1].tobytes(), sep=",")
    except ValueError:
        return None
    if stamps is None or len(values) != len(commas):
        return None
    values = values.reshape(-1, 6)
    return (stamps, values) if np.all((values >= _LOWEST) & (values <= _HIGHEST)) else None


def _milliseconds(stamps: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64] | None:
    """Return milliseconds since 1970 of stamps, one row of characters each; None when one is no such time."""
    form = np.frombuffer(_STAMP_FORM, np.uint8)
    is_digit = form == ord("0")
    digits = stamps[:, is_digit] - ord("0")
    if np.any(stamps[:, ~is_digit] != form[~is_digit]) or np.any(digits > 9):
        return None
    parts = np.split(digits.astype(np.int64), (4, 6, 8, 10, 12, 14), axis=1)
    year, month, day, hour, minute, second, millisecond = (
        part @ 10 ** np.arange(part.shape[1])[::-1] for part in parts
    )
    in_clock = (hour < 24) & (minute < 60) & (second < 60)
    in_year = (month >= 1) & (month <= 12) & (year >= head.YEARS.start) & (year < head.YEARS.stop)
    months = ((year - 1970) * 12 + month - 1).astype("datetime64[M]")
    days = months.astype("datetime64[D]") + (day - 1)
    if not np.all(in_clock & in_year & (days.astype("datetime64[M]") == months)):
        return None
    seconds = ((days.astype(np.int64) * 24 + hour) * 60 + minute) * 60 + second
    result: npt.NDArray[np.int64] = seconds * 1000 + millisecond
    return result


def _row_problems(text: bytes, number: int) -> list[str]:
    """Name the rows that are not as they must be."""
    problems: list[str] = []
    for line, row in enumerate(text.split(b"\n"), number):
        problem = _row_problem(row)
        if problem:
            problems.append(f"line {line}: {problem}")
        if len(problems) == _PROBLEMS:
            break
    return problems or [f"line {number} or one after it: not in the form of the format"]


def _row_problem(row: bytes) -> str:
    """Say what is wrong with a row; "" when nothing is."""
    fields = row.split(b",")
    if len(fields) == 12:
        return "12 columns: an export of averages over epochs, not of the samples"
    if len(fields) != 7:
        return f"{len(fields)} column(s), expected 7"
    names = _COLUMNS.split(", ")
    try:
        known = len(fields[0]) == _STAMP_BYTES and head.stamp(fields[0]) is not None
    except ValueError:
        known = False
    if not known:
        return f"time {_shown(fields[0])}, expected YYYY-MM-DD hh:mm:ss:mmm"
    for name, field, low, high in zip(names[1:], fields[1:], _LOWEST, _HIGHEST, strict=True):
        try:
            value = float(field)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            return f"{name} {_shown(field)}, expected a number from {low:g} to {high:g}"
    return ""


def _shown(text: bytes) -> str:
    return repr(text[:30].decode("latin-1"))
