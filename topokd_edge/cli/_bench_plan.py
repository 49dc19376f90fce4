"""What a bench measures: the pipelines of a bundle, and of the run it came from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from topokd_bench import adb, mcu, npu
from topokd_bench.browser import TARGET as BROWSER
from topokd_bench.local import TARGET, Job
from topokd_bench.pipelines import MODEL_FILE, TDA
from topokd_bench.serial.port import TARGET as SERIAL
from topokd_bench.serial.port import parse_target
from topokd_bench.ssh import TARGET as SSH
from topokd_bench.ssh import parse_address
from topokd_bench.windows import HeldOut

from topokd_edge.bundle import Bundle
from topokd_edge.errors import BadInputError, UsageError
from topokd_edge.rows import evenly
from topokd_edge.run import SIGNAL_TEACHER, TOPOLOGY_TEACHER, FoldRun, Run
from topokd_edge.topology.image import backend_for
from topokd_edge.topology.params import ImageParams

REFERENCE_WINDOWS = 200
"""Held-out windows the ripser and persim pipeline is tried on: at 0.1 s each, all would take minutes."""

MOST_BYTES = 256 << 20
"""Held-out windows taken along to a worker, evenly spread where a test subject has more."""


@dataclass(frozen=True)
class BenchPlan:
    """What to measure.

    Attributes
    ----------
    jobs
        The pipelines, slowest first.
    held_out
        Windows to time on and, where their truth is known, to classify.
    subjects
        Whose windows they are; empty when the truth is not known.
    notes
        What a reader of the figures must know.
    """

    jobs: list[Job]
    held_out: HeldOut
    subjects: tuple[str, ...]
    notes: tuple[str, ...]


def find_run(bundle: Bundle, given: Path | None) -> Run | None:
    """Open the run that `given` names, or look near the bundle for its own; None when it is not there.

    A bundle knows the name of its run and the hash of its windows. The run is looked for in the working
    folder, and in the three folders above the bundle.

    Raises
    ------
    BadInputError
        When `given` is not a run.
    """
    if given is not None:
        return Run.open(given)
    provenance = bundle.manifest.provenance
    name = str(provenance.get("run") or "")
    if not name:
        return None
    above = bundle.folder.resolve().parents[:3]
    places = [Path(name), *above, *(folder / name for folder in above)]
    for place in places:
        if place.name == name and (place / "folds.json").is_file():
            run = Run.open(place)
            if run.data.get("content_hash") == provenance.get("window_set"):
                return run
    return None


def make_plan(bundle: Bundle, run: Run | None, work: Path, *, windows: int | None = None) -> BenchPlan:
    """Plan the pipelines of a bundle; teachers are exported to `work` when there is a run.

    Parameters
    ----------
    bundle
        Gives the students.
    run
        Gives the teachers and the held-out windows; without it the students alone are timed, on the
        self-test vectors, and have no accuracy.
    work
        An existing folder for the teachers' ONNX files.
    windows
        Held-out windows to try each pipeline on, at most; None tries all, and 200 on the slow reference.

    Raises
    ------
    BadInputError
        When the run is not the one the bundle was exported from.
    """
    if run is None:
        students = [_cap(job, windows) for job in _students(bundle, None)]
        note = (
            "the run of this bundle was not found: no teachers and no accuracy (give it with --run); "
            "timed on the self-test vectors"
        )
        return BenchPlan(students, self_test_windows(bundle), (), (note,))
    place = _place(bundle, run)
    held_out, subjects, left_out = _held_out(bundle, run, place)
    students = [_cap(job, windows) for job in _students(bundle, student_channels(bundle, run))]
    try:
        teachers = [_cap(job, windows) for job in _teachers(bundle, place, work)]
    except ModuleNotFoundError as error:
        note = f"the teachers were left out: they need the package {error.name} (topokd-edge doctor)"
        return BenchPlan(students, held_out, subjects, (note, *left_out))
    tried = min(len(held_out.x), windows or REFERENCE_WINDOWS)
    note = f"ripser+persim was tried on {tried} of {len(held_out.x)} held-out windows, evenly spread"
    return BenchPlan([*teachers, *students], held_out, subjects, (note, *left_out))


def student_windows(bundle: Bundle, run: Run | None) -> tuple[HeldOut, tuple[str, ...], list[str]]:
    """Return the windows of a run as its student takes them, whose they are, and notes on them.

    Without a run they are the self-test vectors, whose truth is not known.
    """
    if run is None:
        note = "the run of this bundle was not found: no accuracy (give it with --run)"
        return self_test_windows(bundle), (), [note]
    held_out, subjects, notes = _held_out(bundle, run, _place(bundle, run))
    channels = student_channels(bundle, run)
    own = held_out.x if channels is None else held_out.x.take(channels, axis=1)
    return HeldOut(own, held_out.y, held_out.subject), subjects, notes


def _cap(job: Job, windows: int | None) -> Job:
    if windows is None:
        return job
    return Job(job.pipeline, job.runtime, job.factory, job.args, job.model_bytes, job.macs, windows)


def student_channels(bundle: Bundle, run: Run) -> list[int] | None:
    """Return the place of the student's channels in the windows of the run; None when it has all."""
    there = run.data["channels"]
    own = [there.index(name) for name in bundle.manifest.channel_names]
    return None if own == list(range(len(there))) else own


