"""Verifying a bundle: its hashes, its manifest, and its self-test vectors through every model file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from topokd_edge.bundle import Bundle, ModelFile, open_model
from topokd_edge.errors import CheckFailedError
from topokd_edge.student import AGREEMENT
from topokd_export.app_metadata import document_of
from topokd_export.c.writer import app_numbers
from topokd_export.deploy import Array
from topokd_export.describe import check_full_int8, check_int16, describe_tflite
from topokd_export.model_files import FLOAT_IO, INT8_FILE, INT16, ONNX, SUFFIXES, TFLITE, carried
from topokd_export.tflite_float_io import float_io_problems

FLOAT_TOLERANCE = 1e-4
REFERENCE_TOLERANCE_LSB, XNNPACK_TOLERANCE_LSB = 1, 4
"""Steps of the output scale: other builds of the reference kernels differ by 1, XNNPACK by up to 4.

XNNPACK rounds otherwise inside, and a head with large weights amplifies that as it does quantisation itself;
so it may also differ by as much as int8 differs from float on the same vectors.
"""
TARGETS = (*SUFFIXES, "c", "wasm")
"""What can be checked here."""


def verify_bundle(path: Path) -> list[dict[str, Any]]:
    """Check every file of a bundle.

    Parameters
    ----------
    path
        The bundle folder.

    Returns
    -------
    list of dict
        Checks made: name, max_abs_diff (in logits), agreement (share of equal choices) and ok, which is true.

    Raises
    ------
    BadInputError
        When it is not a bundle.
    CheckFailedError
        When a file has changed, or a model does not answer its self-test vectors as it should.
    """
    bundle = Bundle.open(path)
    bundle.check_hashes()
    unknown = [f"{item.path}: {item.target}" for item in bundle.manifest.files if item.target not in TARGETS]
    if unknown:
        raise CheckFailedError(
            f"{path}: model files for targets that this program cannot run",
            problems=unknown,
            hint="verify it with the version of topokd-edge that wrote it",
        )
    made = [item.path for item in bundle.manifest.files if item.precision == "int8"]
    if made and not (bundle.folder / INT8_FILE).is_file():
        raise CheckFailedError(
            f"{path}: without the {INT8_FILE} that {', '.join(made)} were made from",
            hint="export the bundle again",
        )
    checks = [check("hashes of all files", True)]
    vectors = bundle.self_test()
    models = [item for item in bundle.manifest.files if item.target in SUFFIXES]
    float_logits = next((vectors[item.path] for item in models if item.precision == "float32"), None)
    for item in models:
        expected = vectors[item.path]
        truth = expected if float_logits is None else float_logits
        checks += model_checks(bundle.folder, item, vectors["x"], expected, truth)
        checks.append(_carried(bundle, item))
        if item.target == INT16 or (item.target, item.precision) == (TFLITE, "int8"):
            checks.append(_integer_numbers(bundle, item))
    if any(item.target == "c" for item in bundle.manifest.files):
        checks += _c_checks(bundle, vectors)
    if any(item.target == "wasm" for item in bundle.manifest.files):
        checks += _wasm_checks(bundle, vectors)
    refuse_failed(checks, str(path))
    return checks


def model_checks(
    folder: Path, item: ModelFile, x: Array, expected: Array, float_logits: Array
) -> list[dict[str, Any]]:
    """Run self-test vectors through one model file, integer TFLite by the reference kernels and by the fast.

    Parameters
    ----------
    folder, item
        The file.
    x, expected
        Normalised windows (n, channels, length), and the logits (n, classes) this file must answer; of an
        int8 file those of `INT8_FILE` by the reference kernels, of the int16 file its own by them.
    float_logits
        Logits of the float32 student.
    """
    path = folder / item.path
    if item.target == INT16:
        return _int16_checks(path, x, expected, float_logits)
    if item.precision != "int8":
        return [compare(item.path, open_model(path).run(x), expected, FLOAT_TOLERANCE, 1.0)]
    step = describe_tflite((folder / INT8_FILE).read_bytes()).output.scale or 0.0
    # Half a step more, because logits here are float32 multiples of the step.
    exact, loose = (REFERENCE_TOLERANCE_LSB + 0.5) * step, (XNNPACK_TOLERANCE_LSB + 0.5) * step
    loose = max(loose, float(np.abs(expected - float_logits).max()))
    if item.target.startswith(ONNX):
        return [compare(f"{item.path} against TFLite", open_model(path).run(x), expected, loose, AGREEMENT)]
    if item.target == FLOAT_IO:
        refuse_other_inside(path)
    reference = open_model(path, reference_kernels=True).run(x)
    return [
        compare(f"{item.path}, reference kernels", reference, expected, exact, 1.0),
        compare(f"{item.path}, XNNPACK", open_model(path).run(x), expected, loose, AGREEMENT),
    ]


def _int16_checks(path: Path, x: Array, expected: Array, float_logits: Array) -> list[dict[str, Any]]:
    """Run self-test vectors through the int16 file; XNNPACK has no kernels for it."""
    step = describe_tflite(path.read_bytes()).output.scale or 0.0
    exact, loose = (REFERENCE_TOLERANCE_LSB + 0.5) * step, (XNNPACK_TOLERANCE_LSB + 0.5) * step
    reference = open_model(path, reference_kernels=True).run(x)
    return [
        compare(f"{path.name}, reference kernels", reference, expected, exact, 1.0),
        compare(f"{path.name}, default kernels", open_model(path).run(x), expected, loose, AGREEMENT),
        compare(f"{path.name} against float32", reference, float_logits, float("inf"), AGREEMENT),
    ]


def refuse_other_inside(path: Path) -> None:
    """Raise CheckFailedError when a TFLite file is not int8 between float32 ends."""
    problems = float_io_problems(describe_tflite(path.read_bytes()))
    if problems:
        raise CheckFailedError(f"{path}: not int8 between float32 ends", problems=problems)


def _carried(bundle: Bundle, item: ModelFile) -> dict[str, Any]:
    """Compare the labels, channels and normalisation inside a file with the manifest's."""
    same = carried(bundle.folder / item.path) == document_of(app_numbers(bundle.manifest))
    return check(f"{item.path}, labels and normalisation inside", same)


