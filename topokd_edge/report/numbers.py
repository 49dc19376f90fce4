"""Numbers as a person reads them: units, the right precision, and a true minus sign."""

from __future__ import annotations

import math
from collections.abc import Callable

MISSING = "\u2013"


def percent(fraction: float | None) -> str:
    """Return a share of one as a percentage with one decimal."""
    return MISSING if fraction is None else f"{100 * fraction:.1f} %"


def points(fraction: float | None, *, sign: bool = True) -> str:
    """Return a difference of two shares as percentage points with one decimal."""
    if fraction is None:
        return MISSING
    shown = round(100 * fraction, 1) + 0.0
    return _minus(f"{shown:+.1f}" if sign and shown else f"{shown:.1f}")


def interval(bounds: list[float]) -> str:
    """Return a 95 % interval of a difference in percentage points."""
    low, high = bounds
    return f"{points(low)} to {points(high)}"


def probability(p: float | None) -> str:
    """Return a p-value with two significant digits, never as zero."""
    if p is None:
        return MISSING
    return "< 0.001" if p < 0.001 else f"{p:.2g}"


def decimal(value: float | None, digits: int = 3) -> str:
    """Return a plain number with a fixed number of decimals."""
    return MISSING if value is None else _minus(f"{value:.{digits}f}")


def count(value: float | None) -> str:
    """Return a count: whole below 10 000, then k, M, G with three significant digits."""
    if value is None:
        return MISSING
    if abs(value) < 10_000:
        return f"{value:,.0f}".replace(",", "\u202f")
    return _scaled(value, 1000.0, ("", "k", "M", "G", "T"))


def size(value: float | None) -> str:
    """Return a number of bytes, in B, kB or MB (powers of 1000)."""
    return MISSING if value is None else _scaled(value, 1000.0, ("B", "kB", "MB", "GB"))


def duration_ms(milliseconds: float | None) -> str:
    """Return a latency with three significant digits in µs, ms or s."""
    if milliseconds is None:
        return MISSING
    return _scaled(milliseconds * 1000.0, 1000.0, ("µs", "ms", "s"))


def span(seconds: float) -> str:
    """Return a length of time as a person says it: 0.52 s, 4 min 10 s, 3 h 12 min, 6 d 4 h."""
    if seconds < 60:
        return f"{seconds:.3g} s" if seconds < 59.5 else "1 min"
    for large, small, step, units in ((60, 1, 3600, "min s"), (3600, 60, 86_400, "h min")):
        if round(seconds / small) * small < step:
            return _two(seconds, large, small, units)
    return _two(seconds, 86_400, 3600, "d h")


def energy_uj(low: float | None, high: float | None) -> str:
    """Return a range of energies in µJ or mJ."""
    if low is None or high is None:
        return MISSING
    return from_to(low, high, lambda energy: _scaled(energy, 1000.0, ("µJ", "mJ", "J")))


def from_to(low: float, high: float, shown: Callable[[float], str]) -> str:
    """Return a range, each end as `shown` writes it; a unit that both ends have stands once."""
    first, second = shown(low), shown(high)
    number, _, unit = first.rpartition(" ")
    shared = number and second.endswith(f" {unit}")
    return second if first == second else f"{number if shared else first} to {second}"


def ratio(value: float) -> str:
    """Return how many times, with two significant digits below ten, whole above."""
    return f"{value:.1f}" if value < 10 else f"{value:,.0f}".replace(",", "\u202f")


def _scaled(value: float, step: float, units: tuple[str, ...]) -> str:
    index = 0
    while index + 1 < len(units) and abs(value) >= 0.9995 * step:
        value, index = value / step, index + 1
    whole = units[index] in ("B", "") or value == 0
    digits = 0 if whole else max(0, 2 - math.floor(math.log10(abs(value))))
    return _minus(f"{value:.{min(digits, 3)}f} {units[index]}".rstrip())


def _two(seconds: float, large: int, small: int, units: str) -> str:
    whole, rest = divmod(round(seconds / small), large // small)
    first, second = units.split()
    return f"{whole} {first} {rest} {second}" if rest else f"{whole} {first}"


def _minus(text: str) -> str:
    return text.replace("-", "\u2212")
