"""Distillation: teachers answer for the right window and never learn; every setting counts."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch
from made_training import CLASSES, SUBSET, distill_task, network, problem
from torch import Tensor, nn

from topokd_edge.distill.losses import soft_cross_entropy
from topokd_edge.distill.mixup import draw_mix
from topokd_edge.distill.recipe import Distilling
from topokd_edge.distill.tasks import DistillTask, LabelTask, Teacher
from topokd_edge.models.wrn import WideResNet, WRNSpec

BATCH = torch.tensor([3, 17, 0, 8, 21, 5, 12, 9])
SETTINGS: dict[str, Any] = {
    "tau": 0.7,
    "eta": 0.6,
    "temperature": 4.0,
    "alpha_signal": 0.3,
    "alpha_topology": 0.5,
    "mixup_share": 0.5,
}


class Flat(nn.Module):
    """A network whose logits are its input, flattened: linear, so it knows every mixed sample's answer."""

    def __init__(self, inputs: Tensor) -> None:
        super().__init__()
        self.spec = WRNSpec(dims=1, depth=10, width=1, in_channels=1, classes=inputs[0].numel())

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


def flat(inputs: Tensor) -> WideResNet:
    return cast(WideResNet, Flat(inputs))


def losses(task: DistillTask, seed: int = 0) -> dict[str, float]:
    task.model.train()
    return {key: value.item() for key, value in task.losses(BATCH, np.random.default_rng(seed)).items()}


@pytest.mark.parametrize("loader_seed", [0, 1])
@pytest.mark.parametrize(("alpha_signal", "alpha_topology"), [(0.0, 0.0), (0.0, 1.0), (1.0, 1.0), (0.3, 2.0)])
def test_teachers_answer_for_the_right_window(
    loader_seed: int, alpha_signal: float, alpha_topology: float
) -> None:
    # Window i is the i-th unit vector, as a signal and as an image. A student that says what it sees agrees
    # with teachers that say what they see, in any order of windows, mixed or not.
    signals, images = torch.eye(10).view(10, 1, 10), 7 * torch.eye(10).view(10, 1, 2, 5)
    everyone = torch.arange(10)
    task = DistillTask(
        flat(signals),
        signals,
        everyone,
        Teacher(flat(signals), signals, everyone.flip(0)),
        Teacher(flat(images), images / 7, everyone),
        Distilling(alpha_signal=alpha_signal, alpha_topology=alpha_topology, mixup_share=0.5),
    )
    rng = np.random.default_rng(loader_seed)
    for batch in torch.split(torch.from_numpy(rng.permutation(10)), 4):
        found = task.losses(batch, rng)
        assert found["kl_signal"].item() == pytest.approx(0, abs=1e-6)
        assert found["kl_topology"].item() == pytest.approx(0, abs=1e-6)


def test_a_teacher_of_shifted_windows_is_noticed() -> None:
    # What the test above would miss if the divergence were always zero.
    signals = torch.eye(10).view(10, 1, 10)
    everyone = torch.arange(10)
    shifted = Teacher(flat(signals), signals.roll(1, 0), everyone)
    right = Teacher(flat(signals), signals, everyone)
    task = DistillTask(
        flat(signals), signals, everyone, shifted, right, Distilling(alpha_signal=0, alpha_topology=0)
    )
    found = task.losses(everyone, np.random.default_rng(0))
    assert found["kl_signal"].item() > 0.01
    assert found["kl_topology"].item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_a_window_without_an_answer_is_refused(alpha: float) -> None:
    task = distill_task(alpha_signal=alpha, alpha_topology=alpha)
    stranger = int(SUBSET.validation[0])
    with pytest.raises(RuntimeError, match=rf"does not answer for: \[{stranger}\]"):
        task.losses(torch.tensor([0, stranger, 1]), np.random.default_rng(0))


def test_teachers_stay_frozen_and_in_evaluation_mode() -> None:
    x, images, y = problem()
    signal, topology = network(1), network(2, dims=2)
    before = [
        {key: value.clone() for key, value in model.state_dict().items()} for model in (signal, topology)
    ]
    teachers = Teacher(signal, x, SUBSET.fit), Teacher(topology, images, SUBSET.fit)
    task = DistillTask(network(3), x, y, *teachers, Distilling(alpha_signal=0.5, alpha_topology=1.0))
    optimiser = torch.optim.SGD(task.model.parameters(), lr=0.1)
    rng = np.random.default_rng(0)
    norm = next(module for module in task.model.modules() if isinstance(module, nn.BatchNorm1d))
    assert norm.running_mean is not None
    running = norm.running_mean.clone()
    for _ in range(3):
        task.model.train()
        optimiser.zero_grad()
        task.losses(BATCH, rng)["loss"].backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    assert not torch.equal(norm.running_mean, running)
    taught = {id(parameter) for parameter in task.model.parameters()}
    for model, state in zip((signal, topology), before, strict=True):
        assert not any(module.training for module in model.modules())
        for parameter in model.parameters():
            assert parameter.grad is None
            assert not parameter.requires_grad
            assert id(parameter) not in taught
        for key, value in model.state_dict().items():
            assert torch.equal(value, state[key]), key


