"""`topokd-edge data fetch`: a public data set from its own home, on request."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from topokd_edge.cli import console

if TYPE_CHECKING:
    from topokd_edge.data.fetch import Fetched
    from topokd_edge.data.sources import Source


def fetch_data(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="The data set; without it, what there is.")
    ] = None,
    *,
    to: Annotated[Path, typer.Option(help="Folder to put NAME.zip into.")] = Path(),
    url: Annotated[str | None, typer.Option(help="Download from this mirror (https) instead.")] = None,
    sha256: Annotated[str | None, typer.Option(help="The SHA-256 that the file must have.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="The licence is accepted; do not ask.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Download though the file is there.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Download a public data set from its own home, after you have seen its licence.

    Example: topokd-edge data fetch pamap2 --to downloads
    """
    if name is None:
        _show_sources(json=json)
        return
    from topokd_edge.data.fetch import already_there, check_order, fetch
    from topokd_edge.data.sources import source as source_named

    source = source_named(name)
    address = check_order(source, url, sha256)
    for line in (source.title, f"licence: {source.licence}", f"cite: {source.citation}"):
        console.note(line)
    fetched = already_there(source, to, sha256, overwrite=overwrite)
    if fetched is None:
        if not (sha256 or source.sha256):
            console.note(
                "no SHA-256 of this file is known, so that it cannot be verified: "
                "the first download is trusted, its hash is kept, and later ones are compared with it"
            )
        _confirm(source, address, yes=yes)
        try:
            with console.progress() as progress:
                fetched = fetch(
                    source, to, url=address, sha256=sha256, overwrite=overwrite, progress=progress
                )
        except KeyboardInterrupt:
            console.note("what came so far is kept: the same command goes on from there")
            raise
    _show_fetched(fetched, json=json)


def _confirm(source: Source, address: str, *, yes: bool) -> None:
    """Ask before anything goes over the network."""
    from topokd_edge.errors import UsageError

    size = f", about {source.about_mb} MB" if source.about_mb else ""
    console.note(f"from: {address}{size}")
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError("nothing was downloaded: the licence above has to be accepted", hint="add --yes")
    if not typer.confirm("Download under this licence?", err=True):
        raise UsageError("nothing was downloaded: the licence was not accepted")


def _show_fetched(fetched: Fetched, *, json: bool) -> None:
    source = fetched.source
    if json:
        console.answer_json(
            {
                "name": source.name,
                "file": str(fetched.file),
                "bytes": fetched.bytes,
                "sha256": fetched.sha256,
                "verified": fetched.verified,
                "basis": fetched.basis,
                "downloaded": fetched.downloaded,
                "licence": source.licence,
                "citation": source.citation,
                "import": fetched.import_command,
            }
        )
        return
    rows = [
        ["file", f"{fetched.file}, {fetched.bytes:,} bytes" + ("" if fetched.downloaded else ", was there")],
        ["SHA-256", fetched.sha256],
        ["verified", f"{'yes' if fetched.verified else 'no'}: {fetched.basis}"],
        ["next", fetched.import_command],
    ]
    console.table(f"Data set {source.name}", ["what", "value"], rows)


def _show_sources(*, json: bool) -> None:
    from dataclasses import asdict

    from topokd_edge.data.sources import SOURCES

    if json:
        console.answer_json({"sources": [asdict(source) for source in SOURCES.values()]})
        return
    rows = [
        [
            source.name,
            source.title,
            f"about {source.about_mb} MB" if source.about_mb else "not known",
            source.licence,
        ]
        for source in SOURCES.values()
    ]
    console.table("Data sets for topokd-edge data fetch", ["name", "what it is", "size", "licence"], rows)
