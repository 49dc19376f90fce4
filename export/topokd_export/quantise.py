"""Full-integer TFLite, int8 or int16 activations: int8 weights per channel, ranges from our simulator."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from topokd_edge.bundle import quiet
from topokd_edge.errors import BadInputError
from topokd_export.deploy import INPUT, Array, DeployGraph
from topokd_export.describe import check_full_int8, check_int16, describe_tflite
from topokd_export.tflite_writer import INPUT_NAME, OUTPUT_NAME, write_tflite

if TYPE_CHECKING:
    from topokd_edge.distill.int8_part import Int8
    from topokd_export.simulate import Ranges

CALIBRATION_WINDOWS = 256
MIN_CALIBRATION_WINDOWS = 128
"""Fewer leave activation ranges too narrow: 8 windows cost 7 points of accuracy, 128 none."""
INT16_HEADROOM = 4
"""By how much int16 ranges exceed what calibration saw: two bits, and louder windows are not clipped."""


def quantise(graph: DeployGraph, windows: Array, settings: Int8 | None = None) -> bytes:
    """Return the int8 TFLite model of a deploy form.

    Parameters
    ----------
    graph
        The deploy form; dead channels are treated here.
    windows
        Normalised calibration windows, (n, channels, length), n >= 128: see `calibration_windows`.
    settings
        Choice of the ranges, and bias correction; smallest and largest value, and none, if not given.

    Raises
    ------
    BadInputError
        When there are too few windows, or one is not finite.
    CheckFailedError
        When the result is not integer throughout.
    """
    return write_int8(*calibrated(graph, windows, settings))


def calibrated(
    graph: DeployGraph, windows: Array, settings: Int8 | None = None
) -> tuple[DeployGraph, Ranges]:
    """Return a graph whose dead channels and biases are ready for int8, and its ranges; see `quantise`."""
    from topokd_export.correct import correct_bias
    from topokd_export.ranges import find_ranges

    refuse_unusable(windows)
    graph = graph.with_floored_weights()
    if settings is None:
        return graph, find_ranges(graph, windows, "min-max")
    ranges = find_ranges(graph, windows, settings.ranges, settings.tail)
    return correct_bias(graph, windows, ranges) if settings.bias_correction else graph, ranges


def refuse_unusable(windows: Array) -> None:
    """Raise BadInputError for fewer than 128 calibration windows, or one that is not finite."""
    if len(windows) < MIN_CALIBRATION_WINDOWS:
        raise BadInputError(
            f"int8 needs at least {MIN_CALIBRATION_WINDOWS} calibration windows, {len(windows)} are given",
            hint="use more data, or a smaller stride between windows; or export float32 alone, --no-int8",
        )
    if not np.isfinite(windows).all():
        raise BadInputError("a calibration window holds NaN or infinity", hint="audit the window set")


def write_int8(graph: DeployGraph, ranges: Ranges) -> bytes:
    """Return the int8 TFLite model of a deploy form with the given ranges of its tensors.

    Raises
    ------
    CheckFailedError
        When the result is not integer throughout.
    """
    from litert_quantizer import recipe

    content = _quantised(graph, ranges, recipe.static_wi8_ai8())
    check_full_int8(describe_tflite(content))
    return content


def write_int16(graph: DeployGraph, windows: Array) -> bytes:
    """Return the TFLite model with int8 weights, int16 activations and int64 biases; see `quantise`.

    Ranges are `INT16_HEADROOM` times those from the smallest to the largest value, and made symmetric: every
    zero point is 0.
    """
    from litert_quantizer import recipe

    graph, found = calibrated(graph, windows)
    ranges = {name: (INT16_HEADROOM * low, INT16_HEADROOM * high) for name, (low, high) in found.items()}
    content = _quantised(graph, ranges, recipe.static_wi8_ai16())
    check_int16(describe_tflite(content))
    return content


def _quantised(graph: DeployGraph, ranges: Ranges, recipe: Any) -> bytes:
    from litert_quantizer import quantizer

    names = {INPUT: INPUT_NAME, graph.ops[-1].name: OUTPUT_NAME}
    found = {
        names.get(name, name): {"min": _one(low), "max": _one(high)} for name, (low, high) in ranges.items()
    }
    with _silence():
        tool = quantizer.Quantizer(write_tflite(graph))
        tool.load_quantization_recipe(recipe)
        result: Any = tool.quantize(found, enable_progress_report=False)
    return bytes(result.quantized_model)


def _one(value: float) -> Array:
    return np.full((1, 1, 1, 1), value, dtype=np.float32)


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
            hint="use more data, or a smaller stride between windows; or export float32 alone, --no-int8",
        )
    shuffled = np.random.default_rng(seed).permutation(mine)
    _, group = np.unique(np.stack([y[shuffled].astype(str), subject[shuffled]]), axis=1, return_inverse=True)
    turn = np.empty(len(shuffled), dtype=np.int64)
    for number in range(int(group.max()) + 1):
        members = np.flatnonzero(group == number)
        turn[members] = np.arange(len(members))
    chosen = shuffled[np.argsort(turn, kind="stable")[:n]]
    return np.sort(chosen).astype(np.int64)


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
