"""The int16 model of an export: int8 weights, int16 activations; a way out where int8 loses too much."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from topokd_edge.errors import CheckFailedError
from topokd_export.int8_model import against_float32
from topokd_export.quantise import write_int16
from topokd_export.student import Student
from topokd_export.verify import check


def make_int16(student: Student, windows: int) -> bytes:
    """Return the int16 TFLite model of a student, with ranges from as many windows as int8 takes."""
    return write_int16(student.graph, student.calibration(windows))


def judge_int16(student: Student, path: Path, limit: float) -> dict[str, Any]:
    """Compare int16 with float32 on the held-out windows by which int8 is judged.

    Parameters
    ----------
    student, path
        The student, and where its int16 model lies.
    limit
        Accuracy that may be lost, as a share.

    Returns
    -------
    dict
        The entry of `checks`.

    Raises
    ------
    CheckFailedError
        When more is lost; see `topokd_export.gate.Loss.exceeds`.
    """
    loss, apart, alike = against_float32(student, path)
    if loss.exceeds(limit):
        raise CheckFailedError(
            f"{loss.sentence('int16')}; {100 * limit:.1f} are allowed",
            hint="its weights are int8: export float32 alone; or allow more with --max-int8-loss",
        )
    return check(loss.sentence("int16"), True, apart, alike)
