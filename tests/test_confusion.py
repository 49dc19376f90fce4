"""Adaptive mixup: linear teachers get the strongest, teachers that any mixing confuses none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_training import interrupt_at
from scipy import integrate, stats
from scipy.spatial.distance import jensenshannon
from test_run_training import recipe, said, windows
from torch import Tensor, nn

from topokd_edge.distill.confusion import (
    LARGEST_ALPHA,
    LESSER,
    PAIRS,
    Confusion,
    adapt,
    divergence,
    draw_pairs,
    measure,
)
from topokd_edge.distill.method import Distilling, Strength
from topokd_edge.distill.run_training import continue_run, start_run, train_run
from topokd_edge.errors import UsageError
from topokd_edge.files import read_json
from topokd_edge.models.wrn import WideResNet
from topokd_edge.run import Run

CLASSES = 5
ADAPTIVE = "student.distilling.alpha='adaptive'"


class Says(nn.Module):
    """A teacher whose answer is a function of the class probabilities that its input holds."""

    def __init__(self, answer: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor) -> Tensor:
        return self.answer(x[:, 0]).clamp(min=1e-30).log()


def teacher(answer: Callable[[Tensor], Tensor]) -> WideResNet:
    return cast(WideResNet, Says(answer))


def as_it_is(p: Tensor) -> Tensor:
    return p


def the_larger(p: Tensor) -> Tensor:
    """Names the larger part, surely."""
    return nn.functional.one_hot(p.argmax(1), CLASSES).float()


def another(p: Tensor) -> Tensor:
    """Names a class that is neither's, at any mixing."""
    mixed = p.max(1).values < 0.9999
    return torch.where(mixed[:, None], torch.eye(CLASSES)[-1], p)


def half_another(p: Tensor) -> Tensor:
    """Names a class that is neither's once the lesser part is a third, if the larger one's is even."""
    mixed = (p.max(1).values < 0.67) & (p.argmax(1) % 2 == 0)
    return torch.where(mixed[:, None], torch.eye(CLASSES)[-1], p)


def of(answer: Callable[[Tensor], Tensor], *, classes: int = CLASSES - 1) -> Confusion:
    """Measured on windows that hold the classes 0 to `classes` - 1 surely, all pairs of different ones."""
    first, second = (at.ravel() for at in np.meshgrid(*[np.arange(classes)] * 2))
    unlike = first != second
    pairs = torch.from_numpy(first[unlike]), torch.from_numpy(second[unlike])
    return measure(teacher(answer), torch.eye(CLASSES)[:classes, None], pairs)


def test_a_linear_teacher_gets_the_largest_alpha() -> None:
    assert of(as_it_is).strength(1e-4) == (LARGEST_ALPHA, 1.0)


def test_a_teacher_that_any_mixing_confuses_gets_none() -> None:
    assert of(another).excess[:, 1:].min() == pytest.approx(1.0)
    strength = of(another).strength(0.05)
    assert strength == (0.0, 0.0)
    mixed = Distilling(alpha="adaptive").with_strengths({"signal": strength, "topology": strength})
    assert mixed.strengths() == (Strength(0.0, 0.0),) * 2


def test_whoever_names_the_larger_part_gets_the_published_alpha() -> None:
    # What the default budget rests on: 0.046 bits at 0.15 and 0.057 at 0.2, on pairs of unlike classes, by
    # the entropies of (1 - m, m) and of (1 - m / 2, m / 2), and by quadrature over Beta.
    def excess(m: float) -> float:
        return float(stats.entropy([1 - m / 2, m / 2], base=2) - stats.entropy([1 - m, m], base=2) / 2)

    for alpha, told in ((0.15, 0.046), (0.2, 0.057)):
        exact = 2 * integrate.quad(lambda m, a=alpha: excess(m) * stats.beta.pdf(m, a, a), 0, 0.5)[0]
        assert exact == pytest.approx(told, abs=5e-4)
        assert of(the_larger).expected(alpha) == pytest.approx(exact, abs=5e-4)
    alpha, share = of(the_larger).strength(Distilling().confusion_budget)
    assert 0.15 <= alpha <= 0.2
    assert share == 1.0


