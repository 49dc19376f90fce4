"""Inputs on the device or on disk: chosen by size, the same bits, memory that does not grow with the set."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_recordings import windows_of
from made_training import SUBSET, TRAINING, interrupt_at, network, problem
from test_run_training import TWO_CANDIDATES, recipe, said, windows
from typer.testing import CliRunner

from topokd_edge.bundle import Normalisation
from topokd_edge.cli import app
from topokd_edge.data.split import Fold
from topokd_edge.distill import inputs as inputs_module
from topokd_edge.distill import run_training
from topokd_edge.distill.inputs import Residency, Streamed, settle
from topokd_edge.distill.preprocessing import _moments, fit_and_apply
from topokd_edge.distill.recipe import Topology
from topokd_edge.distill.run_training import continue_run, start_run, train_run
from topokd_edge.distill.tasks import LabelTask
from topokd_edge.distill.trainer import predict, train
from topokd_edge.files import read_json
from topokd_edge.run import Run
from topokd_edge.topology.cost import predict_cost
from topokd_edge.topology.params import fit_params

CPU = torch.device("cpu")


class Watched:
    """Rows of an array that are counted when they are read, and cannot be read as a whole."""

    def __init__(self, array: np.ndarray) -> None:
        self._array, self.shape = array, array.shape
        self.most = 0

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        self.most = max(self.most, len(rows))
        return self._array[rows]


def streamed(array: Any, dtype: torch.dtype = torch.float16) -> Streamed:
    scale = Normalisation(
        tuple(np.linspace(-1, 3, array.shape[1])), tuple(np.linspace(0.1, 7, array.shape[1]))
    )
    return Streamed(array, scale, dtype, CPU)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    shape=st.tuples(
        *(st.integers(1, 6) for _ in range(2)), st.lists(st.integers(1, 9), min_size=1, max_size=2)
    ),
    stored=st.sampled_from([np.float16, np.float32]),
    dtype=st.sampled_from([torch.float16, torch.float32]),
)
def test_rows_from_disk_are_those_of_the_tensor_to_the_bit(seed, shape, stored, dtype) -> None:
    rng = np.random.default_rng(seed)
    array = rng.normal(0, 5, (shape[0], shape[1], *shape[2])).astype(stored)
    source = streamed(array, dtype)
    resident = source.resident()
    rows = torch.from_numpy(rng.integers(0, len(array), rng.integers(0, 12)))
    assert torch.equal(source[rows], resident[rows])
    assert resident.dtype == source[rows].dtype == dtype
    assert (source.shape, source.ndim, len(source)) == (resident.shape, resident.ndim, len(resident))
    assert source.nbytes == resident.numel() * resident.element_size()


def test_rows_are_standardised_in_float32_and_then_rounded() -> None:
    array = np.random.default_rng(0).normal(0, 1, (5, 2, 3, 4)).astype(np.float16)
    source = Streamed(array, Normalisation((0.1, -2.0), (0.3, 5.0)), torch.float16, CPU)
    mean, std = np.float32([0.1, -2.0]), np.float32([0.3, 5.0])
    for window, channel in np.ndindex(5, 2):
        expected = ((array[window, channel].astype(np.float32) - mean[channel]) / std[channel]).astype(
            np.float16
        )
        np.testing.assert_array_equal(source[torch.tensor([window])][0, channel].numpy(), expected)


@pytest.mark.parametrize(
    ("residency", "free", "signals", "images"),
    [
        ("auto", 480, "memory", "memory"),
        ("auto", 479, "memory", "disk"),
        ("auto", 159, "disk", "disk"),
        ("memory", 0, "memory", "memory"),
        ("disk", 10**9, "disk", "disk"),
    ],
)
def test_half_of_the_free_memory_is_given_away(
    residency: Residency, free: int, signals: str, images: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs_module, "free_memory", lambda: free)
    sources = {
        "signals": streamed(np.ones((4, 1, 5), np.float32), torch.float32),  # 80 bytes
        "images": streamed(np.ones((4, 1, 4, 5), np.float16)),  # 160 bytes
    }
    placed, account = settle(sources, residency, CPU)
    assert account == {
        "device": "cpu",
        "free_bytes": free,
        "share": 0.5,
        "signals": {"bytes": 80, "kept": signals},
        "images": {"bytes": 160, "kept": images},
    }
    for name, kept in (("signals", signals), ("images", images)):
        assert isinstance(placed[name], torch.Tensor if kept == "memory" else Streamed)


def test_what_torch_holds_unused_on_a_gpu_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("mem_get_info", (1000, 9999)), ("memory_reserved", 700), ("memory_allocated", 200)):
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    source = streamed(np.ones((4, 1, 4, 5), np.float16))
    _, account = settle({"images": source}, "disk", torch.device("cuda"))
    assert account["free_bytes"] == 1500
    assert account["device"] == "cuda"


def test_nothing_is_read_as_a_whole() -> None:
    n = 5000
    rng = np.random.default_rng(0)
    signals = Watched(rng.normal(0, 1, (n, 2, 40)).astype(np.float32))
    images = Watched(np.zeros((n, 2, 64, 64), np.float16))
    rows = rng.permutation(n)[:4000]
    params = fit_params(signals, rows=rows, size=(8, 8))
    assert 0 < signals.most <= 512
    assert params == fit_params(signals._array[rows], size=(8, 8))
    predict_cost(signals, params, backend="fast")
    assert signals.most <= 512
    _moments(images, rows)
    assert 0 < images.most <= 256
    streamed(images).resident()
    assert images.most <= 1024


@pytest.mark.parametrize("residency", ["memory", "disk"])
def test_training_is_the_same(residency: Residency, tmp_path: Path) -> None:
    _, images, y = problem()
    source = streamed(images.numpy())
    view = source if residency == "disk" else source.resident()
    model = train(LabelTask(network(dims=2), view, y), SUBSET, TRAINING, seed=3, folder=tmp_path, meta={})
    expected = train(
        LabelTask(network(dims=2), source.resident(), y),
        SUBSET,
        TRAINING,
        seed=3,
        folder=tmp_path / "r",
        meta={},
    )
    every = torch.arange(len(y))
    assert torch.equal(predict(model, view, every), predict(expected, source.resident(), every))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A window set, a run of its first fold with inputs in memory, and one with inputs on disk."""
    place = tmp_path_factory.mktemp("runs")
    windows().save(place / "w")
    chosen = recipe(TWO_CANDIDATES)
    for residency in ("memory", "disk"):
        run = start_run(place / residency, place / "w", chosen)
        train_run(run, chosen, only_folds=[1], device="cpu", residency=residency)
    return place


