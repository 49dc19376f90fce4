"""Readers of recordings: one module per format, each turning a path into streams."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from topokd_edge.data.importers import npz, shoulder_watch
from topokd_edge.data.stream import Opened, ReadOptions
from topokd_edge.errors import UsageError


def _unknown(_: Path | None) -> tuple[str, str]:
    return "unknown", "unknown"


@dataclass(frozen=True, slots=True)
class Importer:
    """How one format is read.

    Attributes
    ----------
    description
        One line for a person.
    open
        From a path (None: the format brings its own data) and the user's options to streams. Every file is
        looked at so far that a wrong one is refused here; samples are read later, chunk by chunk.
    about
        From the same path to (credit, licence) of the data, "unknown" where it is not stated.
    uses
        Names of the options in `ReadOptions` that this format listens to.
    archives
        Suffixes of archives that may be given instead of a folder; they are unpacked before `open`.
    channels
        The channels that are kept when the user names none; empty keeps all.
    """

    description: str
    open: Callable[[Path | None, ReadOptions], Opened]
    about: Callable[[Path | None], tuple[str, str]] = _unknown
    uses: frozenset[str] = frozenset()
    archives: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()


IMPORTERS: dict[str, Importer] = {
    "shoulder-watch": Importer(
        "7 shoulder exercises, 10 people, smartwatch acc + gyro at 50 Hz; shipped in the package seglearn",
        shoulder_watch.open_streams,
        lambda _: (shoulder_watch.CREDIT, shoulder_watch.LICENCE),
    ),
    "npz": Importer(
        "labelled recordings as integer counts with scale and offset, one .npz file",
        npz.open_streams,
        npz.about,
        archives=(".npz",),
    ),
}


def importer(name: str) -> Importer:
    """Return the importer of a format.

    Raises
    ------
    UsageError
        When there is none of that name; the message lists those there are.
    """
    if name not in IMPORTERS:
        raise UsageError(
            f"FORMAT {name!r}: unknown, expected one of {', '.join(IMPORTERS)}",
            hint="topokd-edge data list says what each is",
        )
    return IMPORTERS[name]
