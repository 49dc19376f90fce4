"""Copies of one signal under two subjects: shifted, trimmed, in another unit, re-quantised, slightly noisy.

Exact copies are met by hashes of stretches whose places are chosen by their content: two windows that start
at different samples of one signal choose the same stretches. Near copies are met by the shape of the signal
around a landmark of each window, compared sample by sample, and believed only when several windows of two
recordings agree on how far one lies behind the other.

How the thresholds were chosen is in docs/decisions/copies-across-subjects.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from topokd_edge.data.windowset import WindowSet

ANCHOR = 16
"""Rows of an anchor, the stretch that is hashed."""
MOVING = 12
"""Different rows that an anchor must have: a still, constant or saturated stretch is no evidence."""
CANDIDATE = 0.95
"""Correlation of two low-passed shapes from which their windows are compared sample by sample."""
SAME = 0.995
"""Correlation of every moving channel, sample by sample, from which two windows show the same signal."""
TURNING = 4
"""Times that some channel must cross its trend in a stretch: slow drifts look alike without being copies."""
AGREEING = 3
"""Windows of two recordings that must agree on one shift before a near copy is believed."""

_LAGS = range(-2, 3)
_COMPARISONS = 2_500_000_000
_RUN = 8
_BLOCK = 1024
_MOST_ANCHORS = 4_000_000

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Copies:
    """Pairs of windows of different subjects that hold the same signal.

    Attributes
    ----------
    a, b
        int64, shape (pairs,): window indices, a below b.
    shift
        int64, shape (pairs,): sample t of window b is sample t + shift of window a.
    similarity
        float32, shape (pairs,): the lowest correlation of a moving channel; 1 for exact copies.
    exact
        bool, shape (pairs,): equal bit by bit; else up to scale, offset, resolution or slight noise.
    """

    a: Ints
    b: Ints
    shift: Ints
    similarity: Floats
    exact: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.a)

    def at(self, which: npt.NDArray[Any]) -> Copies:
        """Return the pairs at some indices, or of a mask."""
        return Copies(
            self.a[which], self.b[which], self.shift[which], self.similarity[which], self.exact[which]
        )


def find_copies(windows: WindowSet, seed: int = 0) -> tuple[Copies, int]:
    """Find windows that hold the signal of a window of another subject.

    Of two windows at least half must be the same signal. Every window is looked up among all others, up to
    50,000 windows; in a larger set fewer are looked up for near copies, so that the time stays bounded by
    that of 50,000, or grows only with the size of the set; exact copies are always looked for in all windows.

    Parameters
    ----------
    windows
        The set; its signals are read in blocks.
    seed
        Chooses the windows of a large set that are looked up.

    Returns
    -------
    copies
        Exact copies, then near copies in pairs of recordings without an exact one.
    looked_up
        How many windows were looked up for near copies.
    """
    queries = _queries(len(windows), seed)
    subject = np.unique(windows.subject, return_inverse=True)[1].astype(np.int64)
    exact = _exact_copies(windows, subject)
    near = _agreeing(windows, _near_copies(windows, subject, queries))
    known = set(zip(windows.recording[exact.a].tolist(), windows.recording[exact.b].tolist(), strict=True))
    theirs = zip(windows.recording[near.a].tolist(), windows.recording[near.b].tolist(), strict=True)
    near = near.at(np.array([pair not in known for pair in theirs], dtype=bool))
    names = ("a", "b", "shift", "similarity", "exact")
    both = [np.concatenate([getattr(exact, name), getattr(near, name)]) for name in names]
    return Copies(*both), len(queries)


def _exact_copies(windows: WindowSet, subject: Ints) -> Copies:
    """Pair windows that share an anchor, and keep those equal in all that they share."""
    hashes, window, place = _anchors(windows)
    order = np.lexsort((place, window, hashes))
    hashes, window, place = hashes[order], window[order], place[order]
    found = [np.empty((3, 0), dtype=np.int64)]
    for distance in range(1, 64):
        same = hashes[distance:] == hashes[:-distance]
        if not same.any():
            break
        at = np.flatnonzero(same & (subject[window[distance:]] != subject[window[:-distance]]))
        found.append(np.stack([window[at], window[at + distance], place[at] - place[at + distance]]))
    a, b, shift = np.unique(np.concatenate(found, axis=1), axis=1)
    long = 2 * np.abs(shift) <= windows.length
    a, b, shift = a[long], b[long], shift[long]
    equal = np.zeros(len(a), dtype=bool)
    for pair, one, other in _signals(windows, a, b):
        equal[pair] = np.array_equal(*_shared(one, other, int(shift[pair])))
    ones = np.ones(len(a), dtype=np.float32)
    return Copies(a, b, shift, ones, equal).at(equal)


def _anchors(windows: WindowSet) -> tuple[Hashes, Ints, Ints]:
    """Hash the stretches of each window that their own content chooses: hash, window, first row."""
    count, channels, length = windows.x.shape
    one_in = np.uint64(max(1, min(16, length // 32), count * length // _MOST_ANCHORS))
    keys = np.random.default_rng(0).integers(0, 2**64, channels + ANCHOR, dtype=np.uint64) | np.uint64(1)
    hashes, window, place = [np.empty(0, dtype=np.uint64)], [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for block in _parts(count if length >= ANCHOR else 0):
        # Adding zero makes -0.0 and 0.0 the same bits.
        bits = (np.asarray(windows.x[block], dtype=np.float32) + np.float32(0)).view(np.uint32)
        rows = _mixed(np.einsum("ncl,c->nl", bits.astype(np.uint64), keys[:channels]))
        stop = length - ANCHOR + 1
        rolled = np.zeros((len(block), stop), dtype=np.uint64)
        for step in range(ANCHOR):
            rolled += rows[:, step : step + stop] * keys[channels + step]
        rolled = _mixed(rolled)
        which, where = np.nonzero(rolled % one_in == 0)
        inside = np.sort(rows[which[:, None], where[:, None] + np.arange(ANCHOR)], axis=1)
        moving = (np.diff(inside, axis=1) != 0).sum(axis=1) >= MOVING - 1
        hashes.append(rolled[which, where][moving])
        window.append(block[which[moving]])
        place.append(where[moving])
    return np.concatenate(hashes), np.concatenate(window), np.concatenate(place)


def _mixed(values: Hashes) -> Hashes:
    """Spread every bit over all others (the finaliser of splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _near_copies(windows: WindowSet, subject: Ints, queries: Ints) -> Copies:
    """Compare each query with the window of another subject whose shape is most alike."""
    shapes = np.concatenate([_shapes(windows.x[queries[part]])[0] for part in _parts(len(queries))])
    best = np.full(len(queries), -1, dtype=np.float32)
    partner = np.zeros(len(queries), dtype=np.int64)
    for block in _parts(len(windows)):
        there = _shapes(windows.x[block])[0].T
        for rows in _parts(len(queries)):
            alike = shapes[rows] @ there
            alike[subject[queries[rows], None] == subject[block]] = -1
            at = alike.argmax(axis=1)
            value = alike[np.arange(len(rows)), at]
            better = value > best[rows]
            best[rows[better]], partner[rows[better]] = value[better], block[at[better]]
    likely = best >= CANDIDATE
    pairs = np.sort(np.stack([queries[likely], partner[likely]]), axis=0)
    a, b = np.unique(pairs, axis=1)
    shift, similarity = np.zeros(len(a), dtype=np.int64), np.zeros(len(a), dtype=np.float32)
    for pair, one, other in _signals(windows, a, b):
        landmark = _shapes(np.stack([one, other]))[1].tolist()
        tried = [landmark[0] - landmark[1] + lag for lag in _LAGS]
        similarity[pair], shift[pair] = max((_likeness(*_shared(one, other, lag)), lag) for lag in tried)
    same = similarity >= SAME
    return Copies(a, b, shift, similarity, np.zeros(len(a), dtype=bool)).at(same)


def _queries(count: int, seed: int) -> Ints:
    """Choose the windows to look up: all, or runs of neighbours, which can agree on a shift."""
    most = max(_COMPARISONS // max(count, 1), 2000)
    if most >= count:
        return np.arange(count)
    starts = np.random.default_rng(seed).choice(count // _RUN, most // _RUN, replace=False)
    return np.sort((starts[:, None] * _RUN + np.arange(_RUN)).ravel())


def _shapes(x: Floats) -> tuple[Floats, Ints]:
    """Describe windows around their landmarks, the highest peak of the middle half of the first channel.

    Returns
    -------
    shapes
        float32, shape (windows, channels * points), of norm 1: every channel low-passed and standardised, so
        that its unit and offset do not matter.
    landmarks
        int64, shape (windows,): sample.
    """
    count, channels, length = x.shape
    points = max(4, min(16, 96 // channels, length // 2)) // 2 * 2
    half = length // 2 // points * points // 2
    landmarks = _landmarks(x[:, 0], half)
    around = landmarks[:, None, None] + np.arange(-half, half)
    patch = np.take_along_axis(x, np.broadcast_to(around, (count, channels, 2 * half)), axis=2)
    shapes = patch.reshape(count, channels, points, -1).mean(axis=3)
    shapes = _unit(shapes - shapes.mean(axis=2, keepdims=True))
    return _unit(shapes.reshape(count, -1)), landmarks


def _landmarks(signal: Floats, half: int) -> Ints:
    """Find the highest peak of each smoothed signal that has a quarter, and `half` samples, on both sides."""
    length = signal.shape[1]
    width = max(3, length // 32) | 1
    padded = np.pad(signal.astype(np.float64), ((0, 0), (width // 2 + 1, width // 2)), mode="edge")
    total = np.cumsum(padded, axis=1)
    edge = max(half, length // 4)
    inside = (total[:, width:] - total[:, :-width])[:, edge : length - edge + 1]
    peak = inside.copy()
    peak[:, 1:][inside[:, 1:] < inside[:, :-1]] = -np.inf
    peak[:, :-1][inside[:, :-1] < inside[:, 1:]] = -np.inf
    return np.asarray(peak.argmax(axis=1) + edge, dtype=np.int64)


def _unit(values: Floats) -> Floats:
    norm = np.linalg.norm(values, axis=-1, keepdims=True)
    return np.asarray(np.divide(values, norm, out=np.zeros_like(values), where=norm > 0))


def _likeness(one: Floats, other: Floats) -> float:
    """Return the lowest correlation of the channels that move in one of two stretches, without their trends.

    0 when no channel turns often enough: slow drifts are all alike.
    """
    first, second = _without_trend(one), _without_trend(other)
    turns = (np.diff(np.signbit(first), axis=1)).sum(axis=1)
    norms = np.linalg.norm(first, axis=1), np.linalg.norm(second, axis=1)
    moving = (norms[0] > 0) | (norms[1] > 0)
    product = (norms[0] * norms[1])[moving]
    if turns.max() < TURNING or not product.all():
        return 0.0
    return float(((first * second).sum(axis=1)[moving] / product).min())


def _without_trend(signal: Floats) -> npt.NDArray[np.float64]:
    """Subtract the least-squares line of each channel; what is left of a straight line is exactly 0."""
    centred = signal.astype(np.float64) - signal.mean(axis=1, keepdims=True, dtype=np.float64)
    time = np.arange(signal.shape[1]) - (signal.shape[1] - 1) / 2
    left = centred - (centred @ time)[:, None] / (time @ time) * time
    floor = 1e-6 * np.abs(signal).max(axis=1, keepdims=True)
    return np.where(np.abs(left).max(axis=1, keepdims=True) > floor, left, 0.0)


def _agreeing(windows: WindowSet, copies: Copies) -> Copies:
    """Keep the pairs of which enough lie in the same two recordings at the same distance in time."""
    one, other = windows.recording[copies.a], windows.recording[copies.b]
    behind = windows.start[copies.b] - windows.start[copies.a] - copies.shift
    order = np.lexsort((behind, other, one))
    one, other, behind = one[order], other[order], behind[order]
    new = (np.diff(one) != 0) | (np.diff(other) != 0) | (np.diff(behind) > len(_LAGS))
    group = np.concatenate([[0], np.cumsum(new)])[: len(order)].astype(np.int64)
    return copies.at(np.sort(order[np.bincount(group)[group] >= AGREEING]))


def _shared(one: Floats, other: Floats, shift: int) -> tuple[Floats, Floats]:
    """Cut the stretch that two windows share when sample t of `other` is sample t + shift of `one`."""
    size = one.shape[1] - abs(shift)
    return one[:, max(shift, 0) :][:, :size], other[:, max(-shift, 0) :][:, :size]


def _signals(windows: WindowSet, a: Ints, b: Ints) -> Iterator[tuple[int, Floats, Floats]]:
    """Yield the number and the two signals of each pair, read in blocks."""
    for part in _parts(len(a)):
        yield from zip(part.tolist(), windows.x[a[part]], windows.x[b[part]], strict=True)


def _parts(count: int) -> Iterator[Ints]:
    for start in range(0, count, _BLOCK):
        yield np.arange(start, min(start + _BLOCK, count))
