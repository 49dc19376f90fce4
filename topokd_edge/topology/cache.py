"""Persistence images of a window set on disk, keyed so that signal and image are never paired wrongly."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from topokd_edge.arrays import write_npy
from topokd_edge.data.windowset import WindowSet
from topokd_edge.errors import BadInputError
from topokd_edge.files import read_json, replacing, sha256_bytes, sha256_file, write_json
from topokd_edge.progress import Progress, silent
from topokd_edge.topology.image import backend_for
from topokd_edge.topology.params import ImageParams
from topokd_edge.topology.writing import TASK, stored_as, tell_cost, write_images

FORMAT = "topokd-images/1"
_PART = 256
"""Windows after which images that take long are safe from an interruption."""


def cached_images(
    windows: WindowSet,
    params: ImageParams,
    folder: Path,
    *,
    index: npt.NDArray[np.int64] | None = None,
    progress: Progress = silent,
) -> npt.NDArray[np.floating[Any]]:
    """Return the persistence images of a window set, computed once and then read from `folder`.

    The file is found by the hash of the windows' content, the parameters and `index`, and its own hash is
    compared before it is used: a cache that is damaged or belongs to something else is computed again.

    Parameters
    ----------
    windows
        The set.
    params
        What the images depend on; fit it on training windows.
    folder
        Where caches lie; created.
    index
        Which windows, in this order; None takes all.
    progress
        Told how many windows are done.

    Returns
    -------
    ndarray
        Memory-mapped, read-only, shape (windows, channels, rows, columns). Images that are divided by their
        maximum are float16, rounded to nearest (by at most 2**-12; values below 2**-14 are 0); others are
        float32.

    Raises
    ------
    BadInputError
        When a sample is NaN or infinite; subject and session are named.
    NoRoomError
        When the disk has too little room.
    """
    chosen = np.arange(len(windows)) if index is None else np.asarray(index, dtype=np.int64)
    about = {
        "format": FORMAT,
        "windows": windows.content_hash,
        "index": "all" if index is None else sha256_bytes(chosen.astype("<i8").tobytes()),
        "params": params.to_dict(),
    }
    stem = folder / sha256_bytes(json.dumps(about, sort_keys=True).encode())[:24]
    file = _File(stem, about, stored_as(params), (len(chosen), windows.x.shape[1], *params.size))
    cached = file.read()
    if cached is not None:
        return cached
    if backend_for(params) == "reference":
        tell_cost(windows, params, len(chosen), None, progress)
        return _in_parts(file, windows, params, chosen, progress)
    write_images(windows, params, file.data, index=chosen, dtype=file.dtype, progress=progress)
    return file.sealed()


@dataclass(frozen=True)
class _File:
    """Images on disk, beside a JSON that says whose they are and how they hash."""

    stem: Path
    about: dict[str, Any]
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def data(self) -> Path:
        return self.stem.with_suffix(".npy")

    @property
    def meta(self) -> Path:
        return self.stem.with_suffix(".json")

    def read(self) -> npt.NDArray[np.floating[Any]] | None:
        """Return the images, or None unless they are exactly what is asked for."""
        try:
            if not self.data.is_file() or read_json(self.meta) != self._sealed_about():
                return None
            images: npt.NDArray[np.floating[Any]] = np.load(self.data, mmap_mode="r", allow_pickle=False)
        except (BadInputError, OSError, ValueError, EOFError):
            return None
        return images if images.dtype == self.dtype and images.shape == self.shape else None

    def sealed(self) -> npt.NDArray[np.floating[Any]]:
        """Write the JSON of images that were just written, and return them."""
        write_json(self.meta, self._sealed_about())
        images: npt.NDArray[np.floating[Any]] = np.load(self.data, mmap_mode="r", allow_pickle=False)
        return images

    def _sealed_about(self) -> dict[str, Any]:
        return {**self.about, "sha256": sha256_file(self.data)}


def _in_parts(
    file: _File,
    windows: WindowSet,
    params: ImageParams,
    index: npt.NDArray[np.int64],
    progress: Progress,
) -> npt.NDArray[np.floating[Any]]:
    """Compute images that take long, part by part: what an interruption leaves is used again."""
    parts: list[_File] = []

    def images() -> Iterator[npt.NDArray[np.floating[Any]]]:
        for start in range(0, len(index), _PART):
            some = index[start : start + _PART]
            shape = (len(some), *file.shape[1:])
            stem = file.stem.with_name(f"{file.stem.name}-{start}")
            parts.append(_File(stem, {**file.about, "from": start}, file.dtype, shape))
            cached = parts[-1].read()
            if cached is None:
                write_images(
                    windows, params, parts[-1].data, index=some, dtype=file.dtype, backend="reference"
                )
                cached = parts[-1].sealed()
            yield cached
            progress(TASK, start + len(some), len(index))

    with replacing(file.data) as path:
        write_npy(path, file.shape, file.dtype, images())
    whole = file.sealed()
    for part in parts:
        part.data.unlink()
        part.meta.unlink()
    return whole
