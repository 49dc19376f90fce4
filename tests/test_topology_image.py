"""Persistence images: equal to ripser and persim, sizes as asked, frozen ranges, a cache that is checked."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_recordings import read_all, windows_of
from scipy.special import ndtr
from typer.testing import CliRunner

from topokd_edge.cli import app
from topokd_edge.data.importers import shoulder_watch
from topokd_edge.data.stream import ReadOptions
from topokd_edge.data.windowset import WindowSet
from topokd_edge.errors import BadInputError, UsageError
from topokd_edge.topology import writing
from topokd_edge.topology.cache import cached_images
from topokd_edge.topology.cost import predict_cost
from topokd_edge.topology.image import persistence_images
from topokd_edge.topology.params import ImageParams, fit_params

Windows = npt.NDArray[np.float32]
SHARED = Path(os.environ.get("TOPOKD_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))


def noisy(windows: int = 4, channels: int = 2, length: int = 100, seed: int = 0) -> Windows:
    rng = np.random.default_rng(seed)
    swing = np.sin(np.arange(length) / 8.0 + rng.uniform(0.0, 6.0, (windows, channels, 1)))
    return (swing + 0.2 * rng.standard_normal(swing.shape)).astype(np.float32)


def assert_backends_agree(x: Windows, params: ImageParams) -> None:
    fast, empty = persistence_images(x, params)
    reference, reference_empty = persistence_images(x, params, backend="reference")
    assert np.isfinite(fast).all()
    assert not np.signbit(fast).any()
    assert not np.signbit(reference).any()
    assert fast.shape == (*x.shape[:2], *params.size)
    largest = reference.max(axis=(2, 3), keepdims=True)
    assert (np.abs(fast - reference) <= 1e-6 * largest).all()
    assert (empty == reference_empty).all()


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    length=st.integers(1, 120),
    sigma=st.floats(0.002, 0.5),
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    normalise=st.sampled_from(["max", "none"]),
    essential=st.sampled_from(["drop", "cap", "keep"]),
    min_life=st.sampled_from([0.0, 0.01, 0.3]),
)
def test_fast_equals_ripser_and_persim(seed, length, sigma, size, normalise, essential, min_life) -> None:
    x = noisy(3, 2, length, seed)
    # Ranges from two windows only: the third one may leave them.
    params = fit_params(
        x[:2], size=size, sigma=sigma, normalise=normalise, essential=essential, min_life=min_life
    )
    assert_backends_agree(2.0 * x, params)


def test_one_pair_is_the_integral_of_a_gaussian_with_the_longest_lives_in_row_zero() -> None:
    params = ImageParams(
        birth_range=((0.0, 10.0),), persistence_range=((0.0, 4.0),), sigma=0.1, size=(8, 16), normalise="none"
    )
    x = np.array([[[1.0, 8.0, 5.0, 9.0]]], dtype=np.float32)  # one pair: born at 5, lives 3
    image = persistence_images(x, params)[0][0, 0]
    columns = np.diff(ndtr((np.linspace(0, 1, 17) - 0.5) / 0.1))
    rows = np.diff(ndtr((np.linspace(0, 1, 9) - 0.75) / 0.1))
    np.testing.assert_allclose(image, 0.75 * np.outer(rows[::-1], columns), rtol=0, atol=1e-8)
    assert np.unravel_index(image.argmax(), image.shape)[0] in (1, 2)


# R1 and R3: a constant window, and the size whatever the ranges.
@pytest.mark.parametrize("backend", ["fast", "reference"])
@pytest.mark.parametrize("signal", [np.ones(128), np.zeros(5)])
def test_a_constant_window_gives_zeros_and_a_flag(signal, backend) -> None:
    x = signal.astype(np.float32)[np.newaxis, np.newaxis]
    images, degenerate = persistence_images(x, fit_params(x), backend=backend)
    assert images.shape == (1, 1, 64, 64)
    assert not images.any()
    assert degenerate.all()


@pytest.mark.parametrize("birth", [(0.0, 0.3), (0.0, 0.7), (0.0, 1.0), (-1e-3, 1e-3), (-7.0, 1e6)])
@pytest.mark.parametrize("size", [(64, 64), (49, 49), (3, 7), (1, 1)])
def test_the_size_is_what_was_asked_for(birth, size) -> None:
    params = ImageParams(birth_range=(birth, birth), persistence_range=(birth, birth), size=size)
    assert_backends_agree(noisy(1), params)


def test_births_and_lives_land_in_their_row_and_column_to_the_edge() -> None:
    # Negative births, and a life of almost nothing, which belongs in the last row.
    axes = {"birth_range": ((-8.0, 0.0),), "persistence_range": ((0.0, 8.0),), "size": (8, 8), "sigma": 0.01}
    for birth, life, column, row in [(-7.5, 0.01, 0, 7), (-0.5, 7.5, 7, 0), (-3.5, 2.5, 4, 5)]:
        x = np.array([[[-9.0, birth + life, birth, 9.0]]], dtype=np.float32)
        image = persistence_images(x, ImageParams(**axes))[0][0, 0]
        assert np.unravel_index(image.argmax(), image.shape) == (row, column)


def test_one_pair_fits_ranges_and_gives_an_image_of_the_asked_size() -> None:
    x = np.array([[[0, 1, 0]]], dtype=np.float32)  # fit([[0, 1]])
    params = fit_params(x)
    assert (params.birth_range, params.persistence_range) == (((-0.5, 0.5),), ((0.0, 1.0),))
    images, _ = persistence_images(x, params)
    assert images.shape == (1, 1, 64, 64)
    assert images.max() == 1.0


# Images need no library of topology: numpy, numba, and scipy for the normal distribution.
def test_images_are_made_without_libraries_of_topology() -> None:
    script = """
