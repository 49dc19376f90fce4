"""Does a recording fit the student: its channels, their units, its rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from topokd_edge.bundle import Manifest, same_rate
from topokd_edge.data.clean import Cleaning
from topokd_edge.data.importers import Importer
from topokd_edge.data.prepare import Plan
from topokd_edge.data.recording import Recording
from topokd_edge.data.stream import Stream
from topokd_edge.data.units import factor
from topokd_edge.errors import BadInputError, UsageError

_MOST = 10
_HINTS = {
    "channel": "where the file only calls them otherwise, say so: --channels STUDENT=FILE,...",
    "unit": "import the quantity that the student was trained on",
    "rate": "--resample brings the recording to the student's rate",
}


def channels_in_file(manifest: Manifest, renamed: str) -> tuple[str, ...]:
    """Return the file's names of the student's channels, in the student's order.

    Parameters
    ----------
    manifest
        Of the bundle.
    renamed
        `STUDENT=FILE,...` where the names differ; the others are the same.

    Raises
    ------
    UsageError
        When it is not of this form, names no channel of the student, or takes one of the file twice.
    """
    pairs = [part.partition("=") for part in renamed.split(",") if part.strip()]
    names = {left.strip(): right.strip() for left, _, right in pairs}
    problems = [
        f"{left}{sign}{right}: expected STUDENT=FILE" for left, sign, right in pairs if not right.strip()
    ]
    problems += [
        f"the student has no channel {name!r}" for name in names if name not in manifest.channel_names
    ]
    wanted = tuple(names.get(name, name) for name in manifest.channel_names)
    problems += [f"{name!r} is taken twice" for name in dict.fromkeys(wanted) if wanted.count(name) > 1]
    if problems:
        raise UsageError(
            f"--channels {renamed}: not usable",
            problems=problems,
            hint=f"the student's channels are {', '.join(manifest.channel_names)}",
        )
    return wanted


def plan_for(manifest: Manifest, channels: Sequence[str], only: str | None, *, resample: bool) -> Plan:
    """Return the plan of an import that reads what the student takes, and refuses what does not fit.

    Parameters
    ----------
    manifest
        Of the bundle.
    channels
        The file's names of the student's channels.
    only
        Read only the recordings called so, as by `fnmatch`; None reads all.
    resample
        A recording of another rate will be brought to the student's.
    """

    def plan(_: Importer, streams: tuple[Stream, ...], cleaning: Cleaning) -> list[tuple[Stream, Cleaning]]:
        kept = [item for item in streams if only is None or fnmatchcase(item.source, only)]
        if streams and not kept:
            there = ", ".join(item.source for item in streams[:5])
            more = " ..." if len(streams) > 5 else ""
            raise UsageError(f"--only {only}: no recording is called so; there are {there}{more}")
        found: dict[tuple[str, str], list[str]] = {}
        for stream in kept:
            rate = None if resample else cleaning.rate_hz or stream.rate_hz
            for misfit in _misfits(manifest, stream, channels, rate):
                found.setdefault(misfit, []).append(stream.source)
        _refuse(manifest, found)
        return [(stream, replace(cleaning, channels=tuple(channels))) for stream in kept]

    return plan


def refuse_other_rates(manifest: Manifest, recordings: Sequence[Recording]) -> None:
    """Raise BadInputError for recordings whose time stamps give another rate than the student's."""
    found: dict[tuple[str, str], list[str]] = {}
    for item in recordings:
        for misfit in _rate_misfits(manifest, item.rate_hz):
            found.setdefault(misfit, []).append(item.source)
    _refuse(manifest, found)


def _misfits(
    manifest: Manifest, stream: Stream, channels: Sequence[str], rate_hz: float | None
) -> list[tuple[str, str]]:
    """Return what does not fit, as (kind, words)."""
    units = dict(zip(stream.channels, stream.units, strict=True))
    missing = [name for name in channels if name not in units]
    found = []
    if missing:
        has = ", ".join(f"{name} [{unit}]" for name, unit in units.items())
        found.append(("channel", f"no channel {', '.join(missing)}; it has {has}"))
    for name, expected in zip(channels, manifest.units, strict=True):
        if name in units and factor(units[name], expected) is None:
            found.append(("unit", f"channel {name} is in {units[name]}, the student takes {expected}"))
    return found + ([] if rate_hz is None else _rate_misfits(manifest, rate_hz))


def _rate_misfits(manifest: Manifest, rate_hz: float) -> list[tuple[str, str]]:
    if same_rate(rate_hz, manifest.rate_hz):
        return []
    return [("rate", f"{rate_hz:.6g} Hz, the student takes {manifest.rate_hz:.6g} Hz")]


def _refuse(manifest: Manifest, found: Mapping[tuple[str, str], list[str]]) -> None:
    if not found:
        return
    problems = [
        f"{where[0]}{f' and {len(where) - 1} more' if len(where) > 1 else ''}: {words}"
        for (_, words), where in list(found.items())[:_MOST]
    ]
    takes = ", ".join(f"{n} [{u}]" for n, u in zip(manifest.channel_names, manifest.units, strict=True))
    raise BadInputError(
        f"the recording does not fit the student, which takes {takes} at {manifest.rate_hz:.6g} Hz",
        problems=problems,
        hint="; ".join(dict.fromkeys(_HINTS[kind] for kind, _ in found)),
    )
