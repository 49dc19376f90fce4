"""Types that several modules of the bench share."""

from __future__ import annotations

from typing import Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.float32]
Basis = Literal["measured", "counted", "modelled"]


class Pipeline(Protocol):
    """Everything between a raw window and its logits, in one runtime."""

    runtime: str
    versions: dict[str, str]

    def run(self, window: Array) -> Array:
        """Return logits, float32 (1, classes), of one raw window, float32 (1, channels, length)."""
