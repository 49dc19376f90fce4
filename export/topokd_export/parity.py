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

    modules = dict(model.named_modules())
    handles = [
        modules[module].register_forward_hook(keep(name, relu))
        for name, (module, relu) in _modules_of(list(modules), post=model.bn is None).items()
    ]
    try:
        with torch.no_grad():
            model.eval()(torch.from_numpy(np.ascontiguousarray(windows, dtype=np.float32)))
    finally:
        for handle in handles:
            handle.remove()
    return found


def _modules_of(names: list[str], *, post: bool) -> dict[str, tuple[str, bool]]:
    """Return, by operator, the module whose output it gives, and whether after ReLU.

    That of a convolution with a folded BatchNorm is the BatchNorm.
    """
    folded = {"conv1": "bn2"}
    if post:
        folded = {"stem": "stem_bn", "conv1": "bn1", "conv2": "bn2", "shortcut": "shortcut_bn"}
    activated = ("stem", "conv1") if post else ("bn", "bn1", "conv1")
    found = {}
    for name in names:
        place, _, last = name.rpartition(".")
        if name not in ("", "blocks") and last not in folded.values():
            module = ".".join(part for part in (place, folded.get(last, last)) if part)
            found[name] = (module, last in activated)
    return found