def test_teachers_differ() -> None:
    inputs = torch.eye(CLASSES)[:, None].repeat(8, 1, 1)
    teachers = {"signal": (teacher(the_larger), inputs), "topology": (teacher(half_another), inputs)}
    (found, fixed), told = adapt(
        [Distilling(alpha="adaptive"), Distilling()],
        teachers,  # type: ignore[arg-type]
        torch.arange(len(inputs)),
        (0, 1),
    )
    signal, topology = found.strengths()
    assert fixed == Distilling()
    assert signal.alpha != topology.alpha
    assert topology.share < signal.share == 1.0
    assert (found.alpha_signal, found.alpha_topology) == (signal.alpha, topology.alpha)
    assert set(told) == {"signal", "topology"}
    assert told["signal"]["excess_bits"][-1] == pytest.approx(0.311 * 0.8, abs=0.1)
    json.dumps(told)


def test_only_asked_teachers_are_measured() -> None:
    _, told = adapt([Distilling()], {}, torch.arange(4), (0, 1))
    assert told == {}


def test_a_larger_budget_never_mixes_less() -> None:
    alphas = [of(the_larger).strength(budget).alpha for budget in (0.001, 0.01, 0.05, 0.1, 0.2)]
    assert alphas == sorted(set(alphas))


def test_each_candidate_has_its_own_budget() -> None:
    inputs = torch.eye(CLASSES)[:, None].repeat(8, 1, 1)
    budgets = (0.001, 0.03, 0.2)
    settled, _ = adapt(
        [Distilling(teachers=("signal",), alpha="adaptive", confusion_budget=budget) for budget in budgets],
        {"signal": (teacher(the_larger), inputs)},  # type: ignore[dict-item]
        torch.arange(len(inputs)),
        (0, 1),
    )
    alphas = [item.alpha_signal for item in settled]
    assert alphas == sorted(set(alphas))


@pytest.mark.parametrize(("alpha", "lesser"), [(0.1, 0.0584), (0.15, 0.0813), (0.2, 0.1012), (1.0, 0.25)])
def test_the_expected_excess_is_the_mean_over_beta(alpha: float, lesser: float) -> None:
    # Excess that is twice the lesser share: twice the mean of min(k, 1 - k), here from a million draws.
    draws = np.random.default_rng(0).beta(alpha, alpha, 1_000_000)
    assert np.minimum(draws, 1 - draws).mean() == pytest.approx(lesser, abs=5e-4)
    rows = Confusion(np.array([[2 * m for m in LESSER], np.zeros(len(LESSER))]))
    assert rows.expected(alpha) == pytest.approx(lesser, abs=5e-5)
    assert Confusion(np.ones((1, len(LESSER)))).expected(alpha) == pytest.approx(1.0)


@given(st.lists(st.lists(st.floats(0, 1), min_size=4, max_size=4), min_size=2, max_size=2))
@settings(deadline=None, max_examples=100)
def test_the_divergence_is_that_of_scipy(rows: list[list[float]]) -> None:
    p, q = (np.array([row]) + 1e-9 for row in rows)
    p, q = p / p.sum(), q / q.sum()
    expected = jensenshannon(p[0], q[0], base=2)
    assert divergence(p, q)[0] == pytest.approx(0 if np.isnan(expected) else expected**2, abs=1e-7)


