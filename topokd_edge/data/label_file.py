"""Reading label files."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from topokd_edge.data.labels import MAX_PROBLEMS, LabelFile, LabelRow, overlaps, refused, seconds_since
from topokd_edge.errors import BadInputError

MAX_ROWS = 1_000_000
MAX_BYTES = 1 << 28
MAX_LABEL = 200
_NEEDED = ("start", "end", "label")
_KEYS = (*_NEEDED, "subject", "file")
_SECONDS = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)


def read_label_file(path: Path) -> LabelFile:
    """Read label intervals: a CSV file (comma, semicolon or tab) with columns `start`, `end` and `label`.

    Optional columns are `subject` and `file`; others are ignored. Times are seconds from the start of the
    recording, or ISO 8601 dates and times; one kind in one file, and with zone all or none.

    Raises
    ------
    BadInputError
        With all problems, at most `MAX_PROBLEMS`: no times, end not after start, rows that overlap.
    """
    rows: list[LabelRow] = []
    problems: list[str] = []
    try:
        if path.stat().st_size > MAX_BYTES:
            raise BadInputError(f"{path}: larger than {MAX_BYTES:,} bytes, expected one row per activity")
        with path.open(encoding="utf-8-sig", newline="") as stream:
            lines = (line if line.strip() and not line.startswith("#") else "\n" for line in stream)
            for line, cells in _cells(path, lines):
                row = _row(line, cells)
                if isinstance(row, LabelRow):
                    rows.append(row)
                else:
                    problems += row
                if len(rows) > MAX_ROWS or len(problems) >= MAX_PROBLEMS:
                    break
    except FileNotFoundError:
        raise BadInputError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInputError(f"{path}: not readable as a CSV file in UTF-8 ({error})") from None
    if len(rows) > MAX_ROWS:
        raise BadInputError(f"{path}: more than {MAX_ROWS:,} rows, expected one per activity")
    problems += _mixed(rows)
    if not problems:
        groups: defaultdict[tuple[str | None, str | None], list[LabelRow]] = defaultdict(list)
        for row in rows:
            groups[row.subject, row.file].append(row)
        problems += [problem for group in groups.values() for problem in overlaps(group)]
    if problems or not rows:
        raise refused(path, problems or ["no row"])
    return LabelFile(path, tuple(rows))


def _cells(path: Path, lines: Iterator[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Give line number and cells by column of every row; no cells when a row cannot be split."""
    number, first = next(((n, line) for n, line in enumerate(lines, 1) if line.strip()), (0, ""))
    if not first:
        raise BadInputError(f"{path}: empty")
    header = first.strip().lower()
    delimiter = max(",;\t", key=header.count)
    names = [name.strip().strip('"') for name in header.split(delimiter)]
    missing = [name for name in _NEEDED if name not in names]
    twice = [name for name in _KEYS if names.count(name) > 1]
    if missing or twice:
        what = f"no column {', '.join(missing)}" if missing else f"the column {twice[0]} is there twice"
        raise BadInputError(
            f"{path}: line {number}: {what}",
            hint="expected the columns start, end, label, and if needed subject, file",
        )
    reader = csv.reader(lines, delimiter=delimiter)
    before = 0
    for cells in reader:
        line, before = number + before + 1, reader.line_num
        texts = [cell.strip() for cell in cells] + [""] * (len(names) - len(cells))
        if not any(texts):
            continue
        values = dict(zip(names, texts, strict=False))
        if delimiter != ",":
            values |= {name: values[name].replace(",", ".") for name in ("start", "end")}
        torn = any(texts[len(names) :]) or any("\n" in text for text in texts)
        yield line, {} if torn else values


def _row(line: int, cells: dict[str, str]) -> LabelRow | list[str]:
    """Return a row, or what is wrong with it."""
    if not cells:
        return [f"line {line}: more cells than columns, or a quote that is not closed"]
    problems = [f"line {line}: no {name}" for name, value in cells.items() if name in _KEYS and not value]
    start, end = _time(cells["start"]), _time(cells["end"])
    problems += [
        f"line {line}: {name} {cells[name][:40]!r}: expected seconds, or a date like 2024-05-01T12:00:00"
        for name, value in (("start", start), ("end", end))
        if value is None and cells[name]
    ]
    if len(cells["label"]) > MAX_LABEL:
        problems.append(f"line {line}: a label of {len(cells['label'])} letters, at most {MAX_LABEL}")
    if start is None or end is None or problems:
        return problems
    if _kind(start) != _kind(end):
        return [f"line {line}: start is {_kind(start)}, end is {_kind(end)}"]
    if seconds_since(end) <= seconds_since(start):
        return [f"line {line}: end {cells['end']} is not after start {cells['start']}"]
    return LabelRow(line, start, end, cells["label"], cells.get("subject"), cells.get("file"))


def _time(text: str) -> float | datetime | None:
    if _SECONDS.fullmatch(text):
        seconds = float(text)
        return seconds if abs(seconds) < 1e12 else None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _kind(value: float | datetime) -> str:
    if isinstance(value, datetime):
        return "a date without zone" if value.tzinfo is None else "a date with zone"
    return "in seconds"


def _mixed(rows: Sequence[LabelRow]) -> list[str]:
    """Find the first row whose times are of another kind than those of the first row."""
    other = next((row for row in rows if _kind(row.start) != _kind(rows[0].start)), None)
    if other is None:
        return []
    here, there = _kind(other.start), _kind(rows[0].start)
    return [f"line {other.line}: start is {here}, in line {rows[0].line} it is {there}"]