def test_a_run_from_disk_ends_in_the_same_students(runs: Path) -> None:
    memory, disk = (Run.open(runs / residency) for residency in ("memory", "disk"))
    assert said(disk) == said(memory)
    for run, kept in ((memory, "memory"), (disk, "disk")):
        account = read_json(run.fold_run(1, 0).folder / "inputs.json")
        assert (account["signals"]["kept"], account["images"]["kept"]) == (kept, kept)
        assert account["signals"]["bytes"] == 72 * 2 * 32 * 4
        assert account["images"]["bytes"] == 72 * 2 * 16 * 16 * 2
        assert account["free_bytes"] > 0


@pytest.mark.parametrize(("begun", "ended"), [("disk", "disk"), ("disk", "memory"), ("memory", "disk")])
def test_it_may_be_interrupted_and_go_on_where_there_is_other_memory(
    begun: Residency, ended: Residency, runs: Path, tmp_path: Path
) -> None:
    out, chosen = tmp_path / "r", recipe(TWO_CANDIDATES)
    with pytest.raises(KeyboardInterrupt):
        train_run(
            start_run(out, runs / "w", chosen),
            chosen,
            only_folds=[1],
            device="cpu",
            residency=begun,
            progress=interrupt_at(10),  # in the training of the second candidate
        )
    assert Run.open(out).finished() == []
    train_run(continue_run(out, runs / "w", chosen), chosen, only_folds=[1], device="cpu", residency=ended)
    assert said(Run.open(out)) == said(Run.open(runs / "memory"))


