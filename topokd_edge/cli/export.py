"""`topokd-edge export`: a trained student to a bundle of model files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from topokd_edge.cli import console
from topokd_edge.errors import BadInputError

if TYPE_CHECKING:
    from topokd_edge.run import FoldRun, Run


def export(
    run: Annotated[Path, typer.Argument(help="Run folder, as made by `topokd-edge train`.")],
    out: Annotated[Path, typer.Option("--out", help="Bundle folder to make.")],
    int8: Annotated[
        bool, typer.Option("--int8/--no-int8", help="Also in int8: full-integer TFLite, and ONNX.")
    ] = True,
    qat: Annotated[
        bool, typer.Option("--qat", help="int8: train on with rounding in place, teachers in the loss.")
    ] = False,
    ranges: Annotated[str | None, typer.Option(help="int8: min-max, percentile or mse.")] = None,
    bias_correction: Annotated[
        bool | None, typer.Option("--bias-correction/--no-bias-correction", help="int8: mend mean shifts.")
    ] = None,
    max_int8_loss: Annotated[float, typer.Option(help="Points of accuracy int8 or int16 may lose.")] = 2.0,
    targets: Annotated[
        str,
        typer.Option(help="onnx, onnx-static, tflite, tflite-float-io, tflite-int16, c, wasm, with commas."),
    ] = "onnx,tflite",
    fold: Annotated[int | None, typer.Option(help="Outer fold; the first finished one if not given.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed; the first finished one if not given.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing bundle.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Write the distilled student as ONNX, TFLite (float32 and int8), C99 and WebAssembly, checked.

    How int8 is made stands in the run's recipe, [student.int8], unless said here. The answer is also written
    to RUN/export.json, where the report finds it.

    Example: topokd-edge export runs/demo --out bundle
    """
    from topokd_export.export import export_student
    from topokd_export.student import int8_settings

    from topokd_edge.run import Run

    opened = Run.open(run)
    chosen = _choose(opened, fold, seed)
    asked = {
        "method": "train" if qat else None,
        "ranges": ranges,
        "bias_correction": bias_correction,
    }
    names = tuple(name.strip() for name in targets.split(",") if name.strip())
    with console.progress() as progress:
        answer = export_student(
            opened,
            chosen.fold,
            chosen.seed,
            out,
            int8=int8,
            settings=int8_settings(
                opened, **{key: value for key, value in asked.items() if value is not None}
            ),
            max_int8_loss=max_int8_loss / 100,
            targets=names,
            overwrite=overwrite,
            progress=progress,
        )
    opened.write("export.json", answer)
    if json:
        console.answer_json(answer)
        return
    rows = [[item["path"], item["precision"], f"{item['bytes']:,}"] for item in answer["files"]]
    console.table(f"{out}: fold {chosen.fold}, seed {chosen.seed}", ["file", "precision", "bytes"], rows)
    if "c" in answer:
        console.table("C", ["memory", "bytes"], [[name, f"{n:,}"] for name, n in answer["c"].items()])
    show_checks(answer["checks"])
    if "int8" in answer:
        _show_layers(answer["int8"]["layers"])


def _show_layers(layers: list[dict[str, Any]]) -> None:
    """Print the tensors whose rounding alone changes most answers."""
    from topokd_export.layers import Layer, worst

    rows = [
        [
            item.name,
            f"{item.changed:.1%}",
            f"{item.own_db:.1f}",
            "-" if item.quiet_db is None else f"{item.quiet_db:.1f}",
            f"{item.saturated:.2%}",
            f"{item.range_used:.0%}",
        ]
        for item in worst([Layer(**entry) for entry in layers], 5)
    ]
    heads = ["tensor", "answers changed", "signal to noise dB", "quiet windows dB", "saturated", "range used"]
    console.table("int8, worst tensors, each rounded alone", heads, rows)


def show_checks(checks: list[dict[str, Any]]) -> None:
    """Print checks as a table."""
    rows = [
        [entry["name"], f"{entry['max_abs_diff']:.2g}", f"{entry['agreement']:.1%}", "ok"] for entry in checks
    ]
    console.table("checks", ["check", "largest difference", "agreement", ""], rows)


def _choose(run: Run, fold: int | None, seed: int | None) -> FoldRun:
    finished = run.finished()
    for item in finished:
        if fold in (None, item.fold) and seed in (None, item.seed):
            return item
    have = ", ".join(f"fold {item.fold} seed {item.seed}" for item in finished) or "none"
    raise BadInputError(
        f"{run.folder}: no finished student for fold {fold or 'any'}, seed {seed or 'any'}; finished: {have}",
        hint="finish the run with: topokd-edge train ... --resume",
    )
