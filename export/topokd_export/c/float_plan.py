"""What a float pipeline needs before it is built: an arena for all tensors, weights as they are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from topokd_export.c.arena import (
    ROWS_TOGETHER,
    Plan,
    aligned,
    block_rows,
    place_tensors,
    scratch,
    stays_behind,
)
from topokd_export.c.float_graph import FloatAdd, FloatConv, FloatScale
from topokd_export.c.topology_layers import WINDOW, Image

if TYPE_CHECKING:
    from topokd_export.c.float_writer import FloatPipeline, Layer

_TOGETHER = 4
"""Output channels that the kernel computes at once."""
_STATE = 8
"""How many samples of the window are there."""


@dataclass(frozen=True)
class _Kept:
    """The window, which lies outside the arena."""

    name: str = WINDOW
    bytes: int = 0


def plan_floats(pipeline: FloatPipeline) -> Plan:
    """Place every tensor; a layer overwrites its input where nobody else reads it and it safely can."""
    convolutions = [layer for layer in pipeline.layers if isinstance(layer, FloatConv)]
    rows = {layer.name: block_rows(layer, layer.output.rows, _rows_together(layer)) for layer in convolutions}
    offsets, size = place_tensors(_Kept(), pipeline.layers, _may_overwrite)
    needed = [scratch(layer, rows[layer.name]) for layer in convolutions]
    needed += [
        layer.output.rows + layer.output.columns for layer in pipeline.layers if isinstance(layer, Image)
    ]
    return Plan(offsets, size, rows, max(needed))


def _rows_together(layer: FloatConv) -> int:
    """Return the rows that fill the kernel, which takes four pixels at once: one where they are wide."""
    return min(ROWS_TOGETHER, layer.output.rows) if layer.output.columns < ROWS_TOGETHER else 1


def _may_overwrite(layer: Layer) -> bool:
    if isinstance(layer, FloatScale | FloatAdd):
        return True
    return isinstance(layer, FloatConv) and stays_behind(
        layer, layer.padding, layer.output.rows, layer.output.row_values, layer.source.row_values
    )


def float_ram_bytes(pipeline: FloatPipeline, plan: Plan) -> int:
    """Return the size of `pipeline_t`, all the memory that a pipeline has."""
    window = 4 * pipeline.length * pipeline.channels
    return plan.arena_bytes + aligned(4 * plan.scratch_values) + aligned(window + _STATE)


def layer_outputs(pipeline: FloatPipeline) -> list[tuple[int, int]]:
    """Return where every layer but the last leaves its output: first value in the arena, bytes."""
    offsets = plan_floats(pipeline).offsets
    tensors = [layer.output for layer in pipeline.layers[:-1]]
    return [(offsets[tensor.name] // 4, tensor.bytes) for tensor in tensors]


def constant_bytes(pipeline: FloatPipeline) -> int:
    """Return the bytes of all weights and tables, as they lie in flash."""
    weights = sum(
        packed(layer).nbytes + 4 * whole(layer.output.channels) if isinstance(layer, FloatConv)
        else layer.weight.nbytes + layer.bias.nbytes
        for layer in pipeline.layers
        if isinstance(layer, FloatConv | FloatScale)
    )  # fmt: skip
    tables = [table for layer in pipeline.layers if isinstance(layer, Image) for table in layer.tables]
    return weights + sum(table.nbytes for table in tables)


def packed(layer: FloatConv) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return the weights as the kernel reads them: of four output channels, value by value."""
    channels = len(layer.weight)
    flat = layer.weight.reshape(channels, -1)
    flat = np.pad(flat, ((0, whole(channels) - channels), (0, 0)))
    return np.ascontiguousarray(np.moveaxis(flat.reshape(-1, _TOGETHER, flat.shape[1]), 1, 2))


def whole(channels: int) -> int:
    """Return output channels with those of zeros that the kernel computes beside them."""
    return aligned(channels, _TOGETHER)
