"""Columns of a table as numpy arrays; cells that cannot be read are named by their position."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from topokd_edge.data.importers._table_block import MAX_PROBLEMS
from topokd_edge.data.importers._table_sniff import NO_VALUE, NUMBER

Bad = list[tuple[int, str]]
"""Positions in the array and what is wrong there."""
TIME_UNITS = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
"""Numeric units of time: how many make a second."""
FARTHEST = 1e10
"""Seconds, some 300 years: no recording is longer."""
MAX_LABEL = 200
"""Letters of a label or subject; a longer one is no label."""
_LONGEST_TIME = 64
_ZONE = re.compile(r"[T ].*?(Z|[+-]\d\d(?::?\d\d)?)$")


def numbers(array: Any, *, decimal_comma: bool = False) -> tuple[npt.NDArray[np.float64], Bad]:
    """Return a column as float64, NaN where it has no value, and the cells that are no numbers."""
    import pyarrow as pa

    array = _plain(array)
    if pa.types.is_string(array.type):
        array, bad = _number_texts(array, decimal_comma=decimal_comma)
        if bad:
            return np.empty(0), bad
    try:
        values = np.asarray(array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return np.empty(0), [(0, f"the column holds {array.type}, expected numbers")]
    return values, []


def texts(array: Any) -> tuple[npt.NDArray[np.str_], Bad]:
    """Return a column of labels as texts, "" where it has no value; whole numbers without decimals."""
    import pyarrow as pa

    try:
        coded = _plain(array).dictionary_encode()
        values = coded.dictionary
        if pa.types.is_floating(values.type):
            values = pa.array([str(int(v) if v % 1 == 0 else v) for v in values.to_pylist()], pa.string())
        words = [text.strip() for text in values.cast(pa.string()).to_pylist()]
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return np.empty(0, np.str_), [(0, f"the column holds {array.type}, expected text")]
    words = ["" if word.lower() in NO_VALUE else word for word in words]
    codes = coded.indices.fill_null(len(words)).to_numpy()
    lengths = np.array([*map(len, words), 0])[codes]
    bad = [
        (int(at), f"a text of {lengths[at]} letters, at most {MAX_LABEL}")
        for at in np.flatnonzero(lengths > MAX_LABEL)
    ]
    return (np.empty(0, np.str_) if bad else np.array([*words, ""], np.str_)[codes]), bad


@dataclass(slots=True)
class TimeReader:
    """Reads a column of time stamps, block after block.

    Attributes
    ----------
    unit
        One of `TIME_UNITS`, or "iso".
    decimal_comma
        Numbers are written 1,5.
    zone
        Of the first ISO stamp ("" when it has none); every other one must have the same.
    origin
        First stamp, in the unit (ISO: nanoseconds since 1970).
    """

    unit: str
    decimal_comma: bool = False
    zone: str | None = None
    origin: float | int | None = None

    def read(self, array: Any) -> tuple[npt.NDArray[np.float64], Bad]:
        """Return seconds since the first stamp, and the cells that are not time stamps."""
        values, bad = self._iso(array) if self.unit == "iso" else self._counts(array)
        if bad or not len(values):
            return np.empty(0), bad
        if self.origin is None:
            self.origin = values[0].item()
        per_second = 1e9 if self.unit == "iso" else TIME_UNITS[self.unit]
        if isinstance(self.origin, int) and values.dtype == np.int64:
            seconds = _difference(values, self.origin) / per_second
        else:
            with np.errstate(over="ignore", invalid="ignore"):
                seconds = (values.astype(np.float64) - float(self.origin)) / per_second
        far = np.flatnonzero(~(np.abs(seconds) <= FARTHEST))
        return seconds, [(int(at), f"{seconds[at]:g} s from the first time stamp") for at in far]

    def _counts(self, array: Any) -> tuple[npt.NDArray[Any], Bad]:
        """Return numeric stamps, as int64 where they are whole, so that no digit is lost."""
        import pyarrow as pa

        array = _plain(array)
        if pa.types.is_temporal(array.type):
            return np.empty(0), [(0, f"the column holds {array.type}: its unit is iso, not {self.unit}")]
        if not array.null_count:
            try:
                whole = _trimmed(array) if pa.types.is_string(array.type) else array
                if not pa.types.is_floating(whole.type):
                    return whole.cast(pa.int64()).to_numpy(), []
            except pa.ArrowInvalid:
                pass
        values, bad = numbers(array, decimal_comma=self.decimal_comma)
        bad += [(int(at), "no time stamp") for at in np.flatnonzero(np.isnan(values))]
        return values, bad

    def _iso(self, array: Any) -> tuple[npt.NDArray[Any], Bad]:
        """Return stamps as nanoseconds since 1970."""
        import pyarrow as pa

        array = _plain(array)
        if array.null_count:
            return np.empty(0), [(int(at), "no time stamp") for at in np.flatnonzero(array.is_null())]
        if pa.types.is_string(array.type):
            array = _trimmed(array)
            bad = self._other_zones(array)
            if bad:
                return np.empty(0), bad
        elif not pa.types.is_timestamp(array.type):
            return np.empty(0), [(0, f"the column holds {array.type}, expected dates and times")]
        target = (
            pa.timestamp("ns", "UTC") if self.zone or getattr(array.type, "tz", None) else pa.timestamp("ns")
        )
        try:
            return array.cast(target).cast(pa.int64()).to_numpy(), []
        except pa.ArrowInvalid:
            return np.empty(0), _not_castable(array, target, "a date and time like 2024-05-01T12:00:00.250")

    def _other_zones(self, array: Any) -> Bad:
        """Find the stamps whose zone is not that of the first."""
        zones = [
            match[1] if (match := _ZONE.search(text[:_LONGEST_TIME])) else "" for text in array.to_pylist()
        ]
        if self.zone is None and zones:
            self.zone = zones[0]
        return [
            (at, f"zone {zone or 'missing'}, where the first stamp has {self.zone or 'none'}")
            for at, zone in enumerate(zones)
            if zone != self.zone
        ]


def _plain(array: Any) -> Any:
    """Unpack dictionaries, and make every text a plain string."""
    import pyarrow as pa

    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_large_string(array.type) or pa.types.is_string_view(array.type):
        array = array.cast(pa.string())
    return array


def _trimmed(array: Any) -> Any:
    from pyarrow import compute

    return compute.utf8_trim_whitespace(array)


def _number_texts(array: Any, *, decimal_comma: bool) -> tuple[Any, Bad]:
    """Return texts as float64, or the cells that are no numbers."""
    import pyarrow as pa
    from pyarrow import compute

    array = _trimmed(array)
    empty = compute.is_in(compute.utf8_lower(array), pa.array(sorted(NO_VALUE), pa.string()))
    array = compute.if_else(empty, pa.scalar(None, pa.string()), array)
    if decimal_comma:
        array = compute.replace_substring(array, ",", ".", max_replacements=1)
    try:
        return array.cast(pa.float64()), []
    except pa.ArrowInvalid:
        return array, [
            (at, f"{text[:40]!r} is not a number")
            for at, text in enumerate(array.to_pylist())
            if text is not None and not NUMBER.fullmatch(text)
        ] or _not_castable(array, pa.float64(), "a number")


def _not_castable(array: Any, target: Any, expected: str) -> Bad:
    """Find the cells that pyarrow cannot read as `target`, one by one."""
    import pyarrow as pa

    bad: Bad = []
    for at in range(len(array)):
        if len(bad) >= MAX_PROBLEMS:
            break
        try:
            array.slice(at, 1).cast(target)
        except pa.ArrowInvalid:
            cell = (
                array[at].as_py()
                if pa.types.is_string(array.type)
                else array.slice(at, 1).cast(pa.int64())[0]
            )
            bad.append((at, f"{str(cell)[:40]!r} is not {expected}"))
    return bad


def _difference(values: npt.NDArray[Any], origin: int) -> npt.NDArray[np.float64]:
    """Subtract exactly where the difference fits 64 bits."""
    low, high = int(values.min()) - origin, int(values.max()) - origin
    if max(-low, high) < 2**63:
        return np.asarray(values - np.int64(origin), dtype=np.float64)
    return values.astype(np.float64) - float(origin)