def _students(bundle: Bundle, channels: list[int] | None) -> list[Job]:
    normalisation = bundle.manifest.normalisation
    scale = {"mean": list(normalisation.mean), "std": list(normalisation.std), "channels": channels}
    runtimes = {"onnx": "onnxruntime", "tflite": "litert"}
    jobs = [
        Job(
            f"student.{item.precision}",
            runtimes[item.target],
            MODEL_FILE,
            {"path": str(bundle.folder / item.path), **scale},
            item.bytes,
            bundle.manifest.macs,
        )
        for item in bundle.manifest.files
        if item.target in runtimes
    ]
    return sorted(jobs, key=lambda job: (job.pipeline, job.runtime))


def _teachers(bundle: Bundle, place: FoldRun, work: Path) -> list[Job]:
    preprocessing = place.preprocessing()
    jobs = []
    if place.model_folder(TOPOLOGY_TEACHER).is_dir():
        jobs += _tda(place, preprocessing, work)
    if place.model_folder(SIGNAL_TEACHER).is_dir():
        signal, macs = _export(place, SIGNAL_TEACHER, (bundle.manifest.length,), work)
        args = {"path": str(signal), **preprocessing["signal"]}
        jobs.append(Job(SIGNAL_TEACHER, "onnxruntime", MODEL_FILE, args, signal.stat().st_size, macs))
    return jobs


def _tda(place: FoldRun, preprocessing: dict[str, Any], work: Path) -> list[Job]:
    """Return the topology teacher behind every backend that computes its images."""
    topology, topology_macs = _export(place, TOPOLOGY_TEACHER, tuple(preprocessing["topology"]["size"]), work)
    args: dict[str, Any] = {"path": str(topology), "preprocessing": preprocessing}
    size = topology.stat().st_size
    reference = Job(
        "tda",
        "ripser+persim+onnxruntime",
        TDA,
        {**args, "backend": "reference"},
        size,
        topology_macs,
        REFERENCE_WINDOWS,
    )
    if backend_for(ImageParams.from_dict(preprocessing["topology"])) == "reference":
        return [reference]
    return [reference, Job("tda", "fast+onnxruntime", TDA, {**args, "backend": "fast"}, size, topology_macs)]