def test_pairs_are_blind_few_and_the_same_again() -> None:
    there = torch.arange(2000, 2000 + 3 * PAIRS)
    first, second = draw_pairs(there, (0, 1))
    assert len(first) == len(second) == PAIRS
    assert set(first.tolist()) == set(second.tolist()) <= set(there.tolist())
    assert len(set(first.tolist())) == PAIRS
    assert torch.equal(draw_pairs(there, (0, 1))[1], second)
    assert not torch.equal(draw_pairs(there, (0, 2))[1], second)
    assert len(draw_pairs(there[:7], (0, 1))[0]) == 7


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    """One fold of a run with adaptive mixup, never interrupted, and its data."""
    place = tmp_path_factory.mktemp("adaptive")
    windows().save(place / "w")
    run = start_run(place / "r", place / "w", recipe(ADAPTIVE))
    train_run(run, recipe(ADAPTIVE), device="cpu", only_folds=[1])
    return run, place / "w"


def found_in(run: Run) -> tuple[dict[str, float], dict[str, object]]:
    """Alphas and shares of the first fold, and the curves they rest on."""
    selection = run.fold_run(1, 0).selection()
    keys = ("alpha_signal", "alpha_topology", "mixup_share", "mixup_share_topology")
    return {key: selection["candidates"][0]["settings"][key] for key in keys}, selection["confusion"]


def test_alphas_are_written_down(made: tuple[Run, Path]) -> None:
    place = made[0].fold_run(1, 0)
    values, curves = found_in(made[0])
    assert set(curves) == {"signal", "topology"}
    lines = (place.model_folder("student.distilled") / "metrics.jsonl").read_text("utf-8").splitlines()
    for row in map(json.loads, lines):
        assert row["train_alpha_signal"] == pytest.approx(values["alpha_signal"], abs=1e-6)
        assert row["train_alpha_topology"] == pytest.approx(values["alpha_topology"], abs=1e-6)
        assert row["train_share_topology"] == pytest.approx(values["mixup_share_topology"], abs=1e-6)


def test_an_interrupted_run_ends_in_the_same_alphas_and_weights(
    made: tuple[Run, Path], tmp_path: Path
) -> None:
    whole, data = made
    run = start_run(tmp_path / "r", data, recipe(ADAPTIVE))
    shutil.copytree(whole.fold_run(1, 0).folder, run.fold_run(1, 0).folder)
    shutil.rmtree(run.fold_run(1, 0).model_folder("student.distilled"))
    (run.fold_run(1, 0).folder / "selection.json").unlink()
    with pytest.raises(KeyboardInterrupt):  # told: inputs, the student's first epoch, its end
        train_run(run, recipe(ADAPTIVE), device="cpu", only_folds=[1], progress=interrupt_at(2))
    assert not run.fold_run(1, 0).selection()
    again = continue_run(run.folder, data, recipe(ADAPTIVE))
    train_run(again, recipe(ADAPTIVE), device="cpu", only_folds=[1])
    assert found_in(again) == found_in(whole)
    assert said(again) == said(whole)


@pytest.mark.parametrize(("role", "same"), [("test", True), ("validation", False)])
def test_only_validation_subjects_decide(
    made: tuple[Run, Path], role: str, same: bool, tmp_path: Path
) -> None:
    whole, _ = made

    def change(x: np.ndarray, subject: np.ndarray) -> None:
        rows = np.isin(subject.astype(str), whole.folds[0][role])
        x[rows] = x[rows][:, :, ::-1] * -3 + 1

    windows(change).save(tmp_path / "w")
    run = start_run(tmp_path / "r", tmp_path / "w", recipe(ADAPTIVE))
    train_run(run, recipe(ADAPTIVE), device="cpu", only_folds=[1])
    assert read_json(run.folder / "folds.json") == whole.folds
    assert (found_in(run) == found_in(whole)) == same


@pytest.mark.parametrize(
    ("change", "told"),
    [("protocol=paper", "nested-subject"), ("student.distilling.teachers=[]", "expected a teacher")],
)
def test_what_cannot_be_measured_is_refused(change: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        recipe(ADAPTIVE, change)
    assert told in "\n".join(caught.value.problems)
