"""`topokd-edge demo`: the whole job on real wrist recordings that come with a Python package."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from topokd_edge.cli import console
from topokd_edge.cli.bench import bench
from topokd_edge.cli.data import import_data
from topokd_edge.cli.evaluate import evaluate
from topokd_edge.cli.export import export
from topokd_edge.cli.report import measured, report
from topokd_edge.cli.train import train
from topokd_edge.cli.verify import verify
from topokd_edge.errors import UsageError
from topokd_edge.files import refuse_existing

RECIPE = "demo"
SECONDS, OVERLAP = 2.56, 0.5
"""128 samples at 50 Hz, a usual length for wrist activities."""
WATCH = ("mcu:cortex-m4", "mcu:nrf52840")
"""A core that watches have, and a board with it."""


def demo(
    out: Annotated[Path, typer.Option(help="Folder for windows, run, bundle and report.")] = Path(
        "runs/demo"
    ),
    *,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted demo.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing demo.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Do the whole job on a real, embedded data set: import, train, evaluate, export, verify, bench, report.

    Every person of the set is tested once; three folds, one seed and few epochs, so that it takes minutes.

    Example: topokd-edge demo --out runs/demo
    """
    if resume and overwrite:
        raise UsageError("--resume and --overwrite exclude each other")
    refuse_existing(out, overwrite=overwrite or resume, also="--resume to go on with it")
    began = time.monotonic()
    page = out / "report.html"
    with console.redirected(json):
        _run_all(out, page, resume=resume, overwrite=overwrite)
    tiles, note = _figures(out / "run")
    minutes = (time.monotonic() - began) / 60
    if json:
        console.answer_json(
            {"report": str(page), "minutes": round(minutes, 2), "figures": tiles, "note": note}
        )
        return
    rows = [[item["label"], item["value"], item["detail"]] for item in tiles]
    console.table("The five figures that matter", ["figure", "value", ""], rows)
    typer.echo(note)
    typer.echo(f"done in {minutes:.1f} minutes; open the report: {page.resolve()}")


def _run_all(out: Path, page: Path, *, resume: bool, overwrite: bool) -> None:
    windows, run, bundle = out / "windows", out / "run", out / "bundle"
    again = resume or overwrite
    if not (resume and windows.is_dir()):
        _heading(1, "windows of 10 people's shoulder exercises, smartwatch at 50 Hz")
        import_data("shoulder-watch", None, out=windows, seconds=SECONDS, overlap=OVERLAP, overwrite=again)
    _heading(2, "two teachers and the student, three folds by person")
    started = resume and run.is_dir()
    train(data=windows, recipe=RECIPE, out=run, resume=started, overwrite=again and not started)
    _heading(3, "what they do on people they have never seen")
    evaluate(run)
    _heading(4, "the student as ONNX and TFLite, float32 and int8")
    export(run, out=bundle, overwrite=again)
    _heading(5, "every file of the bundle against its hashes and self-test vectors")
    verify(bundle)
    _heading(6, "TDA inference beside the TDA-free student, on this machine and on a Cortex-M4")
    bench(bundle, on=_targets(), run=run, seconds=2.0, out=run / "bench.json", overwrite=again)
    _heading(7, "the report")
    report(run, out=page, overwrite=again)


def _targets() -> str:
    """Return this machine and, where what builds and runs its code is installed, a watch."""
    from topokd_edge.cli._installed import packages

    missing = [item.name for item in packages() if item.extra == "mcu" and item.state != "ok"]
    if not missing:
        return ",".join(("local", *WATCH))
    needed = f"it needs {', '.join(missing)} (pip install 'topokd-edge[mcu]')"
    console.note(f"note: the Cortex-M4 is left out: {needed}")
    return "local"


def _heading(step: int, what: str) -> None:
    console.note(f"\n[{step}/7] {what}")


def _figures(folder: Path) -> tuple[list[dict[str, Any]], str]:
    from dataclasses import asdict

    from topokd_edge.report.inputs import read_inputs
    from topokd_edge.report.verdict import tiles
    from topokd_edge.run import Run

    inputs = read_inputs(Run.open(folder), bench=measured(folder))
    return [asdict(tile) for tile in tiles(inputs)], str(inputs.recipe["note"])
