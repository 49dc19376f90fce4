"""Where each activation lies in the one static arena: lifetimes known, bytes shared."""

from __future__ import annotations

from dataclasses import dataclass

from topokd_export.c.integer_graph import Add, Conv, IntegerGraph, Layer, Scale, Tensor

ALIGNMENT = 8
SCRATCH_VALUES = 512
"""Values of widened input rows that a convolution works on at a time (more where taps * channels need it)."""

ROWS_TOGETHER = 4


@dataclass(frozen=True)
class Plan:
    """Offsets in bytes by tensor name (the logits go straight to the caller), and sizes.

    Attributes
    ----------
    offsets
        Of every activation, and of the input when it is copied in.
    arena_bytes
        Size of the arena.
    block_rows
        For each convolution by name, output rows per filling of the scratch.
    scratch_values
        Size of the scratch.
    """

    offsets: dict[str, int]
    arena_bytes: int
    block_rows: dict[str, int]
    scratch_values: int


@dataclass
class _Place:
    """Tensors that take the same bytes one after another, living from layer `born` to layer `dies`."""

    bytes: int
    born: int
    dies: int
    offset: int = 0

    def meets(self, other: _Place) -> bool:
        return self.born <= other.dies and other.born <= self.dies


def plan_arena(graph: IntegerGraph) -> Plan:
    """Place every activation; a layer overwrites its input where nobody else reads it and it safely can."""
    last_read = {name: index for index, layer in enumerate(graph.layers) for name in layer.inputs}
    block_rows = {layer.name: _block_rows(layer) for layer in graph.layers if isinstance(layer, Conv)}
    places = {graph.input.name: _Place(graph.input.bytes, -1, last_read[graph.input.name])}
    tensors: dict[str, Tensor] = {graph.input.name: graph.input}
    for index, layer in enumerate(graph.layers[:-1]):
        tensors[layer.output.name] = layer.output
        dies = last_read[layer.output.name]
        shared = next(
            (
                places[name]
                for name in reversed(layer.inputs)
                # The caller's input must stay as it is.
                if name != graph.input.name
                and last_read[name] == index
                and places[name].dies == index
                and _may_overwrite(layer, tensors[name])
            ),
            None,
        )
        if shared is None:
            places[layer.output.name] = _Place(layer.output.bytes, index, dies)
        else:
            shared.bytes, shared.dies = max(shared.bytes, layer.output.bytes), dies
            places[layer.output.name] = shared
    size = _pack(places)
    scratch = max(
        _scratch(layer, block_rows[layer.name]) for layer in graph.layers if isinstance(layer, Conv)
    )
    return Plan({name: place.offset for name, place in places.items()}, size, block_rows, scratch)


def _may_overwrite(layer: Layer, source: Tensor) -> bool:
    """Whether writing the output from the front never reaches input that is still to be read."""
    if isinstance(layer, Scale | Add):
        return True
    if not isinstance(layer, Conv):
        return False
    # After any whole block of n rows, the next row to be read is at least n * stride - padding, and rows up
    # to (n - 1) * stride + taps - padding are in the scratch already.
    ahead = max(0, layer.taps - layer.stride) - layer.padding
    return all(
        n * layer.output.channels <= (n * layer.stride + ahead) * source.channels
        for n in range(1, layer.output.rows)
    )


def _block_rows(layer: Conv) -> int:
    """Return how many output rows fit the scratch: a multiple of what the kernels compute together."""
    fit = (SCRATCH_VALUES // layer.row_values - layer.taps) // layer.stride + 1
    together = min(ROWS_TOGETHER, layer.output.rows)
    return max(together, min(fit, layer.output.rows) // together * together)


def _scratch(layer: Conv, rows: int) -> int:
    return ((rows - 1) * layer.stride + layer.taps) * layer.row_values


def _pack(places: dict[str, _Place]) -> int:
    """Give every place an offset, the largest first, each as low as it can be; return the size."""
    unique = list({id(place): place for place in places.values()}.values())
    placed: list[_Place] = []
    for place in sorted(unique, key=lambda item: (-item.bytes, item.born)):
        offset = 0
        for other in sorted(placed, key=lambda item: item.offset):
            if place.meets(other) and offset + place.bytes > other.offset:
                offset = max(offset, _aligned(other.offset + other.bytes))
        place.offset = offset
        placed.append(place)
    return _aligned(max(place.offset + place.bytes for place in placed))


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
