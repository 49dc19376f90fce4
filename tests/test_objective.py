"""The terms of a distillation step, each against its formula written out in numpy float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from topokd_edge.distill.losses import (
    entropies,
    similarity_loss,
    similarity_map,
    standardised,
    teacher_weights,
)
from topokd_edge.distill.method import Distilling, TeacherName
from topokd_edge.distill.objective import Lesson, label_loss, map_loss, teacher_loss

BATCH, CLASSES = 6, 4
Array = np.ndarray[Any, np.dtype[np.float64]]


def logits(seed: int) -> Tensor:
    return 3 * torch.randn(BATCH, CLASSES, generator=torch.Generator().manual_seed(seed))


def mixed_labels(seed: int) -> Tensor:
    """Labels as mixup leaves them: at most two classes a row."""
    rng = np.random.default_rng(seed)
    share = rng.beta(0.5, 0.5, (BATCH, 1))
    one, other = np.eye(CLASSES)[rng.integers(0, CLASSES, (2, BATCH))]
    return torch.from_numpy(share * one + (1 - share) * other).float()


def lessons() -> dict[TeacherName, Lesson]:
    return {
        "signal": Lesson(logits(1), mixed_labels(1), logits(3)),
        "topology": Lesson(logits(2), mixed_labels(2), logits(4)),
    }


def log_softmax(x: Array) -> Array:
    shifted = x - x.max(1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(1, keepdims=True)))


def kl(teacher: Array, student: Array) -> Array:
    """KL(teacher || student) of each row of logits."""
    log_p, log_q = log_softmax(teacher), log_softmax(student)
    return np.asarray((np.exp(log_p) * (log_p - log_q)).sum(1))


def told(settings: Distilling, which: dict[TeacherName, Lesson] | None = None) -> float:
    return teacher_loss(settings, which or lessons())["teachers"].item()


def arrays() -> list[tuple[Array, Array, Array]]:
    return [
        (item.teacher.double().numpy(), item.target.double().numpy(), item.student.double().numpy())
        for item in lessons().values()
    ]


@pytest.mark.parametrize("weighting", ["fixed", "aver", "ebkd", "ca-mkd"])
@pytest.mark.parametrize("reduction", ["batchmean", "paper", "ca-mkd"])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_two_teachers(weighting: Any, reduction: Any, temperature: float) -> None:
    settings = Distilling(weighting=weighting, kl_reduction=reduction, temperature=temperature, eta=0.3)
    both = arrays()
    divergences = np.stack([16 * kl(t / 4, s / 4) if temperature == 4 else kl(t, s) for t, _, s in both])
    if weighting == "fixed":
        weights = np.array([[0.3], [0.7]])
    elif weighting == "aver":
        weights = np.array([[0.5], [0.5]])
    elif weighting == "ebkd":  # at T = 1
        doubt = np.stack([-(np.exp(log_softmax(t)) * log_softmax(t)).sum(1) for t, _, _ in both])
        weights = 1 - doubt / doubt.sum(0)
    else:
        wrong = np.stack([-(y * log_softmax(t)).sum(1) for t, y, _ in both])
        weights = 1 - np.exp(wrong) / np.exp(wrong).sum(0)
    expected = (weights * divergences).sum(0).mean()
    expected /= {"batchmean": 1, "paper": CLASSES, "ca-mkd": 2}[reduction]
    assert told(settings) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("rule", ["ebkd", "ca-mkd"])
def test_weights_by_sample(rule: Any) -> None:
    # Window 0: both say the same. Window 1: the first is sure and right. Window 2: sure and wrong.
    first = torch.tensor([[1.0, 0.0], [9.0, -9.0], [-9.0, 9.0]])
    second = torch.tensor([[1.0, 0.0], [0.1, 0.0], [0.1, 0.0]])
    target = torch.tensor([[1.0, 0.0]] * 3)
    one, other = teacher_weights(rule, [first, second], [target, target])
    np.testing.assert_allclose((one + other).numpy(), 1, atol=1e-6)
    assert one[0].item() == pytest.approx(0.5)
    if rule == "ebkd":
        assert min(one[1], one[2]) > 0.99
    else:
        # cross entropies 0 and ln(1 + e^-0.1) = 0.6444: softmax (1, e^0.6444) / (1 + e^0.6444)
        assert one[1].item() == pytest.approx(np.exp(0.6444) / (1 + np.exp(0.6444)), abs=1e-4)
        assert one[2].item() < 1e-6
    assert not one.requires_grad


@pytest.mark.parametrize("rule", ["ebkd", "ca-mkd"])
def test_weights_stay_finite_where_teachers_are_certain(rule: Any) -> None:
    certain = torch.tensor([[1e4, -1e4], [1e4, -1e4]])
    target = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    weights = teacher_weights(rule, [certain, certain.clone()], [target, target])
    np.testing.assert_allclose(torch.stack(weights).numpy(), 0.5)


@pytest.mark.parametrize("weighting", ["fixed", "aver", "ebkd", "ca-mkd"])
@pytest.mark.parametrize("name", ["signal", "topology"])
def test_a_single_teacher_has_all_the_weight(weighting: Any, name: TeacherName) -> None:
    settings = Distilling(teachers=(name,), weighting=weighting, eta=0.2)
    only = lessons()[name]
    expected = 16 * kl(only.teacher.double().numpy() / 4, only.student.double().numpy() / 4).mean()
    found = teacher_loss(settings, {name: only})
    assert found["teachers"].item() == pytest.approx(expected, rel=1e-5)
    assert set(found) == {"teachers", f"kl_{name}", f"entropy_{name}"}


def test_the_published_standardisations() -> None:
    # TDA_KD: KL of twice the logits over their standard deviation (N - 1), times T^2. MIX-KD: once, no T^2.
    both = arrays()
    over = [[x / x.std(1, ddof=1, keepdims=True) for x in (t, s)] for t, _, s in both]
    for variant, by_hand in (
        ("tda-kd", [16 * kl(2 * t, 2 * s).mean() for t, s in over]),
        ("mix-kd", [kl(t, s).mean() for t, s in over]),
    ):
        settings = Distilling(logit_standardisation=variant, temperature=4.0, eta=0.7)  # type: ignore[arg-type]
        assert told(settings) == pytest.approx(0.7 * by_hand[0] + 0.3 * by_hand[1], rel=1e-4), variant
    x, y = logits(5), mixed_labels(5)
    z = x.double().numpy()
    expected = -(y.double().numpy() * log_softmax(z / z.std(1, ddof=1, keepdims=True))).sum(1).mean()
    found = label_loss(Distilling(logit_standardisation="tda-kd"), x, y)["loss"]
    assert found.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("variant", ["none", "tda-kd", "mix-kd"])
@pytest.mark.parametrize("temperature", [0.05, 4.0])
def test_equal_logits_have_a_finite_gradient(variant: Any, temperature: float) -> None:
    settings = Distilling(logit_standardisation=variant, temperature=temperature, weighting="ca-mkd")
    student = torch.full((BATCH, CLASSES), 2.0, requires_grad=True)
    both = {name: Lesson(item.teacher, item.target, student) for name, item in lessons().items()}
    loss = teacher_loss(settings, both)["teachers"] + label_loss(settings, student, mixed_labels(1))["loss"]
    loss.backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(loss)
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("temperature", [0.05, 4.0])
@pytest.mark.parametrize("weighting", ["fixed", "ebkd", "ca-mkd"])
def test_half_precision_networks(dtype: torch.dtype, temperature: float, weighting: Any) -> None:
    extreme = torch.tensor([[40.0, -40.0, 0.0, 1.0]] * BATCH, dtype=dtype)
    settings = Distilling(temperature=temperature, weighting=weighting, tau=0.5)

    def both(student: Tensor) -> dict[TeacherName, Lesson]:
        other = -extreme if student.dtype == dtype else -extreme.double()
        return {
            "signal": Lesson(other, mixed_labels(1), student),
            "topology": Lesson(other.flip(1), mixed_labels(2), student),
        }

    student = extreme.clone().requires_grad_()
    loss = teacher_loss(settings, both(student))["teachers"]
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(told(settings, both(extreme.double())), rel=1e-5)
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


def test_label_smoothing() -> None:
    x, y = logits(7), torch.eye(CLASSES)[torch.tensor([0, 1, 2, 3, 0, 1])]
    smooth = 0.8 * y.double().numpy() + 0.2 / CLASSES
    expected = -(smooth * log_softmax(x.double().numpy())).sum(1).mean()
    found = label_loss(Distilling(label_smoothing=0.2), x, y)
    assert found["loss"].item() == pytest.approx(expected, rel=1e-5)
    assert found["entropy_labels"].item() == pytest.approx(-(smooth * np.log(smooth)).sum(1).mean(), rel=1e-5)
    assert label_loss(Distilling(), x, y)["entropy_labels"].item() == 0
    torch_says = torch.nn.functional.cross_entropy(x, y.argmax(1), label_smoothing=0.2)
    assert found["loss"].item() == pytest.approx(torch_says.item(), rel=1e-5)


def test_entropies() -> None:
    # Uniform over four: ln 4. softmax(0, ln 3) = (1/4, 3/4); at T = 2 the odds are sqrt 3.
    assert entropies(torch.zeros(2, 4))[0].item() == pytest.approx(np.log(4))
    p = 1 / (1 + np.sqrt(3))
    expected = -(p * np.log(p) + (1 - p) * np.log(1 - p))
    assert entropies(torch.tensor([[0.0, np.log(3)]]), 2.0).item() == pytest.approx(expected)
    assert entropies(torch.tensor([[1e4, -1e4]]), 0.05).item() == 0


def features(seed: int, size: int = 5) -> list[Tensor]:
    """Outputs of three stages for a batch."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(BATCH, channels, size, generator=generator) for channels in (2, 4, 8)]


