"""Training: repeatable and resumable to the bit, honest in its choice of epoch, never keeping NaN."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_training import SUBSET, TRAINING, distill_task, interrupt_at, label_task, network, problem
from torch import Tensor

from topokd_edge.distill import trainer
from topokd_edge.distill.checkpoint import META, WEIGHTS, load_model
from topokd_edge.distill.parts import Training
from topokd_edge.distill.tasks import LabelTask
from topokd_edge.distill.trainer import (
    METRICS,
    STATE,
    Subset,
    Task,
    learning_rate,
    predict,
    steps_per_epoch,
    train,
)
from topokd_edge.errors import BadInputError, TopokdError
from topokd_edge.models.wrn import WideResNet

MIXED = {"alpha_signal": 0.4, "alpha_topology": 0.8}


def run(task: Task, folder: Path, training: Training = TRAINING, seed: int = 7, **options: Any) -> WideResNet:
    return train(task, SUBSET, training, seed=seed, folder=folder, meta={"params": 1}, **options)


def files_of(folder: Path) -> tuple[bytes, dict[str, Any], list[dict[str, Any]]]:
    """Weights, description, and metrics without the time they took."""
    rows = [json.loads(line) for line in (folder / METRICS).read_text("utf-8").splitlines()]
    meta = json.loads((folder / META).read_text("utf-8"))
    return (folder / WEIGHTS).read_bytes(), meta, [{**row, "seconds": 0} for row in rows]


@dataclass
class Watched:
    """A task that notes its batches, and may break off in the middle of an epoch."""

    task: Task
    break_at: int = -1
    batches: list[list[int]] = field(default_factory=list)

    @property
    def model(self) -> WideResNet:
        return self.task.model

    @property
    def inputs(self) -> Tensor:
        return self.task.inputs

    @property
    def y(self) -> Tensor:
        return self.task.y

    def losses(self, batch: Tensor, rng: np.random.Generator) -> dict[str, Tensor]:
        if len(self.batches) == self.break_at:
            raise KeyboardInterrupt
        self.batches.append(batch.tolist())
        return self.task.losses(batch, rng)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A distillation with mixup that was never interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    run(distill_task(**MIXED), folder)
    return folder


def test_the_same_seed_gives_the_same_files(whole: Path, tmp_path: Path) -> None:
    run(distill_task(**MIXED), tmp_path / "again")
    run(distill_task(**MIXED), tmp_path / "other", seed=8)
    assert files_of(tmp_path / "again") == files_of(whole)
    assert files_of(tmp_path / "other")[0] != files_of(whole)[0]


@pytest.mark.parametrize("call", [0, 1, 2, 3])
def test_interrupted_between_epochs_and_resumed(call: int, whole: Path, tmp_path: Path) -> None:
    # Told before every epoch and once at the end: call 3 lies between the last epoch and the checkpoint.
    with pytest.raises(KeyboardInterrupt):
        run(distill_task(**MIXED), tmp_path, progress=interrupt_at(call))
    assert not (tmp_path / META).exists()
    run(distill_task(**MIXED), tmp_path)
    assert files_of(tmp_path) == files_of(whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([META, METRICS, WEIGHTS])


@pytest.mark.parametrize("step", [1, 4, 8])
def test_interrupted_in_the_middle_of_an_epoch_and_resumed(step: int, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(Watched(distill_task(**MIXED), step), tmp_path)
    run(distill_task(**MIXED), tmp_path)
    assert files_of(tmp_path) == files_of(whole)


def test_interrupted_again_and_again(whole: Path, tmp_path: Path) -> None:
    for _ in range(TRAINING.epochs):
        with pytest.raises(KeyboardInterrupt):
            run(distill_task(**MIXED), tmp_path, progress=interrupt_at(1))
    run(distill_task(**MIXED), tmp_path)
    assert files_of(tmp_path) == files_of(whole)


@pytest.mark.parametrize("name", [STATE, METRICS])
def test_interrupted_while_writing(
    name: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = "write_bytes" if name == STATE else "write_text"
    write, calls = getattr(trainer, kind), iter(range(100))

    def break_off(path: Path, data: Any) -> None:
        if path.name == name and next(calls) == TRAINING.epochs - 1:  # after the last epoch
            raise KeyboardInterrupt
        write(path, data)

    monkeypatch.setattr(trainer, kind, break_off)
    with pytest.raises(KeyboardInterrupt):
        run(distill_task(**MIXED), tmp_path)
    monkeypatch.undo()
    run(distill_task(**MIXED), tmp_path)
    assert files_of(tmp_path) == files_of(whole)


def test_a_finished_model_is_loaded(whole: Path, tmp_path: Path) -> None:
    first = run(label_task(), tmp_path)
    watched = Watched(label_task())
    again = run(watched, tmp_path)
    assert watched.batches == []
    assert not again.training
    for key, value in first.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key


def test_it_learns(tmp_path: Path) -> None:
    model = run(label_task(), tmp_path, Training(epochs=8, batch_size=8, learning_rate=0.1))
    x, _, y = problem()
    assert (predict(model, x, SUBSET.validation).argmax(1) == y[SUBSET.validation]).float().mean() >= 0.85
    rows = files_of(tmp_path)[2]
    assert rows[-1]["train_loss"] < 0.5 * rows[0]["train_loss"]


def test_the_checkpoint_is_the_best_epoch(tmp_path: Path) -> None:
    model = run(label_task(), tmp_path, Training(epochs=6, batch_size=8, learning_rate=0.02))
    _, meta, rows = files_of(tmp_path)
    accuracies = [row["validation_accuracy"] for row in rows]
    assert [row["epoch"] for row in rows] == list(range(6))
    assert meta["epoch"] == accuracies.index(max(accuracies))
    x, _, y = problem()
    reached = (predict(model, x, SUBSET.validation).argmax(1) == y[SUBSET.validation]).float().mean().item()
    assert reached == meta["validation_accuracy"] == max(accuracies)
    assert meta["seed"] == 7
    assert meta["params"] == 1
    stored, _ = load_model(tmp_path)
    for key, value in model.state_dict().items():
        assert torch.equal(stored.state_dict()[key], value), key


@pytest.mark.parametrize(
    ("accuracies", "best"),
    [([0.5, 0.9, 0.9, 0.2], 1), ([0.0, 0.0, 0.0, 0.0], 0), ([0.1, 0.3, 0.2, 0.4], 3)],
)
@pytest.mark.parametrize("interrupted_at", [None, 3])
def test_of_equally_good_epochs_the_earliest(
    accuracies: list[float],
    best: int,
    interrupted_at: int | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[dict[str, Tensor]] = []

    def accuracy(task: Task, windows: Tensor, epoch: int) -> float:
        seen.append({key: value.clone() for key, value in task.model.state_dict().items()})
        return accuracies[epoch]

    monkeypatch.setattr(trainer, "_accuracy", accuracy)
    four = Training(epochs=4, batch_size=8)
    if interrupted_at is not None:
        with pytest.raises(KeyboardInterrupt):
            run(label_task(), tmp_path, four, progress=interrupt_at(interrupted_at))
    model = run(label_task(), tmp_path, four)
    assert files_of(tmp_path)[1]["epoch"] == best
    for key, value in model.state_dict().items():
        assert torch.equal(seen[best][key], value), key


def test_validation_windows_are_never_learned_from(tmp_path: Path) -> None:
    watched = Watched(distill_task(**MIXED))
    run(watched, tmp_path)
    per_epoch = steps_per_epoch(len(SUBSET.fit), TRAINING.batch_size)
    assert len(watched.batches) == TRAINING.epochs * per_epoch
    orders = []
    for epoch in range(TRAINING.epochs):
        batches = watched.batches[epoch * per_epoch : (epoch + 1) * per_epoch]
        orders.append([window for batch in batches for window in batch])
        assert sorted(orders[-1]) == SUBSET.fit.tolist()
    assert orders[0] != orders[1]


def test_a_validation_window_changes_no_weight(tmp_path: Path) -> None:
    x, _, y = problem()
    changed = x.clone()
    changed[SUBSET.validation] += 5
    one_epoch = Training(epochs=1, batch_size=8)
    run(LabelTask(network(), x, y), tmp_path / "a", one_epoch)
    run(LabelTask(network(), changed, y), tmp_path / "b", one_epoch)
    assert files_of(tmp_path / "a")[0] == files_of(tmp_path / "b")[0]


def test_a_loss_that_is_not_finite_stops_with_its_place(tmp_path: Path) -> None:
    task = label_task()
    bad = int(SUBSET.fit[4])
    task.inputs[bad] = torch.nan
    watched = Watched(task)
    with pytest.raises(TopokdError) as caught:
        run(watched, tmp_path)
    step = next(number for number, batch in enumerate(watched.batches) if bad in batch)
    assert f"epoch 0, step {step}: loss = nan" in caught.value.message
    assert str(watched.batches[step]) in caught.value.message
    assert len(watched.batches) == steps_per_epoch(len(SUBSET.fit), TRAINING.batch_size)  # no epoch more
    assert not (tmp_path / META).exists()
    assert not (tmp_path / WEIGHTS).exists()


def test_a_network_that_answers_nan_is_not_kept(tmp_path: Path) -> None:
    # No batch has this window, so every loss is finite.
    task = label_task()
    bad = int(SUBSET.validation[2])
    task.inputs[bad] = torch.inf
    with pytest.raises(TopokdError, match=rf"after epoch 0 .* not finite; validation windows \[{bad}\]"):
        run(task, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_published_steps() -> None:
    # Published for 200 epochs at 0.05: 0.05, 0.01, 0.001, 0.0001 from epoch 0, 11, 66, 133 on.
    training = Training(epochs=200, learning_rate=0.05, schedule="steps")
    for epoch, rate in enumerate([0.05] * 11 + [0.01] * 55 + [0.001] * 67 + [0.0001] * 67):
        for part in (0.0, 0.5, 0.999):
            assert learning_rate(training, epoch + part) == pytest.approx(rate), epoch


def test_one_cycle() -> None:
    training = Training(epochs=40, learning_rate=0.1)
    rates = [learning_rate(training, step / 25) for step in range(40 * 25 + 1)]
    assert max(rates) == learning_rate(training, 12) == pytest.approx(0.1)  # 30 % of 40 epochs
    assert 0 < rates[0] < 0.005
    assert all(a <= b for a, b in pairwise(rates[:301]))
    assert all(a >= b for a, b in pairwise(rates[300:]))
    assert 0 <= rates[-1] < 1e-8
    assert rates[-2] < 1e-6
    assert learning_rate(training, 26) == pytest.approx(0.05)  # half-way down


def test_the_learning_rate_is_what_the_optimiser_gets(tmp_path: Path) -> None:
    run(label_task(), tmp_path)
    for row in files_of(tmp_path)[2]:
        assert row["lr"] == pytest.approx(learning_rate(TRAINING, row["epoch"] + 2 / 3))  # last of 3 steps


def test_momentum_and_weight_decay_are_those_of_the_settings(tmp_path: Path) -> None:
    """The same two steps by hand: v = m v + (g + d w), w = w - rate v (Sutskever et al., ICML 2013)."""
    training = Training(epochs=1, batch_size=11, learning_rate=0.05, momentum=0.6, weight_decay=0.3)
    watched = Watched(label_task())
    trained = run(watched, tmp_path, training)
    assert [len(batch) for batch in watched.batches] == [11, 11]
    again = label_task()
    weights = list(again.model.parameters())
    speeds = [torch.zeros_like(weight) for weight in weights]
    for step, batch in enumerate(watched.batches):
        again.model.train()
        loss = again.losses(torch.tensor(batch), np.random.default_rng(0))["loss"]
        gradients = torch.autograd.grad(loss, weights)
        with torch.no_grad():
            for weight, speed, gradient in zip(weights, speeds, gradients, strict=True):
                speed.mul_(0.6).add_(gradient + 0.3 * weight)
                weight.sub_(learning_rate(training, step / 2) * speed)
    for found, expected in zip(trained.parameters(), weights, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("windows", "batch", "steps"),
    [(64, 64, 1), (65, 64, 1), (66, 64, 2), (128, 64, 2), (2, 64, 1), (130, 2, 65), (131, 2, 65)],
)
def test_steps_per_epoch(windows: int, batch: int, steps: int) -> None:
    assert steps_per_epoch(windows, batch) == steps


def test_with_nobody_to_choose_on_the_last_epoch_is_kept(tmp_path: Path) -> None:
    alone = Subset(SUBSET.fit, SUBSET.fit[:0])
    ends: list[WideResNet] = []

    def remember(_name: str, done: int, _total: int, note: str) -> None:
        assert note == ""
        ends.append(copy.deepcopy(task.model))

    task = label_task()
    model = train(task, alone, TRAINING, seed=7, folder=tmp_path, meta={}, progress=remember)
    _, meta, rows = files_of(tmp_path)
    assert (meta["epoch"], meta["validation_accuracy"]) == (TRAINING.epochs - 1, None)
    assert [row["validation_accuracy"] for row in rows] == [None] * TRAINING.epochs
    for key, value in model.state_dict().items():
        assert torch.equal(value, ends[-1].state_dict()[key]), key
    folder = tmp_path / "again"
    with pytest.raises(KeyboardInterrupt):
        train(label_task(), alone, TRAINING, seed=7, folder=folder, meta={}, progress=interrupt_at(2))
    again = train(label_task(), alone, TRAINING, seed=7, folder=folder, meta={})
    for key, value in again.state_dict().items():
        assert torch.equal(value, model.state_dict()[key]), key


@pytest.mark.parametrize("fit", [1, 0])
def test_nothing_to_learn_from_is_refused(fit: int, tmp_path: Path) -> None:
    subset = Subset(torch.arange(fit), torch.arange(10, 14))
    with pytest.raises(BadInputError, match=f"{fit} windows to learn from, expected at least 2"):
        train(label_task(), subset, TRAINING, seed=0, folder=tmp_path, meta={})
    assert list(tmp_path.iterdir()) == []


def unfinished(folder: Path, seed: int = 7) -> Path:
    with pytest.raises(KeyboardInterrupt):
        run(label_task(), folder, seed=seed, progress=interrupt_at(2))
    return folder / STATE


@pytest.mark.parametrize("damage", ["cut", "text", "empty", "flipped header"])
def test_a_damaged_state_is_refused(damage: str, tmp_path: Path) -> None:
    state = unfinished(tmp_path)
    data = state.read_bytes()
    state.write_bytes(
        {
            "cut": data[: len(data) // 2],
            "text": b"not a state",
            "empty": b"",
            "flipped header": data.replace(b'\\"seed\\"', b'\\"sead\\"'),
        }[damage]
    )
    with pytest.raises(BadInputError) as caught:
        run(label_task(), tmp_path)
    assert str(state) in caught.value.message
    assert "delete it" in caught.value.hint
    assert not (tmp_path / META).exists()


def test_the_state_of_another_training_is_refused(tmp_path: Path) -> None:
    state = unfinished(tmp_path, seed=8)
    with pytest.raises(BadInputError, match="seed 8, expected 7"):
        run(label_task(), tmp_path)
    x, _, y = problem()
    with pytest.raises(BadInputError, match=STATE):
        run(LabelTask(network(classes=3), x, y), tmp_path, seed=8)
    assert state.is_file()


def test_a_finished_model_of_another_shape_is_refused(tmp_path: Path) -> None:
    run(label_task(), tmp_path)
    x, _, y = problem()
    with pytest.raises(BadInputError, match=r"classes=2.* expected .*classes=3"):
        run(LabelTask(network(classes=3), x, y), tmp_path)


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    run(label_task(), tmp_path)
    weights = tmp_path / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(BadInputError, match=WEIGHTS):
        run(label_task(), tmp_path)
