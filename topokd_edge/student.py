"""The student of a bundle as an app uses it: samples in, answers out.

Light on purpose (standard library and numpy, and one runtime for the model file).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from topokd_edge.bundle_folder import Bundle
from topokd_edge.errors import BadInputError, CheckFailedError, MissingError
from topokd_edge.evaluate.metrics import softmax
from topokd_edge.manifest import ModelFile
from topokd_edge.runtime import RUNNABLE, Model, open_model
from topokd_edge.streaming import DEFAULT_OVERLAP, window_step

AGREEMENT = 0.9
"""Share of the self-test vectors with the same class: one of 16 may lie at a tie."""


@dataclass(frozen=True)
class Answer:
    """What the student says of one window.

    Attributes
    ----------
    start, stop
        Its samples, half-open, counted over all that was pushed from 0.
    class_name
        The class with the largest logit.
    probability
        Of this class: softmax of the logits, no better calibrated than the model card says.
    logits
        float32, shape (classes,), in the order of the manifest's class names.
    """

    start: int
    stop: int
    class_name: str
    probability: float
    logits: npt.NDArray[np.float32]


class Student:
    """A bundle's student, fed with samples as they come.

        student = Student.load("bundle", rate_hz=50)
        for answer in student.push(samples):
            print(answer.class_name, answer.probability)

    Parameters
    ----------
    bundle
        A bundle.
    model
        One of its model files, opened.
    overlap
        Share of a window that the next one repeats; with a half there is an answer every half window.
    """

    def __init__(self, bundle: Bundle, model: Model, overlap: float = DEFAULT_OVERLAP) -> None:
        self.bundle, self.model = bundle, model
        self.step = window_step(bundle.manifest.length, overlap)
        self._stream = bundle.stream(overlap)
        self._begin = 0

    @classmethod
    def load(
        cls,
        path: Path | str,
        *,
        precision: str | None = None,
        overlap: float = DEFAULT_OVERLAP,
        threads: int = 1,
        channels: Sequence[str] | None = None,
        units: Sequence[str] | None = None,
        rate_hz: float | None = None,
    ) -> Student:
        """Open a bundle that is whole, with a model file that this machine runs as it should.

        Hashes are checked, and the self-test vectors are run.

        Parameters
        ----------
        path
            The bundle folder.
        precision
            "float32", "int8" or "int16"; None takes float32 where there is one, else int8, else int16.
        overlap, threads
            See `Student` and `open_model`.
        channels, units, rate_hz
            What will be pushed; each that is given is compared with the manifest.

        Raises
        ------
        BadInputError
            When it is no bundle, has no such model, or the student was trained on something else.
        CheckFailedError
            When a file has changed, or the model answers otherwise than when it was exported.
        MissingError
            When no runtime for any of its files is installed.
        """
        bundle = Bundle.open(Path(path))
        bundle.check_feed(channels=channels, units=units, rate_hz=rate_hz)
        bundle.check_hashes()
        item, model = _open_first(bundle, precision, threads)
        _run_self_test(bundle, item, model)
        return cls(bundle, model, overlap)

    def push(self, samples: npt.ArrayLike) -> list[Answer]:
        """Take samples and return an answer for every window that they complete; often none.

        Parameters
        ----------
        samples
            Shape (n, channels), or (channels,) for a single sample, in the units and order of the manifest.

        Raises
        ------
        BadInputError
            As `WindowStream.push`; or when the model answers with no number.
        """
        begin, length = self._begin, self.bundle.manifest.length
        logits = self.logits(samples)
        probability = softmax(logits) if len(logits) else logits
        chosen, names = logits.argmax(axis=1).tolist(), self.bundle.manifest.class_names
        return [
            Answer(at, at + length, names[label], float(row[label]), answer)
            for at, label, row, answer in zip(
                range(begin, self._begin, self.step), chosen, probability, logits, strict=True
            )
        ]

    def logits(self, samples: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Take samples as `push` does, and return the logits of the windows, float32 (windows, classes)."""
        windows = self._stream.push(samples)
        self._begin += len(windows) * self.step
        if not len(windows):
            return np.empty((0, len(self.bundle.manifest.class_names)), dtype=np.float32)
        logits = self.model.run(windows)
        if not np.isfinite(logits).all():
            raise BadInputError(
                f"{self.bundle.folder}: the model answers with NaN or infinity", hint="check the input's unit"
            )
        return logits

    def gap(self) -> None:
        """Say that samples were lost here: no window crosses this place, the next begins after it."""
        self._begin += self._stream.pending
        self._stream.gap()


def _open_first(bundle: Bundle, precision: str | None, threads: int) -> tuple[ModelFile, Model]:
    """Open the first model file for which there is a runtime; float32, int8, then int16, which is slow."""
    files = [item for item in bundle.manifest.files if Path(item.path).suffix in RUNNABLE]
    files = sorted(
        (item for item in files if precision in (None, item.precision)),
        key=lambda item: (item.precision == "int16", item.precision),
    )
    if not files:
        have = ", ".join(f"{item.target} {item.precision}" for item in bundle.manifest.files)
        raise BadInputError(f"{bundle.folder}: no {precision or 'runnable'} model in it, it has {have}")
    missing = []
    for item in files:
        try:
            return item, open_model(bundle.folder / item.path, threads=threads)
        except MissingError as error:
            missing.append(error)
    raise MissingError(
        f"{bundle.folder}: no runtime for any of its model files is installed",
        problems=[error.message for error in missing],
        hint=missing[0].hint,
    )


def _run_self_test(bundle: Bundle, item: ModelFile, model: Model) -> None:
    vectors = bundle.self_test()
    got, expected = model.run(vectors["x"]), vectors[item.path]
    if got.shape != expected.shape or (got.argmax(axis=1) == expected.argmax(axis=1)).mean() < AGREEMENT:
        raise CheckFailedError(
            f"{bundle.folder / item.path}: {model.runtime} {model.version} answers otherwise than at export",
            hint="topokd-edge verify says by how much; try another version of the runtime",
        )
