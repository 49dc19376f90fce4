"""`topokd-edge report`: one HTML page that shows a run, its files and its measurements, or a search."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from topokd_edge.cli import console
from topokd_edge.errors import UsageError


def measured(folder: Path, named: Sequence[Path] = ()) -> dict[str, Any] | None:
    """Return the named answers of bench as one, or that of the run; None where nothing was measured."""
    from topokd_edge.cli._bench_documents import read_documents

    own = folder / "bench.json"
    return read_documents(named or [own]) if named or own.is_file() else None


def report(
    folder: Annotated[
        Path, typer.Argument(metavar="RUN", help="The folder of a run, or of a search by tune.")
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
    out: Annotated[Path | None, typer.Option(help="The page to write; RUN/report.html by default.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the page when it exists.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Write one offline HTML page about a run, or about a search: its Pareto front, values and trials.

    What a run lacks is named, with the command that makes it.

    Example: topokd-edge report runs/demo bundles/demo laptop.json watch.json --out report.html
    """
    from dataclasses import asdict

    from topokd_edge.report.build import write_report
    from topokd_edge.report.tuning_page import is_search, write_search_page
    from topokd_edge.run import Run

    place = out or folder / "report.html"
    bundles = [path for path in more or () if path.is_dir()]
    named = [path for path in more or () if not path.is_dir()]
    if is_search(folder) and (more or export):
        raise UsageError("bundle, results of bench and --export are for a run; this is a search")
    if len(bundles) + (export is not None) > 1:
        raise UsageError(
            "the files can be those of one bundle only", hint="give one bundle, or --export, not several"
        )
    if not is_search(folder):
        bundle = bundles[0] if bundles else None
        run, bench = Run.open(folder), measured(folder, named)
        missing = write_report(run, place, bench=bench, export=export, bundle=bundle, overwrite=overwrite)
    else:
        missing = []
        write_search_page(folder, place, overwrite=overwrite)
    size = place.stat().st_size
    if json:
        lacks = [asdict(item) for item in missing]
        console.answer_json({"report": str(place), "bytes": size, "missing": lacks})
        return
    for item in missing:
        console.note(f"missing: {item.what} ({item.why}). What to do: {item.command}")
    typer.echo(f"{place}: {size / 1000:.0f} kB")
