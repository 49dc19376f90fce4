"""Reading `.npy` and `.npz` files that may be damaged, and writing `.npy` files block by block."""

from __future__ import annotations

import mmap
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from topokd_edge.errors import BadInputError

BLOCK = 1 << 16
"""Rows of an array on disk that are read and written at a time."""

# What numpy, zipfile and the reader of array headers raise on damaged content.
_UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    TypeError,
    NotImplementedError,
    RuntimeError,
    MemoryError,
    SyntaxError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


def load_npz(path: Path, *, hint: str = "copy or download the file again") -> dict[str, npt.NDArray[Any]]:
    """Read all arrays of an `.npz` file, without pickle.

    Raises
    ------
    BadInputError
        When the file is missing or damaged, or is no archive of plain arrays.
    """
    try:
        with path.open("rb") as stream:
            data = np.load(stream, allow_pickle=False)
            if not isinstance(data, np.lib.npyio.NpzFile):
                raise ValueError("a single array, not an archive")
            with data, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # as in map_npy
                return {key: _legible(data[key]) for key in data.files}
    except FileNotFoundError:
        raise BadInputError(f"{path}: no such file", hint=hint) from None
    except _UNREADABLE as error:
        raise _damaged(path, error, hint) from None


def map_npy(path: Path, *, hint: str) -> npt.NDArray[Any]:
    """Open the array of an `.npy` file; its content stays on disk until it is read.

    Raises
    ------
    BadInputError
        When the file is missing or damaged.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a header in the form of Python 2, damaged or not
            return _legible(np.asanyarray(np.load(path, mmap_mode="r", allow_pickle=False)))
    except FileNotFoundError:
        raise BadInputError(f"{path}: no such file", hint=hint) from None
    except _UNREADABLE as error:
        raise _damaged(path, error, hint) from None


def _legible(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the array; ValueError when it is text with codes of no letter."""
    if array.dtype.kind == "U":
        codes = np.frombuffer(array.tobytes(), np.dtype(np.uint32).newbyteorder(array.dtype.byteorder))
        if np.any((codes > 0x10FFFF) | ((codes >= 0xD800) & (codes < 0xE000))):
            raise ValueError("text that holds something else than letters")
    return array


def forget_pages(array: npt.NDArray[Any]) -> None:
    """Let go of what was read of a memory-mapped array, or of a part of one; it is read again when needed.

    What was read counts as memory of the process until then. Other arrays are left alone.
    """
    base: Any = array
    while base is not None and not isinstance(base, mmap.mmap):
        base = getattr(base, "base", None)
    if base is not None and hasattr(base, "madvise"):
        base.madvise(mmap.MADV_DONTNEED)


def row_blocks(array: npt.NDArray[Any], rows: int = BLOCK) -> Iterator[npt.NDArray[Any]]:
    """Give an array in blocks of up to `rows` along its first axis, and let go of each after it was used."""
    for start in range(0, len(array), rows):
        yield array[start : start + rows]
        forget_pages(array)


def write_npy(
    path: Path, shape: tuple[int, ...], dtype: npt.DTypeLike, blocks: Iterable[npt.NDArray[Any]]
) -> None:
    """Write an `.npy` file whose array is the concatenation of `blocks` along the first axis.

    A full disk gives an OSError with its number. `numpy.save` would give one without, and a memory map
    would kill the process.

    Parameters
    ----------
    path
        The file.
    shape, dtype
        Of the whole array.
    blocks
        Its parts in order; each has the shape of the whole but for the first axis.
    """
    kind = np.dtype(dtype)
    header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": shape}
    with path.open("wb") as stream:
        np.lib.format.write_array_header_2_0(stream, header)
        for block in blocks:
            stream.write(np.ascontiguousarray(block, dtype=kind).data)


class RowWriter:
    """Appends rows to an `.npy` file whose length is not known beforehand; see `appended_npy`."""

    def __init__(self, stream: IO[bytes], columns: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._stream, self._columns, self._dtype = stream, columns, dtype
        self.rows = 0

    def append(self, block: npt.NDArray[Any]) -> None:
        """Write a block of shape (n, *columns)."""
        if block.shape[1:] != self._columns:
            raise ValueError(f"a block of shape {block.shape} in a file of rows of shape {self._columns}")
        self._stream.write(np.ascontiguousarray(block, dtype=self._dtype).data)
        self.rows += len(block)

    def write_header(self) -> None:
        """Write the header at the current position; its size does not depend on the number of rows."""
        shape = (self.rows, *self._columns)
        header = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": shape,
        }
        np.lib.format.write_array_header_2_0(self._stream, header)


@contextmanager
def appended_npy(path: Path, columns: tuple[int, ...], dtype: npt.DTypeLike) -> Iterator[RowWriter]:
    """Write an `.npy` file of shape (rows, *columns) by appending blocks of rows.

    The header is right once the block ends without an error. A full disk gives an OSError with its number.
    """
    with path.open("wb") as stream:
        writer = RowWriter(stream, columns, np.dtype(dtype))
        writer.write_header()
        begin = stream.tell()
        yield writer
        stream.seek(0)
        writer.write_header()
        if stream.tell() != begin:
            raise RuntimeError("the header of an .npy file grew with its number of rows")


def _damaged(path: Path, error: BaseException, hint: str) -> BadInputError:
    why = str(error) or type(error).__name__
    return BadInputError(f"{path}: damaged, or not a file of plain arrays ({why})", hint=hint)
