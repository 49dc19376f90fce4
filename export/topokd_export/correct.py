"""Bias correction: what rounding shifts a channel by on average goes into its bias.

M. Nagel et al., "Data-free quantization through weight equalization and bias correction", ICCV 2019,
section 4.2, from calibration windows, operator by operator: each is corrected with those
before it already rounded.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from topokd_export.deploy import INPUT, PAD, Array, DeployGraph, Op
from topokd_export.simulate import Ranges, apply, grids_of, parameters_of, rounded


def correct_bias(graph: DeployGraph, windows: Array, ranges: Ranges) -> DeployGraph:
    """Return the graph with biases that make up for the mean shift of int8 over calibration windows.

    Parameters
    ----------
    graph, windows, ranges
        The operators; normalised windows (n, channels, length); the range of each tensor.
    """
    grids, parameters = grids_of(ranges), parameters_of(graph)
    x = torch.from_numpy(np.ascontiguousarray(windows))
    exact, coarse = {INPUT: x}, {INPUT: rounded(x, grids[INPUT])}
    ops: list[Op] = []
    with torch.no_grad():
        for op in graph.ops:
            wanted = apply(op, [exact[name] for name in op.inputs], parameters, None)
            got = apply(op, [coarse[name] for name in op.inputs], parameters, 8)
            if op.weight is not None:
                shift = _channel_means(wanted) - _channel_means(got)
                got = got + shift.view(1, -1, *[1] * (got.ndim - 2))
                op = replace(op, bias=(op.parameters[1] + shift.numpy()).astype(np.float32))
            exact[op.name] = wanted.relu() if op.relu else wanted
            got = got.relu() if op.relu else got
            coarse[op.name] = got if op.kind == PAD else rounded(got, grids[op.name])
            ops.append(op)
    return replace(graph, ops=tuple(ops))


def _channel_means(x: Tensor) -> Tensor:
    return x.mean((0, *range(2, x.ndim)))
