"""`topokd-edge data`: recordings to window sets, and audits of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from topokd_edge.cli import console

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]


@app.callback()
def _data() -> None:
    """Import recordings as windows, and audit the result."""


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
        Path | None, typer.Argument(metavar="[PATH]", help="The file; not for a shipped set.")
    ] = None,
    *,
    out: Annotated[Path, typer.Option(help="Folder of the window set to make.")],
    seconds: Annotated[float, typer.Option(help="Length of a window in seconds.")] = 2.56,
    overlap: Annotated[float, typer.Option(help="Share that the next window repeats, 0 to below 1.")] = 0.5,
    channels: Annotated[str, typer.Option(help="Keep these channels: a,b,c (default: all).")] = "",
    min_subjects_per_class: Annotated[
        int, typer.Option(min=0, help="Leave out classes that fewer subjects have.")
    ] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing --out.")] = False,
    json: Json = False,
) -> None:
    """Import recordings, check them, and cut them into windows.

    Example: topokd-edge data import shoulder-watch --out windows --seconds 2.56 --overlap 0.5
    """
    from topokd_edge.data.prepare import import_windows
    from topokd_edge.errors import BadInputError
    from topokd_edge.files import refuse_existing

    refuse_existing(out, overwrite=overwrite)
    try:
        imported = import_windows(
            format_name,
            path,
            seconds=seconds,
            overlap=overlap,
            channels=[name.strip() for name in channels.split(",")] if channels else (),
            min_subjects_per_class=min_subjects_per_class,
        )
    except BadInputError as error:
        if json:
            refused = {"file": str(path or format_name), "reason": str(error)}
            console.answer_json({"recordings": [], "refused": [refused]})
        raise
    imported.windows.save(out, overwrite=overwrite)
    account = imported.recordings_account()
    if json:
        described = imported.windows.describe()
        console.answer_json({"recordings": account, "refused": [], "out": str(out), "windows": described})
    else:
        _show_import(imported.windows.describe(), account, out)


@app.command("audit")
def audit_data(
    path: Annotated[Path, typer.Argument(metavar="W", help="A window set.")],
    *,
    folds: Annotated[int, typer.Option(min=2, help="Outer folds by subject.")] = 5,
    validation: Annotated[int, typer.Option(min=0, help="Validation subjects per fold.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the split.")] = 0,
    json: Json = False,
) -> None:
    """Prove that a split by subject tests on nothing it was fitted on, and that classes can be learned.

    Example: topokd-edge data audit windows --folds 5 --validation 1
    """
    from dataclasses import asdict

    from topokd_edge.data.audit import audit
    from topokd_edge.data.split import subject_folds
    from topokd_edge.data.windowset import WindowSet

    windows = WindowSet.open(path)
    dealt = subject_folds(windows.subjects, folds, validation, seed)
    passed = audit(windows, dealt)
    if json:
        counts = [
            {"class": name, "windows": dict(zip(passed.subjects, row, strict=True))}
            for name, row in zip(passed.class_names, passed.counts.tolist(), strict=True)
        ]
        console.answer_json(
            {
                "ok": True,
                "folds": [asdict(fold) for fold in dealt],
                "classes": counts,
                "warnings": list(passed.warnings),
            }
        )
        return
    rows = [
        [name, *map(str, row)] for name, row in zip(passed.class_names, passed.counts.tolist(), strict=True)
    ]
    console.table("Windows by class and subject", ["class", *passed.subjects], rows)
    split = [[str(f.fold), " ".join(f.test), " ".join(f.validation), " ".join(f.fit)] for f in dealt]
    console.table("Folds by subject", ["fold", "test", "validation", "fit"], split)
    for warning in passed.warnings:
        console.note(f"warning: {warning}")
    console.note(
        "passed: no subject and no sample is in two groups of a fold; every tested class can be learned"
    )


def _show_import(described: dict[str, Any], account: list[dict[str, Any]], out: Path) -> None:
    made = described["made"]
    dropped = {name: n for name, n in made["dropped"].items() if name not in ("samples", "in_windows")}
    total = made["dropped"]["samples"]
    lost = ", ".join(f"{name} {n} ({n / total:.1%})" for name, n in dropped.items() if n) or "none"
    rows = [
        [
            "windows",
            f"{described['windows']}, each {described['length']} samples at {described['rate_hz']:g} Hz",
        ],
        ["recordings", str(len(account))],
        ["subjects", f"{len(described['subjects'])}: {' '.join(described['subjects'])}"],
        ["classes", f"{len(described['class_names'])}: {' '.join(described['class_names'])}"],
        [
            "channels",
            " ".join(f"{c} [{u}]" for c, u in zip(described["channels"], described["units"], strict=True)),
        ],
        ["samples in no window", lost],
        ["classes left out", ", ".join(made["left_out_classes"]) or "none"],
        ["credit", f"{made['credit']} (licence: {made['licence']})"],
    ]
    console.table(f"Window set {out}", ["what", "value"], rows)
    found: dict[str, list[str]] = {}
    for item in account:
        for warning in item["warnings"]:
            found.setdefault(warning, []).append(f"subject {item['subject']}, {item['file']}")
    for warning, where in found.items():
        more = f" and {len(where) - 1} more" if len(where) > 1 else ""
        console.note(f"warning: {where[0]}{more}: {warning}")
