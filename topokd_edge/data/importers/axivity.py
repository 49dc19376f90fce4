"""Axivity AX3 and AX6 files (`.cwa`), read with the package actfast.

The package holds the whole file in memory, so memory is bounded by the file: about 64 bytes a sample, a week
at 100 Hz is 4 GB. What it gives is held against the sectors themselves: their checksums, counts, formats and
order.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs

import numpy as np
import numpy.typing as npt

from topokd_edge.data.importers.actfast_process import HINT, Parsed, need_actfast, parsed
from topokd_edge.data.recording import UNKNOWN_SUBJECT
from topokd_edge.data.stream import Chunk, Opened, ReadOptions, Stream, files_in, open_each
from topokd_edge.errors import BadInputError, UsageError

HEADER_BYTES = 1024
RATES = range(6, 16)
"""Codes of the sampling rate in use, 6.25 to 3200 Hz."""
LIMIT_G = 16.5
LIMIT_DEG_S = 2100.0
RATE_TOLERANCE = 0.1
"""A sector that takes this much longer than its rate says is followed by a gap. A sensor's clock is up to
some percent off; a lost sector is 100 %."""
SECTOR = np.dtype(
    [
        ("magic", "S2"),
        ("length", "<u2"),
        ("fraction", "<u2"),
        ("session", "<u4"),
        ("sequence", "<u4"),
        ("time", "<u4"),
        ("light", "<u2"),
        ("temperature", "<u2"),
        ("events", "u1"),
        ("battery", "u1"),
        ("rate", "u1"),
        ("axes", "u1"),
        ("offset", "<i2"),
        ("count", "<u2"),
        ("samples", "V480"),
        ("checksum", "<u2"),
    ]
)
BLOCK = 4096
"""Sectors looked at in one go."""
ROWS = ("high_frequency/acceleration", "high_frequency/gyroscope")
STARTS = "low_frequency/datetime"


@dataclass(frozen=True, slots=True)
class _Sectors:
    """The sound sectors of a file: samples in each, the rate, axes, what to tell."""

    counts: npt.NDArray[np.int64]
    rate_hz: float
    gyro: bool
    notes: tuple[str, ...]


def open_streams(path: Path | None, options: ReadOptions) -> Opened:
    """Open a `.cwa` file, or all of a folder.

    Parameters
    ----------
    path
        File or folder.
    options
        None are used: the files say everything.

    Returns
    -------
    Opened
        One stream per file: acc_x, acc_y, acc_z in g, on an AX6 gyro_x, gyro_y, gyro_z in deg/s. The samples
        of a sector are spread evenly up to the time of the next, since the sensor's rate differs from the
        nominal one. Light and temperature, once per sector, are no channels. A damaged sector is left out
        and noted; the time stamps show the gap.

    Raises
    ------
    BadInputError
        When there is no such file.
    MissingError
        When the package actfast is not installed.
    """
    if path is None:
        raise UsageError("axivity: a path is needed, a .cwa file or a folder of them")
    need_actfast()
    return open_each(files_in(path, ("*.cwa",)), _open)


def _open(path: Path) -> list[Stream]:
    sectors = _scan(path)
    with parsed(path, int(sectors.counts.sum()), (STARTS,), ROWS) as file:
        starts = _starts(path, file, sectors)
        device = file.metadata["device"]
        annotation = file.metadata.get("session", {}).get("annotation", "")
    says = {key: values[-1].strip() for key, values in parse_qs(annotation.lstrip("?")).items()}
    position = says.get("_p", "")
    side = re.search(r"left|right", position.lower())
    about = {
        "serial": device["device_id"],
        "firmware": device["firmware_revision"],
        "side": side.group() if side else "",
        "position": position,
    }
    channels = ["acc_x", "acc_y", "acc_z"] + ["gyro_x", "gyro_y", "gyro_z"] * sectors.gyro
    return [
        Stream(
            source=str(path),
            path=path,
            channels=tuple(channels),
            units=("g",) * 3 + ("deg/s",) * (len(channels) - 3),
            rate_hz=sectors.rate_hz,
            chunks=partial(_chunks, path),
            subject=says.get("_sc") or UNKNOWN_SUBJECT,
            session=path.stem,
            device=f"Axivity {'AX6' if sectors.gyro else 'AX3'}",
            start=str(np.datetime64(int(starts[0]), "ns").astype("datetime64[us]")),
            about={key: value for key, value in about.items() if value},
            notes=sectors.notes,
        )
    ]


def _scan(path: Path) -> _Sectors:
    """Look at every sector; refuse what actfast would read wrongly without a word.

    Raises
    ------
    BadInputError
        When the file is no such file, has no sound sector, or changes its format on the way.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        header = stream.read(HEADER_BYTES)
        if header[:2] != b"MD" or len(header) < HEADER_BYTES:
            raise BadInputError(
                f"{path}: not an Axivity .cwa file, which begins with MD and a header of 1024 bytes"
            )
        sound, damaged = [], []
        at = 0
        while len(block := np.fromfile(stream, SECTOR, BLOCK)):
            words = block.view("<u2").reshape(len(block), -1)
            good = (block["magic"] == b"AX") & (words.sum(axis=1, dtype=np.uint16) == 0)
            sound.append(block[["rate", "axes", "light", "count"]][good].copy())
            damaged += (at + np.flatnonzero(~good)).tolist()
            at += len(block)
    table = np.concatenate(sound) if sound else np.empty(0, SECTOR)[["rate", "axes", "light", "count"]]
    if not len(table):
        raise BadInputError(f"{path}: none of its {at} sectors of 512 bytes is sound", hint=HINT)
    notes = []
    if damaged:
        notes.append(
            f"{len(damaged)} of {at} sectors are damaged and left out, the first is number {damaged[0] + 1}"
        )
    if rest := (size - HEADER_BYTES) % SECTOR.itemsize:
        notes.append(f"the file ends inside a sector; its last {rest} bytes are left out")
    return _format(path, table, tuple(notes))


