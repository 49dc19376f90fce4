"""Persistence images of a whole window set as a folder for people and other tools."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from topokd_edge.arrays import write_npy
from topokd_edge.data.windowset import WindowSet
from topokd_edge.errors import UsageError
from topokd_edge.files import new_folder, write_json
from topokd_edge.progress import Progress, silent
from topokd_edge.topology.cache import FORMAT
from topokd_edge.topology.image import Backend
from topokd_edge.topology.params import fit_params
from topokd_edge.topology.writing import tell_cost, write_images


def extract_images(
    windows: WindowSet,
    out: Path,
    *,
    fit_on: tuple[str, ...],
    size: tuple[int, int] = (64, 64),
    backend: Backend = "fast",
    jobs: int | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Write `images.npy`, `degenerate.npy` and `images.json` in the folder `out`, whole or not at all.

    Parameters
    ----------
    windows
        The set.
    out
        Folder to write.
    fit_on
        Subjects whose windows set the ranges.
    size
        Rows and columns of an image.
    backend
        See `persistence_images`.
    jobs
        Processes that share the work of "reference"; see `topokd_edge.topology.cache.write_images`.
    overwrite
        Replace an existing folder.
    progress
        Told how many windows are done.

    Returns
    -------
    dict
        What `images.json` says: shape, parameters, hash of the windows, number of empty images, seconds.

    Raises
    ------
    UsageError
        When a subject is not in the set, or the size is out of range.
    BadInputError
        When `out` exists and `overwrite` is false, or a sample is NaN or infinite.
    MissingError
        When the disk has too little room.
    """
    strangers = sorted(set(fit_on) - set(windows.subjects))
    if strangers:
        raise UsageError(
            f"subjects {', '.join(strangers)} are not in the set",
            hint=f"it has {', '.join(windows.subjects)}",
        )
    with new_folder(out, overwrite=overwrite) as folder:
        start = time.perf_counter()
        params = fit_params(windows.x, rows=windows.of_subjects(list(fit_on)), size=size)
        if backend == "reference":
            tell_cost(windows, params, len(windows), jobs, progress)
        everything = np.arange(len(windows))
        path = folder / "images.npy"
        degenerate = write_images(
            windows, params, path, index=everything, backend=backend, jobs=jobs, progress=progress
        )
        write_npy(folder / "degenerate.npy", degenerate.shape, np.bool_, [degenerate])
        about = {
            "format": FORMAT,
            "windows": windows.content_hash,
            "shape": [len(windows), len(windows.channels), *params.size],
            "channels": list(windows.channels),
            "params": params.to_dict(),
            "fitted_on": list(fit_on),
            "backend": backend,
            "degenerate": int(degenerate.sum()),
            "seconds": round(time.perf_counter() - start, 3),
        }
        write_json(folder / "images.json", about)
    return about
