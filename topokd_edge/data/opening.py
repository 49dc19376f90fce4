"""From a path to streams: archives unpacked, subjects named, sensors joined, channels chosen."""

from __future__ import annotations

from dataclasses import fields, replace
from fnmatch import fnmatchcase
from pathlib import Path

from topokd_edge.data.archive import unpack
from topokd_edge.data.clean import Cleaning
from topokd_edge.data.importers import Importer
from topokd_edge.data.join import join_streams
from topokd_edge.data.options import ImportOptions
from topokd_edge.data.stream import Opened, ReadOptions, Refused, Stream
from topokd_edge.data.subjects import subject_of
from topokd_edge.errors import BadInputError, UsageError


def open_path(chosen: Importer, place: Path | None, options: ImportOptions, scratch: Path) -> Opened:
    """Open the streams of a path as the options say; their files are called as seen from that path.

    Parameters
    ----------
    chosen
        The format.
    place
        What `unpacked` returned.
    options
        What the user says.
    scratch
        The folder that archives are unpacked in; it appears in no message.

    Raises
    ------
    UsageError
        When an option does not fit the files.
    BadInputError
        As the importer says.
    """
    opened = _opened(chosen, place, options.read, scratch)
    opened = _with_subjects(_without(opened, options.leave_out), options.subject_from)
    return join_streams(opened) if options.join else opened


def refuse_unused(name: str, chosen: Importer, options: ReadOptions) -> None:
    """Raise UsageError for options that the format does not listen to."""
    said = {item.name for item in fields(options) if getattr(options, item.name) not in (None, False)}
    unused = sorted(said - chosen.uses - {"rate_hz", "assume_yes"})
    if unused:
        raise UsageError(f"format {name} does not use {', '.join('--' + item for item in unused)}")


def unpacked(chosen: Importer, path: Path | None, scratch: Path) -> Path | None:
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


def without_scratch(refused: Refused, scratch: Path) -> Refused:
    """Take the name of the folder that archives are unpacked in out of a message."""
    return Refused(*(text.replace(f"{scratch}/", "") for text in (refused.file, refused.reason)))


def _without(opened: Opened, patterns: tuple[str, ...]) -> Opened:
    """Leave out the recordings that the user names."""
    sources = [item.source for item in opened.streams]
    unmatched = [p for p in patterns if not any(fnmatchcase(source, p) for source in sources)]
    if unmatched:
        raise UsageError(
            f"--leave-out {','.join(unmatched)}: no recording is called so; there are "
            f"{', '.join(sources[:5])}{' ...' if len(sources) > 5 else ''}"
        )
    kept = [item for item in opened.streams if not any(fnmatchcase(item.source, p) for p in patterns)]
    return replace(opened, streams=tuple(kept))


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


def cleanings(
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
