"""What tables of any kind give: blocks of rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from topokd_edge.errors import BadInputError

MAX_PROBLEMS = 20
"""Problems of a file that are told."""

Place = tuple[int, int]
"""Where a block begins, in terms of the table that gave it."""


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive rows of a table.

    Attributes
    ----------
    columns
        The columns asked for, as pyarrow arrays of one length; empty when the block has problems.
    rows
        Number of each row as a person counts: lines of a text file, rows of another.
    place
        From where the table can be read again.
    notes
        What a person should know.
    problems
        Rows that cannot be split into cells.
    """

    columns: list[Any]
    rows: Sequence[int]
    place: Place
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def called(number: int, name: str) -> str:
    """Return how a message calls a column: its number from 1, and its name if it has one."""
    return f"column {number}" + (f" {name[:60]!r}" if name else "")


def unreadable() -> tuple[type[Exception], ...]:
    """Return what pyarrow raises on damaged data."""
    import pyarrow as pa

    return (
        pa.ArrowException,
        OSError,
        ValueError,
        LookupError,
        TypeError,
        NotImplementedError,
        MemoryError,
        OverflowError,
    )


def damaged(path: Path, error: BaseException) -> BadInputError:
    """Return the error for a file that cannot be read on."""
    if isinstance(error, FileNotFoundError):
        return BadInputError(f"{path}: no such file")
    why = " ".join(str(error).split()) or type(error).__name__
    return BadInputError(f"{path}: damaged or cut off ({why[:300]})", hint="copy or download the file again")
