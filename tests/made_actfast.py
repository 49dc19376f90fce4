"""Axivity and ActiGraph files made by the layouts that the makers document."""

from __future__ import annotations

import struct
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

START = 1_600_000_000


def sector(
    number: int,
    at: float,
    counts: npt.NDArray[np.int_],
    *,
    rate_hz: float = 100.0,
    gyro: bool = False,
    **changes: int,
) -> bytes:
    """A sector of 16-bit samples of 1/256 g (AX6: 1/2048 g and 250/32768 deg/s, gyroscope first)."""
    when = datetime.fromtimestamp(int(at), UTC)
    packed = (when.year - 2000) << 26 | when.month << 22 | when.day << 17
    packed |= when.hour << 12 | when.minute << 6 | when.second
    fraction = int((at % 1) * 65536) >> 1
    shift = -(((fraction << 1) * int(rate_hz)) >> 16)
    code = int(np.log2(rate_hz / 3200)) + 15
    scale = (3 << 13 | 5 << 10) if gyro else 0
    fields = {"light": scale | 283, "rate": 0x40 | code, "axes": 0x62 if gyro else 0x32, "count": len(counts)}
    fields.update(changes)
    head = struct.pack("<2sHHIIIHHBBBBhH", b"AX", 508, 0x8000 | fraction, 7, number, packed, fields["light"],
                       258, 0, 190, fields["rate"], fields["axes"], shift, fields["count"])  # fmt: skip
    body = (head + np.asarray(counts, dtype="<i2").tobytes()).ljust(510, b"\0")
    return body + struct.pack("<H", -sum(struct.unpack("<255H", body)) & 0xFFFF)


def cwa(path: Path, sectors: list[bytes], note: bytes = b"_p=left+wrist&_sc=P07") -> Path:
    head = bytearray(b"\xff" * 1024)
    struct.pack_into("<2sHBHIH", head, 0, b"MD", 1020, 0, 39434, 26, 0)
    head[36], head[41] = 0x4A, 44
    head[64 : 64 + len(note)] = note
    path.write_bytes(bytes(head) + b"".join(sectors))
    return path


def still(n: int = 80) -> npt.NDArray[np.int_]:
    return np.array([[k, -k, 256] for k in range(n)])


def run(count: int, seconds: float = 0.81) -> list[bytes]:
    """Sectors of 80 samples each, which take `seconds` where 0.8 are nominal."""
    return [sector(k, START + 0.25 + k * seconds, still()) for k in range(count)]


def record(kind: int, second: int, payload: bytes) -> bytes:
    body = struct.pack("<BBIH", 0x1E, kind, second, len(payload)) + payload
    return body + bytes([~np.bitwise_xor.reduce(np.frombuffer(body, np.uint8)) & 0xFF])


def parameters(rate_hz: int = 30, scale: float = 256.0) -> bytes:
    mantissa, exponent = np.frexp(scale)
    coded = int(mantissa * 0x800000) | int(exponent) << 24
    return record(0x15, START - 1, struct.pack("<HHIHHI", 1, 10, rate_hz, 0, 55, coded))


def activity(second: int, counts: npt.NDArray[np.int_] | None = None) -> bytes:
    """Samples of 1/256 g in 12 bits, in the order y, x, z."""
    values = (np.array([[k, -k, 256] for k in range(30)]) if counts is None else counts)[:, [1, 0, 2]].ravel()
    bits = "".join(f"{value & 0xFFF:012b}" for value in values.tolist())
    bits += "0" * (-len(bits) % 8)
    return record(0x00, second, int(bits, 2).to_bytes(len(bits) // 8, "big"))


INFO = "Serial Number: MOS2\nDevice Type: wGT3XBT\nFirmware: 1.9.2\nSample Rate: 30\nTimeZone: -05:00:00\n" \
    "Acceleration Max: 8.0\nSide: Left\nLimb: Wrist\nSubject Name: P07\n"  # fmt: skip


def gt3x(path: Path, log: list[bytes], info: str = INFO, **more: str) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("info.txt", info)
        archive.writestr("log.bin", b"".join(log))
        for name, text in more.items():
            archive.writestr(name.replace("_", "."), text)
    return path
