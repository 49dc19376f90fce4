"""A teacher: a trained network that only answers."""

from __future__ import annotations

import torch
from torch import Tensor

from topokd_edge.distill.inputs import Inputs
from topokd_edge.distill.losses import similarity_map
from topokd_edge.distill.mixup import Mix
from topokd_edge.distill.trainer import predict
from topokd_edge.models.wrn import WideResNet


class Teacher:
    """A trained network that only answers: frozen, in evaluation mode, outside whatever is trained.

    Its answers to unmixed windows are computed once and found by window index, so no order of batches can
    pair them wrongly; windows that are mixed or otherwise changed are always asked anew.

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
    def logits(self, batch: Tensor, mix: Mix, seen: Tensor | None = None) -> Tensor:
        """Return the logits of the mixed batch, shape (B, classes).

        Parameters
        ----------
        batch
            Window indices.
        mix
            How they are mixed.
        seen
            The mixed batch itself, where it is more than a mixture of the teacher's input.

        Raises
        ------
        RuntimeError
            When the network was woken into training mode, or a window is not one of those it answers for.
        """
        self._check(batch)
        if seen is not None:
            return self._model(seen)  # type: ignore[no-any-return]
        logits = self._clean[batch].clone()
        if len(mix.mixed):
            logits[mix.mixed] = self._model(mix.rows(self._inputs, batch))
        return logits

    @torch.no_grad()
    def logits_and_maps(
        self, batch: Tensor, mix: Mix, seen: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the logits, and the similarity map of each stage, shape (B, B); see `logits`."""
        self._check(batch)
        return self._model.observe(mix(self._inputs[batch].float()) if seen is None else seen, similarity_map)

    def _check(self, batch: Tensor) -> None:
        if self._model.training:
            raise RuntimeError("a teacher was woken into training mode")
        known = self._known[batch].all()
        if batch.is_cuda:  # asked on the device: the host need not wait for the answer
            torch._assert_async(known, "a teacher was asked about windows it does not answer for")
        elif not known:
            strangers = batch[~self._known[batch]].tolist()
            raise RuntimeError(f"a teacher was asked about windows it does not answer for: {strangers}")
