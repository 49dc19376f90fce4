"""The recipe: every number of a training run, typed, with its unit and its source."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import tomli_w
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from topokd_edge.data.split import Fold, SplitPlan
from topokd_edge.errors import UsageError

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Pixels = Annotated[int, Field(ge=1, le=1024)]


def _of_wide_resnet(depth: int) -> int:
    if depth < 10 or (depth - 4) % 6:
        raise ValueError("expected 6 N + 4, such as 16 or 28")
    return depth


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Training(_Part):
    """How one network is trained: stochastic gradient descent with momentum."""

    epochs: Count
    batch_size: Annotated[int, Field(ge=2)] = 64
    learning_rate: Positive = 0.1
    """Peak of `one-cycle`, or the first step of `steps`."""
    schedule: Literal["one-cycle", "steps"] = "one-cycle"
    """`steps` is the published one: 1, 0.2, 0.02, 0.002 times the rate from epoch 0, E/18, E/3, 2E/3."""
    momentum: Share = 0.9
    weight_decay: NotNegative = 1e-4


class Network(_Part):
    """A WideResNet's shape; see `topokd_edge.models.wrn.WRNSpec`."""

    depth: Annotated[int, AfterValidator(_of_wide_resnet)] = 16
    width: Count = 1
    stem_stride: Literal[1, 2] = 1


class Topology(_Part):
    """Persistence images; see `topokd_edge.topology.image`."""

    size: tuple[Pixels, Pixels] = (64, 64)
    sigma: Annotated[float, Field(gt=0, le=1)] = 0.015
    """Standard deviation of the Gaussian, as a fraction of each axis."""
    min_life: Annotated[float, Field(ge=0, lt=1)] = 0.001
    """Pairs that live shorter than this fraction of the persistence range are noise and dropped.

    Published: 0.01 of a signal scaled to [0, 1]; that leaves 24 % of the images of DSADS empty.
    """
    normalise: Literal["max", "none"] = "max"
    essential: Literal["drop", "cap", "keep"] = "drop"


class Member(_Part):
    """One network and how it is trained."""

    network: Network = Network()
    training: Training


class Distilling(_Part):
    """loss = (1 - tau) CE + tau [eta T^2 KL(signal) + (1 - eta) T^2 KL(topology)]."""

    tau: Share = 0.7
    """Weight of the teachers against the labels."""
    eta: Share = 0.7
    """Weight of the signal teacher against the topology teacher."""
    temperature: Positive = 4.0
    kl_reduction: Literal["batchmean", "paper"] = "batchmean"
    annealing: bool = True
    """Start from the student trained from scratch."""
    alpha_signal: NotNegative = 0.15
    """Beta(alpha, alpha) of the batch that the signal teacher sees; 0 is no mixup."""
    alpha_topology: NotNegative = 0.2
    """The same for the topology teacher; equal alphas share one batch."""
    mixup_share: Share = 1.0
    """Share of each batch that is mixed: 1 is full mixup, less is partial."""


class Student(_Part):
    """The student: its shape, training from scratch, distillation, and what is selected."""

    network: Network = Network()
    scratch: Training
    distilled: Training
    distilling: Distilling = Distilling()
    candidates: tuple[dict[str, Any], ...] = ()
    """Changes to `distilling` that are all tried; the best on the validation subjects is kept."""

    @model_validator(mode="after")
    def _candidates_are_valid(self) -> Student:
        problems = []
        for index, change in enumerate(self.candidates):
            try:
                self._with(change)
            except ValidationError as error:
                where = f"student.candidates.{index}."
                problems += [line for item in error.errors() for line in _problems(item, Distilling, where)]
        if problems:
            raise PydanticCustomError("candidates", "candidates", {"problems": problems})
        return self

    def variants(self) -> list[Distilling]:
        """Return the settings to try: `distilling` with each candidate's changes, or itself alone."""
        return [self._with(change) for change in self.candidates or ({},)]

    def _with(self, change: dict[str, Any]) -> Distilling:
        return Distilling(**{**self.distilling.model_dump(), **change})


class FixedFold(_Part):
    """One fold of fixed lists of subjects."""

    test: Annotated[tuple[str, ...], Field(min_length=1)]
    validation: Annotated[tuple[str, ...], Field(min_length=1)]
    fit: Annotated[tuple[str, ...], Field(min_length=1)]


