"""Frames on a serial wire, as `topokd_serial.h` of the firmware has them.

    wire    = { 0x00 | stuffed 0x00 }          zeros between frames are nothing
    stuffed = COBS(body)                       no zero inside: the next zero is where a reader begins anew
    body    = version kind sequence payload crc
    version, kind, sequence = one byte each
    payload = 0..MOST_PAYLOAD bytes; numbers are little-endian
    crc     = CRC-32 of all before it, 4 bytes, as `zlib.crc32`

COBS: Cheshire and Baker, IEEE/ACM Transactions on Networking 7(2), 1999.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

VERSION = 2
MOST_PAYLOAD = 1024
_HEAD = struct.Struct("<3B")
_CRC = struct.Struct("<I")
_MOST_BODY = _HEAD.size + MOST_PAYLOAD + _CRC.size
_LONGEST_RUN = 254
_MOST_STUFFED = _MOST_BODY + -(-_MOST_BODY // _LONGEST_RUN) + 1


@dataclass(frozen=True)
class Frame:
    """One message. `kind` and `sequence` are 0..255."""

    kind: int
    sequence: int
    payload: bytes = b""
    version: int = VERSION


def pack(frame: Frame) -> bytes:
    """Return the bytes of a frame, a zero before and after.

    Raises
    ------
    ValueError
        When the payload is longer than `MOST_PAYLOAD`.
    """
    if len(frame.payload) > MOST_PAYLOAD:
        raise ValueError(f"a payload has at most {MOST_PAYLOAD} bytes, found {len(frame.payload)}")
    body = _HEAD.pack(frame.version, frame.kind, frame.sequence) + frame.payload
    return b"\0" + stuff(body + _CRC.pack(zlib.crc32(body))) + b"\0"


class Unpacker:
    """Finds frames in a stream of bytes; remembers at most one that is not whole yet."""

    def __init__(self) -> None:
        self._stuffed = bytearray()

    def feed(self, data: bytes) -> list[Frame | None]:
        """Return each frame that `data` completes, and None for bytes that are no frame."""
        found = []
        first, *others = data.split(b"\0")
        self._keep(first)
        for piece in others:
            if self._stuffed:
                found.append(unpack(bytes(self._stuffed)))
                self._stuffed.clear()
            self._keep(piece)
        return found

    def _keep(self, piece: bytes) -> None:
        """Keep one byte more than any frame has: enough to see that it is none."""
        self._stuffed += piece[: _MOST_STUFFED + 1 - len(self._stuffed)]


def unpack(stuffed: bytes) -> Frame | None:
    """Return the frame between two zeros; None when it is damaged."""
    body = unstuff(stuffed)
    if body is None or not _HEAD.size + _CRC.size <= len(body) <= _MOST_BODY:
        return None
    content, crc = body[: -_CRC.size], body[-_CRC.size :]
    if _CRC.unpack(crc) != (zlib.crc32(content),):
        return None
    version, kind, sequence = _HEAD.unpack_from(content)
    return Frame(kind, sequence, content[_HEAD.size :], version)


def stuff(body: bytes) -> bytes:
    """Return bytes by COBS: none of them is zero."""
    out = bytearray()
    for index, run in enumerate(runs := body.split(b"\0")):
        whole = [run[at : at + _LONGEST_RUN] for at in range(0, len(run), _LONGEST_RUN)] or [b""]
        last = index == len(runs) - 1
        for piece in whole:
            out += bytes([len(piece) + 1]) + piece
        if len(whole[-1]) == _LONGEST_RUN and not last:
            out += b"\x01"
    return bytes(out)


def unstuff(stuffed: bytes) -> bytes | None:
    """Return what COBS was made of; None when it is not COBS."""
    out = bytearray()
    at = 0
    while at < len(stuffed):
        length = stuffed[at]
        piece = stuffed[at + 1 : at + length]
        at += length
        if length == 0 or at > len(stuffed):
            return None
        out += piece
        if length <= _LONGEST_RUN and at < len(stuffed):
            out += b"\0"
    return bytes(out)
