"""Mixup: which samples are mixed with which, and how much.

Zhang et al., "mixup: Beyond Empirical Risk Minimization" (arXiv 1710.09412), with one coefficient per
sample and an exact share of mixed samples (partial mixup), drawn without replacement.

MIX-KD (Choi et al., WACV 2023) pairs two permutations of the batch with each other. The coefficients being
drawn per sample, that is the same distribution of virtual batches as pairing the batch with one permutation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from topokd_edge.distill.inputs import Inputs

Draw = Literal["exact", "published"]
"""`exact` mixes round(share * B) samples, drawn without replacement. `published` is the code of MIX-KD: it
spares floor((1 - share) * B) samples drawn with replacement, so (1 - 1/B)^that of a batch is mixed: of 64
samples 40.7 % where 10 % are asked for."""


@dataclass(frozen=True, slots=True)
class Mix:
    """One draw for a batch of size B: sample i becomes `keep[i]` x_i + (1 - `keep[i]`) x_`partner[i]`.

    The same draw mixes signals, images and targets, so that all speak of the same virtual sample.
    `mixed` holds the positions with a coefficient below 1.
    """

    partner: Tensor
    keep: Tensor
    mixed: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Mix a batch x of shape (B, ...)."""
        return self.pairs(x, x[self.partner], self.keep)

    def rows(self, x: Inputs, batch: Tensor) -> Tensor:
        """Return the mixed rows alone, shape (len(mixed), ...), of a whole set `x` seen through `batch`.

        Each window is read once; half-precision sets are widened first.
        """
        whole = x[batch].float()
        return self.pairs(whole[self.mixed], whole[self.partner[self.mixed]], self.keep[self.mixed])

    @staticmethod
    def pairs(first: Tensor, second: Tensor, keep: Tensor) -> Tensor:
        """Interpolate row by row: keep * first + (1 - keep) * second; keep = 1 gives `first` to the bit."""
        weight = keep.view(-1, *(1 for _ in first.shape[1:]))
        return weight * first + (1 - weight) * second


def draw_mix(
    batch: int,
    alpha: float,
    share: float,
    rng: np.random.Generator,
    device: torch.device,
    *,
    draw: Draw = "exact",
) -> Mix:
    """Draw partners and coefficients for one batch.

    Parameters
    ----------
    batch
        Batch size B.
    alpha
        Coefficients follow Beta(alpha, alpha), per sample; 0 switches mixup off.
    share
        Share of the samples that may be mixed; 1 is full mixup.
    rng
        Source of randomness.
    device
        Where the tensors are needed.
    draw
        See `Draw`.
    """
    keep = np.ones(batch, dtype=np.float32)
    partner = rng.permutation(batch)
    if draw == "exact":
        chosen = rng.permutation(batch)[: round(share * batch)]
    else:
        spared = rng.integers(0, batch, int(round((1 - share) * batch, 9)))
        chosen = np.setdiff1d(np.arange(batch), spared)
    if alpha > 0:
        keep[chosen] = rng.beta(alpha, alpha, size=len(chosen))
    mixed = np.flatnonzero(keep < 1)
    return Mix(
        torch.from_numpy(partner).to(device),
        torch.from_numpy(keep).to(device),
        torch.from_numpy(mixed).to(device),
    )
