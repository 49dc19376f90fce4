"""The neutral `.npz` form: integer counts with scale and offset, and a table of labelled recordings."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from topokd_edge.arrays import forget_pages, map_npy
from topokd_edge.data.recording import UNITS, UNKNOWN_SUBJECT
from topokd_edge.data.stream import CHUNK_SAMPLES, Chunk, Opened, ReadOptions, Stream
from topokd_edge.data.units import spelled
from topokd_edge.errors import BadInputError, UsageError

REQUIRED = (
    "counts",
    "scale",
    "offset",
    "fs",
    "channels",
    "units",
    "recordings",
    "recording_columns",
    "class_names",
)


def open_streams(path: Path | None, _: ReadOptions) -> Opened:
    """Open every recording of a neutral `.npz` file, unpacked into the folder `path`.

    The arrays are `counts` (channels, samples), `scale` and `offset` (channels,) with physical value =
    counts * scale + offset, `fs` in Hz, `channels`, `units`, `recordings` (one row per recording, columns
    named in `recording_columns`: at least `class`, `start`, `stop`, half-open; `subject` if known) and
    `class_names`. With `segment_samples` no window crosses a multiple of it inside a recording.

    Raises
    ------
    UsageError
        Without a path.
    BadInputError
        With every problem found, when the file is missing, damaged or inconsistent.
    """
    if path is None:
        raise UsageError("the npz format needs a file: topokd-edge data import npz FILE.npz --out W")
    arrays = _arrays(path)
    problems = _shape_problems(arrays) or _content_problems(arrays)
    if problems:
        raise BadInputError(
            f"{path.name}: not a consistent recording file ({len(problems)} problem(s))",
            problems=problems,
            hint="correct the file; what each array means: docs/data.md, section The .npz form",
        )
    return Opened(tuple(_streams(path, arrays)))


def about(path: Path | None) -> tuple[str, str]:
    """Return (credit, licence) as the file states them, "unknown" where it does not."""
    arrays = {} if path is None else _arrays(path)
    credit, licence = (str(arrays[key]) if key in arrays else "unknown" for key in ("credit", "licence"))
    return credit, licence


def _arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Map every array of the unpacked file."""
    if not path.is_dir():
        raise BadInputError(f"{path}: expected a file that ends in .npz, or the folder it was unpacked into")
    hint = "copy or download the file again"
    return {item.stem: map_npy(item, hint=hint) for item in sorted(path.glob("*.npy"))}


def _shape_problems(arrays: dict[str, npt.NDArray[Any]]) -> list[str]:
    """Say what is missing or has the wrong shape or kind."""
    missing = [f"{key}: missing" for key in REQUIRED if key not in arrays]
    if missing:
        return missing
    counts, table = arrays["counts"], arrays["recordings"]
    if counts.ndim != 2 or counts.dtype.kind not in "iuf" or 0 in counts.shape:
        return [
            f"counts: {counts.dtype} of shape {counts.shape}, expected numbers of shape (channels, samples)"
        ]
    expected = {
        "scale": (counts.shape[0],),
        "offset": (counts.shape[0],),
        "channels": (counts.shape[0],),
        "units": (counts.shape[0],),
        "fs": (),
    }
    problems = [
        f"{key}: shape {arrays[key].shape}, expected {shape}"
        for key, shape in expected.items()
        if arrays[key].shape != shape
    ]
    kinds = {"scale": "iuf", "offset": "iuf", "fs": "iuf", "recordings": "iu", "segment_samples": "iu"}
    texts = dict.fromkeys(("channels", "units", "recording_columns", "class_names"), "U")
    for key, kind in {**kinds, **texts}.items():
        if key in arrays and arrays[key].dtype.kind not in kind:
            problems.append(
                f"{key}: type {arrays[key].dtype}, expected {'text' if kind == 'U' else 'numbers'}"
            )
    columns = arrays["recording_columns"]
    if table.ndim != 2 or columns.ndim != 1 or table.shape[1] != len(columns) or len(table) == 0:
        problems.append(
            f"recordings: shape {table.shape}, expected (recordings, {columns.size} recording_columns)"
        )
    absent = [name for name in ("class", "start", "stop") if name not in columns.ravel().tolist()]
    problems += [f"recording_columns: no column {name!r}" for name in absent]
    if arrays["class_names"].ndim != 1 or arrays["class_names"].size == 0:
        problems.append(f"class_names: shape {arrays['class_names'].shape}, expected (classes,)")
    if "segment_samples" in arrays and (
        arrays["segment_samples"].shape != () or arrays["segment_samples"] < 1
    ):
        problems.append("segment_samples: expected one positive number")
    return problems


