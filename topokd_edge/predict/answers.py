"""A student's answers for every window of a recording, read block by block."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from topokd_edge.arrays import BLOCK, appended_npy, map_npy, row_blocks
from topokd_edge.bundle import Student
from topokd_edge.data.clean import rate_of_stamps
from topokd_edge.data.recording import Recording
from topokd_edge.data.units import factor
from topokd_edge.errors import BadInputError
from topokd_edge.evaluate.metrics import softmax

_WINDOWS = 256
"""Windows that go through the model together."""

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Answers:
    """What a student says of a recording.

    Attributes
    ----------
    recording
        Its rate is that of its time stamps, which tells the time better than the stated one.
    class_names
        By number.
    length, step
        Samples of a window, and from one window to the next.
    start
        First sample of each window, int64, shape (windows,).
    stretch
        Number of the gapless stretch of each window, int64, shape (windows,).
    label
        Number of the class of each window, int64, shape (windows,).
    probability
        Softmax of the student's logits, float32, memory-mapped, shape (windows, classes).
    """

    recording: Recording
    class_names: tuple[str, ...]
    length: int
    step: int
    start: Ints
    stretch: Ints
    label: Ints
    probability: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.start)

    @property
    def confidence(self) -> npt.NDArray[np.float32]:
        """The student's probability of the class each window has, float32, shape (windows,)."""
        return np.asarray(self.probability[np.arange(len(self)), self.label])


def answer(
    student: Student, recording: Recording, path: Path, told: Callable[[int], None] = lambda samples: None
) -> Answers:
    """Run a student over every gapless stretch of a recording; windows cross no gap.

    Parameters
    ----------
    student
        Fed with nothing yet, or with other recordings.
    recording
        Of the student's channels in its order, and its rate; units that have a rule are converted.
    path
        Where the probabilities are written, `.npy`.
    told
        Called with the number of samples each time that some more are done.

    Raises
    ------
    BadInputError
        When a value is out of all range; the recording and the samples are named.
    """
    manifest = student.bundle.manifest
    units = zip(recording.units, manifest.units, strict=True)
    factors = np.array([factor(unit, to) for unit, to in units], dtype=np.float32)
    rows = recording.samples.T
    edges = [0, *(gap.after_sample + 1 for gap in recording.gaps), len(rows)]
    counts, labels = [], [np.empty(0, dtype=np.int64)]
    with appended_npy(path, (len(manifest.class_names),), np.float32) as writer:
        for begin, stop in pairwise(edges):
            student.gap()
            before, at = writer.rows, begin
            for block in row_blocks(rows[begin:stop], min(BLOCK, _WINDOWS * student.step)):
                logits = _logits(student, block * factors, recording, at)
                at += len(block)
                if len(logits):
                    writer.append(softmax(logits).astype(np.float32))
                    labels.append(logits.argmax(axis=1))
                told(len(block))
            counts.append(writer.rows - before)
    steps = [begin + student.step * np.arange(n) for begin, n in zip(edges[:-1], counts, strict=True)]
    return Answers(
        recording=replace(recording, rate_hz=rate_of_stamps(recording)),
        class_names=manifest.class_names,
        length=manifest.length,
        step=student.step,
        start=np.concatenate(steps).astype(np.int64),
        stretch=np.repeat(np.arange(len(counts)), counts),
        label=np.concatenate(labels),
        probability=map_npy(path, hint="predict again"),
    )


def _logits(
    student: Student, block: npt.NDArray[np.float32], recording: Recording, at: int
) -> npt.NDArray[np.float32]:
    try:
        return student.logits(block)
    except BadInputError as error:
        where = f"{recording.source}, counting from sample {at}"
        raise BadInputError(f"{where}: {error.message}", hint=error.hint) from None
