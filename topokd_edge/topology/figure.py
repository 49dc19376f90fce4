"""A window beside its persistence images."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from topokd_edge.data.windowset import WindowSet
from topokd_edge.errors import UsageError
from topokd_edge.files import refuse_existing, replacing
from topokd_edge.rows import evenly
from topokd_edge.topology.image import persistence_images
from topokd_edge.topology.params import fit_params

_FITTED_ON = 4096


def draw_window(windows: WindowSet, window: int, path: Path, *, overwrite: bool = False) -> None:
    """Draw every channel of one window beside its persistence image.

    Ranges come from the whole set, or from 4096 windows spread evenly over a larger one.

    Parameters
    ----------
    windows
        The set.
    window
        Which window, from 0.
    path
        Figure to write; its suffix is .svg or .png.
    overwrite
        Replace an existing file.

    Raises
    ------
    UsageError
        When there is no such window, or the suffix is another.
    BadInputError
        When `path` exists and `overwrite` is false.
    """
    if not 0 <= window < len(windows):
        raise UsageError(f"window {window}: expected 0 to {len(windows) - 1}")
    if path.suffix not in (".svg", ".png"):
        raise UsageError(f"{path}: expected a name that ends in .svg or .png")
    refuse_existing(path, overwrite=overwrite)
    from matplotlib.figure import Figure

    some = evenly(len(windows), _FITTED_ON)
    params = fit_params(windows.x, rows=some)
    x = np.asarray(windows.x[window : window + 1])
    images = persistence_images(x, params)[0][0]
    channels = len(windows.channels)
    figure = Figure(figsize=(9.0, 1.8 * channels + 0.6), layout="constrained")
    axes = figure.subplots(channels, 2, squeeze=False, width_ratios=(3, 1))
    seconds = np.arange(windows.length) / windows.rate_hz
    for channel in range(channels):
        signal, raster = axes[channel]
        signal.plot(seconds, x[0, channel], linewidth=0.8)
        signal.set_ylabel(f"{windows.channels[channel]} [{windows.units[channel]}]")
        extent = (*params.birth_range[channel], *params.persistence_range[channel])
        raster.imshow(images[channel], extent=extent, aspect="auto", cmap="viridis")
        raster.set_ylabel("persistence")
    axes[-1, 0].set_xlabel("seconds")
    axes[-1, 1].set_xlabel("birth")
    label = windows.class_names[int(windows.y[window])]
    figure.suptitle(f"window {window}, subject {windows.subject[window]}, {label}")
    with replacing(path) as part:
        figure.savefig(part, format=path.suffix[1:])
