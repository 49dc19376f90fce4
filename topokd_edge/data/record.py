"""Cleaning many streams, here or in other processes, into one file of samples."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from topokd_edge.arrays import RowWriter, appended_npy, map_npy, row_blocks
from topokd_edge.data.clean import Cleaned, Cleaning, UndecidedError, clean
from topokd_edge.data.recordingset import SAMPLES
from topokd_edge.data.stream import Refused, Stream
from topokd_edge.errors import BadInputError
from topokd_edge.progress import Progress

TASK = "recordings"


@dataclass(frozen=True, slots=True)
class _OnDisk:
    """A recording whose samples lie in a file, shape (samples, channels)."""

    cleaned: Cleaned
    samples: Path


@dataclass(frozen=True, slots=True)
class _Undecided:
    """A recording that stops the import until the user says what to do: what is wrong, and the ways out."""

    problems: tuple[str, ...]
    hint: str


_Outcome = _OnDisk | Refused | _Undecided


def _clean_one(stream: Stream, cleaning: Cleaning, scratch: Path) -> _Outcome:
    """Clean one stream in a new folder in `scratch`; runs in any process, and again if a worker is lost."""
    folder = Path(tempfile.mkdtemp(dir=scratch))
    try:
        cleaned = clean(stream, cleaning, folder)
    except UndecidedError as error:
        return _Undecided(error.problems or (error.message,), error.hint)
    except BadInputError as error:
        return Refused(stream.source, str(error))
    recording = cleaned.recording
    file = Path(str(recording.samples.filename))  # type: ignore[attr-defined]
    empty = np.empty((len(recording.channels), 0), dtype=np.float32)
    return _OnDisk(replace(cleaned, recording=replace(recording, samples=empty)), file)


def record(
    streams: Sequence[tuple[Stream, Cleaning]],
    folder: Path,
    scratch: Path,
    jobs: int | None,
    progress: Progress,
) -> tuple[list[Cleaned], tuple[Refused, ...]]:
    """Clean every stream and append its samples to `samples.npy` in `folder`, in their order.

    Returns
    -------
    list of Cleaned
        The recordings; their samples have the right shape and hold nothing.
    tuple of Refused
        What could not be read.

    Raises
    ------
    BadInputError
        With everything that needs a decision of the user.
    """
    cleaned: list[Cleaned] = []
    refused: list[Refused] = []
    undecided: list[_Undecided] = []
    columns = len(streams[0][1].channels) if streams else 0
    with (
        appended_npy(folder / SAMPLES, (columns,), np.float32) as writer,
        closing(_outcomes(streams, scratch, jobs)) as outcomes,
    ):
        for number, outcome in enumerate(outcomes):
            progress(TASK, number + 1, len(streams))
            if isinstance(outcome, Refused):
                refused.append(outcome)
            elif isinstance(outcome, _Undecided):
                undecided.append(outcome)
            else:
                cleaned.append(_appended(outcome, writer))
                shutil.rmtree(outcome.samples.parent)
    if undecided:
        raise BadInputError(
            f"{len(undecided)} recording(s) need a decision",
            problems=[problem for item in undecided for problem in item.problems],
            hint="; ".join(dict.fromkeys(item.hint for item in undecided)),
        )
    return cleaned, tuple(refused)


def _appended(found: _OnDisk, writer: RowWriter) -> Cleaned:
    """Append the samples of a recording, and return it with samples of the right shape that hold nothing."""
    samples = map_npy(found.samples, hint="import again")
    for block in row_blocks(samples):
        writer.append(block)
    empty = np.broadcast_to(np.float32(0), samples.shape[::-1])
    return replace(found.cleaned, recording=replace(found.cleaned.recording, samples=empty))


def _outcomes(
    streams: Sequence[tuple[Stream, Cleaning]], scratch: Path, jobs: int | None
) -> Generator[_Outcome, None, None]:
    """Yield what became of each stream, in order; with several jobs through joblib."""
    if jobs == 1:
        yield from (_clean_one(stream, cleaning, scratch) for stream, cleaning in streams)
        return
    from joblib import Parallel, delayed

    calls = (delayed(_clean_one)(stream, cleaning, scratch) for stream, cleaning in streams)
    done = Parallel(n_jobs=jobs, return_as="generator")(calls)
    try:
        yield from done
    finally:
        with warnings.catch_warnings():  # joblib tells of the tasks it cancels when the import stops early
            warnings.simplefilter("ignore")
            done.close()
