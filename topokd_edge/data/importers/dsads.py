"""DSADS: 8 people, 19 daily and sports activities, five IMUs at 25 Hz, in text files of five seconds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from topokd_edge.data.importers._number_rows import number_rows
from topokd_edge.data.stream import Chunk, Opened, ReadOptions, Refused, Stream, files_in
from topokd_edge.errors import BadInputError, UsageError

CREDIT = (
    "B. Barshan and K. Altun, Daily and Sports Activities, UCI Machine Learning Repository, 2010, "
    "https://doi.org/10.24432/C5C59F; K. Altun, B. Barshan, O. Tuncel, Pattern Recognition 43(10), 2010; "
    "B. Barshan and M. C. Yuksek, The Computer Journal 57(11), 2014"
)
LICENCE = "CC BY 4.0"
RATE_HZ = 25.0
SEGMENT = 125
"""Samples per file."""
ACTIVITIES = (
    "sitting",
    "standing",
    "lying_on_back",
    "lying_on_right_side",
    "ascending_stairs",
    "descending_stairs",
    "standing_still_in_elevator",
    "moving_around_in_elevator",
    "walking_in_parking_lot",
    "walking_treadmill_4kmh_flat",
    "walking_treadmill_4kmh_15deg",
    "running_treadmill_8kmh",
    "exercising_on_stepper",
    "exercising_on_cross_trainer",
    "cycling_bike_horizontal",
    "cycling_bike_vertical",
    "rowing",
    "jumping",
    "playing_basketball",
)
"""Of the folders a01 to a19."""
_PLACES = ("torso", "right_arm", "left_arm", "right_leg", "left_leg")
_KINDS = (("acc", "m/s2"), ("gyro", "rad/s"), ("mag", "1"))
CHANNELS = tuple(f"{place}_{kind}_{axis}" for place in _PLACES for kind, _ in _KINDS for axis in "xyz")
UNITS = tuple(unit for _ in _PLACES for _, unit in _KINDS for _ in "xyz")
"""The magnetometer is in units of the earth's field."""
_PLACE_OF_FILE = re.compile(r"a(\d\d)/p(\d+)/s(\d\d)\.txt", re.IGNORECASE | re.ASCII)


def open_streams(path: Path | None, _: ReadOptions) -> Opened:
    """Open the segment files `a01/p1/s01.txt` ... in a folder, one stream per person and activity.

    A stream is the person's segments in order, with a border before each: consecutive segments follow each
    other in time for some activities, but not for stairs, and the set does not say which.

    Raises
    ------
    UsageError
        Without a path.
    BadInputError
        When there is no such file.
    """
    if path is None:
        raise UsageError("the dsads format needs a folder: topokd-edge data import dsads FOLDER --out W")
    groups: dict[tuple[Path, int, int], list[Path]] = {}
    refused = []
    for file in files_in(path, ("s[0-9][0-9].txt",)):
        try:
            groups.setdefault(_group(file), []).append(file)
        except BadInputError as error:
            refused.append(Refused(str(file), str(error)))
    return Opened(tuple(_stream(*group, files) for group, files in sorted(groups.items())), tuple(refused))


def _group(file: Path) -> tuple[Path, int, int]:
    """Return (folder of the set, subject, activity from 1) of a segment file whose first line is good."""
    place = _PLACE_OF_FILE.fullmatch("/".join(file.absolute().parts[-3:]))
    if place is None or not 1 <= int(place[1]) <= len(ACTIVITIES):
        raise BadInputError(
            f"{file}: expected a place like a01/p1/s01.txt, activities a01 to a{len(ACTIVITIES)}"
        )
    next(number_rows(file, columns=len(CHANNELS), delimiter=",", nan=False, at_once=1))
    return file.absolute().parents[2], int(place[2]), int(place[1])


def _stream(folder: Path, subject: int, activity: int, files: list[Path]) -> Stream:
    return Stream(
        source=f"{folder.name}/a{activity:02}/p{subject}",
        path=files[0],
        channels=CHANNELS,
        units=UNITS,
        rate_hz=RATE_HZ,
        chunks=partial(_chunks, tuple(files)),
        subject=str(subject),
        device="Xsens MTx (DSADS)",
        label=ACTIVITIES[activity - 1],
        about={"position": ", ".join(_PLACES)},
    )


def _chunks(files: tuple[Path, ...]) -> Iterator[Chunk]:
    for file in files:
        blocks = number_rows(file, columns=len(CHANNELS), delimiter=",", nan=False, at_once=SEGMENT + 1)
        _, rows = next(blocks)
        if len(rows) != SEGMENT:
            found = "more" if len(rows) > SEGMENT else len(rows)
            raise BadInputError(
                f"{file}: {found} lines, expected {SEGMENT}", hint="copy or download the file again"
            )
        yield Chunk(rows.astype(np.float32), borders=(0,))
