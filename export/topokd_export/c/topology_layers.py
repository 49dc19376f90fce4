"""Persistence and the persistence image as layers of C, with the tables they read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from topokd_edge.errors import UsageError
from topokd_edge.topology.image import _pixel_masses, masses, reach_of
from topokd_edge.topology.params import ImageParams
from topokd_export.c import literals
from topokd_export.c.float_graph import Activation, Float32

WINDOW, DIAGRAMS = "window", "diagrams"
_PAIR_BYTES = 8
_WEIGHTS = {"power": "TK_POWER", "ramp": "TK_RAMP", "constant": "TK_CONSTANT"}


@dataclass(frozen=True)
class Diagrams:
    """Pairs of every channel: room for one more than there are samples, since a mark ends them."""

    name: str
    length: int
    channels: int

    @property
    def bytes(self) -> int:
        """Their size."""
        return self.channels * (self.length + 1) * _PAIR_BYTES


@dataclass(frozen=True)
class Persistence:
    """From a raw window to the diagrams of its channels."""

    params: ImageParams
    output: Diagrams
    name: str = "persistence"
    inputs: tuple[str, ...] = (WINDOW,)

    def constants(self, index: int) -> str:
        """Return the struct `layer_<index>`."""
        cap = self.params.cap
        essential = {"drop": "TK_DROP", "keep": "TK_KEEP"}.get(
            self.params.essential, "TK_CAP" if cap is None else "TK_CAP_AT"
        )
        sign = -1.0 if self.params.filtration == "superlevel" else 1.0
        values = [str(self.output.length), str(self.output.channels), essential]
        values += [literals.real(cap or 0.0), literals.real(sign)]
        return f"static const tk_persistence layer_{index} = {{{', '.join(values)}}};"


@dataclass(frozen=True)
class Image:
    """From diagrams to the standardised persistence image of every channel.

    Attributes
    ----------
    params, mean, std
        As for `TopologyInference`; mean and std are one a channel.
    length
        Samples of a window.
    """

    params: ImageParams
    mean: tuple[float, ...]
    std: tuple[float, ...]
    length: int
    output: Activation
    name: str = "image"
    inputs: tuple[str, ...] = (DIAGRAMS,)

    @property
    def tables(self) -> list[Float32]:
        """All tables, each once."""
        return [table for table, _ in self._axes()[0]]

    def constants(self, index: int) -> str:
        """Return the tables, the axes and the struct `layer_<index>`."""
        tables, (births, lives) = self._axes()
        text = [
            f"static const float masses_{k}[{table.size}] = {{\n{literals.reals(table)}}};\n"
            f"static const tk_masses table_{k} = "
            f"{{masses_{k}, {len(table) - 3}, {table.shape[1] // 2}, {pixels}}};"
            for k, (table, pixels) in enumerate(tables)
        ]
        text += [_axis_array(name, axes) for name, axes in (("births", births), ("lives", lives))]
        params, ranges = self.params, self.params.persistence_range
        shortest = [params.min_life * (high - low) for low, high in ranges]
        text.append(_array("double", "shortest", map(repr, shortest)))
        text.append(_array("double", "unending", (repr(high) for _, high in ranges)))
        text.append(_array("float", "image_mean", map(literals.real, self.mean)))
        text.append(_array("float", "image_std", map(literals.real, self.std)))
        paper = params.layout == "paper"
        start, end = params.weight_ramp if params.weight == "ramp" else (params.weight_power, 0.0)
        kind = "TK_LONGEST" if paper else _WEIGHTS[params.weight]
        values = ["births", "lives", "shortest", "unending", "image_mean", "image_std"]
        values += [repr(float(start)), repr(float(end)), kind, str(int(not paper))]
        values += [str(int(params.normalise == "max")), str(self.length), str(self.output.channels)]
        values += [str(self.output.rows), str(self.output.columns)]
        text.append(f"static const tk_image layer_{index} = {{{', '.join(values)}}};")
        return "\n".join(text)

    def _axes(self) -> tuple[list[tuple[Float32, int]], tuple[list[_Axis], list[_Axis]]]:
        """Return (table, pixels) pairs, and of birth and life the axes of all channels."""
        params, rows, columns = self.params, self.output.rows, self.output.columns
        keys: dict[tuple[int, float, float], int] = {}
        births, lives = [], []
        for birth, life in zip(params.birth_range, params.persistence_range, strict=True):
            if params.layout == "paper":
                high = birth[1]
                births.append(_paper_axis(birth[0], high, columns, high / rows, params.sigma, keys))
                lives.append(_paper_axis(0.0, high, rows, high / rows, params.sigma, keys))
            else:
                for axes, (low, top), pixels in ((births, birth, columns), (lives, life, rows)):
                    key = keys.setdefault((pixels, params.sigma, 1.0), len(keys))
                    axes.append(_Axis(low, top - low, float(pixels), key))
        tables = [(_table(*key, paper=params.layout == "paper").astype(np.float32), key[0]) for key in keys]
        return tables, (births, lives)


@dataclass(frozen=True)
class _Axis:
    low: float
    range: float
    scale: float
    table: int


def _paper_axis(
    low: float,
    high: float,
    pixels: int,
    width: float,
    sigma: float,
    keys: dict[tuple[int, float, float], int],
) -> _Axis:
    """Return an axis whose bins begin at linspace(low, high, pixels); see `ImageParams.layout`."""
    step = (high - low) / max(pixels - 1, 1)
    # Channels of the same proportions share a table, whatever the last bit says.
    key = (pixels, float(np.float32(sigma * high / step)), float(np.float32(width / step)))
    return _Axis(low, step, 1.0, keys.setdefault(key, len(keys)))


def _table(pixels: int, spread: float, width: float, *, paper: bool) -> np.ndarray:
    if not paper:
        return _pixel_masses(pixels, spread)
    return masses(spread, reach_of(spread, width), width)


def _axis_array(name: str, axes: Sequence[_Axis]) -> str:
    words = [f"{{{axis.low!r}, {axis.range!r}, {axis.scale!r}, &table_{axis.table}}}" for axis in axes]
    return _array("tk_axis", name, words)


def _array(kind: str, name: str, words: object) -> str:
    listed = list(words)  # type: ignore[call-overload]
    return f"static const {kind} {name}[{len(listed)}] = {{{', '.join(listed)}}};"


def topology_layers(
    params: ImageParams, length: int, mean: Sequence[float], std: Sequence[float], image: str
) -> tuple[Persistence, Image]:
    """Return the layers from a raw window, of `length` samples, to the input `image` of a topology teacher.

    Raises
    ------
    UsageError
        When the images are of loops, for which there is no C.
    """
    if params.filtration == "delay":
        raise UsageError(
            "filtration = 'delay': loops are computed by ripser, for which there is no C",
            hint="train a topology teacher with filtration = 'sublevel' or 'superlevel'",
        )
    rows, columns = params.size
    drawn = Activation(image, rows, columns, params.channels)
    return (
        Persistence(params, Diagrams(DIAGRAMS, length, params.channels)),
        Image(params, tuple(map(float, mean)), tuple(map(float, std)), length, drawn),
    )
