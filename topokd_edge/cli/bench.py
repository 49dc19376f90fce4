"""`topokd-edge bench`: what a bundle costs and is worth on a device, against the teachers it came from."""

from __future__ import annotations

import enum
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from topokd_edge.cli import console
from topokd_edge.errors import DeviceError, MissingError

if TYPE_CHECKING:
    from topokd_bench.local import Measured

    from topokd_edge.bundle import Bundle
    from topokd_edge.cli._bench_plan import BenchPlan
    from topokd_edge.progress import Progress

_COSTS = ["pipeline", "runtime", "p50 ms", "p95 ms", "p99 ms", "cold ms", "model kB", "peak MB", "ratio"]
_ACCURACIES = ["pipeline", "runtime", "accuracy", "95 % interval", "over", "windows"]
_YARDSTICK = "student.int8"


class _Compiler(enum.StrEnum):
    zig = "zig"
    gcc = "gcc"


def bench(
    bundle: Annotated[Path, typer.Argument(help="Bundle folder, as written by export.")],
    on: Annotated[
        str,
        typer.Option(
            "--on",
            help="local (this machine), ssh://user@host (a Linux device), "
            "mcu:cortex-m4 or mcu:nrf52840 (counted on an emulated core), "
            "npu:ethos-u55-128 (modelled), browser (a phone that opens a page); several with commas.",
        ),
    ] = "local",
    run: Annotated[
        Path | None,
        typer.Option(
            help="Run the bundle came from: its teachers and held-out windows. [default: as the bundle says]"
        ),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads each pipeline may use.")] = 1,
    windows: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Held-out windows for accuracy, at most. [default: all; 200 for ripser+persim, 100 for mcu]",
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.01, help="Time to spend timing each pipeline.")] = 3.0,
    compiler: Annotated[
        _Compiler, typer.Option(help="For mcu: zig (of ziglang), or gcc (arm-none-eabi-gcc).")
    ] = _Compiler.zig,
    every: Annotated[
        float | None,
        typer.Option(min=0.001, help="For boards: seconds between windows. [default: half a window]"),
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
    out: Annotated[Path | None, typer.Option(help="Also write the results to this JSON file.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --out if it exists.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Answer with one JSON document.")] = False,
) -> None:
    """Measure latency, memory and accuracy of a bundle, of its teachers, and of TDA inference.

    Every pipeline runs in a fresh process of its own, one after another, from the raw window to the logits.
    For a microcontroller the C student is built, proven byte by byte on an emulated core, and counted; for a
    board, time and energy are modelled from the counts, as ranges.
    On a device behind SSH, every model runs in the first runtime there is, the C student last; nothing stays.
    In a browser, the phone that opens the page measures the WebAssembly student and posts its result.
    For an NPU, Arm's vela models the int8 student: cycles, memory and time are estimates, marked `modelled`.

    Example: topokd-edge bench bundles/watch --on local --out bench.json
    """
    from topokd_bench.browser import TARGET as BROWSER
    from topokd_bench.local import TARGET as LOCAL
    from topokd_bench.mcu import TARGET as MCU

    from topokd_edge.bundle import Bundle
    from topokd_edge.cli import _bench_npu, _bench_ssh
    from topokd_edge.cli._bench_int8 import int8_cost
    from topokd_edge.cli._bench_plan import check_targets, find_run, student_windows
    from topokd_edge.files import refuse_existing, write_json

    targets = check_targets(on)
    if out is not None:
        refuse_existing(out, overwrite=overwrite)
    opened = Bundle.open(bundle)
    unchecked = _verify(opened)
    measured: list[Measured] = []
    counted: list[Measured] = []
    phone: list[Measured] = []
    plan: BenchPlan | None = None
    subjects: tuple[str, ...] = ()
    notes: list[str] = []
    with console.progress() as progress:
        modelled = _bench_npu.estimates(opened, targets, progress)
        if any(target.startswith(MCU) for target in targets):
            from topokd_edge.cli import _bench_mcu

            held_out, subjects, notes = student_windows(opened, find_run(opened, run))
            options = _bench_mcu.Options(held_out, windows, compiler.value, every, battery)
            counted = _bench_mcu.measure(opened, targets, options, progress)
            notes += _bench_mcu.notes(counted, options)
        if BROWSER in targets:
            from topokd_edge.cli import _bench_browser, _bench_browser_results

            there = _bench_browser.Where(address, port, wait)
            phone, whose = _bench_browser.run_there(opened, run, windows, seconds, there, progress)
            subjects, notes = subjects or whose, [*notes, *_bench_browser_results.notes(phone)]
        far = _bench_ssh.measure(
            opened, targets, _bench_ssh.Options(run, windows, threads, seconds), progress
        )
        subjects, notes = subjects or far.subjects, [*notes, *far.notes]
        if LOCAL in targets:
            plan, measured = _run_here(
                opened, run, windows=windows, threads=threads, seconds=seconds, progress=progress
            )
    cost = None if plan is None else int8_cost(measured, plan.held_out.subject)
    if plan is not None:
        subjects, notes = plan.subjects, [*notes, *plan.notes]
    everything = [*measured, *far.measured, *phone, *counted, *modelled]
    document: dict[str, Any] = {
        "results": [item.result.to_dict() for item in everything],
        "int8_cost": None if cost is None else cost.to_dict(),
        "subjects": list(subjects),
        "notes": list(dict.fromkeys([*unchecked, *notes, *_remarks(measured), *far.remarks(_remarks)])),
        "partial": bool(far.ended),
    }
    if out is not None:
        write_json(out, document)
    if as_json:
        console.answer_json(document)
    else:
        for target, items in {**({LOCAL: measured} if measured else {}), **far.by_target()}.items():
            console.table(f"{bundle} on {target}, {threads} thread(s)", _COSTS, _costs(items))
            if subjects:
                console.table(f"held-out subjects {', '.join(subjects)}", _ACCURACIES, _accuracies(items))
        if phone:
            _bench_browser_results.show(str(bundle), phone)
        if counted:
            _bench_mcu.show(str(bundle), counted)
        _bench_npu.show(str(bundle), modelled)
        if cost is not None:
            typer.echo(cost.sentence())
    for remark in document["notes"]:
        console.note(f"note: {remark}")
    far.refuse_failed()
    if measured and all(item.result.error for item in measured):
        raise DeviceError(
            f"{LOCAL}: no pipeline could be measured",
            problems=[
                f"{item.result.pipeline} on {item.result.runtime}: {item.result.error}" for item in measured
            ],
            hint="topokd-edge doctor lists what is missing",
        )