def maps_of(stages: list[Tensor]) -> list[Tensor]:
    return [similarity_map(stage) for stage in stages]


def by_hand_maps(student: list[Tensor], teachers: list[tuple[float, list[Tensor]]]) -> float:
    """As published: merge F F^T of the teachers, scale rows to length 1, mean square, over stages."""
    total = 0.0
    for stage, own in enumerate(student):
        f = own.double().numpy().reshape(BATCH, -1)
        merged = np.zeros((BATCH, BATCH))
        for weight, stages in teachers:
            g = stages[stage].double().numpy().reshape(BATCH, -1)
            merged += weight * g @ g.T
        mine = f @ f.T
        mine /= np.linalg.norm(mine, axis=1, keepdims=True)
        merged /= np.linalg.norm(merged, axis=1, keepdims=True)
        total += ((mine - merged) ** 2).mean()
    return total / len(student)


def test_similarity_of_teachers_that_share_a_batch() -> None:
    own, one, other = features(0), features(1, size=3), features(2, size=9)
    found = map_loss(
        Distilling(eta=0.3), [(maps_of(own), {"signal": maps_of(one), "topology": maps_of(other)})]
    )
    assert found.item() == pytest.approx(by_hand_maps(own, [(0.3, one), (0.7, other)]), rel=1e-4)
    assert similarity_loss(maps_of(own), [(1.0, maps_of(own))]).item() == pytest.approx(0, abs=1e-12)


