"""PAMAP2: 9 people, 18 activities, three IMUs at 100 Hz and a heart rate, as 54-column text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from topokd_edge.data.importers._number_rows import number_rows
from topokd_edge.data.stream import Chunk, Opened, ReadOptions, Stream, files_in, open_each
from topokd_edge.errors import BadInputError, UsageError

CREDIT = (
    "A. Reiss, PAMAP2 Physical Activity Monitoring, UCI Machine Learning Repository, 2012, "
    "https://doi.org/10.24432/C5NW2H; A. Reiss and D. Stricker, Introducing a new benchmarked dataset for "
    "activity monitoring, ISWC 2012"
)
LICENCE = "CC BY 4.0"
RATE_HZ = 100.0
DEVICE = "Colibri wireless IMUs (PAMAP2)"
POSITION = "wrist of the dominant arm (hand), chest, ankle of the dominant side"
COLUMNS = 54
ACTIVITIES = {
    0: "",
    1: "lying",
    2: "sitting",
    3: "standing",
    4: "walking",
    5: "running",
    6: "cycling",
    7: "nordic_walking",
    9: "watching_tv",
    10: "computer_work",
    11: "car_driving",
    12: "ascending_stairs",
    13: "descending_stairs",
    16: "vacuum_cleaning",
    17: "ironing",
    18: "folding_laundry",
    19: "house_cleaning",
    20: "playing_soccer",
    24: "rope_jumping",
}
"""By activity id; 0 is the time between activities, which the set's readme says to discard."""
_PLACES = ("hand", "chest", "ankle")
_IN_IMU = (
    ("temperature", "degC"),
    *((f"acc_{axis}", "m/s2") for axis in "xyz"),
    *((f"acc6_{axis}", "m/s2") for axis in "xyz"),
    *((f"gyro_{axis}", "rad/s") for axis in "xyz"),
    *((f"mag_{axis}", "uT") for axis in "xyz"),
)
CHANNELS = ("heart_rate", *(f"{place}_{name}" for place in _PLACES for name, _ in _IN_IMU))
UNITS = ("bpm", *(unit for _ in _PLACES for _, unit in _IN_IMU))
SOURCE_COLUMNS = (2, *(3 + 17 * imu + item for imu in range(3) for item in range(len(_IN_IMU))))
"""Column of each channel, from 0."""
DEFAULT_CHANNELS = tuple(
    f"{place}_{kind}_{axis}" for place in _PLACES for kind in ("acc", "gyro") for axis in "xyz"
)
"""What a set without gaps can be made of: the +-16 g accelerometers and the gyroscopes.

The heart rate comes about nine times a second with NaN between, so no 100 Hz window of it is whole. The +-6 g
accelerometers saturate and are not calibrated against the others. Temperature and magnetometer tell more of
the place and the day than of the activity.
"""
_LABELS = np.array([ACTIVITIES.get(number, "") for number in range(25)])
_SHOWN = 10


def open_streams(path: Path | None, _: ReadOptions) -> Opened:
    """Open `subject<number>.dat` files: one, or all in a folder with `Protocol` and `Optional`.

    A stream has 40 of the 54 columns: all but time, activity and the three orientations, which the set's
    readme calls invalid. See `DEFAULT_CHANNELS` for which to keep. Labels are per sample; lost samples are
    NaN. The session is `protocol` or `optional` by the folder, the subject comes from the file name.

    Raises
    ------
    UsageError
        Without a path.
    BadInputError
        When there is no such file.
    """
    if path is None:
        raise UsageError("the pamap2 format needs a path: topokd-edge data import pamap2 FOLDER --out W")
    return open_each(files_in(path, ("subject*.dat",)), _open_one)


def rows_of(path: Path) -> Iterator[npt.NDArray[np.float64]]:
    """Read a file block by block.

    Yields
    ------
    array
        float64, shape (rows, 54): time in s, activity id, heart rate, then 17 columns per IMU.

    Raises
    ------
    BadInputError
        With the lines that are not 54 numbers, lack a time, or have an activity that the set does not have.
    """
    for first, rows in number_rows(path, columns=COLUMNS, delimiter=None, nan=True):
        untimed = ~np.isfinite(rows[:, 0])
        unknown = ~np.isin(rows[:, 1], list(ACTIVITIES))
        bad = np.flatnonzero(untimed | unknown)
        if len(bad):
            problems = [
                f"line {first + row}: "
                + ("no time" if untimed[row] else f"activity {rows[row, 1]:g}, which the set does not have")
                for row in bad[:_SHOWN].tolist()
            ]
            more = [f"and {len(bad) - _SHOWN} more lines"] if len(bad) > _SHOWN else []
            raise BadInputError(f"{path}: not a PAMAP2 file", problems=[*problems, *more])
        yield rows


def labels_of(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.str_]:
    """Return the activity names of rows as `rows_of` gives them, "" between activities; shape (rows,)."""
    return _LABELS[rows[:, 1].astype(np.int64)]


def refuse_other(path: Path) -> None:
    """Raise BadInputError when the first lines of a file are not 54 numbers."""
    next(number_rows(path, columns=COLUMNS, delimiter=None, nan=True, at_once=10))


def subject_of(path: Path) -> str:
    """Return the subject number in the name of a file.

    Raises
    ------
    BadInputError
        When the name is not of the form `subject101.dat`.
    """
    named = re.fullmatch(r"subject(\d+)\.dat", path.name, re.IGNORECASE | re.ASCII)
    if named is None:
        raise BadInputError(f"{path}: named {path.name}, expected a name like subject101.dat")
    return named[1]


def session_of(path: Path) -> str:
    """Return `protocol` or `optional` by the folder a file is in, "1" when it is another."""
    folder = path.parent.name.lower()
    return folder if folder in ("protocol", "optional") else "1"


def _open_one(path: Path) -> list[Stream]:
    subject = subject_of(path)
    refuse_other(path)
    return [
        Stream(
            source=f"{path.parent.name}/{path.name}",
            path=path,
            channels=CHANNELS,
            units=UNITS,
            rate_hz=RATE_HZ,
            chunks=partial(_chunks, path),
            subject=subject,
            session=session_of(path),
            device=DEVICE,
            lost_as_nan=True,
            about={"position": POSITION},
        )
    ]


def _chunks(path: Path) -> Iterator[Chunk]:
    for rows in rows_of(path):
        yield Chunk(
            samples=rows[:, SOURCE_COLUMNS].astype(np.float32),
            time=rows[:, 0],
            labels=labels_of(rows),
        )
