"""What holds of every format: each reads a small file of known content, and refuses what is no such file."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from made_files import FORMATS, Made, label_file, names_of
from made_recordings import shared_data

from topokd_edge.data.archive import unpack
from topokd_edge.data.check import acceleration_norms_g
from topokd_edge.data.importers import IMPORTERS, shoulder_watch
from topokd_edge.data.label_file import read_label_file
from topokd_edge.data.options import ImportOptions, import_options
from topokd_edge.data.prepare import import_windows
from topokd_edge.data.recording import UNITS
from topokd_edge.data.stream import Opened, Stream
from topokd_edge.data.windowset import WindowSet
from topokd_edge.errors import BadInputError, TopokdError, UsageError

pytest.importorskip("actfast")
pytest.importorskip("pyarrow")
pytest.importorskip("scipy")
pytest.importorskip("wfdb")

NAMES = list(FORMATS)
ALONE = ("npz", "shoulder-watch")
"""Formats of one file, which take no folder."""
every_format = pytest.mark.parametrize("name", NAMES)


def make(name: str, folder: Path, size: int = 1) -> Made:
    if name == "shoulder-watch" and not shoulder_installed():
        pytest.skip("seglearn is not installed")
    folder.mkdir(parents=True, exist_ok=True)
    return FORMATS[name].make(folder, size)


def shoulder_installed() -> bool:
    try:
        return shoulder_watch.installed_file().is_file()
    except TopokdError:
        return False


def options_of(made: Made, **flags: Any) -> ImportOptions:
    return import_options(None, {"seconds": 1.0, **made.flags, **flags})


def opened(name: str, path: Path, made: Made, scratch: Path) -> Opened:
    """What an import opens, archives unpacked."""
    chosen = IMPORTERS[name]
    if path.is_file() and path.suffix in chosen.archives:
        path = unpack(path, scratch / path.name)
    return chosen.open(path, options_of(made).read)


def first_stream(name: str, made: Made, scratch: Path) -> Stream:
    found = opened(name, made.path, made, scratch)
    assert found.refused == ()
    return found.streams[0]


class Whole:
    """All chunks of a stream, joined; each chunk is held against what a stream has to be."""

    def __init__(self, stream: Stream) -> None:
        chunks = list(stream.chunks())
        for chunk in chunks:
            n = len(chunk.samples)
            assert chunk.samples.dtype == np.float32 and chunk.samples.shape == (n, len(stream.channels))
            assert not np.isinf(chunk.samples).any()
            assert chunk.time is None or (chunk.time.dtype == np.float64 and chunk.time.shape == (n,))
            assert chunk.labels is None or chunk.labels.shape == (n,)
            assert list(chunk.borders) == sorted(set(chunk.borders)) and all(
                0 <= b < n for b in chunk.borders
            )
        empty = np.empty((0, len(stream.channels)), np.float32)
        self.samples = np.concatenate([empty, *(chunk.samples for chunk in chunks)])
        self.sizes = [len(chunk.samples) for chunk in chunks]
        self.time = _joined([chunk.time for chunk in chunks], len(self.samples))
        self.labels = _joined([chunk.labels for chunk in chunks], len(self.samples))
        first = np.cumsum([0, *self.sizes])
        self.borders = [int(first[i]) + b for i, chunk in enumerate(chunks) for b in chunk.borders]


def _joined(arrays: list[Any], n: int) -> npt.NDArray[Any] | None:
    given = [array for array in arrays if array is not None]
    assert len(given) in (0, len(arrays))
    return np.concatenate(given) if n and given else None


def same(one: Whole, other: Whole) -> None:
    np.testing.assert_array_equal(one.samples, other.samples)
    assert [b for b in one.borders if b] == [b for b in other.borders if b]
    for mine, theirs in ((one.time, other.time), (one.labels, other.labels)):
        assert (mine is None) == (theirs is None)
        if mine is not None and theirs is not None:
            np.testing.assert_array_equal(mine, theirs)


def imported(name: str, path: Path, made: Made, out: Path, **flags: Any) -> WindowSet:
    if made.label_rows:
        rows = out.with_name(f"{out.name}-labels.csv")
        rows.write_text(label_file(made))
        flags = {"labels": str(rows), **flags}
    return import_windows(name, path, options_of(made, **flags), out=out)


def refusal(name: str, path: Path, made: Made, folder: Path) -> TopokdError:
    """Why an import refuses a path; it leaves nothing behind."""
    folder.mkdir(exist_ok=True)
    with pytest.raises(TopokdError) as caught:
        import_windows(name, path, options_of(made), out=folder / "w")
    assert list(folder.iterdir()) == []
    return caught.value


def test_every_format_is_in_this_suite() -> None:
    assert set(FORMATS) == set(IMPORTERS)


@every_format
def test_values_and_the_order_of_channels(name: str, tmp_path: Path) -> None:
    made = make(name, tmp_path)
    stream = first_stream(name, made, tmp_path / "x")
    assert (stream.channels, stream.units) == (made.channels, made.units)
    assert set(stream.units) <= set(UNITS)
    found = Whole(stream).samples
    assert found.shape == made.samples.shape
    np.testing.assert_allclose(found, made.samples, rtol=1e-6, atol=made.atol)


@every_format
def test_an_accelerometer_at_rest_shows_one_g(name: str, tmp_path: Path) -> None:
    made = make(name, tmp_path)
    norms = acceleration_norms_g(imported(name, made.path, made, tmp_path / "w").recordings[0])
    assert bool(norms) == (made.norm_g is not None)
    if made.norm_g is not None:
        assert all(made.norm_g[0] < norm < made.norm_g[1] for norm in norms.values()), norms


@every_format
def test_the_rate_is_the_one_stated_and_not_rounded(name: str, tmp_path: Path) -> None:
    made = make(name, tmp_path)
    rate = first_stream(name, made, tmp_path / "x").rate_hz
    assert type(rate) is float and rate == made.rate_hz
    assert imported(name, made.path, made, tmp_path / "w").rate_hz == pytest.approx(made.rate_hz, rel=1e-9)


@every_format
def test_time_ascends_and_a_gap_stays_a_gap(name: str, tmp_path: Path) -> None:
    made = make(name, tmp_path)
    time = Whole(first_stream(name, made, tmp_path / "x")).time
    assert (time is None) == (made.time is None)
    if time is not None and made.time is not None:
        np.testing.assert_allclose(time, made.time, atol=2e-4)
        assert np.all(np.diff(time) > 0)
    recording = imported(name, made.path, made, tmp_path / "w").recordings[0]
    assert recording.samples.shape[1] == len(made.samples) and recording.filled == ()
    assert [gap.after_sample for gap in recording.gaps] == [after for after, _ in made.gaps]
    for gap, (_, seconds) in zip(recording.gaps, made.gaps, strict=True):
        assert gap.seconds == pytest.approx(seconds, abs=3e-3)


@every_format
def test_labels_lie_on_their_samples(name: str, tmp_path: Path) -> None:
    made = make(name, tmp_path)
    stream = first_stream(name, made, tmp_path / "x")
    found = Whole(stream).labels
    n = len(made.samples)
    if made.label_rows:
        assert found is None and stream.label is None
    else:
        labels = [stream.label] * n if found is None else found.tolist()
        assert labels == names_of(made.labels, n)
    recording = imported(name, made.path, made, tmp_path / "w").recordings[0]
    assert [(item.start, item.stop, item.label) for item in recording.labels] == list(made.labels)


@every_format
def test_subject_session_and_start(name: str, tmp_path: Path) -> None:
    made = make(name, tmp_path)
    stream = first_stream(name, made, tmp_path / "x")
    assert (stream.subject, stream.session, stream.start) == (made.subject, made.session, made.start)
    recording = imported(name, made.path, made, tmp_path / "w").recordings[0]
    assert (recording.subject, recording.session, recording.start) == (made.subject, made.session, made.start)
    assert made.files[0].name in recording.source or made.path.name in recording.source


READ = """
import hashlib, json, pickle, sys
for name, stream in pickle.load(sys.stdin.buffer):
    digest = hashlib.sha256()
    for chunk in stream.chunks():
        for array in (chunk.samples, chunk.time, chunk.labels):
            digest.update(b"" if array is None else array.tobytes())
    print(json.dumps([name, digest.hexdigest()]))
