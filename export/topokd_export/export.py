"""Exporting a trained student: every model file, checked, in one bundle folder."""

from __future__ import annotations

import io
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import topokd_edge
from topokd_edge.bundle import Int8Numbers, Manifest, ModelFile, open_model, write_sums
from topokd_edge.errors import UsageError
from topokd_edge.files import new_folder, refuse_existing, sha256_bytes, write_bytes, write_json, write_text
from topokd_edge.manifest import MANIFEST
from topokd_edge.progress import Progress, silent
from topokd_edge.report.model_card import MODEL_CARD, model_card
from topokd_edge.run import OPTIMISTIC, Run
from topokd_export.c.bundled import MAIN_FILE, c_checks, write_c_folder
from topokd_export.deploy import Array
from topokd_export.describe import describe_tflite
from topokd_export.gate import MAX_LOSS
from topokd_export.int8_model import judge_int8, make_int8, onnx_against_tflite
from topokd_export.int16_model import judge_int16, make_int16
from topokd_export.model_files import (
    FLOAT_IO,
    INT8_FILE,
    INT16,
    INT16_FILE,
    ONNX,
    SUFFIXES,
    ModelBytes,
    model_files,
)
from topokd_export.parity import layer_differences
from topokd_export.readme import readme
from topokd_export.selftest import self_test_vectors
from topokd_export.student import Student, int8_settings, load_student
from topokd_export.verify import FLOAT_TOLERANCE, check, model_checks, refuse_failed
from topokd_export.wasm.build import refuse_without_compiler
from topokd_export.wasm.bundled import FILES, wasm_checks, write_wasm_folder

if TYPE_CHECKING:
    from topokd_edge.distill.int8_part import Int8

TARGETS = ("onnx", "tflite")
"""What is written when nothing is said."""
FROM_INT8 = (FLOAT_IO, "c", "wasm")
"""Made from the int8 TFLite file."""
ALL_TARGETS = (*SUFFIXES, "c", "wasm")
SELF_TEST = "selftest.npz"
_PACKAGES = ("numpy", "torch", "onnx", "ai-edge-litert", "litert-quantizer")


