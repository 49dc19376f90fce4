"""Images that programmers and boot loaders take, from the loadable parts of a program."""

from __future__ import annotations

import struct
from collections.abc import Sequence

Part = tuple[int, bytes]
"""Address and content."""
UF2_PAYLOAD = 256
RP2040_FAMILY = 0xE48BFF56
"""Of https://github.com/microsoft/uf2/blob/master/utils/uf2families.json."""
_UF2_START, _UF2_SECOND, _UF2_END, _UF2_HAS_FAMILY = 0x0A324655, 0x9E5D5157, 0x0AB16F30, 0x2000
_HEX_LINE = 16


def load_parts(elf: bytes) -> list[Part]:
    """Return what a programmer writes of a 32-bit little-endian ELF file, and where: not where it is run."""
    table, size, count = struct.unpack_from("<I", elf, 28)[0], *struct.unpack_from("<HH", elf, 42)
    headers = (struct.unpack_from("<6I", elf, table + index * size) for index in range(count))
    return [(load, elf[at : at + length]) for kind, at, _, load, length, _ in headers if kind == 1 and length]


def flat(parts: Sequence[Part]) -> Part:
    """Return one part from the lowest address on, gaps filled with 0xFF as in erased flash.

    Raises
    ------
    ValueError
        When there is no part, or two overlap.
    """
    if not parts:
        raise ValueError("an image needs at least one part")
    ordered = sorted(parts)
    first = ordered[0][0]
    content = bytearray()
    for address, part in ordered:
        if address < first + len(content):
            raise ValueError(f"two parts overlap at {address:#x}")
        content += b"\xff" * (address - first - len(content)) + part
    return first, bytes(content)


def intel_hex(parts: Sequence[Part]) -> str:
    """Return Intel HEX (Intel, Hexadecimal Object File Format Specification, 1988) with 32-bit addresses."""
    lines = []
    high = -1
    for address, content in sorted(parts):
        at = 0
        while at < len(content):
            place = address + at
            if place >> 16 != high:
                high = place >> 16
                lines.append(_record(0, 4, high.to_bytes(2, "big")))
            room = min(_HEX_LINE, 0x10000 - (place & 0xFFFF))
            piece = content[at : at + room]
            lines.append(_record(place & 0xFFFF, 0, piece))
            at += len(piece)
    return "\n".join([*lines, _record(0, 1, b"")]) + "\n"


def uf2(parts: Sequence[Part], family: int) -> bytes:
    """Return UF2 (https://github.com/microsoft/uf2), what a drive of a boot loader takes."""
    address, content = flat(parts)
    pieces = [content[at : at + UF2_PAYLOAD] for at in range(0, len(content), UF2_PAYLOAD)]
    blocks = []
    for index, piece in enumerate(pieces):
        head = struct.pack(
            "<8I",
            _UF2_START,
            _UF2_SECOND,
            _UF2_HAS_FAMILY,
            address + index * UF2_PAYLOAD,
            UF2_PAYLOAD,
            index,
            len(pieces),
            family,
        )
        blocks.append(head + piece.ljust(476, b"\0") + struct.pack("<I", _UF2_END))
    return b"".join(blocks)


def _record(address: int, kind: int, content: bytes) -> str:
    body = struct.pack(">BHB", len(content), address, kind) + content
    return f":{(body + bytes([-sum(body) & 0xFF])).hex().upper()}"
