"""Text tables (CSV, TSV, gzipped or not), block by block, each row with its line in the file."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, ClassVar, cast

from topokd_edge.data.importers import _table_sniff
from topokd_edge.data.importers._table_block import MAX_PROBLEMS, Block, Place, damaged
from topokd_edge.errors import BadInputError

BLOCK_BYTES = 1 << 20
"""Read at a time; also the longest line that is read."""
_HEAD_BYTES = 1 << 16
_UNREADABLE = (OSError, EOFError, zlib.error)


@dataclass(frozen=True, slots=True)
class CsvTable:
    """A text table: where it is and how it is laid out.

    Attributes
    ----------
    path
        The file.
    names, header, rows
        See `Sniffed`.
    delimiter, decimal_comma, encoding
        How a line is read.
    first
        Offset in bytes (after decompression) and number of the first line that may hold data.
    notes
        What a person should know.
    """

    path: Path
    names: tuple[str, ...]
    header: bool
    rows: tuple[tuple[str, ...], ...]
    delimiter: str
    decimal_comma: bool
    encoding: str
    first: Place
    notes: tuple[str, ...] = ()
    row_word: ClassVar[str] = "line"

    def blocks(self, columns: Sequence[int], at: Place | None = None) -> Iterator[Block]:
        """Read the columns as text, from the beginning or from the place of a block.

        Raises
        ------
        BadInputError
            When the file cannot be read on. Rows that cannot be split are told in `Block.problems`.
        """
        offset, line = at or self.first
        with _open(self.path) as stream:
            try:
                stream.seek(offset)
                rest, last = b"", False
                while not last:
                    data = stream.read(BLOCK_BYTES)
                    last = len(data) < BLOCK_BYTES
                    cut = len(data) if last else data.rfind(b"\n") + 1
                    if rest and not cut and not last:
                        raise BadInputError(f"{self.path}: line {line}: longer than {BLOCK_BYTES:,} bytes")
                    whole, rest = (rest + data[:cut], data[cut:]) if cut or last else (b"", rest + data)
                    if whole:
                        yield self._block(whole, columns, (offset, line))
                    offset, line = offset + len(whole), line + whole.count(b"\n")
            except _UNREADABLE as error:
                raise damaged(self.path, error) from None

    def _block(self, data: bytes, columns: Sequence[int], place: Place) -> Block:
        """Parse whole lines."""
        import pyarrow as pa
        from pyarrow import csv as pa_csv

        lines = data.split(b"\n")
        kept = [number for number, line in enumerate(lines) if line.strip()]
        notes: tuple[str, ...] = ()
        if lines[-1].strip():
            cut = self._is_cut(lines[-1])
            kept = kept[:-1] if cut else kept
            notes = (_note_of_end(place[1] + len(lines) - 1, cut=cut),)
        text = b"\n".join([lines[number] for number in kept])
        rows = [place[1] + number for number in kept]
        if not kept:
            return Block([pa.array([], pa.string()) for _ in columns], rows, place, notes)
        keys = [str(index) for index in range(len(self.names))]
        try:
            if self.encoding != "utf-8":
                text = text.decode(self.encoding).encode("utf-8")
            table = pa_csv.read_csv(
                pa.BufferReader(text),
                pa_csv.ReadOptions(use_threads=False, column_names=keys, block_size=len(text) + 1),
                pa_csv.ParseOptions(delimiter=self.delimiter),
                pa_csv.ConvertOptions(
                    include_columns=[keys[index] for index in columns],
                    column_types=dict.fromkeys(keys, pa.string()),
                    quoted_strings_can_be_null=False,
                ),
            )
        except (pa.ArrowInvalid, UnicodeDecodeError) as error:
            table, why = None, str(error)
        if table is None or table.num_rows != len(kept):
            found = self._problems([lines[number] for number in kept], rows)
            lost = [f"lines {rows[0]} to {rows[-1]}: not readable ({'' if table else why})"]
            return Block([], [], place, notes, tuple(found or lost))
        return Block([column.combine_chunks() for column in table.columns], rows, place, notes)

    def _is_cut(self, line: bytes) -> bool:
        """Tell whether the last line, without a line end, lacks cells."""
        try:
            cells = _table_sniff.split_line(line.decode(self.encoding, "replace"), self.delimiter)
        except csv.Error:
            return False
        return len(cells) < len(self.names)

    def _problems(self, lines: Sequence[bytes], rows: Sequence[int]) -> list[str]:
        """Say which lines cannot be split into the columns."""
        found: list[str] = []
        for row, data in zip(rows, lines, strict=True):
            if len(found) >= MAX_PROBLEMS:
                break
            try:
                line = data.decode(self.encoding).rstrip("\r")
                cells = _table_sniff.split_line(line, self.delimiter)
            except UnicodeDecodeError:
                found.append(f"line {row}: not text in {self.encoding.upper()}")
                continue
            except csv.Error as error:
                found.append(f"line {row}: {error}")
                continue
            if "\r" in line:
                found.append(f"line {row}: a carriage return inside the line")
            elif line.count('"') % 2:
                found.append(f"line {row}: a quote that is not closed on its line")
            elif len(cells) != len(self.names):
                found.append(f"line {row}: {len(cells)} cells, expected {len(self.names)}")
        return found


def open_table(path: Path) -> CsvTable:
    """Tell the layout of a text table.

    Raises
    ------
    BadInputError
        When the file is missing, empty, not text, or holds no table.
    """
    with _open(path) as stream:
        try:
            head = stream.read(_HEAD_BYTES)
        except _UNREADABLE as error:
            raise damaged(path, error) from None
    text, encoding, skip = _decoded(path, head)
    lines = text.split("\n")
    if len(head) == _HEAD_BYTES:
        lines.pop()
    if not any(line.strip() for line in lines):
        why = "empty" if len(head) < _HEAD_BYTES else f"nothing in the first {_HEAD_BYTES:,} bytes is a line"
        raise BadInputError(f"{path}: {why}")
    try:
        found = _table_sniff.sniff(lines)
    except (ValueError, csv.Error) as error:
        raise BadInputError(f"{path}: not a table of text: {error}") from None
    before = "\n".join(lines[: found.lines_before]) + ("\n" if found.lines_before else "")
    notes = ["text that is not UTF-8 was read as Latin-1"] if encoding == "latin-1" else []
    if found.decimal_comma:
        notes.append("numbers with a decimal comma")
    return CsvTable(
        path=path,
        names=found.names,
        header=found.header,
        rows=found.rows,
        delimiter=found.delimiter,
        decimal_comma=found.decimal_comma,
        encoding=encoding,
        first=(skip + len(before.encode(encoding)), found.lines_before + 1),
        notes=tuple(notes),
    )


def _decoded(path: Path, head: bytes) -> tuple[str, str, int]:
    """Return the text, its encoding and the length of the byte order mark."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise BadInputError(f"{path}: text in UTF-16", hint="save it as UTF-8 (in Excel: CSV UTF-8)")
    if b"\0" in head:
        raise BadInputError(f"{path}: a binary file, expected a table of text")
    if b"\r" in head and b"\n" not in head:
        raise BadInputError(
            f"{path}: lines end with a carriage return alone", hint="save it with usual line ends"
        )
    skip = 3 if head.startswith(b"\xef\xbb\xbf") else 0
    whole = head[skip:] if len(head) < _HEAD_BYTES else head[skip : head.rfind(b"\n") + 1]
    try:
        return whole.decode("utf-8"), "utf-8", skip
    except UnicodeDecodeError:
        return whole.decode("latin-1"), "latin-1", skip


def _open(path: Path) -> BinaryIO:
    try:
        with path.open("rb") as stream:
            packed = stream.read(2) == b"\x1f\x8b"
        return cast(BinaryIO, gzip.open(path, "rb") if packed else path.open("rb"))
    except OSError as error:
        raise damaged(path, error) from None


def _note_of_end(line: int, *, cut: bool) -> str:
    if cut:
        return f"line {line}: the file ends inside this line; it was left out"
    return f"line {line}, the last one, has no line end; if the file was cut off, its last cell is not whole"
