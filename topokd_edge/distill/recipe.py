"""The recipe: every number of a training run, typed, with its unit and its source."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import tomli_w
from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from topokd_edge.data.split import Fold, SplitPlan
from topokd_edge.distill.int8_part import Int8
from topokd_edge.distill.method import Distilling, TeacherName
from topokd_edge.distill.parts import Augmentation, Count, Network, NotNegative, Part, Training
from topokd_edge.distill.topology_part import Topology as Topology
from topokd_edge.errors import UsageError

_OWN_STUDENTS = ("scratch", "distilled", "int8")


class Member(Part):
    """One teacher and how it is trained."""

    network: Network = Network()
    training: Training
    mixup_alpha: NotNegative = 0.0
    """Mixup while the teacher itself learns, the other reading of the method's alphas; 0 is none."""


class Student(Part):
    """The student: its shape, training from scratch, distillation, and what is selected."""

    network: Network = Network()
    channels: tuple[str, ...] = ()
    """Those that the student will have on its device, in this order; the teachers have all. Empty: all."""
    scratch: Training
    distilled: Training
    distilling: Distilling = Distilling()
    candidates: tuple[dict[str, Any], ...] = ()
    """Changes to `distilling` that are all tried; the best on the validation subjects is kept."""
    keep: Literal["best", "all"] = "best"
    """`all` also predicts with each candidate on the held-out subjects, as `student.<label>`."""
    int8: Int8 = Int8()
    """How the distilled student becomes int8, for the predictions of the run and for its export."""

    @field_validator("channels")
    @classmethod
    def _each_channel_once(cls, channels: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(channels)) < len(channels):
            raise ValueError("expected each channel once")
        return channels

    @model_validator(mode="after")
    def _candidates_are_valid(self) -> Student:
        problems = []
        for index, change in enumerate(self.candidates):
            try:
                self._with(index, change)
            except ValidationError as error:
                where = f"student.candidates.{index}."
                problems += [line for item in error.errors() for line in _problems(item, Distilling, where)]
        if self.keep == "all" and not self.candidates:
            problems.append("student.keep = 'all': expected student.candidates, which it keeps")
        if not problems:
            labels = [settings.label for settings in self.variants()]
            problems = [
                f"student.candidates.{index}.label = {label!r}: expected another; it is taken"
                for index, label in enumerate(labels)
                if label in labels[:index] or label in _OWN_STUDENTS
            ]
        if problems:
            raise told(problems)
        return self

    def variants(self) -> list[Distilling]:
        """Return the settings to try: `distilling` with each candidate's changes, or itself alone."""
        return [self._with(index, change) for index, change in enumerate(self.candidates)] or [
            self.distilling
        ]

    def needs(self) -> set[TeacherName]:
        """Return the teachers that the candidates need together."""
        return {name for settings in self.variants() for name in settings.needs()}

    def _with(self, index: int, change: dict[str, Any]) -> Distilling:
        named = {"label": f"candidate-{index + 1}"}
        return Distilling(**{**self.distilling.model_dump(), **named, **change})


class FixedFold(Part):
    """One fold of fixed lists of subjects."""

    test: Annotated[tuple[str, ...], Field(min_length=1)]
    validation: Annotated[tuple[str, ...], Field(min_length=1)]
    fit: Annotated[tuple[str, ...], Field(min_length=1)]


class Split(Part):
    """Outer folds by subject, and how many inner subjects choose epoch and candidate."""

    kind: Literal["folds", "leave-one-out", "fixed"] = "folds"
    """`leave-one-out` tests every subject alone; `fixed` takes the lists of `fold`."""
    folds: Annotated[int, Field(ge=2)] | None = None
    validation_subjects: Annotated[int, Field(ge=0)] = 1
    """0 fits on everyone who is not tested: the last epoch is kept, and nothing can be chosen."""
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


class Experiment(Part):
    """A claim that a run decides: in each pair (a, b), b is better than a on the held-out subjects."""

    claim: str
    pairs: Annotated[tuple[tuple[str, str], ...], Field(min_length=1)]
    holds: Literal["all", "any"] = "all"
    """Whether the claim is made of all pairs, or of at least one."""
    images: tuple[Count, Count] | None = None
    """(rows, columns) of persistence images that are part of the claim."""