def _content_problems(arrays: dict[str, npt.NDArray[Any]]) -> list[str]:
    """Say which values are out of range."""
    problems = []
    rate = float(arrays["fs"])
    if not (np.isfinite(rate) and rate > 0):
        problems.append(f"fs: {rate}, expected a positive rate in Hz")
    channels = arrays["channels"].tolist()
    for index, name in enumerate(channels):
        for key in ("scale", "offset"):
            value = float(arrays[key][index])
            if not np.isfinite(value) or (key == "scale" and value == 0.0):
                problems.append(f"{key} of channel {name!r}: {value}, expected a finite number, scale not 0")
        unit = str(arrays["units"][index])
        if spelled(unit) is None:
            known = ", ".join(UNITS)
            problems.append(f"units of channel {name!r}: {unit!r}, expected one of {known}")
    class_names = arrays["class_names"].tolist()
    for key, names in (("channels", channels), ("class_names", class_names)):
        if len(set(names)) != len(names) or "" in names:
            problems.append(f"{key}: names must differ and not be empty, got {names}")
    rows = _rows(arrays)
    samples = arrays["counts"].shape[1]
    for index, row in enumerate(rows):
        if not 0 <= row["class"] < len(class_names):
            problems.append(
                f"recordings row {index}: class {row['class']}, expected 0 to {len(class_names) - 1}"
            )
        if not 0 <= row["start"] < row["stop"] <= samples:
            problems.append(
                f"recordings row {index}: samples {row['start']} to {row['stop']}, "
                f"expected 0 <= start < stop <= {samples}"
            )
    used = {row["class"] for row in rows}
    problems += [
        f"class_names: no recording has class {index} ({name!r}); take the name out or add its recordings"
        for index, name in enumerate(class_names)
        if index not in used
    ]
    return problems


def _rows(arrays: dict[str, npt.NDArray[Any]]) -> list[dict[str, int]]:
    columns = arrays["recording_columns"].tolist()
    return [dict(zip(columns, row, strict=True)) for row in arrays["recordings"].tolist()]


def _streams(path: Path, arrays: dict[str, npt.NDArray[Any]]) -> Iterator[Stream]:
    known = [spelled(unit) or (unit, 1.0) for unit in arrays["units"].tolist()]
    factor = np.array([factor for _, factor in known])
    scale, offset = arrays["scale"] * factor, arrays["offset"] * factor
    segment = int(arrays["segment_samples"]) if "segment_samples" in arrays else None
    class_names = arrays["class_names"].tolist()
    for index, row in enumerate(_rows(arrays)):
        others = [name for name in row if name not in ("subject", "class", "start", "stop")]
        yield Stream(
            source=f"{path.name}#{index}",
            path=path,
            subject=str(row.get("subject", UNKNOWN_SUBJECT)),
            session=",".join(f"{name}-{row[name]}" for name in others) or "1",
            device=str(arrays.get("device", path.stem)),
            rate_hz=float(arrays["fs"]),
            channels=tuple(arrays["channels"].tolist()),
            units=tuple(unit for unit, _ in known),
            chunks=partial(_chunks, path, (row["start"], row["stop"]), scale, offset, segment),
            label=class_names[row["class"]],
        )


def _chunks(
    path: Path,
    span: tuple[int, int],
    scale: npt.NDArray[np.float64],
    offset: npt.NDArray[np.float64],
    segment: int | None,
) -> Iterator[Chunk]:
    counts = map_npy(path / "counts.npy", hint="import it again")
    for start in range(*span, CHUNK_SAMPLES):
        stop = min(start + CHUNK_SAMPLES, span[1])
        # A float count of inf or NaN, or a huge scale, is named later by the check of the samples.
        with np.errstate(over="ignore", invalid="ignore"):
            physical = (counts[:, start:stop].T * scale + offset).astype(np.float32)
        done = start - span[0]
        at = () if segment is None else range(-(-max(done, 1) // segment) * segment, stop - span[0], segment)
        yield Chunk(physical, borders=tuple(border - done for border in at))
        forget_pages(counts)