def export_student(
    run: Run,
    fold: int,
    seed: int,
    out: Path,
    *,
    int8: bool = True,
    settings: Int8 | None = None,
    max_int8_loss: float = MAX_LOSS,
    targets: Sequence[str] = TARGETS,
    overwrite: bool = False,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Write the distilled student of a fold and seed as a bundle; the same run gives the same bytes.

    Parameters
    ----------
    run, fold, seed
        Which student.
    out
        The bundle folder to make.
    int8
        Also write the full-integer TFLite model, whatever the targets, and other targets in int8.
    settings
        How the student becomes int8; as the run's recipe says if not given.
    max_int8_loss
        Accuracy that int8, or int16, may lose on held-out windows, as a share; see `topokd_export.gate`.
    targets
        Some of `ALL_TARGETS`: "onnx", "onnx-static" (a batch of 1), "tflite", "tflite-float-io" (int8 between
        float32 ends, for LiteRT.js), "tflite-int16" (int16 activations, also without int8), "c" and "wasm".
    overwrite
        Replace an existing `out`.
    progress
        Told of each step.

    Returns
    -------
    dict
        bundle, fold, seed, files (target, precision, path, bytes, sha256), checks (name, max_abs_diff,
        agreement, ok); with int8, int8 (settings, loss, layers); with C, c (arena_bytes, ram_bytes,
        weight_bytes).

    Raises
    ------
    UsageError
        For an unknown target, or one of `FROM_INT8` without int8.
    BadInputError
        When the run is not usable, or `out` exists.
    MissingError
        When C is asked for and there is no compiler to check it with, or WebAssembly and no ziglang.
    CheckFailedError
        When a model file does not answer as the torch model does, or int8 or int16 loses too much; nothing is
        written then.
    """
    _check_targets(targets, int8)
    refuse_existing(out, overwrite=overwrite)
    steps = _Steps(progress)
    steps.start("load the student")
    student = load_student(run, fold, seed)
    x, logits = self_test_vectors(student.graph)
    checks = [_layer_check(student, x)]
    with new_folder(out, overwrite=overwrite) as folder:
        steps.start("write the models")
        made = None
        if int8:
            made = make_int8(run, student, settings, progress)
        wide = None
        if INT16 in targets:
            chosen = int8_settings(run) if settings is None else settings
            wide = make_int16(student, chosen.windows)
        models = model_files(student.graph, student.app, targets, made, wide)
        files = [_write_model(folder, model) for model in models]
        steps.start("check the models")
        expected = {item.path: _expected(folder, item, x, logits) for item in files}
        for item in files:
            checks += model_checks(folder, item, x, expected[item.path], logits)
        judged: dict[str, Any] = {}
        if made is not None:
            refuse_failed(checks, f"{out}: not written")
            entry, judged = judge_int8(student, made, folder / INT8_FILE, max_int8_loss)
            checks.append(entry)
            checks += [
                onnx_against_tflite(student, folder, model.path)
                for model in models
                if (model.target, model.precision) == (ONNX, "int8")
            ]
        if wide is not None:
            refuse_failed(checks, f"{out}: not written")
            checks.append(judge_int16(student, folder / INT16_FILE, max_int8_loss))
        sizes: dict[str, Any] = {}
        if "c" in targets:
            app = student.app
            expected[MAIN_FILE], sizes = write_c_folder(folder, app, x)
            checks += c_checks(folder, app, x, expected[MAIN_FILE])
            files.append(_model_file(folder, "c", "int8", MAIN_FILE))
        if "wasm" in targets:
            answers = write_wasm_folder(folder, student.app, x)
            checks += wasm_checks(folder, student.app, x, answers)
            expected |= dict.fromkeys(FILES, answers)
            files += [_model_file(folder, "wasm", "int8", path) for path in FILES]
        refuse_failed(checks, f"{out}: not written")
        manifest = _manifest(student, run, files, models)
        write_bytes(folder / SELF_TEST, _npz({"x": x, **expected}))
        write_json(folder / MANIFEST, manifest.to_json())
        write_text(folder / "README.md", readme(manifest))
        card = model_card(run, student.fold_run, student.windows, manifest, judged.get("loss"))
        write_text(folder / MODEL_CARD, card)
        write_sums(folder)
    steps.start("done")
    return {
        "bundle": str(out),
        "fold": fold,
        "seed": seed,
        "files": [vars(item) for item in files],
        "checks": checks,
        **({"int8": judged} if judged else {}),
        **({"c": sizes} if sizes else {}),
    }


def _check_targets(targets: Sequence[str], int8: bool) -> None:
    unknown = [name for name in targets if name not in ALL_TARGETS]
    if unknown or not targets:
        raise UsageError(f"unknown targets {unknown}: expected some of {', '.join(ALL_TARGETS)}")
    named = ",".join(name for name in targets if name in FROM_INT8)
    if named and not int8:
        raise UsageError(f"--targets {named} is int8, and --no-int8 says otherwise: leave one of them out")
    if "wasm" in targets:
        refuse_without_compiler()


class _Steps:
    """Counts the steps of an export for a progress bar."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._done = progress, -1

    def start(self, note: str) -> None:
        self._done += 1
        self._progress("export", self._done, 3, note)


def _write_model(folder: Path, model: ModelBytes) -> ModelFile:
    write_bytes(folder / model.path, model.content)
    return _model_file(folder, model.target, model.precision, model.path)


def _model_file(folder: Path, target: str, precision: str, path: str) -> ModelFile:
    content = (folder / path).read_bytes()
    return ModelFile(target, precision, path, len(content), sha256_bytes(content))


def _layer_check(student: Student, x: Array) -> dict[str, Any]:
    worst = max(layer_differences(student.model, student.graph, x).values())
    return check("deploy form against torch, every layer", worst <= FLOAT_TOLERANCE, worst)


def _expected(folder: Path, item: ModelFile, x: Array, logits: Array) -> Array:
    """Return what a file must answer: the float logits, or those of the file that defines the integers."""
    if item.precision == "float32":
        return logits
    own = INT8_FILE if item.precision == "int8" else INT16_FILE
    return open_model(folder / own, reference_kernels=True).run(x)


def _manifest(student: Student, run: Run, files: list[ModelFile], models: list[ModelBytes]) -> Manifest:
    from topokd_edge.models.wrn import count

    windows = student.windows
    params, macs = count(student.model.spec, (windows.length,))
    numbers = {
        model.path: _integer_numbers(model.content)
        for model in models
        if model.path in (INT8_FILE, INT16_FILE)
    }
    return Manifest(
        channels=len(student.channels),
        length=windows.length,
        rate_hz=windows.rate_hz,
        channel_names=student.channel_names,
        units=student.units,
        normalisation=student.normalisation,
        class_names=windows.class_names,
        files=tuple(files),
        int8=numbers.get(INT8_FILE),
        int16=numbers.get(INT16_FILE),
        macs=macs,
        params=params,
        self_test=SELF_TEST,
        provenance={
            "run": run.folder.resolve().name,
            "fold": student.fold_run.fold,
            "seed": student.fold_run.seed,
            "window_set": windows.content_hash,
            "held_out": list(student.held_out),
            **({"optimistic": OPTIMISTIC} if run.optimistic else {}),
        },
        versions={
            "topokd-edge": topokd_edge.__version__,
            **{name: metadata.version(name) for name in _PACKAGES},
        },
    )


def _integer_numbers(content: bytes) -> Int8Numbers:
    description = describe_tflite(content)
    first, last = description.input, description.output
    if first.scale is None or last.scale is None or first.zero_point is None or last.zero_point is None:
        raise ValueError("an integer model without scales passed its check")
    return Int8Numbers(first.scale, first.zero_point, last.scale, last.zero_point)


def _npz(arrays: dict[str, Array]) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)  # type: ignore[arg-type]
    return stream.getvalue()
