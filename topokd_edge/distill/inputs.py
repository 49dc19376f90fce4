"""What a network learns from: standardised arrays on the device, or by batch from disk or computed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from topokd_edge.bundle import Normalisation
from topokd_edge.distill.distributed import size
from topokd_edge.memory import free_memory
from topokd_edge.rows import Rows
from topokd_edge.topology.computed import ComputedImages

Residency = Literal["auto", "memory", "disk"]
"""Where inputs lie: by size, always on the device, or always on disk. The numbers are the same to the bit."""

SHARE = 0.5
"""Of the free memory, what inputs may take; networks, activations and the cache of files need the rest."""
_BLOCK_BYTES = 16 << 20


class Inputs(Protocol):
    """An input for every window of a set; a tensor on the training device is one."""

    @property
    def shape(self) -> Sequence[int]:
        """(windows, channels, ...)."""

    @property
    def ndim(self) -> int:
        """Number of axes."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Tensor, /) -> Tensor:
        """Return the inputs of the windows `rows` (indices, any order), on the training device."""


class Streamed:
    """An array on disk, or computed by rows, that is standardised per channel when it is read.

    Parameters
    ----------
    source
        Shape (windows, channels, ...).
    scale
        Mean and standard deviation per channel.
    dtype
        What the standardised numbers, computed in float32, are rounded to.
    device
        Where they are needed.
    """

    def __init__(self, source: Rows, scale: Normalisation, dtype: torch.dtype, device: torch.device) -> None:
        self.kept = "computed" if isinstance(source, ComputedImages) else "disk"
        per_channel = (-1, *(1 for _ in source.shape[2:]))
        self._mean = np.asarray(scale.mean, np.float32).reshape(per_channel)
        self._std = np.asarray(scale.std, np.float32).reshape(per_channel)
        self._source, self._dtype, self._device = source, dtype, device
        self.shape = tuple(source.shape)
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Tensor, /) -> Tensor:
        """Return the inputs of the windows `rows` (indices, any order), on the training device."""
        scaled = np.subtract(self._source[rows.cpu().numpy()], self._mean, dtype=np.float32)
        scaled /= self._std
        # In memory that torch allocates, as for a resident row: alignment can change the order of sums.
        out = torch.empty(scaled.shape, dtype=self._dtype).copy_(torch.from_numpy(scaled))
        return out.to(self._device)

    @property
    def nbytes(self) -> int:
        """What `resident` takes."""
        return math.prod(self.shape) * self._dtype.itemsize

    def resident(self) -> Tensor:
        """Return all of it as a tensor on the training device."""
        out = torch.empty(self.shape, dtype=self._dtype, device=self._device)
        step = max(1, _BLOCK_BYTES * len(self) // self.nbytes)
        for rows in torch.split(torch.arange(len(self)), step):
            out[rows[0] : rows[-1] + 1] = self[rows]
        return out


class Channels:
    """Some channels of every window, in a given order.

    Parameters
    ----------
    source
        Shape (windows, channels, ...).
    channels
        Indices into its channels, on the training device.
    """

    def __init__(self, source: Inputs, channels: Tensor) -> None:
        self._source, self._channels = source, channels
        self.shape = (source.shape[0], len(channels), *source.shape[2:])
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Tensor, /) -> Tensor:
        """Return the inputs of the windows `rows` (indices, any order), on the training device."""
        return self._source[rows][:, self._channels]


def settle(
    sources: Mapping[str, Streamed], residency: Residency, device: torch.device
) -> tuple[dict[str, Inputs], dict[str, Any]]:
    """Bring onto the device what has room there; leave the rest on disk, or to be computed.

    Parameters
    ----------
    sources
        By name; the first is the first to get room.
    residency
        `auto` gives away `SHARE` of the memory that is free: the device's own, or main memory, divided by
        the number of processes that train together.
    device
        Where training computes.

    Returns
    -------
    dict
        The inputs by name.
    dict
        The account of it, JSON-able: `device`, `free_bytes`, `share`, and for each name its `bytes` as
        standardised and where they are `kept`: "memory", "disk", or "computed" for each batch.
    """
    free = _free_on_device(device) if device.type == "cuda" else free_memory() // size()
    room = {"auto": SHARE * free, "memory": math.inf, "disk": -math.inf}[residency]
    inputs: dict[str, Inputs] = {}
    account: dict[str, Any] = {"device": device.type, "free_bytes": free, "share": SHARE}
    for name, source in sources.items():
        fits = source.nbytes <= room
        if fits:
            room -= source.nbytes
        inputs[name] = source.resident() if fits else source
        account[name] = {"bytes": source.nbytes, "kept": "memory" if fits else source.kept}
    return inputs, account


def _free_on_device(device: torch.device) -> int:
    """Return the free bytes of a GPU, with those torch still holds unused, as after another fold."""
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + held
