"""The record that training reads: equally long windows with their class, subject and place in time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from topokd_edge.arrays import forget_pages, load_npz
from topokd_edge.data.recordingset import RecordingSet
from topokd_edge.data.view import WindowView
from topokd_edge.errors import BadInputError
from topokd_edge.files import new_folder, read_json, write_json

FORMAT = "topokd-windows/2"
_BLOCK = 4096


@dataclass(frozen=True)
class WindowSet:
    """Windows of recordings.

    Attributes
    ----------
    recordings
        What the windows are cut from.
    recording
        int64, shape (windows,): index of the recording a window lies in.
    start
        int64, shape (windows,): first sample of the window in its recording.
    length
        Samples per window.
    y
        int64, shape (windows,), index into `class_names`.
    class_names
        Sorted once; the only class vocabulary of everything downstream.
    made
        How the set was made: source, credit, licence, window seconds, overlap, what was dropped and why.
    """

    recordings: RecordingSet
    recording: npt.NDArray[np.int64]
    start: npt.NDArray[np.int64]
    length: int
    y: npt.NDArray[np.int64]
    class_names: tuple[str, ...]
    made: dict[str, Any]

    def __len__(self) -> int:
        return len(self.y)

    @cached_property
    def x(self) -> WindowView:
        """The signals: reads like a float32 array of shape (windows, channels, length)."""
        rows = self.recordings.offsets[self.recording] + self.start
        return WindowView(self.recordings.samples, rows, self.length)

    @cached_property
    def subject(self) -> npt.NDArray[np.str_]:
        """Subject of each window, shape (windows,)."""
        return np.array([item.subject for item in self.recordings], dtype=np.str_)[self.recording]

    @cached_property
    def session(self) -> npt.NDArray[np.str_]:
        """Session of each window, shape (windows,)."""
        return np.array([item.session for item in self.recordings], dtype=np.str_)[self.recording]

    @cached_property
    def filled(self) -> npt.NDArray[np.int64]:
        """Samples of each window that were interpolated over a gap, shape (windows,)."""
        count = np.zeros(len(self), dtype=np.int64)
        for index, item in enumerate(self.recordings):
            if item.filled:
                mine = self.recording == index
                first = self.start[mine]
                count[mine] = covered_between(item.filled, first, first + self.length)
        return count

    @property
    def rate_hz(self) -> float:
        """Samples per second."""
        return self.recordings[0].rate_hz

    @property
    def channels(self) -> tuple[str, ...]:
        """Channel names, in the order of `x`."""
        return self.recordings[0].channels

    @property
    def units(self) -> tuple[str, ...]:
        """Unit of each channel."""
        return self.recordings[0].units

    @cached_property
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
            digest.update(self.x[block : block + _BLOCK].data)
            forget_pages(self.recordings.samples)
        for array in (self.y, self.recording, self.start):
            digest.update(np.ascontiguousarray(array, dtype="<i8").data)
        names = [self.subject.tolist(), self.session.tolist(), self.channels, self.units, self.class_names]
        digest.update(json.dumps([self.x.shape, self.rate_hz, *names]).encode())
        return digest.hexdigest()

    def save(self, path: Path, *, overwrite: bool = False) -> None:
        """Write the set as a folder: `samples.npy`, `recordings.json`, `index.npz`, `windows.json`.

        Raises
        ------
        BadInputError
            When `path` exists and `overwrite` is false.
        """
        with new_folder(path, overwrite=overwrite) as folder:
            self.recordings.save(folder)
            self.save_index(folder)

    def save_index(self, folder: Path) -> None:
        """Write `index.npz` and `windows.json` beside the recordings saved in `folder`."""
        np.savez(folder / "index.npz", y=self.y, recording=self.recording, start=self.start)
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
        again = "make it again with: topokd-edge data import"
        meta = read_json(path / "windows.json")
        if not isinstance(meta, dict) or meta.get("format") != FORMAT:
            raise BadInputError(f"{path / 'windows.json'}: not a window set of format {FORMAT}", hint=again)
        keys = ("windows", "length", "class_names", "made")
        if missing := [key for key in keys if key not in meta]:
            raise BadInputError(f"{path / 'windows.json'}: without {', '.join(missing)}", hint=again)
        index = load_npz(path / "index.npz", hint=again)
        names = ("y", "recording", "start")
        if missing := [name for name in names if name not in index]:
            raise BadInputError(f"{path / 'index.npz'}: without {', '.join(missing)}", hint=again)
        recordings = RecordingSet.open(path)
        arrays = {name: index[name] for name in names}
        made = cls(
            recordings=recordings,
            length=int(meta["length"]),
            class_names=tuple(meta["class_names"]),
            made=meta["made"],
            **arrays,
        )
        if problem := made._misfit(int(meta["windows"])):
            raise BadInputError(f"{path}: {problem}", hint=again)
        return made

    def _misfit(self, windows: int) -> str:
        """Say which part of a set read from disk does not fit the others; "" when all do."""
        for name in ("y", "recording", "start"):
            array = getattr(self, name)
            if array.shape != (windows,) or array.dtype.kind not in "iu":
                return f"{name} has shape {array.shape}, windows.json speaks of {windows} windows"
        sizes = np.array([item.samples.shape[1] for item in self.recordings], dtype=np.int64)
        inside = (self.recording >= 0) & (self.recording < len(sizes))
        if windows and not (inside.all() and self.start.min() >= 0 and self.length > 0):
            return "a window lies in no recording"
        if np.any(self.start + self.length > sizes[self.recording]):
            return "a window goes past the end of its recording"
        if windows and not (self.y.min() >= 0 and self.y.max() < len(self.class_names)):
            return "a window has a class that is not in the vocabulary"
        return ""


def covered_between(
    intervals: Sequence[tuple[int, int]], start: npt.NDArray[np.int64], stop: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Count the samples of each half-open range `start` to `stop` that lie in the half-open `intervals`.

    The intervals are in order and do not overlap.
    """
    edges = np.array(intervals, dtype=np.int64).reshape(-1, 2)
    total = np.concatenate(([0], np.cumsum(edges[:, 1] - edges[:, 0])))

    def before(place: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        begun = np.searchsorted(edges[:, 0], place, side="right")
        past = (
            np.where(begun > 0, edges[np.maximum(begun - 1, 0), 1], 0) if len(edges) else np.zeros_like(place)
        )
        return np.asarray(total[begun] - np.maximum(past - place, 0) * (begun > 0), dtype=np.int64)

    return before(stop) - before(start)


def subject_key(subject: str) -> tuple[int, int, str]:
    """Sort key for subject names: numbers by value before other names."""
    return (0, int(subject), subject) if subject.isdecimal() else (1, 0, subject)
