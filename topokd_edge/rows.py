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
