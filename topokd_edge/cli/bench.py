"""`topokd-edge bench`: what a bundle costs and is worth on a device, against the teachers it came from."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from topokd_edge.cli import console
from topokd_edge.errors import MissingError

if TYPE_CHECKING:
    from topokd_edge.bundle import Bundle
    from topokd_edge.cli._bench_outcome import Outcome


class _Compiler(enum.StrEnum):
    zig = "zig"
    gcc = "gcc"


def bench(
    bundle: Annotated[Path, typer.Argument(help="Bundle folder, as written by export.")],
    on: Annotated[
        str,
        typer.Option(
            "--on",
            help="local (this machine), ssh://user@host (a Linux device), adb (an Android device), "
            "mcu:cortex-m4 or mcu:nrf52840 (counted on an emulated core), "
            "npu:ethos-u55-128 (modelled), browser (a phone that opens a page), "
            "serial:/dev/ttyACM0 (a board with the firmware of `topokd-edge firmware`); several with commas.",
        ),
    ] = "local",
    run: Annotated[
        Path | None,
        typer.Option(
            help="Run the bundle came from: its teachers and held-out windows. [default: as the bundle says]"
        ),
    ] = None,
    threads: Annotated[
        str, typer.Option(help="CPU threads each pipeline may use; several with commas, as 1,2,4.")
    ] = "1",
    windows: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Held-out windows for accuracy, at most. "
            "[default: all; 200 for ripser+persim, 100 for mcu and serial]",
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.01, help="Time to spend timing each pipeline.")] = 3.0,
    pin: Annotated[
        bool, typer.Option("--pin", help="For local, ssh: keep each pipeline on as many cores as threads.")
    ] = False,
    sustained: Annotated[
        float | None,
        typer.Option(min=0.01, help="For local, ssh: also minutes back to back, of the int8 student."),
    ] = None,
    compiler: Annotated[
        _Compiler, typer.Option(help="For mcu: zig (of ziglang), or gcc (arm-none-eabi-gcc).")
    ] = _Compiler.zig,
    every: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            help="Seconds between windows: for boards [default: half a window]; "
            "local, ssh: also measure with such pauses.",
        ),
    ] = None,
    battery: Annotated[
        float | None,
        typer.Option(min=0.001, help="For boards: battery in mWh. [default: 370, as 100 mAh at 3.7 V]"),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(help="For browser: where to listen. [default: this machine's in its network]"),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="For browser; 0 is any free one.")] = 0,
    wait: Annotated[
        float, typer.Option(min=1, help="For browser: seconds until the result is there.")
    ] = 600.0,
    engine: Annotated[
        list[Path] | None,
        typer.Option(
            help="For browser: folder of an npm package whose engine runs the student too, "
            "such as node_modules/onnxruntime-web or node_modules/@litertjs/core; may be repeated."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Also write the results to this JSON file.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --out if it exists.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Answer with one JSON document.")] = False,
) -> None:
    """Measure latency, memory and accuracy of a bundle, of its teachers, and of TDA inference.

    Every pipeline runs in a fresh process of its own, one after another, from the raw window to the logits.
    For a microcontroller every pipeline is built as C, proven bit by bit on an emulated core, and counted;
    for a board, time and energy are modelled from the counts, as ranges.
    On a device behind SSH, every model runs in the first runtime there is, the C student last; nothing stays.
    On an Android device behind adb, every pipeline is proven and timed as C; nothing stays.
    In a browser, the phone that opens the page measures them as WebAssembly and posts its result.
    On a board on a serial port, every layer of the pipeline there is proven, then timed by its own counter.
    For an NPU, Arm's vela models the int8 student: cycles, memory and time are estimates, marked `modelled`.

    Example: topokd-edge bench bundles/watch --on local --out bench.json
    """
    from topokd_bench import device, local

    from topokd_edge.bundle import Bundle
    from topokd_edge.cli._bench_kinds import run_all
    from topokd_edge.cli._bench_local import refuse_threads, thread_counts
    from topokd_edge.cli._bench_outcome import Asked
    from topokd_edge.cli._bench_plan import check_targets
    from topokd_edge.files import refuse_existing, write_json

    targets, counts = check_targets(on), thread_counts(threads)
    if local.TARGET in targets:
        refuse_threads(counts, len(device.usable_cores()), "this machine")
    if out is not None:
        refuse_existing(out, overwrite=overwrite)
    opened = Bundle.open(bundle)
    unchecked = _verify(opened)
    asked = Asked(
        opened,
        str(bundle),
        run,
        windows,
        counts,
        seconds,
        pin=pin,
        sustained=sustained,
        compiler=compiler.value,
        every=every,
        battery=battery,
        address=address,
        port=port,
        wait=wait,
        engines=tuple(engine or ()),
    )
    with console.progress() as progress:
        outcomes = run_all(asked, targets, progress)
    document = _document(outcomes, unchecked)
    if out is not None:
        write_json(out, document)
    if as_json:
        console.answer_json(document)
    else:
        _show(outcomes)
    for remark in document["notes"]:
        console.note(f"note: {remark}")
    for outcome in outcomes:
        outcome.refuse_failed()


def _document(outcomes: list[Outcome], unchecked: list[str]) -> dict[str, Any]:
    """Return what the command answers and writes."""
    costs = [outcome.cost for outcome in outcomes if outcome.cost is not None]
    notes = [*unchecked, *(note for outcome in outcomes for note in outcome.notes)]
    return {
        "results": [item.result.to_dict() for outcome in outcomes for item in outcome.measured],
        "int8_cost": costs[0].to_dict() if costs else None,
        "subjects": list(next((outcome.subjects for outcome in outcomes if outcome.subjects), ())),
        "notes": list(dict.fromkeys(notes)),
        "partial": any(outcome.ended for outcome in outcomes),
    }


def _show(outcomes: list[Outcome]) -> None:
    """Print the tables of each kind of target, and what int8 costs."""
    for outcome in outcomes:
        outcome.show()
    for outcome in outcomes:
        if outcome.cost is not None:
            typer.echo(outcome.cost.sentence())


def _verify(bundle: Bundle) -> list[str]:
    """Check hashes and self-test before anything is timed; return what could not be checked here."""
    try:
        from topokd_export.verify import verify_bundle

        verify_bundle(bundle.folder)
    except (ModuleNotFoundError, MissingError) as error:
        bundle.check_hashes()
        why = error.message if isinstance(error, MissingError) else f"it needs the package {error.name}"
        return [f"hashes are right; the self-test was not run whole: {why}"]
    return []
