"""What a search found: every trial, those that no other beats, recipes, and what their numbers are worth."""

from __future__ import annotations

from dataclasses import fields
from importlib import metadata
from typing import TYPE_CHECKING, Any

from topokd_edge.data.split import Fold
from topokd_edge.data.windowset import subject_key
from topokd_edge.distill.recipe import Recipe
from topokd_edge.distill.tuning.job import Search
from topokd_edge.distill.tuning.space import changed
from topokd_edge.distill.tuning.trials import Scores, inner_parts
from topokd_edge.files import write_json, write_text

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

TRIALS, BEST, PARETO = "trials.json", "best.toml", "pareto"
_FEW = 3
_UNKNOWN: dict[str, Any] = {field.name: [] if field.name == "parts" else None for field in fields(Scores)}


def write_results(search: Search, study: Study) -> dict[str, Any]:
    """Write `trials.json`, `best.toml` and `pareto/trial-<n>.toml`, and return what the first holds.

    Returns
    -------
    dict
        `trials`: {"number", "state", "parameters", "accuracy", "macs", "params", "latency_ms", "timing",
        "parts", "seconds", "failed"};
        `pareto`: numbers of the trials that no other beats in all objectives, most accurate first;
        `best`: the first of these (on a tie the cheapest), None while no trial is complete.
        `chosen_on`, `untouched_folds` and `caveats`: whose subjects chose, and what follows.
    """
    rows = [_row(search, item) for item in study.get_trials(deepcopy=False)]
    complete = {row["number"]: row for row in rows if row["state"] == "complete"}
    front = [complete[item.number] for item in study.best_trials]
    front.sort(key=ranked)
    caveats = [*told(search, len(complete)), *_timing_told(list(complete.values()))]
    document = {
        **{key: value for key, value in search.job.items() if key != "outer_folds"},
        "versions": {name: metadata.version(name) for name in ("topokd-edge", "optuna", "torch")},
        "trials": rows,
        "pareto": [row["number"] for row in front],
        "best": front[0]["number"] if front else None,
        "chosen_on": validating(search),
        "untouched_folds": untouched(search),
        "caveats": caveats,
    }
    write_json(search.folder / TRIALS, document)
    for row in front:
        name = f"{search.recipe.name}-trial-{row['number']}"
        _write_recipe(search, row, name, caveats, f"{PARETO}/trial-{row['number']}.toml")
    for path in (search.folder / PARETO).glob("trial-*.toml"):
        if int(path.stem.removeprefix("trial-")) not in document["pareto"]:
            path.unlink(missing_ok=True)
    if front:
        _write_recipe(search, front[0], f"{search.recipe.name}-tuned", caveats, BEST)
    return document


def ranked(row: dict[str, Any]) -> tuple[float, int, float, int]:
    """Order complete trials: the most accurate first, on a tie the cheapest, then the quickest."""
    return -row["accuracy"], row["macs"], row["latency_ms"] or 0.0, row["number"]


def validating(search: Search) -> list[str]:
    """Return the subjects whose accuracy chose."""
    parts = [item for fold in search.chosen for item in inner_parts(search.windows, fold, search.plan.parts)]
    return sorted({who for item in parts for who in item.validation}, key=subject_key)


def untouched(search: Search) -> list[int]:
    """Return the outer folds whose test subjects had no part in the choice, not even to be fitted on."""
    used = {who for fold in search.chosen for who in (*fold.fit, *fold.validation)}
    return [fold.fold for fold in search.folds if not used & set(fold.test)]


def told(search: Search, complete: int) -> list[str]:
    """Say what the search's numbers are worth, one sentence each."""
    folds, honest, judges = search.plan.folds, untouched(search), validating(search)
    lines = [
        f"The values were chosen on validation subjects {', '.join(judges)} of {_folds(folds)}; "
        f"the test subjects of {'that fold' if len(folds) == 1 else 'each fold'} ({_tested(search.chosen)}) "
        "were not looked at there."
    ]
    if honest:
        lines.append(
            f"Only in {_folds(honest)} did no test subject have a part in the choice: held-out accuracy with "
            f"these values is honest there (train --folds {','.join(map(str, honest))})."
        )
    else:
        lines.append("In every fold, test subjects had a part in the choice, as subjects of another fold.")
    if len(honest) < len(search.folds):
        lines.append(
            "A table over all folds with these values is slightly optimistic. To avoid it, tune each fold by "
            "itself (--folds K, an --out each) and train it with its own values."
        )
    if complete > 1:
        lines.append(f"The best of {complete} trials looks better on its validation subjects than it is.")
    if len(judges) < _FEW:
        lines.append(
            f"{len(judges)} validation subject(s) tell little apart; with --parts 3 or more, all who "
            "are not tested validate in turn."
        )
    return lines


def _timing_told(rows: list[dict[str, Any]]) -> list[str]:
    """Say how latencies were obtained, and what disturbed them."""
    timings = {row["timing"]["shape"]: row["timing"] for row in rows if row["timing"]}
    if not timings:
        return []
    one, machines = next(iter(timings.values())), sorted({item["cpu"] for item in timings.values()})
    lines = [
        f"Latency was {one['basis']} on {' and on '.join(machines)}, {one['threads']} thread: the int8 "
        f"student through {one['runtime']}, from the raw window of a validation subject to the logits, the "
        f"least median of {one['processes']} fresh processes. Trials of one shape share a measurement, as "
        "weights cost no time; accuracy is of the float32 student."
    ]
    if len(machines) > 1:
        lines.append("Shapes were timed on different machines, so their latencies cannot be compared.")
    if busy := sorted(shape for shape, item in timings.items() if item["busy"]):
        lines.append(
            f"The machine was busy whenever {', '.join(busy)} was timed: these latencies may be too high."
        )
    return lines


def _row(search: Search, item: FrozenTrial) -> dict[str, Any]:
    return {
        "number": item.number,
        "state": item.state.name.lower(),
        "parameters": search.space.rounded(item.params),
        **_UNKNOWN,
        **item.user_attrs.get("scores", {}),
        "seconds": item.duration.total_seconds() if item.duration else None,
        "failed": item.user_attrs.get("failed"),
    }


def _write_recipe(search: Search, row: dict[str, Any], name: str, caveats: list[str], file: str) -> None:
    note = f"Tuned: trial {row['number']} of {search.folder.name}. {' '.join(caveats)}"
    base = search.recipe.model_copy(update={"name": name, "note": f"{search.recipe.note} {note}".strip()})
    tuned: Recipe = changed(base, row["parameters"])
    quick = "" if row["latency_ms"] is None else f", {row['latency_ms']:.3f} ms in int8"
    head = f"# Validation accuracy {row['accuracy']:.4f}, {row['macs']:,} MACs{quick}.\n"
    comments = "".join(f"# {line}\n" for line in caveats)
    write_text(search.folder / file, head + comments + tuned.to_toml())


def _folds(numbers: tuple[int, ...] | list[int]) -> str:
    return f"fold{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"


def _tested(folds: list[Fold]) -> str:
    return "; ".join(", ".join(fold.test) for fold in folds)