def _run_here(
    bundle: Bundle,
    run: Path | None,
    *,
    windows: int | None,
    threads: int,
    seconds: float,
    progress: Progress,
) -> tuple[BenchPlan, list[Measured]]:
    """Measure every pipeline on this machine, one after another."""
    from topokd_bench import local

    from topokd_edge.cli._bench_plan import find_run, make_plan

    with tempfile.TemporaryDirectory(prefix="topokd-bench-") as folder:
        work = Path(folder)
        plan = make_plan(bundle, find_run(bundle, run), work, windows=windows)
        plan.held_out.save(work / "windows.npz")
        count = len(plan.jobs)
        measured = local.run_all(
            plan.jobs,
            work / "windows.npz",
            threads=threads,
            effort=local.Effort(seconds=seconds),
            before=lambda index, job: progress("bench", index, count, f"{job.pipeline} on {job.runtime}"),
        )
    progress("bench", count, count)
    return plan, measured


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


def _costs(measured: list[Measured]) -> list[list[str]]:
    """Return time and memory; `ratio` is p50 against that of the quickest int8 student."""
    speeds = [
        item.result.latency_ms["p50"]
        for item in measured
        if item.result.pipeline == _YARDSTICK and item.result.latency_ms is not None
    ]
    rows = []
    for result in (item.result for item in measured):
        latency = result.latency_ms
        if latency is None:
            rows.append([result.pipeline, result.runtime, "failed", *["-"] * (len(_COSTS) - 3)])
            continue
        rows.append(
            [
                result.pipeline,
                result.runtime,
                *(f"{latency[name]:.3f}" for name in ("p50", "p95", "p99")),
                f"{latency['cold']:.0f}",
                "-" if result.model_bytes is None else f"{result.model_bytes / 1e3:.1f}",
                "-" if result.ram_bytes is None else f"{result.ram_bytes / 1e6:.0f}",
                f"{latency['p50'] / min(speeds):.1f}x" if speeds else "-",
            ]
        )
    return rows


def _accuracies(measured: list[Measured]) -> list[list[str]]:
    rows = []
    for result in (item.result for item in measured):
        if result.accuracy is not None and result.accuracy_ci95 is not None:
            low, high = result.accuracy_ci95
            interval = [f"{low:.3f} to {high:.3f}", result.accuracy_basis, str(result.windows)]
            rows.append([result.pipeline, result.runtime, f"{result.accuracy:.3f}", *interval])
    return rows


def _remarks(measured: list[Measured]) -> list[str]:
    """Return what went wrong, and which runs were disturbed."""
    remarks, disturbed = [], []
    for result in (item.result for item in measured):
        name = f"{result.pipeline} on {result.runtime}"
        if result.error:
            remarks.append(f"{name} failed: {result.error}")
        elif result.device.get("busy"):
            disturbed.append(name)
        if result.throttled:
            remarks.append(f"{name}: the CPU throttled while it was timed")
    if disturbed:
        which = "every pipeline" if len(disturbed) == len(measured) else ", ".join(disturbed)
        remarks.append(
            f"the machine was busy with something else during {which}: "
            "these latencies are too high; measure again on an idle machine"
        )
    if _int8_is_slower(measured):
        remarks.append(
            "int8 is slower than float32 here, on a CPU without int8 dot product instructions; "
            "it says nothing of a device that has them, or that has no fast float32"
        )
    return remarks


def _int8_is_slower(measured: list[Measured]) -> bool:
    """Tell whether the same TFLite runtime is slower with int8 on a CPU without int8 dot products."""
    speeds = {
        item.result.pipeline: item.result.latency_ms["p50"]
        for item in measured
        if item.result.latency_ms is not None and item.result.runtime != "onnxruntime"
    }
    plain = not any(item.result.device.get("int8_dot_products") for item in measured)
    return plain and speeds.get(_YARDSTICK, 0.0) > speeds.get("student.float32", float("inf"))
