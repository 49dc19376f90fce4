"""What the trainer minimises: labels alone, or labels and two teachers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from topokd_edge.distill.inputs import Inputs
from topokd_edge.distill.losses import distillation_kl, soft_cross_entropy
from topokd_edge.distill.mixup import Mix, draw_mix
from topokd_edge.distill.recipe import Distilling
from topokd_edge.distill.trainer import predict
from topokd_edge.models.wrn import WideResNet


@dataclass(frozen=True)
class LabelTask:
    """Learn the labels from one modality.

    Without mixup: teachers trained with it distil worse (Choi et al., MIX-KD, WACV 2023).
    """

    model: WideResNet
    inputs: Inputs
    y: Tensor

    def losses(self, batch: Tensor, rng: np.random.Generator) -> dict[str, Tensor]:
        """Return the cross entropy."""
        logits = self.model(self.inputs[batch].float())
        return {"loss": F.cross_entropy(logits.float(), self.y[batch])}


class Teacher:
    """A trained network that only answers: frozen, in evaluation mode, outside whatever is trained.

    Its answers to unmixed windows are computed once and found by window index, so no order of batches can
    pair them wrongly; mixed windows are always asked anew.

    Parameters
    ----------
    model
        The trained network.
    inputs
        Its input for every window.
    windows
        Indices it will be asked about.
    """

    def __init__(self, model: WideResNet, inputs: Inputs, windows: Tensor) -> None:
        self._model = model.eval().requires_grad_(False)
        self._inputs = inputs
        answers = predict(model, inputs, windows)
        self._clean = answers.new_zeros(len(inputs), answers.shape[1])
        self._clean[windows] = answers
        self._known = torch.zeros(len(inputs), dtype=torch.bool, device=answers.device)
        self._known[windows] = True

    @torch.no_grad()
    def logits(self, batch: Tensor, mix: Mix) -> Tensor:
        """Return the logits of the mixed batch, shape (B, classes).

        Raises
        ------
        RuntimeError
            When the network was woken into training mode, or a window is not one of those it answers for.
        """
        if self._model.training:
            raise RuntimeError("a teacher was woken into training mode")
        if not self._known[batch].all():
            strangers = batch[~self._known[batch]].tolist()
            raise RuntimeError(f"a teacher was asked about windows it does not answer for: {strangers}")
        logits = self._clean[batch].clone()
        if len(mix.mixed):
            logits[mix.mixed] = self._model(mix.rows(self._inputs, batch))
        return logits


class DistillTask:
    """Learn from two teachers and the labels; see `topokd_edge.distill.recipe.Distilling`.

    With different alphas, each teacher has a mixed batch of its own, with its own pairs and coefficients;
    the student sees both in one pass and the cross entropy is their mean. Equal alphas share one batch.

    Parameters
    ----------
    model
        The student.
    inputs, y
        Its input and the class of every window.
    signal, topology
        The teachers.
    settings
        Weights, temperature, alphas.
    """

    def __init__(
        self,
        model: WideResNet,
        inputs: Inputs,
        y: Tensor,
        signal: Teacher,
        topology: Teacher,
        settings: Distilling,
    ) -> None:
        self.model, self.inputs, self.y = model, inputs, y
        self._signal, self._topology, self._settings = signal, topology, settings
        self._one_hot = F.one_hot(y, model.spec.classes).float()

    def losses(self, batch: Tensor, rng: np.random.Generator) -> dict[str, Tensor]:
        """Return cross entropy, both divergences (already times T^2), and the weighted `loss`."""
        settings, size = self._settings, len(batch)
        signal_mix = draw_mix(size, settings.alpha_signal, settings.mixup_share, rng, batch.device)
        shared = settings.alpha_signal == settings.alpha_topology
        topology_mix = (
            signal_mix
            if shared
            else draw_mix(size, settings.alpha_topology, settings.mixup_share, rng, batch.device)
        )
        mixes = [signal_mix] if shared else [signal_mix, topology_mix]
        x, target = self.inputs[batch], self._one_hot[batch]
        logits = self.model(torch.cat([mix(x) for mix in mixes]))
        cross_entropy = soft_cross_entropy(logits, torch.cat([mix(target) for mix in mixes]))
        kl_signal = self._divergence(logits[:size], self._signal.logits(batch, signal_mix))
        kl_topology = self._divergence(logits[-size:], self._topology.logits(batch, topology_mix))
        teachers = settings.eta * kl_signal + (1 - settings.eta) * kl_topology
        return {
            "loss": (1 - settings.tau) * cross_entropy + settings.tau * teachers,
            "cross_entropy": cross_entropy,
            "kl_signal": kl_signal,
            "kl_topology": kl_topology,
        }

    def _divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        return distillation_kl(student, teacher, self._settings.temperature, self._settings.kl_reduction)
