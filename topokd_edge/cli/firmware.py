"""`topokd-edge firmware`: a pipeline as firmware of a board, which then answers `bench --on serial:`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from topokd_edge.cli import console

if TYPE_CHECKING:
    from topokd_export.c.board_programs import Program

    from topokd_edge.bundle import Bundle


def firmware(
    bundle: Annotated[Path, typer.Argument(help="Bundle folder, as written by export.")],
    board: Annotated[str, typer.Option(help="nrf52840-dk, nucleo-l4r5zi or pico.")],
    out: Annotated[Path, typer.Option(help="Folder to make, for the images.")],
    pipeline: Annotated[
        str, typer.Option(help="student.int8, student.float32, teacher.signal or tda.")
    ] = "student.int8",
    run: Annotated[
        Path | None,
        typer.Option(help="Run folder, for a teacher. [default: the bundle's own, when it lies nearby]"),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --out if it exists.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Answer with one JSON document.")] = False,
) -> None:
    """Build the firmware that measures a pipeline on a real board, and say how to flash it.

    It answers `bench --on serial:PORT` and does nothing else. An image has one pipeline: a table of four
    takes four images, each flashed and benched. They were run in emulators, never on the boards themselves.

    Example: topokd-edge firmware bundles/watch --board nrf52840-dk --out firmware
    """
    from topokd_export.c.boards import build_board, open_port

    from topokd_edge.bundle import Bundle
    from topokd_edge.files import new_folder, refuse_existing, sha256_bytes

    port = open_port(board)
    refuse_existing(out, overwrite=overwrite)
    opened = Bundle.open(bundle)
    opened.check_hashes()
    image = build_board(_program(opened, pipeline, run, port.core), opened.digest, port)
    with new_folder(out, overwrite=overwrite) as part:
        for suffix, content in image.files.items():
            (part / f"{port.name}.{suffix}").write_bytes(content)
    files = [
        {"path": str(out / f"{port.name}.{suffix}"), "bytes": len(content), "sha256": sha256_bytes(content)}
        for suffix, content in image.files.items()
    ]
    flash = port.flashing.replace("FILE", str(out / f"{port.name}.{port.suffix}"))
    if as_json:
        answer = {"board": port.name, "bundle": opened.digest, "about": dict(image.about), "files": files}
        console.answer_json({**answer, "flashing": flash})
        return
    rows = [[str(item["path"]), f"{item['bytes']:,}"] for item in files]
    console.table(f"{pipeline} of {bundle} for {port.title}", ["file", "bytes"], rows)
    typer.echo(f"flash: {flash}")
    typer.echo(f"bench: topokd-edge bench {bundle} --on serial:/dev/ttyACM0")


def _program(bundle: Bundle, name: str, run: Path | None, core: str) -> Program:
    """Return the pipeline to build; teachers pass through a folder that is gone afterwards."""
    import tempfile

    from topokd_export.c.board_programs import INT8_STUDENT, PIPELINES, pipeline_program, student_program
    from topokd_export.c.writer import app_numbers

    from topokd_edge.errors import UsageError

    if name not in PIPELINES:
        raise UsageError(f"no pipeline {name!r}: expected one of {', '.join(PIPELINES)}")
    if name == INT8_STUDENT:
        tflite = bundle.model_path("tflite", "int8").read_bytes()
        return student_program(tflite, app_numbers(bundle.manifest), core)
    from topokd_edge.cli._bench_serial_proofs import find_float

    with tempfile.TemporaryDirectory(prefix="topokd-firmware-") as folder:
        _, found, _ = find_float(name, bundle, run, Path(folder))
    return pipeline_program(name, found, core)
