"""The shoulder physiotherapy set of a smartwatch that the Python package seglearn ships."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from topokd_edge.data.stream import Chunk, Opened, ReadOptions, Stream
from topokd_edge.errors import BadInputError, MissingError
from topokd_edge.files import sha256_bytes

SHA256 = "eb122f23cdf06ef6bd6c6c5312958ec5cf9d038e2e6d457b8081662c75a42537"
CREDIT = (
    "D. M. Burns et al., Shoulder physiotherapy exercise recognition: machine learning the inertial "
    "signals from a smartwatch, arXiv:1802.01489; data as shipped in seglearn"
)
LICENCE = "BSD-3-Clause"
RATE_HZ = 50.0
"""As documented by seglearn.datasets.load_watch."""
SIDES = ("left", "right")
"""By the number in the file (seglearn.datasets.load_watch)."""
CHANNELS = ("acc_x", "acc_y", "acc_z", "gyro_x", "gyro_y", "gyro_z")
UNITS = ("g", "g", "g", "rad/s", "rad/s", "rad/s")


def installed_file() -> Path:
    """Return where the installed package seglearn keeps the data; the package is not imported.

    Raises
    ------
    MissingError
        When seglearn is not installed.
    """
    spec = importlib.util.find_spec("seglearn")
    if spec is None or spec.origin is None:
        raise MissingError(
            "the shoulder exercise data come with the Python package seglearn, which is not installed",
            hint="pip install 'topokd-edge[demo]' (or: pip install seglearn==1.2.5)",
        )
    return Path(spec.origin).parent / "data" / "watch_dataset.npy"


def open_streams(path: Path | None, _: ReadOptions) -> Opened:
    """Open the 140 recordings: 10 people, 7 exercises, both arms, 50 Hz, acc in g and gyro in rad/s.

    Parameters
    ----------
    path
        A copy of `watch_dataset.npy`; None takes the one of the installed package seglearn.

    Raises
    ------
    MissingError
        When no path is given and seglearn is not installed.
    BadInputError
        When the file is missing or is not, byte for byte, the known one.
    """
    path = installed_file() if path is None else path
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read ({error.strerror})") from None
    found = sha256_bytes(content)
    if found != SHA256:
        raise BadInputError(
            f"{path}: SHA-256 is {found}, expected {SHA256}; the file holds Python objects and is read "
            "only when it is exactly the known one",
            hint="install the release it comes with: pip install --force-reinstall seglearn==1.2.5",
        )
    # The file holds pickled arrays; these very bytes are known, so unpickling them runs nothing unknown.
    data = np.load(io.BytesIO(content), allow_pickle=True).item()
    names = data["y_labels"]
    streams = []
    for index, signal in enumerate(data["X"]):
        samples = np.ascontiguousarray(signal, dtype=np.float32)
        streams.append(
            Stream(
                source=f"{path.name}#{index}",
                path=None,
                subject=str(int(data["subject"][index])),
                session=SIDES[int(data["side"][index])],
                device="smartwatch on the wrist (seglearn watch_dataset)",
                rate_hz=RATE_HZ,
                channels=CHANNELS,
                units=UNITS,
                chunks=partial(_chunk, samples),
                label=str(names[int(data["y"][index])]),
                about={"side": SIDES[int(data["side"][index])], "position": "wrist"},
            )
        )
    return Opened(tuple(streams))


def _chunk(samples: npt.NDArray[np.float32]) -> Iterator[Chunk]:
    yield Chunk(samples)
