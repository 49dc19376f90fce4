"""What can be measured: named factories that give an object from raw window to logits."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from topokd_bench.types import Array, Pipeline
from topokd_edge.bundle import Model, open_model

MODEL_FILE = "topokd_bench.pipelines:model_file"
TDA = "topokd_edge.topology.inference:load"

FACTORIES = {
    MODEL_FILE: ("topokd_bench.pipelines", "model_file"),
    TDA: ("topokd_edge.topology.inference", "load"),
}
"""The only factories a worker calls: a spec names one and cannot make a worker import anything else."""


def load(factory: str, args: Mapping[str, Any]) -> Pipeline:
    """Import a factory by its name and call it.

    Raises
    ------
    ValueError
        When `factory` is not one of `FACTORIES`.
    """
    if factory not in FACTORIES:
        raise ValueError(f"unknown pipeline factory {factory!r}: expected one of {', '.join(FACTORIES)}")
    module, function = FACTORIES[factory]
    pipeline: Pipeline = getattr(importlib.import_module(module), function)(**args)
    return pipeline


class ModelFile:
    """A student or signal teacher: take its channels, normalise the raw window, run the model file."""

    def __init__(self, model: Model, mean: Array, std: Array, channels: list[int] | None = None) -> None:
        self._model, self._mean, self._std, self._channels = model, mean, std, channels
        self.runtime = model.runtime
        self.versions = {model.runtime: model.version}

    def run(self, window: Array) -> Array:
        """Return logits, float32 (1, classes), of a raw window, float32 (1, channels, length)."""
        own = window if self._channels is None else window.take(self._channels, axis=1)
        return self._model.run((own - self._mean) / self._std)


def model_file(
    path: str, mean: list[float], std: list[float], channels: list[int] | None = None, threads: int = 1
) -> ModelFile:
    """Open a .tflite or .onnx file.

    Parameters
    ----------
    path
        The model file.
    mean, std
        Per channel of the model, in the units of the raw windows.
    channels
        Indices of these channels in the raw windows; None is all of them.
    threads
        Threads the runtime may use.
    """
    model = open_model(Path(path), threads=threads)
    column = (1, len(mean), 1)
    return ModelFile(
        model,
        np.array(mean, np.float32).reshape(column),
        np.array(std, np.float32).reshape(column),
        channels,
    )
