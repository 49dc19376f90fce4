"""Persistence images on a GPU: diagrams by the compiled code on the CPU, then one matrix product a batch.

An image is rows^T diag(weights) columns, with the masses of every pair in the pixels of either axis. They are
integrals by the error function, and everything is float64: no table, no cut within eight sigma, and no
TensorFloat-32, which is of float32 only. Pairs are padded with weight 0 to the longest diagram of a batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from topokd_edge.errors import MissingError
from topokd_edge.topology.params import ImageParams
from topokd_edge.topology.sublevel import essential_code

if TYPE_CHECKING:
    import torch

    from topokd_edge.topology.image import Fill

Floats = npt.NDArray[np.float64]

_PAIRS_BYTES = 16 << 20
"""Of the pairs that one thread collects on the CPU at a time."""
_DEVICE_BYTES = 256 << 20
"""Of what a device holds at a time while it draws."""
_COPIES = 8
"""How many arrays of masses lie on a device at once, at most, while they are computed."""


def cuda() -> torch.device:
    """Return the GPU.

    Raises
    ------
    MissingError
        When torch is not installed, or finds no CUDA device.
    """
    hint = "take backend 'fast': the same images within 1e-6 of their maximum, on all cores of the CPU"
    try:
        import torch
    except ImportError:
        raise MissingError("backend 'gpu': torch is not installed", hint=hint) from None
    if not torch.cuda.is_available():
        raise MissingError("backend 'gpu': no usable CUDA device", hint=hint)
    return torch.device("cuda")


def windows_at_a_time(channels: int, length: int) -> int:
    """Return for how many windows one thread may collect pairs in its share of memory."""
    return max(1, _PAIRS_BYTES // (channels * _most_pairs(length) * 16))


def filler(params: ImageParams, device: torch.device, *, device_bytes: int = _DEVICE_BYTES) -> Fill:
    """Return a function of (windows, images to fill, flags to fill) that draws on `device`.

    Several threads may call it: each collects its pairs by itself, and they draw in turn, so that the memory
    of the device is bounded whatever their number.

    Parameters
    ----------
    params
        Of images of sublevel or superlevel sets.
    device
        Where images are drawn; it needs float64.
    device_bytes
        What drawing may hold there at a time, about; one image and one pair always go.

    Raises
    ------
    MissingError
        By the function: the device has no memory left.
    """
    import torch

    turn = Lock()

    def fill(
        x: npt.NDArray[np.float32], images: npt.NDArray[np.float32], degenerate: npt.NDArray[np.bool_]
    ) -> None:
        pairs = diagrams(x, params)
        channel = np.arange(len(pairs.counts)) % params.channels
        flat, flags = images.reshape(-1, *params.size), degenerate.reshape(-1)
        step, block = _batch(pairs.births.shape[1], params.size, device_bytes)
        for start in range(0, len(channel), step):
            part = slice(start, start + step)
            try:
                with turn:
                    drawn = _draw(pairs.of(part), channel[part], params, device, block)
                    largest = drawn.amax(dim=(1, 2), keepdim=True)
                    if params.normalise == "max":
                        drawn /= largest + (largest == 0.0)
                    flat[part] = drawn.float().cpu().numpy()
                    flags[part] = (largest == 0.0).flatten().cpu().numpy()
            except torch.OutOfMemoryError:
                raise MissingError(
                    f"backend 'gpu': the device has less than {device_bytes >> 20} MB of memory left",
                    hint="end what else runs there, or take backend 'fast'",
                ) from None

    return fill


@dataclass(frozen=True)
class Pairs:
    """Births and lives (diagrams, pairs of the longest) in units of the signal; `counts` of each, then 0."""

    births: Floats
    lives: Floats
    counts: npt.NDArray[np.int64]

    def of(self, part: slice) -> Pairs:
        """Return some of the diagrams."""
        return Pairs(self.births[part], self.lives[part], self.counts[part])


def diagrams(x: npt.NDArray[np.float32], params: ImageParams) -> Pairs:
    """Return the pairs that are drawn, float64, one diagram after another by window and channel.

    Parameters
    ----------
    x
        float32, shape (windows, channels, length), finite.
    params
        Give the filtration, the shortest life, and what becomes of the class that never dies.
    """
    from topokd_edge.topology import _kernels

    shape = (*x.shape[:2], _most_pairs(x.shape[2]))
    births, lives, counts = np.zeros(shape), np.zeros(shape), np.zeros(x.shape[:2], dtype=np.int64)
    _kernels.drawn_pairs(
        params.filtered(x),
        np.array(params.persistence_range),
        params.min_life,
        essential_code(params.essential, params.cap),
        births,
        lives,
        counts,
    )
    most = int(counts.max())
    rows = (counts.size, most)
    return Pairs(births[:, :, :most].reshape(rows), lives[:, :, :most].reshape(rows), counts.ravel())


def _most_pairs(length: int) -> int:
    """Return how many classes a signal can have: each is born in a minimum of its own."""
    return (length + 1) // 2


def _batch(pairs: int, size: tuple[int, int], limit: int) -> tuple[int, int]:
    """Return how many images are drawn at a time, and how many pairs of each, within `limit` bytes."""
    rows, columns = size
    of_pair = 8 * _COPIES * (rows + columns)
    of_image = 8 * 3 * rows * columns
    step = max(1, limit // (pairs * of_pair + of_image))
    return step, max(1, (limit - step * of_image) // (step * of_pair))


def _draw(
    pairs: Pairs, channel: npt.NDArray[np.int64], params: ImageParams, device: torch.device, block: int
) -> torch.Tensor:
    """Return images before they are divided, float64, shape (images, rows, columns), `block` pairs at a time.

    `channel`, shape (images,), is that of each diagram.
    """
    import torch

    def on_device(values: Floats | npt.NDArray[np.int64]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float64)).to(device)

    images = torch.zeros((len(channel), *params.size), dtype=torch.float64, device=device)
    counts, longest = (
        on_device(pairs.counts[:, None]),
        on_device(pairs.lives.max(1, keepdims=True, initial=0)),
    )
    ranges = [on_device(np.array(pair)[channel]) for pair in (params.birth_range, params.persistence_range)]
    masses = _paper if params.layout == "paper" else _cells
    for start in range(0, pairs.births.shape[1], block):
        some = slice(start, start + block)
        births, lives = on_device(pairs.births[:, some]), on_device(pairs.lives[:, some])
        weights, rows, columns = masses(births, lives, longest, ranges[0], ranges[1], params)
        weights = weights * (start + births.new_tensor(np.arange(births.shape[1])) < counts)
        images += (weights[..., None] * rows).mT @ columns
    # Differences of CDFs may be as low as -1e-17; a mass is not negative.
    return images.flip(1).clamp(min=0.0)


_Masses = tuple["torch.Tensor", "torch.Tensor", "torch.Tensor"]


def _cells(
    births: torch.Tensor,
    lives: torch.Tensor,
    longest: torch.Tensor,
    birth_range: torch.Tensor,
    life_range: torch.Tensor,
    params: ImageParams,
) -> _Masses:
    """Return weights (images, pairs) and masses in rows and in columns (images, pairs, pixels)."""
    (rows, columns), sigma = params.size, params.sigma
    born, lived = _place(births, birth_range), _place(lives, life_range)
    return _weight(lived, params), _in_cells(lived, rows, sigma), _in_cells(born, columns, sigma)


def _place(values: torch.Tensor, limits: torch.Tensor) -> torch.Tensor:
    """Return where values lie on axes of [0, 1]; what lies beyond is on the border."""
    low, high = limits[:, :1], limits[:, 1:]
    return ((values - low) / (high - low)).clamp(0.0, 1.0)


def _weight(places: torch.Tensor, params: ImageParams) -> torch.Tensor:
    """Return what pairs at places on the persistence axis weigh; see `ImageParams.weight`."""
    if params.weight == "power":
        return places**params.weight_power
    if params.weight == "ramp":
        start, end = params.weight_ramp
        return ((places - start) / (end - start)).clamp(0.0, 1.0)
    return places * 0.0 + 1.0


def _in_cells(places: torch.Tensor, pixels: int, sigma: float) -> torch.Tensor:
    """Return the masses that Gaussians leave in equal pixels of [0, 1], shape (images, pairs, pixels)."""
    edges = places.new_tensor(np.arange(pixels + 1) / pixels)
    return _cdf((edges - places[..., None]) / sigma).diff(dim=-1)


def _paper(
    births: torch.Tensor,
    lives: torch.Tensor,
    longest: torch.Tensor,
    birth_range: torch.Tensor,
    life_range: torch.Tensor,
    params: ImageParams,
) -> _Masses:
    """Return what `_cells` returns, in the bins of `persim.PersImage`; see `ImageParams.layout`."""
    rows, columns = params.size
    low, high = birth_range[:, :1, None], birth_range[:, 1:, None]
    sigma, width = params.sigma * high, high / rows
    bottoms = high / max(rows - 1, 1) * births.new_tensor(np.arange(rows))
    lefts = low + (high - low) / max(columns - 1, 1) * births.new_tensor(np.arange(columns))
    weights = lives / (longest + (longest == 0.0))
    return weights, _in_bins(lives, bottoms, width, sigma), _in_bins(births, lefts, width, sigma)


def _in_bins(
    values: torch.Tensor, edges: torch.Tensor, width: torch.Tensor, sigma: torch.Tensor
) -> torch.Tensor:
    """Return the masses that Gaussians leave in bins of one width from `edges` (images, 1, bins) on.

    A bin farther than `CDF_REACH` sigma gets none: where every pair is that far, the image is empty.
    """
    from topokd_edge.topology._kernels import CDF_REACH

    starts = edges - values[..., None]
    ends = starts + width
    near = (ends >= -CDF_REACH * sigma) & (starts <= CDF_REACH * sigma)
    return (_cdf(ends / sigma) - _cdf(starts / sigma)) * near


def _cdf(z: torch.Tensor) -> torch.Tensor:
    """Return the normal CDF."""
    return 0.5 * (z * -math.sqrt(0.5)).erfc()
