"""A bundle on a path of recordings, from the files to the answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from topokd_edge.bundle import Student
from topokd_edge.data.options import ImportOptions
from topokd_edge.data.prepare import import_recordings
from topokd_edge.errors import BadInputError
from topokd_edge.predict.answers import Answers, answer
from topokd_edge.predict.fit import plan_for, refuse_other_rates
from topokd_edge.predict.smoothing import majority
from topokd_edge.progress import Progress, silent

_RATE_OPTION = re.compile(r"--resample [\d.e+]+|--resample HZ")


@dataclass(frozen=True)
class Predicted:
    """What a student says of every recording of a path.

    Attributes
    ----------
    student
        It, with the bundle and the model file that were used.
    smooth
        Windows of the majority; 1 is none.
    answers
        Of each recording, smoothed.
    refused
        `file` and `reason` of what could not be read.
    notes
        What a person should know.
    """

    student: Student
    smooth: int
    answers: tuple[Answers, ...]
    refused: tuple[dict[str, str], ...]
    notes: tuple[str, ...]


@contextmanager
def predict(
    student: Student,
    format_name: str,
    path: Path,
    options: ImportOptions,
    channels: tuple[str, ...],
    *,
    only: str | None = None,
    resample: bool = False,
    smooth: int = 1,
    progress: Progress = silent,
) -> Iterator[Predicted]:
    """Read recordings and run a student on them; samples and answers lie on disk while the block runs.

    Parameters
    ----------
    student
        Fed with nothing yet.
    format_name, path
        What to read, see `topokd_edge.data.importers.IMPORTERS`.
    options
        How; its channels and its resampling are set here.
    channels, only
        See `topokd_edge.predict.fit.plan_for`.
    resample
        Bring recordings to the student's rate, with an anti-alias filter.
    smooth
        See `topokd_edge.predict.smoothing.majority`.
    progress
        Told of each step.

    Raises
    ------
    UsageError, BadInputError, MissingError
        As the importer says, or when a recording does not fit the student.
    """
    manifest = student.bundle.manifest
    rate_hz = manifest.rate_hz if resample else None
    options = replace(options, cleaning=replace(options.cleaning, resample_hz=rate_hz))
    plan = plan_for(manifest, channels, only, resample=resample)
    with TemporaryDirectory(prefix="topokd-predict-") as scratch:
        folder = Path(scratch)
        try:
            read = import_recordings(
                format_name, path, options, folder, plan=plan, training=False, progress=progress
            )
        except BadInputError as error:
            hint = _RATE_OPTION.sub("--resample", error.hint)
            raise BadInputError(error.message, problems=error.problems, hint=hint) from None
        refuse_other_rates(manifest, read.recordings.items)
        found, told = [], _told(progress, len(read.recordings.samples))
        for number, recording in enumerate(read.recordings):
            item = answer(student, recording, folder / f"answers-{number}.npy", told)
            found.append(replace(item, label=majority(item.label, item.stretch, smooth)))
        yield Predicted(
            student, smooth, tuple(found), tuple(read.made["refused"]), _notes(student, read.made, found)
        )


def _told(progress: Progress, total: int) -> Callable[[int], None]:
    done = 0

    def told(samples: int) -> None:
        nonlocal done
        done += samples
        progress("samples", done, total)

    return told


def _notes(student: Student, made: dict[str, Any], found: list[Answers]) -> tuple[str, ...]:
    """Return what a person should know, each once with the first recording it is about."""
    told: dict[str, list[str]] = {}
    for item, warned in zip(found, made["warnings"], strict=True):
        recording = item.recording
        own = [f"warning: {line}" for line in warned] + list(recording.notes)
        converted = {
            f"converted from {unit} to {to}"
            for unit, to in zip(recording.units, student.bundle.manifest.units, strict=True)
            if unit != to
        }
        if not len(item):
            own.append(f"too short for a window of {item.length} samples without a gap")
        for line in (*own, *sorted(converted)):
            told.setdefault(line, []).append(recording.source)
    notes = [
        f"{where[0]}{f' and {len(where) - 1} more' if len(where) > 1 else ''}: {line}"
        for line, where in told.items()
    ]
    return (*notes, *made["label_rows_left_over"])
