"""Images drawn in batches by torch, here on the CPU: equal to the compiled ones and to ripser and persim."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from test_topology_image import noisy, real_windows, window_set
from typer.testing import CliRunner

from topokd_edge.cli import app
from topokd_edge.errors import BadInputError, MissingError, UsageError
from topokd_edge.topology import batched
from topokd_edge.topology.image import persistence_images
from topokd_edge.topology.params import ImageParams, fit_params
from topokd_edge.topology.sublevel import diagram

Windows = npt.NDArray[np.float32]
CPU = torch.device("cpu")
without_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


def drawn(x: Windows, params: ImageParams, **options: Any) -> tuple[Windows, npt.NDArray[np.bool_]]:
    """Images and flags by torch on the CPU."""
    images = np.full((*x.shape[:2], *params.size), np.nan, dtype=np.float32)
    degenerate = np.empty(x.shape[:2], dtype=np.bool_)
    batched.filler(params, CPU, **options)(x, images, degenerate)
    return images, degenerate


def assert_equal(x: Windows, params: ImageParams, **options: Any) -> None:
    images, empty = drawn(x, params, **options)
    expected, expected_empty = persistence_images(x, params)
    assert np.isfinite(images).all()
    assert not np.signbit(images).any()
    largest = expected.max(axis=(2, 3), keepdims=True)
    assert (np.abs(images - expected) <= 1e-6 * largest).all()
    assert (empty == expected_empty).all()


@st.composite
def options(draw: st.DrawFn) -> dict[str, Any]:
    """Every option of an image, in either layout."""
    chosen = {
        "layout": draw(st.sampled_from(["cells", "paper"])),
        "filtration": draw(st.sampled_from(["sublevel", "superlevel"])),
        "essential": draw(st.sampled_from(["drop", "cap", "keep"])),
        "normalise": draw(st.sampled_from(["max", "none"])),
        "min_life": draw(st.sampled_from([0.0, 0.01, 0.3])),
        "sigma": draw(st.floats(0.004, 0.5)),
        "size": draw(st.tuples(st.integers(1, 40), st.integers(1, 40))),
    }
    if chosen["essential"] == "cap":
        chosen["essential_cap"] = draw(st.none() | st.floats(-2.0, 2.0))
    if chosen["layout"] == "cells":
        chosen["weight"] = draw(st.sampled_from(["power", "ramp", "constant"]))
        if chosen["weight"] == "power":
            chosen["weight_power"] = draw(st.sampled_from([1.0, 0.5, 3.0, 100.0]))
        if chosen["weight"] == "ramp":
            chosen["weight_ramp"] = draw(st.sampled_from([(0.0, 1.0), (0.2, 0.6), (0.9, 1.0)]))
    return chosen


@st.composite
def windows(draw: st.DrawFn) -> Windows:
    """Three windows of two channels with ties, still stretches, and amplitudes that leave the ranges."""
    length = draw(st.integers(1, 60))
    x = noisy(3, 2, length, draw(st.integers(0, 10**6))) * draw(st.sampled_from([1e-3, 1.0, 3.0]))
    steps = draw(st.sampled_from([0, 2, 50]))
    x = np.round(x * steps) / steps if steps else x
    x[0, 1] = draw(st.sampled_from([0.0, 1.0]))
    return x.astype(np.float32)


@settings(deadline=None, max_examples=50)
@given(x=windows(), chosen=options(), memory=st.sampled_from([10**4, 10**6, 1 << 28]))
def test_equals_fast(x: Windows, chosen: dict[str, Any], memory: int) -> None:
    assert_equal(x, fit_params(noisy(4), **chosen), device_bytes=memory)


@settings(deadline=None, max_examples=25)
@given(x=windows(), chosen=options())
def test_equals_ripser_and_persim(x: Windows, chosen: dict[str, Any]) -> None:
    """Without the images of pairs that all lie far outside, which persim fills with rounding, blown up."""
    params = fit_params(noisy(4), **chosen)
    (images, empty), plain = drawn(x, params), replace(params, normalise="none")
    expected, expected_empty = persistence_images(x, params, backend="reference")
    largest = persistence_images(x, plain, backend="reference")[0].max(axis=(2, 3))
    sound = (largest == 0.0) | (largest > 1e-9) if params.layout == "paper" else np.full(empty.shape, True)
    bound = 1e-6 * expected.max(axis=(2, 3), keepdims=True)
    assert (np.abs(images - expected) <= bound)[sound].all()
    assert (empty == expected_empty)[sound].all()


@pytest.mark.parametrize("name", ["dsads/dsads_3imu_25hz.npz", "usc_had/usc_had_100hz.npz"])
def test_equals_fast_on_real_windows(name: str) -> None:
    x = real_windows(name)[::2]
    for layout in ("cells", "paper"):
        assert_equal(x, fit_params(x, layout=layout))


def test_one_pair_is_the_integral_of_a_gaussian() -> None:
    params = ImageParams(
        birth_range=((0.0, 10.0),), persistence_range=((0.0, 4.0),), sigma=0.1, size=(8, 16), normalise="none"
    )
    x = np.array([[[1.0, 8.0, 5.0, 9.0]]], dtype=np.float32)  # one pair: born at 5, lives 3
    columns = np.diff(norm.cdf(np.linspace(0, 1, 17), 0.5, 0.1))
    rows = np.diff(norm.cdf(np.linspace(0, 1, 9), 0.75, 0.1))
    expected = 0.75 * np.outer(rows[::-1], columns)
    np.testing.assert_allclose(drawn(x, params)[0][0, 0], expected, rtol=1e-7, atol=1e-17)


def test_a_life_of_nothing_that_is_kept_is_no_padding() -> None:
    """A class that never dies, on a range that ends at 0, is drawn in the top row as a life of 0."""
    params = ImageParams(((-2.0, 2.0),), ((-5.0, 0.0),), essential="keep", size=(5, 4))
    x = noisy(2, 1)
    x[1] = 1.0
    assert_equal(x, params)
    assert not drawn(x, params)[1].any()


def test_pairs_are_those_of_the_diagram_and_fill_half_a_signal() -> None:
    zigzag = np.resize([0.0, 1.0], 9) + 0.01 * np.arange(9)
    x = np.stack([zigzag, np.zeros(9)]).astype(np.float32)[:, None]
    params = ImageParams(((0.0, 1.0),), ((0.0, 2.0),), essential="cap", min_life=0.0)
    pairs = batched.diagrams(x, params)
    assert pairs.counts.tolist() == [5, 0]
    expected = diagram(x[0, 0], essential="cap")
    np.testing.assert_array_equal(pairs.births, [expected[:, 0], np.zeros(5)])
    np.testing.assert_array_equal(pairs.lives, [expected[:, 1] - expected[:, 0], np.zeros(5)])


@pytest.mark.parametrize("chosen", [{"weight": "constant"}, {"layout": "paper"}])
def test_memory_changes_how_many_are_drawn_at_a_time_and_no_image(chosen: dict[str, Any]) -> None:
    x = noisy(5, 3, 80)
    x[1, 2] = np.sin(np.arange(80) / 4.0)  # few pairs: padding that weighs anything would be drawn
    params = fit_params(x, **chosen)
    images, _ = drawn(x, params)
    for memory in (1, 200_000, 2_000_000):
        np.testing.assert_allclose(drawn(x, params, device_bytes=memory)[0], images, rtol=1e-6, atol=1e-30)


@pytest.mark.parametrize(
    ("pairs", "size"), [(1, (64, 64)), (5000, (64, 64)), (40, (1024, 1024)), (9, (1, 1))]
)
def test_drawing_holds_what_it_may(pairs: int, size: tuple[int, int]) -> None:
    limit = 256 << 20
    images, block = batched._batch(pairs, size, limit)
    held = 8 * images * (3 * size[0] * size[1] + batched._COPIES * block * (size[0] + size[1]))
    assert held <= limit
    assert images == 1 or block >= pairs
    assert batched._batch(10**6, (1024, 1024), 1) == (1, 1)


def test_windows_at_a_time_keep_pairs_in_a_threads_share() -> None:
    for channels, length in ((3, 500), (40, 100), (1, 10_000)):
        count = batched.windows_at_a_time(channels, length)
        pairs = count * channels * (length + 1) // 2
        assert 0.9 * (16 << 20) < 16 * pairs <= (16 << 20) + 8 * count * channels
    assert batched.windows_at_a_time(500, 10**6) == 1


@pytest.mark.parametrize("threads", [1, 3])
def test_it_is_a_backend(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    monkeypatch.setattr(batched, "cuda", lambda: CPU)
    x = noisy(25, 2)
    params = fit_params(x)
    done: list[int] = []
    images, empty = persistence_images(
        x, params, backend="gpu", threads=threads, progress=lambda task, n, total, *_: done.append(n)
    )
    expected, _ = persistence_images(x, params)
    np.testing.assert_allclose(images, expected, rtol=0, atol=1e-6)
    assert not empty.any()
    assert done[-1] == 25


@without_cuda
def test_without_cuda_it_says_so_and_names_the_other_backend() -> None:
    x = noisy(2)
    with pytest.raises(MissingError, match="no usable CUDA device") as caught:
        persistence_images(x, fit_params(x), backend="gpu")
    assert "'fast'" in caught.value.hint


def test_a_device_that_is_full_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(batched, "_draw", full)
    with pytest.raises(MissingError, match="less than 256 MB of memory left"):
        drawn(noisy(1), fit_params(noisy(4)))


def test_what_the_others_refuse_is_refused() -> None:
    x = noisy(5, 3)
    params = fit_params(x)
    with pytest.raises(UsageError, match="ripser only") as refused:
        persistence_images(x, fit_params(x, filtration="delay"), backend="gpu")
    assert "reference" in refused.value.hint
    x[3, 1, 17] = np.nan
    with pytest.raises(BadInputError, match="window 3, channel 1, sample 17"):
        persistence_images(x, params, backend="gpu")
    with pytest.raises(BadInputError, match="channels"):
        persistence_images(noisy(1, 2), params, backend="gpu")


def test_torch_is_loaded_only_when_it_draws() -> None:
    script = "import sys, topokd_edge.topology.batched; assert not {'torch', 'numba'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


class TestCommandLine:
    @pytest.fixture
    def extract(self, tmp_path: Path) -> Any:
        window_set(noisy(6)).save(tmp_path / "w")

        def run(out: str, *more: str) -> Any:
            command = ["topology", "extract", str(tmp_path / "w"), "--out", str(tmp_path / out), *more]
            return CliRunner().invoke(app, [*command, "--fit-on", "1"])

        return run

    def test_its_images_are_those_of_fast(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, extract: Any
    ) -> None:
        monkeypatch.setattr(batched, "cuda", lambda: CPU)
        for out, backend in (("p", "gpu"), ("q", "fast")):
            done = extract(out, "--backend", backend, "--json")
            assert done.exit_code == 0, done.output
            assert json.loads(done.stdout)["backend"] == backend
        images, expected = (np.load(tmp_path / out / "images.npy") for out in ("p", "q"))
        np.testing.assert_allclose(images, expected, rtol=0, atol=1e-6)

    @without_cuda
    def test_without_cuda_nothing_is_written(self, tmp_path: Path, extract: Any) -> None:
        done = extract("p", "--backend", "gpu")
        assert isinstance(done.exception, MissingError)
        assert not (tmp_path / "p").exists()

    def test_jobs_are_for_the_reference(self, extract: Any) -> None:
        done = extract("p", "--backend", "gpu", "--jobs", "2")
        assert isinstance(done.exception, UsageError)
        assert "gpu uses all cores" in done.exception.hint
