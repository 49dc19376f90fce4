"""Networks that learn together end as each does alone; interrupted, to the bit as without it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_training import SUBSET, TRAINING, distill_task, interrupt_at, network, problem, waves
from torch import Tensor

from topokd_edge.distill import fold
from topokd_edge.distill.checkpoint import META, WEIGHTS, load_model
from topokd_edge.distill.parts import Training
from topokd_edge.distill.recipe import parse_recipe
from topokd_edge.distill.run_training import start_run, train_run
from topokd_edge.distill.tasks import LabelTask, Question, answer, end
from topokd_edge.distill.together import Group, pays, train_together
from topokd_edge.distill.trainer import METRICS, STATE, Course, train

SEEDS = (7, 8, 9)
Tasks = Callable[[], Sequence[Any]]


def on_labels(dims: int = 1) -> list[LabelTask]:
    x, images, y = problem()
    return [LabelTask(network(seed, dims), x if dims == 1 else images, y) for seed in SEEDS]


def on_labels_with_mixup() -> list[LabelTask]:
    x, _, y = problem()
    return [LabelTask(network(seed), x, y, mixup_alpha=0.1 * seed) for seed in SEEDS]


def on_teachers() -> list[Any]:
    settings: list[dict[str, Any]] = [
        {"tau": 0.7, "alpha_signal": 0.2, "alpha_topology": 0.4},
        {"tau": 0.3, "alpha_signal": 1.0, "alpha_topology": 0.1, "similarity": 2.0},
        {"tau": 0.9, "alpha_signal": 0.0, "alpha_topology": 0.3, "temperature": 8.0},
    ]
    return [distill_task(network(seed), **each) for seed, each in zip(SEEDS, settings, strict=True)]


def courses(tasks: Sequence[Any], folder: Path, training: Training = TRAINING) -> list[Course]:
    return [
        Course(task, SUBSET, training, seed=seed, folder=folder / str(seed), meta={"params": 1}, name="t")
        for task, seed in zip(tasks, SEEDS, strict=True)
    ]


def weights(folder: Path) -> dict[str, Tensor]:
    return load_model(folder)[0].state_dict()


@pytest.mark.parametrize(
    "made", [on_labels, lambda: on_labels(2), on_labels_with_mixup, on_teachers],
    ids=["signals", "images", "mixup", "teachers"],
)  # fmt: skip
def test_together_as_alone(made: Tasks, tmp_path: Path) -> None:
    for task, seed in zip(made(), SEEDS, strict=True):
        train(task, SUBSET, TRAINING, seed=seed, folder=tmp_path / f"alone-{seed}", meta={"params": 1})
    train_together(courses(made(), tmp_path), TRAINING)
    for seed in SEEDS:
        alone, together = tmp_path / f"alone-{seed}", tmp_path / str(seed)
        assert (together / META).read_text() == (alone / META).read_text()
        assert sorted(path.name for path in together.iterdir()) == sorted([META, METRICS, WEIGHTS])
        expected = weights(alone)
        for key, value in weights(together).items():
            torch.testing.assert_close(value, expected[key], rtol=2e-3, atol=2e-4, msg=f"{seed} {key}")
        lines = [(folder / METRICS).read_text().splitlines() for folder in (alone, together)]
        for one, other in zip(*lines, strict=True):
            left, right = json.loads(one), json.loads(other)
            assert left.keys() == right.keys()
            for key in left.keys() - {"seconds"}:
                assert right[key] == pytest.approx(left[key], rel=1e-3, abs=1e-5), key


@pytest.mark.parametrize(("dims", "activation"), [(1, "pre"), (2, "pre"), (1, "post")])
def test_answers_and_gradients_of_a_step_are_those_of_each(dims: int, activation: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 6, 2, *(16,) * dims, dtype=torch.float64)
    weight = torch.randn(3, 6, 2, dtype=torch.float64)
    look = lambda features: [features.square().mean()]  # noqa: E731
    questions = [Question(x[0]), Question(x[1], look), Question(x[2])]
    models, copies = (
        [network(seed, dims, activation=activation).double().train() for seed in SEEDS] for _ in range(2)
    )
    found = Group(models).double()
    for model in models:
        model.train()
    said = found.train().answer(questions)
    expected = [answer(model, question) for model, question in zip(copies, questions, strict=True)]
    for (one, seen), (other, there) in zip(said, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(seen, there, rtol=1e-10, atol=1e-10)
    for answers in (said, expected):
        total = sum((weight[place] * logits).sum() for place, (logits, _) in enumerate(answers))
        (torch.as_tensor(total) + answers[1][1][0][0]).backward()  # type: ignore[no-untyped-call]
    for model, copied in zip(models, copies, strict=True):
        for (name, own), theirs in zip(model.named_parameters(), copied.parameters(), strict=True):
            torch.testing.assert_close(own.grad, theirs.grad, rtol=1e-8, atol=1e-8, msg=name)
        for key, value in model.state_dict().items():  # also what BatchNorm remembers
            torch.testing.assert_close(value, copied.state_dict()[key], rtol=1e-10, atol=1e-10, msg=key)


def files(folder: Path) -> list[bytes]:
    return [(folder / str(seed) / name).read_bytes() for seed in SEEDS for name in (WEIGHTS, META)]


@pytest.mark.parametrize("call", [1, 3])
def test_interrupted_and_resumed_to_the_same_bits(call: int, tmp_path: Path) -> None:
    train_together(courses(on_teachers(), tmp_path / "whole"), TRAINING)
    cut = tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        train_together(courses(on_teachers(), cut), TRAINING, progress=interrupt_at(call))
    train_together(courses(on_teachers(), cut), TRAINING)
    assert files(cut) == files(tmp_path / "whole")
    assert not [*cut.glob(f"*/{STATE}")]


def test_those_that_stand_at_different_epochs_go_on(tmp_path: Path) -> None:
    train_together(courses(on_labels(), tmp_path / "whole"), TRAINING)
    with pytest.raises(KeyboardInterrupt):
        train(
            on_labels()[1], SUBSET, TRAINING, seed=SEEDS[1], folder=tmp_path / str(SEEDS[1]), meta={},
            progress=interrupt_at(2),
        )  # fmt: skip
    models = train_together(courses(on_labels(), tmp_path), TRAINING)
    for seed, model in zip(SEEDS, models, strict=True):
        expected = weights(tmp_path / "whole" / str(seed))
        for key, value in model.state_dict().items():
            torch.testing.assert_close(value, expected[key], rtol=2e-3, atol=2e-4, msg=key)


def test_a_task_may_ask_only_once() -> None:
    def twice() -> Any:
        yield Question(torch.zeros(1))
        yield Question(torch.zeros(1))

    asking = twice()
    next(asking)
    with pytest.raises(RuntimeError, match="asked twice"):
        end(asking, (torch.zeros(1), []))


def test_it_is_for_a_gpu() -> None:
    assert pays(torch.device("cuda"))
    assert not pays(torch.device("cpu"))


def test_a_loss_that_is_not_finite_names_windows_of_its_own_network(tmp_path: Path) -> None:
    tasks = on_labels()
    x, _, y = problem()
    x[int(SUBSET.fit[4])] = np.nan
    tasks[1] = LabelTask(tasks[1].model, x, y)
    with pytest.raises(Exception, match="not finite in epoch 0") as caught:
        train_together(courses(tasks, tmp_path), TRAINING)
    assert str(int(SUBSET.fit[4])) in str(caught.value)
    assert not (tmp_path / str(SEEDS[1]) / META).exists()


RECIPE = """
name = "tiny"
split = { folds = 3, validation_subjects = 1 }
topology = { size = [16, 16] }
signal_teacher = { network = { depth = 10 }, training = { epochs = 1, batch_size = 16 } }
topology_teacher = { network = { depth = 10, stem_stride = 2 }, training = { epochs = 1, batch_size = 16 } }

