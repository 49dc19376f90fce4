"""Boards as data: clock, memory, and what a cycle and sleep cost, each figure with its source."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

Span = tuple[float, float]
QUALITIES = ("measured", "datasheet", "derived", "unverified")
"""Of a figure: measured on the chip by somebody named; as its maker says; worked out from either; quoted from
memory of a data sheet, to be checked before anything depends on it."""
_J_PER_MWH, _S_PER_DAY = 3.6, 86_400.0


@dataclass(frozen=True)
class Board:
    """A microcontroller at one clock.

    Attributes
    ----------
    name, title
        As users write it, and as its maker does.
    core
        Name of the core, e.g. `cortex-m4`.
    clock_mhz
        Clock the figures are for.
    ram_bytes, flash_bytes
        On the chip, or in the flash beside it.
    flash_wait_states
        In words, with what hides them.
    stall
        Cycles with real memory over cycles without wait states, (least, most).
    pj_per_cycle
        Energy of the running chip, picojoules a cycle, (least, most).
    sleep_uw
        Power asleep with memory kept, microwatts, (least, most).
    quality, sources
        By figure (`clock`, `memory`, `energy`, `sleep`): how good it is, and where it is from.
    """

    name: str
    title: str
    core: str
    clock_mhz: float
    ram_bytes: int
    flash_bytes: int
    flash_wait_states: str
    stall: Span
    pj_per_cycle: Span
    sleep_uw: Span
    quality: Mapping[str, str]
    sources: Mapping[str, str]

    def latency_ms(self, cycles: Span) -> Span:
        """Return milliseconds for a range of cycles without wait states."""
        low, high = (value * stall for value, stall in zip(cycles, self.stall, strict=True))
        return low / self.clock_mhz / 1e3, high / self.clock_mhz / 1e3

    def energy_uj(self, cycles: Span) -> Span:
        """Return microjoules for a range of cycles without wait states."""
        low, high = (
            value * stall * energy
            for value, stall, energy in zip(cycles, self.stall, self.pj_per_cycle, strict=True)
        )
        return low / 1e6, high / 1e6

    def battery_days(self, energy_uj: Span, *, every_s: float, battery_mwh: float) -> Span:
        """Return how long a battery lasts for one window `every_s`, asleep in between.

        Sensor, radio and self-discharge are not in it.
        """
        joules = battery_mwh * _J_PER_MWH
        watts = [
            (energy / every_s + sleep) / 1e6 for energy, sleep in zip(energy_uj, self.sleep_uw, strict=True)
        ]
        return joules / watts[1] / _S_PER_DAY, joules / watts[0] / _S_PER_DAY

    def shortfalls(self, *, ram_bytes: int, flash_bytes: int) -> list[str]:
        """Return what does not fit, with the numbers."""
        needs = {"RAM": (ram_bytes, self.ram_bytes), "flash": (flash_bytes, self.flash_bytes)}
        return [
            f"{kind}: needs {need:,} bytes, {self.title} has {have:,}"
            for kind, (need, have) in needs.items()
            if need > have
        ]


def board_names() -> list[str]:
    """Return the names of all boards."""
    return sorted(
        item.name.removesuffix(".toml") for item in _folder().iterdir() if item.name.endswith(".toml")
    )


def open_board(name: str) -> Board:
    """Read a board.

    Raises
    ------
    ValueError
        When there is no such board, or its file lacks a figure or a source.
    """
    if name not in board_names():
        raise ValueError(f"no board {name!r}: expected one of {', '.join(board_names())}")
    return read_board(name, (_folder() / f"{name}.toml").read_text("utf-8"))


def read_board(name: str, text: str) -> Board:
    """Read a board from the text of its file.

    Raises
    ------
    ValueError
        When a figure, its quality or its source is missing, or a range is not one.
    """
    document = tomllib.loads(text)
    try:
        parts = {part: document[part] for part in ("clock", "memory", "energy", "sleep")}
        board = Board(
            name,
            document["title"],
            document["core"],
            float(parts["clock"]["mhz"]),
            int(parts["memory"]["ram_bytes"]),
            int(parts["memory"]["flash_bytes"]),
            parts["memory"]["flash_wait_states"],
            _span(parts["memory"], "stall"),
            _span(parts["energy"], "pj_per_cycle"),
            _span(parts["sleep"], "uw"),
            {part: values["quality"] for part, values in parts.items()},
            {part: values["source"] for part, values in parts.items()},
        )
    except KeyError as error:
        raise ValueError(f"board {name}: {error} is missing") from None
    wrong = sorted(set(board.quality.values()) - set(QUALITIES))
    if wrong or not all(board.sources.values()):
        raise ValueError(f"board {name}: quality {wrong}: expected {', '.join(QUALITIES)}, and a source each")
    return board


def _span(values: Mapping[str, Any], key: str) -> Span:
    low, high = values[key]
    if not 0 < low <= high:
        raise ValueError(f"{key}: expected a range above zero, found {values[key]}")
    return float(low), float(high)


def _folder() -> Any:
    return resources.files("topokd_bench") / "devices"
