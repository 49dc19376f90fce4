"""Half-open intervals of samples."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from topokd_edge.data.recording import LabelInterval


def runs(flags: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return the half-open intervals in which `flags`, shape (n,), are true."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], flags.astype(np.int8), [0]))))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def label_intervals(begins: Sequence[tuple[int, str]], samples: int) -> tuple[LabelInterval, ...]:
    """Return the label intervals of `samples` samples from where labels begin: (sample, label), in order.

    "" is where a label ends and none begins.
    """
    ends = [*begins, (samples, "")]
    return tuple(LabelInterval(start, stop, name) for (start, name), (stop, _) in pairwise(ends) if name)
