"""Trained networks and interrupted trainings on disk: safetensors and JSON, never pickle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from topokd_edge.errors import BadInputError
from topokd_edge.files import read_json, write_bytes, write_json
from topokd_edge.models.wrn import WideResNet, WRNSpec

WEIGHTS = "checkpoint.safetensors"
META = "checkpoint.json"


def save_model(folder: Path, model: WideResNet, meta: dict[str, Any]) -> None:
    """Write a network's weights, then its description; the description's presence says that both are whole.

    Parameters
    ----------
    folder
        Folder of the model in a run.
    model
        The network.
    meta
        JSON-able facts to keep beside `spec`: epoch, validation accuracy, params, macs.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    write_bytes(folder / WEIGHTS, safetensors.torch.save(tensors))
    write_json(folder / META, {"spec": model.spec.to_dict(), **meta})


def load_model(folder: Path) -> tuple[WideResNet, dict[str, Any]]:
    """Read a network, in evaluation mode on the CPU, and its description.

    Raises
    ------
    BadInputError
        When a file is missing, damaged, or does not fit the described network.
    """
    meta = read_json(folder / META)
    try:
        model = WideResNet(WRNSpec(**meta["spec"]))
        model.load_state_dict(load_tensors(folder / WEIGHTS)[0])
    except (KeyError, TypeError, RuntimeError) as error:
        raise BadInputError(f"{folder}: checkpoint and description do not fit ({error})") from None
    return model.eval(), meta


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file: its tensors, and its metadata.

    Raises
    ------
    BadInputError
        When it is missing or damaged.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as stream:
            return {name: stream.get_tensor(name) for name in stream.keys()}, stream.metadata() or {}  # noqa: SIM118
    except FileNotFoundError:
        raise BadInputError(f"{path}: no such file") from None
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise BadInputError(f"{path}: damaged ({error})", hint="delete it and resume the run") from None


def pack_state(
    model: torch.nn.Module, best: dict[str, Tensor], optimiser: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """Return every tensor that a training needs to go on exactly."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in best.items()}
    for index, state in optimiser.state_dict()["state"].items():
        if state["momentum_buffer"] is not None:
            tensors[f"momentum.{index}"] = state["momentum_buffer"]
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}


def unpack_state(
    tensors: dict[str, Tensor], model: torch.nn.Module, optimiser: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """Put what `pack_state` kept back into model and optimiser; return the best weights so far."""
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "momentum": {}}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = tensor
    model.load_state_dict(parts["model"])
    document = optimiser.state_dict()
    document["state"] = {int(index): {"momentum_buffer": value} for index, value in parts["momentum"].items()}
    optimiser.load_state_dict(document)
    return parts["best"]
