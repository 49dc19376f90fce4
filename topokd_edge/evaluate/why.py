"""Why mixup suits one teacher better than the other: how far mixed windows lie from what it has seen.

For the windows of the validation subjects, mixed in pairs: the distance to the nearest training window in
the space that the teacher's last layer reads, its confusion, and how sure it is. The topology teacher is
also asked about images drawn of mixed signals: the same pairs, mixed before the image is made.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from topokd_edge.errors import BadInputError
from topokd_edge.evaluate.metrics import softmax
from topokd_edge.run import FoldRun, Run

if TYPE_CHECKING:
    from torch import Tensor

    from topokd_edge.distill.preprocessing import Modalities
    from topokd_edge.models.wrn import WideResNet

Numbers = npt.NDArray[np.float64]
_BATCH = 128


@dataclass(frozen=True)
class View:
    """A teacher, and how windows are shown to it.

    Attributes
    ----------
    model
        In evaluation mode.
    clean
        Makes its input of window indices.
    mixed
        Makes its input of two windows each and the share of the second.
    temperature
        That its answers are softened by.
    """

    model: WideResNet
    clean: Callable[[Tensor], Tensor]
    mixed: Callable[[Tensor, Tensor, float], Tensor]
    temperature: float = 1.0


def why(run: Run, place: FoldRun, cache: Path) -> dict[str, dict[str, Any]]:
    """Measure both teachers of a fold; see `measure`.

    Parameters
    ----------
    run, place
        The run, and the fold and seed in it.
    cache
        Folder for persistence images.

    Returns
    -------
    dict
        `signal`, `topology`; `redrawn`, the topology teacher on images of mixed signals; and, as
        `signal-softened` or `topology-softened`, the surer teacher at the `temperature` at which it is as
        sure of clean windows as the other.

    Raises
    ------
    BadInputError
        When the fold has no validation subjects or not both teachers, or its inputs cannot be made again.
    """
    import torch

    from topokd_edge.distill.checkpoint import load_model
    from topokd_edge.distill.confusion import draw_pairs
    from topokd_edge.distill.trainer import predict

    entry = run.fold(place.fold)
    if not entry["validation"]:
        raise BadInputError(f"{run.folder}: fold {place.fold} has no validation subjects")
    views, made = _inputs(run, place, cache)
    models = {name: load_model(place.model_folder(f"teacher.{name}"))[0] for name in ("signal", "topology")}
    windows = run.windows()
    fit, judges = (torch.from_numpy(windows.of_subjects(entry[key])) for key in ("fit", "validation"))
    pairs = draw_pairs(judges, (place.seed, place.fold))
    shown = _views(models, views, made)
    found = {name: measure(view, views.y, fit, pairs) for name, view in shown.items()}
    lesser, surer = sorted(models, key=lambda name: float(found[name]["confidence"][0]))
    inputs = views.signals if surer == "signal" or views.images is None else views.images
    logits = predict(models[surer], inputs, pairs[0])
    temperature = softening(logits.double().cpu().numpy(), found[lesser]["confidence"][0])
    softened = measure(replace(shown[surer], temperature=temperature), views.y, fit, pairs)
    return {**found, f"{surer}-softened": {"temperature": temperature, **softened}}


def softening(logits: Numbers, confidence: float) -> float:
    """Return the temperature, from 1 to 1000, at which the mean largest probability is `confidence`."""
    from scipy.optimize import brentq

    def surplus(log_t: float) -> float:
        return float(softmax(logits / np.exp(log_t)).max(1).mean()) - confidence

    return float(np.exp(brentq(surplus, 0.0, np.log(1000.0)))) if surplus(0.0) > 0 else 1.0


def measure(view: View, y: Tensor, fit: Tensor, pairs: tuple[Tensor, Tensor]) -> dict[str, Any]:
    """Measure one teacher at each share of the second window.

    Parameters
    ----------
    view
        The teacher.
    y
        Class of every window.
    fit
        Indices of the windows it was trained on.
    pairs
        Indices of first and second windows.

    Returns
    -------
    dict
        `accuracy` on the clean first windows, `lesser_share`, and for each share:
        `distance`: median distance to the nearest training window, over that of clean first windows;
        `distance_linear`: the same if the space were linear, of the mixture of both windows' features;
        `excess_bits`, and its quartiles `excess_quartiles`: see `topokd_edge.distill.confusion`;
        `apart_bits`: mean information of the mixture about which window it came from, which is how much
        excess there would be if the answer named one of the two;
        `confidence`, `confidence_linear`: mean largest probability, of the answer and of the mixture of
        clean answers. Of all shares, `alpha` and `share`: the adaptive mixup with the default budget.
    """
    import torch

    from topokd_edge.distill.confusion import LESSER, Confusion, divergence, entropy_bits
    from topokd_edge.distill.method import Distilling

    known = np.concatenate([_ask(view, view.clean(part))[0] for part in torch.split(fit, _BATCH)])
    (near, p), (far, q) = (_of_clean(view, side) for side in pairs)
    clean = float(np.median(nearest(near, known)))
    found: dict[str, list[Any]] = {}
    excesses = []
    for share in LESSER:
        parts = [
            _ask(view, view.mixed(one, two, share))
            for one, two in zip(*(torch.split(side, _BATCH) for side in pairs), strict=True)
        ]
        features, answers = (np.concatenate(part) for part in zip(*parts, strict=True))
        linear = (1 - share) * p + share * q
        excess = divergence(answers, linear)
        excesses.append(excess)
        apart = entropy_bits(linear) - (1 - share) * entropy_bits(p) - share * entropy_bits(q)
        row = {
            "distance": float(np.median(nearest(features, known))) / clean,
            "distance_linear": float(np.median(nearest((1 - share) * near + share * far, known))) / clean,
            "excess_bits": float(excess.mean()),
            "excess_quartiles": np.percentile(excess, (25, 75)).tolist(),
            "apart_bits": float(apart.mean()),
            "confidence": float(answers.max(1).mean()),
            "confidence_linear": float(linear.max(1).mean()),
        }
        for key, value in row.items():
            found.setdefault(key, []).append(value)
    right = p.argmax(1) == y[pairs[0]].cpu().numpy()
    strength = Confusion(np.stack(excesses, axis=1)).strength(Distilling().confusion_budget)
    return {
        "accuracy": float(right.mean()),
        "pairs": len(p),
        "lesser_share": list(LESSER),
        **found,
        **strength._asdict(),
    }


def nearest(x: Numbers, known: Numbers) -> Numbers:
    """Return the Euclidean distance of each row to the nearest row of `known`, shape (len(x),)."""
    from sklearn.neighbors import NearestNeighbors

    distance, _ = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(known).kneighbors(x)
    return np.asarray(distance[:, 0], np.float64)


def _of_clean(view: View, windows: Tensor) -> tuple[Numbers, Numbers]:
    """Return features and answers of clean windows."""
    import torch

    features, answers = zip(
        *(_ask(view, view.clean(part)) for part in torch.split(windows, _BATCH)), strict=True
    )
    return np.concatenate(features), np.concatenate(answers)


def _ask(view: View, x: Tensor) -> tuple[Numbers, Numbers]:
    """Return what the last layer reads, and the class probabilities."""
    import torch

    read: list[Tensor] = []
    hook = view.model.head.register_forward_pre_hook(lambda _, args: read.append(args[0]))
    try:
        with torch.no_grad():
            answers = (view.model(x).double() / view.temperature).softmax(1)
    finally:
        hook.remove()
    return read[0].double().cpu().numpy(), answers.cpu().numpy()


def _inputs(run: Run, place: FoldRun, cache: Path) -> tuple[Modalities, dict[str, Any]]:
    """Make the fold's inputs again, as they were made for its training."""
    import torch

    from topokd_edge.data.split import Fold
    from topokd_edge.distill.preprocessing import fit_and_apply
    from topokd_edge.distill.recipe import parse_recipe
    from topokd_edge.progress import silent

    path = run.folder / "recipe.toml"
    recipe = parse_recipe(path.read_text("utf-8"), str(path))
    if "topology" not in recipe.student.needs() or "signal" not in recipe.student.needs():
        raise BadInputError(f"{run.folder}: its recipe has not both teachers")
    entry = run.fold(place.fold)
    fold = Fold(place.fold, *(tuple(entry[key]) for key in ("test", "validation", "fit")))
    views, made = fit_and_apply(
        run.windows(),
        fold,
        recipe.topology,
        cache,
        torch.device("cpu"),
        silent,
        spread=recipe.scaling,
        per=recipe.normalisation,
        student=recipe.student.channels,
    )
    if json.loads(json.dumps(made)) != place.preprocessing():
        raise BadInputError(
            f"{place.folder}: its inputs cannot be made again as they were",
            hint="use the version of topokd-edge that trained it; see environment.json",
        )
    return views, made


