"""What the header of a GENEActiv file says about the device and its wearer, in `.bin` and `.csv` alike."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from datetime import datetime

from topokd_edge.data.recording import UNKNOWN_SUBJECT

CHANNELS = ("acc_x", "acc_y", "acc_z", "light", "button", "temperature")
UNITS = ("g", "g", "g", "lux", "1", "degC")
DEFAULT_CHANNELS = CHANNELS[:3]
"""Those a model learns from; light, button and temperature may well be constant."""
HEADER_LINES = 200
"""Where the search for the first sample ends; real headers have 59 or 100 lines."""
RATE_HZ = (1.0, 1000.0)
"""Rates that are believed; the device knows 10 to 100 Hz."""
YEARS = range(1970, 2200)
"""Years that are believed; a damaged one would make a gap of centuries."""
TEMPERATURE = (-100.0, 150.0)
"""Temperatures in degC that are believed."""
_DEVICES = ("geneactiv", "geneasleep")
_ABOUT = {
    "serial": "Device Unique Serial Code",
    "firmware": "Device Firmware Version",
    "calibrated": "Calibration Date",
    "position": "Device Location Code",
    "handedness": "Handedness Code",
    "subject_code": "Subject Code",
    "stated_rate": "Measurement Frequency",
    "configured_start": "Start Time",
    "time_zone": "Time Zone",
    "stated_pages": "Number of Pages",
}
"""What is kept of a header. Birth date, sex, height and weight are not: nothing here needs them."""
_STAMP = re.compile(rb"(\d{4})-(\d{1,2})-(\d{1,2}) (\d{2}):(\d{2}):(\d{2}):(\d{3})")


def parse(lines: Iterable[bytes], separator: str) -> dict[str, str]:
    """Return the fields of header lines `key<separator>value`; of repeated keys the first.

    Values are padded with blanks or NUL bytes to a fixed width, which is taken off.
    """
    fields: dict[str, str] = {}
    for line in lines:
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError:
            text = line.decode("latin-1")
        key, found, value = text.partition(separator)
        if found:
            fields.setdefault(key.strip(), value.partition("\0")[0].strip())
    return fields


def number(text: str | None, name: str, limits: tuple[float, float], problems: list[str]) -> float:
    """Return the number a field begins with, NaN and one more of `problems` when it is none within `limits`.

    The decimal sign may be a comma: the maker's software follows the language of the computer.
    """
    if text is None:
        problems.append(f"{name}: missing")
        return math.nan
    low, high = limits
    try:
        value = float(text.replace(",", ".").split()[0])
    except (ValueError, IndexError):
        value = math.nan
    if low <= value <= high:
        return value
    problems.append(f"{name}: {text[:40]!r}, expected a number from {low:g} to {high:g}")
    return math.nan


def stamp(text: bytes) -> datetime | None:
    """Return the local time that `YYYY-MM-DD hh:mm:ss:mmm` means; None when all its digits are 0.

    A device whose clock was never set writes zeros.

    Raises
    ------
    ValueError
        When it is no such time, or its year is none of `YEARS`.
    """
    found = _STAMP.fullmatch(text.strip())
    if found is None:
        raise ValueError("no time stamp")
    parts = [int(part) for part in found.groups()]
    if not any(parts):
        return None
    year, month, day, hour, minute, second, millisecond = parts
    if year not in YEARS:
        raise ValueError("no year of this age")
    return datetime(year, month, day, hour, minute, second, 1000 * millisecond)


def device_problems(fields: Mapping[str, str]) -> list[str]:
    """Say when the file is not of a device that is read here."""
    if "Device Type" not in fields:
        return ["no line 'Device Type': not a GENEActiv file, or its header is lost"]
    kind = fields["Device Type"]
    if kind.casefold() not in _DEVICES:
        return [f"Device Type: {kind[:40]!r} is a device this format does not know, expected 'GENEActiv'"]
    return []


def device(fields: Mapping[str, str]) -> str:
    """Return maker's name and model of the device."""
    return f"{fields['Device Type']} {fields.get('Device Model', '')}".strip()


def subject(fields: Mapping[str, str]) -> str:
    """Return the code of the wearer."""
    return fields.get("Subject Code") or UNKNOWN_SUBJECT


def about(fields: Mapping[str, str]) -> dict[str, str]:
    """Return what else the header says, without what it leaves blank."""
    kept = {name: fields.get(key, "") for name, key in _ABOUT.items()}
    if kept["configured_start"].startswith("0000"):
        kept["configured_start"] = ""
    side = kept["position"].casefold().partition(" ")[0]
    kept["side"] = side if side in ("left", "right") else ""
    return {name: value for name, value in kept.items() if value}