def test_similarity_of_teachers_with_batches_of_their_own() -> None:
    own, mine, one, other = features(0), features(5), features(1), features(2)
    found = map_loss(
        Distilling(eta=0.3),
        [(maps_of(own), {"signal": maps_of(one)}), (maps_of(mine), {"topology": maps_of(other)})],
    )
    expected = 0.3 * by_hand_maps(own, [(1.0, one)]) + 0.7 * by_hand_maps(mine, [(1.0, other)])
    assert found.item() == pytest.approx(expected, rel=1e-4)


def test_no_gradient_reaches_the_teachers_maps() -> None:
    own, one = ([stage.requires_grad_() for stage in features(seed)] for seed in (0, 1))
    settings = Distilling(teachers=("signal",))
    map_loss(settings, [(maps_of(own), {"signal": maps_of(one)})]).backward()  # type: ignore[no-untyped-call]
    assert all(stage.grad is None for stage in one)
    assert all(stage.grad is not None for stage in own)


def test_similarity_to_one_teacher_has_all_the_weight() -> None:
    own, one = features(0), features(1)
    found = map_loss(
        Distilling(eta=0.3, teachers=("topology",)), [(maps_of(own), {"topology": maps_of(one)})]
    )
    assert found.item() == pytest.approx(by_hand_maps(own, [(1.0, one)]), rel=1e-4)


def test_standardised_logits_do_not_depend_on_their_scale() -> None:
    x = logits(9)
    np.testing.assert_allclose(standardised(100 * x).numpy(), standardised(x).numpy(), rtol=1e-5)
    np.testing.assert_allclose(standardised(x).std(1).numpy(), 1, rtol=1e-5)


@pytest.mark.parametrize("weighting", ["fixed", "ebkd", "ca-mkd"])
@pytest.mark.parametrize("temperature", [0.05, 4.0])
@pytest.mark.parametrize("variant", ["none", "tda-kd"])
def test_under_autocast_to_half_precision(weighting: Any, temperature: float, variant: Any) -> None:
    settings = Distilling(weighting=weighting, temperature=temperature, logit_standardisation=variant)
    equal = torch.full((BATCH, CLASSES), 3.0, dtype=torch.float16)
    extreme = torch.tensor([[40.0, -40.0, 0.0, 1.0]] * BATCH, dtype=torch.float16)
    for teacher, own in ((equal, extreme), (extreme, equal), (equal, equal), (extreme, -extreme)):
        student = own.clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.float16):
            lesson = {
                "signal": Lesson(teacher, mixed_labels(1), student),
                "topology": Lesson(teacher.flip(1), mixed_labels(2), student),
            }
            terms = teacher_loss(settings, lesson)["teachers"]  # type: ignore[arg-type]
            loss = terms + label_loss(settings, student, mixed_labels(1))["loss"]
        loss.backward()  # type: ignore[no-untyped-call]
        assert loss.dtype == torch.float32
        assert torch.isfinite(loss)
        assert student.grad is not None
        assert torch.isfinite(student.grad).all()


def test_maps_under_autocast_do_not_overflow() -> None:
    # 300 squared is beyond the largest float16, 65504.
    large = [300 * stage for stage in features(0)]
    with torch.autocast("cpu", dtype=torch.float16):
        maps = maps_of(large)
        loss = similarity_loss(maps, [(1.0, maps_of(features(1)))])
    assert all(torch.isfinite(each).all() for each in maps)
    assert loss.item() == pytest.approx(by_hand_maps(large, [(1.0, features(1))]), rel=1e-4)