"""


def test_another_process_reads_the_same_and_so_does_a_second_reading(tmp_path: Path) -> None:
    import hashlib

    streams, mine = [], []
    for name in NAMES:
        if name == "shoulder-watch" and not shoulder_installed():
            continue
        stream = first_stream(name, make(name, tmp_path / name), tmp_path / f"{name}-x")
        same(Whole(stream), Whole(stream))
        digest = hashlib.sha256()
        for chunk in stream.chunks():
            for array in (chunk.samples, chunk.time, chunk.labels):
                digest.update(b"" if array is None else array.tobytes())
        streams.append((name, stream))
        mine.append([name, digest.hexdigest()])
    done = subprocess.run(
        [sys.executable, "-c", READ], input=pickle.dumps(streams), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    assert [json.loads(line) for line in done.stdout.splitlines()] == mine


@pytest.mark.parametrize("name", [name for name in NAMES if FORMATS[name].small_block])
def test_chunks_of_any_size_give_the_same(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make(name, tmp_path)
    before = Whole(first_stream(name, made, tmp_path / "x"))
    assert FORMATS[name].small_block is not None
    monkeypatch.setattr(*FORMATS[name].small_block)
    after = Whole(first_stream(name, made, tmp_path / "y"))
    assert len(after.sizes) > max(2, len(before.sizes))
    same(before, after)


def peak_bytes(name: str, made: Made, scratch: Path) -> int:
    """Most memory that opening and reading a path takes, pyarrow's own included."""
    import pyarrow as pa

    pool = pa.proxy_memory_pool(pa.default_memory_pool())
    usual = pa.default_memory_pool()
    found = opened(name, made.path, made, scratch)  # once before, so that caches do not count
    pa.set_memory_pool(pool)
    tracemalloc.start()
    try:
        path = scratch / made.path.name if made.path.suffix == ".npz" else made.path
        found = IMPORTERS[name].open(path, options_of(made).read)
        for stream in found.streams:
            for _ in stream.chunks():
                pass
        return tracemalloc.get_traced_memory()[1] + (pool.max_memory() or 0)
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(usual)


