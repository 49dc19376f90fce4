"""What a run says of the claims in its recipe, and which known failures its folds show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from topokd_edge.evaluate.compare import LEVEL, Comparison
from topokd_edge.run import FoldRun

CONFIRMED, REFUTED, NOISE, UNTESTED = "confirmed", "refuted", "within noise", "not tested"


def decide(
    experiment: Mapping[str, Any],
    compared: Mapping[tuple[str, str], Comparison],
    finished: Sequence[FoldRun] = (),
) -> dict[str, Any]:
    """Decide one claim of a recipe, see `topokd_edge.distill.recipe.Experiment`.

    A claim of all pairs is confirmed when every b is better than its a, and refuted when one is worse. A
    claim of any pair is confirmed when one b is better at the level divided by the number of pairs
    (Bonferroni: the best of several is better by chance), and refuted when all are worse.

    Parameters
    ----------
    experiment
        `claim`, `pairs`, `holds`, and `images`, if their size is part of the claim.
    compared
        Comparisons that were made.
    finished
        Where the images are described.

    Returns
    -------
    dict
        `claim`, `verdict` ("confirmed", "refuted", "within noise" or "not tested") and `sentences`.
    """
    pairs = [(a, b) for a, b in experiment["pairs"]]
    made = [compared[pair] for pair in pairs if pair in compared]
    missing = [f"{b} against {a}: not compared" for a, b in pairs if (a, b) not in compared]
    verdict = _of_any(made) if experiment.get("holds") == "any" else _of_all(made)
    sentences = [*(item.sentence for item in made), *missing]
    if missing:
        verdict = UNTESTED
    if experiment.get("images"):
        wrong = _wrong_images(tuple(experiment["images"]), finished)
        sentences.append(wrong or "the images have the claimed size and are scaled to their maximum")
        verdict = REFUTED if wrong else verdict
    return {"claim": experiment["claim"], "verdict": verdict, "sentences": sentences}


def signatures(finished: Sequence[FoldRun]) -> list[dict[str, Any]]:
    """Return the known failures that were found on the validation subjects, with fold and seed."""
    return [
        {"fold": item.fold, "seed": item.seed, **row}
        for item in finished
        for row in item.selection().get("signatures", [])
        if row["found"]
    ]


def _of_all(made: Sequence[Comparison]) -> str:
    if any(item.verdict == "worse" for item in made):
        return REFUTED
    return CONFIRMED if all(item.verdict == "better" for item in made) else NOISE


def _of_any(made: Sequence[Comparison]) -> str:
    if made and all(item.verdict == "worse" for item in made):
        return REFUTED
    better = [item for item in made if item.verdict == "better" and item.p < LEVEL / len(made)]
    return CONFIRMED if better else NOISE


def _wrong_images(size: tuple[int, ...], finished: Sequence[FoldRun]) -> str:
    """Say which fold has images of another size or scale; empty when none has."""
    for item in finished:
        made = item.preprocessing().get("topology")
        if made is None:
            return f"fold {item.fold}: no images were made"
        found = (tuple(made["size"]), made["normalise"])
        if found != (size, "max"):
            return f"fold {item.fold}: images of {found[0]}, normalise = {found[1]!r}, expected {size}, 'max'"
    return ""
