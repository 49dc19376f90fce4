"""Losses of knowledge distillation, in float32 log space whatever the precision of the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

KLReduction = Literal["batchmean", "paper"]
"""`batchmean` is the textbook divergence per sample; `paper` also divides by the number of classes,
as `torch.nn.KLDivLoss()` with its default `mean` does in the published code."""
Weighting = Literal["ebkd", "ca-mkd"]

_LEAST_VARIANCE = 1e-6
"""Of logits: below it they are divided by 0.001, so that equal logits have a finite gradient."""


def soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Return the cross entropy against class probabilities, mean over the batch.

    Parameters
    ----------
    logits
        Shape (batch, classes), any float type.
    target
        Probabilities, shape (batch, classes), rows sum to 1.
    """
    return _cross_entropies(logits, target).mean()


def distillation_kl(
    student: Tensor,
    teacher: Tensor,
    temperature: float,
    reduction: KLReduction = "batchmean",
    weight: Tensor | None = None,
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
    weight
        Weight of each sample, shape (batch,), before the mean; None weighs all by 1.
    """
    log_student = F.log_softmax(student.float() / temperature, dim=1)
    log_teacher = F.log_softmax(teacher.detach().float() / temperature, dim=1)
    divergences = F.kl_div(log_student, log_teacher, log_target=True, reduction="none").sum(1)
    divergence = (divergences if weight is None else weight * divergences).mean()
    if reduction == "paper":
        divergence = divergence / student.shape[1]
    return temperature**2 * divergence


def entropies(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Return the entropy in nats of softmax(logits / T) of each row, shape (batch,)."""
    log_p = F.log_softmax(logits.float() / temperature, dim=1)
    return -(log_p.exp() * log_p).sum(1)


def teacher_weights(
    rule: Weighting, answers: Sequence[Tensor], targets: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """Return how much each teacher counts for each sample; the weights of a sample sum to 1.

    `ebkd`: 1 - H_k / sum H, with H the entropy of teacher k's answer (Kwon et al., ICASSP 2020), over K - 1.
    `ca-mkd`: (1 - softmax_k of the teachers' cross entropies) / (K - 1) (Zhang et al., arXiv 2201.00007);
    with mixup, the cross entropy against the mixed label.

    Parameters
    ----------
    rule
        Which of them.
    answers
        Logits of each of K teachers, shape (batch, classes). A single teacher weighs 1.
    targets
        For each teacher, the class probabilities of the samples it saw.

    Returns
    -------
    tuple of Tensor
        For each teacher, shape (batch,), without gradient.
    """
    others = len(answers) - 1
    if others == 0:
        return (torch.ones(len(answers[0]), device=answers[0].device),)
    with torch.no_grad():
        if rule == "ebkd":
            doubt = torch.stack([entropies(logits) for logits in answers]).clamp(min=1e-12)
            share = doubt / doubt.sum(0)
        else:
            pairs = zip(answers, targets, strict=True)
            share = torch.stack([_cross_entropies(logits, target) for logits, target in pairs]).softmax(0)
        return tuple((1 - share) / others)


def standardised(logits: Tensor) -> Tensor:
    """Return logits divided by their standard deviation over the classes (N - 1), row by row, in float32."""
    logits = logits.float()
    return logits / (logits.var(dim=1, keepdim=True) + _LEAST_VARIANCE).sqrt()


def similarity_map(features: Tensor) -> Tensor:
    """Return F F^T of the flattened features, shape (batch, batch), in float32.

    Tung and Mori, "Similarity-Preserving Knowledge Distillation" (arXiv 1907.09682), section 3.
    """
    with torch.autocast(features.device.type, enabled=False):  # a sum of squares overflows half precision
        flat = features.float().flatten(1)
        return flat @ flat.T


def similarity_loss(student: Sequence[Tensor], teachers: Sequence[tuple[float, Sequence[Tensor]]]) -> Tensor:
    """Return the mean squared difference of the maps, each row of length 1, mean over the stages.

    The teachers' maps are added with their weights before the rows are scaled, as in the published code.

    Parameters
    ----------
    student
        `similarity_map` of each stage, shape (batch, batch).
    teachers
        Weight and maps of each teacher.
    """
    losses = []
    for stage, own in enumerate(student):
        merged = sum(weight * maps[stage].detach() for weight, maps in teachers)
        losses.append(F.mse_loss(F.normalize(own, dim=1), F.normalize(torch.as_tensor(merged), dim=1)))
    return torch.stack(losses).mean()


def _cross_entropies(logits: Tensor, target: Tensor) -> Tensor:
    return -(target.float() * F.log_softmax(logits.float(), dim=1)).sum(1)
