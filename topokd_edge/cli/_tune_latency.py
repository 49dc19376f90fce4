"""What a trial's student takes on this machine: made int8 as by `export`, timed as by `bench`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from topokd_bench import local
from topokd_bench.pipelines import MODEL_FILE
from topokd_bench.windows import TIMING_WINDOWS, HeldOut
from topokd_export.model_files import INT8_FILE
from topokd_export.quantise import calibration_windows
from topokd_export.student import Student, student_of

from topokd_edge.data.windowset import WindowSet
from topokd_edge.distill.tuning.job import Search
from topokd_edge.distill.tuning.trials import Inner, inner_parts
from topokd_edge.errors import BadInputError, DeviceError
from topokd_edge.files import write_bytes
from topokd_edge.models.wrn import count
from topokd_edge.rows import evenly
from topokd_edge.run import FoldRun

PIPELINE = "student.int8"
PROCESSES = 5
"""Fresh processes, one after another. Work of others can only add time, so the least median is kept."""
_EFFORT = local.Effort(seconds=0.5, runs=50, warmup=10, timeout=120.0)


def check_latency(search: Search) -> None:
    """Refuse what would stop the first measurement, before anything is trained.

    Raises
    ------
    ModuleNotFoundError
        When a package that writes or runs int8 models is missing.
    BadInputError
        When the fit subjects have too few windows to calibrate int8 with.
    """
    import ai_edge_litert.interpreter  # noqa: F401
    import litert_quantizer  # noqa: F401

    fold = search.chosen[0]
    inner = inner_parts(search.windows, fold, search.plan.parts)[0]
    try:
        calibration_windows(search.windows.y, search.windows.subject, inner.fit)
    except BadInputError as error:
        raise BadInputError(
            f"--objective latency: {error.message}",
            hint="use more training data, a smaller stride between windows, or ask for macs instead",
        ) from None


def time_student(place: FoldRun, windows: WindowSet, inner: Inner) -> dict[str, Any]:
    """Time the int8 student of a place, from the raw window to the logits, on validation windows.

    Parameters
    ----------
    place
        Where it lies.
    windows
        The set without the test subjects: calibrated on fit subjects, timed on validation subjects.
    inner
        Who these are.

    Returns
    -------
    dict
        `latency_ms`, the least of the medians `p50_ms` of `processes` fresh processes, and how it was
        measured: `basis`, `target`, `pipeline`, `runtime`, `threads`, `runs` and `warmup` of each, `busy`
        (whether others used the machine in every process), `cpu`, `model_bytes`, `macs`, `versions`.

    Raises
    ------
    DeviceError
        When the model cannot be run here.
    """
    student = student_of(place, windows, inner.fit, inner.validation)
    with tempfile.TemporaryDirectory(prefix="topokd-tune-") as folder:
        job = _job(student, Path(folder))
        held_out = Path(folder) / "windows.npz"
        _timing_windows(student).save(held_out)
        results = [local.run(job, held_out, effort=_EFFORT).result for _ in range(PROCESSES)]
    if problems := sorted({result.error for result in results if result.error}):
        raise DeviceError(
            f"{place.folder}: the int8 student cannot be timed on this machine",
            problems=problems,
            hint="topokd-edge doctor lists what is missing; or ask for macs instead of latency",
        )
    medians = [result.latency_ms["p50"] for result in results if result.latency_ms]
    best = results[int(np.argmin(medians))]
    return {
        "latency_ms": min(medians),
        "p50_ms": medians,
        "processes": PROCESSES,
        **{key: getattr(best, key) for key in ("basis", "target", "pipeline", "runtime", "threads")},
        **{key: getattr(best, key) for key in ("runs", "warmup", "model_bytes", "macs", "versions")},
        "busy": all(bool(result.device.get("busy")) for result in results),
        "cpu": str(best.device.get("cpu") or ""),
    }


def _job(student: Student, folder: Path) -> local.Job:
    """Write the int8 file, and say how to run it."""
    content = student.quantise()
    path = folder / INT8_FILE
    write_bytes(path, content)
    scale = student.normalisation
    args = {
        "path": str(path),
        "mean": list(scale.mean),
        "std": list(scale.std),
        "channels": list(student.channels),
    }
    _, macs = count(student.model.spec, (student.windows.length,))
    return local.Job(PIPELINE, "litert", MODEL_FILE, args, len(content), macs)


def _timing_windows(student: Student) -> HeldOut:
    """Return a few raw windows of the validation subjects, without their classes."""
    index = student.windows.of_subjects(student.held_out)
    chosen = index[evenly(len(index), TIMING_WINDOWS)]
    return HeldOut(np.asarray(student.windows.x[chosen], dtype=np.float32))
