"""Writing an integer graph as C: `student.h`, `student.c`, the kernels and an example."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt

from topokd_edge.bundle import Normalisation, dequantise
from topokd_edge.manifest import Manifest
from topokd_edge.streaming import DEFAULT_OVERLAP, window_step
from topokd_export.c import literals
from topokd_export.c.arena import Plan, aligned, plan_arena
from topokd_export.c.integer_graph import Add, Conv, IntegerGraph, Layer, Mean, Rescale, Scale

RUNTIME = ("topokd_kernels.h", "topokd_arithmetic.h", "topokd_dot.h", "topokd_kernels.c")
EXAMPLE = "main.c"
_TEMPLATES = ("student.h", "student.c", EXAMPLE)

_RING_STATE = 12
"""Three 32-bit counters."""


@dataclass(frozen=True)
class AppNumbers:
    """What an app must know beside the graph.

    Attributes
    ----------
    rate_hz
        Samples per second.
    channel_names, units, normalisation
        Per input channel.
    class_names
        Per logit.
    """

    rate_hz: float
    channel_names: tuple[str, ...]
    units: tuple[str, ...]
    normalisation: Normalisation
    class_names: tuple[str, ...]


def app_numbers(manifest: Manifest) -> AppNumbers:
    """Return what the app must know, from a manifest."""
    return AppNumbers(
        manifest.rate_hz,
        manifest.channel_names,
        manifest.units,
        manifest.normalisation,
        manifest.class_names,
    )


@dataclass(frozen=True)
class SelfTest:
    """Quantised windows (n, length, channels) and the logits (n, classes) they must give, int8."""

    windows: npt.NDArray[np.int8]
    logits: npt.NDArray[np.int8]


def write_c(graph: IntegerGraph, app: AppNumbers, self_test: SelfTest | None) -> dict[str, str]:
    """Return the C files by name; the same graph gives the same text. The example needs a self-test."""
    plan = plan_arena(graph)
    values = _values(graph, app, plan)
    templates = [name for name in _TEMPLATES if name != EXAMPLE or self_test is not None]
    if self_test is not None:
        values |= _self_test_values(graph, app, self_test)
    folder = resources.files("topokd_export.c") / "runtime"
    files = {name: (folder / name).read_text("utf-8") for name in (*RUNTIME, *templates)}
    for name in templates:
        for key, value in values.items():
            files[name] = files[name].replace(f"@{key}@", value)
    return files


def ram_bytes(graph: IntegerGraph, plan: Plan, *, value_bytes: int = 2) -> int:
    """Return the size of `student_t`; a widened value takes 2 bytes with SMLAD, 1 otherwise."""
    scratch = aligned(plan.scratch_values * value_bytes)
    return plan.arena_bytes + scratch + aligned(aligned(graph.input.bytes, 4) + _RING_STATE)


def weight_bytes(graph: IntegerGraph) -> int:
    """Return the bytes of all weights, without biases and multipliers."""
    return sum(layer.weight.size for layer in graph.layers if isinstance(layer, Conv | Scale))


def _values(graph: IntegerGraph, app: AppNumbers, plan: Plan) -> dict[str, str]:
    """Return what stands for each @KEY@ of the templates."""
    normalisation = app.normalisation
    names = (app.class_names, app.channel_names, app.units)
    classes, channels, units = (", ".join(literals.string(name) for name in group) for group in names)
    return {
        "CHANNELS": str(graph.input.channels),
        "LENGTH": str(graph.input.rows),
        "STEP": str(window_step(graph.input.rows, DEFAULT_OVERLAP)),
        "CLASSES": str(graph.output.channels),
        "LAYERS": str(len(graph.layers)),
        "RATE_HZ": literals.real(app.rate_hz),
        "INPUT_SCALE": literals.real(graph.input.scale),
        "INPUT_ZERO_POINT": f"({graph.input.zero_point})",
        "OUTPUT_SCALE": literals.real(graph.output.scale),
        "OUTPUT_ZERO_POINT": f"({graph.output.zero_point})",
        "ARENA_BYTES": str(plan.arena_bytes),
        "SCRATCH_VALUES": str(plan.scratch_values),
        "RAM_BYTES": str(ram_bytes(graph, plan)),
        "INPUT_OFFSET": str(plan.offsets[graph.input.name]),
        "CLASS_NAMES": classes,
        "CHANNEL_NAMES": channels,
        "UNITS": units,
        "MEAN": ", ".join(literals.real(value) for value in normalisation.mean),
        "STD": ", ".join(literals.real(value) for value in normalisation.std),
        "CONSTANTS": "\n".join(_constants(i, layer, plan) for i, layer in enumerate(graph.layers)),
        "CALLS": "\n".join(_call(i, layer, graph, plan) for i, layer in enumerate(graph.layers)),
        "LAYER_NAMES": ",\n    ".join(literals.string(layer.name) for layer in graph.layers),
    }


def _self_test_values(graph: IntegerGraph, app: AppNumbers, self_test: SelfTest) -> dict[str, str]:
    """Return the windows in the app's units: of each level its middle, so that no rounding moves it."""
    std, mean = (np.array(v, dtype=np.float32) for v in (app.normalisation.std, app.normalisation.mean))
    raw = dequantise(self_test.windows, graph.input.scale, graph.input.zero_point) * std + mean
    return {
        "TEST_WINDOWS": str(len(raw)),
        "TEST_SAMPLES": ",\n    ".join(literals.real(value) for value in raw.ravel().tolist()),
        "TEST_LOGITS": literals.numbers(self_test.logits.ravel().tolist()),
    }


