"""From files to a window set on disk in one step, as the command line and the demonstration do it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from topokd_edge.arrays import appended_npy, map_npy
from topokd_edge.data.archive import unpack
from topokd_edge.data.check import check_recordings
from topokd_edge.data.clean import Cleaned, Cleaning, UndecidedError, clean
from topokd_edge.data.importers import Importer, importer
from topokd_edge.data.join import join_streams
from topokd_edge.data.labels import LabelFile
from topokd_edge.data.options import ImportOptions
from topokd_edge.data.recordingset import SAMPLES, RecordingSet, refuse_mixture, write_descriptions
from topokd_edge.data.stream import Opened, ReadOptions, Refused, Stream
from topokd_edge.data.subjects import subject_of
from topokd_edge.data.windows import make_windows
from topokd_edge.data.windowset import WindowSet
from topokd_edge.errors import BadInputError, UsageError
from topokd_edge.files import new_folder
from topokd_edge.progress import Progress, silent

TASK = "recordings"
_BLOCK = 1 << 16


@dataclass(frozen=True, slots=True)
class ReadRecordings:
    """Recordings on disk, and what is known of their making; see `import_recordings`.

    `made` has `format`, `source`, `credit`, `licence`, `recordings`, `refused` (file and reason each),
    `warnings` (of each recording), `channels_left_out` and `label_rows_left_over`.
    """

    recordings: RecordingSet
    made: dict[str, Any]


def import_windows(
    format_name: str,
    path: Path | None,
    options: ImportOptions,
    *,
    out: Path,
    overwrite: bool = False,
    jobs: int = 1,
    progress: Progress = silent,
) -> WindowSet:
    """Read, clean, check and cut recordings; write them with their windows as the folder `out`.

    Memory is bounded by the largest chunk an importer reads and by the list of windows, not by the files.

    Parameters
    ----------
    format_name
        A name of `topokd_edge.data.importers.IMPORTERS`.
    path
        What to read; None for a format that brings its own data.
    options
        See there.
    out, overwrite
        Where the set is written, whole or not at all; whether an existing folder is replaced.
    jobs
        Recordings read at a time, through joblib (its backend can be chosen with
        `joblib.parallel_config`).
    progress
        Told how many recordings are read.

    Raises
    ------
    UsageError, BadInputError, MissingError
        As the importer, `clean`, `check_recordings` and `make_windows` say. A file that cannot be read does
        not stop the others; with none left, everything found is raised. A recording that can be read but
        needs a decision (NaN, uneven time stamps) stops the import.
    """
    with new_folder(out, overwrite=overwrite) as folder:
        read = import_recordings(format_name, path, options, folder, jobs=jobs, progress=progress)
        make_windows(read.recordings, options.cut, made=read.made).save_index(folder)
    return WindowSet.open(out)


def import_recordings(
    format_name: str,
    path: Path | None,
    options: ImportOptions,
    folder: Path,
    *,
    jobs: int = 1,
    progress: Progress = silent,
) -> ReadRecordings:
    """Read, clean and check recordings, without cutting windows; see `import_windows`.

    Parameters
    ----------
    folder
        An existing folder; the recordings are written there as `samples.npy` and `recordings.json`.
    """
    chosen = importer(format_name)
    _refuse_unused(format_name, chosen, options.read)
    scratch = Path(tempfile.mkdtemp(prefix="scratch-", dir=folder))
    place = _unpacked(chosen, path, scratch)
    opened = _with_subjects(_opened(chosen, place, options.read, scratch), options.subject_from)
    if options.join:
        opened = join_streams(opened)
    cleaning = replace(options.cleaning, rate_hz=options.read.rate_hz)
    streams = _cleanings(chosen, opened.streams, cleaning)
    cleaned, refused = _record(streams, folder, scratch, jobs, progress)
    refused = tuple(_without_scratch(item, scratch) for item in (*opened.refused, *refused))
    if not cleaned:
        raise _nothing_left(path, refused)
    recordings = [item.recording for item in cleaned]
    refuse_mixture(recordings)
    placed = RecordingSet.placed(recordings, map_npy(folder / SAMPLES, hint="import again"))
    warnings = check_recordings(placed)
    write_descriptions(folder, placed)
    credit, licence = chosen.about(place)
    shutil.rmtree(scratch)
    made = {
        "format": format_name,
        "source": path.name if path else format_name,
        "credit": credit,
        "licence": licence,
        "recordings": len(placed),
        "refused": [asdict(item) for item in refused],
        "warnings": [list(item) for item in warnings],
        "channels_left_out": [name for name in streams[0][0].channels if name not in placed[0].channels],
        "label_rows_left_over": _left_over(cleaning.labels, cleaned),
    }
    return ReadRecordings(placed, made)


def _left_over(labels: LabelFile | None, cleaned: Sequence[Cleaned]) -> list[str]:
    """Tell of rows of the label file that no recording used."""
    if labels is None:
        return []
    matched = {line for item in cleaned for line in item.label_lines}
    placed = {line for item in cleaned for line in item.placed_lines}
    return list(labels.leftover(matched, placed))


def _refuse_unused(name: str, chosen: Importer, options: ReadOptions) -> None:
    """Raise UsageError for options that the format does not listen to."""
    said = {item.name for item in fields(options) if getattr(options, item.name) not in (None, False)}
    unused = sorted(said - chosen.uses - {"rate_hz", "assume_yes"})
    if unused:
        raise UsageError(f"format {name} does not use {', '.join('--' + item for item in unused)}")


def _unpacked(chosen: Importer, path: Path | None, scratch: Path) -> Path | None:
    """Return the folder of an archive's files; any other path as it is."""
    if path is not None and not path.exists():
        raise BadInputError(f"{path}: no such file or folder")
    if path is None or not path.is_file() or path.suffix.lower() not in chosen.archives:
        return path
    folder = scratch / path.name
    folder.mkdir()
    unpack(path, folder)
    return folder


