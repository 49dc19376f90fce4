"""What the first lines of a text table say: delimiter, decimal comma, header, comments."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass

COMMENT = ("#", "%", "//")
"""What a line before the table may begin with."""
NO_VALUE = frozenset({"", "nan", "na", "n/a", "null", "none", "-nan"})
"""Cells, in lower case, that hold no value."""
NUMBER = re.compile(r"[+-]?((\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|(?i:inf(inity)?))", re.ASCII)
ISO_TIME = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d([.]\d+)?)?(Z|[+-]\d\d(:?\d\d)?)?)?", re.ASCII)
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?", re.ASCII)
_SAMPLE_ROWS = 200


@dataclass(frozen=True, slots=True)
class Sniffed:
    """The layout of a text table.

    Attributes
    ----------
    delimiter
        One character.
    decimal_comma
        Numbers are written 1,5.
    names
        Names of the columns; empty texts when the table has no header.
    header
        There is one.
    lines_before
        Lines before the first row of data.
    rows
        The first rows, as texts with a decimal point.
    """

    delimiter: str
    decimal_comma: bool
    names: tuple[str, ...]
    header: bool
    lines_before: int
    rows: tuple[tuple[str, ...], ...]


def kind_of(cells: Sequence[str]) -> str:
    """Return what most cells of a column are: "number", "iso" (dates and times), "text", or "empty"."""
    full = [cell for cell in cells if cell.lower() not in NO_VALUE]
    if not full:
        return "empty"
    for kind, pattern in (("number", NUMBER), ("iso", ISO_TIME)):
        if 2 * sum(bool(pattern.fullmatch(cell)) for cell in full) > len(full):
            return kind
    return "text"


def split_line(line: str, delimiter: str) -> list[str]:
    """Return the cells of one line, without the blanks around them.

    Raises
    ------
    csv.Error
        When a cell is longer than the csv module allows.
    """
    return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter), [])]


def sniff(lines: Sequence[str]) -> Sniffed:
    """Tell the layout of a table from its first complete lines.

    Raises
    ------
    ValueError
        Saying what is wrong, when there is no table.
    csv.Error
        When a cell is longer than the csv module allows.
    """
    delimiter, before, comment = _preamble(lines)
    body = [(number, line) for number, line in enumerate(lines[before:], before) if line.strip()]
    if not body:
        raise ValueError("no line with data")
    texts = [line for _, line in body[:_SAMPLE_ROWS]]
    delimiter = delimiter or _delimiter(texts)
    cells = [split_line(line, delimiter) for line in texts]
    decimal_comma = delimiter != "," and _has_decimal_comma(cells)
    if decimal_comma:
        cells = [
            [cell.replace(",", ".") if _DECIMAL_COMMA.fullmatch(cell) else cell for cell in row]
            for row in cells
        ]
    header = _is_header(cells)
    rows = cells[1:] if header else cells
    if not rows:
        raise ValueError("a header but no row of data")
    width = len(rows[0])
    if header:
        names = _fitted(cells[0], rows[0])
    else:
        from_comment = split_line(comment, delimiter) if comment else []
        header = len(from_comment) == width and kind_of(from_comment) == "text"
        names = from_comment if header else [""] * width
    lines_before = body[1][0] if len(cells) > len(rows) else body[0][0]
    kept = tuple(tuple(row) for row in rows if len(row) == width)
    return Sniffed(delimiter, decimal_comma, tuple(names), header, lines_before, kept)


def _preamble(lines: Sequence[str]) -> tuple[str, int, str]:
    """Return the delimiter where a line `sep=;` states it, the lines to skip, and the last comment."""
    delimiter = comment = ""
    for number, line in enumerate(lines):
        text = line.strip()
        stated = re.fullmatch(r"#?\s*sep=(.)", line.strip("\r\n"), re.IGNORECASE)
        if stated:
            delimiter = stated[1]
        elif text.startswith(COMMENT):
            comment = text.lstrip("#%/").strip()
        elif text:
            return delimiter, number, comment
    return delimiter, len(lines), comment


def _delimiter(lines: Sequence[str]) -> str:
    """Return the first of semicolon, tab, comma that splits all lines into about the same number of cells."""
    for delimiter in ";\t,":
        widths = {len(split_line(line, delimiter)) for line in lines}
        if min(widths) > 1 and max(widths) - min(widths) <= 1:
            return delimiter
    counts = {delimiter: sum(delimiter in line for line in lines) for delimiter in ",;\t"}
    return max(counts, key=lambda delimiter: counts[delimiter])


def _has_decimal_comma(rows: Sequence[Sequence[str]]) -> bool:
    cells = [cell for row in rows for cell in row]
    commas = sum(bool(_DECIMAL_COMMA.fullmatch(cell)) for cell in cells)
    points = sum("." in cell and bool(NUMBER.fullmatch(cell)) for cell in cells)
    return commas > points


def _is_header(rows: Sequence[Sequence[str]]) -> bool:
    """Tell whether the first row names columns: text above a column of numbers or times."""
    first, rest = rows[0], rows[1:]
    if not rest:
        return kind_of(first) in ("text", "empty") and not any(NUMBER.fullmatch(cell) for cell in first)
    for column, cell in enumerate(first):
        below = [row[column] for row in rest if column < len(row)]
        values = sum(kind_of([item]) in ("number", "iso") for item in below)
        if kind_of([cell]) == "text" and values > len(below) / 2:
            return True
    return kind_of(first) == "text" and not any(NUMBER.fullmatch(cell) for cell in first)


def _fitted(names: list[str], row: list[str]) -> list[str]:
    """Make the header as wide as the rows where only one of them ends with a delimiter."""
    if len(names) + 1 == len(row) and row[-1] == "":
        return [*names, ""]
    if len(names) == len(row) + 1 and names[-1] == "":
        return names[:-1]
    if len(names) != len(row):
        raise ValueError(f"the header names {len(names)} columns, the first row has {len(row)}")
    return names