[student]
network = { depth = 10 }
keep = "all"
scratch = { epochs = 1, batch_size = 16 }
distilled = { epochs = 2, batch_size = 16, learning_rate = 0.02 }
candidates = [
    { label = "one", tau = 0.5 },
    { label = "clean", alpha_signal = 0.0, alpha_topology = 0.0 },
    { label = "other", tau = 0.9, eta = 0.2 },
]
"""


def test_candidates_of_a_fold_that_learn_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waves(6, 4).save(tmp_path / "w")
    recipe, told = parse_recipe(RECIPE, "tiny"), []
    runs = {name: start_run(tmp_path / name, tmp_path / "w", recipe) for name in ("apart", "together")}
    train_run(runs["apart"], recipe, only_folds=[1], device="cpu")
    monkeypatch.setattr(fold, "pays", lambda device: True)
    train_run(
        runs["together"], recipe, only_folds=[1], device="cpu",
        progress=lambda name, done, total, note="": told.append(name),
    )  # fmt: skip
    # Two mixed batches a step are twice the rows of the candidate without mixup, which learns alone.
    assert {name for name in told if "at once" in name} == {"fold 1, student.distilled, 2 at once"}
    places = [run.fold_run(1, 0) for run in runs.values()]
    for model in ("student.one", "student.clean", "student.other", "student.distilled"):
        apart, together = (place.predictions(model).logits for place in places)
        np.testing.assert_allclose(together, apart, rtol=1e-3, atol=1e-3)
    one, other = (json.loads((place.folder / "selection.json").read_text()) for place in places)
    assert one["candidates"] == other["candidates"]
    assert one["chosen"] == other["chosen"]
