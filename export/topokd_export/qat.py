"""Int8 in training: a student's deploy form learns on, from labels and teachers, with rounding in place."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from topokd_edge.data.split import Fold
from topokd_edge.distill.checkpoint import META, WEIGHTS, load_tensors
from topokd_edge.distill.distributed import several
from topokd_edge.distill.fold import prepare_fold
from topokd_edge.distill.int8_part import Int8
from topokd_edge.distill.method import Distilling
from topokd_edge.distill.recipe import Recipe, parse_recipe
from topokd_edge.distill.run_training import choose_device
from topokd_edge.errors import BadInputError, UsageError
from topokd_edge.models.wrn import WideResNet, WRNSpec
from topokd_edge.progress import Progress, silent
from topokd_edge.run import Run
from topokd_export.deploy import DeployGraph, replace_parameters
from topokd_export.quantise import calibrated
from topokd_export.simulate import Grid, Ranges, grid, parameters_of, range_of, simulate
from topokd_export.student import Student

TRAINED_INT8 = "student.int8-trained"
"""Folder of the model in a run: weights of the deploy form, and scale and zero point of every activation."""

Seen = TypeVar("Seen")


class QuantisedStudent(nn.Module):
    """A deploy form whose weights, biases and activation scales are learned; zero points stay.

    Answers nearly like the TFLite file that is written of it: see docs/decisions/quantisation.md.

    Parameters
    ----------
    graph
        The deploy form to start from.
    spec
        Of the network it was made from.
    ranges
        To start from.
    """

    low_precision = False

    def __init__(self, graph: DeployGraph, spec: WRNSpec, ranges: Ranges) -> None:
        super().__init__()
        self.spec = spec
        self._graph = graph
        self._tensors = tuple(ranges)
        self._operators = tuple(parameters_of(graph))
        pairs = parameters_of(graph).values()
        self.weights = nn.ParameterList(nn.Parameter(weight) for weight, _ in pairs)
        self.biases = nn.ParameterList(nn.Parameter(bias) for _, bias in pairs)
        grids = [grid(*ends) for ends in ranges.values()]
        self.log_scales = nn.Parameter(torch.tensor([float(item.scale) for item in grids]).log())
        self.zero_points: Tensor
        self.register_buffer("zero_points", torch.tensor([item.zero_point for item in grids]))

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised windows (batch, channels, length) to logits."""
        return self._simulated(x)[self._graph.ops[-1].name]

    def observe(self, x: Tensor, look: Callable[[Tensor], Seen]) -> tuple[Tensor, list[Seen]]:
        """Return the logits, and what `look` says of the output of each of the three stages."""
        values, blocks = self._simulated(x), self.spec.blocks_per_stage
        seen = [look(values[f"blocks.{stage * blocks - 1}"]) for stage in (1, 2, 3)]
        return values[self._graph.ops[-1].name], seen

    def graph(self) -> DeployGraph:
        """Return the deploy form with what was learned."""
        return replace_parameters(
            self._graph,
            {
                name: (weight.detach().cpu().numpy(), bias.detach().cpu().numpy())
                for name, weight, bias in zip(self._operators, self.weights, self.biases, strict=True)
            },
        )

    def ranges(self) -> Ranges:
        """Return the range of every tensor."""
        scales = self.log_scales.detach().exp().tolist()
        found = zip(self._tensors, scales, self.zero_points.tolist(), strict=True)
        return {name: range_of(scale, zero) for name, scale, zero in found}

    def _simulated(self, x: Tensor) -> dict[str, Tensor]:
        scales = self.log_scales.exp().unbind()
        found = zip(self._tensors, scales, self.zero_points.tolist(), strict=True)
        grids = {name: Grid(scale, zero) for name, scale, zero in found}
        pairs = zip(self.weights, self.biases, strict=True)
        return simulate(self._graph, x, grids, dict(zip(self._operators, pairs, strict=True)))


def trained_int8(
    run: Run, student: Student, settings: Int8, *, device: str = "auto", progress: Progress = silent
) -> tuple[DeployGraph, Ranges]:
    """Return the deploy form and ranges of a student that learned on with int8 rounding in place.

    It starts from the distilled student and calibrated ranges, and learns from the same windows, labels and
    teachers. The epoch is chosen as for every network of the run. What is trained already is loaded.

    Parameters
    ----------
    run, student
        The run, and the distilled student of one fold and seed.
    settings
        How ranges start, and the training.
    device
        Where to train.
    progress
        Told of each epoch.

    Raises
    ------
    BadInputError
        When the run's recipe, window set or checkpoints are not usable.
    UsageError
        In one of several processes.
    """
    graph, ranges = calibrated(student.graph, student.calibration(settings.windows), settings)
    net = QuantisedStudent(graph, student.model.spec, ranges)
    folder = student.fold_run.model_folder(TRAINED_INT8)
    if (folder / META).is_file():
        _load(net, folder)
    else:
        _train(net.to(choose_device(device)), run, student, settings, folder, progress)
    return net.graph().with_floored_weights(), net.ranges()


def _train(
    net: QuantisedStudent, run: Run, student: Student, settings: Int8, folder: Path, progress: Progress
) -> None:
    if several():
        raise UsageError("int8 is trained by one process: train with --devices 1, or export with --qat")
    place = student.fold_run
    recipe, entry = _recipe(run), run.fold(place.fold)
    fold = Fold(place.fold, *(tuple(entry[key]) for key in ("test", "validation", "fit")))
    cache = run.folder / "cache" / f"int8-fold-{place.fold}"
    try:
        trainer = prepare_fold(
            place,
            student.windows,
            fold,
            recipe,
            cache=cache,
            device=net.zero_points.device,
            progress=progress,
        )
        # Trainer and task only ask a network for spec, answers and weights, all of which this one has.
        trainer.go_on(cast(WideResNet, net), _distilling(place.selection()), settings.training, folder)
    finally:
        shutil.rmtree(cache, ignore_errors=True)


def _recipe(run: Run) -> Recipe:
    path = run.folder / "recipe.toml"
    try:
        return parse_recipe(path.read_text("utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(f"{path}: not readable ({error})") from None


def _distilling(selection: dict[str, Any]) -> Distilling:
    """Return the settings by which the fold's student was distilled."""
    return Distilling(**selection["candidates"][selection["chosen"] - 1]["settings"])


def _load(net: QuantisedStudent, folder: Path) -> None:
    try:
        net.load_state_dict(load_tensors(folder / WEIGHTS)[0])
    except RuntimeError as error:
        raise BadInputError(
            f"{folder}: not the int8 weights of this student ({error})", hint="delete the folder"
        ) from None
