"""Any table with one row per sample: CSV (also TSV, also gzipped) and Parquet.

Which columns are what is stated by the user, or by the header, or it is a guess that the user has to
confirm. A column of the subject splits a table into one stream per consecutive run of rows of one subject.
"""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from topokd_edge.data.importers import _table_csv, _table_parquet
from topokd_edge.data.importers._table_block import MAX_PROBLEMS, Block, Place, called, damaged, unreadable
from topokd_edge.data.importers._table_columns import Plan, plan
from topokd_edge.data.importers._table_csv import CsvTable
from topokd_edge.data.importers._table_guess import is_epoch
from topokd_edge.data.importers._table_parquet import ParquetTable
from topokd_edge.data.importers._table_values import TIME_UNITS, Bad, TimeReader, numbers, texts
from topokd_edge.data.recording import UNKNOWN_SUBJECT
from topokd_edge.data.stream import Chunk, Opened, ReadOptions, Stream, files_in, open_each
from topokd_edge.errors import BadInputError, MissingError, UsageError

Table = CsvTable | ParquetTable
CSV_FILES = ("*.csv", "*.tsv", "*.csv.gz", "*.tsv.gz")
PARQUET_FILES = ("*.parquet", "*.pq")
MAX_RUNS = 10_000
"""Stretches of one subject in a file; more of them are no recordings."""
_HINT = "correct these rows, or leave the column out with --columns"
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class _Run:
    """Consecutive rows of one subject: `count` rows (None: all) from `skip` rows after `place`."""

    subject: str
    session: str
    place: Place | None
    skip: int
    count: int | None
    row: int


def open_csv(path: Path | None, options: ReadOptions) -> Opened:
    """Open a text table, or all of a folder (`CSV_FILES`).

    Comments and blank lines may stand before the header; delimiter, decimal comma and encoding are told from
    the first lines. Each stream has one row per sample; units become those of the project.

    Raises
    ------
    UsageError
        Without a path; when an option does not fit; when something that matters is not stated.
    BadInputError
        When there is no such file.
    MissingError
        When pyarrow is not installed.
    """
    return _open(path, options, CSV_FILES, _table_csv.open_table)


def open_parquet(path: Path | None, options: ReadOptions) -> Opened:
    """Open a Parquet file, or all of a folder (`PARQUET_FILES`); see `open_csv`."""
    return _open(path, options, PARQUET_FILES, _table_parquet.open_table)


def _open(path: Path | None, options: ReadOptions, patterns: tuple[str, ...], look: Any) -> Opened:
    if path is None:
        raise UsageError("a table needs a file or a folder")
    if importlib.util.find_spec("pyarrow") is None:
        raise MissingError(
            "tables are read with the Python package pyarrow, which is not installed",
            hint="pip install 'topokd-edge[data]' (or: pip install pyarrow)",
        )
    return open_each(files_in(path, patterns), lambda file: _streams(look(file), options))


def _streams(table: Table, options: ReadOptions) -> list[Stream]:
    """Open one table: decide its columns, find the runs of its subjects, read the beginning."""
    columns = plan(table, options)
    runs = _runs(table, columns)
    streams = []
    for run in runs:
        chunks = partial(read_chunks, table, columns, run)
        where = f"{table.path}#{table.row_word}{run.row}" if len(runs) > 1 else str(table.path)
        start, first_stamp = _start(table, columns, run)
        streams.append(
            Stream(
                source=where,
                path=table.path,
                channels=columns.channels,
                units=columns.units,
                rate_hz=options.rate_hz,
                chunks=chunks,
                subject=run.subject,
                session=run.session,
                start=start,
                first_stamp=first_stamp,
                notes=(*table.notes, *columns.notes),
            )
        )
    next(read_chunks(table, columns, runs[0]), None)
    return streams


def read_chunks(table: Table, columns: Plan, run: _Run) -> Iterator[Chunk]:
    """Read the samples of one run.

    Raises
    ------
    BadInputError
        Naming every cell that cannot be read, at most `MAX_PROBLEMS`; nothing is given after the first one.
    """
    clock = TimeReader(columns.time_unit, table.decimal_comma) if columns.time is not None else None
    problems: list[str] = []
    for block, low, high in _blocks_of(table, columns, run):
        chunk = _chunk(table, columns, block, (low, high), clock, problems)
        if len(problems) >= MAX_PROBLEMS:
            break
        if chunk is not None and not problems:
            yield chunk
    if problems:
        raise BadInputError(
            f"{table.path}: cells that cannot be read", problems=problems[:MAX_PROBLEMS], hint=_HINT
        )


def _needed(columns: Plan) -> list[int]:
    """Return the columns to read, each once, in the order of the file."""
    extra = [column for column in (columns.time, columns.label) if column is not None]
    return sorted({*columns.columns, *extra})


def _blocks_of(table: Table, columns: Plan, run: _Run) -> Iterator[tuple[Block, int, int]]:
    """Give the blocks of a run, and which rows of each belong to it."""
    skip, left = run.skip, run.count
    for block in table.blocks(_needed(columns), run.place):
        rows = len(block.rows)
        low = min(skip, rows)
        high = rows if left is None else min(low + left, rows)
        skip -= low
        left = None if left is None else left - (high - low)
        if high > low or block.problems or block.notes:
            yield block, low, high
        if left == 0:
            return


