"""Measure MiniRocket with a ridge classifier, on the windows and outer folds of a run.

PYTHONPATH=. python benchmarks/minirocket.py RUN --out MINIROCKET.json
PYTHONPATH=. python benchmarks/minirocket.py WINDOWS --split folds=7,validation=2,seed=0 --out MINIROCKET.json

Needs aeon 1.6.0, best in an environment of its own: pip install aeon==1.6.0. The transform is aeon's as it
comes: Dempster, Schmidt and Webb, "MiniRocket", KDD 2021 (arXiv 2012.08791), 9,996 features. Channels
are standardised first, since MiniRocket adds channels of different units up. The penalty is chosen on the
inner validation subjects, then all are learnt from: the usual way, leaving single windows out, leaves
their neighbours of the same person in.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from peers import Labels, Lesson, command

NAME = "minirocket"
ABOUT = "MiniRocket, 9,996 features (aeon 1.6.0), and ridge; penalty by the inner validation subjects"
PENALTIES = tuple(10.0**exponent for exponent in (1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0))
"""Lower ones drown in float32: the largest eigenvalue of the products is about 1e7 to 1e8."""

Features = npt.NDArray[np.float32]

USUAL_PENALTY = 1000.0
"""Where no validation subjects choose: the middle, in logarithms."""


def ridge(x: Features, y: Labels, penalties: tuple[float, ...]) -> list[tuple[Features, Features]]:
    """Return weights (features, classes) and intercepts (classes,) of a ridge classifier for each penalty.

    A column per class of least squares on +1 and -1, as scikit-learn's `RidgeClassifier`, but the products of
    `x`, which cost most, are taken once for all penalties.
    """
    from scipy.linalg import cho_factor, cho_solve

    target = (2 * np.eye(int(y.max()) + 1, dtype=np.float32)[y]) - 1
    middle, offset = x.mean(0), target.mean(0)
    x, target = x - middle, target - offset
    wide = x.shape[0] < x.shape[1]
    products = x @ x.T if wide else x.T @ x
    right = target if wide else x.T @ target
    found = []
    for penalty in penalties:
        shifted = products + np.float32(penalty) * np.eye(len(products), dtype=np.float32)
        solved = cho_solve(cho_factor(shifted, lower=True, overwrite_a=True), right)
        weights = x.T @ solved if wide else solved
        found.append((weights, offset - middle @ weights))
    return found


def learn(lesson: Lesson) -> tuple[Labels, int]:
    """Fit the classifier and ask it; see `peers.Learn`. The size counts its numbers at four bytes each."""
    from aeon.transformations.collection.convolution_based import MiniRocket

    x, y, judges = lesson.x, lesson.y, lesson.judges
    mean, std = x.mean((0, 2), keepdims=True), x.std((0, 2), keepdims=True)
    transform = MiniRocket(random_state=lesson.seed)
    features = np.asarray(transform.fit_transform((x - mean) / std), dtype=np.float32)
    spread = features.std(0)
    spread[spread == 0] = 1
    features /= spread
    penalty = USUAL_PENALTY
    if judges.any():
        fitted = ridge(features[~judges], y[~judges], PENALTIES)
        right = [np.mean(_said(features[judges], *each) == y[judges]) for each in fitted]
        penalty = PENALTIES[int(np.argmax(right))]
    ((weights, offset),) = ridge(features, y, (penalty,))
    print(f"penalty {penalty:g}")
    asked = np.asarray(transform.transform((lesson.asked - mean) / std), dtype=np.float32) / spread
    held = (*transform.parameters, spread, weights, offset, mean, std)
    return _said(asked, weights, offset), 4 * sum(np.size(numbers) for numbers in held)


def _said(features: Features, weights: Features, offset: Features) -> Labels:
    return np.argmax(features @ weights + offset, axis=1)


if __name__ == "__main__":
    command(NAME, ABOUT, learn, __doc__)
