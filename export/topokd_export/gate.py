"""What int8 costs on held-out windows, and whether that is too much to export."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from topokd_edge.errors import CheckFailedError
from topokd_edge.evaluate.compare import interval_of_difference
from topokd_export.layers import Layer, worst

MAX_LOSS = 0.02
"""Accuracy that int8 may cost, as a share."""


@dataclass(frozen=True)
class Loss:
    """Accuracy of float32 less that of int8 on the same windows, as a share; negative when int8 is better.

    `ci95` is the paired 95 % interval over windows, None with fewer than two.
    """

    loss: float
    ci95: tuple[float, float] | None
    float32: float
    int8: float
    windows: int

    def to_dict(self) -> dict[str, Any]:
        """Return the loss as JSON-able data."""
        return {**asdict(self), "ci95": None if self.ci95 is None else list(self.ci95)}

    def sentence(self, precision: str = "int8") -> str:
        """Say it in points of accuracy, of int8 or another precision that was put in its place."""
        between = "" if self.ci95 is None else f"{100 * self.ci95[0]:+.1f} to {100 * self.ci95[1]:+.1f}, "
        return (
            f"{precision} loses {100 * self.loss:.1f} points ({between}{100 * self.float32:.1f} to "
            f"{100 * self.int8:.1f} %, {self.windows} held-out windows)"
        )

    def exceeds(self, limit: float) -> bool:
        """Return whether more than `limit` is lost, and the interval leaves out that nothing is."""
        return self.loss > limit and (self.ci95 is None or self.ci95[0] > 0)


def loss_of(
    y: npt.NDArray[np.int64], float_logits: npt.NDArray[np.float32], int8_logits: npt.NDArray[np.float32]
) -> Loss:
    """Compare the answers, (windows, classes) each, with the classes `y`, (windows,)."""
    right, kept = (logits.argmax(axis=1) == y for logits in (float_logits, int8_logits))
    loss, interval = interval_of_difference(right.astype(np.float64) - kept)
    return Loss(loss, interval, float(right.mean()), float(kept.mean()), len(y))


def refuse_loss(loss: Loss, limit: float, layers: list[Layer]) -> None:
    """Refuse an int8 model that loses too much, and name the tensors that lose it.

    Raises
    ------
    CheckFailedError
        When more than `limit` is lost.
    """
    if loss.exceeds(limit):
        raise CheckFailedError(
            f"{loss.sentence()}; {100 * limit:.1f} are allowed",
            problems=[item.sentence() for item in worst(layers)],
            hint="export with --qat, which trains the student on with int8 rounding; or try --ranges mse or "
            "percentile; or allow more with --max-int8-loss; or, slower, have int16 activations instead: "
            "--targets onnx,tflite,tflite-int16 --no-int8",
        )
