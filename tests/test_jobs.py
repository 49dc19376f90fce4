"""Work that several processes share gives the same bits, whoever does it: images, and imports."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import joblib
import numpy as np
import pytest
from made_recordings import windows_of, write_npz
from typer.testing import CliRunner

from topokd_edge.cli import app
from topokd_edge.data.options import import_options
from topokd_edge.data.prepare import import_windows
from topokd_edge.data.windowset import WindowSet
from topokd_edge.errors import BadInputError
from topokd_edge.topology import writing
from topokd_edge.topology.image import persistence_images
from topokd_edge.topology.params import fit_params
from topokd_edge.topology.writing import write_images

WINDOWS = 7


def made(bad: int | None = None) -> WindowSet:
    """Waves of two subjects; one sample of window `bad` is no number."""
    rng = np.random.default_rng(0)
    x = np.sin(np.arange(80) / 8.0 + rng.uniform(0.0, 6.0, (WINDOWS, 2, 1)))
    x = (x + 0.2 * rng.standard_normal(x.shape)).astype(np.float32)
    x[4, 1] = 1.0  # without a pair: an empty image
    if bad is not None:
        x[bad, 0, 9] = np.nan
    subjects = [f"s{number}" for number in range(WINDOWS)]
    return windows_of(x, np.arange(WINDOWS) % 2, subjects, ("run", "walk"))


PARAMS = fit_params(made().x, size=(16, 16))
ORDER = np.array([5, 0, 4, 6, 2, 1, 3])


def written(folder: Path, jobs: int | None = None, bad: int | None = None) -> tuple[bytes, list[list[bool]]]:
    path = folder / f"{jobs}.npy"
    empty = write_images(made(bad), PARAMS, path, index=ORDER, backend="reference", jobs=jobs)
    return path.read_bytes(), empty.tolist()


@pytest.fixture(scope="module")
def serial(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, list[list[bool]]]:
    return written(tmp_path_factory.mktemp("serial"))


@contextmanager
def dask_cluster(processes: bool) -> Iterator[None]:
    """Two workers of a real scheduler on this machine."""
    from dask.distributed import Client, LocalCluster

    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(processes=processes, **options) as cluster, Client(cluster):
        yield


def test_one_process_writes_what_the_backend_draws(
    serial: tuple[bytes, list[list[bool]]], tmp_path: Path
) -> None:
    (tmp_path / "serial.npy").write_bytes(serial[0])
    images, empty = persistence_images(made().x[ORDER], PARAMS, backend="reference")
    np.testing.assert_array_equal(np.load(tmp_path / "serial.npy"), images)
    assert serial[1] == empty.tolist()
    assert empty[2, 1]
    assert empty.sum() == 1


def test_loky_writes_the_same_bits(serial: tuple[bytes, list[list[bool]]], tmp_path: Path) -> None:
    assert written(tmp_path, jobs=2) == serial


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made().save(tmp_path / "w")
    asked: list[int | None] = []
    drawn = writing._drawn

    def watched(*args):
        asked.append(args[-1])
        return drawn(*args)

    monkeypatch.setattr(writing, "_drawn", watched)

    def extract(out: str, *more: str):
        return CliRunner().invoke(
            app,
            ["topology", "extract", str(tmp_path / "w"), "--out", str(tmp_path / out), "--size=16", *more],
        )

    for out, jobs in (("one", "1"), ("two", "2")):
        done = extract(out, "--backend=reference", f"--jobs={jobs}")
        assert done.exit_code == 0, done.output
    assert asked == [1, 2]
    assert (tmp_path / "one/images.npy").read_bytes() == (tmp_path / "two/images.npy").read_bytes()
    for wrong in (["--jobs=2"], ["--backend=reference", "--jobs=0"], ["--backend=reference", "--jobs=-2"]):
        refused = extract("three", *wrong)
        assert refused.exit_code != 0
        assert not (tmp_path / "three").exists()


@pytest.mark.parametrize("processes", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_dask_writes_the_same_bits_on_its_own_workers(
    processes: bool, serial: tuple[bytes, list[list[bool]]], tmp_path: Path
) -> None:
    with dask_cluster(processes), joblib.parallel_config(backend="dask"):
        workers = joblib.Parallel()(joblib.delayed(where)() for _ in range(8))
        assert written(tmp_path) == serial
        with pytest.raises(BadInputError, match="subject s2"):
            written(tmp_path, bad=2)
    assert where() not in workers


def imported(folder: Path, path: Path, jobs: int | None) -> list[bytes]:
    out = folder / f"jobs-{jobs}"
    import_windows(
        "npz", path, import_options(None, {"seconds": 2.0, "resample_hz": 20.0}), out=out, jobs=jobs
    )
    return [(out / name).read_bytes() for name in ("samples.npy", "recordings.json", "windows.json")]


def test_imports_by_loky_are_the_same_to_the_byte(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "set.npz")
    assert imported(tmp_path, path, 2) == imported(tmp_path, path, 1)


@pytest.mark.parametrize("processes", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_imports_by_dask_are_the_same_to_the_byte(processes: bool, tmp_path: Path) -> None:
    path = write_npz(tmp_path / "set.npz")
    serial = imported(tmp_path, path, 1)
    with dask_cluster(processes), joblib.parallel_config(backend="dask"):
        assert imported(tmp_path, path, None) == serial
        bad = write_npz(tmp_path / "bad.npz", counts=np.full((3, 800), np.nan, dtype=np.float32))
        with pytest.raises(BadInputError, match="need a decision"):
            imported(tmp_path / "none", bad, None)


def where() -> tuple[int, int]:
    """Process and thread that run this."""
    return os.getpid(), threading.get_ident()


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_sample_that_is_no_number_is_named_and_nothing_is_left(jobs: int, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="number 2 of the set, subject s2") as caught:
        written(tmp_path, jobs=jobs, bad=2)
    assert "channel 0, sample 9" in caught.value.problems[0]
    assert caught.value.hint
    assert not list(tmp_path.iterdir())


def test_ctrl_c_leaves_nothing_and_says_nothing_of_its_own(tmp_path: Path) -> None:
    def interrupted(task: str, done: int, total: int, note: str = "") -> None:
        raise KeyboardInterrupt

    path = tmp_path / "i.npy"
    with joblib.parallel_config(backend="threading", n_jobs=2), pytest.raises(KeyboardInterrupt):
        write_images(made(), PARAMS, path, index=ORDER, backend="reference", progress=interrupted)
    assert not list(tmp_path.iterdir())
