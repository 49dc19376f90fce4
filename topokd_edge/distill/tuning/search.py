"""The trials of a search, one after another, in one process or several."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topokd_edge.distill.recipe import Recipe
from topokd_edge.distill.tuning.job import OBJECTIVES, Search
from topokd_edge.distill.tuning.space import changed
from topokd_edge.distill.tuning.storage import answering, one_process_only
from topokd_edge.distill.tuning.trials import Scores
from topokd_edge.errors import BadInputError, TopokdError
from topokd_edge.locking import held
from topokd_edge.progress import Progress, silent

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

Judge = Callable[[Recipe, int], Scores]
"""Says what the trial of that number is worth; see `topokd_edge.distill.tuning.trials.Trainer`."""
AfterTrial = Callable[["Study"], object]


def run_trials(
    search: Search,
    judge: Judge,
    trials: int,
    *,
    progress: Progress = silent,
    after_trial: AfterTrial = lambda study: None,
) -> Study:
    """Try values until the search has `trials` trials, in whichever process they run.

    A trial that was interrupted goes on with its values, and ends as if it had not been; so does the search.
    A trial whose training diverges has failed and counts.

    Parameters
    ----------
    search
        Its folder exists.
    judge
        What a trial is worth.
    trials
        Total number, of earlier calls too.
    progress, after_trial
        Told, and called, after each trial.
    """
    with answering(search.plan.storage, search.folder):
        return _run_trials(search, judge, trials, progress, after_trial)


def _run_trials(
    search: Search, judge: Judge, trials: int, progress: Progress, after_trial: AfterTrial
) -> Study:
    study = search.study()
    if one_process_only(search.plan.storage):
        _refuse_company(study, search)
    while True:
        with _next_trial(study, search, trials) as trial:
            if trial is None:
                break
            _try(trial, study, search, judge)
        after_trial(study)
        done = sum(item.state.is_finished() for item in study.get_trials(deepcopy=False))
        progress("trials", min(done, trials), trials)
    shutil.rmtree(search.folder / "cache", ignore_errors=True)
    return study


def _try(trial: Trial, study: Study, search: Search, judge: Judge) -> None:
    """Run one trial and tell the study."""
    from optuna.trial import TrialState

    values = search.space.suggest(trial)
    try:
        scores = judge(changed(search.recipe, values), trial.number)
    except TopokdError as error:
        if type(error) is not TopokdError:  # not the training that diverged: no trial would do better
            raise
        trial.set_user_attr("failed", error.message)
        study.tell(trial, state=TrialState.FAIL)
        return
    found = scores.to_dict()
    trial.set_user_attr("scores", found)
    study.tell(trial, [found[OBJECTIVES[name].score] for name in search.plan.objectives])


@contextmanager
def _next_trial(study: Study, search: Search, trials: int) -> Iterator[Trial | None]:
    """Give an interrupted trial, or else a new one, that no other process has; None when there are enough."""
    from optuna.trial import Trial, TrialState

    with ExitStack() as locks:

        def mine(number: int) -> bool:
            return locks.enter_context(held(_lock(search, number), wait=False))

        def interrupted(item: FrozenTrial) -> bool:
            if item.state != TrialState.RUNNING or not mine(item.number):
                return False
            # It may have ended between the two looks.
            return study.get_trials(deepcopy=False)[item.number].state == TrialState.RUNNING

        trial = None
        while trial is None:
            known = study.get_trials(deepcopy=False)
            left = next((item for item in known if interrupted(item)), None)
            if left is not None:
                trial = Trial(study, left._trial_id)
            elif len(known) >= trials:
                break
            elif mine((asked := study.ask()).number):
                trial = asked
        if trial is not None:
            # What a trial draws depends on seed, number and earlier results, and on no interruption.
            study.sampler = _sampler(search.plan.seed, trial.number)
        yield trial


def _sampler(seed: int, number: int) -> Any:
    import numpy as np
    from optuna.samplers import TPESampler

    return TPESampler(seed=int(np.random.SeedSequence([seed, number]).generate_state(1)[0]))


def _lock(search: Search, number: int) -> Path:
    return search.folder / "locks" / f"trial-{number}.lock"


def _refuse_company(study: Study, search: Search) -> None:
    """Refuse to be the second process that writes to the storage."""
    from optuna.trial import TrialState

    for item in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        with held(_lock(search, item.number), wait=False) as free:
            if not free:
                raise BadInputError(
                    f"{search.folder}: trial {item.number} is running in another process; SQLite is for one",
                    hint="wait for it; for several processes leave --storage out, or use PostgreSQL",
                )
