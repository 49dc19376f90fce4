"""The space of a search: which values of the recipe trials choose, and from what."""

from __future__ import annotations

import json
import math
import tomllib
from importlib import resources
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, get_args

from pydantic import Field, ValidationError

from topokd_edge.distill.method import Distilling
from topokd_edge.distill.parts import Network, Part, Training
from topokd_edge.distill.recipe import Recipe, parse_recipe
from topokd_edge.errors import UsageError

if TYPE_CHECKING:
    from optuna import Trial

_SECTIONS: dict[str, tuple[type[Part], set[str]]] = {
    "student.distilling": (Distilling, {"label", "teachers"}),
    "student.distilled": (Training, set()),
    "student.network": (Network, set()),
}
"""Sections of the recipe that leave the teachers as they are, and what cannot be tuned in each."""


class Vary(Part):
    """A range, or a list of choices, for one value of the recipe."""

    low: float | None = None
    high: float | None = None
    step: float | None = None
    """Distance of the values tried, from `low` on."""
    log: bool = False
    """Whether the logarithm is spread evenly, not the value."""
    choices: tuple[Any, ...] = ()
    source: str = ""
    """Where the range comes from; for people."""

    def ends(self) -> list[Any]:
        """Return the values that a recipe must accept for all to be accepted."""
        return list(self.choices) or [self.low, self.high]


