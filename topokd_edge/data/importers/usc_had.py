"""USC-HAD: 14 people, 12 activities, an IMU on the hip at 100 Hz, in small MATLAB files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from topokd_edge.data.importers._mat5 import read_mat5
from topokd_edge.data.stream import Chunk, Opened, ReadOptions, Stream, files_in, open_each
from topokd_edge.errors import BadInputError, UsageError

CREDIT = (
    "M. Zhang and A. A. Sawchuk, USC-HAD: A Daily Activity Dataset for Ubiquitous Activity Recognition Using "
    "Wearable Sensors, ACM UbiComp Workshop on Situation, Activity and Goal Awareness, 2012"
)
LICENCE = "free for research; see https://sipi.usc.edu/had"
RATE_HZ = 100.0
ACTIVITIES = (
    "walking_forward",
    "walking_left",
    "walking_right",
    "walking_upstairs",
    "walking_downstairs",
    "running_forward",
    "jumping_up",
    "sitting",
    "standing",
    "sleeping",
    "elevator_up",
    "elevator_down",
)
"""By activity number, from 1."""
CHANNELS = ("acc_x", "acc_y", "acc_z", "gyro_x", "gyro_y", "gyro_z")
UNITS = ("g", "g", "g", "deg/s", "deg/s", "deg/s")
MAX_BYTES = 16 << 20
"""Of a file; those of the set have about 0.05 MB."""
_PLACE_OF_FILE = re.compile(r"subject(\d+)/a(\d+)t(\d+)\.mat", re.IGNORECASE | re.ASCII)
_READINGS = "sensor_readings"
_TEXTS = ("subject", "activity_number", "activity_numbr", "age", "height", "weight", "sensor_location")
"""The set itself misspells one name in Subject13/a11t4.mat."""


def open_streams(path: Path | None, _: ReadOptions) -> Opened:
    """Open `Subject<number>/a<activity>t<trial>.mat` files: one, or all in a folder.

    Activity and subject come from the path: the activity texts inside are not uniform, and one of its
    numbers is wrong. Where the file says another subject or activity, a note says so.

    Raises
    ------
    UsageError
        Without a path.
    BadInputError
        When there is no such file.
    """
    if path is None:
        raise UsageError("the usc-had format needs a path: topokd-edge data import usc-had FOLDER --out W")
    return open_each(files_in(path, ("a*t*.mat",)), _open_one)


def _open_one(path: Path) -> list[Stream]:
    place = _PLACE_OF_FILE.fullmatch("/".join(path.absolute().parts[-2:]))
    if place is None or not 1 <= int(place[2]) <= len(ACTIVITIES):
        raise BadInputError(
            f"{path}: expected a place like Subject1/a1t1.mat, activities 1 to {len(ACTIVITIES)}"
        )
    subject, activity, trial = (int(number) for number in place.groups())
    _, texts = _read(path)
    said = {"subject": texts.get("subject"), "activity": texts.get("activity_number")}
    said["activity"] = said["activity"] or texts.get("activity_numbr")
    notes = [
        f"{path.name}: its path says {key} {number}, the file {said[key]}; the path is taken"
        for key, number in (("subject", subject), ("activity", activity))
        if said[key] not in (None, str(number))
    ]
    about = {key: text for key, text in texts.items() if key in ("age", "height", "weight")}
    return [
        Stream(
            source=f"{path.absolute().parent.name}/{path.name}",
            path=path,
            channels=CHANNELS,
            units=UNITS,
            rate_hz=RATE_HZ,
            chunks=partial(_chunks, path),
            subject=str(subject),
            session=f"trial-{trial}",
            device="MotionNode (USC-HAD)",
            label=ACTIVITIES[activity - 1],
            about={"position": texts.get("sensor_location", "front-right-hip"), **about},
            notes=tuple(notes),
        )
    ]


def _chunks(path: Path) -> Iterator[Chunk]:
    yield Chunk(_read(path)[0])


def _read(path: Path) -> tuple[npt.NDArray[np.float32], dict[str, str]]:
    """Return the readings, shape (samples, 6), and the texts of one file."""
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read ({error.strerror})") from None
    if len(data) > MAX_BYTES:
        raise BadInputError(f"{path}: larger than {MAX_BYTES:,} bytes")
    try:
        found = read_mat5(data, (_READINGS, *_TEXTS))
    except ValueError as error:
        raise BadInputError(f"{path}: damaged ({error})", hint="copy or download the file again") from None
    texts = {key: text.strip() for key, text in found.items() if isinstance(text, str)}
    return _readings(path, found.get(_READINGS)), {
        key: text for key, text in texts.items() if text and text.isprintable() and len(text) < 100
    }


def _readings(path: Path, found: npt.NDArray[np.float64] | str | None) -> npt.NDArray[np.float32]:
    """Return the readings when they are what they should be."""
    expected = f"expected numbers of shape (samples, {len(CHANNELS)})"
    if not isinstance(found, np.ndarray):
        raise BadInputError(f"{path}: {_READINGS}: no real numbers, {expected}")
    if found.ndim != 2 or found.shape[1] != len(CHANNELS) or not found.size:
        raise BadInputError(f"{path}: {_READINGS}: shape {found.shape}, {expected}")
    with np.errstate(over="ignore", invalid="ignore"):
        samples = found.astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(samples).all(axis=1))
    if len(bad):
        raise BadInputError(f"{path}: {_READINGS} row {bad[0] + 1}: no finite number ({len(bad)} such rows)")
    return samples
