"""PAMAP2 as the published numbers were made from it, oddities included; for comparison only.

The steps and numbers are those of `preprocessing_pamap2_2.py` (F. Moya Rueda, TU Dortmund) and
`pamap2_load.py` in the public repository jeunsom/TDA_KD, commit 23c681480706fd6c880bb6aeb86048d133f465d3.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from topokd_edge.data.importers import pamap2
from topokd_edge.data.stream import files_in
from topokd_edge.errors import BadInputError

LENGTH = 100
STRIDE = 22
FIRST = 22
"""Sample at which the first window starts; the code skips one stride."""
EVERY = 3
"""Of how many samples one is kept."""
RATE_HZ = pamap2.RATE_HZ / EVERY
CLASS_IDS = (24, 1, 2, 3, 4, 5, 6, 7, 12, 13, 16, 17)
"""PAMAP2 activity of each class, in the published order; other activities are dropped."""
CLASS_NAMES = tuple(pamap2.ACTIVITIES[number] for number in CLASS_IDS)
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
    "windows overlap by 78 %, the first stride of each subject is skipped",
    "includes channels the set's readme advises against (6 g accelerometers)",
)
"""What differs from a clean set, for the account of whatever is made of these windows."""


@dataclass(frozen=True, slots=True)
class PublishedWindows:
    """The windows, their class and where they come from.

    Attributes
    ----------
    x
        float32, shape (windows, 40, 100), within 0 and 1; channels in the order of `pamap2.CHANNELS`.
    y
        int64, shape (windows,), index into `CLASS_NAMES`.
    subject
        str, shape (windows,), "101" to "109".
    start
        int64, shape (windows,): first sample among the kept third of the kept samples of the subject.
    differences
        Subjects whose number of windows is not the published one, in words.
    """

    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.int64]
    subject: npt.NDArray[np.str_]
    start: npt.NDArray[np.int64]
    differences: tuple[str, ...]


def published_pamap2(path: Path) -> PublishedWindows:
    """Make the windows of the published experiments from the protocol files.

    Scaling to zero mean per training fold, which the published training does next, is not part of this.

    Parameters
    ----------
    path
        Folder with `Protocol/subject101.dat` to `subject109.dat` in or below it, or one such file. Files in
        a folder `Optional` are left out, as published.

    Raises
    ------
    BadInputError
        When there is no protocol file, two of one subject, or a file is damaged.
    """
    files: dict[str, Path] = {}
    for file in files_in(path, ("subject*.dat",)):
        if pamap2.session_of(file) == "optional":
            continue
        subject = pamap2.subject_of(file)
        if subject in files:
            raise BadInputError(
                f"{path}: subject {subject} is there twice ({files[subject]}, {file})",
                hint="give the folder of one copy",
            )
        files[subject] = file
    if not files:
        raise BadInputError(f"{path}: no protocol file", hint="give the folder that holds Protocol")
    parts = [(subject, *_of_subject(file)) for subject, file in sorted(files.items())]
    counts = {subject: len(y) for subject, _, y, _ in parts}
    return PublishedWindows(
        x=np.concatenate([x for _, x, _, _ in parts]),
        y=np.concatenate([y for _, _, y, _ in parts]),
        subject=np.repeat(np.array(list(counts)), list(counts.values())),
        start=np.concatenate([start for _, _, _, start in parts]),
        differences=_differences(counts),
    )


def window_starts(classes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return where the published windows start in a series of classes, shape (samples,).

    A last window that would just fit is left out, and only first and last sample must agree, as published.
    """
    starts: npt.NDArray[np.int64] = np.arange(FIRST, len(classes) - LENGTH, STRIDE, dtype=np.int64)
    agree: npt.NDArray[np.int64] = starts[classes[starts] == classes[starts + LENGTH - 1]]
    return agree


def scale(samples: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Fill and scale the samples of one subject, shape (samples, 40), as published.

    The heart rate keeps its last value until the next (missing before the first), every other missing value
    becomes 0; then each channel goes to 0 ... 1 by `MINIMA` and `MAXIMA`.
    """
    beats = samples[:, 0]
    latest = np.maximum.accumulate(np.where(np.isnan(beats), 0, np.arange(len(beats))))
    filled = np.nan_to_num(np.column_stack((beats[latest], samples[:, 1:])), nan=0.0)
    low, high = np.array(MINIMA), np.array(MAXIMA)
    scaled: npt.NDArray[np.float64] = (filled - low) / (high - low)
    scaled[scaled > 1] = 0.99
    scaled[scaled < 0] = 0.0
    return scaled


def _of_subject(
    path: Path,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return x, y and start of one file."""
    samples, classes = [], []
    class_of = np.full(max(pamap2.ACTIVITIES) + 1, -1)
    class_of[list(CLASS_IDS)] = range(len(CLASS_IDS))
    for rows in pamap2.rows_of(path):
        number = class_of[rows[:, 1].astype(np.int64)]
        samples.append(rows[number >= 0][:, pamap2.SOURCE_COLUMNS])
        classes.append(number[number >= 0])
    y = np.concatenate(classes)[::EVERY]
    signal = scale(np.concatenate(samples))[::EVERY].astype(np.float32)
    starts = window_starts(y)
    if not len(starts):
        return np.empty((0, len(MAXIMA), LENGTH), np.float32), y[:0], starts
    views = np.lib.stride_tricks.sliding_window_view(signal, LENGTH, axis=0)
    return views[starts], y[starts], starts


def _differences(counts: dict[str, int]) -> tuple[str, ...]:
    return tuple(
        f"subject {subject}: {counts.get(subject, 0)} windows, published {EXPECTED_WINDOWS.get(subject, 0)}"
        for subject in sorted(counts.keys() | EXPECTED_WINDOWS.keys())
        if counts.get(subject, 0) != EXPECTED_WINDOWS.get(subject, 0)
    )