def _format(path: Path, table: npt.NDArray[np.void], notes: tuple[str, ...]) -> _Sectors:
    first = table[0]
    problems = []
    scales = table["light"] >> 10
    if np.any((table["rate"] != first["rate"]) | (table["axes"] != first["axes"]) | (scales != scales[0])):
        problems.append("rate, axes or range change from one sector to another")
    code, axes, packing = int(first["rate"]) & 15, int(first["axes"]) >> 4, int(first["axes"]) & 15
    if code not in RATES:
        problems.append(f"code {code} of the sampling rate, expected {RATES[0]} to {RATES[-1]}")
    if (axes, packing) not in {(3, 0), (3, 2), (6, 2)}:
        problems.append(f"{axes} axes in packing {packing}, expected 3 (AX3) or 6 (AX6)")
    else:
        most = 480 // (4 if packing == 0 else 2 * axes)
        if np.any(table["count"] > most) or not table["count"].any():
            problems.append(
                f"sectors say they hold up to {table['count'].max()} samples, expected 1 to {most}"
            )
    if problems:
        raise BadInputError(f"{path}: a .cwa file that cannot be read", problems=problems, hint=HINT)
    rate_hz = 3200 / 2.0 ** (15 - code)
    return _Sectors(table["count"].astype(np.int64), rate_hz, axes == 6, notes)


def _starts(path: Path, file: Parsed, sectors: _Sectors) -> npt.NDArray[np.int64]:
    """Return the time of each sector's first sample in ns; counts and order are held against the file."""
    starts = file.whole[STARTS].astype(np.int64)
    expected = (len(sectors.counts), int(sectors.counts.sum()), 1 + sectors.gyro)
    found = (len(starts), file.rows, len(file.names))
    if found != expected:
        raise BadInputError(
            f"{path}: actfast reads {found[0]} sectors with {found[1]} samples of {found[2]} sensors, "
            f"the file holds {expected[0]}, {expected[1]} and {expected[2]}",
            problems=file.warnings,
            hint=HINT,
        )
    least = sectors.counts[:-1] * (1e9 / sectors.rate_hz) * (1 - RATE_TOLERANCE)
    early = np.flatnonzero(np.diff(starts) < least)
    if len(early):
        when = np.datetime64(int(starts[early[0] + 1]), "ns").astype("datetime64[ms]")
        raise BadInputError(f"{path}: the clock is set back before sector {early[0] + 2} ({when})", hint=HINT)
    return starts


def _chunks(path: Path) -> Iterator[Chunk]:
    sectors = _scan(path)
    with parsed(path, int(sectors.counts.sum()), (STARTS,), ROWS) as file:
        starts = (_starts(path, file, sectors) - file.whole[STARTS][0]) / 1e9
        step = np.full(len(starts), 1 / sectors.rate_hz)
        filled = np.flatnonzero(sectors.counts[:-1])
        real = np.diff(starts)[filled] / sectors.counts[filled]
        step[filled] = np.where(real <= step[0] * (1 + RATE_TOLERANCE), real, step[0])
        if len(step) > 1:
            step[-1] = step[-2]
        ends = np.cumsum(sectors.counts)
        done = 0
        for block in file.blocks:
            samples = np.concatenate(block, axis=1).astype(np.float32, copy=False)
            _plausible(path, samples, done)
            place = np.arange(done, done + len(samples))
            sector = np.searchsorted(ends, place, side="right")
            inside = place - (ends - sectors.counts)[sector]
            yield Chunk(samples, starts[sector] + inside * step[sector])
            done += len(samples)


def _plausible(path: Path, samples: npt.NDArray[np.float32], first: int) -> None:
    limits = np.array([LIMIT_G] * 3 + [LIMIT_DEG_S] * 3)[: samples.shape[1]]
    wrong = np.flatnonzero(~(np.abs(samples) <= limits).all(axis=1))
    if len(wrong):
        raise BadInputError(
            f"{path}, sample {first + wrong[0] + 1}: {samples[wrong[0]].tolist()} is more than the sensor "
            f"can measure ({LIMIT_G} g, {LIMIT_DEG_S} deg/s)",
            hint=HINT,
        )
