"""GENEActiv files made by the layout that the maker documents."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

START = datetime(2024, 2, 28, 23, 59, 57, 500_000)
FIELDS = {
    "Device Unique Serial Code": "012345",
    "Device Type": "GENEActiv".ljust(20),
    "Device Model": "1.1",
    "Device Firmware Version": "Ver4.08a date14Jul14",
    "Calibration Date": "2018-01-09 15:17:02:000",
    "Accelerometer Range": "-8 to 8",
    "Measurement Frequency": "100 Hz",
    "Start Time": "0000-00-00 00:00:00:000",
    "Time Zone": "GMT +01:00",
    "Device Location Code": "Left wrist",
    "Subject Code": "P 07".ljust(20, "\0"),
    "Date of Birth": "1970-01-01",
    "Sex": "female",
    "Weight": "61.5",
    "x gain": "25211",
    "x offset": "-33",
    "y gain": "25165",
    "y offset": "-983",
    "z gain": "24925",
    "z offset": "-354",
    "Volts": "48",
    "Lux": "911",
    "Number of Pages": "2",
}


def stamp(at: datetime | None) -> str:
    if at is None:
        return "0000-00-00 00:00:00:000"
    rounded = at + timedelta(microseconds=500)
    return f"{rounded:%Y-%m-%d %H:%M:%S}:{rounded.microsecond // 1000:03d}"


def header(eol: str = "\r\n", **changes: str | None) -> str:
    fields = {**FIELDS, **{key.replace("_", " "): value for key, value in changes.items()}}
    lines = [f"{key}:{value}" for key, value in fields.items() if value is not None]
    return eol.join(["Device Identity", *lines[:6], "", "Configuration Info", *lines[6:], "", ""])


def digits(rows: Sequence[Sequence[int]]) -> str:
    """Hexadecimal digits of rows of x, y, z, light, button."""
    return "".join(
        f"{x & 0xFFF:03X}{y & 0xFFF:03X}{z & 0xFFF:03X}{light << 2 | button << 1:03X}"
        for x, y, z, light, button in rows
    )


SOME = [(i % 3 - 1, 250 - i % 5, i - 150, i, i % 2) for i in range(300)]
DATA = digits(SOME)


def page(
    number: int,
    at: datetime | None,
    data: str = DATA,
    eol: str = "\r\n",
    rate: str = "100.0",
    temperature: str = "21.3",
) -> str:
    lines = (
        "Recorded Data",
        "Device Unique Serial Code:012345",
        f"Sequence Number:{number}",
        f"Page Time:{stamp(at)}",
        "Unassigned:",
        f"Temperature:{temperature}",
        "Battery voltage:4.0896",
        "Device Status:Recording",
        f"Measurement Frequency:{rate}",
        data,
        "",
    )
    return eol.join(lines)


def steady(pages: int, seconds: float = 3.0, **options: Any) -> str:
    return "".join(page(i, START + timedelta(seconds=seconds * i), **options) for i in range(pages))


def csv_text(
    rows: int,
    eol: str = "\r\n",
    times: Sequence[datetime] | None = None,
    **changes: str | None,
) -> str:
    keep = {key: FIELDS[key] for key in list(FIELDS)[:5]}
    fields = {
        **keep,
        "Measurement Frequency": "50.0 Hz",
        "Device Location Code": "right ankle",
        "Subject Code": "S1".ljust(20, "\0"),
        "Subject Notes": "\0" * 100,
        **{key.replace("_", " "): value for key, value in changes.items()},
    }
    lines = [f"{key},{value}" for key, value in fields.items() if value is not None]
    lines += [""] * (100 - len(lines))
    for i in range(rows):
        at = times[i] if times else START + timedelta(milliseconds=20 * i)
        lines.append(
            f"{stamp(at)},{i % 999 / 1000:.4f},-{i % 999 / 500:.4f},1.0007,{i % 50},{i % 2},2{i % 10}.5"
        )
    return eol.join([*lines, ""])
