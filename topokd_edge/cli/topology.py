"""`topokd-edge topology`: persistence images of windows, what they cost, and how they look."""

from __future__ import annotations

import dataclasses
import enum
from pathlib import Path
from typing import Annotated

import typer

from topokd_edge.cli import console
from topokd_edge.errors import UsageError

app = typer.Typer(help="Persistence images of windows.", no_args_is_help=True, rich_markup_mode=None)


class _Backend(enum.StrEnum):
    fast = "fast"
    gpu = "gpu"
    reference = "reference"


@app.command()
def extract(
    data: Annotated[Path, typer.Argument(metavar="W", help="Window set, from: topokd-edge data import")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    fit_on: Annotated[
        str, typer.Option(help="Subjects whose windows set the ranges, as 1,2,3. Default: all subjects.")
    ] = "",
    backend: Annotated[
        _Backend, typer.Option(help="Our code; the same on a GPU; or ripser and persim.")
    ] = _Backend.fast,
    jobs: Annotated[
        int, typer.Option(help="Processes that share the work of --backend reference; -1 takes all cores.")
    ] = 1,
    size: Annotated[int, typer.Option(help="Rows and columns of an image.")] = 64,
    overwrite: Annotated[bool, typer.Option(help="Replace what is at --out.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Answer as JSON.")] = False,
) -> None:
    """Compute the persistence images of a window set.

    Example: topokd-edge topology extract windows/watch --out images/watch --fit-on 1,2,3
    """
    from topokd_edge.data.windowset import WindowSet
    from topokd_edge.topology import batched
    from topokd_edge.topology.store import extract_images

    if jobs != 1 and backend is not _Backend.reference:
        raise UsageError(
            f"--jobs {jobs}: is for --backend reference",
            hint=f"leave it out: {backend.value} uses all cores by itself",
        )
    if jobs == 0 or jobs < -1:
        raise UsageError(f"--jobs {jobs}: expected 1 or more, or -1")
    if backend is _Backend.gpu:
        batched.cuda()  # told before anything is read
    windows = WindowSet.open(data)
    subjects = tuple(name.strip() for name in fit_on.split(",") if name.strip())
    if not subjects:
        console.note("ranges are fitted on all subjects; to evaluate on unseen ones, give --fit-on")
    with console.progress() as progress:
        about = extract_images(
            windows,
            out,
            fit_on=subjects or windows.subjects,
            size=(size, size),
            backend=backend.value,
            jobs=jobs,
            overwrite=overwrite,
            progress=progress,
        )
    if json:
        console.answer_json(about)
        return
    shape = " x ".join(str(n) for n in about["shape"])
    console.table(
        f"{out}",
        ["what", "value"],
        [
            ["images", shape],
            ["empty images", str(about["degenerate"])],
            ["seconds", f"{about['seconds']:.2f}"],
            ["backend", about["backend"]],
        ],
    )


@app.command()
def bench(json: Annotated[bool, typer.Option("--json", help="Answer as JSON.")] = False) -> None:
    """Time persistence images, ours beside ripser and persim, on one thread.

    Example: topokd-edge topology bench --json
    """
    from topokd_edge.topology.bench import bench as run_bench
    from topokd_edge.topology.bench import table_rows

    with console.progress() as progress:
        cases = run_bench(progress=progress)
    if json:
        console.answer_json({"cases": [dataclasses.asdict(case) for case in cases]})
        return
    columns, rows = table_rows(cases)
    console.table("persistence images, microseconds per window, one thread", columns, rows)


@app.command()
def show(
    data: Annotated[Path, typer.Argument(metavar="W", help="Window set.")],
    window: Annotated[int, typer.Option(help="Number of the window, from 0.")],
    out: Annotated[Path, typer.Option(help="Figure to write: .svg or .png")],
    overwrite: Annotated[bool, typer.Option(help="Replace what is at --out.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Answer as JSON.")] = False,
) -> None:
    """Draw the channels of a window beside their persistence images.

    Example: topokd-edge topology show windows/watch --window 12 --out window-12.svg
    """
    from topokd_edge.data.windowset import WindowSet
    from topokd_edge.topology.figure import draw_window

    windows = WindowSet.open(data)
    draw_window(windows, window, out, overwrite=overwrite)
    subject, label = str(windows.subject[window]), windows.class_names[int(windows.y[window])]
    if json:
        console.answer_json({"figure": str(out), "window": window, "subject": subject, "class": label})
    else:
        console.note(f"{out}: window {window}, subject {subject}, class {label}")
