"""Which columns of a table are what: as the user or the header states it, or as a guess to confirm."""

from __future__ import annotations

import math
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from topokd_edge.data.importers import _table_block as block
from topokd_edge.data.importers import _table_guess
from topokd_edge.data.importers._table_guess import Look
from topokd_edge.data.importers._table_values import TIME_UNITS
from topokd_edge.data.recording import UNITS
from topokd_edge.data.stream import ReadOptions
from topokd_edge.data.units import spelled
from topokd_edge.errors import UsageError


class Table(Protocol):
    """What a plan needs to know of a table."""

    @property
    def path(self) -> Path: ...
    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def header(self) -> bool: ...
    @property
    def rows(self) -> tuple[tuple[str, ...], ...]: ...


@dataclass(frozen=True, slots=True)
class Plan:
    """Which columns are read as what; columns are numbered from 0.

    Attributes
    ----------
    time, time_unit
        Column of the time stamps, None when there is none, and its unit (s, ms, us, ns, iso).
    channels, columns, units, factors
        Of each channel: name, column, unit of the project, and what to multiply the column by.
    label, subject
        Columns; None when there is none.
    notes
        What a person should know, guesses that were taken among it.
    """

    time: int | None
    time_unit: str
    channels: tuple[str, ...]
    columns: tuple[int, ...]
    units: tuple[str, ...]
    factors: tuple[float, ...]
    label: int | None
    subject: int | None
    notes: tuple[str, ...]


@dataclass(slots=True)
class _Draft:
    """A plan in the making; `guessed` names the flags that nobody stated."""

    time: int | None = None
    time_unit: str = ""
    channels: list[tuple[str, int]] = field(default_factory=list)
    units: dict[str, str] = field(default_factory=dict)
    guessed: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def plan(table: Table, options: ReadOptions) -> Plan:
    """Decide which columns are what.

    Raises
    ------
    UsageError
        When an option names a column, channel or unit that there is not; and, showing the guess and the
        options that state it, when something that matters is stated by neither the user nor the file.
    """
    looks = _table_guess.look(table.names, table.rows, table.path.name.split(".")[0])
    rate = options.rate_hz
    if rate is not None and not (math.isfinite(rate) and rate > 0):
        raise UsageError(f"--rate {rate}: expected a positive number of Hz")
    label = _column(table, "--label", options.label) if options.label else None
    subject = _column(table, "--subject", options.subject) if options.subject else None
    draft = _Draft()
    _plan_time(draft, table, looks, options)
    taken = {column for column in (label, subject, draft.time) if column is not None}
    _plan_channels(draft, table, looks, options, taken)
    _plan_units(draft, table, looks, options)
    if draft.missing or (draft.guessed and not options.assume_yes):
        raise _ask(draft, table, options)
    if draft.guessed:
        draft.notes.append(f"guessed: {' '.join(_flags(draft, table, draft.guessed))}")
    units = [spelled(draft.units[name]) or ("1", 1.0) for name, _ in draft.channels]
    return Plan(
        time=draft.time,
        time_unit=draft.time_unit,
        channels=tuple(name for name, _ in draft.channels),
        columns=tuple(column for _, column in draft.channels),
        units=tuple(unit for unit, _ in units),
        factors=tuple(factor for _, factor in units),
        label=label,
        subject=subject,
        notes=tuple(draft.notes),
    )


def _plan_time(draft: _Draft, table: Table, looks: list[Look], options: ReadOptions) -> None:
    """Find the column of time and its unit."""
    if options.time == "none":
        if options.rate_hz is None:
            raise UsageError("--time none: without time stamps the rate must be stated", hint="add --rate HZ")
        return
    if options.time is not None:
        name, _, unit = options.time.rpartition(":")
        if not name or unit not in (*TIME_UNITS, "iso"):
            raise UsageError(
                f"--time {options.time!r}: expected COLUMN:UNIT with one of the units "
                f"{', '.join(TIME_UNITS)}, iso; or none"
            )
        draft.time, draft.time_unit = _column(table, "--time", name), unit
        return
    candidates = [index for index, item in enumerate(looks) if item.time]
    if not candidates:
        if options.rate_hz is None:
            draft.missing.append("no column looks like time: --time COLUMN:UNIT, or --time none --rate HZ")
        return
    draft.time = candidates[0]
    stated = looks[draft.time].time_unit
    draft.time_unit = stated or _table_guess.time_unit(table.rows, draft.time)
    if not stated or len(candidates) > 1:
        draft.guessed.append("--time")


def _plan_channels(
    draft: _Draft, table: Table, looks: list[Look], options: ReadOptions, taken: set[int]
) -> None:
    """Find which columns are channels."""
    if options.columns is not None:
        for item in options.columns.split(","):
            name, equals, column = (part.strip() for part in item.partition("="))
            if not (name and equals and column):
                raise UsageError(f"--columns {item!r}: expected channel=column")
            draft.channels.append((name, _column(table, "--columns", column)))
        names = [name for name, _ in draft.channels]
        if len(set(names)) < len(names):
            raise UsageError(f"--columns {options.columns}: a channel is named twice")
        return
    free = [index for index, item in enumerate(looks) if not (index in taken or item.time or item.blank)]
    with_unit = [index for index in free if looks[index].unit]
    chosen = with_unit or [index for index in free if looks[index].quantity]
    draft.channels = [(looks[index].name, index) for index in chosen]
    names = [name for name, _ in draft.channels]
    if len(set(names)) < len(names):
        draft.channels = [(f"{name}_{index + 1}", index) for name, index in draft.channels]
    if not chosen:
        draft.missing.append("no column could be told to be a channel: --columns channel=column,...")
    elif chosen != free or not with_unit or len(set(names)) < len(names):
        draft.guessed.append("--columns")


