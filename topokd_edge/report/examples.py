"""Signals beside their persistence images: one held-out window of several classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from topokd_edge.data.windowset import WindowSet
from topokd_edge.report import figures
from topokd_edge.run import DISTILLED_STUDENT, FoldRun

MOST_CLASSES = 4
MOST_CHANNELS = 6
_BLOCK = 512
_LOOKED_AT = 4096


def examples(windows: WindowSet, fold_run: FoldRun) -> list[dict[str, Any]]:
    """Return one row a class: a signal and the images of its first channels, as in one fold.

    Parameters
    ----------
    windows
        The window set of the run.
    fold_run
        Its preprocessing makes the images, and the windows are of its held-out subjects.
    """
    from topokd_edge.topology.image import persistence_images
    from topokd_edge.topology.params import ImageParams

    held_out = fold_run.predictions(DISTILLED_STUDENT).window
    chosen = typical(windows, held_out, most=MOST_CLASSES)
    params = ImageParams.from_dict(fold_run.preprocessing()["topology"])
    raw = np.ascontiguousarray(windows.x[chosen], dtype=np.float32)
    images, _ = persistence_images(raw, params, threads=1)
    shown = min(MOST_CHANNELS, raw.shape[1])
    rows = []
    for place, index in enumerate(chosen.tolist()):
        label = windows.class_names[int(windows.y[index])]
        rows.append(
            {
                "label": label,
                "subject": str(windows.subject[index]),
                "window": index,
                "seconds": windows.length / windows.rate_hz,
                "channels_all": len(windows.channels),
                "channels": list(windows.channels[:shown]),
                "signal": figures.traces(
                    str(index), raw[place], windows.rate_hz, windows.channels, windows.units
                ),
                "images": figures.persistence_images(
                    str(index),
                    images[place, :shown],
                    windows.channels[:shown],
                    windows.units[:shown],
                    params.birth_range[:shown],
                    params.persistence_range[:shown],
                ),
            }
        )
    return rows


def typical(windows: WindowSet, among: npt.NDArray[np.int64], *, most: int) -> npt.NDArray[np.int64]:
    """Return one window of each of the first classes: the one whose energy is the median of its class.

    Parameters
    ----------
    among
        Indices of windows, ascending; of a class with more than 4,096 about so many are looked at.
    most
        Number of classes.
    """
    labels = np.asarray(windows.y)[among]
    chosen = []
    for label in np.unique(labels)[:most]:
        members = among[labels == label]
        members = members[:: -(-len(members) // _LOOKED_AT)]
        blocks = np.array_split(members, -(-len(members) // _BLOCK))
        energy = np.concatenate([_energy(windows.x[block]) for block in blocks])
        chosen.append(int(members[np.argsort(energy, kind="stable")[len(members) // 2]]))
    return np.array(chosen, dtype=np.int64)


def _energy(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    return np.asarray(np.asarray(x, dtype=np.float64).std(axis=2).sum(axis=1))
