"""Spellings of units, and how to turn them into the units of the project."""

from __future__ import annotations

from topokd_edge.data.recording import UNITS

STANDARD_GRAVITY = 9.80665
"""m/s2 in one g (BIPM, The International System of Units)."""

_SPELLINGS: dict[str, tuple[str, float]] = {
    **{unit.lower(): (unit, 1.0) for unit in UNITS},
    **dict.fromkeys(("ms-2", "m.s-2", "m*s-2", "m/s/s", "mps2"), ("m/s2", 1.0)),
    "mg": ("g", 1e-3),
    **dict.fromkeys(("deg/sec", "degrees/s", "dps", "°/s", "deg.s-1"), ("deg/s", 1.0)),
    **dict.fromkeys(("mdps", "mdeg/s"), ("deg/s", 1e-3)),
    **dict.fromkeys(("rad/sec", "rads-1", "rad.s-1", "rad*s-1"), ("rad/s", 1.0)),
    "nt": ("uT", 1e-3),
    "mt": ("uT", 1e3),
    **dict.fromkeys(("gauss", "gs"), ("uT", 100.0)),
    **dict.fromkeys(("mgauss", "mgs"), ("uT", 0.1)),
    "uv": ("mV", 1e-3),
    "v": ("mV", 1e3),
    **dict.fromkeys(("beats/min", "1/min"), ("bpm", 1.0)),
    **dict.fromkeys(("°c", "celsius"), ("degC", 1.0)),
    "lx": ("lux", 1.0),
    "-": ("1", 1.0),
}
_SAME = str.maketrans({"²": "2", "µ": "u", "μ": "u", "^": None, " ": None, "⁻": "-", "₂": "2"})


_FACTORS = {("g", "m/s2"): STANDARD_GRAVITY, ("m/s2", "g"): 1 / STANDARD_GRAVITY}


def factor(unit: str, to: str) -> float | None:
    """Return what turns values in `unit` into `to`, both of `UNITS`; None where there is no rule."""
    return 1.0 if unit == to else _FACTORS.get((unit, to))


def spelled(text: str) -> tuple[str, float] | None:
    """Return the project's unit for a spelling, and the factor to it; None when it is not known.

    "G" alone is not known: it may be gravity or gauss.
    """
    if text.strip() == "G":
        return None
    return _SPELLINGS.get(text.strip().translate(_SAME).lower())
