"""Where each activation lies in the one static arena: lifetimes known, bytes shared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from topokd_export.c.integer_graph import Add, Conv, IntegerGraph, Layer, Scale

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


class Sized(Protocol):
    """A tensor: its name and size."""

    @property
    def name(self) -> str:
        """Its own, of no other tensor."""

    @property
    def bytes(self) -> int:
        """Its size."""


class Step(Protocol):
    """A layer: the names of the tensors it reads, and the one it writes."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """In the order it takes them."""

    @property
    def output(self) -> Sized:
        """What it writes."""


class Blocked(Protocol):
    """A convolution that works on a few padded rows at a time."""

    @property
    def taps(self) -> int:
        """Rows that an output row reads."""

    @property
    def stride(self) -> int:
        """Input rows from one output row to the next."""

    @property
    def row_values(self) -> int:
        """Values of a padded row."""


LayerKind = TypeVar("LayerKind", bound=Step)


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
    convolutions = [layer for layer in graph.layers if isinstance(layer, Conv)]
    rows = {
        layer.name: block_rows(layer, layer.output.rows, min(ROWS_TOGETHER, layer.output.rows))
        for layer in convolutions
    }
    offsets, size = place_tensors(graph.input, graph.layers, _may_overwrite)
    return Plan(offsets, size, rows, max(scratch(layer, rows[layer.name]) for layer in convolutions))


def place_tensors(
    source: Sized, layers: Sequence[LayerKind], may_overwrite: Callable[[LayerKind], bool]
) -> tuple[dict[str, int], int]:
    """Give every tensor a place in one arena, shared by those that are never there together.

    Parameters
    ----------
    source
        What the first layer reads. It must stay as it is: no layer overwrites it.
    layers
        In the order they run. What the last one writes goes to the caller and has no place.
    may_overwrite
        Whether a layer may write its output over an input.

    Returns
    -------
    tuple
        Offsets in bytes by the tensors' names, and the size of the arena.
    """
    last_read = {name: index for index, layer in enumerate(layers) for name in layer.inputs}
    places = {source.name: _Place(source.bytes, -1, last_read[source.name])}
    for index, layer in enumerate(layers[:-1]):
        dies = last_read[layer.output.name]
        shared = next(
            (
                places[name]
                for name in reversed(layer.inputs)
                if name != source.name
                and last_read[name] == index
                and places[name].dies == index
                and may_overwrite(layer)
            ),
            None,
        )
        if shared is None:
            places[layer.output.name] = _Place(layer.output.bytes, index, dies)
        else:
            shared.bytes, shared.dies = max(shared.bytes, layer.output.bytes), dies
            places[layer.output.name] = shared
    size = _pack(places)
    return {name: place.offset for name, place in places.items()}, size


def _may_overwrite(layer: Layer) -> bool:
    """Whether writing the output from the front never reaches input that is still to be read."""
    if isinstance(layer, Scale | Add):
        return True
    return isinstance(layer, Conv) and stays_behind(
        layer, layer.padding, layer.output.rows, layer.output.channels, layer.weight.shape[2]
    )


def stays_behind(layer: Blocked, padding: int, rows: int, written: int, read: int) -> bool:
    """Whether a convolution that overwrites its input never reaches rows that it has still to read.

    Parameters
    ----------
    layer, padding
        The convolution, and the rows of padding before its first.
    rows, written
        Output rows, and the size of one.
    read
        Size of an input row, in the same unit.
    """
    # After any whole block of n rows, the next row to be read is at least n * stride - padding, and rows up
    # to (n - 1) * stride + taps - padding are in the scratch already.
    ahead = max(0, layer.taps - layer.stride) - padding
    return all(n * written <= (n * layer.stride + ahead) * read for n in range(1, rows))


def block_rows(layer: Blocked, rows: int, together: int) -> int:
    """Return how many of its output rows fit the scratch: a multiple of what the kernels compute together."""
    fit = (SCRATCH_VALUES // layer.row_values - layer.taps) // layer.stride + 1
    return max(together, min(fit, rows) // together * together)


def scratch(layer: Blocked, rows: int) -> int:
    """Return how many values a convolution keeps in the scratch for a block of output rows."""
    return ((rows - 1) * layer.stride + layer.taps) * layer.row_values


def _pack(places: dict[str, _Place]) -> int:
    """Give every place an offset, the largest first, each as low as it can be; return the size."""
    unique = list({id(place): place for place in places.values()}.values())
    placed: list[_Place] = []
    for place in sorted(unique, key=lambda item: (-item.bytes, item.born)):
        offset = 0
        for other in sorted(placed, key=lambda item: item.offset):
            if place.meets(other) and offset + place.bytes > other.offset:
                offset = max(offset, aligned(other.offset + other.bytes))
        place.offset = offset
        placed.append(place)
    return aligned(max(place.offset + place.bytes for place in placed))


def aligned(size: int, to: int = ALIGNMENT) -> int:
    """Return `size` rounded up to a multiple of `to`."""
    return -(-size // to) * to
