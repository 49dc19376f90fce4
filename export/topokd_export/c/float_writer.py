"""Writing a float pipeline as C, from raw windows to logits: `pipeline.h`, `pipeline.c` and the kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any

import numpy as np

from topokd_edge.errors import BadInputError
from topokd_edge.topology.params import ImageParams
from topokd_export.c import literals
from topokd_export.c.arena import Plan
from topokd_export.c.float_graph import (
    FloatAdd,
    FloatConv,
    FloatLayer,
    FloatMean,
    FloatScale,
    read_float_graph,
)
from topokd_export.c.float_plan import float_ram_bytes, packed, plan_floats, whole
from topokd_export.c.topology_layers import WINDOW, Image, Persistence, topology_layers

_FLOAT = ("topokd_float.h", "topokd_float.c")
_TOPOLOGY = ("topokd_topology.h", "topokd_topology.c")
_TEMPLATES = ("pipeline.h", "pipeline.c")

Layer = FloatLayer | Persistence | Image


@dataclass(frozen=True)
class FloatPipeline:
    """What runs from a raw window to logits.

    Attributes
    ----------
    length, channels
        Of a window.
    layers
        In the order they run; the last one gives the logits.
    mean, std
        What each channel of the raw window is normalised by; None where the layers take it as it is.
    """

    length: int
    channels: int
    layers: tuple[Layer, ...]
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    @property
    def classes(self) -> int:
        """Number of logits."""
        last = self.layers[-1]
        assert isinstance(last, FloatConv)
        return last.output.channels

    @property
    def sources(self) -> tuple[str, ...]:
        """The C files to compile."""
        topology = isinstance(self.layers[0], Persistence)
        return ("pipeline.c", "topokd_float.c", *(("topokd_topology.c",) if topology else ()))


def signal_pipeline(onnx: bytes, mean: Sequence[float], std: Sequence[float]) -> FloatPipeline:
    """Return the pipeline of a student or signal teacher.

    Parameters
    ----------
    onnx
        Content of its float ONNX file, input (any, channels, length).
    mean, std
        What each channel is normalised by.

    Raises
    ------
    BadInputError
        When the file is not one that `onnx_writer` wrote, or is for another number of channels.
    """
    graph = read_float_graph(onnx)
    first = graph.input
    if first.columns != 1 or not len(mean) == len(std) == first.channels:
        raise BadInputError(
            f"a network of {first.channels} channels and {first.columns} columns: expected one column, and a "
            f"mean and deviation for each channel, found {len(mean)} and {len(std)}"
        )
    scale = tuple(map(float, mean)), tuple(map(float, std))
    return FloatPipeline(first.rows, first.channels, _reading(WINDOW, first.name, graph.layers), *scale)


def topology_pipeline(
    onnx: bytes, params: ImageParams, length: int, mean: Sequence[float], std: Sequence[float]
) -> FloatPipeline:
    """Return persistence, persistence image and topology teacher.

    Parameters
    ----------
    onnx
        Content of the teacher's ONNX file, input (any, channels, rows, columns).
    params
        What the images depend on.
    length
        Samples of a window.
    mean, std
        What each channel of an image is standardised by.

    Raises
    ------
    BadInputError
        When the file is not one that `onnx_writer` wrote, or is for other images.
    UsageError
        When the images are of loops, for which there is no C.
    """
    graph = read_float_graph(onnx)
    first = graph.input
    before = topology_layers(params, length, mean, std, first.name)
    if before[1].output != first:
        raise BadInputError(
            f"a network of {first.channels} channels, {first.rows} rows and {first.columns} columns: "
            f"its images have {params.channels}, {params.size[0]} and {params.size[1]}"
        )
    return FloatPipeline(length, params.channels, (*before, *graph.layers))


def _reading(name: str, old: str, layers: Sequence[FloatLayer]) -> tuple[FloatLayer, ...]:
    """Return the layers with one of the tensors they read renamed."""
    return tuple(
        replace(layer, inputs=tuple(name if item == old else item for item in layer.inputs))
        for layer in layers
    )


def write_pipeline(pipeline: FloatPipeline) -> dict[str, str]:
    """Return the C files by name; the same pipeline gives the same text."""
    plan = plan_floats(pipeline)
    with_topology = isinstance(pipeline.layers[0], Persistence)
    names = (*_FLOAT, *(_TOPOLOGY if with_topology else ()), *_TEMPLATES)
    folder = resources.files("topokd_export.c") / "runtime"
    files = {name: (folder / name).read_text("utf-8") for name in names}
    for name in _TEMPLATES:
        for key, value in _values(pipeline, plan, with_topology).items():
            files[name] = files[name].replace(f"@{key}@", value)
    return files


def _values(pipeline: FloatPipeline, plan: Plan, with_topology: bool) -> dict[str, str]:
    """Return what stands for each @KEY@ of the templates."""
    mean, std = pipeline.mean, pipeline.std
    scale = "" if mean is None or std is None else (
        f"static const float mean[PIPELINE_CHANNELS] = {{{', '.join(map(literals.real, mean))}}};\n"
        f"static const float std[PIPELINE_CHANNELS] = {{{', '.join(map(literals.real, std))}}};\n"
    )  # fmt: skip
    return {
        "CHANNELS": str(pipeline.channels),
        "LENGTH": str(pipeline.length),
        "CLASSES": str(pipeline.classes),
        "LAYERS": str(len(pipeline.layers)),
        "ARENA_BYTES": str(plan.arena_bytes),
        "SCRATCH_VALUES": str(plan.scratch_values),
        "RAM_BYTES": str(float_ram_bytes(pipeline, plan)),
        "INCLUDES": '#include "topokd_topology.h"\n' if with_topology else "",
        "SCALE": scale,
        "TAKEN": "(sample[channel] - mean[channel]) / std[channel]" if scale else "sample[channel]",
        "CONSTANTS": "\n".join(_constants(i, layer, plan) for i, layer in enumerate(pipeline.layers)),
        "CALLS": "\n".join(_call(i, pipeline, plan) for i in range(len(pipeline.layers))),
    }


def _constants(index: int, layer: Layer, plan: Plan) -> str:
    """Return the arrays and the struct of one layer."""
    title = f"/* {literals.comment(layer.name)} */\n"
    match layer:
        case FloatConv():
            return title + _conv(index, layer, plan.block_rows[layer.name])
        case FloatScale():
            pixels, channels = layer.output.rows * layer.output.columns, layer.output.channels
            arrays = _arrays(index, layer.weight, layer.bias)
            return (
                title + arrays + _struct("scale", index, *_weights(index), pixels, channels, int(layer.relu))
            )
        case FloatAdd():
            return title + _struct("add", index, layer.output.values, int(layer.relu))
        case FloatMean():
            return title + _struct(
                "mean", index, layer.source.rows * layer.source.columns, layer.source.channels
            )
        case Persistence() | Image():
            return title + layer.constants(index)


def _conv(index: int, layer: FloatConv, rows: int) -> str:
    bias = np.pad(layer.bias, (0, whole(len(layer.bias)) - len(layer.bias)))
    numbers = (
        layer.source.rows,
        layer.source.row_values,
        layer.output.rows,
        layer.output.columns,
        layer.output.channels,
        rows,
        layer.row_values,
        layer.lead,
        layer.stride * layer.source.channels,
        layer.taps,
        layer.stride,
        layer.padding,
        *layer.segments,
        int(layer.relu),
    )
    return _arrays(index, packed(layer), bias) + _struct("conv", index, *_weights(index), *numbers)


def _arrays(index: int, weight: np.ndarray[Any, Any], bias: np.ndarray[Any, Any]) -> str:
    return "".join(
        f"static const float {name}_{index}[{values.size}] = {{\n{literals.reals(values)}}};\n"
        for name, values in (("weight", weight), ("bias", bias))
    )


def _weights(index: int) -> tuple[str, str]:
    return f"weight_{index}", f"bias_{index}"


def _struct(kind: str, index: int, *values: object) -> str:
    return f"static const tk_float_{kind} layer_{index} = {{{', '.join(map(str, values))}}};"


def _call(index: int, pipeline: FloatPipeline, plan: Plan) -> str:
    """Return the statement that runs one layer."""
    layer = pipeline.layers[index]
    diagrams = isinstance(layer, Persistence)
    sources = [_place(name, plan, pairs=isinstance(layer, Image)) for name in layer.inputs]
    last = index == len(pipeline.layers) - 1
    target = "logits" if last else _place(layer.output.name, plan, pairs=diagrams)
    scratch_too = ["pipeline->scratch"] if isinstance(layer, FloatConv | Image) else []
    kind = {
        FloatConv: "float_conv",
        FloatScale: "float_scale",
        FloatAdd: "float_add",
        FloatMean: "float_mean",
        Persistence: "persistence",
        Image: "image",
    }[type(layer)]
    arguments = ", ".join([f"&layer_{index}", *sources, target, *scratch_too])
    return f"    tk_run_{kind}({arguments});\n    PIPELINE_DONE({index});"


def _place(name: str, plan: Plan, *, pairs: bool = False) -> str:
    if name == WINDOW:
        return "pipeline->window"
    at = f"pipeline->arena[{plan.offsets[name] // 4}]"
    return f"(tk_pair *)(void *)&{at}" if pairs else f"&{at}"