def _opened(chosen: Importer, place: Path | None, options: ReadOptions, scratch: Path) -> Opened:
    """Open the streams, and call their files as seen from the path the user gave."""
    try:
        opened = chosen.open(place, options)
    except BadInputError as error:
        raise BadInputError(
            error.message.replace(f"{scratch}/", ""),
            hint=error.hint,
            problems=[problem.replace(f"{scratch}/", "") for problem in error.problems],
        ) from None
    root = None if place is None else place if place.is_dir() else place.parent
    named = tuple(replace(item, source=item.source.replace(f"{root}/", "")) for item in opened.streams)
    return replace(opened, streams=named)


def _without_scratch(refused: Refused, scratch: Path) -> Refused:
    """Take the name of the folder that archives are unpacked in out of a message."""
    return Refused(*(text.replace(f"{scratch}/", "") for text in (refused.file, refused.reason)))


def _with_subjects(opened: Opened, rule: str | None) -> Opened:
    """Name the subject of every stream by the user's rule."""
    if rule is None:
        return opened
    streams, refused = [], list(opened.refused)
    for stream in opened.streams:
        try:
            streams.append(replace(stream, subject=subject_of(rule, stream.path or Path(stream.source))))
        except BadInputError as error:
            refused.append(Refused(stream.source, str(error)))
    return Opened(tuple(streams), tuple(refused))


