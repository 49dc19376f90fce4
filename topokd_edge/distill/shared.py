"""A network whose batches several processes share: the same answers and gradients as in one process.

Each process computes its own rows of a batch. BatchNorm takes its statistics over the rows of all. Answers,
and features that are looked at, are put together again, so every process has the loss of the whole batch.
The gradient of that loss through a process's own rows, summed over the processes, is the whole gradient: no
share needs a weight, however uneven, and losses that compare rows of a batch need no care.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from topokd_edge.distill.distributed import add_up, several, share
from topokd_edge.models.wrn import WideResNet, WRNSpec

Seen = TypeVar("Seen")


def network(spec: WRNSpec) -> WideResNet:
    """Return an untrained network, one that shares its batches where several processes train."""
    return SharedWideResNet(spec) if several() else WideResNet(spec)


def sum_gradients(model: WideResNet) -> None:
    """Give every process the sum of the gradients of all, where batches are shared."""
    if not isinstance(model, SharedWideResNet):
        return
    gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
    together = torch.cat([gradient.flatten() for gradient in gradients])
    add_up(together)
    sizes = [gradient.numel() for gradient in gradients]
    for gradient, summed in zip(gradients, torch.split(together, sizes), strict=True):
        gradient.copy_(summed.view(gradient.shape))


class SharedWideResNet(WideResNet):
    """A WideResNet that is asked by all processes about the same batch at the same time.

    Weights have the names and the start of `topokd_edge.models.wrn.WideResNet`.
    """

    def __init__(self, spec: WRNSpec) -> None:
        super().__init__(spec)
        for name, module in [*self.named_modules()]:
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                self.set_submodule(name, SharedNorm(module.num_features))

    def forward(self, x: Tensor) -> Tensor:
        """Map the whole batch to the logits of the whole batch."""
        return _whole(super().forward(x[share(len(x))]), len(x))

    def observe(self, x: Tensor, look: Callable[[Tensor], Seen]) -> tuple[Tensor, list[Seen]]:
        """Return the logits, and what `look` says of the features of the whole batch."""
        rows = len(x)
        logits, seen = super().observe(x[share(rows)], lambda features: look(_whole(features, rows)))
        return _whole(logits, rows), seen


class SharedNorm(nn.modules.batchnorm._BatchNorm):
    """BatchNorm over the rows of all processes; on any device, unlike `torch.nn.SyncBatchNorm`."""

    def forward(self, x: Tensor) -> Tensor:
        """Standardise the channels of x, shape (own rows, channels, ...)."""
        if not self.training:
            return super().forward(x)
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        channels = (1, -1, *(1 for _ in x.shape[2:]))
        dims = (0, *range(2, x.ndim))
        count = wide.new_full((1,), x.numel() // x.shape[1])
        total = _summed(torch.cat([wide.sum(dims), count]))
        mean, count = total[:-1] / total[-1], total[-1]
        centred = wide - mean.view(channels)
        variance = _summed((centred**2).sum(dims)) / count
        self._remember(mean, variance * count / (count - 1))
        scale = self.weight * torch.rsqrt(variance + self.eps)
        out: Tensor = centred * scale.view(channels) + self.bias.view(channels)
        return out.to(x.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
        self.num_batches_tracked += 1

    def _check_input_dim(self, input: Tensor) -> None:
        """Take any number of dimensions."""


def _whole(rows: Tensor, total: int) -> Tensor:
    """Put the rows of all processes together."""
    whole: Tensor = _Whole.apply(rows, total)  # type: ignore[no-untyped-call]
    return whole


def _summed(value: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(value)  # type: ignore[no-untyped-call]
    return total


class _Whole(torch.autograd.Function):
    """The rows of all processes; each gets back the gradient of its own."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, total: int) -> Tensor:
        whole = rows.new_zeros(total, *rows.shape[1:])
        whole[share(total)] = rows
        add_up(whole)
        return whole

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient[share(len(gradient))], None


class _Sum(torch.autograd.Function):
    """The sum over all processes, each of which is part of the loss through it."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        add_up(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        add_up(total)
        return total
