"""Why mixup: distances and confusion of teachers whose features and answers are known."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from test_run_training import recipe, windows
from torch import Tensor, nn

from topokd_edge.distill.confusion import LESSER
from topokd_edge.distill.mixup import Mix
from topokd_edge.distill.run_training import start_run, train_run
from topokd_edge.errors import BadInputError
from topokd_edge.evaluate.why import View, measure, nearest, softening, why
from topokd_edge.files import read_json, write_json
from topokd_edge.models.wrn import WideResNet
from topokd_edge.run import Run

Y = torch.tensor([0, 1, 0, 1, 0, 1])
POINTS = torch.tensor([[0.0, 0.0], [8.0, 0.0], [0.0, 1.0], [8.0, 1.0], [0.0, 2.0], [8.0, 2.0]])
FIT, FIRST, SECOND = torch.tensor([0, 1]), torch.tensor([2, 3, 4]), torch.tensor([3, 2, 5])


class OnAPlane(nn.Module):
    """Features are the input; of two classes, the second is as probable as the first coordinate is far."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        p = self.head(x)[:, 0] / 8
        return torch.stack([1 - p, p], dim=1).clamp(min=1e-30).log()


def measured(temperature: float = 1.0) -> dict[str, list[float]]:
    def mixed(one: Tensor, two: Tensor, share: float) -> Tensor:
        return Mix.pairs(POINTS[one], POINTS[two], torch.full((len(one),), 1 - share))

    view = View(cast(WideResNet, OnAPlane()), lambda rows: POINTS[rows], mixed, temperature)
    return measure(view, Y, FIT, (FIRST, SECOND))


def test_distances_are_those_of_the_plane() -> None:
    # Clean windows are 1, 1 and 2 away from the nearest training window; mixed by m, 8 m further along.
    found = measured()
    for share, ratio in zip(found["lesser_share"], found["distance"], strict=True):
        assert ratio == pytest.approx(np.hypot(8 * share, 1.0), rel=1e-5)
    np.testing.assert_allclose(found["distance"], found["distance_linear"], rtol=1e-5)


def test_a_linear_teacher_is_not_confused() -> None:
    found = measured()
    assert max(found["excess_bits"]) == pytest.approx(0, abs=1e-6)
    assert found["apart_bits"][-1] == pytest.approx(1)
    np.testing.assert_allclose(found["confidence"], [1 - share for share in LESSER], atol=1e-6)
    np.testing.assert_allclose(found["confidence_linear"], found["confidence"], atol=1e-6)
    assert (found["accuracy"], found["alpha"], found["share"]) == (1.0, 1.0, 1.0)


def test_softened_answers_are_less_sure() -> None:
    assert measured(50.0)["confidence"][0] < 0.9 < measured()["confidence"][0]
    assert measured(50.0)["distance"] == measured()["distance"]


@pytest.mark.parametrize("confidence", [0.3, 0.6, 0.9])
def test_softening_reaches_the_confidence(confidence: float) -> None:
    logits = np.random.default_rng(0).normal(0, 20, (200, 4))
    temperature = softening(logits, confidence)
    p = np.exp(logits / temperature)
    assert (p / p.sum(1, keepdims=True)).max(1).mean() == pytest.approx(confidence, abs=1e-6)
    assert softening(logits, 1.0) == 1.0


def test_nearest_is_the_least_distance() -> None:
    x, known = np.random.default_rng(0).normal(size=(2, 30, 5))
    by_hand = [min(float(np.linalg.norm(row - other)) for other in known) for row in x]
    np.testing.assert_allclose(nearest(x, known), by_hand, rtol=1e-6)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    place = tmp_path_factory.mktemp("why")
    windows().save(place / "w")
    made = start_run(place / "r", place / "w", recipe())
    train_run(made, recipe(), device="cpu", only_folds=[1])
    return made


def test_a_run_is_measured_with_its_own_teachers(run: Run, tmp_path: Path) -> None:
    found = why(run, run.fold_run(1, 0), tmp_path)
    sure = {name: found[name]["confidence"][0] for name in ("signal", "topology")}
    softened = f"{max(sure, key=sure.__getitem__)}-softened"
    assert list(found) == ["signal", "topology", "redrawn", softened]
    for made in found.values():  # stored images are rounded to half precision, redrawn ones are not
        assert made["distance"][0] == pytest.approx(1, abs=1e-3)
        assert all(np.isfinite(made[key]).all() for key in ("distance", "excess_bits", "confidence"))
        assert made["excess_bits"][0] == pytest.approx(0, abs=1e-6)
    assert found["redrawn"]["excess_bits"] != found["topology"]["excess_bits"]
    assert found[softened]["confidence"][0] == pytest.approx(min(sure.values()), abs=1e-4)


def test_other_inputs_than_those_of_the_training_are_refused(run: Run, tmp_path: Path) -> None:
    path = run.fold_run(1, 0).folder / "preprocessing.json"
    made = read_json(path)
    write_json(path, {**made, "signal": {**made["signal"], "mean": [0.0, 0.0]}})
    with pytest.raises(BadInputError, match="cannot be made again"):
        why(run, run.fold_run(1, 0), tmp_path)
    write_json(path, made)