def test_a_teacher_woken_into_training_mode_is_refused() -> None:
    x, _, _ = problem()
    model = network(1)
    teacher = Teacher(model, x, SUBSET.fit)
    model.train()
    with pytest.raises(RuntimeError, match="training mode"):
        teacher.logits(BATCH, draw_mix(len(BATCH), 1.0, 1.0, np.random.default_rng(0), BATCH.device))


@pytest.mark.parametrize(
    ("alphas", "rows"), [((0.2, 0.2), 8), ((0.0, 0.0), 8), ((0.15, 0.2), 16), ((0.0, 0.2), 16)]
)
def test_equal_alphas_share_one_batch(alphas: tuple[float, float], rows: int) -> None:
    seen: list[int] = []
    student = network(3)
    student.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    losses(distill_task(student, alpha_signal=alphas[0], alpha_topology=alphas[1]))
    assert seen == [rows]


def test_tau_0_is_cross_entropy_on_the_mixed_batch_alone() -> None:
    x, _, y = problem()
    changes = SETTINGS | {"tau": 0.0, "alpha_signal": 1.0, "alpha_topology": 1.0}
    found = losses(distill_task(**changes))
    mix = draw_mix(len(BATCH), 1.0, 0.5, np.random.default_rng(0), BATCH.device)
    logits = network(3).train()(mix(x[BATCH]))
    expected = soft_cross_entropy(logits, mix(torch.eye(CLASSES)[y[BATCH]]))
    assert found["loss"] == found["cross_entropy"] == pytest.approx(expected.item(), rel=1e-6)


def test_the_loss_is_the_published_sum() -> None:
    found = losses(distill_task(**SETTINGS))
    teachers = 0.6 * found["kl_signal"] + 0.4 * found["kl_topology"]
    assert found["loss"] == pytest.approx(0.3 * found["cross_entropy"] + 0.7 * teachers, rel=1e-5)
    assert min(found["kl_signal"], found["kl_topology"], found["cross_entropy"]) > 0


@pytest.mark.parametrize(("eta", "ignored"), [(1.0, "topology"), (0.0, "signal")])
def test_the_teacher_without_weight_is_ignored(eta: float, ignored: str) -> None:
    x, images, y = problem()
    settings = Distilling(**SETTINGS | {"eta": eta})

    def loss_with(signal: int, topology: int) -> float:
        teachers = (
            Teacher(network(signal), x, SUBSET.fit),
            Teacher(network(topology, dims=2), images, SUBSET.fit),
        )
        return losses(DistillTask(network(3), x, y, *teachers, settings))["loss"]

    usual, other_signal, other_topology = loss_with(1, 2), loss_with(5, 2), loss_with(1, 6)
    assert (usual == other_signal) == (ignored == "signal")
    assert (usual == other_topology) == (ignored == "topology")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("tau", 0.4),
        ("eta", 0.2),
        ("temperature", 2.0),
        ("kl_reduction", "paper"),
        ("alpha_signal", 2.0),
        ("alpha_topology", 2.0),
        ("mixup_share", 1.0),
    ],
)
def test_every_option_changes_the_loss(option: str, value: object) -> None:
    usual, changed = losses(distill_task(**SETTINGS)), losses(distill_task(**SETTINGS | {option: value}))
    assert abs(usual["loss"] - changed["loss"]) > 1e-4


def test_no_option_is_forgotten_here() -> None:
    # `annealing` is not a matter of the loss: it is tested with the whole run.
    assert {*SETTINGS, "kl_reduction", "annealing"} == set(Distilling.model_fields)


def test_labels_alone() -> None:
    x, _, y = problem()
    task = LabelTask(network(3).train(), x, y)
    found = task.losses(BATCH, np.random.default_rng(0))
    log_p = torch.log_softmax(network(3).train()(x[BATCH]), 1)
    expected = -sum(log_p[i, y[window]].item() for i, window in enumerate(BATCH.tolist())) / len(BATCH)
    assert list(found) == ["loss"]
    assert found["loss"].item() == pytest.approx(expected, rel=1e-5)
