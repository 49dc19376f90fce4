"""Images computed for each batch where the disk has no room: the same bits as from the cache."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from made_recordings import windows_of
from test_topology_image import noisy

from topokd_edge.bundle import Normalisation
from topokd_edge.data.split import Fold
from topokd_edge.data.windowset import WindowSet
from topokd_edge.distill.inputs import Streamed
from topokd_edge.distill.preprocessing import fit_and_apply
from topokd_edge.distill.recipe import Topology, load_recipe
from topokd_edge.distill.run_training import start_run, train_run
from topokd_edge.errors import BadInputError, MissingError
from topokd_edge.topology.cache import cached_images
from topokd_edge.topology.computed import ComputedImages, images_of
from topokd_edge.topology.image import persistence_images
from topokd_edge.topology.params import ImageParams, fit_params

CPU = torch.device("cpu")


def window_set(count: int = 12) -> WindowSet:
    x = noisy(count)
    x[3] = 1.0
    return windows_of(x, np.arange(count) % 2, [str(1 + i % 4) for i in range(count)], ("a", "b"))


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))


@pytest.mark.parametrize(
    "options", [{}, {"normalise": "none"}, {"layout": "paper"}, {"filtration": "superlevel"}]
)
def test_the_bits_are_those_of_the_cache(options: dict[str, Any], tmp_path: Path) -> None:
    windows = window_set()
    params = fit_params(windows.x, **options)
    cached, computed = cached_images(windows, params, tmp_path), ComputedImages(windows, params)
    assert (computed.shape, len(computed)) == (cached.shape, len(cached))
    rows = np.array([7, 3, 3, 0, 11])
    assert computed[rows].dtype == cached.dtype
    assert computed[rows].tobytes() == cached[rows].tobytes()
    assert computed[rows[:0]].shape == (0, *cached.shape[1:])
    scale = Normalisation((0.1, 0.2), (0.3, 0.4))
    streamed = [Streamed(source, scale, torch.float16, CPU) for source in (cached, computed)]
    batch = torch.tensor([5, 2, 5])
    assert torch.equal(streamed[0][batch], streamed[1][batch])
    assert torch.equal(streamed[0].resident(), streamed[1].resident())


def test_the_room_on_the_disk_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    windows = window_set()
    params = fit_params(windows.x)
    needed = 12 * 2 * 64 * 64 * 2
    told: list[str] = []
    for free, computed in ((needed - 1, True), (needed, False)):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: SimpleNamespace(free=free))
        images = images_of(
            windows, params, tmp_path, progress=lambda task, done, total, note="": told.append(note)
        )
        assert isinstance(images, ComputedImages) == computed
    assert "computed for each batch" in told[0]
    # What is cached already is read, however full the disk is.
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    assert not isinstance(images_of(windows, params, tmp_path), ComputedImages)


@pytest.mark.usefixtures("full_disk")
@pytest.mark.parametrize(("free", "kept"), [(0, "computed"), (10**12, "memory")])
def test_training_says_that_images_are_computed(
    free: int, kept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from topokd_edge.distill import inputs

    monkeypatch.setattr(inputs, "free_memory", lambda: free)
    fold = Fold(1, test=("1",), validation=("2",), fit=("3", "4"))
    told: list[str] = []
    views, made = fit_and_apply(
        window_set(),
        fold,
        Topology(),
        tmp_path,
        CPU,
        lambda task, done, total, note="": told.append(note),
    )
    assert views.kept["images"]["kept"] == kept
    words = {"computed": "MB computed for each batch", "memory": "MB in memory"}
    assert words[kept] in told[-1]
    monkeypatch.undo()
    others, remade = fit_and_apply(window_set(), fold, Topology(), tmp_path, CPU, lambda *_, **__: None)
    every = torch.arange(12)
    assert views.images is not None
    assert others.images is not None
    assert torch.equal(views.images[every], others.images[every])
    assert made == remade
    with pytest.raises(MissingError, match="free"):
        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
        fit_and_apply(window_set(), fold, Topology(sigma=0.2), tmp_path, CPU, lambda *_, **__: None, "disk")


def test_a_bad_sample_is_named_by_subject() -> None:
    x = noisy(12)
    params = fit_params(x)
    x[5, 1, 7] = np.nan
    windows = windows_of(x, np.arange(12) % 2, [str(1 + i % 4) for i in range(12)], ("a", "b"))
    with pytest.raises(BadInputError, match="number 5 of the set, subject 2"):
        ComputedImages(windows, params)[np.array([1, 5])]


# R1: a window without any pair is kept or dropped, by option.
@pytest.mark.parametrize(("choice", "left_out"), [("keep", []), ("drop", [3])])
def test_windows_without_a_pair_are_trained_on_or_left_out(
    choice: Any, left_out: list[int], tmp_path: Path
) -> None:
    x = noisy(12)
    x[[3, 4]] = 1.0  # subjects 4 and 1
    x[7, 0] = 1.0  # subject 4, one of two channels
    windows = windows_of(x, np.arange(12) % 2, [str(1 + i % 4) for i in range(12)], ("a", "b"))
    fold = Fold(1, test=("1",), validation=("2",), fit=("3", "4"))
    topology = load_recipe("demo", [f"topology.empty={choice}"]).topology
    views, made = fit_and_apply(windows, fold, topology, tmp_path, CPU, lambda *_, **__: None)
    assert views.left_out.tolist() == left_out
    assert views.kept["left_out"] == len(left_out)
    assert len(views.signals) == 12
    everything, _ = persistence_images(x, ImageParams.from_dict(made["topology"]))
    rows = np.setdiff1d(windows.of_subjects(("3", "4")), left_out)
    np.testing.assert_allclose(made["image"]["mean"], everything[rows].mean((0, 2, 3)), rtol=1e-3)


def test_a_run_does_not_train_on_windows_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from topokd_edge.distill import fold as fold_module

    x = noisy(24)
    x[3] = x[8] = 1.0
    windows = windows_of(x, np.arange(24) // 4 % 2, [str(1 + i % 4) for i in range(24)], ("a", "b"))
    seen: list[list[int]] = []

    def stop(task: Any, subset: Any, *_: Any, **__: Any) -> None:
        seen.append(subset.fit.tolist())
        raise KeyboardInterrupt

    monkeypatch.setattr(fold_module, "train", stop)
    windows.save(tmp_path / "w")
    recipe = load_recipe("demo", ["topology.empty=drop", "split.folds=4", "split.validation_subjects=1"])
    run = start_run(tmp_path / "r", tmp_path / "w", recipe)
    with pytest.raises(KeyboardInterrupt):
        train_run(run, recipe, only_folds=[1], device="cpu")
    assert seen
    assert not {3, 8} & set(seen[0])
    assert len(seen[0]) in (10, 11, 12)
