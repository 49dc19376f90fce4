"""Text files that are nothing but rows of numbers, read block by block with every bad line named."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TextIO

import numpy as np
import numpy.typing as npt

from topokd_edge.data.stream import CHUNK_SAMPLES
from topokd_edge.errors import BadInputError

LONGEST_LINE = 4096
"""Characters; 54 numbers of 24 characters are 1,350. Bounds the memory a file without line ends can take."""
_SHOWN = 10
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE | re.ASCII)
_NAN = re.compile(r"[+-]?nan", re.IGNORECASE)
_LARGEST = float(np.finfo(np.float32).max)


def number_rows(
    path: Path, *, columns: int, delimiter: str | None, nan: bool, at_once: int = CHUNK_SAMPLES
) -> Iterator[tuple[int, npt.NDArray[np.float64]]]:
    """Read a text file of numbers without header.

    Parameters
    ----------
    path
        The file.
    columns
        Numbers every line must have.
    delimiter
        What stands between them; None for blanks and tabs.
    nan
        NaN is a value, not an error.
    at_once
        Lines per block.

    Yields
    ------
    tuple of (int, array)
        Number of the first line of the block, from 1, and float64 of shape (lines, columns), finite (or NaN)
        in float32 too.

    Raises
    ------
    BadInputError
        When the file cannot be read or is empty, or with the bad lines of the first block that has some.
    """
    first = 1
    try:
        with path.open(encoding="latin-1") as stream:
            while lines := list(islice(_lines(stream), at_once)):
                yield first, _parse(lines, columns, delimiter, nan=nan, path=path, first=first)
                first += len(lines)
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read ({error.strerror})") from None
    if first == 1:
        raise BadInputError(f"{path}: the file is empty", hint="copy or download it again")


def _lines(stream: TextIO) -> Iterator[str]:
    while line := stream.readline(LONGEST_LINE):
        yield line


def _parse(
    lines: list[str], columns: int, delimiter: str | None, *, nan: bool, path: Path, first: int
) -> npt.NDArray[np.float64]:
    # The width of the first line is what numpy takes memory for. A last number may be cut off.
    if len(lines[0].split(delimiter)) == columns and lines[-1].endswith("\n"):
        try:
            rows = np.loadtxt(lines, delimiter=delimiter, comments=None, ndmin=2)
        except ValueError:
            rows = np.empty((0, 0))
        good = rows.shape == (len(lines), columns) and not np.any(np.abs(rows) > _LARGEST)
        if good and (nan or not np.isnan(rows).any()):
            return rows
    problems = []
    for number, line in enumerate(lines, first):
        problem = _problem(line, columns, delimiter, nan=nan)
        if problem:
            problems.append(f"line {number}: {problem}")
    more = [f"and {len(problems) - _SHOWN} more lines"] if len(problems) > _SHOWN else []
    raise BadInputError(
        f"{path}: not rows of {columns} numbers",
        problems=[*problems[:_SHOWN], *more],
        hint="copy or download the file again",
    )


def _problem(line: str, columns: int, delimiter: str | None, *, nan: bool) -> str:
    """Say what is wrong with one line; "" when nothing is."""
    if not line.strip():
        return "empty"
    fields = [field.strip() for field in line.split(delimiter)]
    cut = "" if line.endswith("\n") else "the file ends, or the line is too long, inside this line"
    if len(fields) != columns:
        return f"{len(fields)} values, expected {columns}" + (f"; {cut}" if cut else "")
    for column, field in enumerate(fields, 1):
        if _NAN.fullmatch(field):
            if not nan:
                return f"column {column}: {field}, expected a number"
        elif not _NUMBER.fullmatch(field):
            return f"column {column}: {field[:40]!r}, expected a number"
        elif abs(float(field)) > _LARGEST:
            return f"column {column}: {field[:40]}, expected at most {_LARGEST:.3g}"
    return cut
