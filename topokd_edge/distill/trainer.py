"""One training loop for teachers and students: seeded, resumable to the same result."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from topokd_edge.distill.checkpoint import (
    META,
    load_model,
    load_tensors,
    pack_state,
    save_model,
    unpack_state,
)
from topokd_edge.distill.inputs import Inputs
from topokd_edge.distill.parts import Training
from topokd_edge.distill.precision import usable
from topokd_edge.distill.shared import sum_gradients
from topokd_edge.errors import BadInputError, TopokdError
from topokd_edge.files import write_bytes, write_text
from topokd_edge.models.wrn import WideResNet
from topokd_edge.progress import Progress, silent

STATE = "training.safetensors"
METRICS = "metrics.jsonl"


class Task(Protocol):
    """What is trained: a network, its input, and the losses of a batch."""

    @property
    def model(self) -> WideResNet:
        """The network."""

    @property
    def inputs(self) -> Inputs:
        """The network's own input for every window of the set."""

    @property
    def y(self) -> Tensor:
        """Class of every window, int64."""

    def losses(self, batch: Tensor, rng: np.random.Generator) -> dict[str, Tensor]:
        """Return named losses of the windows `batch` (indices); `loss` is the one to minimise."""


@dataclass(frozen=True)
class Subset:
    """Windows to learn from and windows that choose the epoch, as indices into the set; none: the last."""

    fit: Tensor
    validation: Tensor


def train(
    task: Task,
    subset: Subset,
    training: Training,
    *,
    seed: int,
    folder: Path,
    meta: dict[str, Any],
    progress: Progress = silent,
    name: str = "training",
) -> WideResNet:
    """Train, keep the epoch with the best validation accuracy, and write the model to `folder`.

    Without validation windows the last epoch is kept.

    A finished model is loaded instead. An interrupted training continues after its last whole epoch and
    ends in the same weights as one that was never interrupted.

    Parameters
    ----------
    task
        Network, data and losses.
    subset
        Window indices of the fit and validation subjects.
    training
        Epochs, batch size, learning rate and the rest.
    seed
        Orders batches and draws mixup, together with the epoch.
    folder
        Where `metrics.jsonl`, the state of an unfinished training and the checkpoint are written.
    meta
        Facts to keep in the checkpoint's description.
    progress, name
        Where to tell about it, and under which name.

    Returns
    -------
    WideResNet
        The network of the kept epoch, in evaluation mode, on the device of the data.

    Raises
    ------
    TopokdError
        When the loss or an answer to a validation window is not finite; epoch and windows are named.
    BadInputError
        When there are fewer than two windows to learn from, or the state of the interrupted training is
        damaged or belongs to another one.
    """
    if (folder / META).is_file():
        return _finished(folder, task.model)
    course = Course(task, subset, training, seed=seed, folder=folder, meta=meta, name=name)
    for epoch in range(course.epochs_done, training.epochs):
        progress(name, epoch, training.epochs, course.note())
        began = time.perf_counter()
        run_epoch([course], lambda batches, rngs: [task.losses(batches[0], rngs[0])], began)
    progress(name, training.epochs, training.epochs, course.note())
    return course.finish()


def _finished(folder: Path, model: WideResNet) -> WideResNet:
    """Load a finished training into `model`: its memory layout, on which the last bits depend, stays."""
    stored, _ = load_model(folder)
    if stored.spec != model.spec:
        raise BadInputError(
            f"{folder}: holds {stored.spec}, expected {model.spec}", hint="delete it and resume the run"
        )
    model.load_state_dict(stored.state_dict())
    return model.eval()


def learning_rate(training: Training, epoch: float) -> float:
    """Return the learning rate after `epoch` epochs, counted with their fraction.

    `one-cycle` rises linearly over the first 30 % and falls as a half cosine to zero (Smith and Topin,
    arXiv 1708.07120). `steps` is the published schedule of E epochs: 1, 0.2, 0.02, 0.002 times the rate
    from epoch 0, E/18, E/3, 2E/3 on, rounded down to whole epochs.
    """
    progress = epoch / training.epochs
    if training.schedule == "steps":
        borders = ((2 / 3, 0.002), (1 / 3, 0.02), (1 / 18, 0.2), (0.0, 1.0))
        factor = next(value for share, value in borders if epoch >= int(share * training.epochs))
    elif progress < 0.3:
        factor = max(progress / 0.3, 0.04)
    else:
        factor = 0.5 * (1 + math.cos(math.pi * (progress - 0.3) / 0.7))
    return training.learning_rate * factor


