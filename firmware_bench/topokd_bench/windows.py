"""The held-out windows a worker reads: one .npz, of which it loads only what it needs when it needs it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from topokd_bench.types import Array

TIMING_WINDOWS = 64
"""Windows that timing cycles through: enough that no branch or cache learns one of them."""


@dataclass(frozen=True)
class HeldOut:
    """Windows no model was trained on.

    Attributes
    ----------
    x
        float32, shape (windows, channels, length), raw units.
    y
        int64, shape (windows,); None when the truth is not known.
    subject
        str, shape (windows,); None when not known.
    """

    x: Array
    y: npt.NDArray[np.int64] | None = None
    subject: npt.NDArray[np.str_] | None = None

    def spread(self, count: int) -> npt.NDArray[np.int64]:
        """Return `count` indices spread evenly over the windows (all of them when there are fewer)."""
        count = min(count, len(self.x))
        return (np.arange(count) * len(self.x) // max(1, count)).astype(np.int64)

    def within(self, most_bytes: int, count: int | None = None) -> npt.NDArray[np.int64]:
        """Return indices spread evenly: at most `count`, and what `most_bytes` hold (float32), but one."""
        most = max(1, most_bytes // (4 * self.x[0].size))
        return self.spread(most if count is None else min(count, most))

    def some(self, count: int) -> HeldOut:
        """Return `count` windows, spread evenly."""
        chosen = self.spread(count)
        return HeldOut(
            self.x[chosen],
            None if self.y is None else self.y[chosen],
            None if self.subject is None else self.subject[chosen],
        )

    def save(self, path: Path) -> None:
        """Write the windows, and apart from them the few that timing uses."""
        arrays: dict[str, npt.NDArray[np.generic]] = {
            "timing": self.x[self.spread(TIMING_WINDOWS)],
            "x": np.asarray(self.x, dtype=np.float32),
        }
        if self.y is not None:
            arrays["y"] = self.y
        if self.subject is not None:
            arrays["subject"] = self.subject
        with path.open("wb") as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type]

    @classmethod
    def open(cls, path: Path) -> HeldOut:
        """Read all windows.

        Raises
        ------
        OSError, ValueError, KeyError
            When the file is missing or damaged.
        """
        with np.load(path, allow_pickle=False) as data:
            return cls(
                data["x"],
                data["y"] if "y" in data.files else None,
                data["subject"] if "subject" in data.files else None,
            )


def timing_windows(path: Path) -> Array:
    """Read only the windows that timing uses, so that the others do not count as memory of the pipeline."""
    with np.load(path, allow_pickle=False) as data:
        windows: Array = data["timing"]
    return windows
