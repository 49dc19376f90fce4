"""What the names and first values of columns suggest."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from topokd_edge.data.importers._table_sniff import NUMBER, kind_of
from topokd_edge.data.units import STANDARD_GRAVITY, spelled

Rows = Sequence[Sequence[str]]

_LONGEST_NAME = 100
_UNIT_IN_NAME = re.compile(r"(.*?)\s*[\[(]\s*([^\[\]()]{1,20}?)\s*[\])]")
_TIME_NAME = re.compile(
    r"(?:unix|sensor|system|utc|local)?[ _]?(?:t|time|time[ _]?stamps?|date[ _]?time|epoch|elapsed)"
    r"(?:[ _](?:s|ms|us|ns|sec|seconds))?",
    re.IGNORECASE,
)
_TIME_UNITS = {
    "s": "s",
    "sec": "s",
    "seconds": "s",
    "ms": "ms",
    "us": "us",
    "µs": "us",
    "μs": "us",
    "ns": "ns",
}
_QUANTITIES = {
    "acceleration": r"(?:.*[_. ])?(?:acc\w*|a)[_. ]?[xyz]|acc\w*[_. ][xyz].*|[xyz]",
    "rotation": r"(?:.*[_. ])?(?:gyr\w*|g|w|rot\w*)[_. ]?[xyz]|gyr\w*[_. ][xyz].*",
    "magnetism": r"(?:.*[_. ])?(?:mag\w*|m)[_. ]?[xyz]|mag\w*[_. ][xyz].*",
    "heart rate": r"hr|bpm|heart[_ ]?rate",
    "temperature": r"temp\w*",
    "light": r"lux|light",
}
_VECTORS = ("acceleration", "magnetism")
"""Quantities whose unit only the length of a vector with three axes tells."""
_UNIT_RANGES: dict[str, tuple[tuple[str, float, float], ...]] = {
    "acceleration": (
        ("g", 0.8, 1.3),
        ("m/s2", 0.8 * STANDARD_GRAVITY, 1.3 * STANDARD_GRAVITY),
        ("mg", 800, 1300),
    ),
    "rotation": (("deg/s", 35, 4000),),
    "magnetism": (("uT", 15, 100),),
    "heart rate": (("bpm", 30, 230),),
    "temperature": (("degC", 10, 45),),
    "light": (("lux", 0, 200_000),),
}
"""Units by the median length of the vector, or the median value, within the first rows."""


@dataclass(frozen=True, slots=True)
class Look:
    """What one column looks like.

    Attributes
    ----------
    name
        For a channel: the header without its unit and without blanks.
    unit
        As the header states it, "" when it does not.
    quantity
        What the name suggests, "" when nothing or when the values are no numbers.
    time
        It looks like time stamps.
    time_unit
        As the header or the form of the values states it, "" when they do not.
    blank
        Neither a name nor values: what a delimiter at the end of each line makes.
    """

    name: str
    unit: str
    quantity: str
    time: bool
    time_unit: str
    blank: bool


def look(names: Sequence[str], rows: Rows, stem: str = "") -> list[Look]:
    """Look at the names and first values of all columns.

    What a column called by its axis alone holds may be in the name of the file, `stem`.
    """
    found = []
    for column, header in enumerate(names):
        kind = kind_of([row[column] for row in rows])
        name, unit = header.strip()[:_LONGEST_NAME], ""
        if match := _UNIT_IN_NAME.fullmatch(name):
            name, unit = match[1], match[2]
        time = bool(_TIME_NAME.fullmatch(name)) and kind in ("number", "iso")
        time_unit = ""
        if time or kind == "iso":
            time, time_unit = True, "iso" if kind == "iso" else _TIME_UNITS.get(unit, "")
            time_unit = time_unit or _TIME_UNITS.get(re.split(r"[ _]", name)[-1].lower(), "")
        numeric = kind == "number" and not time
        whole = f"{stem}_{name}" if re.fullmatch("[xyz]", name, re.I) else name
        quantity = _quantity(whole) or _quantity(name)
        found.append(
            Look(
                name=re.sub(r"[\s,=]+", "_", name) or f"c{column + 1}",
                unit=unit if spelled(unit) and kind != "empty" and not time else "",
                quantity=quantity if numeric else "",
                time=time,
                time_unit=time_unit,
                blank=kind == "empty" and not name,
            )
        )
    return found


def _quantity(name: str) -> str:
    return next((key for key, form in _QUANTITIES.items() if re.fullmatch(form, name, re.I)), "")


def unit(looks: Sequence[Look], rows: Rows, column: int) -> str:
    """Guess the unit of a channel from its quantity and the size of its first values, "" when unsure."""
    quantity = looks[column].quantity
    if not quantity:
        return ""
    stem = _stem(looks[column].name)
    family = [
        index for index, item in enumerate(looks) if item.quantity == quantity and _stem(item.name) == stem
    ]
    values = np.stack([_values(rows, index) for index in family])
    if quantity in _VECTORS and len(family) != 3:
        return ""
    length = np.sqrt((values**2).sum(axis=0))
    length = length[np.isfinite(length)]
    size = float(np.median(length)) if len(length) else -1.0
    return next((unit for unit, low, high in _UNIT_RANGES[quantity] if low <= size <= high), "")


def time_unit(rows: Rows, column: int) -> str:
    """Guess the unit of numeric time stamps: from their size if that of a date, else their steps."""
    values = _values(rows, column)
    values = values[np.isfinite(values)]
    if not len(values):
        return "s"
    for name, per_second in (("s", 1.0), ("ms", 1e3), ("us", 1e6), ("ns", 1e9)):
        if is_epoch(float(values[0]) / per_second):
            return name
    steps = np.diff(values)
    steps = steps[steps > 0]
    step = float(np.median(steps)) if len(steps) else 0.0
    return "s" if step < 1 else "ms" if step < 1e3 else "us" if step < 1e6 else "ns"


def is_epoch(seconds: float) -> bool:
    """Tell whether seconds count from 1970: whether they fall between the years 2000 and 2100."""
    return 946_684_800 <= seconds < 4_102_444_800


def _stem(name: str) -> str:
    """Return what channels of one vector have in common."""
    return re.sub(r"[_. ]?[xyz]$", "", name.lower())


def _values(rows: Rows, column: int) -> npt.NDArray[np.float64]:
    cells = [row[column] for row in rows]
    return np.array([float(cell) if NUMBER.fullmatch(cell) else float("nan") for cell in cells])
