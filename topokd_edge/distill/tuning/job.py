"""A search: what it does, its folder, and that it is the same when it goes on."""

from __future__ import annotations

import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from topokd_edge.data.split import Fold
from topokd_edge.data.windowset import WindowSet
from topokd_edge.distill.preprocessing import student_channels
from topokd_edge.distill.recipe import Recipe
from topokd_edge.distill.run_training import environment, planned_folds
from topokd_edge.distill.tuning.space import Space, check_space, idle
from topokd_edge.distill.tuning.storage import open_storage, shown
from topokd_edge.distill.tuning.trials import inner_parts
from topokd_edge.errors import BadInputError, UsageError
from topokd_edge.files import new_folder, read_json, refuse_existing, write_json, write_text

if TYPE_CHECKING:
    from optuna import Study

JOB = "tune.json"


@dataclass(frozen=True)
class Objective:
    """Something that can be asked for: the key of a trial's scores, and which way is better."""

    score: str
    direction: Literal["minimize", "maximize"]


OBJECTIVES = {
    "accuracy": Objective("accuracy", "maximize"),
    "macs": Objective("macs", "minimize"),
    "latency": Objective("latency_ms", "minimize"),
}


@dataclass(frozen=True)
class Plan:
    """What a search does, apart from data and recipe.

    Attributes
    ----------
    folds
        Numbers of the outer folds whose fit and validation subjects are used.
    parts
        Ways to deal these subjects; see `topokd_edge.distill.tuning.trials.inner_parts`.
    objectives
        Of `OBJECTIVES`.
    seed
        Of the sampler.
    storage
        Address of a database; "" is a journal in the folder.
    """

    folds: tuple[int, ...] = (1,)
    parts: int = 1
    objectives: tuple[str, ...] = ("accuracy", "macs")
    seed: int = 0
    storage: str = ""

    def __post_init__(self) -> None:
        problems = []
        if not self.folds or len(set(self.folds)) < len(self.folds):
            problems.append("--folds: expected one number or more, each once")
        if self.parts < 1:
            problems.append(f"--parts {self.parts}: expected 1 or more")
        if "accuracy" not in self.objectives or len(set(self.objectives)) < len(self.objectives):
            problems.append("--objective: expected accuracy, alone or with others, each once")
        for name in sorted(set(self.objectives) - set(OBJECTIVES)):
            problems.append(f"--objective {name}: expected some of {', '.join(OBJECTIVES)}")
        if self.seed < 0:
            problems.append(f"--seed {self.seed}: expected 0 or more")
        if problems:
            raise UsageError("the search makes no sense", problems=problems)

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON-able data, without a password."""
        return {
            "folds": list(self.folds),
            "parts": self.parts,
            "objectives": list(self.objectives),
            "sampler": {"name": "TPE", "seed": self.seed},
            "storage": shown(self.storage),
        }


@dataclass(frozen=True)
class Search:
    """A search and its folder.

    `recipe.toml` (what is not varied), `space.json`, `tune.json` (the plan, the data, the study's name),
    `environment.json`, `journal.log`; `fold-<k>/part-<p>/seed-<s>/` with teachers and a folder per trial;
    `latency/<shape>.json`, where latency is asked for;
    `trials.json`, `best.toml`, `pareto/trial-<n>.toml`: the results, renewed after each trial.
    """

    folder: Path
    windows: WindowSet
    recipe: Recipe
    space: Space
    plan: Plan
    folds: tuple[Fold, ...]
    """All outer folds."""

    @property
    def chosen(self) -> list[Fold]:
        """The outer folds whose fit and validation subjects are used."""
        return [fold for fold in self.folds if fold.fold in self.plan.folds]

    @property
    def job(self) -> dict[str, Any]:
        """What `tune.json` says."""
        return dict(read_json(self.folder / JOB))

    def study(self) -> Study:
        """Open the memory of the trials."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        return optuna.create_study(
            storage=open_storage(self.plan.storage, self.folder),
            study_name=self.job["study"],
            directions=[OBJECTIVES[name].direction for name in self.plan.objectives],
            load_if_exists=True,
        )


def prepare(data: Path, recipe: Recipe, space: Space, plan: Plan, out: Path) -> Search:
    """Check that the search can be made; nothing is written.

    The recipe's candidates and claims are left out: trials take the place of candidates. What changes
    nothing with this recipe is not varied.

    Raises
    ------
    UsageError
        When the recipe has the published protocol, which chooses on test subjects, or does not take a value
        of the space; when a fold does not exist.
    BadInputError
        When the data is not a window set, or its subjects do not fit the folds.
    """
    if recipe.protocol == "paper":
        raise UsageError(
            "tune: the recipe's protocol is paper, which chooses on the test subjects",
            hint="--set protocol=nested-subject",
        )
    student = recipe.student.model_copy(update={"candidates": (), "keep": "best"})
    recipe = recipe.model_copy(update={"student": student, "experiments": ()})
    space = space.without(idle(recipe, space))
    if not space.vary:
        raise UsageError(f"space {space.name}: nothing in it changes a student of this recipe")
    check_space(space, recipe)
    windows = WindowSet.open(data)
    student_channels(windows, recipe.student.channels)
    folds = planned_folds(windows, recipe)
    if strangers := sorted(set(plan.folds) - {fold.fold for fold in folds}):
        raise UsageError(f"--folds {strangers}: the recipe has folds 1 to {len(folds)}")
    search = Search(out, windows, recipe, space, plan, tuple(folds))
    for fold in search.chosen:
        inner_parts(windows, fold, plan.parts)
    return search


def start(search: Search, data: Path, *, overwrite: bool = False) -> None:
    """Make the folder of a new search.

    Raises
    ------
    BadInputError
        When the folder exists.
    """
    out, storage = search.folder, search.plan.storage
    refuse_existing(out, overwrite=overwrite, also="--resume to go on with it")
    about = environment()
    if storage:  # it may hold a password
        about["command"] = [part.replace(storage, shown(storage)) for part in about["command"]]
    with new_folder(out, overwrite=overwrite) as folder:
        write_text(folder / "recipe.toml", search.recipe.to_toml())
        write_json(folder / "space.json", search.space.model_dump(mode="json"))
        write_json(folder / "environment.json", about)
        write_json(
            folder / JOB,
            {
                **search.plan.to_dict(),
                "study": f"{search.recipe.name}-{uuid.uuid4().hex[:12]}",
                "data": str(data.resolve()),
                "content_hash": search.windows.content_hash,
                "outer_folds": [asdict(fold) for fold in search.folds],
            },
        )


def check_same(search: Search) -> None:
    """Refuse to go on with a search that was another.

    Raises
    ------
    BadInputError
        With everything that differs.
    """
    folder = search.folder
    if not (folder / JOB).is_file():
        raise BadInputError(f"{folder}: not a search ({JOB} is missing)", hint="start it without --resume")
    job, problems = search.job, []
    if not search.recipe.is_in(folder / "recipe.toml"):
        problems.append("the recipe differs from the search's recipe.toml")
    if read_json(folder / "space.json") != search.space.model_dump(mode="json"):
        problems.append("the space differs from the search's space.json")
    if search.windows.content_hash != job["content_hash"]:
        problems.append("the data is not the window set of the search")
    for key, value in search.plan.to_dict().items():
        if job[key] != value:
            problems.append(f"{key} is {value}, was {job[key]}")
    if problems:
        raise BadInputError(
            f"{folder}: cannot be resumed with these settings",
            hint="give the search's own settings, or start another with another --out",
            problems=problems,
        )
