"""Arrays that may lie on disk: what code that reads them block by block may ask of one."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt


class Rows(Protocol):
    """An array that is read by rows; numpy arrays, memory-mapped or not, are ones."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Size of every axis, as of a numpy array."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: npt.NDArray[np.int64], /) -> npt.NDArray[Any]:
        """Return the rows at these indices, any order."""


def evenly(count: int, most: int) -> npt.NDArray[np.int64]:
    """Return at most `most` of the indices 0 to `count` - 1, evenly spread, ascending."""
    return np.linspace(0, count - 1, min(most, count)).astype(np.int64)
