"""`topokd-edge data`: recordings to window sets, and audits of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from topokd_edge.cli import console
from topokd_edge.cli._import_shown import show_import
from topokd_edge.cli.fetch import fetch_data
from topokd_edge.cli.inspect import inspect_data

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]


app.command("fetch")(fetch_data)
app.command("inspect")(inspect_data)


@app.callback()
def _data() -> None:
    """Fetch public sets, import recordings as windows, look at the result, and audit it."""


@app.command("list")
def list_formats(*, json: Json = False) -> None:
    """List what can be imported.

    Example: topokd-edge data list
    """
    from topokd_edge.data.importers import IMPORTERS

    if json:
        formats = [{"format": name, "description": item.description} for name, item in IMPORTERS.items()]
        console.answer_json({"formats": formats})
        return
    rows = [[name, item.description] for name, item in IMPORTERS.items()]
    console.table("Formats for topokd-edge data import", ["format", "what it is"], rows)


@app.command("import")
def import_data(
    format_name: Annotated[str, typer.Argument(metavar="FORMAT", help="See: topokd-edge data list")],
    path: Annotated[
        Path | None, typer.Argument(metavar="[PATH]", help="File, folder or archive; not for a shipped set.")
    ] = None,
    *,
    out: Annotated[Path, typer.Option(help="Folder of the window set to make.")],
    preset: Annotated[
        str | None, typer.Option(help="Options from a shipped preset or a .toml file; flags win.")
    ] = None,
    seconds: Annotated[float | None, typer.Option(help="Length of a window in seconds (2.56).")] = None,
    overlap: Annotated[
        float | None, typer.Option(help="Share that the next window repeats, 0 to below 1 (0.5).")
    ] = None,
    label_rule: Annotated[
        str | None,
        typer.Option(help="Label of a window: all samples agree (default), majority, last, or ends."),
    ] = None,
    majority: Annotated[float | None, typer.Option(help="Smallest share for majority (0.75).")] = None,
    transitions: Annotated[
        bool | None,
        typer.Option("--keep-transitions/--drop-transitions", help="Windows with two labels (keep)."),
    ] = None,
    drop_labels: Annotated[str | None, typer.Option(help="Labels to treat as absent: a,b.")] = None,
    min_subjects_per_class: Annotated[
        int | None, typer.Option(min=0, help="Leave out classes that fewer subjects have.")
    ] = None,
    channels: Annotated[
        str | None, typer.Option(help="Keep these channels: a,b,c (default: the format's choice).")
    ] = None,
    resample: Annotated[
        float | None, typer.Option(metavar="HZ", help="Bring all to this rate, with an anti-alias filter.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(metavar="HZ", help="The rate, where the file is wrong or silent.")
    ] = None,
    lost: Annotated[
        str | None, typer.Option(help="A NaN is an error (refuse, default) or a lost sample (gap).")
    ] = None,
    fill_seconds: Annotated[
        float | None, typer.Option(help="Interpolate gaps up to this long; counted per window (0).")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Label intervals: a CSV with start,end,label and subject or file.")
    ] = None,
    leave_out: Annotated[
        str | None,
        typer.Option(help="Recordings not to read, by the names shown; * and ? as in a shell."),
    ] = None,
    subject_from: Annotated[
        str | None, typer.Option(help="Who: folder, name:REGEX on the file name, or literal:ID.")
    ] = None,
    join: Annotated[
        bool | None,
        typer.Option("--join", help="Files of one folder and subject are one recording's sensors."),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(help="csv, parquet: time column and unit, as t:ms (s ms us ns iso); or none."),
    ] = None,
    columns: Annotated[
        str | None, typer.Option(help="csv, parquet: channel=column,... by name or number from 1.")
    ] = None,
    units: Annotated[
        str | None, typer.Option(help="Unit of all channels, or channel=unit,... where files do not say.")
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="csv, parquet: column of the label. wfdb: beats or rhythm.")
    ] = None,
    subject: Annotated[str | None, typer.Option(help="csv, parquet: column of the subject.")] = None,
    yes: Annotated[bool | None, typer.Option("--yes", help="Take what was guessed of the columns.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Recordings read at a time.")] = 1,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing --out.")] = False,
    json: Json = False,
) -> None:
    """Import recordings, clean and check them, and cut them into windows.

    Nothing is filled, resampled or guessed unless it is asked for; what is left out is told with its reason.

    Example: topokd-edge data import shoulder-watch --out windows --seconds 2.56 --overlap 0.5

    Example: topokd-edge data import csv study --out windows --time t:ms --units g --label activity
    --subject-from folder
    """
    from topokd_edge.data.options import import_options
    from topokd_edge.data.prepare import import_windows
    from topokd_edge.errors import BadInputError
    from topokd_edge.files import refuse_existing

    refuse_existing(out, overwrite=overwrite)
    flags = {
        "seconds": seconds,
        "overlap": overlap,
        "label_rule": label_rule,
        "majority": majority,
        "transitions": transitions,
        "drop_labels": drop_labels,
        "min_subjects_per_class": min_subjects_per_class,
        "channels": channels,
        "resample_hz": resample,
        "rate_hz": rate,
        "lost": lost,
        "fill_seconds": fill_seconds,
        "labels": None if labels is None else str(labels),
        "leave_out": leave_out,
        "subject_from": subject_from,
        "join": join,
        "time": time,
        "columns": columns,
        "units": units,
        "label": label,
        "subject": subject,
        "assume_yes": yes,
    }
    options = import_options(preset, flags)
    try:
        with console.progress() as progress:
            windows = import_windows(
                format_name, path, options, out=out, overwrite=overwrite, jobs=jobs, progress=progress
            )
    except BadInputError as error:
        if json:
            refused = {"file": str(path or format_name), "reason": str(error)}
            console.answer_json({"recordings": [], "refused": [refused]})
        raise
    if json:
        from topokd_edge.data.account import account

        console.answer_json({**account(windows), "out": str(out)})
    else:
        show_import(windows, out)


@app.command("audit")
def audit_data(
    path: Annotated[Path, typer.Argument(metavar="W", help="A window set.")],
    *,
    split: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC",
            help="folds=5,validation=1,seed=0 (default), leave-one-out, or a .toml file with [[fold]].",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Prove that a split by subject tests on nothing it was fitted on, and that classes can be learned.

    Example: topokd-edge data audit windows --split folds=5,validation=1

    Example: topokd-edge data audit windows --split leave-one-out
    """
    from topokd_edge.cli import _audit_shown
    from topokd_edge.data.audit import audit
    from topokd_edge.data.split import default_split, parse_split
    from topokd_edge.data.windowset import WindowSet

    windows = WindowSet.open(path)
    if split is None:
        chosen = default_split(windows)
        console.note(f"split: {chosen.name} (choose another with --split)")
    else:
        chosen = parse_split(split)
    folds = chosen.deal(windows)
    done = audit(windows, folds)
    if json:
        _audit_shown.answer(done, folds)
    else:
        _audit_shown.show(done, folds)
    done.require()
