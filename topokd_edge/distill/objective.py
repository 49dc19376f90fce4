"""The terms of a distillation step: from the labels, from the teachers' answers, from similarity maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from topokd_edge.distill.losses import (
    KLReduction,
    distillation_kl,
    entropies,
    similarity_loss,
    soft_cross_entropy,
    standardised,
    teacher_weights,
)
from topokd_edge.distill.method import Distilling, TeacherName


@dataclass(frozen=True)
class Lesson:
    """One teacher and one mixed batch of size B.

    `teacher` and `student` hold logits, shape (B, classes), `target` the mixed labels, `maps` the
    teacher's similarity map of each stage, shape (B, B), where maps are learned.
    """

    teacher: Tensor
    target: Tensor
    student: Tensor
    maps: Sequence[Tensor] = field(default_factory=list)


def label_loss(settings: Distilling, logits: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Return `cross_entropy`, also as `loss`, and the mean entropy of the labels in nats."""
    spread = settings.label_smoothing
    target = (1 - spread) * target + spread / target.shape[1]
    if settings.logit_standardisation != "none":
        logits = standardised(logits)
    loss = soft_cross_entropy(logits, target)
    entropy = -torch.xlogy(target, target).sum(1).mean()
    return {"loss": loss, "cross_entropy": loss, "entropy_labels": entropy}


def teacher_loss(settings: Distilling, lessons: Mapping[TeacherName, Lesson]) -> dict[str, Tensor]:
    """Return the weighted divergence `teachers`, and of each teacher `kl_<name>` and `entropy_<name>`.

    A divergence is T^2 KL; where samples have weights of their own, they are in it. The entropy is that of
    the softened answer, mean over the batch, in nats.
    """
    found: dict[str, Tensor] = {}
    parts = []
    for (name, lesson), weight in zip(lessons.items(), _weights(settings, lessons), strict=True):
        by_sample = weight if isinstance(weight, Tensor) else None
        divergence, entropy = _divergence(settings, lesson, by_sample)
        found |= {f"kl_{name}": divergence, f"entropy_{name}": entropy}
        parts.append(divergence if isinstance(weight, Tensor) else weight * divergence)
    total = torch.stack(parts).sum()
    found["teachers"] = total / len(lessons) if settings.kl_reduction == "ca-mkd" else total
    return found


def map_loss(
    settings: Distilling, batches: Sequence[tuple[Sequence[Tensor], Mapping[TeacherName, Sequence[Tensor]]]]
) -> Tensor:
    """Return how far the student's maps are from the teachers'.

    Teachers that share a mixed batch have one merged map, as published; else each has its own, and the
    differences are weighed.

    Parameters
    ----------
    settings
        `eta` weighs the teachers.
    batches
        For each mixed batch the student's map of each stage, and the maps of the teachers that saw it.
    """
    teachers = [name for _, taught in batches for name in taught]
    share = dict(zip(teachers, _shares(settings.eta, teachers), strict=True))
    terms = [
        sum(share[name] for name in taught)
        * similarity_loss(own, [(share[name], maps) for name, maps in taught.items()])
        for own, taught in batches
    ]
    return torch.stack(terms).sum()


def _weights(settings: Distilling, lessons: Mapping[TeacherName, Lesson]) -> Sequence[float | Tensor]:
    """Return the weight of each teacher: a number, or a number for each sample."""
    if settings.weighting == "fixed" or settings.weighting == "aver":
        return _shares(settings.eta if settings.weighting == "fixed" else 0.5, [*lessons])
    answers = [lesson.teacher for lesson in lessons.values()]
    return teacher_weights(settings.weighting, answers, [lesson.target for lesson in lessons.values()])


def _shares(signal: float, teachers: Sequence[TeacherName]) -> list[float]:
    if len(teachers) == 1:
        return [1.0]
    return [signal if name == "signal" else 1 - signal for name in teachers]


def _divergence(settings: Distilling, lesson: Lesson, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return T^2 KL, and the mean entropy of the teacher's softened answer."""
    student, teacher, temperature, scale = lesson.student, lesson.teacher, settings.temperature, 1.0
    if settings.logit_standardisation != "none":
        student, teacher, temperature = standardised(student), standardised(teacher), 1.0
    if settings.logit_standardisation == "tda-kd":  # the published code doubles the standardised logits
        temperature, scale = 0.5, settings.temperature**2 / 0.5**2
    reduction: KLReduction = "paper" if settings.kl_reduction == "paper" else "batchmean"
    divergence = distillation_kl(student, teacher, temperature, reduction, weight)
    return scale * divergence, entropies(teacher, temperature).mean()
