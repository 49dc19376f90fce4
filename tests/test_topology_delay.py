"""Loops of the sliding-window embedding: right, bounded in points, memory and time, told beforehand."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

import gudhi
import numpy as np
import pytest
from made_recordings import windows_of
from test_topology_diagram import multiset

from topokd_edge.cli import _bench_plan
from topokd_edge.errors import BadInputError, MissingError, UsageError
from topokd_edge.run import FoldRun
from topokd_edge.topology import cache, delay, writing
from topokd_edge.topology.cache import cached_images
from topokd_edge.topology.child import in_child
from topokd_edge.topology.cost import predict_cost, predict_memory
from topokd_edge.topology.delay import embed, loops
from topokd_edge.topology.image import persistence_images
from topokd_edge.topology.params import ImageParams, fit_params

AXES: dict[str, Any] = {"birth_range": ((0.0, 2.0),), "persistence_range": ((0.0, 2.0),)}


def swings(windows: int = 2, length: int = 60) -> np.ndarray:
    """A sine of period 20 samples with a little noise."""
    rng = np.random.default_rng(0)
    x = np.sin(2 * np.pi * np.arange(length) / 20 + rng.uniform(0, 6, (windows, 1, 1)))
    return (x + 0.02 * rng.standard_normal(x.shape)).astype(np.float32)


def test_the_embedding() -> None:
    assert embed(np.arange(6.0), 3, 2).tolist() == [[0, 2, 4], [1, 3, 5]]
    assert embed(np.arange(4.0), 2, 1).tolist() == [[0, 1], [1, 2], [2, 3]]


def test_equals_gudhi() -> None:
    cloud = embed(swings(1, 50)[0, 0], 3, 4)
    complex_ = gudhi.RipsComplex(points=cloud).create_simplex_tree(max_dimension=2)
    complex_.compute_persistence()
    expected = complex_.persistence_intervals_in_dimension(1)
    found = loops(cloud, 200)
    assert len(found) == len(expected) > 0
    np.testing.assert_allclose(multiset(found), multiset(expected), atol=1e-5)


def test_a_swing_is_one_long_loop_and_a_ramp_is_none() -> None:
    params = ImageParams(**AXES, filtration="delay", delay_dimension=2, delay_lag=5, normalise="none")
    ramp = np.linspace(0, 3, 60, dtype=np.float32)[None, None]
    # A quarter of a period as lag: the unit circle, whose loop dies at the side of a triangle, sqrt(3).
    images, degenerate = persistence_images(np.concatenate([swings(1), ramp]), params)
    rows, columns = np.unravel_index(images[0, 0].argmax(), (64, 64))
    birth, life = 2.0 * (columns + 0.5) / 64, 2.0 * (63.5 - rows) / 64
    assert birth + life == pytest.approx(np.sqrt(3.0), abs=0.1)
    assert degenerate.tolist() == [[False], [True]]


def test_every_key_of_the_embedding_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delay, "in_child", lambda function, items, **_: map(function, items))
    base = {"filtration": "delay", "delay_dimension": 2, "delay_lag": 5, "delay_points": 30}
    images = [
        persistence_images(swings(1), ImageParams(**AXES, **{**base, **change}), backend="reference")[0]
        for change in ({}, {"delay_dimension": 3}, {"delay_lag": 2}, {"delay_points": 8}, {"layout": "paper"})
    ]
    assert all((images[0] != other).any() for other in images[1:])


def test_points_are_capped() -> None:
    cloud = embed(swings(1, 300)[0, 0], 2, 5)
    capped, full = loops(cloud, 40), loops(cloud, 1000)
    longest, truth = (pairs[np.diff(pairs).argmax()] for pairs in (capped, full))
    np.testing.assert_allclose(longest, truth, atol=0.35)  # twice the distance to a landmark, at most
    begin = time.perf_counter()
    loops(embed(np.random.default_rng(0).standard_normal(20_000), 3, 4), 100)
    assert time.perf_counter() - begin < 20.0
    assert delay.points_of(20_000, ImageParams(**AXES, filtration="delay")) == 200


def test_ranges_are_fitted_and_images_cached(tmp_path: Path) -> None:
    x = swings(6)
    params = fit_params(x, rows=np.arange(4), filtration="delay", delay_dimension=2, delay_lag=5)
    births, lives = params.birth_range[0], params.persistence_range[0]
    assert 0.0 < births[0] < births[1] < 1.0 < lives[1] < 2.0
    told: list[str] = []
    windows = windows_of(x, np.arange(6) % 2, [str(1 + i % 2) for i in range(6)], ("a", "b"))
    images = cached_images(
        windows, params, tmp_path, progress=lambda task, done, total, note="": told.append(note)
    )
    expected = persistence_images(x, params, backend="reference")[0]
    np.testing.assert_allclose(images, expected, atol=2**-11)
    assert told[0].startswith("about ")
    assert told[0].endswith("MB of memory")


def test_an_interrupted_job_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_PART", 2)
    x = swings(7)
    windows = windows_of(x, np.arange(7) % 2, [str(1 + i % 2) for i in range(7)], ("a", "b"))
    params = ImageParams(**AXES, filtration="delay", delay_dimension=2, delay_lag=5)
    drawn: list[int] = []

    def in_this_process(function: Any, items: Any, **_: Any) -> Any:
        for item in items:
            drawn.append(len(drawn))
            if len(drawn) == 8:  # of the prediction 4, then in the second part
                raise KeyboardInterrupt
            yield function(item)

    monkeypatch.setattr(delay, "in_child", in_this_process)
    with pytest.raises(KeyboardInterrupt):
        cached_images(windows, params, tmp_path)
    drawn[:] = [0] * 100
    images = cached_images(windows, params, tmp_path)
    assert len(drawn) == 100 + 4 + 5
    expected = persistence_images(x, params, backend="reference")[0]
    assert (images == writing.rounded(expected, np.dtype(np.float16))).all()
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".npy"]


def test_cost_is_predicted() -> None:
    params = ImageParams(**AXES, filtration="delay", delay_points=150)
    cost = predict_cost(swings(4, 200), params, backend="reference")
    assert 0.0 < cost.seconds < 60.0
    assert cost.memory == 128 * 150**2
    plain = ImageParams(**AXES)
    assert predict_memory(10**6, plain, backend="reference") == 400 * 10**6
    assert predict_memory(10**6, plain, backend="fast") == 40 * 10**6


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "size"), [("loops", 500), ("loops", 1500), ("star", 300_000)])
def test_the_memory_of_ripser_is_predicted(kind: str, size: int) -> None:
    params = ImageParams(
        **AXES,
        filtration="delay" if kind == "loops" else "sublevel",
        **({"delay_points": size} if kind == "loops" else {}),
    )
    length = size + 8 if kind == "loops" else size
    predicted = predict_memory(length, params, backend="reference")
    (used,) = in_child(partial(_peak, kind), [length], name="peak", seconds=300, memory=8 << 30, hint="")
    assert 0.5 * predicted < used < 1.1 * predicted


def _peak(kind: str, length: int) -> int:
    """Bytes by which the peak of this process grows."""
    import resource

    from topokd_edge.topology.reference import ripser_diagram

    def work(size: int) -> None:
        signal = np.random.default_rng(0).standard_normal(size)
        loops(embed(signal, 3, 4), size) if kind == "loops" else ripser_diagram(signal)

    work(100)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    work(length)
    return 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


def test_too_little_memory_is_told_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delay, "free_memory", lambda: 10**6)
    params = ImageParams(**AXES, filtration="delay", delay_points=150)
    with pytest.raises(MissingError, match="lower delay_points"):
        persistence_images(swings(1, 200), params, backend="reference")


def test_too_short_windows_and_the_fast_backend_are_refused() -> None:
    params = ImageParams(**AXES, filtration="delay", delay_dimension=5, delay_lag=15)
    with pytest.raises(UsageError, match="leave 0 points"):
        persistence_images(swings(1), params, backend="reference")
    with pytest.raises(UsageError, match="backend = 'reference'"):
        persistence_images(swings(1), params, backend="fast")


@pytest.mark.parametrize(("filtration", "backends"), [("sublevel", 2), ("delay", 1)])
def test_a_bench_of_loops_leaves_the_fast_backend_out(
    filtration: Any, backends: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "t.onnx").write_bytes(b"")
    monkeypatch.setattr(_bench_plan, "_export", lambda *_: (tmp_path / "t.onnx", 1))
    topology = ImageParams(**AXES, filtration=filtration).to_dict()
    jobs = _bench_plan._tda(FoldRun(tmp_path, 1, 0), {"topology": topology}, tmp_path)
    assert [job.args["backend"] for job in jobs] == ["reference", "fast"][:backends]


# What ripser may do to its process: not end, want all memory, abort.
def act(what: str) -> str:
    if what == "hang":
        time.sleep(1000)
    elif what == "fill":
        np.ones(2 << 30, dtype=np.uint8)
    elif what == "abort":
        import os

        os.abort()
    return what


@pytest.mark.parametrize(
    ("what", "said"),
    [("hang", "took more than 1 s"), ("fill", "wanted more than 300 MB"), ("abort", "ended by -6")],
)
def test_what_does_not_end_is_stopped(what: str, said: str) -> None:
    answers = in_child(act, ["a", what], name="loops", seconds=1.0, memory=300_000_000, hint="less")
    assert next(answers) == "a"
    begin = time.perf_counter()
    with pytest.raises(BadInputError) as caught:
        next(answers)
    assert f"loops, window 1: {said}" in str(caught.value)
    assert "less" in str(caught.value)
    assert time.perf_counter() - begin < 20.0


def test_a_window_that_takes_too_long_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delay, "SECONDS", 0.0)
    with pytest.raises(BadInputError, match=r"loops, window 0: took more than 0 s[^$]*lower delay_points"):
        persistence_images(swings(1, 200), ImageParams(**AXES, filtration="delay"), backend="reference")
