"""Losses of knowledge distillation, in float32 log space whatever the precision of the network."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

KLReduction = Literal["batchmean", "paper"]
"""`batchmean` is the textbook divergence per sample; `paper` also divides by the number of classes,
as `torch.nn.KLDivLoss()` with its default `mean` does in the published code."""


def soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Return the cross entropy against class probabilities, mean over the batch.

    Parameters
    ----------
    logits
        Shape (batch, classes), any float type.
    target
        Probabilities, shape (batch, classes), rows sum to 1.
    """
    return -(target.float() * F.log_softmax(logits.float(), dim=1)).sum(1).mean()


def distillation_kl(
    student: Tensor, teacher: Tensor, temperature: float, reduction: KLReduction = "batchmean"
) -> Tensor:
    """Return T^2 KL(softmax(teacher / T) || softmax(student / T)).

    Hinton et al., "Distilling the Knowledge in a Neural Network" (arXiv 1503.02531), section 2: the
    factor T^2 keeps the gradient's size when T changes.

    Parameters
    ----------
    student, teacher
        Logits, shape (batch, classes). No gradient flows to the teacher.
    temperature
        T > 0.
    reduction
        See `KLReduction`.
    """
    log_student = F.log_softmax(student.float() / temperature, dim=1)
    log_teacher = F.log_softmax(teacher.detach().float() / temperature, dim=1)
    divergence = F.kl_div(log_student, log_teacher, log_target=True, reduction="batchmean")
    if reduction == "paper":
        divergence = divergence / student.shape[1]
    return temperature**2 * divergence