def _cleanings(
    chosen: Importer, streams: tuple[Stream, ...], cleaning: Cleaning
) -> list[tuple[Stream, Cleaning]]:
    """Return each stream with what to do to it: the channels asked for, or those the format chooses.

    Raises
    ------
    UsageError
        When a channel is asked for twice, or a stream has no such channel.
    BadInputError
        When streams would keep different channels.
    """
    asked = cleaning.channels
    plans = []
    for stream in streams:
        if len(set(asked)) != len(asked) or not set(asked) <= set(stream.channels):
            raise UsageError(
                f"--channels {','.join(asked)}: each must be a different one of "
                f"{', '.join(stream.channels)} ({stream.source})"
            )
        usual = tuple(name for name in chosen.channels if name in stream.channels)
        plans.append((stream, replace(cleaning, channels=asked or usual or stream.channels)))
    kept = {plan.channels for _, plan in plans}
    if len(kept) > 1:
        common = [name for name in plans[0][1].channels if all(name in channels for channels in kept)]
        raise BadInputError(
            "recordings have different channels",
            problems=[f"{stream.source}: {', '.join(plan.channels)}" for stream, plan in plans[:10]],
            hint=f"keep what they share: --channels {','.join(common)}"
            if common
            else "import them separately",
        )
    return plans


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
    """Clean one stream in a folder of its own; runs in any process."""
    scratch.mkdir()
    try:
        cleaned = clean(stream, cleaning, scratch)
    except UndecidedError as error:
        return _Undecided(error.problems or (error.message,), error.hint)
    except BadInputError as error:
        return Refused(stream.source, str(error))
    recording = cleaned.recording
    file = Path(str(recording.samples.filename))  # type: ignore[attr-defined]
    empty = np.empty((len(recording.channels), 0), dtype=np.float32)
    return _OnDisk(replace(cleaned, recording=replace(recording, samples=empty)), file)


def _record(
    streams: Sequence[tuple[Stream, Cleaning]], folder: Path, scratch: Path, jobs: int, progress: Progress
) -> tuple[list[Cleaned], tuple[Refused, ...]]:
    """Clean every stream and append its samples to `samples.npy`, in their order."""
    recordings, refused, undecided = [], [], []
    columns = len(streams[0][1].channels) if streams else 0
    outcomes = _outcomes(streams, scratch, jobs)
    with appended_npy(folder / SAMPLES, (columns,), np.float32) as writer:
        for number, outcome in enumerate(outcomes):
            progress(TASK, number + 1, len(streams))
            if isinstance(outcome, Refused):
                refused.append(outcome)
            elif isinstance(outcome, _Undecided):
                undecided.append(outcome)
            else:
                samples = map_npy(outcome.samples, hint="import again")
                for start in range(0, len(samples), _BLOCK):
                    writer.append(samples[start : start + _BLOCK])
                shape = (columns, len(samples))
                empty = np.broadcast_to(np.float32(0), shape)
                recording = replace(outcome.cleaned.recording, samples=empty)
                recordings.append(replace(outcome.cleaned, recording=recording))
            shutil.rmtree(scratch / str(number))
    if undecided:
        problems = [problem for item in undecided for problem in item.problems]
        raise BadInputError(
            f"{len(undecided)} recording(s) need a decision",
            problems=problems,
            hint="; ".join(dict.fromkeys(item.hint for item in undecided)),
        )
    return recordings, tuple(refused)


def _outcomes(streams: Sequence[tuple[Stream, Cleaning]], scratch: Path, jobs: int) -> Iterator[_Outcome]:
    """Yield what became of each stream, in order; with several jobs through joblib."""
    if jobs == 1:
        yield from (_clean_one(s, cleaning, scratch / str(n)) for n, (s, cleaning) in enumerate(streams))
        return
    from joblib import Parallel, delayed

    calls = (delayed(_clean_one)(s, cleaning, scratch / str(n)) for n, (s, cleaning) in enumerate(streams))
    yield from Parallel(n_jobs=jobs, return_as="generator")(calls)


def _nothing_left(path: Path | None, refused: Sequence[Refused]) -> BadInputError:
    if len(refused) == 1:
        return BadInputError(refused[0].reason)
    return BadInputError(
        f"{path}: none of {len(refused)} file(s) can be used",
        problems=[f"{item.file}: {item.reason}" for item in refused[:20]],
    )