@pytest.mark.parametrize("name", [name for name in NAMES if not FORMATS[name].grows])
def test_memory_is_bounded_by_the_chunk(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if FORMATS[name].small_block is not None:
        monkeypatch.setattr(*FORMATS[name].small_block)
    peak_bytes(name, make(name, tmp_path / "first"), tmp_path / "0")
    small = peak_bytes(name, make(name, tmp_path / "small", 4), tmp_path / "1")
    large = peak_bytes(name, make(name, tmp_path / "large", 16), tmp_path / "2")
    assert large < 1.3 * small, (small, large)


@every_format
def test_a_truncated_file_is_refused_or_read_up_to_there(name: str, tmp_path: Path) -> None:
    """A text that ends at the end of a line cannot be told from one that was meant to end there."""
    made = make(name, tmp_path)
    file = made.files[0]
    content = file.read_bytes()
    truth = Whole(first_stream(name, made, tmp_path / "x")).samples
    for number, share in enumerate((0.02, 0.3, 0.501, 0.75, 0.999, 1.0)):
        file.write_bytes(content[: min(int(share * len(content)), len(content) - 2)])
        try:
            found = opened(name, made.path, made, tmp_path / f"cut{number}")
            if found.refused:
                raise BadInputError(found.refused[0].reason)
            samples = Whole(found.streams[0]).samples
        except BadInputError as error:
            assert file.stem in str(error)
        else:
            assert len(samples) <= len(truth)
            np.testing.assert_array_equal(samples, truth[: len(samples)])


AGREE = {("pamap2", "pamap2-published"), ("pamap2-published", "pamap2")}
"""Formats that read the same files."""


@every_format
def test_files_of_other_formats_are_refused(name: str, tmp_path: Path) -> None:
    made = make(name, tmp_path / name)
    for other in NAMES:
        if other == name or (other == "shoulder-watch" and not shoulder_installed()):
            continue
        content = make(other, tmp_path / other).files[0].read_bytes()
        for file in made.files[: 1 if name == "dsads" else None]:
            right = file.read_bytes()
            file.write_bytes(content)
            if (name, other) in AGREE:
                assert len(imported(name, made.path, made, tmp_path / "w"))
            elif name == "dsads":
                windows = imported(name, made.path, made, tmp_path / f"{other}-w")
                assert [item["file"] for item in windows.made["refused"]] == [str(file)]
            else:
                error = refusal(name, made.path, made, tmp_path / "out")
                assert isinstance(error, BadInputError | UsageError)
                assert file.stem in str(error), error
            file.write_bytes(right)


@every_format
def test_nothing_that_can_be_read(name: str, tmp_path: Path) -> None:
    made = make(name, tmp_path / "made")
    (tmp_path / "folder").mkdir()
    loop = made.path.with_name(f"loop{made.path.suffix}")
    loop.symlink_to(loop)
    absent = made.path.with_name(f"absent{made.path.suffix}")
    for path in (tmp_path / "folder", absent, loop):
        error = refusal(name, path, made, tmp_path / "out")
        assert isinstance(error, BadInputError) and path.stem in str(error), error
    for kind in ("empty", "a folder", "a loop"):
        for file in made.files:
            content = file.read_bytes()
            file.unlink()
            if kind == "empty":
                file.touch()
            elif kind == "a folder":
                file.mkdir()
            else:
                file.symlink_to(file)
            if name == "dsads" or (file.suffix == ".atr" and kind == "empty"):
                pass
            else:
                error = refusal(name, made.path, made, tmp_path / "out")
                assert isinstance(error, BadInputError) and file.stem in str(error), error
            file.rmdir() if kind == "a folder" else file.unlink()
            file.write_bytes(content)
