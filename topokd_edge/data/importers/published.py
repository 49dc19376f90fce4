"""PAMAP2 as the published numbers were made from it, oddities included; for comparison only.

The steps and numbers are those of `preprocessing_pamap2_2.py` (F. Moya Rueda, TU Dortmund) and
`pamap2_load.py` in the public repository jeunsom/TDA_KD, commit 23c681480706fd6c880bb6aeb86048d133f465d3.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from topokd_edge.data.importers import pamap2
from topokd_edge.data.stream import Chunk, Opened, ReadOptions, Stream, files_in, open_each
from topokd_edge.errors import BadInputError, UsageError

CREDIT = f"{pamap2.CREDIT}; preprocessing after F. Moya Rueda, TU Dortmund, in github.com/jeunsom/TDA_KD"
LICENCE = pamap2.LICENCE
EVERY = 3
"""Of how many samples one is kept."""
RATE_HZ = pamap2.RATE_HZ / EVERY
LENGTH = 100
STRIDE = 22
FIRST = 22
"""Sample at which the first window starts; the code skips one stride."""
SECONDS = LENGTH / RATE_HZ
OVERLAP = 1 - STRIDE / LENGTH
LABEL_RULE = "ends"
"""With `SECONDS` and `OVERLAP` the published cut: the label of the first sample, if the last has the same."""
KEPT_ACTIVITIES = (1, 2, 3, 4, 5, 6, 7, 12, 13, 16, 17, 24)
"""The twelve classes, by PAMAP2 activity id; samples of others are deleted."""
_SORTED = np.array(sorted(pamap2.ACTIVITIES[number] for number in KEPT_ACTIVITIES))
EXPECTED_WINDOWS = {
    "101": 3726,
    "102": 3925,
    "103": 2592,
    "104": 3447,
    "105": 4065,
    "106": 3728,
    "107": 3465,
    "108": 3909,
    "109": 92,
}
"""By subject, as printed in the published notebook."""
# Per channel: heart rate; of each IMU temperature and two accelerometers, then gyroscope and magnetometer.
# fmt: off
MAXIMA = (
    202.0,
    35.5, 47.6314, 155.532, 157.76, 45.5484, 62.2598, 61.728,
    21.8452, 13.1222, 14.2184, 137.544, 109.181, 100.543,
    38.5625, 26.386, 153.582, 37.2936, 23.9101, 61.9328, 36.9676,
    15.5171, 5.97964, 2.94183, 80.4739, 39.7391, 95.8415,
    35.4375, 157.232, 157.293, 150.99, 61.9509, 62.0461, 60.9357,
    17.4204, 13.5882, 13.9617, 91.4247, 92.867, 146.651,
)
MINIMA = (
    0.0,
    0.0, -114.755, -104.301, -73.0384, -61.1938, -61.8086, -61.4193,
    -27.8044, -17.8495, -14.2647, -103.941, -200.043, -163.608,
    0.0, -29.0888, -38.1657, -57.2366, -32.9627, -39.7561, -56.0108,
    -10.1563, -5.06858, -3.99487, -70.0627, -122.48, -66.6847,
    0.0, -155.068, -155.617, -156.179, -60.3067, -61.9064, -62.2629,
    -14.162, -13.0401, -14.0196, -172.865, -137.908, -102.232,
)
# fmt: on
ODDITIES = (
    "samples of other activities are deleted first, so windows and the filled heart rate run across the gaps",
    "a window needs the same class in its first and last sample only",
    "lost values become 0 before scaling, a different height in each channel",
    "scaled with the extremes of all subjects, test subjects included; above 1 becomes 0.99, not 1",
    "every third sample is taken without a filter against aliasing",
    "windows overlap by 78 %; the first stride of each subject is skipped, and a last window that just fits",
    "has channels the set's readme advises against (6 g accelerometers)",
)
"""What differs from a clean set, kept on purpose."""


def open_streams(path: Path | None, _: ReadOptions) -> Opened:
    """Open the protocol files, one stream per subject, with the published preprocessing (see `ODDITIES`).

    Samples are the 40 channels scaled to 0 ... 1, at 33.3 Hz. The first 22 samples and the last one of a
    subject are left out, so that a grid of windows of `SECONDS` with `OVERLAP` and `LABEL_RULE` is the
    published one, window for window. Scaling to zero mean per training fold, which the published training
    does next, is not part of it.

    Parameters
    ----------
    path
        Folder with `Protocol/subject101.dat` to `subject109.dat` in or below it, or one such file. Files in
        a folder `Optional` are left out, as published.

    Raises
    ------
    UsageError
        Without a path.
    BadInputError
        When there is no protocol file, or two of one subject.
    """
    if path is None:
        raise UsageError("PAMAP2 needs a path: topokd-edge data import pamap2-published FOLDER --out W")
    files = [file for file in files_in(path, ("subject*.dat",)) if pamap2.session_of(file) != "optional"]
    if not files:
        raise BadInputError(f"{path}: no protocol file", hint="give the folder that holds Protocol")
    names = [file.name.lower() for file in files]
    twice = [str(file) for file in files if names.count(file.name.lower()) > 1]
    if twice:
        raise BadInputError(
            f"{path}: more than one file of a subject", problems=twice, hint="give the folder of one copy"
        )
    return open_each(files, _open_one)


def _open_one(path: Path) -> list[Stream]:
    subject = pamap2.subject_of(path)
    pamap2.refuse_other(path)
    return [
        Stream(
            source=f"{path.parent.name}/{path.name}",
            path=path,
            channels=pamap2.CHANNELS,
            units=("1",) * len(pamap2.CHANNELS),
            rate_hz=RATE_HZ,
            chunks=partial(_chunks, path),
            subject=subject,
            session="protocol",
            device=pamap2.DEVICE,
            about={"position": pamap2.POSITION, "preprocessing": "as published: " + "; ".join(ODDITIES)},
        )
    ]


def _chunks(path: Path) -> Iterator[Chunk]:
    """Leave out the first stride and the last sample; tell when the windows are not as many as published."""
    skip = FIRST
    samples, labels = np.empty((0, len(MAXIMA)), dtype=np.float32), np.empty(0, dtype=np.str_)
    given = [np.empty(0, dtype=np.uint8)]
    for scaled, named in _prepared(path):
        samples = np.concatenate((samples[-1:], scaled[skip:]))
        labels = np.concatenate((labels[-1:], named[skip:]))
        skip -= min(skip, len(scaled))
        if len(samples) > 1:
            given.append(np.searchsorted(_SORTED, labels[:-1]).astype(np.uint8))
            yield Chunk(samples[:-1], labels=labels[:-1])
    count = _published_count(np.concatenate(given))
    expected = EXPECTED_WINDOWS.get(pamap2.subject_of(path))
    if count != expected:
        note = f"{path.name}: the published cut gives {count} windows, published are {expected or 'none'}"
        yield Chunk(samples[:0], labels=labels[:0], notes=(note,))


def _prepared(path: Path) -> Iterator[tuple[npt.NDArray[np.float32], npt.NDArray[np.str_]]]:
    """Yield the scaled samples kept of each block, and the label of each."""
    seen, beat = 0, np.nan
    for rows in pamap2.rows_of(path):
        kept = rows[np.isin(rows[:, 1], KEPT_ACTIVITIES)]
        if len(kept):
            samples, labels = kept[:, pamap2.SOURCE_COLUMNS], pamap2.labels_of(kept)
            samples[:, 0] = carried(samples[:, 0], beat)
            beat = float(samples[-1, 0])
            first = -seen % EVERY
            seen += len(kept)
            yield scale(samples[first::EVERY]).astype(np.float32), labels[first::EVERY]


def carried(values: npt.NDArray[np.float64], last: float) -> npt.NDArray[np.float64]:
    """Replace each NaN by the value before it, `last` before the first."""
    before = np.concatenate(([last], values))
    latest = np.maximum.accumulate(np.where(np.isnan(before), 0, np.arange(len(before))))
    filled: npt.NDArray[np.float64] = before[latest][1:]
    return filled


def scale(samples: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Set NaN to 0, then scale each channel to 0 ... 1 by `MINIMA` and `MAXIMA`; shape (samples, 40)."""
    low, high = np.array(MINIMA), np.array(MAXIMA)
    scaled: npt.NDArray[np.float64] = (np.nan_to_num(samples, nan=0.0) - low) / (high - low)
    scaled[scaled > 1] = 0.99
    scaled[scaled < 0] = 0.0
    return scaled


def _published_count(labels: npt.NDArray[np.uint8]) -> int:
    starts = np.arange(0, len(labels) - LENGTH + 1, STRIDE)
    return int((labels[starts] == labels[starts + LENGTH - 1]).sum())