class Space(Part):
    """What is varied, by key of the recipe, such as `student.distilling.tau`."""

    name: str
    vary: dict[str, Vary] = Field(min_length=1)

    def suggest(self, trial: Trial) -> dict[str, Any]:
        """Draw the values of a trial, by key; see `rounded`."""
        kinds = tunable()
        for key, item in self.vary.items():
            if item.choices:
                trial.suggest_categorical(key, list(item.choices))
            elif kinds[key] is int:
                step = int(item.step or 1)
                trial.suggest_int(key, int(_end(item.low)), int(_end(item.high)), step=step, log=item.log)
            else:
                trial.suggest_float(key, _end(item.low), _end(item.high), step=item.step, log=item.log)
        return self.rounded(trial.params)

    def rounded(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return a trial's values as recipes get them: with six digits."""
        return {
            key: float(f"{value:.6g}") if isinstance(value, float) else value for key, value in values.items()
        }

    def without(self, keys: set[str]) -> Space:
        """Return the space without some keys."""
        return self.model_copy(
            update={"vary": {key: item for key, item in self.vary.items() if key not in keys}}
        )


def tunable() -> dict[str, Any]:
    """Return the keys that can be tuned, with the type of each: int, float, bool, or a Literal."""
    return {
        f"{section}.{name}": _plain(field.annotation)
        for section, (part, fixed) in _SECTIONS.items()
        for name, field in part.model_fields.items()
        if name not in fixed
    }


def _plain(annotation: Any) -> Any:
    """Return float of `float | None`."""
    others = [item for item in get_args(annotation) if item is not NoneType]
    return others[0] if NoneType in get_args(annotation) else annotation


def load_space(name: str) -> Space:
    """Read a space: `default`, or a TOML file.

    Raises
    ------
    UsageError
        With everything that is wrong in it, apart from what a recipe does not accept; see `check_space`.
    """
    if name == "default":
        text = (resources.files("topokd_edge.distill") / "spaces" / "default.toml").read_text("utf-8")
    else:
        try:
            text = Path(name).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(
                f"--space {name}: not readable as a text file ({error})", hint="give a .toml file, or default"
            ) from None
    return parse_space(text, name)


def parse_space(text: str, name: str) -> Space:
    """Read a space from TOML text; `name` is used in messages. See `load_space`."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"space {name}: not valid TOML ({error})") from None
    try:
        space = Space.model_validate(document)
    except ValidationError as error:
        problems = [_told(item) for item in error.errors()]
    else:
        problems = [line for key, item in space.vary.items() for line in _problems(key, item)]
    if problems:
        raise UsageError(f"space {name}: {len(problems)} problem(s)", problems=problems)
    return space


def check_space(space: Space, recipe: Recipe) -> None:
    """Refuse a space with values that the recipe does not accept.

    Raises
    ------
    UsageError
        With every such value.
    """
    problems: list[str] = []
    for key, item in space.vary.items():
        for value in item.ends():
            try:
                changed(recipe, {key: value})
            except UsageError as error:
                problems += [f"vary.{key}, value {value}: {line}" for line in error.problems]
    if problems:
        raise UsageError(
            f"space {space.name}: {len(problems)} value(s) the recipe does not take", problems=problems
        )


def changed(recipe: Recipe, values: dict[str, Any]) -> Recipe:
    """Return the recipe with some values changed, by key."""
    overrides = [f"{key}={json.dumps(value)}" for key, value in values.items()]
    return parse_recipe(recipe.to_toml(), recipe.name, overrides)


def idle(recipe: Recipe, space: Space) -> set[str]:
    """Return the keys that change nothing: the student has no such teacher, or alphas are measured."""
    settings, names = recipe.student.distilling, set()
    missing = {"signal", "topology"} - set(settings.teachers)
    if missing:
        names |= {"eta", *(f"alpha_{name}" for name in missing)}
    if "topology" in missing:
        names.add("mixup_share_topology")
    if not settings.teachers:
        names = names - {"alpha_signal"} | {"tau", "temperature"}  # alpha_signal then mixes the only batch
    if "student.distilling.alpha" not in space.vary:
        measured = {"alpha_signal", "alpha_topology", "mixup_share", "mixup_share_topology"}
        names |= measured if settings.alpha == "adaptive" else {"confusion_budget"}
    return {f"student.distilling.{name}" for name in names}


def _told(item: Any) -> str:
    where = ".".join(str(key) for key in item["loc"]) or "space"
    if item["type"] == "extra_forbidden":
        part = Vary if len(item["loc"]) > 1 else Space
        return f"{where}: no such key; known here: {', '.join(part.model_fields)}"
    return f"{where}: {item['msg']}"


def _end(value: float | None) -> float:
    assert value is not None, "checked when the space was read"
    return value


def _problems(key: str, item: Vary) -> list[str]:
    """Say what is wrong with one entry of a space, whatever the recipe."""
    where, kinds = f"vary.{key}", tunable()
    if key not in kinds:
        return [f"{where}: cannot be tuned; known here: {', '.join(kinds)}"]
    if item.choices:
        problems = []
        if (item.low, item.high, item.step, item.log) != (None, None, None, False):
            problems.append(f"{where}: expected choices, or low and high, not both")
        if not all(isinstance(value, bool | int | float | str) for value in item.choices):
            problems.append(
                f"{where}.choices = {list(item.choices)}: expected numbers, texts or true and false"
            )
        elif len(set(item.choices)) < max(2, len(item.choices)):
            problems.append(f"{where}.choices = {list(item.choices)}: expected two or more, each once")
        return problems
    if kinds[key] not in (int, float):
        return [f"{where}: expected choices = [...], as it is not a range of numbers"]
    if item.low is None or item.high is None:
        return [f"{where}: expected low and high, or choices = [...]"]
    return [
        f"{where}: {line}" for line in _range_problems(item.low, item.high, item, whole=kinds[key] is int)
    ]


def _range_problems(low: float, high: float, item: Vary, *, whole: bool) -> list[str]:
    problems = []
    if low >= high:
        problems.append(f"low = {low}, high = {high}: expected low below high")
    if whole and any(value % 1 for value in (low, high, item.step or 0)):
        problems.append("expected whole numbers")
    if item.log and low <= 0:
        problems.append(f"low = {low}: expected above 0 with log = true")
    if item.step is None:
        return problems
    if item.log:
        problems.append("expected step or log = true, not both")
    if item.step <= 0:
        problems.append(f"step = {item.step}: expected above 0")
    elif not math.isclose((high - low) / item.step, round((high - low) / item.step), abs_tol=1e-9):
        problems.append(f"step = {item.step}: expected whole steps from {low} to {high}")
    return problems
