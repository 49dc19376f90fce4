"""Persistence images that are computed whenever they are read, where a disk has no room for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from topokd_edge.data.windowset import WindowSet
from topokd_edge.progress import Progress, silent
from topokd_edge.rows import Rows
from topokd_edge.topology.cache import cached_images
from topokd_edge.topology.image import backend_for
from topokd_edge.topology.params import ImageParams
from topokd_edge.topology.writing import TASK, NoRoomError, draw, name_of, rounded, stored_as

_BLOCK = 64


class ComputedImages:
    """The images of `cached_images`, to the bit, computed whenever rows are read: for a disk without room.

    Parameters
    ----------
    windows, params
        As for `cached_images`.
    """

    def __init__(self, windows: WindowSet, params: ImageParams) -> None:
        self._windows, self._params = windows, params
        self.shape = (len(windows), windows.x.shape[1], *params.size)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: npt.NDArray[np.int64], /) -> npt.NDArray[np.floating[Any]]:
        """Return the images of the windows `rows` (indices, any order), float16 or float32.

        Raises
        ------
        BadInputError
            When a sample is NaN or infinite; subject and session are named.
        """
        if not len(rows):
            return np.empty((0, *self.shape[1:]), dtype=stored_as(self._params))
        names = [name_of(self._windows, window) for window in rows]
        x = np.asarray(self._windows.x[rows])
        return rounded(draw(x, names, self._params, backend_for(self._params))[0], stored_as(self._params))


def images_of(
    windows: WindowSet, params: ImageParams, folder: Path, *, progress: Progress = silent
) -> npt.NDArray[np.floating[Any]] | ComputedImages:
    """Return the images of a set from `folder`, or computed when they are read if the disk has no room.

    The numbers are the same to the bit. See `cached_images`.
    """
    try:
        return cached_images(windows, params, folder, progress=progress)
    except NoRoomError as error:
        progress(TASK, 0, len(windows), f"{error.message}; they are computed for each batch")
        return ComputedImages(windows, params)


def empty_rows(images: Rows, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return those of the windows `rows` whose images are zero in every channel; read block by block."""
    found = [np.empty(0, dtype=np.int64)]
    for start in range(0, len(rows), _BLOCK):
        some = rows[start : start + _BLOCK]
        found.append(some[~np.any(images[some], axis=(1, 2, 3))])
    return np.concatenate(found)