import sys
for name in ("ripser", "persim", "gudhi", "sklearn", "torch"):
    sys.modules[name] = None
import numpy as np
from topokd_edge.topology.image import persistence_images
from topokd_edge.topology.params import fit_params
x = np.random.default_rng(0).standard_normal((3, 1, 50)).astype(np.float32)
assert persistence_images(x, fit_params(x))[0].max() == 1.0
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_equal_births_still_give_an_image() -> None:
    x = np.array([[[0, 1, 0, 2, 0, 3, 0]]], dtype=np.float32)
    images, degenerate = persistence_images(x, fit_params(x))
    assert images.max() == 1.0
    assert not degenerate.any()


# R2: the class that never dies.
def test_essential_class_in_images() -> None:
    x = np.array([[[0, 1, 0]]], dtype=np.float32)
    ranges = {"birth_range": ((-1.0, 1.0),), "persistence_range": ((0.0, 2.0),), "normalise": "none"}
    drop, cap, keep = (
        persistence_images(x, ImageParams(**ranges, essential=choice))[0][0, 0]
        for choice in ("drop", "cap", "keep")
    )
    np.testing.assert_allclose(cap, 2 * drop, rtol=1e-6)
    assert np.isfinite(keep).all()
    assert keep[0].max() > 0 == drop[0].max().round(6)


# R4: NaN is refused with its place.
@pytest.mark.parametrize("backend", ["fast", "reference"])
def test_nan_is_refused_with_its_place(backend) -> None:
    x = noisy(5, 3)
    params = fit_params(x)
    x[3, 1, 17] = np.nan
    x[4, 0, 2] = np.inf
    with pytest.raises(BadInputError) as caught:
        persistence_images(x, params, backend=backend)
    assert "window 3, channel 1, sample 17" in str(caught.value)
    assert "window 4, channel 0, sample 2" in str(caught.value)
    with pytest.raises(BadInputError, match="window 3, channel 1, sample 17"):
        fit_params(x)


def test_ranges_come_from_training_windows_and_stay() -> None:
    x = noisy(40)
    params = fit_params(x[:20])
    again = ImageParams.from_dict(params.to_dict())
    assert again == params
    wild = 100.0 * x[20:]
    before = persistence_images(x[20:21], params)[0]
    persistence_images(wild, params)
    assert (persistence_images(x[20:21], params)[0] == before).all()
    assert persistence_images(wild, params)[0].max(axis=(2, 3)).min() == 1.0, "a wild subject must not vanish"


def test_a_still_person_has_an_image_too() -> None:
    x = noisy(20, 1, 100)
    x[0] = 0.3 + 0.01 * x[0]
    images, degenerate = persistence_images(x, fit_params(x))
    assert not degenerate.any()
    assert images[0].max() == 1.0


def test_one_glitch_does_not_shrink_the_images() -> None:
    x = noisy(1000, 1, 50)
    clean = fit_params(x)
    x[7, 0, 25] = 1e4
    glitched = fit_params(x)
    assert glitched.persistence_range[0][1] < 1.5 * clean.persistence_range[0][1]


def test_cost_is_told_before_the_job() -> None:
    x = noisy(12, 2, 60)
    params = fit_params(x)
    cost = predict_cost(x, params, backend="reference")
    images, _ = persistence_images(x, params)
    assert cost.bytes == images.nbytes
    assert 0.0 < cost.seconds < 60.0


def test_threads_do_not_change_images() -> None:
    x = noisy(150, 1, 40)
    params = fit_params(x)
    one, two = (persistence_images(x, params, threads=threads)[0] for threads in (1, 2))
    assert (one == two).all()


def test_all_wrong_parameters_are_told_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        ImageParams(birth_range=((1.0, 1.0),), persistence_range=(), sigma=0.0, size=(0, 64))
    assert all(word in str(caught.value) for word in ("birth_range", "sigma", "size", "ranges for"))
    with pytest.raises(BadInputError, match="typo"):
        ImageParams.from_dict({"typo": 1})
    with pytest.raises(BadInputError, match="channels"):
        persistence_images(noisy(1, 3), fit_params(noisy(1, 2)))