def test_where_they_lie_is_told(tmp_path: Path) -> None:
    told: list[tuple[str, str]] = []
    fit_and_apply(
        windows(),
        Fold(1, test=("1", "2"), validation=("3",), fit=("4", "5", "6")),
        Topology(size=(64, 64)),
        tmp_path,
        CPU,
        lambda task, done, total, note="": told.append((task, note)),
        "disk",
    )
    task, note = told[-1]
    assert task == "fold 1, inputs"
    assert note.startswith("signals 0 MB on disk, images 1 MB on disk; ")
    assert note.endswith(" MB of cpu memory were free")


TRAIN = """
import resource, sys
from pathlib import Path
import torch
from topokd_edge.distill.recipe import load_recipe
from topokd_edge.distill.run_training import start_run, train_run

torch.set_num_threads(1)
place, residency = Path(sys.argv[1]), sys.argv[2]
recipe = load_recipe("demo", [
    "split.folds=2", "split.validation_subjects=1", "signal_teacher.network={ depth = 10 }",
    "topology_teacher.network={ depth = 10, stem_stride = 2 }", "topology_teacher.training.batch_size=16",
    *(f"{part}.epochs=1" for part in ("signal_teacher.training", "topology_teacher.training",
                                      "student.scratch", "student.distilled")),
])
run = start_run(place / f"{residency}-warm", place / "small", recipe)
train_run(run, recipe, only_folds=[1], device="cpu", residency=residency)
used = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmData"))
limit = int(used.split()[1]) * 1024 + (ROOM << 20)
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
run = start_run(place / residency, place / "large", recipe)
train_run(run, recipe, only_folds=[1], device="cpu", residency=residency)
"""
ROOM = 400
"""MB beyond what a small training takes: less than the images of the large set (419 MB). From disk the large
training needed 275, in memory 685."""


@pytest.mark.slow
def test_a_set_larger_than_memory_trains_from_disk(tmp_path: Path) -> None:
    # Memory of the process itself is limited (RLIMIT_DATA); pages of mapped files, which the system can
    # take back at any time, do not count.
    for name, count in (("small", 64), ("large", 3200)):  # images: 8 MB and 419 MB
        rng = np.random.default_rng(0)
        x = rng.normal(0, 1, (count, 16, 24)).astype(np.float32)
        subjects = [str(1 + number * 4 // count) for number in range(count)]
        windows_of(x, np.arange(count) % 2, subjects, ("a", "b")).save(tmp_path / name)
    script = TRAIN.replace("ROOM", str(ROOM))
    ended = {
        residency: subprocess.run(
            [sys.executable, "-c", script, str(tmp_path), residency],
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            check=False,
        )
        for residency in ("disk", "memory")
    }
    assert ended["disk"].returncode == 0, ended["disk"].stderr[-2000:]
    assert ended["memory"].returncode != 0
    assert "alloc" in ended["memory"].stderr  # torch: can't allocate memory
    assert (tmp_path / "disk/fold-1/seed-0/student.distilled/predictions.npz").is_file()


@pytest.mark.parametrize("inputs", ["auto", "memory", "disk"])
def test_the_command_line_decides_where_inputs_lie(
    inputs: str, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(run_training, "train_run", lambda *_, residency, **__: asked.append(residency))
    command = ["train", "--data", str(runs / "w"), "--recipe", "demo", "--out", str(tmp_path / "r")]
    done = CliRunner().invoke(app, [*command, *([] if inputs == "auto" else ["--inputs", inputs])])
    assert done.exit_code == 0, done.output
    assert asked == [inputs]
