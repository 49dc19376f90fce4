"""Readers of recordings: one module per format, each turning a path into streams."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from topokd_edge.data.importers import (
    actigraph,
    axivity,
    dsads,
    geneactiv,
    geneactiv_csv,
    npz,
    pamap2,
    published,
    shoulder_watch,
    table,
    uea_ts,
    usc_had,
    wfdb_records,
)
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
    suffix
        Files named so are taken as of this format when the user names none; empty for none.
    """

    description: str
    open: Callable[[Path | None, ReadOptions], Opened]
    about: Callable[[Path | None], tuple[str, str]] = _unknown
    uses: frozenset[str] = frozenset()
    archives: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    suffix: str = ""


def _credit(module: Any) -> Callable[[Path | None], tuple[str, str]]:
    return lambda _: (module.CREDIT, module.LICENCE)


_TABLE = frozenset({"time", "columns", "units", "label", "subject"})

IMPORTERS: dict[str, Importer] = {
    "shoulder-watch": Importer(
        "7 shoulder exercises, 10 people, smartwatch acc + gyro at 50 Hz; shipped in the package seglearn",
        shoulder_watch.open_streams,
        _credit(shoulder_watch),
    ),
    "geneactiv": Importer(
        "GENEActiv .bin files, old and new firmware",
        geneactiv.open_streams,
        channels=geneactiv.DEFAULT_CHANNELS,
        suffix=".bin",
    ),
    "geneactiv-csv": Importer(
        "the .csv export of the GENEActiv PC Software",
        geneactiv_csv.open_streams,
        channels=geneactiv_csv.DEFAULT_CHANNELS,
    ),
    "axivity": Importer("Axivity AX3 and AX6 .cwa files", axivity.open_streams, suffix=".cwa"),
    "actigraph": Importer("ActiGraph .gt3x files", actigraph.open_streams, suffix=".gt3x"),
    "pamap2": Importer(
        "PAMAP2 protocol files, 9 people, 18 activities, 3 IMUs at 100 Hz: folder or the original archive",
        pamap2.open_streams,
        _credit(pamap2),
        archives=(".zip",),
        channels=pamap2.DEFAULT_CHANNELS,
    ),
    "pamap2-published": Importer(
        "PAMAP2 with the preprocessing of the published numbers, oddities included; for comparison only",
        published.open_streams,
        _credit(published),
        archives=(".zip",),
    ),
    "dsads": Importer(
        "Daily and Sports Activities, 8 people, 19 activities, 5 IMUs at 25 Hz: folder or archive",
        dsads.open_streams,
        _credit(dsads),
        archives=(".zip",),
    ),
    "usc-had": Importer(
        "USC-HAD .mat files, 14 people, 12 activities, hip IMU at 100 Hz: folder or archive",
        usc_had.open_streams,
        _credit(usc_had),
        archives=(".zip",),
    ),
    "uea": Importer(
        "UEA and aeon .ts files; say the rate with --rate",
        uea_ts.open_streams,
        uses=frozenset({"units"}),
        archives=(".zip",),
        suffix=".ts",
    ),
    "wfdb": Importer(
        "WFDB records (.hea, .dat) with beat or rhythm annotations, as ECG",
        wfdb_records.open_streams,
        uses=frozenset({"label"}),
        archives=(".zip",),
        suffix=".hea",
    ),
    "csv": Importer("any CSV file or a folder of them", table.open_csv, uses=_TABLE, suffix=".csv"),
    "parquet": Importer(
        "any Parquet file or a folder of them", table.open_parquet, uses=_TABLE, suffix=".parquet"
    ),
    "npz": Importer(
        "labelled recordings as integer counts with scale and offset, one .npz file",
        npz.open_streams,
        npz.about,
        archives=(".npz",),
        suffix=".npz",
    ),
}


def format_of(path: Path) -> str:
    """Return the format that files named like `path` usually have.

    Raises
    ------
    UsageError
        When the name does not tell.
    """
    for name, item in IMPORTERS.items():
        if item.suffix and path.suffix.lower() == item.suffix:
            return name
    raise UsageError(
        f"{path}: its name does not tell the format", hint="say it with --format; see: topokd-edge data list"
    )


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
