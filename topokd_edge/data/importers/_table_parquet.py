"""Parquet tables, block by block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from topokd_edge.data.importers._table_block import Block, Place, damaged, unreadable
from topokd_edge.data.stream import CHUNK_SAMPLES
from topokd_edge.errors import BadInputError

_SAMPLE_ROWS = 200
_MANY_ROWS = 10_000_000
_ROWS_PER_BYTE = 1000
"""A file of more than `_MANY_ROWS` rows holds at least one byte for so many of them, or lies about them."""


@dataclass(frozen=True, slots=True)
class ParquetTable:
    """A Parquet file: where it is and which columns it has.

    Attributes
    ----------
    path
        The file.
    names
        Names of the columns.
    rows
        The first rows as texts.
    header, decimal_comma, notes
        As of `CsvTable`.
    """

    path: Path
    names: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    header: ClassVar[bool] = True
    decimal_comma: ClassVar[bool] = False
    row_word: ClassVar[str] = "row"

    def blocks(self, columns: Sequence[int], at: Place | None = None) -> Iterator[Block]:
        """Read the columns, from the beginning or from the place of a block.

        Raises
        ------
        BadInputError
            When the file cannot be read on.
        """
        names = [self.names[index] for index in columns]
        first = at[0] if at else 0
        try:
            with _open(self.path) as file:
                row, groups = _groups_from(file, first)
                for batch in file.iter_batches(CHUNK_SAMPLES, groups, names, use_threads=False):
                    skip = min(max(first - row, 0), batch.num_rows)
                    part, begin = batch.slice(skip), row + skip
                    row += batch.num_rows
                    arrays = [part.column(part.schema.get_field_index(name)) for name in names]
                    if part.num_rows:
                        yield Block(arrays, range(begin + 1, row + 1), (begin, 0))
        except BadInputError:
            raise
        except unreadable() as error:
            raise damaged(self.path, error) from None


def open_table(path: Path) -> ParquetTable:
    """Look at a Parquet file.

    Raises
    ------
    BadInputError
        When the file is missing, damaged, empty, or claims more rows than it can hold.
    """
    try:
        _check_ends(path)
        with _open(path) as file:
            names = tuple(file.schema_arrow.names)
            rows = file.metadata.num_rows
            if len(set(names)) < len(names):
                raise BadInputError(f"{path}: column names repeat")
            if rows > _MANY_ROWS and rows > _ROWS_PER_BYTE * path.stat().st_size:
                raise BadInputError(f"{path}: claims {rows:,} rows in {path.stat().st_size:,} bytes")
            batch = next(file.iter_batches(_SAMPLE_ROWS, use_threads=False), None)
            if rows <= 0 or batch is None:
                raise BadInputError(f"{path}: no row of data")
            columns = [_as_texts(batch.column(index)) for index in range(len(names))]
    except BadInputError:
        raise
    except unreadable() as error:
        raise damaged(path, error) from None
    return ParquetTable(path, names, tuple(zip(*columns, strict=True)))


def _check_ends(path: Path) -> None:
    """Refuse what is not a whole Parquet file before its content is parsed."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(4)
        stream.seek(max(size - 8, 0))
        length, end = int.from_bytes(stream.read(4), "little"), stream.read(4)
    if start == b"PARE" or end == b"PARE":
        raise BadInputError(f"{path}: encrypted, which is not supported")
    if start != b"PAR1":
        raise BadInputError(f"{path}: not a Parquet file")
    if size < 12 or end != b"PAR1" or length > size - 12:
        raise BadInputError(f"{path}: a Parquet file that is cut off", hint="copy or download the file again")


def _open(path: Path) -> Any:
    """Open for reading page by page, so that a large row group does not have to fit in memory."""
    from pyarrow import parquet

    return parquet.ParquetFile(path, buffer_size=1 << 16, pre_buffer=False, page_checksum_verification=True)


def _groups_from(file: Any, row: int) -> tuple[int, list[int]]:
    """Return the first row of the row group that holds `row`, and that group and those after it."""
    begin = 0
    for group in range(file.metadata.num_row_groups):
        end = begin + file.metadata.row_group(group).num_rows
        if row < end:
            return begin, list(range(group, file.metadata.num_row_groups))
        begin = end
    return begin, []


def _as_texts(array: Any) -> list[str]:
    """Write values as a text table would; what has no place in one becomes its type."""
    import pyarrow as pa

    kind = array.type
    if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_boolean(kind):
        return [f"<{kind}>"] * len(array)
    try:
        texts = array.cast(pa.string()).to_pylist()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return [f"<{kind}>"] * len(array)
    return ["" if text is None else text.strip() for text in texts]
