"""The record that training reads: equally long windows with their class, subject and place in time."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from topokd_edge.arrays import load_npz, map_npy, write_npy
from topokd_edge.errors import BadInputError
from topokd_edge.files import new_folder, read_json, write_json

FORMAT = "topokd-windows/1"
_BLOCK = 4096


@dataclass(frozen=True)
class WindowSet:
    """Windows of recordings.

    Attributes
    ----------
    x
        float32, shape (windows, channels, length); may be memory-mapped.
    y
        int64, shape (windows,), index into `class_names`.
    subject, session
        str arrays, shape (windows,).
    recording
        int64, shape (windows,): index of the recording the window was cut from.
    start
        int64, shape (windows,): first sample of the window in its recording.
    rate_hz
        Samples per second.
    channels, units
        Per channel, in the order of `x`.
    class_names
        Sorted once; the only class vocabulary of everything downstream.
    made
        How the set was made: source, credit, licence, window seconds, overlap, what was dropped and why.
    """

    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.int64]
    subject: npt.NDArray[np.str_]
    session: npt.NDArray[np.str_]
    recording: npt.NDArray[np.int64]
    start: npt.NDArray[np.int64]
    rate_hz: float
    channels: tuple[str, ...]
    units: tuple[str, ...]
    class_names: tuple[str, ...]
    made: dict[str, Any]

    def __len__(self) -> int:
        return len(self.y)

    @property
    def length(self) -> int:
        """Samples per window."""
        return int(self.x.shape[2])

    @property
    def subjects(self) -> tuple[str, ...]:
        """Every subject once, sorted; numbers by value."""
        return tuple(sorted(set(self.subject.tolist()), key=subject_key))

    def of_subjects(self, subjects: tuple[str, ...] | list[str]) -> npt.NDArray[np.int64]:
        """Return the indices of all windows of `subjects`, ascending."""
        return np.flatnonzero(np.isin(self.subject, list(subjects))).astype(np.int64)

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 over signals, labels, subjects and vocabulary; keys everything derived from the set."""
        digest = hashlib.sha256(FORMAT.encode())
        for block in range(0, len(self), _BLOCK):
            digest.update(np.ascontiguousarray(self.x[block : block + _BLOCK], dtype="<f4").data)
        for array in (self.y, self.recording, self.start):
            digest.update(np.ascontiguousarray(array, dtype="<i8").data)
        names = [self.subject.tolist(), self.session.tolist(), self.channels, self.units, self.class_names]
        digest.update(json.dumps([self.x.shape, self.rate_hz, *names]).encode())
        return digest.hexdigest()

    def save(self, path: Path, *, overwrite: bool = False) -> None:
        """Write the set as a folder: `x.npy` (memory-mappable), `index.npz`, `windows.json`.

        Raises
        ------
        BadInputError
            When `path` exists and `overwrite` is false.
        """
        with new_folder(path, overwrite=overwrite) as folder:
            blocks = (self.x[start : start + _BLOCK] for start in range(0, len(self), _BLOCK))
            write_npy(folder / "x.npy", self.x.shape, np.float32, blocks)
            np.savez(
                folder / "index.npz",
                y=self.y,
                subject=self.subject,
                session=self.session,
                recording=self.recording,
                start=self.start,
            )
            write_json(folder / "windows.json", self.describe())

    def describe(self) -> dict[str, Any]:
        """Return everything but the arrays, as JSON-able data."""
        return {
            "format": FORMAT,
            "windows": len(self),
            "length": self.length,
            "rate_hz": self.rate_hz,
            "channels": list(self.channels),
            "units": list(self.units),
            "class_names": list(self.class_names),
            "subjects": list(self.subjects),
            "content_hash": self.content_hash,
            "made": self.made,
        }

    @classmethod
    def open(cls, path: Path) -> WindowSet:
        """Open a saved set; the signals stay on disk until they are read.

        Raises
        ------
        BadInputError
            When the folder is not a window set, or its parts do not fit together.
        """
        meta = read_json(path / "windows.json")
        if not isinstance(meta, dict) or meta.get("format") != FORMAT:
            raise BadInputError(f"{path / 'windows.json'}: not a window set of format {FORMAT}")
        again = "make it again with: topokd-edge data import"
        keys = ("windows", "length", "rate_hz", "channels", "units", "class_names", "made")
        if missing := [key for key in keys if key not in meta]:
            raise BadInputError(f"{path / 'windows.json'}: without {', '.join(missing)}", hint=again)
        x = map_npy(path / "x.npy", hint=again)
        index = load_npz(path / "index.npz", hint=again)
        names = ("y", "subject", "session", "recording", "start")
        if missing := [name for name in names if name not in index]:
            raise BadInputError(f"{path / 'index.npz'}: without {', '.join(missing)}", hint=again)
        arrays = {name: index[name] for name in names}
        expected = (meta["windows"], len(meta["channels"]), meta["length"])
        if x.shape != expected or any(len(array) != len(x) for array in arrays.values()):
            raise BadInputError(f"{path}: x.npy has shape {x.shape}, windows.json says {expected}")
        return cls(
            x=x,
            rate_hz=float(meta["rate_hz"]),
            channels=tuple(meta["channels"]),
            units=tuple(meta["units"]),
            class_names=tuple(meta["class_names"]),
            made=meta["made"],
            **arrays,
        )


def subject_key(subject: str) -> tuple[int, int, str]:
    """Sort key for subject names: numbers by value before other names."""
    return (0, int(subject), subject) if subject.isdecimal() else (1, 0, subject)