def real_windows(name: str) -> Windows:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} is not here")
    with np.load(path, allow_pickle=False) as data:
        starts = np.linspace(0, data["counts"].shape[1] - 500, 6).astype(int)
        counts = np.stack([data["counts"][:, start : start + 250] for start in starts])
        scaled = counts * data["scale"][:, None]
        return (
            (scaled + data["offset"][:, None]).astype(np.float32)
            if "offset" in data
            else scaled.astype(np.float32)
        )


@pytest.mark.parametrize("name", ["dsads/dsads_3imu_25hz.npz", "usc_had/usc_had_100hz.npz"])
def test_backends_agree_on_real_windows(name) -> None:
    x = real_windows(name)
    assert_backends_agree(x, fit_params(x[:4]))


@pytest.mark.skipif(importlib.util.find_spec("seglearn") is None, reason="seglearn is not installed")
def test_backends_agree_on_watch_data() -> None:
    opened = shoulder_watch.open_streams(None, ReadOptions())
    x = np.stack([item.samples[:, 100:300] for item in read_all(opened)[::24]])
    assert_backends_agree(x, fit_params(x[:3]))


def window_set(x: Windows) -> WindowSet:
    count = len(x)
    return windows_of(x, np.arange(count) % 2, [str(1 + i % 2) for i in range(count)], ("run", "walk"))


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many windows each computation of images had."""
    calls: list[int] = []

    def counting(x, params, **options):
        calls.append(len(x))
        return persistence_images(x, params, **options)

    monkeypatch.setattr(writing, "persistence_images", counting)
    return calls


def test_cache_is_read_when_nothing_changed(tmp_path: Path, computed: list[int]) -> None:
    x = noisy(6)
    params = fit_params(x)
    first = cached_images(window_set(x), params, tmp_path)
    second = cached_images(window_set(x.copy()), params, tmp_path)
    assert computed == [6]
    assert isinstance(second, np.memmap)
    assert (first == second).all()
    images = persistence_images(x, params)[0]
    assert (second == np.where(images < 2.0**-14, 0, images).astype(np.float16)).all()


def test_cache_is_computed_again_for_other_windows_parameters_or_index(
    tmp_path: Path, computed: list[int]
) -> None:
    x = noisy(6)
    params = fit_params(x)
    cached_images(window_set(x), params, tmp_path)
    changed = x.copy()
    changed[5, 1, 50] += 0.5
    cached_images(window_set(changed), params, tmp_path)
    cached_images(window_set(x), fit_params(x, sigma=0.1), tmp_path)
    some = cached_images(window_set(x), params, tmp_path, index=np.array([4, 1]))
    assert computed == [6, 6, 6, 2]
    assert (some == cached_images(window_set(x), params, tmp_path)[[4, 1]]).all()


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "json", "no json"])
def test_a_damaged_cache_is_computed_again(tmp_path: Path, computed: list[int], damage: str) -> None:
    x = noisy(6)
    params = fit_params(x)
    good = np.array(cached_images(window_set(x), params, tmp_path))
    (data,), (meta,) = tmp_path.glob("*.npy"), tmp_path.glob("*.json")
    content = bytearray(data.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 64
        data.write_bytes(content)
    elif damage in ("cut", "empty"):
        data.write_bytes(content[: len(content) // 2 if damage == "cut" else 0])
    elif damage == "json":
        meta.write_text("{")
    else:
        meta.unlink()
    assert (cached_images(window_set(x), params, tmp_path) == good).all()
    assert computed == [6, 6]


def test_nan_leaves_no_cache_and_names_the_subject(tmp_path: Path) -> None:
    x = noisy(6)
    params = fit_params(x)
    x[3, 0, 9] = np.nan
    with pytest.raises(BadInputError, match="subject 2, session 1"):
        cached_images(window_set(x), params, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_command_line_writes_images_and_a_figure(tmp_path: Path) -> None:
    window_set(noisy(6)).save(tmp_path / "w")
    run = CliRunner().invoke
    done = run(
        app, ["topology", "extract", str(tmp_path / "w"), "--out", str(tmp_path / "p"), "--fit-on", "1"]
    )
    assert done.exit_code == 0, done.output
    assert np.load(tmp_path / "p" / "images.npy").shape == (6, 2, 64, 64)
    figure = tmp_path / "window.svg"
    done = run(app, ["topology", "show", str(tmp_path / "w"), "--window", "2", "--out", str(figure)])
    assert done.exit_code == 0, done.output
    assert figure.read_text().rstrip().endswith("</svg>")


def test_the_bench_answers_by_contract() -> None:
    done = CliRunner().invoke(app, ["topology", "bench", "--json"])
    assert done.exit_code == 0, done.output
    cases = {case.pop("name"): case for case in json.loads(done.stdout)["cases"]}
    assert {"3x500", "40x100"} <= set(cases)
    for case in cases.values():
        assert case["speedup"] == pytest.approx(case["reference_us"] / case["fast_us"])
        assert case["speedup"] > 25.0, "measured: 90 and more"
        assert case["max_rel_diff"] < 1e-6
        assert case["pairs_per_channel"] > 10.0
        assert case["threads"] == 1
