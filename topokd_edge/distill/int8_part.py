"""The section of a recipe that says how the student becomes int8."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from topokd_edge.distill.parts import Part, Training

MIN_CALIBRATION_WINDOWS = 128
"""Fewer leave activation ranges too narrow: 8 windows cost 7 points of accuracy, 128 none."""


class Int8(Part):
    """Ranges of activations, and whether the student learns on with int8 rounding in place."""

    method: Literal["calibrate", "train"] = "calibrate"
    """`calibrate`: ranges from windows of the fit subjects, weights as they are. `train`: from there the
    student goes on learning, from labels and teachers, with rounding in place; ranges are learned too."""
    ranges: Literal["min-max", "percentile", "mse"] = "min-max"
    """Of each activation: its extremes; all but `tail` of its values; or where the squared error is least."""
    tail: Annotated[float, Field(gt=0, lt=0.5)] = 0.001
    """Share of values beyond a `percentile` range, half on either side."""
    bias_correction: bool = False
    """Whether biases make up for the mean shift that rounding causes in each channel."""
    windows: Annotated[int, Field(ge=MIN_CALIBRATION_WINDOWS)] = 256
    """Calibration windows, spread over classes and fit subjects."""
    training: Training = Training(epochs=4, learning_rate=0.01, weight_decay=0.0)
    """Of `train`."""

    @field_validator("training")
    @classmethod
    def _in_float32(cls, training: Training) -> Training:
        if training.precision != "float32":
            raise ValueError("expected precision = 'float32': rounding is simulated in it")
        return training