def _c_checks(bundle: Bundle, vectors: dict[str, Array]) -> list[dict[str, Any]]:
    from topokd_export.c.bundled import MAIN_FILE, c_checks

    _refuse_other_names(bundle, "c", (MAIN_FILE,))
    return c_checks(bundle.folder, app_numbers(bundle.manifest), vectors["x"], vectors[MAIN_FILE])


def _wasm_checks(bundle: Bundle, vectors: dict[str, Array]) -> list[dict[str, Any]]:
    from topokd_export.wasm.bundled import FILES, wasm_checks

    _refuse_other_names(bundle, "wasm", FILES)
    return wasm_checks(bundle.folder, app_numbers(bundle.manifest), vectors["x"], vectors[FILES[0]])


def _refuse_other_names(bundle: Bundle, target: str, expected: Sequence[str]) -> None:
    """Refuse a bundle whose files for a target are not those which are checked."""
    named = [item.path for item in bundle.manifest.files if item.target == target]
    if sorted(named) != sorted(expected):
        raise CheckFailedError(f"{bundle.folder}: {target} files {named}, expected {list(expected)}")


def compare(name: str, got: Array, expected: Array, tolerance: float, agreement: float) -> dict[str, Any]:
    """Compare logits (n, classes): all within `tolerance`, and the share `agreement` choosing alike."""
    difference = float(np.abs(got - expected).max()) if np.isfinite(got).all() else float("inf")
    alike = float((got.argmax(axis=1) == expected.argmax(axis=1)).mean())
    return check(name, difference <= tolerance and alike >= agreement, difference, alike)


def check(name: str, ok: bool, max_abs_diff: float = 0.0, agreement: float = 1.0) -> dict[str, Any]:
    """Return one entry of the `checks` that export and verify answer."""
    finite = max_abs_diff if np.isfinite(max_abs_diff) else None
    return {"name": name, "max_abs_diff": finite, "agreement": agreement, "ok": ok}


def refuse_failed(checks: list[dict[str, Any]], where: str) -> None:
    """Raise CheckFailedError with every check that is not ok."""
    failed = [
        f"{entry['name']}: largest difference {entry['max_abs_diff']}, agreement {entry['agreement']:.3f}"
        for entry in checks
        if not entry["ok"]
    ]
    if failed:
        raise CheckFailedError(f"{where}: models do not answer as they should", problems=failed)


def _integer_numbers(bundle: Bundle, item: ModelFile) -> dict[str, Any]:
    """Compare the manifest's scales and zero points with the file's own, and refuse a file with floats."""
    description = describe_tflite((bundle.folder / item.path).read_bytes())
    wide = item.target == INT16
    (check_int16 if wide else check_full_int8)(description)
    own = (
        description.input.scale,
        description.input.zero_point,
        description.output.scale,
        description.output.zero_point,
    )
    numbers = bundle.manifest.int16 if wide else bundle.manifest.int8
    said = numbers and (
        numbers.input_scale,
        numbers.input_zero_point,
        numbers.output_scale,
        numbers.output_zero_point,
    )
    return check(f"{item.path}, {item.precision} numbers of the manifest", said == own)
