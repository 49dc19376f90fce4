"""How much mixup each teacher bears: alpha and share from its own answers to mixed windows.

A teacher that was linear would answer a mixed window with the mixture of its two clean answers. How far it
is from that, in bits, is its excess confusion: 0 is linear, 1 is an answer that has nothing in common with
either. Beta(alpha, alpha) is widened until the excess it leads to reaches a budget.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from topokd_edge.distill.inputs import Inputs
from topokd_edge.distill.method import Distilling, Strength, TeacherName
from topokd_edge.distill.mixup import Mix
from topokd_edge.models.wrn import WideResNet

Numbers = npt.NDArray[np.float64]

LESSER = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
"""Share of the second window, of which the excess is measured; in between it is taken to be linear."""
PAIRS = 512
"""Pairs asked about at most."""
LARGEST_ALPHA = 1.0
"""All shares equally likely. Beyond it ever fewer windows stay nearly clean."""
STEP = 0.01
"""Of the alphas tried."""
ESTRANGED = 0.5
"""Bits of excess from which on a pair counts as not mixable: what a teacher has that takes an even mixture
for one of the two windows, and gives half of the probability to a class that is neither's."""
_BLOCK = 64


@dataclass(frozen=True)
class Confusion:
    """Excess confusion of one teacher, in bits, shape (pairs, len(LESSER))."""

    excess: Numbers

    def expected(self, alpha: float) -> float:
        """Return the mean excess over pairs, and over shares that follow Beta(alpha, alpha)."""
        return float(self.excess.mean(0) @ _weights(alpha))

    def strength(self, budget: float) -> Strength:
        """Return the strongest mixup whose expected excess is within the budget, in bits.

        The share is that of the pairs whose even mixture does not estrange the teacher.
        """
        alpha, count = 0.0, 0
        while count * STEP < LARGEST_ALPHA and self.expected((count + 1) * STEP) <= budget:
            count += 1
            alpha = round(count * STEP, 2)
        return Strength(alpha, round(float((self.excess[:, -1] <= ESTRANGED).mean()), 2))

    def to_dict(self) -> dict[str, Any]:
        """Return the mean excess at each share of the second window, JSON-able."""
        return {
            "lesser_share": list(LESSER),
            "excess_bits": self.excess.mean(0).round(6).tolist(),
            "pairs": len(self.excess),
        }


def adapt(
    variants: Sequence[Distilling],
    teachers: Mapping[TeacherName, tuple[WideResNet, Inputs]],
    windows: Tensor,
    seed: tuple[int, ...],
) -> tuple[list[Distilling], dict[str, Any]]:
    """Give adaptive settings the alphas and shares that their teachers bear.

    Teachers are frozen while students learn, so this is measured once, before the first epoch; the same
    teachers and windows give the same numbers whenever a training goes on.

    Parameters
    ----------
    variants
        Settings, adaptive or not.
    teachers
        Each trained teacher and its input for every window.
    windows
        Indices of the validation subjects' windows.
    seed
        Draws the pairs.

    Returns
    -------
    list of Distilling
        The settings, in the same order.
    dict
        For each teacher that was measured, what `Confusion.to_dict` says.
    """
    adaptive = [settings for settings in variants if settings.alpha == "adaptive"]
    pairs = draw_pairs(windows, seed)
    found = {
        name: measure(*teachers[name], pairs)
        for name in dict.fromkeys(name for settings in adaptive for name in settings.teachers)
    }
    settled = [
        settings.with_strengths(
            {name: found[name].strength(settings.confusion_budget) for name in settings.teachers}
        )
        if settings.alpha == "adaptive"
        else settings
        for settings in variants
    ]
    return settled, {name: confusion.to_dict() for name, confusion in found.items()}


def draw_pairs(windows: Tensor, seed: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return at most `PAIRS` pairs of the windows (indices): each at most once as first and as second.

    Partners are drawn blindly, as mixup draws them.
    """
    rng = np.random.default_rng(seed)
    first = rng.permutation(len(windows))[:PAIRS]
    at = torch.from_numpy(np.stack([first, rng.permutation(first)])).to(windows.device)
    return windows[at[0]], windows[at[1]]


@torch.no_grad()
def measure(model: WideResNet, inputs: Inputs, pairs: tuple[Tensor, Tensor]) -> Confusion:
    """Ask a teacher, in evaluation mode, about pairs of windows, mixed and clean.

    Parameters
    ----------
    model, inputs
        The teacher and its input for every window.
    pairs
        Indices of first and second windows, each of shape (n,).
    """
    model.eval()
    rows = []
    for first, second in zip(*(torch.split(side, _BLOCK) for side in pairs), strict=True):
        one, two = inputs[first].float(), inputs[second].float()
        clean = [_probability(model(x)) for x in (one, two)]
        rows.append(np.stack([_excess(model, one, two, clean, share) for share in LESSER], axis=1))
    return Confusion(np.concatenate(rows))


def divergence(p: Numbers, q: Numbers) -> Numbers:
    """Return the Jensen-Shannon divergence in bits of each row, between 0 and 1."""
    return np.clip(entropy_bits((p + q) / 2) - (entropy_bits(p) + entropy_bits(q)) / 2, 0.0, 1.0)


def entropy_bits(p: Numbers) -> Numbers:
    """Return the entropy in bits of each row of probabilities."""
    bits: Numbers = -np.where(p > 0, p * np.log2(np.maximum(p, 1e-300)), 0.0).sum(1)
    return bits


def _excess(model: WideResNet, one: Tensor, two: Tensor, clean: list[Numbers], share: float) -> Numbers:
    if share == 0:
        return np.zeros(len(one))
    keep = torch.full((len(one),), 1 - share, device=one.device)
    mixed = _probability(model(Mix.pairs(one, two, keep)))
    return divergence(mixed, (1 - share) * clean[0] + share * clean[1])


def _probability(logits: Tensor) -> Numbers:
    return logits.double().softmax(1).cpu().numpy()


def _weights(alpha: float) -> Numbers:
    """Return what each of `LESSER` counts for under Beta(alpha, alpha), folded at one half.

    Exact for a function that is linear in between: its integral over a segment needs the distribution
    function of Beta(alpha, alpha) and, for the first moment, half that of Beta(alpha + 1, alpha).
    """
    from scipy.special import betainc

    ends = np.array(LESSER)
    low, high = ends[:-1], ends[1:]
    mass = 2 * np.diff(betainc(alpha, alpha, ends))
    moment = np.diff(betainc(alpha + 1, alpha, ends))
    to_high = (moment - low * mass) / (high - low)
    weights = np.zeros(len(ends))
    weights[1:] += to_high
    weights[:-1] += mass - to_high
    return weights
