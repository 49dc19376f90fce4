"""`topokd-edge report`: one HTML page that shows a run, its files and its measurements, or a search."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from topokd_edge.cli import console
from topokd_edge.errors import UsageError

if TYPE_CHECKING:
    from topokd_edge.report.inputs import Missing


def measured(folder: Path, named: Sequence[Path] = ()) -> dict[str, Any] | None:
    """Return the named answers of bench as one, or that of the run; None where nothing was measured."""
    from topokd_edge.cli._bench_documents import read_documents

    own = folder / "bench.json"
    return read_documents(named or [own]) if named or own.is_file() else None


def _sorted(places: Sequence[Path], export: Path | None = None) -> tuple[Path | None, list[Path]]:
    """Return the bundle, if there is one, and the files of results."""
    bundles = [path for path in places if path.is_dir()]
    if len(bundles) + (export is not None) > 1:
        raise UsageError(
            "the files can be those of one bundle only", hint="give one bundle, or --export, not several"
        )
    return (bundles[0] if bundles else None), [path for path in places if not path.is_dir()]


def report(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            help="The folder of a run, or of a search by tune; without one, begin with the next.",
        ),
    ],
    more: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[BUNDLE] [RESULT.json]...",
            help="A bundle, whose files to list; JSON answers of bench, of which a later one replaces "
            "the same target, pipeline and runtime of those before. [default: RUN/bench.json]",
        ),
    ] = None,
    *,
    export: Annotated[
        Path | None, typer.Option(help="JSON answer of export; RUN/export.json when it is there.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The page to write. [default: RUN/report.html; without a run report.html]"),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the page when it exists.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Write one offline HTML page about a run, or about a search: its Pareto front, values and trials.

    What a run lacks is named, with the command that makes it. A bundle or results without their run give a
    page of devices and files.

    Example: topokd-edge report runs/demo bundles/demo laptop.json watch.json --out report.html
    """
    from dataclasses import asdict

    from topokd_edge.manifest import MANIFEST
    from topokd_edge.report.build import write_report
    from topokd_edge.report.devices_page import write_devices_page
    from topokd_edge.report.tuning_page import is_search, write_search_page
    from topokd_edge.run import Run

    missing: list[Missing] = []
    if is_search(folder):
        if more or export:
            raise UsageError("bundle, results of bench and --export are for a run; this is a search")
        place = out or folder / "report.html"
        write_search_page(folder, place, overwrite=overwrite)
    elif folder.is_file() or (folder / MANIFEST).is_file():
        if export:
            raise UsageError("--export is for the report of a run; a bundle lists its files itself")
        place = out or Path("report.html")
        bundle, named = _sorted([folder, *(more or ())])
        bench = measured(folder, named) if named else None
        write_devices_page(place, bundle=bundle, bench=bench, overwrite=overwrite)
    else:
        place = out or folder / "report.html"
        bundle, named = _sorted(more or (), export)
        run, bench = Run.open(folder), measured(folder, named)
        missing = write_report(run, place, bench=bench, export=export, bundle=bundle, overwrite=overwrite)
    size = place.stat().st_size
    if json:
        lacks = [asdict(item) for item in missing]
        console.answer_json({"report": str(place), "bytes": size, "missing": lacks})
        return
    for item in missing:
        console.note(f"missing: {item.what} ({item.why}). What to do: {item.command}")
    typer.echo(f"{place}: {size / 1000:.0f} kB")