def _plan_units(draft: _Draft, table: Table, looks: list[Look], options: ReadOptions) -> None:
    """Find the unit of each channel."""
    stated = _stated_units(options.units, [name for name, _ in draft.channels], table.path)
    for name, column in draft.channels:
        if name in stated:
            draft.units[name] = stated[name]
            header = looks[column].unit
            if header and spelled(header) != spelled(stated[name]):
                draft.notes.append(f"{name}: read in {stated[name]} as stated; the header says {header}")
        elif looks[column].unit:
            draft.units[name] = looks[column].unit
        else:
            guess = _table_guess.unit(looks, table.rows, column)
            draft.units[name] = guess or "UNIT"
            if not guess:
                draft.missing.append(f"the unit of {name}: --units {name}=UNIT, one of {', '.join(UNITS)}")
            elif "--units" not in draft.guessed:
                draft.guessed.append("--units")


def _stated_units(text: str | None, channels: list[str], path: Path) -> dict[str, str]:
    """Read `--units`: one for all channels, or by channel, or by the name of a file before its first dot."""
    if text is None:
        return {}
    pairs = [item.partition("=") for item in text.split(",")]
    if len(pairs) == 1 and not pairs[0][1]:
        found = dict.fromkeys(channels, text.strip())
    else:
        found = {name.strip(): unit.strip() for name, _, unit in pairs}
    files = {item.name.split(".")[0] for item in path.parent.iterdir()} - set(channels)
    whole = found.get(path.name.split(".")[0])
    problems = [f"unit {unit!r} is not known" for unit in dict.fromkeys(found.values()) if not spelled(unit)]
    problems += [f"there is no channel {name!r}" for name in found if name not in (*channels, *files)]
    if problems:
        raise UsageError(
            f"--units {text}: expected one unit for all, or channel=unit,...",
            problems=problems,
            hint=f"units: {', '.join(UNITS)}, mg, dps, gauss; channels: {', '.join(channels) or 'none'}",
        )
    by_file = {} if whole is None else dict.fromkeys(channels, whole)
    return by_file | {name: unit for name, unit in found.items() if name in channels}


def _column(table: Table, option: str, text: str) -> int:
    """Return the column of that name, or else of that number from 1."""
    text = text.strip()
    found = [index for index, name in enumerate(table.names) if name == text]
    if len(found) > 1:
        numbers = " or ".join(str(index + 1) for index in found)
        raise UsageError(
            f"{option} {text}: {table.path} has that column {len(found)} times", hint=f"say {numbers}"
        )
    if found:
        return found[0]
    if re.fullmatch(r"\d{1,6}", text, re.ASCII) and 1 <= int(text) <= len(table.names):
        return int(text) - 1
    known = ", ".join(name for name in table.names if name) or "no named columns"
    raise UsageError(
        f"{option} {text}: {table.path} has no such column",
        hint=f"it has {known[:1000]}; or say a number from 1 to {len(table.names)}",
    )


def _flags(draft: _Draft, table: Table, which: list[str]) -> list[str]:
    """Write options that state the draft; columns by number, as their names may not be unique.

    Names are said where they are numbers themselves.
    """
    found = []
    numbers = [str(index + 1) for index in range(len(table.names))]
    shown = table.names if set(numbers) & set(table.names) else numbers
    for flag in which:
        if flag == "--time":
            value = "none" if draft.time is None else f"{shown[draft.time]}:{draft.time_unit}"
        elif flag == "--columns":
            value = ",".join(f"{name}={shown[column]}" for name, column in draft.channels)
        else:
            value = ",".join(f"{name}={draft.units[name]}" for name, _ in draft.channels)
        found.append(f"{flag} {shlex.quote(value)}")
    return found


def _ask(draft: _Draft, table: Table, options: ReadOptions) -> UsageError:
    """Return the question: what would be read as what, and the options that say so."""
    called = [block.called(index + 1, name) for index, name in enumerate(table.names)]
    lines = [] if table.header else ["the table has no header; columns have numbers from 1"]
    if draft.time is not None:
        lines.append(f"time = {called[draft.time]} in {draft.time_unit}")
    lines += [f"{name} = {called[column]} in {draft.units[name]}" for name, column in draft.channels]
    used = {draft.time, *(column for _, column in draft.channels)}
    rest = [text for index, text in enumerate(called) if index not in used]
    if rest:
        more = ", ..." if len(rest) > 20 else ""
        lines.append(f"not channels: {', '.join(rest[:20])}{more} (--label and --subject name such columns)")
    wanted = ["--time"] if draft.time is not None and options.time is None else []
    wanted += ["--columns"] if draft.channels and options.columns is None else []
    wanted += ["--units"] if draft.channels and options.units is None else []
    flags = " ".join(_flags(draft, table, wanted)) or "--columns channel=column,... --units channel=unit,..."
    lines += [f"must be stated: {item}" for item in draft.missing]
    how = f"state it: {flags}" if draft.missing else f"say --yes to take this, or state it: {flags}"
    return UsageError(
        f"{table.path}: what its columns mean is not stated; it looks like", problems=lines, hint=how
    )
