"""`topokd-edge data inspect`: what recordings hold, as a page and on the terminal, before training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from topokd_edge.cli import console

if TYPE_CHECKING:
    from topokd_edge.data.inspection import Facts, Inspected
    from topokd_edge.report.findings import Finding
    from topokd_edge.report.inspect_tables import Table

_MOST_ROWS = 60
_WORDS = {"bad": "wrong", "look": "look", "note": "note"}


def inspect_data(
    path: Annotated[
        Path, typer.Argument(metavar="W", help="A window set; with --format, a file or folder to read.")
    ],
    *,
    format_name: Annotated[
        str | None,
        typer.Option("--format", metavar="FORMAT", help="Read files, see: topokd-edge data list."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The page to write (W/inspect.html; inspect.html with --format)."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the page when it exists.")] = False,
    channels: Annotated[str | None, typer.Option(help="With --format: keep these channels: a,b,c.")] = None,
    rate: Annotated[
        float | None, typer.Option(metavar="HZ", help="With --format: the rate, as in data import.")
    ] = None,
    resample: Annotated[
        float | None, typer.Option(metavar="HZ", help="With --format: show all at this rate, if they differ.")
    ] = None,
    lost: Annotated[
        str | None, typer.Option(help="With --format: a NaN is an error (refuse) or a lost sample (gap).")
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="With --format: a CSV of label intervals.")] = None,
    subject_from: Annotated[
        str | None, typer.Option(help="With --format: folder, name:REGEX or literal:ID.")
    ] = None,
    join: Annotated[
        bool | None,
        typer.Option("--join", help="With --format: files of one folder and subject belong together."),
    ] = None,
    time: Annotated[str | None, typer.Option(help="With --format: time column and unit, as t:ms.")] = None,
    columns: Annotated[str | None, typer.Option(help="With --format: channel=column,...")] = None,
    units: Annotated[str | None, typer.Option(help="With --format: unit, or channel=unit,...")] = None,
    label: Annotated[str | None, typer.Option(help="With --format: column of the label.")] = None,
    subject: Annotated[str | None, typer.Option(help="With --format: column of the subject.")] = None,
    yes: Annotated[bool | None, typer.Option("--yes", help="With --format: take what was guessed.")] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Facts as one JSON document; a page only with --out.")
    ] = False,
) -> None:
    """Show recordings before training: signals, gaps, rates, units, labels, wear time, what is left out.

    One offline page, and its findings and tables on the terminal. Nothing is changed.

    Example: topokd-edge data inspect windows

    Example: topokd-edge data inspect study --format geneactiv --out study.html
    """
    from topokd_edge.data.inspection import facts_json, look
    from topokd_edge.files import refuse_existing
    from topokd_edge.report.findings import as_json, findings
    from topokd_edge.report.inspect_page import write_page

    flags: dict[str, Any] = {
        "channels": channels,
        "rate_hz": rate,
        "resample_hz": resample,
        "lost": lost,
        "labels": None if labels is None else str(labels),
        "subject_from": subject_from,
        "join": join,
        "time": time,
        "columns": columns,
        "units": units,
        "label": label,
        "subject": subject,
        "assume_yes": yes,
    }
    place = out or (path / "inspect.html" if format_name is None else Path("inspect.html"))
    wanted = out is not None or not json
    if wanted:
        refuse_existing(place, overwrite=overwrite)
    with _opened(path, format_name, flags) as inspected:
        facts = look(inspected)
        found = findings(inspected, facts)
        if wanted:
            write_page(inspected, facts, found, place)
        if json:
            page = str(place) if wanted else None
            console.answer_json({**facts_json(inspected, facts), "findings": as_json(found), "page": page})
        else:
            _show(inspected, facts, found)
            typer.echo(f"{place}: {place.stat().st_size / 1000:.0f} kB")


@contextmanager
def _opened(path: Path, format_name: str | None, flags: dict[str, Any]) -> Iterator[Inspected]:
    """Open a window set, or read files into a folder that is gone afterwards."""
    from tempfile import TemporaryDirectory

    from topokd_edge.data.inspection import Inspected
    from topokd_edge.data.windowset import WindowSet
    from topokd_edge.errors import UsageError

    if format_name is None:
        if said := [name for name, value in flags.items() if value is not None]:
            names = ", ".join("--" + name.replace("_hz", "").replace("_", "-") for name in said)
            raise UsageError(
                f"{names}: says how files are read, but {path} is taken as a window set",
                hint="say which files these are: --format FORMAT",
            )
        yield Inspected.of(path.name, WindowSet.open(path))
        return
    from topokd_edge.data.options import import_options
    from topokd_edge.data.prepare import import_recordings

    options = import_options(None, flags)
    with TemporaryDirectory(prefix="topokd-inspect-") as folder, console.progress() as progress:
        read = import_recordings(format_name, path, options, Path(folder), progress=progress)
        yield Inspected(path.name, read.recordings, read.made)


def _show(inspected: Inspected, facts: Facts, found: list[Finding]) -> None:
    from topokd_edge.report import inspect_tables as tables

    typer.echo("What to look at first" if found else "Nothing stands out.")
    for item in found:
        typer.echo(f"  {_WORDS[item.tone]}: {item.title}")
        for line in item.details:
            typer.echo(f"    - {line}")
    typer.echo()
    clocks = tables.clocks_table(inspected)
    if clocks is not None and len({row[0] for row in clocks.rows}) == len(clocks.rows):
        clocks = clocks.without(1)
    norms = tables.norms_table(tables.norm_rows(inspected, facts))
    shown = (
        clocks,
        norms if norms.rows else None,
        tables.classes_table(facts),
        tables.wear_table(inspected, facts),
        tables.dropped_table(inspected),
    )
    for table in shown:
        if table is not None:
            _print(table)


def _print(table: Table) -> None:
    rows = table.rows[:_MOST_ROWS]
    if len(table.rows) > len(rows):
        rows = [*rows, [f"and {len(table.rows) - len(rows)} more", *[""] * (len(table.columns) - 1)]]
    console.table(table.title, table.columns, rows)
