"""ActiGraph files (`.gt3x`), read with the package actfast.

The package holds all samples in memory, so memory is bounded by the file: about 64 bytes a sample, a week at
30 Hz is 1.2 GB. It looks at no checksum and passes over kinds of records it does not know, so the log is
looked through first, record by record: what is damaged is left out, and the count and time of every sample
are compared.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from topokd_edge.data.importers.actfast_process import HINT, need_actfast, parsed
from topokd_edge.data.recording import UNKNOWN_SUBJECT
from topokd_edge.data.stream import Chunk, Opened, ReadOptions, Stream, files_in, open_each
from topokd_edge.errors import BadInputError, UsageError

SEPARATOR = 0x1E
ACTIVITY = 0x00
OTHER_ACTIVITY = (0x1A, 0x1B)
"""Samples in 16 bits, as newer devices write them; actfast passes over them."""
MOST_RATE = 1000.0
MOST_PACKED = 200
"""A log that unpacks to more than this many times the file's size is no recording."""
SMALL = 1 << 20
"""Bytes a description inside the archive may have."""
ROWS = ("acceleration/datetime", "acceleration/acceleration")
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    RuntimeError,
    NotImplementedError,
    ValueError,
)


@dataclass(frozen=True, slots=True)
class _Log:
    """The records of samples in a log: the second, the samples, and whether they are sound; what to tell."""

    seconds: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    sound: npt.NDArray[np.bool_]
    notes: tuple[str, ...]


def open_streams(path: Path | None, options: ReadOptions) -> Opened:
    """Open a `.gt3x` file, or all of a folder.

    Parameters
    ----------
    path
        File or folder.
    options
        None are used: the files say everything.

    Returns
    -------
    Opened
        One stream per file: acc_x, acc_y, acc_z in g. Idle sleep, when the device recorded nothing, stays a
        step in the time stamps; damaged records, and those whose clock went back, are left out and noted.
        Light, once a second at most, is no channel.

    Raises
    ------
    BadInputError
        When there is no such file.
    MissingError
        When the package actfast is not installed.
    """
    if path is None:
        raise UsageError("actigraph: a path is needed, a .gt3x file or a folder of them")
    need_actfast()
    return open_each(files_in(path, ("*.gt3x",)), _open)


def _open(path: Path) -> list[Stream]:
    info = _info(path)
    rate_hz = float(info["Sample Rate"])
    log = _scan(path, rate_hz)
    with parsed(path, int(log.counts.sum()), (), ROWS) as file:
        if file.names != ROWS or file.rows != log.counts.sum():
            raise BadInputError(
                f"{path}: actfast reads {file.rows} samples, the log holds {log.counts.sum()}",
                problems=file.warnings,
                hint=HINT,
            )
    named = {
        "serial": "Serial Number",
        "firmware": "Firmware",
        "side": "Side",
        "position": "Limb",
        "dominance": "Dominance",
        "time zone": "TimeZone",
    }
    start = np.datetime64(int(log.seconds[log.sound][0]), "s")
    return [
        Stream(
            source=str(path),
            path=path,
            channels=("acc_x", "acc_y", "acc_z"),
            units=("g", "g", "g"),
            rate_hz=rate_hz,
            chunks=partial(_chunks, path),
            subject=info.get("Subject Name") or UNKNOWN_SUBJECT,
            session=path.stem,
            device=f"ActiGraph {info.get('Device Type', '')}".strip(),
            start=str(start),
            about={key: info[name] for key, name in named.items() if info.get(name)},
            notes=log.notes,
        )
    ]