def _constants(index: int, layer: Layer, plan: Plan) -> str:
    """Return the arrays and the struct of one layer."""
    title = f"/* {literals.comment(layer.name)} */"
    match layer:
        case Conv():
            return "\n".join([title, _arrays(index, layer), _conv_struct(index, layer, plan)])
        case Scale():
            return "\n".join([title, _arrays(index, layer), _scale_struct(index, layer)])
        case Add():
            return "\n".join([title, _add_struct(index, layer)])
        case Mean():
            return "\n".join([title, _mean_struct(index, layer)])


def _arrays(index: int, layer: Conv | Scale) -> str:
    weight = layer.weight
    if isinstance(layer, Conv):
        weight = np.pad(weight, ((0, 0), (0, 0), (0, layer.row_values - weight.shape[2])))
    aligned = " TK_ALIGNED"
    kinds: dict[str, tuple[str, npt.NDArray[Any]]] = {
        "weight": ("int8_t", weight),
        "bias": ("int32_t", layer.bias),
        "multiplier": ("int32_t", layer.rescale.multiplier),
        "shift": ("int8_t", layer.rescale.shift),
    }
    return "\n".join(
        f"static const {kind} {name}_{index}[{values.size}]{aligned if name == 'weight' else ''} = {{\n"
        f"{literals.numbers(values.ravel().tolist())}}};"
        for name, (kind, values) in kinds.items()
    )


def _conv_struct(index: int, layer: Conv, plan: Plan) -> str:
    numbers = (
        layer.in_rows,
        layer.output.rows,
        layer.weight.shape[2],
        layer.row_values,
        layer.output.channels,
        plan.block_rows[layer.name],
        layer.taps,
        layer.stride,
        layer.padding,
        layer.in_zero_point,
    )
    return _struct("tk_conv", index, *_pointers(index, layer.rescale), *numbers)


def _scale_struct(index: int, layer: Scale) -> str:
    return _struct(
        "tk_scale", index, *_pointers(index, layer.rescale), layer.output.rows, layer.output.channels
    )


def _add_struct(index: int, layer: Add) -> str:
    multipliers, zero_points, shifts = (
        f"{{{a}, {b}}}" for a, b in (layer.multipliers, layer.zero_points, layer.shifts)
    )
    last = (layer.out_shift, layer.output.zero_point, layer.low, layer.high, f"{int(layer.fast)}U")
    count = layer.output.bytes
    return _struct("tk_add", index, multipliers, layer.out_multiplier, count, zero_points, shifts, *last)


def _mean_struct(index: int, layer: Mean) -> str:
    shape = (layer.in_rows, layer.output.channels)
    return _struct(
        "tk_mean", index, layer.multiplier, *shape, layer.in_zero_point, layer.shift, layer.output.zero_point
    )


def _pointers(index: int, rescale: Rescale) -> tuple[str, str, str]:
    numbers = f"{rescale.zero_point}, {rescale.low}, {rescale.high}, {int(rescale.fast)}U"
    return f"weight_{index}", f"bias_{index}", f"{{multiplier_{index}, shift_{index}, {numbers}}}"


def _struct(kind: str, index: int, *values: object) -> str:
    return f"static const {kind} layer_{index} = {{{', '.join(map(str, values))}}};"


def _call(index: int, layer: Layer, graph: IntegerGraph, plan: Plan) -> str:
    """Return the statements that run one layer."""
    kind = {Conv: "conv", Scale: "scale", Add: "add", Mean: "mean"}[type(layer)]
    sources = ["in" if name == graph.input.name else _place(name, plan) for name in layer.inputs]
    target = "out" if index == len(graph.layers) - 1 else _place(layer.output.name, plan)
    scratch = [", student->scratch.values"] if kind == "conv" else []
    arguments = ", ".join([f"&layer_{index}", *sources, target]) + "".join(scratch)
    return (
        f"    tk_run_{kind}({arguments});\n"
        f"    STUDENT_CHECK(student, {index}, {target}, {layer.output.bytes});"
    )


def _place(name: str, plan: Plan) -> str:
    return f"&student->arena.bytes[{plan.offsets[name]}]"