def steps_per_epoch(windows: int, batch_size: int) -> int:
    """Return the number of batches; a last batch of a single window is left out (BatchNorm needs two)."""
    return windows // batch_size + (windows % batch_size > 1)


@torch.no_grad()
def predict(model: WideResNet, inputs: Inputs, windows: Tensor, batch_size: int = 256) -> Tensor:
    """Return logits, shape (len(windows), classes), of the network in evaluation mode."""
    model.eval()
    return torch.cat([model(inputs[part].float()) for part in torch.split(windows, batch_size)]).float()


Step = Callable[[Sequence[Tensor], Sequence[np.random.Generator]], list[dict[str, Tensor]]]
"""Returns the losses of each network, of its own batch and source of randomness."""


def run_epoch(courses: Sequence[Course], losses_of: Step, began: float) -> None:
    """Run the next epoch of trainings that are equally far, step by step together, and keep what came of it.

    Parameters
    ----------
    courses
        On equally many windows, with the same settings.
    losses_of
        Asks the networks.
    began
        By `time.perf_counter()`.
    """
    epoch, training = courses[0].epochs_done, courses[0].training
    rngs = [np.random.default_rng([course.seed, epoch]) for course in courses]
    orders = [course.begin(rng) for course, rng in zip(courses, rngs, strict=True)]
    history: list[list[dict[str, Tensor]]] = [[] for _ in courses]
    steps = steps_per_epoch(len(orders[0]), training.batch_size)
    for step in range(steps):
        rate = learning_rate(training, epoch + step / steps)
        part = slice(step * training.batch_size, (step + 1) * training.batch_size)
        losses = losses_of([order[part] for order in orders], rngs)
        for course in courses:
            course.optimiser.zero_grad(set_to_none=not course.shares_storage)
        torch.stack([found["loss"] for found in losses]).sum().backward()  # type: ignore[no-untyped-call]
        for course, found, kept in zip(courses, losses, history, strict=True):
            course.step(rate)
            kept.append({key: value.detach() for key, value in found.items()})
    # Looked at here alone: in every step a GPU would have to wait for the host, and the host for it.
    for course, order, kept in zip(courses, orders, history, strict=True):
        course.end(_means(kept, order, epoch, training.batch_size), began)


def _means(history: list[dict[str, Tensor]], order: Tensor, epoch: int, batch_size: int) -> dict[str, float]:
    """Return the mean of every named loss over the steps."""
    found = {key: torch.stack([row[key] for row in history]).cpu() for key in history[0]}
    finite = torch.isfinite(found["loss"])
    if not finite.all():
        step = int((~finite).nonzero()[0])
        batch = order[step * batch_size : (step + 1) * batch_size]
        _refuse_loss({key: values[step].item() for key, values in found.items()}, epoch, step, batch)
    return {key: values.double().mean().item() for key, values in found.items()}


def _refuse_loss(losses: dict[str, float], epoch: int, step: int, batch: Tensor) -> None:
    shown = ", ".join(f"{key} = {value:g}" for key, value in losses.items())
    raise TopokdError(
        f"the loss is not finite in epoch {epoch}, step {step}: {shown}; windows {batch.tolist()}",
        hint="lower learning_rate or raise the temperature in the recipe, and look at these windows",
    )


def _accuracy(task: Task, windows: Tensor, epoch: int) -> float | None:
    if not len(windows):
        return None
    logits = predict(task.model, task.inputs, windows)
    finite = torch.isfinite(logits).all(1)
    if not finite.all():
        raise TopokdError(
            f"after epoch {epoch} the network's answers are not finite; "
            f"validation windows {windows[~finite].tolist()}",
            hint="lower learning_rate in the recipe, and look at these windows",
        )
    return (logits.argmax(1) == task.y[windows]).float().mean().item()


@dataclass
class _State:
    """Where a training stands after a whole epoch."""

    epochs_done: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)

    def kept(self) -> int:
        """Return the epoch of the best validation accuracy, the earliest of equals; the last without any."""
        accuracies = [row["validation_accuracy"] for row in self.rows]
        return len(accuracies) - 1 if accuracies[-1] is None else accuracies.index(max(accuracies))

    def note(self) -> str:
        """Say the best validation accuracy so far."""
        if not self.rows or (best := self.rows[self.kept()]["validation_accuracy"]) is None:
            return ""
        return f"best validation accuracy {best:.3f}"

    def save(self, folder: Path, model: WideResNet, optimiser: torch.optim.Optimizer, seed: int) -> None:
        """Write the metrics, then everything needed to go on as one file: what is cut short is done again."""
        document = {"seed": seed, "rows": self.rows}
        tensors = pack_state(model, self.best, optimiser)
        write_text(folder / METRICS, "".join(json.dumps(row) + "\n" for row in self.rows))
        write_bytes(
            folder / STATE, safetensors.torch.save(tensors, metadata={"training": json.dumps(document)})
        )