def _info(path: Path) -> Mapping[str, str]:
    """Return what `info.txt` says, after looking at what else the archive holds.

    Raises
    ------
    BadInputError
        When the file is no such archive, or of a kind actfast would read wrongly.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = {item.filename: item for item in archive.infolist()}
            if missing := {"info.txt", "log.bin"} - names.keys():
                old = " (an old device's file)" if "activity.bin" in names else ""
                raise BadInputError(
                    f"{path}: {' and '.join(sorted(missing))} missing in the archive{old}", hint=HINT
                )
            if names["log.bin"].file_size > MOST_PACKED * path.stat().st_size:
                raise BadInputError(
                    f"{path}: the log unpacks to {names['log.bin'].file_size} bytes, not a recording"
                )
            small = {
                name: archive.open(name).read(SMALL)
                for name in names
                if name in ("info.txt", "calibration.json")
            }
        calibration = json.loads(small.get("calibration.json", b"{}"))
    except _UNREADABLE as error:
        raise BadInputError(f"{path}: not a readable .gt3x archive ({error})", hint=HINT) from None
    lines = (line.partition(":") for line in small["info.txt"].decode("utf-8-sig", "replace").splitlines())
    info = {key.strip(): value.strip() for key, _, value in lines}
    problems = []
    if not re.fullmatch(r"\d+(\.\d+)?", info.get("Sample Rate", "")):
        problems.append(f"info.txt: Sample Rate {info.get('Sample Rate')!r}, expected a number")
    elif not 1 <= float(info["Sample Rate"]) <= MOST_RATE:
        problems.append(f"info.txt: Sample Rate {info['Sample Rate']}, expected 1 to {MOST_RATE:g} Hz")
    if isinstance(calibration, dict) and calibration.get("isCalibrated") is False:
        problems.append("calibration.json: the samples are not calibrated, and actfast does not do it")
    if problems:
        raise BadInputError(f"{path}: a .gt3x file that cannot be read", problems=problems, hint=HINT)
    return info


def _scan(path: Path, rate_hz: float) -> _Log:
    """Look at every record of the log.

    Raises
    ------
    BadInputError
        When the log is cut off or damaged so that its records cannot be told apart, or has no sound sample.
    """
    rows, others = [], 0
    latest = -1
    wrong_sum = set_back = 0
    for kind, second, size, sound in _records(path):
        others += kind in OTHER_ACTIVITY
        if kind != ACTIVITY or size * 8 < 36:
            continue
        count = size * 8 // 36
        forward = second > latest
        wrong_sum += not sound
        set_back += sound and not forward
        sound = sound and forward
        if sound and count > rate_hz:
            raise BadInputError(
                f"{path}: the record of {np.datetime64(second, 's')} holds {count} samples, "
                f"expected {rate_hz:g}, those of one second",
                hint=HINT,
            )
        if sound:
            latest = second
        rows.append((second, count, sound))
    if others:
        raise BadInputError(
            f"{path}: {others} records of samples are of a kind that actfast does not read", hint=HINT
        )
    table = np.array(rows, dtype=np.int64).reshape(-1, 3)
    if not table[:, 2].any():
        raise BadInputError(f"{path}: no sound record of samples in its log", hint=HINT)
    notes = []
    if wrong_sum:
        notes.append(f"{wrong_sum} of {len(table)} records have a wrong checksum and are left out")
    if set_back:
        notes.append(f"the clock was set back; {set_back} of {len(table)} records are left out")
    return _Log(table[:, 0], table[:, 1], table[:, 2].astype(bool), tuple(notes))


def _records(path: Path) -> Iterator[tuple[int, int, int, bool]]:
    """Yield kind, second, bytes and soundness of each record."""
    number = 0
    try:
        with zipfile.ZipFile(path) as archive, archive.open("log.bin") as packed:
            log = io.BufferedReader(cast(io.RawIOBase, packed), 1 << 20)  # far faster in small bites
            while header := log.read(8):
                number += 1
                size = int.from_bytes(header[6:8], "little")
                rest = log.read(size + 1)
                if header[0] != SEPARATOR or len(header) < 8 or len(rest) <= size:
                    raise BadInputError(
                        f"{path}: damaged or cut off at record {number} of its log", hint=HINT
                    )
                sum_ = np.bitwise_xor.reduce(np.frombuffer(header + rest, np.uint8))
                yield header[1], int.from_bytes(header[2:6], "little"), size, bool(sum_ == 0xFF)
    except _UNREADABLE as error:
        raise BadInputError(f"{path}: damaged at record {number} of its log ({error})", hint=HINT) from None


def _chunks(path: Path) -> Iterator[Chunk]:
    info = _info(path)
    rate_hz = float(info["Sample Rate"])
    log = _scan(path, rate_hz)
    ends = np.cumsum(log.counts)
    zero = log.seconds[log.sound][0]
    done = 0
    with parsed(path, int(ends[-1]), (), ROWS) as file:
        for stamps, samples in file.blocks:
            place = np.arange(done, done + len(stamps))
            record = np.searchsorted(ends, place, side="right")
            inside = (place - (ends - log.counts)[record]) / rate_hz
            time = log.seconds[record] - zero + inside
            keep = log.sound[record]
            if np.abs(stamps / 1e9 - log.seconds[record] - inside).max() > 1e-4:
                raise BadInputError(
                    f"{path}: its log states another rate than the {rate_hz:g} Hz of info.txt", hint=HINT
                )
            _plausible(path, samples[keep], place[keep], info.get("Acceleration Max", ""))
            yield Chunk(samples[keep].astype(np.float32, copy=False), time[keep])
            done += len(stamps)


def _plausible(path: Path, samples: npt.NDArray[np.float32], place: npt.NDArray[np.int64], most: str) -> None:
    limit = 1.1 * float(most) if re.fullmatch(r"\d+(\.\d+)?", most) else 16.5
    wrong = np.flatnonzero(~(np.abs(samples) <= limit).all(axis=1))
    if len(wrong):
        raise BadInputError(
            f"{path}, sample {place[wrong[0]] + 1}: {samples[wrong[0]].tolist()} g is beyond {limit:.1f} g, "
            "what the sensor can measure; the scale of its log is not right",
            hint=HINT,
        )
