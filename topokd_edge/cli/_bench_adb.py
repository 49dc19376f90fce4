"""What a bench does on an Android device behind adb: the C student of the int8 file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from topokd_bench.adb import Phone
from topokd_bench.adb_bench import PhoneBench, machine_of
from topokd_bench.local import Job
from topokd_bench.pipelines import MODEL_FILE
from topokd_bench.windows import HeldOut

from topokd_edge.bundle import Bundle
from topokd_edge.cli import _bench_tables
from topokd_edge.cli._bench_candidates import c_candidate
from topokd_edge.cli._bench_local import effort_of
from topokd_edge.cli._bench_outcome import Asked, Outcome
from topokd_edge.cli._bench_plan import find_run, student_windows
from topokd_edge.progress import Progress


def measure(asked: Asked, targets: Sequence[str], progress: Progress) -> Outcome:
    """Return results of every `adb...`; a device that vanishes after it was timed gives what it has.

    Raises
    ------
    MissingError
        When this machine has no adb, or nothing to build the C with.
    DeviceError
        When a device is not there, does not let us in, or vanishes before it was timed.
    BadInputError
        When the bundle has no int8 TFLite file.
    """
    held_out, subjects, notes = student_windows(asked.bundle, find_run(asked.bundle, asked.run))
    found = Outcome(subjects=subjects, notes=notes, hint="see docs/devices/adb.md")
    job = _job(asked.bundle)
    for target in targets:
        _measure_one(asked, target, job, held_out, found, progress)
        if left_out := _left_out(asked):
            found.notes.append(
                f"{target}: {left_out} not measured: the C program has one thread and no pauses"
            )
    found.notes += [
        f"{target}: {text}"
        for target, items in found.by_target().items()
        for text in _bench_tables.remarks(items)
    ]
    found.show = lambda: _bench_tables.show(asked.name, found, (1,))
    return found


def _measure_one(
    asked: Asked, target: str, job: Job, held_out: HeldOut, found: Outcome, progress: Progress
) -> None:
    progress(target, 0, 2, "connecting, building the C")
    with Phone(target) as phone:
        candidate = c_candidate(asked.bundle, job, machine_of(phone), held_out)
        progress(target, 1, 2, f"student.int8 on {phone.properties.get('ro.product.model', phone.serial)}")
        effort = replace(effort_of(asked), pin=False, every=None)
        bench = PhoneBench(phone, held_out, asked.bundle.digest, effort=effort, windows=asked.windows)
        results, ended = bench.measure(candidate)
        if held_out.y is not None and len(bench.chosen) < len(held_out.x):
            found.notes.append(
                f"{target}: tried on {len(bench.chosen)} of {len(held_out.x)} held-out windows"
            )
    found.measured += results
    if ended is not None:
        found.ended.append(ended)
        found.notes.append(f"{target}: partial: {ended.message}; it was timed before")
    progress(target, 2, 2)


def _left_out(asked: Asked) -> str:
    """Return the options that were given and do not apply."""
    given = {"--every": asked.every is not None, "--pin": asked.pin, "--threads": asked.threads != (1,)}
    return ", ".join(name for name, is_given in given.items() if is_given)


def _job(bundle: Bundle) -> Job:
    path, scale = bundle.model_path("tflite", "int8"), bundle.manifest.normalisation
    args = {"path": str(path), "mean": list(scale.mean), "std": list(scale.std), "channels": None}
    return Job("student.int8", "litert", MODEL_FILE, args, path.stat().st_size, bundle.manifest.macs)