class Course:
    """One network's training: how far it is, what it has kept, and where; see `train` for the parameters."""

    def __init__(
        self,
        task: Task,
        subset: Subset,
        training: Training,
        *,
        seed: int,
        folder: Path,
        meta: dict[str, Any],
        name: str,
    ) -> None:
        if len(subset.fit) < 2:
            raise BadInputError(
                f"{name}: {len(subset.fit)} windows to learn from, expected at least 2",
                hint="import more data, or change the split",
            )
        self.task, self.training, self.seed = task, training, seed
        self.shares_storage = False
        """Whether gradients are part of larger tensors, and so are set to zero and not dropped."""
        self._subset, self._folder, self._meta = subset, folder, meta
        self._precision = usable(training.precision, task.y.device)
        task.model.low_precision = self._precision == "bfloat16"
        self.optimiser = torch.optim.SGD(
            task.model.parameters(), lr=training.learning_rate, momentum=training.momentum,
            weight_decay=training.weight_decay, fused=True,
        )  # fmt: skip
        self._state = _resume(folder, task.model, self.optimiser, seed) or _State()

    @property
    def epochs_done(self) -> int:
        """Number of whole epochs behind."""
        return self._state.epochs_done

    def note(self) -> str:
        """Say the best validation accuracy so far."""
        return self._state.note()

    def begin(self, rng: np.random.Generator) -> Tensor:
        """Wake the network, and return the windows of the next epoch in its order."""
        self.task.model.train()
        fit = self._subset.fit
        return fit[torch.from_numpy(rng.permutation(len(fit))).to(fit.device)]

    def step(self, rate: float) -> None:
        """Move the weights against the gradient."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        sum_gradients(self.task.model)
        self.optimiser.step()

    def end(self, means: dict[str, float], began: float) -> None:
        """Close an epoch: look at the validation windows, keep the best, and write it all."""
        state, epoch, model = self._state, self.epochs_done, self.task.model
        state.rows.append(
            {
                "epoch": epoch,
                **{f"train_{key}": value for key, value in means.items()},
                "validation_accuracy": _accuracy(self.task, self._subset.validation, epoch),
                "lr": self.optimiser.param_groups[0]["lr"],
                "seconds": round(time.perf_counter() - began, 3),
            }
        )
        if state.kept() == epoch:
            state.best = {key: value.detach().clone() for key, value in model.state_dict().items()}
        state.epochs_done = epoch + 1
        state.save(self._folder, model, self.optimiser, self.seed)

    def finish(self) -> WideResNet:
        """Write the network of the kept epoch, and return it in evaluation mode."""
        state, model = self._state, self.task.model
        model.load_state_dict(state.best)
        model.eval()
        chosen = {
            "epoch": state.kept(),
            "validation_accuracy": state.rows[state.kept()]["validation_accuracy"],
            "epochs": self.training.epochs,
            "precision": self._precision,
        }
        save_model(self._folder, model, {**self._meta, "seed": self.seed, **chosen})
        (self._folder / STATE).unlink(missing_ok=True)
        return model


def _resume(folder: Path, model: WideResNet, optimiser: torch.optim.Optimizer, seed: int) -> _State | None:
    """Load the state of an interrupted training into model and optimiser, or return None."""
    if not (folder / STATE).is_file():
        return None
    tensors, metadata = load_tensors(folder / STATE)
    try:
        document = json.loads(metadata["training"])
        rows = document["rows"]
        state = _State(len(rows), {}, rows)
        state.kept()
        state.best = unpack_state(tensors, model, optimiser)
        same = document["seed"] == seed
    except (IndexError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise BadInputError(
            f"{folder / STATE}: not a state of this training ({error})", hint="delete it and resume the run"
        ) from None
    if not same:
        raise BadInputError(
            f"{folder / STATE}: state of a training with seed {document['seed']}, expected {seed}",
            hint="delete it and resume the run",
        )
    return state
