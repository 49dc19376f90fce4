"""Classification sets in the `.ts` text form of the UEA archive, sktime and aeon: one short case per line."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from topokd_edge.data.recording import UNITS, UNKNOWN_SUBJECT
from topokd_edge.data.stream import CHUNK_SAMPLES, Chunk, Opened, ReadOptions, Stream, files_in, open_each
from topokd_edge.errors import BadInputError, UsageError

MOST_LINE = 1 << 26
"""Bytes a line may have."""
MOST_PROBLEMS = 20
FLOAT32_MOST = float(np.finfo(np.float32).max)
MISSING = math.nan
NOTE = "no subject is named in this format, so a split by subject is not possible; the session is the file"


@dataclass(frozen=True, slots=True)
class _Head:
    """What the lines before `@data` say; no classes: the cases have no label."""

    name: str
    dimensions: int | None
    length: int | None
    classes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Case:
    """Where a case lies in its file, and its label."""

    line: int
    at: int
    label: str | None
    dimensions: int


def open_streams(path: Path | None, options: ReadOptions) -> Opened:
    """Open a `.ts` file, or all of a folder.

    Parameters
    ----------
    path
        File or folder.
    options
        `rate_hz` is needed, as the format does not state it. `units`: one for all channels, or
        `dim_1=unit,...`; "1" where nothing is said.

    Returns
    -------
    Opened
        One stream per case, with channels dim_1, dim_2, ... and its class as label. Missing values (`?`) are
        NaN. Nobody's name is in the format: the subject is unknown and the session is the file, so that TRAIN
        and TEST stay apart.

    Raises
    ------
    UsageError
        When the rate is not given, or the units are not understood.
    BadInputError
        When there is no such file.
    """
    if path is None:
        raise UsageError("uea: a path is needed, a .ts file or a folder of them")
    rate_hz = options.rate_hz
    if rate_hz is None:
        raise UsageError(
            "uea: the sampling rate is not stated in .ts files",
            hint="give it with --rate, e.g. 16 for Epilepsy, 10 for BasicMotions, 128 for AtrialFibrillation",
        )
    if not (math.isfinite(rate_hz) and rate_hz > 0):
        raise UsageError(f"uea: a rate of {rate_hz} Hz, expected a number above 0")
    return open_each(files_in(path, ("*.ts",)), partial(_open, rate_hz=rate_hz, units=_units(options.units)))


def _units(text: str | None) -> dict[str, str]:
    """Return the unit by channel; "" stands for all others."""
    units = {"": "1"}
    for part in (text or "").split(",") if text else ():
        channel, _, unit = part.rpartition("=")
        if unit.strip() not in UNITS:
            raise UsageError(f"uea: unit {unit.strip()!r}, expected one of {', '.join(UNITS)}")
        units[channel.strip()] = unit.strip()
    return units


def _open(path: Path, *, rate_hz: float, units: dict[str, str]) -> list[Stream]:
    head, cases = _scan(path)
    channels = tuple(f"dim_{number + 1}" for number in range(cases[0].dimensions))
    if unknown := units.keys() - {"", *channels}:
        raise BadInputError(f"{path}: no channel {', '.join(sorted(unknown))}; it has {', '.join(channels)}")
    return [
        Stream(
            source=f"{path}#line {case.line}",
            path=path,
            channels=channels,
            units=tuple(units.get(channel, units[""]) for channel in channels),
            rate_hz=rate_hz,
            chunks=partial(_chunks, path, head, case),
            subject=UNKNOWN_SUBJECT,
            session=path.name,
            device=head.name,
            label=case.label,
            lost_as_nan=True,
            notes=() if number else (NOTE,),
        )
        for number, case in enumerate(cases)
    ]


def _scan(path: Path) -> tuple[_Head, list[_Case]]:
    """Look at every line.

    Raises
    ------
    BadInputError
        Naming every line that is wrong, up to 20.
    """
    problems: list[str] = []
    cases: list[_Case] = []
    with path.open("rb") as stream:
        number, head = _head(path, stream)
        while len(problems) < MOST_PROBLEMS:
            at = stream.tell()
            if not (line := stream.readline(MOST_LINE)):
                break
            number += 1
            if not line.strip() or line.lstrip()[:1] in (b"#", b"%"):
                continue
            try:
                values, label = _parse(line, head)
                if cases and len(values) != cases[0].dimensions:
                    raise ValueError(f"{len(values)} channels, the cases before have {cases[0].dimensions}")
            except ValueError as error:
                problems.append(f"line {number}: {error}")
            else:
                cases.append(_Case(number, at, label, len(values)))
    if not cases and not problems:
        problems.append("no case after @data")
    if problems:
        more = " (the first 20 problems)" if len(problems) == MOST_PROBLEMS else ""
        raise BadInputError(f"{path}: cannot be read{more}", problems=problems)
    return head, cases


def _head(path: Path, stream: IO[bytes]) -> tuple[int, _Head]:
    """Read up to `@data`; return the number of that line, and what the header says."""
    fields: dict[str, str] = {}
    number = 0
    while line := stream.readline(MOST_LINE):
        number += 1
        text = line.decode("utf-8", "replace").strip()
        if not text or text[0] in "#%":
            continue
        if not text.startswith("@"):
            raise BadInputError(f"{path}, line {number}: {text[:40]!r}, expected a line with @ before @data")
        key, value, *_ = [*text[1:].split(None, 1), "", ""]
        if key.lower() == "data":
            return number, _understand(path, fields)
        fields[key.lower()] = value
    raise BadInputError(f"{path}: no line @data, so not a .ts file of time series")


def _understand(path: Path, fields: dict[str, str]) -> _Head:
    problems = []
    for key in ("timestamps", "targetlabel"):
        if fields.get(key, "false").lower() != "false":
            problems.append(f"@{key} {fields[key]}: only series without stamps, and with classes, are read")
    numbers: dict[str, int | None] = {}
    for key in ("dimensions", "serieslength"):
        text = fields.get(key, "")
        numbers[key] = int(text) if re.fullmatch(r"[1-9]\d{0,8}", text) else None
        if text and numbers[key] is None:
            problems.append(f"@{key} {text}: expected a whole number above 0")
    if fields.get("univariate", "").lower() == "true":
        numbers["dimensions"] = 1
    known, *classes = fields.get("classlabel", "").split() or [""]
    if known.lower() not in ("true", "false") or (known.lower() == "true") != bool(classes):
        problems.append("@classLabel: expected 'true' and the classes, or 'false'")
    if problems:
        raise BadInputError(f"{path}: its header cannot be read", problems=problems)
    equal = fields.get("equallength", "").lower() == "true"
    return _Head(
        name=fields.get("problemname") or "unknown",
        dimensions=numbers["dimensions"],
        length=numbers["serieslength"] if equal else None,
        classes=tuple(classes),
    )


def _parse(line: bytes, head: _Head) -> tuple[npt.NDArray[np.float32], str | None]:
    """Return the samples (channels, samples) and the label of a case; ValueError says what is wrong."""
    if len(line) >= MOST_LINE:
        raise ValueError(f"longer than {MOST_LINE} bytes")
    parts = line.decode("utf-8", "replace").strip().split(":")
    label = parts.pop().strip() if head.classes else None
    if label is not None and label not in head.classes:
        raise ValueError(f"class {label[:40]!r}, expected one of {', '.join(head.classes)}")
    if not parts or (head.dimensions is not None and len(parts) != head.dimensions):
        raise ValueError(f"{len(parts)} channels, expected {head.dimensions or 'one at least'}")
    rows = [_values(number, part) for number, part in enumerate(parts, 1)]
    length = head.length or len(rows[0])
    for number, row in enumerate(rows, 1):
        if len(row) != length:
            raise ValueError(f"{len(row)} samples in channel {number}, expected {length}")
    return np.array(rows, dtype=np.float32), label


def _values(channel: int, text: str) -> npt.NDArray[np.float32]:
    words = text.split(",")
    try:
        values = np.array([MISSING if word.strip() == "?" else float(word) for word in words])
    except ValueError as error:
        raise ValueError(f"channel {channel}: {str(error)[:80]}") from None
    wrong = np.flatnonzero(np.abs(values) > FLOAT32_MOST)
    if len(wrong):
        raise ValueError(f"channel {channel}, sample {wrong[0] + 1}: {values[wrong[0]]} is too large")
    return values.astype(np.float32)


def _chunks(path: Path, head: _Head, case: _Case) -> Iterator[Chunk]:
    with path.open("rb") as stream:
        stream.seek(case.at)
        line = stream.readline(MOST_LINE)
    try:
        values, _ = _parse(line, head)
    except ValueError as error:
        raise BadInputError(
            f"{path}, line {case.line}: {error}; the file changed while it was read"
        ) from None
    for start in range(0, values.shape[1], CHUNK_SAMPLES):
        yield Chunk(np.ascontiguousarray(values[:, start : start + CHUNK_SAMPLES].T))