def _chunk(
    table: Table,
    columns: Plan,
    block: Block,
    part: tuple[int, int],
    clock: TimeReader | None,
    problems: list[str],
) -> Chunk | None:
    """Convert rows of a block; what cannot be is added to `problems`."""
    if block.problems:
        problems += block.problems
        return None
    low, high = part
    arrays = dict(zip(_needed(columns), block.columns, strict=True))
    samples = np.empty((high - low, len(columns.columns)), np.float32)
    bad: list[tuple[int, Bad]] = []
    time = labels = None
    try:
        if clock is not None and columns.time is not None:
            time, wrong = clock.read(arrays[columns.time].slice(low, high - low))
            bad.append((columns.time, wrong))
        for at, (column, factor) in enumerate(zip(columns.columns, columns.factors, strict=True)):
            values, wrong = numbers(arrays[column].slice(low, high - low), decimal_comma=table.decimal_comma)
            if not wrong:
                wrong = _store(samples[:, at], values, factor)
            bad.append((column, wrong))
        if columns.label is not None:
            labels, wrong = texts(arrays[columns.label].slice(low, high - low))
            bad.append((columns.label, wrong))
    except unreadable() as error:
        raise damaged(table.path, error) from None
    told = _told(table, block, low, bad)
    problems += told
    return None if told else Chunk(samples, time, labels, notes=block.notes)


def _store(target: npt.NDArray[np.float32], values: npt.NDArray[np.float64], factor: float) -> Bad:
    """Write values times `factor` as float32; return those too large for it."""
    with np.errstate(over="ignore", invalid="ignore"):
        values = values * factor
    large = np.flatnonzero(np.abs(values) > _LARGEST)
    if len(large):
        return [(int(at), f"{values[at]:g} is not a finite number of float32") for at in large[:MAX_PROBLEMS]]
    target[:] = values
    return []


def _told(table: Table, block: Block, low: int, bad: list[tuple[int, Bad]]) -> list[str]:
    """Name cells by row and column, in the order of the rows."""
    cells = sorted((at, column, why) for column, wrong in bad for at, why in wrong[:MAX_PROBLEMS])
    return [
        f"{table.row_word} {block.rows[low + at]}, {called(column + 1, table.names[column])}: {why}"
        for at, column, why in cells[:MAX_PROBLEMS]
    ]


def _runs(table: Table, columns: Plan) -> list[_Run]:
    """Find the stretches of rows of one subject; a subject that comes back begins a new session."""
    if columns.subject is None:
        return [_Run(UNKNOWN_SUBJECT, "1", None, 0, None, 1)]
    runs: list[_Run] = []
    sessions: Counter[str] = Counter()
    problems: list[str] = []
    for block in table.blocks([columns.subject]):
        problems += block.problems
        for first, count, subject in _stretches(table, columns.subject, block, problems):
            if runs and runs[-1].subject == subject:
                runs[-1] = replace(runs[-1], count=(runs[-1].count or 0) + count)
                continue
            sessions[subject] += 1
            row = block.rows[first]
            runs.append(_Run(subject, str(sessions[subject]), block.place, first, count, row))
        if len(runs) > MAX_RUNS:
            raise BadInputError(
                f"{table.path}: the subject changes more than {MAX_RUNS:,} times",
                hint="sort the rows by subject and time, or choose another column as --subject",
            )
        if len(problems) >= MAX_PROBLEMS:
            break
    if problems:
        raise BadInputError(f"{table.path}: no subject", problems=problems[:MAX_PROBLEMS], hint=_HINT)
    if not runs:
        raise BadInputError(f"{table.path}: no row of data")
    return runs


def _stretches(
    table: Table, column: int, block: Block, problems: list[str]
) -> Iterator[tuple[int, int, str]]:
    """Give first row, number of rows, and subject of each stretch of one block."""
    if not block.columns or not len(block.rows):
        return
    try:
        names, bad = texts(block.columns[0])
    except unreadable() as error:
        raise damaged(table.path, error) from None
    bad = bad or [(int(at), "no subject") for at in np.flatnonzero(names == "")]
    if bad:
        problems += _told(table, block, 0, [(column, bad)])
        return
    edges = [0, *(np.flatnonzero(names[1:] != names[:-1]) + 1).tolist(), len(names)]
    for first, stop in pairwise(edges):
        yield first, stop - first, str(names[first])


def _start(table: Table, columns: Plan, run: _Run) -> tuple[str | None, float | None]:
    """Return date and time of the first row of a run, or else its stamp in seconds; None when it has none."""
    if columns.time is None:
        return None, None
    only = replace(columns, columns=(), factors=(), label=None)
    block, low, _ = next(_blocks_of(table, only, replace(run, count=1)), (None, 0, 0))
    if block is None or block.problems:
        return None, None
    clock = TimeReader(columns.time_unit, table.decimal_comma)
    _, bad = clock.read(block.columns[0].slice(low, 1))
    if bad or clock.origin is None:
        return None, None
    if columns.time_unit == "iso":
        return _moment(block.columns[0][low], int(clock.origin)).isoformat(), None
    seconds = float(clock.origin) / TIME_UNITS[columns.time_unit]
    if not is_epoch(seconds):
        return None, seconds
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)).isoformat(), None


def _moment(first: Any, nanoseconds: int) -> datetime:
    """Return an ISO time stamp as date and time; its zone is kept, or absent."""
    text = first.as_py() if not hasattr(first.type, "tz") else None
    if isinstance(text, str):
        return datetime.fromisoformat(text.strip())
    zone = UTC if first.type.tz else None
    return datetime(1970, 1, 1, tzinfo=zone) + timedelta(microseconds=nanoseconds // 1000)
