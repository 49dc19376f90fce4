"""Measure a random forest on simple statistics, on the windows and outer folds of a run.

python benchmarks/forest.py RUN --out FOREST.json
python benchmarks/forest.py WINDOWS --split folds=7,validation=2,seed=0 --out FOREST.json
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from peers import Labels, Lesson, Signals, command

NAME = "forest"
ABOUT = "300 trees on eight statistics of each channel and of the norm of each three-axis sensor"
NODE_BYTES = 16
"""Channel, threshold and two children, four bytes each; a leaf keeps its class in their place."""


def with_norms(x: Signals, channels: tuple[str, ...]) -> Signals:
    """Append the norm of every sensor whose channels are named NAME_x, NAME_y, NAME_z."""
    place = {name: index for index, name in enumerate(channels)}
    sensors = [name.removesuffix("_x") for name in channels if name.endswith("_x")]
    axes = [[place.get(f"{sensor}_{axis}") for axis in "xyz"] for sensor in sensors]
    norms = [np.linalg.norm(x[:, some], axis=1) for some in axes if None not in some]
    return np.concatenate([x, np.stack(norms, axis=1)], axis=1) if norms else x


def statistics(x: Signals) -> npt.NDArray[np.float32]:
    """Return eight statistics per channel, shape (windows, 8 * channels)."""
    quartiles = np.percentile(x, (25, 50, 75), axis=2)
    step = np.abs(np.diff(x, axis=2)).mean(2)
    parts = (x.mean(2), x.std(2), x.min(2), x.max(2), *quartiles, step)
    return np.concatenate(parts, axis=1).astype(np.float32)


def learn(lesson: Lesson) -> tuple[Labels, int]:
    """Fit a forest and ask it; see `peers.Learn`."""
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(n_estimators=300, random_state=lesson.seed)
    forest.fit(statistics(with_norms(lesson.x, lesson.channels)), lesson.y)
    nodes = sum(tree.tree_.node_count for tree in forest.estimators_)
    return forest.predict(statistics(with_norms(lesson.asked, lesson.channels))), nodes * NODE_BYTES


if __name__ == "__main__":
    command(NAME, ABOUT, learn, __doc__)
