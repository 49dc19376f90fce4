"""Small recordings and files that several tests need."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from topokd_edge.data.recording import Gap, LabelInterval, Recording
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


def window_set(subjects: list[str], labels: list[int], class_names: tuple[str, ...]) -> WindowSet:
    """One window of 10 samples per entry, each from its own recording."""
    n = len(subjects)
    return WindowSet(
        x=np.random.default_rng(0).normal(size=(n, 2, 10)).astype(np.float32),
        y=np.array(labels, dtype=np.int64),
        subject=np.array(subjects, dtype=np.str_),
        session=np.full(n, "1"),
        recording=np.arange(n, dtype=np.int64),
        start=np.zeros(n, dtype=np.int64),
        rate_hz=10.0,
        channels=("c0", "c1"),
        units=("1", "1"),
        class_names=class_names,
        made={},
    )


def shared_data(name: str) -> Path:
    """A file of the shared real data; the test is skipped where it is absent."""
    default = Path(__file__).parents[2] / "shared" / "data"
    path = Path(os.environ.get("TOPOKD_SHARED_DATA", default)) / name
    if not path.exists():
        pytest.skip(f"shared data {name} is not here")
    return path
