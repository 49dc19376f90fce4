"""Distillation: teachers answer for the right window and never learn; every setting counts."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch
from made_training import CLASSES, SUBSET, distill_task, network, outspoken, problem
from torch import Tensor, nn

from topokd_edge.distill.losses import soft_cross_entropy
from topokd_edge.distill.method import Distilling
from topokd_edge.distill.mixup import draw_mix
from topokd_edge.distill.tasks import DistillTask, LabelTask
from topokd_edge.distill.teacher import Teacher
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
        {
            "signal": Teacher(flat(signals), signals, everyone.flip(0)),
            "topology": Teacher(flat(images), images / 7, everyone),
        },
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
    teachers = {"signal": shifted, "topology": right}
    settings = Distilling(alpha_signal=0, alpha_topology=0)
    task = DistillTask(flat(signals), signals, everyone, teachers, settings)
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
    teachers = {
        "signal": Teacher(signal, x, SUBSET.fit),
        "topology": Teacher(topology, images, SUBSET.fit),
    }
    task = DistillTask(network(3), x, y, teachers, Distilling(alpha_signal=0.5, alpha_topology=1.0))
    optimiser = torch.optim.SGD(task.model.parameters(), lr=0.1)
    rng = np.random.default_rng(0)
    norm = next(module for module in task.model.modules() if isinstance(module, nn.BatchNorm2d))
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


@pytest.mark.parametrize(("share", "rows"), [(None, 8), (0.5, 8), (0.25, 16), (0.0, 16)])
def test_equal_shares_share_one_batch(share: float | None, rows: int) -> None:
    seen: list[Tensor] = []
    student = network(3)
    student.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    alphas = {"alpha_signal": 1.0, "alpha_topology": 1.0}
    losses(distill_task(student, **alphas, mixup_share=0.5, mixup_share_topology=share))
    assert len(seen[0]) == rows
    clean = problem()[0][BATCH]
    mixed = [int((part != clean).any(2).any(1).sum()) for part in torch.split(seen[0], 8)]
    assert mixed[0] == 4
    if share is not None:
        assert mixed[-1] == 8 * share


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
        teachers = {
            "signal": Teacher(network(signal), x, SUBSET.fit),
            "topology": Teacher(network(topology, dims=2), images, SUBSET.fit),
        }
        return losses(DistillTask(network(3), x, y, teachers, settings))["loss"]

    usual, other_signal, other_topology = loss_with(1, 2), loss_with(5, 2), loss_with(1, 6)
    assert (usual == other_signal) == (ignored == "signal")
    assert (usual == other_topology) == (ignored == "topology")


CHANGES: list[tuple[str, object]] = [
    ("tau", 0.4),
    ("eta", 0.2),
    ("temperature", 2.0),
    ("kl_reduction", "paper"),
    ("alpha_signal", 2.0),
    ("alpha_topology", 2.0),
    ("mixup_share", 1.0),
    ("mixup_share_topology", 1.0),
    ("mixup_draw", "published"),
    ("teachers", ("signal",)),
    ("teachers", ("topology",)),
    ("teachers", ()),
    ("weighting", "aver"),
    ("weighting", "ebkd"),
    ("weighting", "ca-mkd"),
    ("kl_reduction", "ca-mkd"),
    ("logit_standardisation", "tda-kd"),
    ("logit_standardisation", "mix-kd"),
    ("similarity", 700.0),
    ("label_smoothing", 0.2),
    ("input_noise", 0.5),
]


@pytest.mark.parametrize(("option", "value"), CHANGES)
def test_every_option_changes_the_loss(option: str, value: object) -> None:
    usual, changed = losses(distill_task(**SETTINGS)), losses(distill_task(**SETTINGS | {option: value}))
    assert abs(usual["loss"] - changed["loss"]) > 1e-4


def test_no_option_is_forgotten_here() -> None:
    # Where the student starts, and what its teachers bear, is tested with the whole run.
    not_the_loss = {"label", "annealing", "annealing_from", "alpha", "confusion_budget"}
    assert {*SETTINGS, *not_the_loss, *(option for option, _ in CHANGES)} == set(Distilling.model_fields)


def test_labels_alone() -> None:
    x, _, y = problem()
    task = LabelTask(network(3).train(), x, y)
    found = task.losses(BATCH, np.random.default_rng(0))
    log_p = torch.log_softmax(network(3).train()(x[BATCH]), 1)
    expected = -sum(log_p[i, y[window]].item() for i, window in enumerate(BATCH.tolist())) / len(BATCH)
    assert list(found) == ["loss"]
    assert found["loss"].item() == pytest.approx(expected, rel=1e-5)


def test_a_teacher_that_is_not_named_is_not_needed() -> None:
    x, images, y = problem()
    only = {"topology": Teacher(network(2, dims=2), images, SUBSET.fit)}
    settings = Distilling(**SETTINGS, teachers=("topology",))
    found = losses(DistillTask(network(3), x, y, only, settings))  # type: ignore[arg-type]
    assert found["loss"] == pytest.approx(0.3 * found["cross_entropy"] + 0.7 * found["kl_topology"], rel=1e-5)
    assert "kl_signal" not in found


@pytest.mark.parametrize(("teachers", "alpha"), [(("signal",), 0.3), (("topology",), 0.5), ((), 0.3)])
def test_one_teacher_has_one_batch_with_its_own_alpha(teachers: tuple[str, ...], alpha: float) -> None:
    seen: list[Tensor] = []
    student = network(3)
    student.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    losses(distill_task(student, **SETTINGS, teachers=teachers))
    x, _, _ = problem()
    mix = draw_mix(len(BATCH), alpha, 0.5, np.random.default_rng(0), BATCH.device)
    assert torch.equal(seen[0], mix(x[BATCH]))


def test_without_teachers_labels_alone_teach() -> None:
    found = losses(distill_task(**SETTINGS, teachers=()))
    assert found["loss"] == found["cross_entropy"] > 0
    assert not any(name.startswith("kl") for name in found)


@pytest.mark.parametrize("alphas", [(0.4, 0.4), (0.3, 0.5)])
def test_similarity_is_that_of_the_features(alphas: tuple[float, float]) -> None:
    # Features are taken here by hooks on the last block of each stage.
    x, images, _ = problem()
    settings = SETTINGS | {"alpha_signal": alphas[0], "alpha_topology": alphas[1], "similarity": 10.0}
    found = losses(distill_task(network(3), **settings))
    rng = np.random.default_rng(0)
    first = draw_mix(len(BATCH), alphas[0], 0.5, rng, BATCH.device)
    second = first if alphas[0] == alphas[1] else draw_mix(len(BATCH), alphas[1], 0.5, rng, BATCH.device)
    mixes = [first] if second is first else [first, second]
    own = stages_of(network(3).train(), torch.cat([mix(x[BATCH]) for mix in mixes]))
    signal = stages_of(outspoken(network(1)).eval(), first(x[BATCH]))
    topology = stages_of(outspoken(network(2, dims=2)).eval(), second(images[BATCH].float()))
    parts = [[stage[place : place + 8] for stage in own] for place in range(0, 8 * len(mixes), 8)]
    if second is first:
        expected = difference(parts[0], [(0.6, signal), (0.4, topology)])
    else:
        expected = 0.6 * difference(parts[0], [(1, signal)]) + 0.4 * difference(parts[1], [(1, topology)])
    assert found["similarity"] == pytest.approx(expected, rel=1e-4)
    rest = 0.3 * found["cross_entropy"] + 0.7 * found["teachers"]
    assert found["loss"] == pytest.approx(rest + 10 * found["similarity"], rel=1e-5)


def stages_of(model: WideResNet, x: Tensor) -> list[Tensor]:
    kept: list[Tensor] = []
    for block in model.blocks:  # one block a stage
        block.register_forward_hook(lambda _, args, output: kept.append(output.detach()))
    model(x)
    return kept


def difference(own: list[Tensor], teachers: list[tuple[float, list[Tensor]]]) -> float:
    total = 0.0
    for stage, features in enumerate(own):
        flat = [(1.0, features)], [(weight, stages[stage]) for weight, stages in teachers]
        mine, theirs = (sum(w * (f.flatten(1) @ f.flatten(1).T) for w, f in side) for side in flat)
        rows = [side / side.norm(dim=1, keepdim=True) for side in (mine, theirs)]  # type: ignore[union-attr]
        total += ((rows[0] - rows[1]) ** 2).mean().item()
    return total / len(own)


def test_maps_of_teachers_carry_no_gradient() -> None:
    task = distill_task(**SETTINGS, similarity=10.0)
    task.model.train()
    task.losses(BATCH, np.random.default_rng(0))["similarity"].backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None for p in task.model.stem.parameters())
    for teacher in task._teachers.values():
        assert all(parameter.grad is None for parameter in teacher._model.parameters())


def test_noise_is_what_student_and_signal_teacher_see() -> None:
    # A student and a signal teacher that say what they see agree whatever the noise; the images stay clean.
    signals, images = torch.eye(10).view(10, 1, 10), torch.eye(10).view(10, 1, 2, 5)
    everyone = torch.arange(10)
    seen: list[Tensor] = []
    student = flat(signals)
    student.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    teachers = {
        "signal": Teacher(flat(signals), signals, everyone),
        "topology": Teacher(flat(images), images, everyone),
    }
    settings = Distilling(alpha_signal=0.0, alpha_topology=0.0, input_noise=0.5)
    task = DistillTask(student, signals, everyone, teachers, settings)  # type: ignore[arg-type]
    found = task.losses(everyone, np.random.default_rng(0))
    assert found["kl_signal"].item() == pytest.approx(0, abs=1e-6)
    assert found["kl_topology"].item() > 0.01
    noise = (seen[0] - signals).numpy()
    assert noise.std() == pytest.approx(0.5, rel=0.3)
    again = task.losses(everyone, np.random.default_rng(0))
    assert again["loss"].item() == found["loss"].item()


def test_entropies_of_what_is_learned_from() -> None:
    plain = losses(distill_task(alpha_signal=0.0, alpha_topology=0.0))
    hot = losses(distill_task(alpha_signal=0.0, alpha_topology=0.0, temperature=12.0))
    mixed = losses(distill_task(alpha_signal=1.0, alpha_topology=1.0))
    assert plain["entropy_labels"] == 0 < mixed["entropy_labels"] < np.log(CLASSES)
    assert hot["entropy_signal"] > plain["entropy_signal"] > 0
    assert mixed["entropy_signal"] > plain["entropy_signal"]


@pytest.mark.parametrize("alpha", [0.0, 0.8])
def test_a_teacher_may_learn_with_mixup(alpha: float) -> None:
    x, _, y = problem()
    found = LabelTask(network(3).train(), x, y, mixup_alpha=alpha).losses(BATCH, np.random.default_rng(4))
    mix = draw_mix(len(BATCH), alpha, 1.0, np.random.default_rng(4), BATCH.device)
    expected = soft_cross_entropy(network(3).train()(mix(x[BATCH])), mix(torch.eye(CLASSES)[y[BATCH]]))
    assert found["loss"].item() == pytest.approx(expected.item(), rel=1e-6)
    assert (len(mix.mixed) == 0) == (alpha == 0)
