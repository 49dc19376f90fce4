"""Readers of recordings: one module per format, each returning a list of Recording."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from topokd_edge.data.importers import npz, shoulder_watch
from topokd_edge.data.recording import Recording
from topokd_edge.errors import UsageError


@dataclass(frozen=True, slots=True)
class Importer:
    """How one format is read.

    Attributes
    ----------
    description
        One line for a person.
    read
        From a path (None: the format brings its own data) to recordings.
    about
        From the same path to (credit, licence) of the data, "unknown" where it is not stated.
    """

    description: str
    read: Callable[[Path | None], list[Recording]]
    about: Callable[[Path | None], tuple[str, str]]


IMPORTERS: dict[str, Importer] = {
    "shoulder-watch": Importer(
        "7 shoulder exercises, 10 people, smartwatch acc + gyro at 50 Hz; shipped in the package seglearn",
        shoulder_watch.read,
        lambda _: (shoulder_watch.CREDIT, shoulder_watch.LICENCE),
    ),
    "npz": Importer(
        "labelled recordings as integer counts with scale and offset, one .npz file", npz.read, npz.about
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
