"""Full-integer int8 after training: int8 weights per channel, int8 activations, int32 bias."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from topokd_edge.bundle import quiet
from topokd_edge.errors import BadInputError
from topokd_export.deploy import Array, DeployGraph
from topokd_export.describe import check_full_int8, describe_tflite
from topokd_export.tflite_writer import INPUT_NAME, SIGNATURE, write_tflite

CALIBRATION_WINDOWS = 256
MIN_CALIBRATION_WINDOWS = 128
"""Fewer leave activation ranges too narrow: 8 windows cost 7 points of accuracy, 128 none."""


def quantise(graph: DeployGraph, windows: Array) -> bytes:
    """Return the int8 TFLite model of a deploy form.

    Weights are symmetric int8 per output channel; activations int8 per tensor, from the smallest and largest
    value seen over the calibration windows (the quantiser's own moving average loses several points).

    Parameters
    ----------
    graph
        The deploy form; dead channels are treated here.
    windows
        Normalised calibration windows, (n, channels, length), n >= 128: see `calibration_windows`.

    Raises
    ------
    BadInputError
        When there are too few windows, or one is not finite.
    CheckFailedError
        When the result is not integer throughout.
    """
    if len(windows) < MIN_CALIBRATION_WINDOWS:
        raise BadInputError(
            f"int8 needs at least {MIN_CALIBRATION_WINDOWS} calibration windows, {len(windows)} are given",
            hint="use more training data, or a smaller stride between windows; or export with --no-int8",
        )
    if not np.isfinite(windows).all():
        raise BadInputError("a calibration window holds NaN or infinity", hint="audit the window set")
    content = write_tflite(graph.with_floored_weights())
    with _silence():
        quantised = _static_int8(content, [np.ascontiguousarray(window.T)[None, None] for window in windows])
    check_full_int8(describe_tflite(quantised))
    return quantised


def calibration_windows(
    y: npt.NDArray[np.int64],
    subject: npt.NDArray[np.str_],
    fit_subjects: Sequence[str],
    *,
    n: int = CALIBRATION_WINDOWS,
    seed: int = 0,
) -> npt.NDArray[np.int64]:
    """Choose windows for calibration, spread over the classes and training subjects.

    Takes one window in turn from every (class, subject) that still has one, in random order.

    Parameters
    ----------
    y, subject
        Class and subject of every window of the set, (windows,).
    fit_subjects
        Whom the model was fitted on; nobody else's windows are used.
    n
        How many; all there are when the fit subjects have fewer.
    seed
        Of the random order.

    Returns
    -------
    array
        int64, indices into the set, ascending.

    Raises
    ------
    BadInputError
        When the fit subjects have fewer than 128 windows, or fewer than 128 are asked for.
    """
    if n < MIN_CALIBRATION_WINDOWS:
        raise BadInputError(f"calibration takes at least {MIN_CALIBRATION_WINDOWS} windows, not {n}")
    mine = np.flatnonzero(np.isin(subject, list(fit_subjects)))
    if len(mine) < MIN_CALIBRATION_WINDOWS:
        raise BadInputError(
            f"int8 needs at least {MIN_CALIBRATION_WINDOWS} windows of the training subjects to calibrate "
            f"with, there are {len(mine)}",
            hint="use more training data, or a smaller stride between windows; or export with --no-int8",
        )
    shuffled = np.random.default_rng(seed).permutation(mine)
    _, group = np.unique(np.stack([y[shuffled].astype(str), subject[shuffled]]), axis=1, return_inverse=True)
    turn = np.empty(len(shuffled), dtype=np.int64)
    for number in range(int(group.max()) + 1):
        members = np.flatnonzero(group == number)
        turn[members] = np.arange(len(members))
    chosen = shuffled[np.argsort(turn, kind="stable")[:n]]
    return np.sort(chosen).astype(np.int64)


def _static_int8(content: bytes, inputs: list[Array]) -> bytes:
    from litert_quantizer import calibrator, quantizer, recipe
    from litert_quantizer.utils import qsv_utils

    tool = quantizer.Quantizer(content)
    tool.load_quantization_recipe(recipe.static_wi8_ai8())
    # Quantizer.calibrate knows a moving average only; min-max goes through its parts, one of them private.
    observer = calibrator.Calibrator(content, num_threads=1, qsv_update_func=qsv_utils.min_max_update)
    observer.calibrate({SIGNATURE: [{INPUT_NAME: window} for window in inputs]}, tool._recipe_manager)
    result: Any = tool.quantize(observer.get_model_qsvs(), enable_progress_report=False)
    return bytes(result.quantized_model)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep the quantiser's progress bars and warnings of the interpreter it runs to ourselves."""
    with (
        quiet(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield
