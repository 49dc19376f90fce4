"""Writing the persistence images of a window set, in bounded memory, by threads or by joblib's workers."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from topokd_edge.arrays import write_npy
from topokd_edge.data.windowset import WindowSet
from topokd_edge.errors import MissingError
from topokd_edge.files import replacing
from topokd_edge.progress import Progress, silent
from topokd_edge.topology.cost import predict_cost
from topokd_edge.topology.image import Backend, persistence_images
from topokd_edge.topology.params import ImageParams
from topokd_edge.topology.sublevel import refuse_non_finite

TASK = "persistence images"
_BLOCK_BYTES = 64 << 20
"""Images computed at a time: bounds memory, whatever the size of the set."""


class NoRoomError(MissingError):
    """The disk has too little room for images."""


def stored_as(params: ImageParams) -> np.dtype[Any]:
    """Return how numbers of images are kept: float16 when they end at 1."""
    return np.dtype(np.float16 if params.normalise == "max" else np.float32)


def write_images(
    windows: WindowSet,
    params: ImageParams,
    path: Path,
    *,
    index: npt.NDArray[np.int64],
    dtype: npt.DTypeLike = np.float32,
    backend: Backend = "fast",
    jobs: int | None = None,
    progress: Progress = silent,
) -> npt.NDArray[np.bool_]:
    """Write the images of the windows `index` as a `.npy` file, whole or not at all, in bounded memory.

    Parameters
    ----------
    windows, params
        What to draw, and how.
    path
        The file.
    index
        Which windows, in this order.
    dtype
        float32, or float16 for images of maximum 1.
    backend
        See `persistence_images`.
    jobs
        How many processes share the work of "reference", as joblib's `n_jobs`: None is one, or what
        `joblib.parallel_config` says around the call, which also chooses where they run (loky, dask, ray).
        The images are the same to the bit. The others use all cores by themselves.
    progress
        Told how many windows are done.

    Returns
    -------
    ndarray
        bool, shape (windows, channels): the image is all zero.

    Raises
    ------
    BadInputError
        When a sample is NaN or infinite, or the channels are not those of `params`.
    MissingError
        When the disk has too little room.
    """
    shape = (len(index), windows.x.shape[1], *params.size)
    per_window = int(np.prod(shape[1:])) * 4
    path.parent.mkdir(parents=True, exist_ok=True)
    _need_room(path.parent, len(index) * int(np.prod(shape[1:])) * np.dtype(dtype).itemsize)
    degenerate = np.empty(shape[:2], dtype=np.bool_)
    block = _block_of_reference(params) if backend == "reference" else max(1, _BLOCK_BYTES // per_window)
    parts = (index[start : start + block] for start in range(0, len(index), block))

    def blocks() -> Iterator[npt.NDArray[np.floating[Any]]]:
        done = 0
        with _drawn(windows, params, parts, backend, jobs) as drawn:
            for images, empty in drawn:
                degenerate[done : done + len(images)] = empty
                done += len(images)
                yield rounded(images, np.dtype(dtype))
                progress(TASK, done, len(index))

    with replacing(path) as part:
        write_npy(part, shape, dtype, blocks())
    return degenerate


_Drawn = tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]


@contextmanager
def _drawn(
    windows: WindowSet,
    params: ImageParams,
    parts: Iterable[npt.NDArray[np.int64]],
    backend: Backend,
    jobs: int | None,
) -> Iterator[Iterator[_Drawn]]:
    """Give what `draw` makes of each part of the set, in order; joblib's workers share "reference"."""
    calls = (
        (np.asarray(windows.x[part]), [name_of(windows, window) for window in part], params, backend)
        for part in parts
    )
    if backend != "reference":
        yield (draw(*call) for call in calls)
        return
    from joblib import Parallel, delayed

    drawn = Parallel(n_jobs=jobs, return_as="generator")(delayed(draw)(*call) for call in calls)
    try:
        yield drawn
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # joblib warns of work left over after an error or Ctrl-C
            drawn.close()


def draw(x: npt.NDArray[np.float32], names: list[str], params: ImageParams, backend: Backend) -> _Drawn:
    """Return the images of some windows, and which are empty; `names` tell where a bad sample lies."""
    refuse_non_finite(x, names=names)
    return persistence_images(x, params, backend=backend)


def rounded(images: npt.NDArray[np.float32], dtype: np.dtype[Any]) -> npt.NDArray[np.floating[Any]]:
    """Return images as they are stored: float32, or float16 (of maximum 1) with values below 2**-14 as 0."""
    if dtype == np.float32:
        return images
    from topokd_edge.topology import _kernels

    half = np.empty(images.shape, dtype=np.float16)
    _kernels.to_half(images.ravel().view(np.uint32), half.ravel().view(np.uint16))
    return half


def _block_of_reference(params: ImageParams) -> int:
    """Return how many windows a worker gets: one, or enough to make the start of a process worth it."""
    return 32 if params.filtration == "delay" else 1


def tell_cost(
    windows: WindowSet, params: ImageParams, count: int, jobs: int | None, progress: Progress
) -> None:
    """Tell what a slow job will take, before it starts."""
    from joblib import effective_n_jobs

    cost = predict_cost(windows.x, params, backend="reference")
    workers = effective_n_jobs(jobs)
    seconds = cost.seconds * count / len(windows) / workers
    images = cost.bytes * count / len(windows)
    progress(
        TASK,
        0,
        count,
        f"about {seconds:.0f} s, {images / 1e6:.0f} MB, and {workers * cost.memory / 1e6:.0f} MB of memory",
    )


def name_of(windows: WindowSet, window: int) -> str:
    """Return where a window comes from, for an error."""
    return (
        f"number {window} of the set, subject {windows.subject[window]}, session {windows.session[window]}, "
        f"from sample {windows.start[window]}"
    )


def _need_room(folder: Path, needed: int) -> None:
    """Raise NoRoomError when the disk of `folder` has less than `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise NoRoomError(
            f"{folder}: the images need {needed / 1e6:.0f} MB, {free / 1e6:.0f} MB are free",
            hint="free space, choose another folder, or make smaller images",
        )