def _export(place: FoldRun, model: str, size: tuple[int, ...], work: Path) -> tuple[Path, int | None]:
    """Write a teacher as ONNX; return the file and its multiply-accumulates."""
    from topokd_export.onnx_writer import export_onnx

    from topokd_edge.distill.checkpoint import load_model

    network, meta = load_model(place.model_folder(model))
    path = work / f"{model}.onnx"
    export_onnx(network, size, path)
    return path, meta.get("macs")


def _place(bundle: Bundle, run: Run) -> FoldRun:
    provenance = bundle.manifest.provenance
    fold, seed = provenance.get("fold"), provenance.get("seed")
    for place in run.finished():
        if (place.fold, place.seed) == (fold, seed):
            return place
    raise BadInputError(
        f"{run.folder}: no finished fold {fold}, seed {seed}, which {bundle.folder} was exported from",
        hint="give the run that the bundle was exported from with --run",
    )


def _held_out(bundle: Bundle, run: Run, place: FoldRun) -> tuple[HeldOut, tuple[str, ...], list[str]]:
    """Return windows of subjects that no model of the fold was trained or chosen on, and notes on them."""
    windows = run.windows()
    said, scale = bundle.manifest.provenance, bundle.manifest.normalisation
    fitted = place.preprocessing()["student"]
    same_windows = windows.content_hash == said.get("window_set")
    if not same_windows or (fitted["mean"], fitted["std"]) != (list(scale.mean), list(scale.std)):
        raise BadInputError(
            f"{run.folder}: was trained on other windows, or split otherwise, than {bundle.folder} says",
            hint="give the run that the bundle was exported from with --run",
        )
    subjects = tuple(run.fold(place.fold)["test"])
    index = windows.of_subjects(subjects)
    most = max(1, MOST_BYTES // (4 * len(windows.channels) * windows.length))
    chosen = index[evenly(len(index), most)]
    fewer = len(chosen) < len(index)
    own = bundle.manifest.channels
    notes = [f"tried on {len(chosen)} of {len(index)} held-out windows, evenly spread"] if fewer else []
    if own < len(windows.channels):
        notes.append(
            f"the student has {own} channels, its teachers all {len(windows.channels)} of the windows"
        )
    held_out = HeldOut(np.asarray(windows.x[chosen]), windows.y[chosen], windows.subject[chosen])
    return held_out, subjects, notes


def self_test_windows(bundle: Bundle) -> HeldOut:
    """Return the self-test vectors in raw units."""
    mean = np.array(bundle.manifest.normalisation.mean, np.float32)[:, None]
    std = np.array(bundle.manifest.normalisation.std, np.float32)[:, None]
    return HeldOut((bundle.self_test()["x"] * std + mean).astype(np.float32))


def check_targets(text: str) -> list[str]:
    """Split `--on` into targets, each once, and refuse what cannot be measured on yet.

    Raises
    ------
    UsageError
        When a target is unknown.
    """
    targets = [part.strip() for part in text.split(",") if part.strip()]
    known = [TARGET, BROWSER, *(f"{npu.TARGET}{name}" for name in npu.SYSTEMS)]
    if any(target.startswith(mcu.TARGET) for target in targets):
        from topokd_edge.cli._bench_mcu import target_names

        known = [*known, *target_names()]
    else:
        known.append(f"{mcu.TARGET}CORE")
    try:
        known += [parse_address(target).text for target in targets if target.startswith(SSH)]
        for target in (target for target in targets if target.startswith(adb.TARGET)):
            adb.parse_target(target)
            known.append(target)
        known += [f"{SERIAL}{parse_target(target)}" for target in targets if target.startswith(SERIAL)]
    except ValueError as error:
        raise UsageError(f"--on {error}") from None
    if not targets or not set(targets) <= set(known):
        known += [f"{SSH}USER@HOST", "adb or adb:SERIAL", f"{SERIAL}/dev/PORT"]
        raise UsageError(
            f"--on {text}: expected some of {', '.join(known)}; {TARGET} is this machine",
            hint="use --on local",
        )
    return list(dict.fromkeys(targets))
