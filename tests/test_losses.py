"""The losses: against values derived by hand and torch's own, and finite where half precision breaks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from topokd_edge.distill.losses import KLReduction, distillation_kl, soft_cross_entropy


def some_logits(seed: int, batch: int = 5, classes: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (
        3 * torch.randn(batch, classes, generator=generator),
        3 * torch.randn(batch, classes, generator=generator),
    )


def kl_in_float64(student: Tensor, teacher: Tensor, temperature: float) -> tuple[float, Tensor]:
    """T^2 KL(teacher || student), mean over the batch, and its gradient by the student's logits.

    d/ds_k of KL(p || softmax(s / T)) is (q_k - p_k) / T.
    """
    log_q = torch.log_softmax(student.double() / temperature, 1)
    log_p = torch.log_softmax(teacher.double() / temperature, 1)
    value = (log_p.exp() * (log_p - log_q)).sum(1).mean().item() * temperature**2
    return value, temperature * (log_q.exp() - log_p.exp()) / len(student)


def test_divergence_by_hand() -> None:
    # Teacher logits [0, ln 3] are p = (1/4, 3/4) at T = 1; student logits [0, 0] are q = (1/2, 1/2).
    # KL(p || q) = 1/4 ln(1/2) + 3/4 ln(3/2) = 3/4 ln 3 - ln 2 = 0.13081...
    student, teacher = torch.zeros(1, 2), torch.tensor([[0.0, math.log(3)]])
    by_hand = 0.75 * math.log(3) - math.log(2)
    assert distillation_kl(student, teacher, 1.0).item() == pytest.approx(by_hand, abs=1e-6)
    # At T = 2 the odds are sqrt(3): p = 1 / (1 + sqrt 3), and the divergence counts 2^2-fold.
    p = 1 / (1 + math.sqrt(3))
    by_hand = 4 * (p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p)))
    assert distillation_kl(student, teacher, 2.0).item() == pytest.approx(by_hand, abs=1e-6)


def test_divergence_is_of_the_teacher_from_the_student() -> None:
    # The other direction would be KL(q || p) = 1/2 ln 2 + 1/2 ln(2/3) = ln 2 - 1/2 ln 3 = 0.14384...
    student, teacher = torch.tensor([[0.0, math.log(3)]]), torch.zeros(1, 2)
    by_hand = math.log(2) - 0.5 * math.log(3)
    assert distillation_kl(student, teacher, 1.0).item() == pytest.approx(by_hand, abs=1e-6)


def test_cross_entropy_by_hand() -> None:
    # softmax([0, ln 3]) = (1/4, 3/4). Targets (1, 0): ln 4. (1/2, 1/2): 1/2 ln 4 + 1/2 ln(4/3).
    logits = torch.tensor([[0.0, math.log(3)]] * 2)
    target = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    by_hand = (math.log(4) + 0.5 * math.log(4) + 0.5 * math.log(4 / 3)) / 2
    assert soft_cross_entropy(logits, target).item() == pytest.approx(by_hand, abs=1e-6)


def test_cross_entropy_of_hard_labels_is_torchs() -> None:
    logits, _ = some_logits(0)
    y = torch.tensor([0, 3, 1, 1, 2])
    expected = F.cross_entropy(logits, y)
    assert soft_cross_entropy(logits, F.one_hot(y, 4)).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 4.0, 12.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_divergence_is_that_of_torch(temperature: float, seed: int) -> None:
    student, teacher = some_logits(seed)
    log_q, p = F.log_softmax(student / temperature, 1), F.softmax(teacher / temperature, 1)
    textbook = temperature**2 * nn.KLDivLoss(reduction="batchmean")(log_q, p)
    assert distillation_kl(student, teacher, temperature).item() == pytest.approx(textbook.item(), rel=1e-5)
    with pytest.warns(UserWarning, match="batchmean"):  # torch warns of what the published code did
        published = temperature**2 * nn.KLDivLoss()(log_q, p)
    ours = distillation_kl(student, teacher, temperature, "paper")
    assert ours.item() == pytest.approx(published.item(), rel=1e-5)
    assert 4 * ours.item() == pytest.approx(textbook.item(), rel=1e-5)  # four classes


@pytest.mark.parametrize("temperature", [0.05, 4.0])
@pytest.mark.parametrize("swap", [False, True])
def test_extreme_logits_stay_finite_and_exact(temperature: float, swap: bool) -> None:
    pair = torch.tensor([[40.0, -40.0, 0.0]]), torch.tensor([[0.0, 0.0, 0.0]])
    student, teacher = pair[::-1] if swap else pair
    student = student.clone().requires_grad_()
    loss = distillation_kl(student, teacher, temperature)
    loss.backward()  # type: ignore[no-untyped-call]
    value, gradient = kl_in_float64(student.detach(), teacher, temperature)
    assert loss.item() == pytest.approx(value, rel=1e-5)
    assert student.grad is not None
    np.testing.assert_allclose(student.grad.numpy(), gradient.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("temperature", [0.05, 4.0])
@pytest.mark.parametrize("reduction", ["batchmean", "paper"])
def test_half_precision_logits_lose_nothing_in_the_loss(
    dtype: torch.dtype, temperature: float, reduction: KLReduction
) -> None:
    # 40, -40 and 0 are exact in both types: whatever differs from float64 was lost by the loss.
    student = torch.tensor([[40.0, -40.0, 0.0], [1.0, 1.0, 1.0]], dtype=dtype, requires_grad=True)
    teacher = torch.tensor([[-40.0, 40.0, 0.0], [1.0, 1.0, 1.0]], dtype=dtype)
    loss = distillation_kl(student, teacher, temperature, reduction)
    loss.backward()  # type: ignore[no-untyped-call]
    value, gradient = kl_in_float64(student.detach(), teacher, temperature)
    share = 1 / 3 if reduction == "paper" else 1.0
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(share * value, rel=1e-5)
    assert student.grad is not None
    expected = (share * gradient).to(dtype).float()  # autograd hands a gradient back in the logits' type
    np.testing.assert_allclose(student.grad.float().numpy(), expected.numpy(), rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_cross_entropy_of_half_precision_logits(dtype: torch.dtype) -> None:
    # The wrong class is certain: -log softmax = 80 exactly, to float32 rounding; half precision says infinity
    # wherever it takes the softmax first.
    logits = torch.tensor([[40.0, -40.0, 0.0]], dtype=dtype, requires_grad=True)
    loss = soft_cross_entropy(logits, torch.tensor([[0.0, 1.0, 0.0]]))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(80.0, rel=1e-6)
    assert logits.grad is not None
    np.testing.assert_allclose(logits.grad.float().numpy(), [[1.0, -1.0, 0.0]], atol=1e-3)


@given(
    logits=st.lists(st.floats(-1000, 1000, width=32), min_size=2, max_size=6),
    temperature=st.floats(0.05, 20),
)
@settings(deadline=None, max_examples=50)
def test_equal_networks_do_not_diverge(logits: list[float], temperature: float) -> None:
    student = torch.tensor([logits], requires_grad=True)
    loss = distillation_kl(student, student, temperature)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0.0
    assert student.grad is not None
    assert student.grad.abs().max().item() <= 1e-5 * temperature


def test_no_gradient_reaches_the_teacher() -> None:
    student, teacher = (logits.requires_grad_() for logits in some_logits(0))
    distillation_kl(student, teacher, 4.0).backward()  # type: ignore[no-untyped-call]
    assert teacher.grad is None
    assert student.grad is not None
    assert student.grad.abs().max() > 0