class Split(_Part):
    """Outer folds by subject, and how many inner subjects choose epoch and candidate."""

    kind: Literal["folds", "leave-one-out", "fixed"] = "folds"
    """`leave-one-out` tests every subject alone; `fixed` takes the lists of `fold`."""
    folds: Annotated[int, Field(ge=2)] | None = None
    validation_subjects: Count = 1
    seed: Annotated[int, Field(ge=0)] = 0
    fold: tuple[FixedFold, ...] = ()

    @model_validator(mode="after")
    def _kind_has_its_keys(self) -> Split:
        if (self.folds is not None) != (self.kind == "folds"):
            raise ValueError(f"folds is for kind = 'folds', and needed there; kind is {self.kind!r}")
        if bool(self.fold) != (self.kind == "fixed"):
            raise ValueError(f"[[split.fold]] is for kind = 'fixed', and needed there; kind is {self.kind!r}")
        return self

    def plan(self) -> SplitPlan:
        """Return the split to deal on a window set."""
        return SplitPlan(
            self.kind,
            folds=self.folds or 2,
            validation_subjects=self.validation_subjects,
            seed=self.seed,
            fixed=tuple(
                Fold(number, item.test, item.validation, item.fit)
                for number, item in enumerate(self.fold, start=1)
            ),
            name="recipe, [split]",
        )


class Recipe(_Part):
    """Everything that determines a run, apart from the data and the machine."""

    name: str
    note: str = ""
    """Shown in the report; a demo says here what it leaves out."""
    protocol: Literal["nested-subject"] = "nested-subject"
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (0,)
    split: Split
    topology: Topology = Topology()
    signal_teacher: Member
    topology_teacher: Member
    student: Student

    def to_toml(self) -> str:
        """Return the resolved recipe as TOML."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))


def builtin_recipes() -> list[str]:
    """Return the names of the recipes that come with the package."""
    folder = resources.files("topokd_edge.distill") / "recipes"
    return sorted(item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml"))


def load_recipe(name: str, overrides: list[str] | tuple[str, ...] = ()) -> Recipe:
    """Read a recipe by name or from a file, and apply `a.b=c` overrides.

    Raises
    ------
    UsageError
        When there is no such recipe, or it has misspelt keys or values out of range; all are named.
    """
    path = Path(name)
    if name in builtin_recipes():
        text = (resources.files("topokd_edge.distill") / "recipes" / f"{name}.toml").read_text("utf-8")
    elif path.suffix == ".toml" and path.is_file():
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{name}: not readable as UTF-8 text ({error})") from None
    else:
        raise UsageError(
            f"{name}: no such recipe", hint=f"give a .toml file, or one of {', '.join(builtin_recipes())}"
        )
    return parse_recipe(text, name, overrides)


def parse_recipe(text: str, name: str, overrides: list[str] | tuple[str, ...] = ()) -> Recipe:
    """Read a recipe from TOML text; `name` is used in messages. See `load_recipe`."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{name}: not valid TOML ({error})") from None
    for override in overrides:
        _apply(document, override)
    try:
        return Recipe.model_validate(document)
    except ValidationError as error:
        problems = [line for item in error.errors() for line in _problems(item, Recipe)]
        raise UsageError(f"recipe {name}: {len(problems)} problem(s)", problems=problems) from None


def _apply(document: dict[str, Any], override: str) -> None:
    keys, equals, value = override.partition("=")
    if not equals or not keys.strip():
        raise UsageError(f"--set {override}: expected key.key=value, such as student.distilling.tau=0.5")
    *path, last = keys.strip().split(".")
    place = document
    for key in path:
        place = place.setdefault(key, {})
        if not isinstance(place, dict):
            raise UsageError(f"--set {override}: {key} is a value, not a section")
    try:
        place[last] = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        place[last] = value.strip()


def _problems(item: Any, part: Any, prefix: str = "") -> list[str]:
    """Say what pydantic found wrong in `part`, which lies at `prefix` of the recipe."""
    where = prefix + (".".join(str(key) for key in item["loc"]) or "recipe")
    if item["type"] == "candidates":
        return list(item["ctx"]["problems"])
    if item["type"] == "extra_forbidden":
        return [f"{where}: no such key; known here: {', '.join(_known_keys(part, item['loc'][:-1]))}"]
    if item["type"] == "missing":
        return [f"{where}: missing"]
    return [f"{where} = {item['input']!r}: {item['msg'].removeprefix('Value error, ')}"]


def _known_keys(part: Any, loc: tuple[int | str, ...]) -> list[str]:
    for key in loc:
        if isinstance(key, str):
            annotation = part.model_fields[key].annotation
            part = next(iter(get_args(annotation)), annotation)
    return sorted(part.model_fields)
