"""Self-test vectors: made-up signals, so that no person's data travels in a bundle."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from topokd_export.deploy import Array, DeployGraph

VECTORS = 16
_CANDIDATES = 128


def self_test_vectors(graph: DeployGraph, *, seed: int = 0) -> tuple[Array, Array]:
    """Make windows that are spread over the classes and far from a tie.

    Returns
    -------
    tuple
        Normalised windows (16, channels, length) and the float logits (16, classes), both float32.
    """
    candidates = smooth_signals(_CANDIDATES, graph.channels, graph.size[0], seed=seed)
    logits = np.stack([graph.evaluate(window)[graph.ops[-1].name] for window in candidates])
    chosen = _spread(logits)
    return candidates[chosen], logits[chosen]


def smooth_signals(n: int, channels: int, length: int, *, seed: int) -> Array:
    """Return smooth random windows in normalised units: (n, channels, length), float32.

    Each channel is an offset, three sinusoids of random period, and a little noise.
    """
    rng = np.random.default_rng(seed)
    time = np.arange(length)
    shape = (n, channels, 1)
    x = rng.normal(0, 0.7, shape) + rng.normal(0, 0.1, (n, channels, length))
    for _ in range(3):
        period = np.exp(rng.uniform(np.log(4), np.log(2 * length + 4), shape))
        x += rng.normal(0, 0.6, shape) * np.sin(2 * np.pi * (time / period + rng.uniform(0, 1, shape)))
    return x.astype(np.float32)


def _spread(logits: Array) -> Sequence[int]:
    """Choose rows class by class in turn, in each class the clearest first."""
    ordered = np.sort(logits, axis=1)
    margin = ordered[:, -1] - ordered[:, -2] if logits.shape[1] > 1 else ordered[:, -1]
    predicted = logits.argmax(axis=1)
    turn = np.empty(len(logits), dtype=np.int64)
    for label in np.unique(predicted):
        members = np.flatnonzero(predicted == label)
        turn[members[np.argsort(-margin[members], kind="stable")]] = np.arange(len(members))
    return [int(row) for row in np.argsort(turn, kind="stable")[:VECTORS]]
