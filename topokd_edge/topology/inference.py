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
    """Signal normalisation, persistence images, image standardisation, topology teacher.

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
        self._signal = _columns(preprocessing["signal"], trailing=1)
        self._image = _columns(preprocessing["image"], trailing=2)
        self._params = ImageParams.from_dict(preprocessing["topology"])
        self.runtime = f"{_RUNTIMES[backend]}+{model.runtime}"
        self.versions = {model.runtime: model.version, **_image_versions(backend)}

    def run(self, window: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return logits, float32 (n, classes), of raw windows, float32 (n, channels, length)."""
        mean, std = self._signal
        images, _ = persistence_images(
            (window - mean) / std, self._params, backend=self._backend, threads=self._threads
        )
        mean, std = self._image
        return self._model.run((images - mean) / std)


def load(path: str, preprocessing: dict[str, Any], backend: Backend, threads: int = 1) -> TopologyInference:
    """Open a topology teacher.

    Parameters
    ----------
    path
        The teacher as an .onnx file, input float32 (n, channels, rows, columns).
    preprocessing
        What was fitted with it: `signal`, `topology` and `image` (see `topokd_edge.run.FoldRun`).
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


def _columns(
    fitted: dict[str, list[float]], *, trailing: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return mean and std with the channels on axis 1 of an array that has `trailing` axes after it."""
    shape = (1, -1, *(1,) * trailing)
    mean, std = (np.array(fitted[name], dtype=np.float32).reshape(shape) for name in ("mean", "std"))
    return mean, std


def _image_versions(backend: Backend) -> dict[str, str]:
    from importlib import metadata

    packages = ("numba",) if backend == "fast" else ("ripser", "persim")
    return {package: metadata.version(package) for package in packages}
