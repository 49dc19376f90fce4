"""From files to a window set on disk in one step, as the command line and the demonstration do it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from topokd_edge.arrays import map_npy
from topokd_edge.data.check import check_recordings
from topokd_edge.data.clean import Cleaned, Cleaning
from topokd_edge.data.importers import Importer, importer
from topokd_edge.data.labels import LabelFile
from topokd_edge.data.opening import cleanings, open_path, refuse_unused, unpacked, without_scratch
from topokd_edge.data.options import ImportOptions
from topokd_edge.data.record import record
from topokd_edge.data.recordingset import SAMPLES, RecordingSet, refuse_mixture, write_descriptions
from topokd_edge.data.stream import Refused, Stream
from topokd_edge.data.windows import make_windows
from topokd_edge.data.windowset import WindowSet
from topokd_edge.errors import BadInputError
from topokd_edge.files import new_folder
from topokd_edge.progress import Progress, silent

Plan = Callable[[Importer, tuple[Stream, ...], Cleaning], list[tuple[Stream, Cleaning]]]
"""Chooses the streams that are read, and what is done to each; `cleanings` is the usual one."""


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
    jobs: int | None = 1,
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
        Recordings read at a time. More than one go through joblib, to processes of this machine or wherever
        `joblib.parallel_config` around the call says (loky, dask, ray); None leaves the number to it too.
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
    plan: Plan = cleanings,
    training: bool = True,
    jobs: int | None = 1,
    progress: Progress = silent,
) -> ReadRecordings:
    """Read, clean and check recordings, without cutting windows; see `import_windows`.

    Parameters
    ----------
    folder
        An existing folder; the recordings are written there as `samples.npy` and `recordings.json`.
    plan
        Chooses what is read of the streams.
    training
        See `check_recordings`.
    """
    chosen = importer(format_name)
    refuse_unused(format_name, chosen, options.read)
    scratch = Path(tempfile.mkdtemp(prefix="scratch-", dir=folder))
    place = unpacked(chosen, path, scratch)
    opened = open_path(chosen, place, options, scratch)
    cleaning = replace(options.cleaning, rate_hz=options.read.rate_hz)
    streams = plan(chosen, opened.streams, cleaning)
    cleaned, refused = record(streams, folder, scratch, jobs, progress)
    refused = tuple(without_scratch(item, scratch) for item in (*opened.refused, *refused))
    if not cleaned:
        raise _nothing_left(path, refused)
    recordings = [item.recording for item in cleaned]
    refuse_mixture(recordings)
    placed = RecordingSet.placed(recordings, map_npy(folder / SAMPLES, hint="import again"))
    warnings = check_recordings(placed, training=training)
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


def _nothing_left(path: Path | None, refused: Sequence[Refused]) -> BadInputError:
    if len(refused) == 1:
        return BadInputError(refused[0].reason)
    return BadInputError(
        f"{path}: none of {len(refused)} file(s) can be used",
        problems=[f"{item.file}: {item.reason}" for item in refused[:20]],
    )
