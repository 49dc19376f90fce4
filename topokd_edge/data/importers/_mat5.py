"""Numbers and texts of MATLAB 5 files.

Own code because `scipy.io.loadmat` ends the process with a segmentation fault on some damaged files (1.17.1:
a type number beyond its table), which no caller can catch. The form: The MathWorks, MAT-File Format.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

MAX_UNPACKED = 64 << 20
"""Bytes that what is packed in one file may take when unpacked."""
_HEADER = 128
_ORDERS = {b"\x00\x01IM": "<", b"\x01\x00MI": ">"}
_MATRIX = 14
_COMPRESSED = 15
_NUMBERS = {
    1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8",
}  # fmt: skip
_TEXTS = {2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
"""By type of the element; MATLAB stores characters as 16-bit numbers (4) or as text."""
_CHAR_CLASS = 4
_NUMBER_CLASSES = range(6, 16)
_COMPLEX_OR_LOGICAL = 0x0A00


@dataclass(frozen=True, slots=True)
class _Element:
    kind: int
    body: bytes


def read_mat5(data: bytes, names: Collection[str]) -> dict[str, npt.NDArray[np.float64] | str]:
    """Return the variables `names` that are there and are a real array or a line of text.

    Parameters
    ----------
    data
        The whole file.
    names
        Variables wanted; others are not looked into. Cells, structures and objects are left out.

    Raises
    ------
    ValueError
        When it is no MATLAB 5 file, an element does not fit, or too much is packed in it.
    """
    order = _ORDERS.get(data[_HEADER - 4 : _HEADER])
    if order is None:
        raise ValueError("not a MATLAB 5 file")
    found: dict[str, npt.NDArray[np.float64] | str] = {}
    room = MAX_UNPACKED
    for element in _elements(data[_HEADER:], order):
        if element.kind == _COMPRESSED:
            content = _unpacked(element.body, room)
            room -= len(content)
            element = next(_elements(content, order), element)
        if element.kind == _MATRIX:
            name, value = _variable(element.body, order, names)
            if value is not None:
                found[name] = value
    return found


def _elements(data: bytes, order: str) -> Iterator[_Element]:
    """Walk elements: type and length, 4 bytes each, then the content; up to 4 bytes may stand in the tag."""
    at = 0
    while at < len(data):
        if at + 8 > len(data):
            raise ValueError("it ends inside an element")
        kind, length = struct.unpack_from(f"{order}II", data, at)
        start, step = at + 8, 8 + length
        if kind >> 16:
            kind, length = kind & 0xFFFF, kind >> 16
            start, step = at + 4, 8
            if length > 4:
                raise ValueError(f"a short element of {length} bytes, expected at most 4")
        elif kind != _COMPRESSED:
            step += -length % 8
        if start + length > len(data):
            raise ValueError(f"an element of {length:,} bytes where {len(data) - start:,} are left")
        yield _Element(kind, data[start : start + length])
        at += step


def _unpacked(body: bytes, room: int) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        content = unpacker.decompress(body, room + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if len(content) > room:
        raise ValueError(f"larger than {MAX_UNPACKED:,} bytes when unpacked")
    if not unpacker.eof:
        raise ValueError("what is packed in it ends too early")
    return content


def _variable(
    body: bytes, order: str, names: Collection[str]
) -> tuple[str, npt.NDArray[np.float64] | str | None]:
    """Read one array: its flags, dimensions, name and content are elements."""
    parts = _elements(body, order)
    try:
        flags, dims, named = next(parts), next(parts), next(parts)
    except StopIteration:
        raise ValueError("an array without flags, dimensions or name") from None
    name = named.body.decode("latin-1")
    if name not in names:
        return name, None
    if len(flags.body) != 8 or len(dims.body) % 4 or len(dims.body) < 8:
        raise ValueError(f"{name}: damaged flags or dimensions")
    (flag,) = struct.unpack_from(f"{order}I", flags.body)
    shape = struct.unpack(f"{order}{len(dims.body) // 4}i", dims.body)
    content = next(parts, _Element(9, b""))
    if flag & 0xFF == _CHAR_CLASS:
        return name, _text(name, content, order) if shape[0] == 1 else None
    if flag & 0xFF not in _NUMBER_CLASSES or flag & _COMPLEX_OR_LOGICAL:
        return name, None
    return name, _array(name, content, order, shape)


def _text(name: str, content: _Element, order: str) -> str:
    if content.kind not in _TEXTS:
        raise ValueError(f"{name}: text of the unknown type {content.kind}")
    encoding = _TEXTS[content.kind]
    if encoding in ("utf-16", "utf-32"):
        encoding += "-le" if order == "<" else "-be"
    return content.body.decode(encoding)


def _array(name: str, content: _Element, order: str, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    if content.kind not in _NUMBERS:
        raise ValueError(f"{name}: numbers of the unknown type {content.kind}")
    kind = np.dtype(_NUMBERS[content.kind]).newbyteorder("<" if order == "<" else ">")
    if math.prod(shape) * kind.itemsize != len(content.body):
        raise ValueError(f"{name}: {len(content.body):,} bytes for an array of shape {shape}")
    return np.frombuffer(content.body, kind).astype(np.float64).reshape(shape, order="F")
