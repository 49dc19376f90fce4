"""Small recordings and files that several tests need."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest

from topokd_edge.data.archive import unpack
from topokd_edge.data.importers import importer
from topokd_edge.data.options import import_options
from topokd_edge.data.prepare import import_windows
from topokd_edge.data.recording import Gap, LabelInterval, Recording
from topokd_edge.data.recordingset import RecordingSet
from topokd_edge.data.spool import spool
from topokd_edge.data.stream import Chunk, Opened, ReadOptions, Stream
from topokd_edge.data.windowset import WindowSet


def recording(
    subject: str = "1",
    samples: int = 200,
    labels: tuple[tuple[int, int, str], ...] | None = None,
    gaps: tuple[tuple[int, float], ...] = (),
    rate_hz: float = 25.0,
    source: str | None = None,
) -> Recording:
    """A three-axis accelerometer at about 1 g whose first channel counts its samples."""
    signal = np.random.default_rng(samples).normal(0, 0.1, (3, samples)).astype(np.float32)
    signal[0] = np.arange(samples) / 1000
    signal[2] += 1
    return Recording(
        subject=subject,
        session="1",
        device="test",
        rate_hz=rate_hz,
        channels=("acc_x", "acc_y", "acc_z"),
        units=("g", "g", "g"),
        samples=signal,
        labels=tuple(LabelInterval(*item) for item in labels or ((0, samples, "a"),)),
        gaps=tuple(Gap(*item) for item in gaps),
        source=source or f"memory#{subject}",
    )


def npz_arrays(**changes: Any) -> dict[str, Any]:
    """A valid neutral file: 4 subjects, each 100 samples of class a and 100 of b, at 25 Hz."""
    generator = np.random.default_rng(0)
    counts = generator.integers(-50, 50, (3, 800)).astype(np.int16)
    counts[2] += 1000
    rows = [[s + 1, c, 200 * s + 100 * c, 200 * s + 100 * (c + 1)] for s in range(4) for c in (0, 1)]
    arrays: dict[str, Any] = {
        "counts": counts,
        "scale": np.full(3, 1e-3),
        "offset": np.zeros(3),
        "fs": np.float64(25.0),
        "channels": np.array(["acc_x", "acc_y", "acc_z"]),
        "units": np.array(["g", "g", "g"]),
        "recordings": np.array(rows, dtype=np.int32),
        "recording_columns": np.array(["subject", "class", "start", "stop"]),
        "class_names": np.array(["a", "b"]),
    }
    arrays.update(changes)
    return {key: value for key, value in arrays.items() if value is not None}


def write_npz(path: Path, **changes: Any) -> Path:
    np.savez(path, **npz_arrays(**changes))
    return path


def windows_of(
    x: np.ndarray,
    y: np.ndarray,
    subject: np.ndarray | list[str],
    class_names: tuple[str, ...],
    *,
    rate_hz: float = 50.0,
    channels: tuple[str, ...] | None = None,
    units: tuple[str, ...] | None = None,
    made: dict[str, Any] | None = None,
) -> WindowSet:
    """The given windows (windows, channels, length), each a recording of its own."""
    channels = channels or tuple(f"c{index}" for index in range(x.shape[1]))
    items = [
        replace(
            recording(str(who), rate_hz=rate_hz, source=f"memory#{number}"),
            samples=np.asarray(window, dtype=np.float32),
            channels=channels,
            units=units or ("1",) * x.shape[1],
            labels=(LabelInterval(0, x.shape[2], class_names[label]),),
        )
        for number, (window, who, label) in enumerate(zip(x, subject, y, strict=True))
    ]
    return WindowSet(
        recordings=RecordingSet.of(items),
        recording=np.arange(len(x), dtype=np.int64),
        start=np.zeros(len(x), dtype=np.int64),
        length=x.shape[2],
        y=np.asarray(y, dtype=np.int64),
        class_names=class_names,
        made=made or {},
    )


def window_set(subjects: list[str], labels: list[int], class_names: tuple[str, ...]) -> WindowSet:
    """One window of 10 samples per entry, each from its own recording."""
    x = np.random.default_rng(0).normal(size=(len(subjects), 2, 10)).astype(np.float32)
    return windows_of(x, np.array(labels), subjects, class_names, rate_hz=10.0)


def streams(*recordings: Recording) -> Opened:
    """The recordings as an importer would give them."""
    return Opened(
        tuple(
            Stream(
                source=item.source,
                path=None,
                channels=item.channels,
                units=item.units,
                rate_hz=item.rate_hz,
                chunks=partial(_chunks, item),
                subject=item.subject,
                session=item.session,
            )
            for item in recordings
        )
    )


def _chunks(item: Recording) -> Iterator[Chunk]:
    names = np.full(item.samples.shape[1], "", dtype="<U16")
    for label in item.labels:
        names[label.start : label.stop] = label.label
    borders = tuple(gap.after_sample + 1 for gap in item.gaps)
    yield Chunk(np.ascontiguousarray(item.samples.T), labels=names, borders=borders)


def read_all(opened: Opened) -> list[Recording]:
    """Every stream in memory: its samples as they are in the file, its labels, its borders as gaps."""
    recordings = []
    for stream in opened.streams:
        with TemporaryDirectory() as folder:
            spooled = spool(stream, stream.channels, Path(folder))
            recordings.append(
                replace(
                    recording(stream.subject, source=stream.source, rate_hz=stream.rate_hz or 1.0),
                    session=stream.session,
                    device=stream.device,
                    channels=stream.channels,
                    units=stream.units,
                    samples=np.array(spooled.samples).T,
                    labels=spooled.labels,
                    gaps=tuple(Gap(border - 1, 0.0) for border in spooled.borders),
                )
            )
    return recordings


def read_path(format_name: str, path: Path | None) -> list[Recording]:
    """Everything a format reads from a path, archives unpacked, in memory and uncleaned."""
    chosen = importer(format_name)
    with TemporaryDirectory() as folder:
        if path is not None and path.is_file() and path.suffix in chosen.archives:
            path = unpack(path, Path(folder) / path.name)
        opened = chosen.open(path, ReadOptions())
        assert opened.refused == ()
        return read_all(opened)


def import_into(out: Path, format_name: str, path: Path | None, **flags: Any) -> WindowSet:
    """Import with the options of these flags."""
    return import_windows(format_name, path, import_options(None, flags), out=out)


def shared_data(name: str) -> Path:
    """A file of the shared real data; the test is skipped where it is absent."""
    default = Path(__file__).parents[2] / "shared" / "data"
    path = Path(os.environ.get("TOPOKD_SHARED_DATA", default)) / name
    if not path.exists():
        pytest.skip(f"shared data {name} is not here")
    return path
