"""WFDB records (`.hea`, `.dat`, `.atr`), as PhysioNet gives them, read with the package wfdb.

Only local files are read, block by block, so memory does not grow with the record.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from topokd_edge.data.importers.wfdb_labels import KINDS, labels_at, read_intervals
from topokd_edge.data.stream import CHUNK_SAMPLES, Chunk, Opened, ReadOptions, Stream, files_in, open_each
from topokd_edge.errors import BadInputError, MissingError, UsageError

LOST = {
    "16": -(1 << 15),
    "24": -(1 << 23),
    "32": -(1 << 31),
    "61": -(1 << 15),
    "80": -(1 << 7),
    "212": -(1 << 11),
}
"""Formats of signal files that are read, and the value that marks a lost sample."""
BITS = {"16": 16, "24": 24, "32": 32, "61": 16, "80": 8, "212": 12}
"""Bits a sample takes."""
RECORD_LINE = re.compile(
    r"[\w-]+(/\d+)?[ \t]+\d+[ \t]+\d+(\.\d*)?(/\d+(\.\d*)?(\(-?\d+(\.\d*)?\))?)?[ \t]+\d+([ \t].*)?", re.ASCII
)
SIGNAL_LINE = re.compile(
    r"[^ \t]+[ \t]+\d+(x\d+)?(:\d+)?(\+\d+)?[ \t]+(?P<gain>-?\d+(\.\d*)?(e[+-]?\d+)?)(\(-?\d+\))?(/[^ \t]+)?"
    r"([ \t]+-?\d+){0,5}([ \t].*)?",
    re.ASCII,
)
"""What a header must look like; wfdb reads a line up to what it does not understand and puts defaults for the
rest, such as 250 Hz and 200 counts per mV."""
UNITS = {
    "mv": ("mV", 1.0),
    "uv": ("mV", 1e-3),
    "v": ("mV", 1e3),
    "g": ("g", 1.0),
    "m/s2": ("m/s2", 1.0),
    "m/s^2": ("m/s2", 1.0),
    "deg/s": ("deg/s", 1.0),
    "bpm": ("bpm", 1.0),
    "nu": ("1", 1.0),
}
"""Units of a header, in small letters: unit of the project and factor."""
MOST_RATE = 1e6
SMALL = 1 << 20
"""Bytes a header may have."""
HINT = "copy or download the record again"


def open_streams(path: Path | None, options: ReadOptions) -> Opened:
    """Open a record, or all of a folder.

    Parameters
    ----------
    path
        A header (`100.hea`), a record (`100`), or a folder.
    options
        `label` is used. "beats", also when it is None: a sample belongs to the nearest beat of the `.atr`
        file, at most 1.5 s away, and is labelled with the beat's symbol. "rhythm": it is labelled with the
        rhythm noted last, such as "N" or "AFIB". Before the first annotation, and for beats after the last,
        there is no label.

    Returns
    -------
    Opened
        One stream per record, the signals' names as channels; volts as mV, unknown units as "1" with a note.
        Values that the format calls lost are NaN.

    Raises
    ------
    UsageError
        When `label` is something else.
    BadInputError
        When there is no such file.
    MissingError
        When the package wfdb is not installed.
    """
    if path is None:
        raise UsageError("wfdb: a path is needed, a record or a folder of them")
    if options.label not in (None, *KINDS):
        raise UsageError(f"wfdb: label {options.label!r}, expected one of {', '.join(KINDS)}")
    if find_spec("wfdb") is None:
        raise MissingError(
            "package wfdb: not installed; it reads WFDB records", hint="pip install 'topokd-edge[ecg]'"
        )
    if not path.is_dir() and path.suffix.lower() != ".hea":
        path = path.with_name(f"{path.stem if path.suffix in ('.dat', '.atr') else path.name}.hea")
    return open_each(files_in(path, ("*.hea",)), partial(_open, kind=options.label))


def _open(path: Path, *, kind: str | None) -> list[Stream]:
    header, length = _header(path)
    read_intervals(path, header.fs, length, kind)
    units, notes = [], []
    for name, unit in zip(_names(header), header.units, strict=True):
        if (unit or "mV").lower() not in UNITS:
            notes.append(
                f"{name} is in {unit}, which is no unit of this project; taken as numbers without unit"
            )
        units.append(UNITS.get((unit or "mV").lower(), ("1", 1.0))[0])
    comments = [comment.strip() for comment in header.comments if comment.strip()]
    named = [
        re.match(r"(?:subject|patient)(?:[ _]?id)?\s*[:=]\s*(\S+)", text, re.IGNORECASE) for text in comments
    ]
    return [
        Stream(
            source=str(path),
            path=path,
            channels=_names(header),
            units=tuple(units),
            rate_hz=float(header.fs),
            chunks=partial(_chunks, path, kind),
            subject=next((match.group(1) for match in named if match), path.stem),
            session=path.stem,
            device="WFDB record",
            start=header.base_datetime.isoformat() if header.base_datetime else None,
            lost_as_nan=True,
            about={"comments": "; ".join(comments)[:500]} if comments else {},
            notes=tuple(notes),
        )
    ]


def _header(path: Path) -> tuple[Any, int]:
    """Return what the header says, and the samples per signal, after holding it against the files.

    Raises
    ------
    BadInputError
        When it cannot be read, is of a kind that is not read, leads out of its folder, or says more than its
        signal files hold.
    """
    import wfdb

    if "::" in str(path):
        raise BadInputError(
            f"{path}: '::' in a path means something else to the package wfdb; move the record"
        )
    problems = _wrong_lines(path)
    if not problems:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                header = wfdb.rdheader(str(path.with_suffix("")))
        except Exception as error:  # whatever wfdb stumbles over in a damaged text
            raise BadInputError(f"{path}: not a readable WFDB header ({error})", hint=HINT) from None
        problems = _problems(path, header)
    if not problems:
        held = _held(path, header)
        if not 0 < (header.sig_len or 0) <= held:
            problems.append(f"{header.sig_len} samples per signal stated, its signal files hold {held}")
    if problems:
        raise BadInputError(f"{path}: a record that cannot be read", problems=problems, hint=HINT)
    return header, header.sig_len


def _wrong_lines(path: Path) -> list[str]:
    if path.stat().st_size > SMALL:
        return [f"larger than {SMALL} bytes"]
    problems = []
    first = True
    for number, line in enumerate(path.read_text("ascii", "ignore").splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = (RECORD_LINE if first else SIGNAL_LINE).fullmatch(line.strip())
        if match is None:
            expected = "name, signals, rate and samples" if first else "file, format, gain and more"
            problems.append(f"line {number}: {line.strip()[:60]!r}, expected {expected}")
        elif first and match.group(1):
            return ["it is made of several segments, each of them a record to be read by itself"]
        elif not first and float(match.group("gain")) == 0:
            problems.append(f"line {number}: gain 0, which means that the signal was not calibrated")
        first = False
    return problems[:20] if not first else ["empty"]


def _problems(path: Path, header: Any) -> list[str]:
    if not header.n_sig or len(header.file_name or ()) != header.n_sig:
        return [f"{header.n_sig} signals stated, {len(header.file_name or ())} described"]
    problems = []
    if header.fs is None or not 0 < header.fs <= MOST_RATE:
        problems.append(f"{header.fs} samples per second, expected more than 0 and at most {MOST_RATE:g}")
    for number, name in enumerate(header.file_name):
        where = f"signal {number + 1}"
        if not re.fullmatch(r"[\w-][\w.-]*", name or ""):
            problems.append(f"{where}: file name {name!r}, expected a plain name in the header's folder")
        elif not (path.parent / name).is_file():
            problems.append(f"{where}: no file {name} in the header's folder")
        if header.fmt[number] not in LOST:
            problems.append(f"{where}: format {header.fmt[number]}, expected one of {', '.join(LOST)}")
        if header.samps_per_frame[number] not in (None, 1) or header.skew[number]:
            problems.append(f"{where}: several samples per frame, or skewed against the others; not read")
        if not np.isfinite(header.adc_gain[number]):
            problems.append(f"{where}: gain {header.adc_gain[number]}, expected a finite number")
    return problems


def _held(path: Path, header: Any) -> int:
    """Return how many samples per signal the signal files hold."""
    held = []
    for name in set(header.file_name):
        at = [number for number in range(header.n_sig) if header.file_name[number] == name]
        first = header.byte_offset[at[0]] or 0
        size = (path.parent / name).stat().st_size - first
        held.append(int(size * 8 / (len(at) * BITS[header.fmt[at[0]]])))
    return max(0, min(held))


def _names(header: Any) -> tuple[str, ...]:
    names: list[str] = []
    for number, name in enumerate(header.sig_name):
        plain = (name or "").strip() or f"signal_{number + 1}"
        names.append(f"{plain}_{number + 1}" if plain in names else plain)
    return tuple(names)


def _chunks(path: Path, kind: str | None) -> Iterator[Chunk]:
    header, length = _header(path)
    intervals = read_intervals(path, header.fs, length, kind)
    factor = np.array([UNITS.get((unit or "mV").lower(), ("1", 1.0))[1] for unit in header.units])
    baseline, gain = np.array(header.baseline), np.array(header.adc_gain)
    lost = np.array([LOST[format_] for format_ in header.fmt])
    total = np.zeros(header.n_sig, dtype=np.int64)
    for start in range(0, length, CHUNK_SAMPLES):
        counts = _counts(path, start, min(length, start + CHUNK_SAMPLES))
        total += counts.sum(axis=0)
        samples = ((counts - baseline) / gain * factor).astype(np.float32)
        samples[counts == lost] = np.nan
        yield Chunk(samples, labels=labels_at(np.arange(start, start + len(counts)), intervals))
    wrong = [
        name
        for name, stated, found in zip(_names(header), header.checksum, total, strict=True)
        if stated is not None and (stated - found) % 65536
    ]
    if wrong:
        raise BadInputError(
            f"{path}: the checksum of {', '.join(wrong)} is not the header's; the signal file is damaged",
            hint=f"{HINT}; if it was changed on purpose, correct the header",
        )


def _counts(path: Path, start: int, stop: int) -> npt.NDArray[np.int64]:
    import wfdb

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            record: Any = wfdb.rdrecord(
                str(path.with_suffix("")), sampfrom=start, sampto=stop, physical=False
            )
        counts = np.asarray(record.d_signal, dtype=np.int64)
    except Exception as error:  # whatever wfdb stumbles over in damaged bytes
        raise BadInputError(
            f"{path}, samples {start + 1} to {stop}: not readable ({error})", hint=HINT
        ) from None
    if counts.shape != (stop - start, len(record.sig_name)):
        raise BadInputError(f"{path}, samples {start + 1} to {stop}: {len(counts)} read", hint=HINT)
    return counts