class Recipe(Part):
    """Everything that determines a run, apart from the data and the machine."""

    name: str
    note: str = ""
    """Shown in the report; a demo says here what it leaves out."""
    protocol: Literal["nested-subject", "paper"] = "nested-subject"
    """`paper` fits on everyone but the test subjects and chooses epoch and candidate on the test subjects,
    as the published code does. Its accuracies are optimistic, and marked so wherever they are shown."""
    scaling: Literal["pooled", "window"] = "pooled"
    """Standard deviation that signals and images are divided by, per channel: over all samples of the fit
    subjects, or, as published, the mean of the windows' own (which inflates channels that hardly move)."""
    normalisation: Literal["channel", "sensor"] = "channel"
    """Whether each channel of a signal is divided by its own standard deviation, or the three axes of a
    sensor by one, so that they keep their proportions."""
    augmentation: Augmentation = Augmentation()
    """Of signals while student and teachers learn; each may decline it with `augment = false` where its
    training is described."""
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (0,)
    split: Split
    topology: Topology = Topology()
    signal_teacher: Member
    topology_teacher: Member
    student: Student
    experiments: tuple[Experiment, ...] = ()
    """Claims that `evaluate` decides by paired comparisons."""

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Recipe:
        problems = []
        inherits = [item for item in self.student.variants() if item.annealing_from == "signal-teacher"]
        if inherits and self.signal_teacher.network != self.student.network:
            problems.append(
                "signal_teacher.network: expected that of student.network, since annealing_from = "
                "'signal-teacher' hands its weights on"
            )
        if inherits and self.student.channels:
            problems.append(
                "student.channels: expected none, since annealing_from = 'signal-teacher' hands on weights "
                "for all channels"
            )
        redraws = self.augmentation.images == "redrawn" or self.topology_teacher.training.augment
        if self.topology.filtration == "delay" and self.augmentation.changes() and redraws:
            problems.append(
                "topology.filtration = 'delay': too slow to redraw in every step; say augmentation.images = "
                "'clean' and topology_teacher.training.augment = false"
            )
        adaptive = [item for item in self.student.variants() if item.alpha == "adaptive"]
        if adaptive and self.protocol == "paper":
            problems.append(
                "alpha = 'adaptive': expected protocol = 'nested-subject', with validation subjects"
            )
        if not all(item.teachers for item in adaptive):
            problems.append("alpha = 'adaptive': expected a teacher, whose confusion it follows")
        if (
            self.protocol == "nested-subject"
            and self.split.kind != "fixed"
            and not self.split.validation_subjects
        ):
            problems += [
                f"split.validation_subjects = 0: nobody is left {purpose}"
                for purpose, wanted in (
                    (
                        "to choose among student.candidates; give one setting",
                        len(self.student.variants()) > 1,
                    ),
                    ("for alpha = 'adaptive' to measure confusion on", bool(adaptive)),
                )
                if wanted
            ]
        known = self.models()
        problems += [
            f"experiments.{index}.pairs: no model {name}; known here: {', '.join(known)}"
            for index, experiment in enumerate(self.experiments)
            for name in sorted({name for pair in experiment.pairs for name in pair} - set(known))
        ]
        if problems:
            raise told(problems)
        return self

    def models(self) -> list[str]:
        """Return the names of the models that a run of this recipe predicts with."""
        teachers = [name for name in get_args(TeacherName) if name in self.student.needs()]
        kept = self.student.variants() if self.student.keep == "all" else []
        return [
            *(f"teacher.{name}" for name in teachers),
            "student.scratch",
            *(f"student.{settings.label}" for settings in kept),
            "student.distilled",
        ]

    def to_toml(self) -> str:
        """Return the resolved recipe as TOML."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))

    def is_in(self, path: Path) -> bool:
        """Return whether a file says the same, be it of a version that did not know every key yet."""
        return parse_recipe(path.read_text("utf-8"), str(path)) == self

    def adds_seeds_to(self, path: Path) -> bool:
        """Return whether this is the recipe of a file with more seeds, and nothing else differs."""
        there = parse_recipe(path.read_text("utf-8"), str(path))
        return set(there.seeds) < set(self.seeds) and there.model_copy(update={"seeds": self.seeds}) == self


def told(problems: list[str]) -> PydanticCustomError:
    """Return an error of a section whose problems are worded already."""
    return PydanticCustomError("told", "told", {"problems": problems})


def builtin_recipes() -> list[str]:
    """Return the names of the recipes that come with the package, such as `demo` and `paper/pamap2`."""
    folder = resources.files("topokd_edge.distill") / "recipes"
    names = [(item.name, item) for item in folder.iterdir()]
    names += [(f"{name}/{item.name}", item) for name, sub in names if sub.is_dir() for item in sub.iterdir()]
    return sorted(name.removesuffix(".toml") for name, _ in names if name.endswith(".toml"))


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
    if item["type"] == "told":
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
