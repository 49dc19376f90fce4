"""Classification by the topology teacher, from a raw window to logits: what a TDA-free student replaces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from topokd_edge.bundle import Model, open_model
from topokd_edge.topology.image import Backend, persistence_images
from topokd_edge.topology.params import ImageParams

_RUNTIMES: dict[Backend, str] = {"fast": "fast", "reference": "ripser+persim"}


class TopologyInference:
    """Persistence images of the raw signal, image standardisation, topology teacher.

    Attributes
    ----------
    runtime
        `fast+onnxruntime` or `ripser+persim+onnxruntime`.
    versions
        Of the packages that compute the images and run the teacher.
    """

    def __init__(
        self, model: Model, preprocessing: dict[str, Any], backend: Backend, *, threads: int = 1
    ) -> None:
        self._model, self._backend, self._threads = model, backend, threads
        shape = (1, -1, 1, 1)
        self._mean = np.array(preprocessing["image"]["mean"], dtype=np.float32).reshape(shape)
        self._std = np.array(preprocessing["image"]["std"], dtype=np.float32).reshape(shape)
        self._params = ImageParams.from_dict(preprocessing["topology"])
        self.runtime = f"{_RUNTIMES[backend]}+{model.runtime}"
        self.versions = {model.runtime: model.version, **_image_versions(backend)}

    def run(self, window: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return logits, float32 (n, classes), of raw windows, float32 (n, channels, length)."""
        images, _ = persistence_images(window, self._params, backend=self._backend, threads=self._threads)
        return self._model.run((images - self._mean) / self._std)


def load(path: str, preprocessing: dict[str, Any], backend: Backend, threads: int = 1) -> TopologyInference:
    """Open a topology teacher.

    Parameters
    ----------
    path
        The teacher as an .onnx file, input float32 (n, channels, rows, columns).
    preprocessing
        What was fitted with it; its `topology` and `image` are used (see `topokd_edge.run.FoldRun`).
    backend
        What computes the persistence images: `fast` or `reference`.
    threads
        Threads of the images and of the model's runtime.

    Raises
    ------
    BadInputError
        When the file is not a model, or the image parameters are not usable.
    """
    return TopologyInference(open_model(Path(path), threads=threads), preprocessing, backend, threads=threads)


def _image_versions(backend: Backend) -> dict[str, str]:
    from importlib import metadata

    packages = ("numba",) if backend == "fast" else ("ripser", "persim")
    return {package: metadata.version(package) for package in packages}
