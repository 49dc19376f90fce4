"""An array of windows that is gathered from the recordings when it is read."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


class WindowView:
    """Windows of shape (windows, channels, length), read like an array and never in memory as a whole.

    Indexing the first axis with an integer, a slice or an integer array returns a float32 array of its own;
    `numpy.asarray` reads everything.

    Parameters
    ----------
    samples
        float32, shape (samples, channels); may be memory-mapped.
    rows
        int64, shape (windows,): first row of each window.
    length
        Samples per window.
    """

    ndim = 3
    dtype = np.dtype(np.float32)

    def __init__(self, samples: npt.NDArray[np.float32], rows: npt.NDArray[np.int64], length: int) -> None:
        self.shape = (len(rows), samples.shape[1], length)
        self._rows = rows
        # Shape (samples - length + 1, channels, length), without a copy.
        self._windows = (
            np.lib.stride_tricks.sliding_window_view(samples, length, axis=0) if len(rows) else None
        )

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(
        self, index: int | slice | npt.NDArray[np.integer[Any]] | list[int]
    ) -> npt.NDArray[np.float32]:
        rows = self._rows[index]
        if self._windows is None:
            return np.empty((*np.shape(rows), *self.shape[1:]), dtype=np.float32)
        return np.ascontiguousarray(self._windows[rows])

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.asarray(self[:], dtype=dtype)