def _views(models: dict[str, WideResNet], views: Modalities, made: dict[str, Any]) -> dict[str, View]:
    """Return the signal teacher, the topology teacher, and that on images of mixed signals."""
    import torch

    from topokd_edge.bundle import Normalisation
    from topokd_edge.distill.mixup import Mix
    from topokd_edge.distill.seen import Redraw
    from topokd_edge.topology.params import ImageParams

    signals, images = views.signals, views.images
    assert images is not None, "made for the topology teacher"
    scale = Normalisation(made["signal"]["mean"], made["signal"]["std"])
    image = Normalisation(made["image"]["mean"], made["image"]["std"])
    redraw = Redraw(ImageParams.from_dict(made["topology"]), scale, image)

    def signal(rows: Tensor) -> Tensor:
        return signals[rows].float()

    def drawn(rows: Tensor) -> Tensor:
        return images[rows].float()

    def mixing(inputs: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor, float], Tensor]:
        return lambda one, two, share: Mix.pairs(inputs(one), inputs(two), torch.full((len(one),), 1 - share))

    mixed = mixing(signal)
    return {
        "signal": View(models["signal"], signal, mixed),
        "topology": View(models["topology"], drawn, mixing(drawn)),
        "redrawn": View(models["topology"], drawn, lambda one, two, share: redraw(mixed(one, two, share))),
    }
