"""Comparing the deploy form with the torch model, layer by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from topokd_export.deploy import MEAN, PAD, Array, DeployGraph

if TYPE_CHECKING:
    from topokd_edge.models.wrn import WideResNet


def layer_differences(model: WideResNet, graph: DeployGraph, windows: Array) -> dict[str, float]:
    """Return the largest absolute difference of every operator from the torch module it stands for.

    Parameters
    ----------
    model
        What `graph` was made from; it is put in inference mode.
    graph
        The deploy form.
    windows
        Inputs on which to compare, (n, channels, ...), normalised.

    Returns
    -------
    dict
        By operator name, in the order they run; infinite where shapes differ.
    """
    truth = _torch_layers(model, windows)
    worst: dict[str, float] = {}
    for row, window in enumerate(windows):
        for name, value in graph.evaluate(window).items():
            if name not in truth:
                continue
            expected = truth[name][row]
            same = expected.shape == value.shape
            difference = float(np.abs(expected - value).max()) if same else float("inf")
            worst[name] = max(worst.get(name, 0.0), difference)
    compared = {op.name for op in graph.ops if op.kind not in (PAD, MEAN)}
    if set(worst) != compared:
        raise ValueError(f"operators without a torch module: {sorted(compared - set(worst))}")
    return worst


def _torch_layers(model: WideResNet, windows: Array) -> dict[str, Array]:
    """Run the model and return what each operator must give: channels last, after a fused ReLU."""
    import torch

    found: dict[str, Array] = {}

    def keep(name: str, relu: bool) -> Any:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            value = output.relu() if relu else output
            value = value.squeeze(2) if value.ndim > 2 and model.spec.dims == 1 else value
            found[name] = value.movedim(1, -1).numpy() if value.ndim > 2 else value.numpy()

        return hook

    handles = []
    for name, module in model.named_modules():
        if not name or name == "blocks":
            continue
        norm = name.rpartition(".")[2].startswith("bn")
        if name.endswith(".bn2"):  # folded into conv1, which then gives the activated value
            name = name.removesuffix("bn2") + "conv1"
        elif name.endswith(".conv1"):
            continue
        handles.append(module.register_forward_hook(keep(name, norm)))
    try:
        with torch.no_grad():
            model.eval()(torch.from_numpy(np.ascontiguousarray(windows, dtype=np.float32)))
    finally:
        for handle in handles:
            handle.remove()
    return found
