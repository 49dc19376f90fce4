"""A page about a bundle and its measurements alone, for those who have not the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from topokd_edge import __version__
from topokd_edge.files import refuse_existing, write_text
from topokd_edge.report import device, numbers
from topokd_edge.report.inputs import bundle_files, reading
from topokd_edge.report.page import render

TEMPLATE = "devices.html.j2"


def write_devices_page(
    out: Path, *, bundle: Path | None = None, bench: dict[str, Any] | None = None, overwrite: bool = False
) -> None:
    """Write what a bundle holds and what was measured of it as one HTML file that needs no network.

    Parameters
    ----------
    out
        The file to write, whole or not at all.
    bundle
        The bundle whose files to list.
    bench
        The answer of `bench`, or several as one.
    overwrite
        Replace `out` when it exists.

    Raises
    ------
    BadInputError
        When `out` exists and `overwrite` is false, or bundle or answer are damaged.
    """
    refuse_existing(out, overwrite=overwrite)
    export = None if bundle is None else bundle_files(bundle)
    with reading("the results of bench"):
        page = {
            "title": f"{bundle.resolve().name}: what it costs on devices"
            if bundle
            else "What it costs on devices",
            "version": __version__,
            "sentences": _sentences(bench, export),
            "bench": None if bench is None else device.bench_section(bench),
            "export": None if export is None else device.export_section(export),
        }
    write_text(out, render(TEMPLATE, page))


def _sentences(bench: dict[str, Any] | None, export: dict[str, Any] | None) -> list[str]:
    said = [] if bench else ["Nothing was measured yet: topokd-edge bench does."]
    if export and (file := device.int8_file(export)):
        said.append(f"The int8 model file takes {numbers.size(file['bytes'])}.")
    return said
