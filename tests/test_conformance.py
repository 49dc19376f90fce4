"""What holds of every format: each reads a small file of known content, and refuses what is no such file."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from made_files import FORMATS, RATE_HZ, Made, label_file, names_of

from topokd_edge.data.archive import unpack
from topokd_edge.data.check import acceleration_norms_g
from topokd_edge.data.importers import IMPORTERS, shoulder_watch
from topokd_edge.data.label_file import read_label_file
from topokd_edge.data.labels import to_samples
from topokd_edge.data.options import ImportOptions, import_options
from topokd_edge.data.prepare import import_windows
from topokd_edge.data.recording import UNITS, Gap
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
SLOW_START = ("axivity", "actigraph")
"""Formats whose every reading starts a process."""
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
    found = Whole(first_stream(name, made, tmp_path / "x")).time
    assert (found is None) == (made.time is None)
    if found is not None and made.time is not None:
        np.testing.assert_allclose(found, made.time, atol=2e-4)
        assert np.all(np.diff(found) > 0)
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
            if name == "dsads":  # its other files can be read
                windows = imported(name, made.path, made, tmp_path / f"{kind}-{file.stem}")
                assert [item["file"] for item in windows.made["refused"]] == [str(file)] * (kind == "empty")
            else:
                error = refusal(name, made.path, made, tmp_path / "out")
                assert isinstance(error, BadInputError) and file.stem in str(error), error
            if kind == "a folder":
                file.rmdir()
            else:
                file.unlink()
            file.write_bytes(content)


@every_format
def test_a_file_that_may_not_be_read(name: str, tmp_path: Path) -> None:
    made = make(name, tmp_path / "made")
    for file in made.files:
        file.chmod(0)
        if os.access(file, os.R_OK):
            pytest.skip("root may read everything")
        if name == "dsads":
            windows = imported(name, made.path, made, tmp_path / file.stem)
            assert [item["file"] for item in windows.made["refused"]] == [str(file)]
        else:
            error = refusal(name, made.path, made, tmp_path / "out")
            assert isinstance(error, BadInputError) and file.stem in str(error), error
        file.chmod(0o644)


BESIDE = {
    "pamap2": "subject102.dat",
    "pamap2-published": "subject102.dat",
    "dsads": "../../a06/p3/s01.txt",
    "usc-had": "a6t3.mat",
    "wfdb": "other.hea",
}
"""Where a second file may lie; else it is called `other`."""


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ALONE])
def test_a_bad_file_in_a_folder_does_not_stop_the_good_one(name: str, tmp_path: Path) -> None:
    made = make(name, tmp_path / "made")
    good = made.path if name == "wfdb" else made.files[0]
    bad = good.parent / BESIDE.get(name, f"other{good.suffix}")
    bad.parent.mkdir(parents=True, exist_ok=True)
    bad.write_bytes(b"\0\1nothing\n" * 300)
    windows = imported(name, tmp_path / "made", made, tmp_path / "w")
    assert windows.recordings[0].samples.shape[1] == len(made.samples)
    (refused,) = windows.made["refused"]
    assert bad.name in refused["file"] and bad.name in refused["reason"]
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".csv") == ["made", "w"]


def mutants(content: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Copies with bytes changed, cut off, with a block doubled, two blocks swapped, or one zeroed."""
    generator = np.random.default_rng(seed)
    n = len(content)
    for number in range(count):
        changed = bytearray(content)
        a, b = sorted(generator.integers(0, n, 2).tolist())
        size = int(generator.integers(1, max(2, min(n // 4, 1 << int(generator.integers(1, 13))))))
        if number % 5 == 0:
            for at in generator.integers(0, n, int(generator.integers(1, 9))):
                changed[at] ^= 1 << int(generator.integers(8))
        elif number % 5 == 1:
            del changed[b:]
        elif number % 5 == 2:
            changed[a:a] = content[b : b + size]
        elif number % 5 == 3:
            changed[a : a + size], changed[b : b + size] = content[b : b + size], content[a : a + size]
        else:
            changed[a : a + size] = bytes(len(changed[a : a + size]))
        yield bytes(changed)


def survive(name: str, path: Path, made: Made, scratch: Path) -> bool:
    """Read what may be damaged; a refusal names it, and what is read is as it has to be."""
    before = time.monotonic()
    try:
        found = opened(name, path, made, scratch)
        for item in found.refused:
            assert made.path.stem in item.reason or made.files[0].stem in item.reason
        for stream in found.streams:
            whole = Whole(stream)
            assert whole.time is None or np.isfinite(whole.time).all()
    except TopokdError as error:
        assert made.path.stem in str(error) or made.files[0].stem in str(error), error
        return False
    finally:
        assert time.monotonic() - before < 20
    return bool(found.streams) and not found.refused


def fuzz(name: str, folder: Path, count: int) -> tuple[int, int]:
    """Return how many damaged files were read and how many refused."""
    made = make(name, folder)
    files, path = made.files[:4], made.path
    if name == "npz":  # its checksums hide what is behind them, so the unpacked arrays are damaged as well
        path = unpack(made.path, folder / "x" / made.path.name)
        files = tuple(sorted(path.glob("*.npy")))
    done = 0
    for index, file in enumerate(files):
        content = file.read_bytes()
        for number, changed in enumerate(mutants(content, count // len(files) + 1, index)):
            file.write_bytes(changed)
            done += survive(name, path, made, folder / f"scratch-{index}-{number}")
        file.write_bytes(content)
    if name == "npz":
        content = made.path.read_bytes()
        for number, changed in enumerate(mutants(content, count // 4, 99)):
            made.path.write_bytes(changed)
            survive(name, made.path, made, folder / f"scratch-{number}")
    return done, count - done


@every_format
def test_damaged_files(name: str, tmp_path: Path) -> None:
    fuzz(name, tmp_path, 4 if name in SLOW_START else 30)


@pytest.mark.slow
@every_format
def test_many_damaged_files(name: str, tmp_path: Path) -> None:
    done, refused = fuzz(name, tmp_path, 500 if name in SLOW_START else 2000)  # they have more in their tests
    print(name, "read", done, "refused", refused)  # noqa: T201
    assert refused > 20 and (done > 0 or name in ("shoulder-watch", "actigraph"))  # checksums over all


def fuzz_labels(path: Path, count: int) -> tuple[int, int]:
    rows = [f"{5 * i}.5,{5 * i + 4},walk {i % 3},S{i % 2},made.bin" for i in range(40)]
    dates = [f"2024-05-01T12:{i:02}:00+02:00,2024-05-01T12:{i:02}:30+02:00,sit" for i in range(40)]
    texts = ("start,end,label,subject,file\n" + "\n".join(rows), "start,end,label\n" + "\n".join(dates))
    done = 0
    for seed, text in enumerate(texts):
        for changed in mutants(text.encode(), count // 2, seed):
            path.write_bytes(changed)
            try:
                file = read_label_file(path)
                for start in (None, "2024-05-01T12:00:00+02:00"):
                    timed = file.intervals_for("S1", Path("made.bin"), start)
                    placed = to_samples(timed, rate_hz=RATE_HZ, samples=20_000, gaps=[Gap(999, 3.0)])
                    edges = [0, *(edge for i in placed.intervals for edge in (i.start, i.stop)), 20_000]
                    assert edges == sorted(edges)
                done += 1
            except BadInputError as error:
                assert str(path) in str(error)
    return done, count - done


def test_damaged_label_files(tmp_path: Path) -> None:
    done, refused = fuzz_labels(tmp_path / "labels.csv", 100)
    assert done > 5 and refused > 20


@pytest.mark.slow
def test_many_damaged_label_files(tmp_path: Path) -> None:
    done, refused = fuzz_labels(tmp_path / "labels.csv", 10_000)
    print("labels read", done, "refused", refused)  # noqa: T201
    assert done > 500 and refused > 2000
