"""What is fitted on the fit subjects and frozen: signal scaling, image ranges, image scaling."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from topokd_edge.bundle import Normalisation
from topokd_edge.data.split import Fold
from topokd_edge.data.windowset import WindowSet
from topokd_edge.distill.inputs import Inputs, Residency, Streamed, settle
from topokd_edge.distill.recipe import Topology
from topokd_edge.errors import BadInputError
from topokd_edge.progress import Progress
from topokd_edge.rows import Rows
from topokd_edge.topology.cache import cached_images
from topokd_edge.topology.params import fit_params

_VIEWS = ("signals", "images")
_BLOCK_BYTES = 16 << 20


@dataclass(frozen=True)
class Modalities:
    """Both views of every window, in the same order.

    `signals` float32 (windows, channels, length); `images` float16 (windows, channels, rows, columns),
    both standardised per channel; `y` int64, on the training device. `kept` says where the views lie and
    why; see `topokd_edge.distill.inputs.settle`.
    """

    signals: Inputs
    images: Inputs
    y: Tensor
    kept: dict[str, Any]


def fit_and_apply(
    windows: WindowSet,
    fold: Fold,
    topology: Topology,
    cache: Path,
    device: torch.device,
    progress: Progress,
    residency: Residency = "auto",
) -> tuple[Modalities, dict[str, Any]]:
    """Fit the scaling on the fold's fit subjects, and apply it to every window, in bounded memory.

    Images are made of the raw signal: their ranges are fitted per channel, so scaling it first would not
    change them.

    Parameters
    ----------
    windows
        The set.
    fold
        Names the fit subjects; nothing else is looked at for the fit.
    topology
        Image settings of the recipe.
    cache
        Folder for persistence images.
    device, progress
        Where the tensors go; where to tell.
    residency
        Whether views may stay on disk.

    Returns
    -------
    Modalities
        The scaled views.
    dict
        `preprocessing.json` of the run, see `FoldRun.preprocessing`.

    Raises
    ------
    BadInputError
        When a sample is not finite, or a channel does not vary over the fit subjects.
    """
    fit = windows.of_subjects(fold.fit)
    params = fit_params(windows.x, rows=fit, **topology.model_dump())  # refuses what is not finite
    signal = _moments(windows.x, fit)
    flat = [
        windows.channels[index]
        for index, (mean, std) in enumerate(zip(signal.mean, signal.std, strict=True))
        if std <= 1e-6 * abs(mean)
    ]
    if flat:
        raise BadInputError(
            f"channel {', '.join(flat)} does not vary over the fit subjects {', '.join(fold.fit)}",
            hint="import again with --channels and leave it out",
        )
    images = cached_images(windows, params, cache, progress=progress)
    image = _moments(images, fit, empty=1.0)
    views, kept = settle(
        {
            "signals": Streamed(windows.x, signal, torch.float32, device),
            "images": Streamed(images, image, torch.float16, device),
        },
        residency,
        device,
    )
    progress(f"fold {fold.fold}, inputs", 1, 1, _told(kept))
    y = torch.from_numpy(np.ascontiguousarray(windows.y)).to(device)
    made = {"signal": asdict(signal), "topology": params.to_dict(), "image": asdict(image)}
    return Modalities(views["signals"], views["images"], y, kept), made


def _told(kept: dict[str, Any]) -> str:
    """Say where the views lie."""
    where = {"memory": "in memory", "disk": "on disk"}
    views = [f"{name} {kept[name]['bytes'] / 1e6:.0f} MB {where[kept[name]['kept']]}" for name in _VIEWS]
    return f"{', '.join(views)}; {kept['free_bytes'] / 1e6:.0f} MB of {kept['device']} memory were free"


def _moments(x: Rows, rows: npt.NDArray[np.int64], empty: float = 0.0) -> Normalisation:
    """Return mean and standard deviation per channel over `rows`, read block by block in float64.

    A channel that does not vary gets the standard deviation `empty`.
    """
    axes = (0, *range(2, len(x.shape)))
    total = np.zeros(x.shape[1])
    squares = np.zeros(x.shape[1])
    per_row = int(np.prod(x.shape[2:]))
    step = max(1, _BLOCK_BYTES // (8 * per_row * x.shape[1]))
    for start in range(0, len(rows), step):
        block = np.asarray(x[rows[start : start + step]], dtype=np.float64)
        total += block.sum(axes)
        squares += (block**2).sum(axes)
    count = len(rows) * per_row
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0.0))
    return Normalisation(tuple(mean.tolist()), tuple(np.where(std > 0, std, empty).tolist()))
