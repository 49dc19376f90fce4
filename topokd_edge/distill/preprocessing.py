"""What is fitted on the fit subjects and frozen: signal scaling, image ranges, image scaling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from topokd_edge.bundle import Normalisation
from topokd_edge.data.sensors import Sensor, sensors
from topokd_edge.data.split import Fold
from topokd_edge.data.windowset import WindowSet
from topokd_edge.distill.inputs import Channels, Inputs, Residency, Streamed, settle
from topokd_edge.distill.recipe import Topology
from topokd_edge.errors import BadInputError, UsageError
from topokd_edge.progress import Progress
from topokd_edge.rows import Rows
from topokd_edge.topology.cache import cached_images
from topokd_edge.topology.computed import empty_rows, images_of
from topokd_edge.topology.params import fit_params
from topokd_edge.topology.sublevel import refuse_non_finite

Spread = Literal["pooled", "window"]
"""The standard deviation to divide by: over all samples, or, as in the published code, the mean over the
windows of each window's own."""

_VIEWS = ("signals", "images")
_BLOCK_BYTES = 16 << 20


@dataclass(frozen=True)
class Modalities:
    """Both views of every window, in the same order.

    `signals` float32 (windows, channels, length), `student` the same with its channels only; `images` float16
    (windows, channels, rows, columns); all standardised per channel; `y` int64, on the training device.
    `images` is None where nobody learns from them. `left_out` are windows of the fit subjects that nobody
    learns from, int64. `kept` says where the views lie and why; see `topokd_edge.distill.inputs.settle`.
    """

    signals: Inputs
    student: Inputs
    images: Inputs | None
    y: Tensor
    left_out: Tensor
    kept: dict[str, Any]


def fit_and_apply(
    windows: WindowSet,
    fold: Fold,
    topology: Topology | None,
    cache: Path,
    device: torch.device,
    progress: Progress,
    residency: Residency = "auto",
    spread: Spread = "pooled",
    per: Literal["channel", "sensor"] = "channel",
    student: tuple[str, ...] = (),
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
        Image settings of the recipe; None makes no images.
    cache
        Folder for persistence images.
    device, progress
        Where the tensors go; where to tell.
    residency
        Whether views may stay on disk. Without it, images for which the disk has no room are computed.
    spread
        Which standard deviation scales signals and images.
    per
        Whether the axes of a sensor are divided by one standard deviation, their root mean square.
    student
        Channels of the student; empty is all.

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
    UsageError
        When the student has a channel that the set has not.
    """
    channels = student_channels(windows, student)
    fit = windows.of_subjects(fold.fit)
    if topology is not None:
        params = fit_params(windows.x, rows=fit, **topology.model_dump(exclude={"empty"}))
    else:
        params = None
        _refuse_what_is_not_finite(windows.x)
    signal = _moments(windows.x, fit, spread)
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
    found = sensors(windows.channels, windows.units)
    if per == "sensor":
        signal = _per_sensor(signal, found)
    sources = {"signals": Streamed(windows.x, signal, torch.float32, device)}
    made: dict[str, Any] = {
        "signal": asdict(signal),
        "student": {
            "channels": [windows.channels[index] for index in channels],
            "mean": [signal.mean[index] for index in channels],
            "std": [signal.std[index] for index in channels],
        },
        "sensors": [asdict(sensor) for sensor in found],
    }
    left_out = np.empty(0, dtype=np.int64)
    if params is not None:
        find = cached_images if residency == "disk" else images_of
        images = find(windows, params, cache, progress=progress)
        if topology is not None and topology.empty == "drop":
            left_out = empty_rows(images, fit)
            fit = np.setdiff1d(fit, left_out)
            if not len(fit):
                raise BadInputError(
                    f"fold {fold.fold}: all images of the fit subjects are empty, none is left"
                )
        image = _moments(images, fit, spread, empty=1.0)
        sources["images"] = Streamed(images, image, torch.float16, device)
        made |= {"topology": params.to_dict(), "image": asdict(image)}
    views, kept = settle(sources, residency, device)
    kept["left_out"] = len(left_out)
    progress(f"fold {fold.fold}, inputs", 1, 1, _told(kept))
    y = torch.from_numpy(np.ascontiguousarray(windows.y)).to(device)
    signals = views["signals"]
    own = Channels(signals, torch.tensor(channels, device=device)) if student else signals
    return Modalities(signals, own, views.get("images"), y, torch.from_numpy(left_out).to(device), kept), made


def student_channels(windows: WindowSet, names: tuple[str, ...]) -> list[int]:
    """Return the indices of the student's channels, in its order; of all where none are named.

    Raises
    ------
    UsageError
        When the set has no such channel.
    """
    if strangers := [name for name in names if name not in windows.channels]:
        raise UsageError(
            f"student.channels: no channel {', '.join(strangers)} in the window set; it has "
            f"{', '.join(windows.channels)}"
        )
    return [windows.channels.index(name) for name in names or windows.channels]


def _per_sensor(scale: Normalisation, found: Sequence[Sensor]) -> Normalisation:
    """Give the channels of a sensor one standard deviation: the root of their mean variance."""
    std = np.array(scale.std)
    for sensor in found:
        rows = list(sensor.channels)
        std[rows] = np.sqrt(np.mean(std[rows] ** 2))
    return Normalisation(scale.mean, tuple(std.tolist()))


def _refuse_what_is_not_finite(x: Rows) -> None:
    """Read every window; where images are made, their making does it."""
    step = max(1, _BLOCK_BYTES // (4 * int(np.prod(x.shape[1:]))))
    for start in range(0, len(x), step):
        rows = np.arange(start, min(start + step, len(x)))
        refuse_non_finite(np.asarray(x[rows]), windows=rows)


def _told(kept: dict[str, Any]) -> str:
    """Say where the views lie."""
    where = {"memory": "in memory", "disk": "on disk", "computed": "computed for each batch"}
    made = {name: kept[name] for name in _VIEWS if name in kept}
    views = [f"{name} {view['bytes'] / 1e6:.0f} MB {where[view['kept']]}" for name, view in made.items()]
    return f"{', '.join(views)}; {kept['free_bytes'] / 1e6:.0f} MB of {kept['device']} memory were free"


def _moments(
    x: Rows, rows: npt.NDArray[np.int64], spread: Spread = "pooled", empty: float = 0.0
) -> Normalisation:
    """Return mean and standard deviation per channel over `rows`, read block by block in float64.

    A channel that does not vary gets the standard deviation `empty`.
    """
    within = tuple(range(2, len(x.shape)))
    total, squares, stds = np.zeros((3, x.shape[1]))
    per_row = int(np.prod(x.shape[2:]))
    step = max(1, _BLOCK_BYTES // (8 * per_row * x.shape[1]))
    for start in range(0, len(rows), step):
        block = np.asarray(x[rows[start : start + step]], dtype=np.float64)
        total += block.sum((0, *within))
        squares += (block**2).sum((0, *within))
        if spread == "window":
            stds += block.std(within).sum(0)
    count = len(rows) * per_row
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0.0)) if spread == "pooled" else stds / len(rows)
    return Normalisation(tuple(mean.tolist()), tuple(np.where(std > 0, std, empty).tolist()))
