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
from topokd_export.int8_model import Int8Model, judge_int8, make_int8, onnx_against_tflite
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
    with new_folder(out, overwrite=overwrite) as folder:
        made = _Export(student, folder, out, max_int8_loss)
        steps.start("write the models")
        quantised = make_int8(run, student, settings, progress) if int8 else None
        wide = None
        if INT16 in targets:
            wide = make_int16(student, (settings or int8_settings(run)).windows)
        made.write_models(model_files(student.graph, student.app, targets, quantised, wide))
        steps.start("check the models")
        made.check_models()
        if quantised is not None:
            made.judge_int8(quantised)
        if wide is not None:
            made.judge_int16()
        if "c" in targets:
            made.write_c()
        if "wasm" in targets:
            made.write_wasm()
        made.finish(run)
    steps.start("done")
    return {
        "bundle": str(out),
        "fold": fold,
        "seed": seed,
        "files": [vars(item) for item in made.files],
        "checks": made.checks,
        **({"int8": made.judged} if made.judged else {}),
        **({"c": made.sizes} if made.sizes else {}),
    }


class _Export:
    """A bundle in the making: what was written, what it must answer, and what was checked.

    Parameters
    ----------
    student
        The student.
    folder
        Where to write.
    out
        What the folder will be called.
    max_int8_loss
        As for `export_student`.
    """

    def __init__(self, student: Student, folder: Path, out: Path, max_int8_loss: float) -> None:
        self._student, self._folder, self._out, self._max_loss = student, folder, out, max_int8_loss
        self._x, self._logits = self_test_vectors(student.graph)
        self._models: list[ModelBytes] = []
        self._expected: dict[str, Array] = {}
        self.files: list[ModelFile] = []
        self.checks = [_layer_check(student, self._x)]
        self.judged: dict[str, Any] = {}
        self.sizes: dict[str, Any] = {}

    def write_models(self, models: list[ModelBytes]) -> None:
        self._models = models
        for model in models:
            write_bytes(self._folder / model.path, model.content)
            self._add_file(model.target, model.precision, model.path)

    def check_models(self) -> None:
        """Compare every model file with the float logits, or with the file that defines the integers."""
        for item in self.files:
            expected = _expected(self._folder, item, self._x, self._logits)
            self._expected[item.path] = expected
            self.checks += model_checks(self._folder, item, self._x, expected, self._logits)

    def judge_int8(self, made: Int8Model) -> None:
        self._refuse_failed()
        entry, self.judged = judge_int8(self._student, made, self._folder / INT8_FILE, self._max_loss)
        self.checks.append(entry)
        self.checks += [
            onnx_against_tflite(self._student, self._folder, model.path)
            for model in self._models
            if (model.target, model.precision) == (ONNX, "int8")
        ]

    def judge_int16(self) -> None:
        self._refuse_failed()
        self.checks.append(judge_int16(self._student, self._folder / INT16_FILE, self._max_loss))

    def write_c(self) -> None:
        app = self._student.app
        self._expected[MAIN_FILE], self.sizes = write_c_folder(self._folder, app, self._x)
        self.checks += c_checks(self._folder, app, self._x, self._expected[MAIN_FILE])
        self._add_file("c", "int8", MAIN_FILE)

    def write_wasm(self) -> None:
        app = self._student.app
        answers = write_wasm_folder(self._folder, app, self._x)
        self.checks += wasm_checks(self._folder, app, self._x, answers)
        for path in FILES:
            self._expected[path] = answers
            self._add_file("wasm", "int8", path)

    def finish(self, run: Run) -> None:
        """Write self-test, manifest and papers, unless a check has failed."""
        self._refuse_failed()
        student, folder = self._student, self._folder
        manifest = _manifest(student, run, self.files, self._models)
        write_bytes(folder / SELF_TEST, _npz({"x": self._x, **self._expected}))
        write_json(folder / MANIFEST, manifest.to_json())
        write_text(folder / "README.md", readme(manifest))
        card = model_card(run, student.fold_run, student.windows, manifest, self.judged.get("loss"))
        write_text(folder / MODEL_CARD, card)
        write_sums(folder)

    def _add_file(self, target: str, precision: str, path: str) -> None:
        content = (self._folder / path).read_bytes()
        self.files.append(ModelFile(target, precision, path, len(content), sha256_bytes(content)))

    def _refuse_failed(self) -> None:
        refuse_failed(self.checks, f"{self._out}: not written")


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
