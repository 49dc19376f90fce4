"""Which channels are the axes of one sensor, and which sensors sit on one piece of hardware."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_AXES = ("xyz", "XYZ")
_VECTOR_UNITS = ("g", "m/s2", "deg/s", "rad/s", "uT")
_KIND = re.compile(r"(lin|linear)?(acc|gyr|mag)[a-z]*\d*", re.IGNORECASE)
_BREAKS = re.compile(r"[_\-. ]+")


@dataclass(frozen=True, slots=True)
class Sensor:
    """A three-axis sensor, or a single channel.

    Attributes
    ----------
    name
        What its channel names have in common.
    place
        Name without the word for the kind of sensor ("wrist_acc" and "wrist_gyro" are at "wrist"): three-axis
        sensors of one place turn together. "" where a name says nothing else.
    unit
        Unit of its channels.
    channels
        Index of x, y and z, or of the one channel.
    """

    name: str
    place: str
    unit: str
    channels: tuple[int, ...]


def sensors(channels: Sequence[str], units: Sequence[str]) -> tuple[Sensor, ...]:
    """Find the sensors that channels belong to, by name and unit; every channel belongs to one.

    A three-axis sensor is three channels of one unit (g, m/s2, deg/s, rad/s or uT) whose names differ only in
    a last x, y, z. Its place is the rest of its name without a word that begins with acc, gyr or mag.
    Whether the axes of two sensors of a place really point the same way, names do not say.

    Parameters
    ----------
    channels, units
        Of a recording or window set.

    Returns
    -------
    tuple of Sensor
        In the order of their first channels.
    """
    triples = list(_triples(list(channels), list(units)))
    in_triple = {index for triple in triples for index in triple.channels}
    singles = [
        Sensor(name, name, units[index], (index,))
        for index, name in enumerate(channels)
        if index not in in_triple
    ]
    return tuple(sorted([*triples, *singles], key=lambda sensor: sensor.channels[0]))


def _triples(channels: list[str], units: list[str]) -> Iterator[Sensor]:
    for channel, unit in zip(channels, units, strict=True):
        for axes in _AXES:
            names = [channel[:-1] + axis for axis in axes]
            if channel != names[0] or unit not in _VECTOR_UNITS or not set(names) <= set(channels):
                continue
            indices = tuple(channels.index(name) for name in names)
            if {units[index] for index in indices} == {unit}:
                name = channel[:-1].rstrip("_- .")
                yield Sensor(name, _place(name), unit, indices)


def _place(name: str) -> str:
    """Return the name without its word for the kind of sensor."""
    return "_".join(word for word in _BREAKS.split(name) if not _KIND.fullmatch(word))
