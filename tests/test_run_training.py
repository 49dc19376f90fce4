"""A whole run: its layout, whom it learns from, and that an interrupted one ends in the same predictions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_training import interrupt_at, waves

from topokd_edge.data.split import Fold
from topokd_edge.data.windowset import WindowSet
from topokd_edge.distill import fold as fold_module
from topokd_edge.distill.checkpoint import load_model
from topokd_edge.distill.preprocessing import fit_and_apply
from topokd_edge.distill.recipe import Recipe, Topology, parse_recipe
from topokd_edge.distill.run_training import choose_device, continue_run, start_run, train_run
from topokd_edge.errors import BadInputError, CheckFailedError, MissingError, UsageError
from topokd_edge.files import read_json
from topokd_edge.models.wrn import WideResNet
from topokd_edge.progress import silent
from topokd_edge.run import DISTILLED_STUDENT, SCRATCH_STUDENT, TRAINED, FoldRun, Run

RECIPE = """
name = "tiny"
split = { folds = 3, validation_subjects = 1 }
topology = { size = [16, 16] }
signal_teacher = { network = { depth = 10 }, training = { epochs = 1, batch_size = 16 } }
topology_teacher = { network = { depth = 10, stem_stride = 2 }, training = { epochs = 2, batch_size = 16 } }

[student]
network = { depth = 10 }
scratch = { epochs = 1, batch_size = 16 }
distilled = { epochs = 1, batch_size = 16, learning_rate = 0.02 }
"""
TWO_CANDIDATES = "student.candidates=[{alpha_signal = 0.0, alpha_topology = 0.0}, {tau = 0.5}]"
CPU = torch.device("cpu")


def recipe(*overrides: str) -> Recipe:
    return parse_recipe(RECIPE, "tiny", overrides)


def windows(change: Callable[[np.ndarray, np.ndarray], None] | None = None) -> WindowSet:
    """Six subjects, three classes, four windows of each: waves of three speeds, larger by subject."""
    return waves(6, 4, change)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "w"
    windows().save(path)
    return path


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of three folds that was never interrupted."""
    started = start_run(tmp_path_factory.mktemp("run") / "r", data, recipe(TWO_CANDIDATES))
    train_run(started, recipe(TWO_CANDIDATES), device="cpu")
    return started


def said(run: Run, fold: int = 1) -> dict[str, bytes]:
    """The logits of every model on the held-out windows, and its weights, bit by bit."""
    place = run.fold_run(fold, 0)
    found = {}
    for model in TRAINED:
        found[model] = place.predictions(model).logits.tobytes()
        found[f"{model} weights"] = (place.model_folder(model) / "checkpoint.safetensors").read_bytes()
    return found


def accuracy_on(subjects: list[str], model: WideResNet, place: FoldRun) -> float:
    everything, scale = windows(), place.preprocessing()["signal"]
    index = everything.of_subjects(subjects)
    mean, std = (np.array(scale[key], np.float32)[:, None] for key in ("mean", "std"))
    with torch.no_grad():
        answers = model(torch.from_numpy((everything.x[index] - mean) / std)).argmax(1).numpy()
    return float((answers == everything.y[index]).mean())


def test_layout(run: Run, data: Path) -> None:
    assert {path.name for path in run.folder.iterdir()} == {
        *("recipe.toml", "environment.json", "data.json", "folds.json", "cache"),
        *("fold-1", "fold-2", "fold-3"),
    }
    assert list((run.folder / "cache").iterdir()) == []
    assert parse_recipe((run.folder / "recipe.toml").read_text("utf-8"), "again") == recipe(TWO_CANDIDATES)
    assert run.data["content_hash"] == WindowSet.open(data).content_hash
    assert run.environment["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert [(place.fold, place.seed) for place in run.finished()] == [(1, 0), (2, 0), (3, 0)]
    for place in run.finished():
        assert {path.name for path in place.folder.iterdir()} == {
            "preprocessing.json",
            "inputs.json",
            "selection.json",
            *TRAINED,
        }
        for model in TRAINED:
            found = {path.name for path in place.model_folder(model).iterdir() if path.is_file()}
            assert found == {"checkpoint.safetensors", "checkpoint.json", "metrics.jsonl", "predictions.npz"}
    assert not list(run.folder.rglob("*.part"))


def test_every_network_has_its_own_shape_and_training(data: Path, tmp_path: Path) -> None:
    """None of the values is a default, and no two networks have the same."""
    asked = recipe(
        "topology.size=[8, 8]",
        "signal_teacher.network={depth=10, width=2}",
        "topology_teacher.network={depth=16, width=1, stem_stride=2}",
        "student.network={depth=10, width=3, stem_stride=2}",
        "student.scratch.epochs=3",
        "student.distilled.epochs=4",
    )
    run = start_run(tmp_path / "r", data, asked)
    train_run(run, asked, device="cpu", only_folds=[1])
    found = {}
    for name in TRAINED:
        folder = run.fold_run(1, 0).model_folder(name)
        spec = load_model(folder)[0].spec
        epochs = len((folder / "metrics.jsonl").read_text("utf-8").splitlines())
        found[name] = (spec.dims, spec.depth, spec.width, spec.stem_stride, epochs)
    assert found == {
        "teacher.signal": (1, 10, 2, 1, 1),
        "teacher.topology": (2, 16, 1, 2, 2),
        SCRATCH_STUDENT: (1, 10, 3, 2, 3),
        DISTILLED_STUDENT: (1, 10, 3, 2, 4),
    }


def test_every_subject_is_predicted_once_and_only_where_held_out(run: Run) -> None:
    everything = run.windows()
    tested = []
    for place, fold in zip(run.finished(), run.folds, strict=True):
        for model in TRAINED:
            found = place.predictions(model)
            assert set(everything.subject[found.window].tolist()) == set(fold["test"])
            assert not set(fold["test"]) & {*fold["fit"], *fold["validation"]}
            np.testing.assert_array_equal(found.y, everything.y[found.window])
            assert found.logits.shape == (len(found.window), 3)
            assert found.logits.dtype == np.float32
            assert np.isfinite(found.logits).all()
        tested += place.predictions(DISTILLED_STUDENT).window.tolist()
    assert sorted(tested) == list(range(len(everything)))


def test_predictions_follow_from_checkpoint_and_preprocessing(run: Run) -> None:
    # What a device does later: scale the raw window by the stored numbers, ask the stored network.
    place = run.fold_run(2, 0)
    scale = place.preprocessing()["signal"]
    model, meta = load_model(place.model_folder(DISTILLED_STUDENT))
    found = place.predictions(DISTILLED_STUDENT)
    x = np.asarray(run.windows().x)[found.window]
    mean, std = (np.array(scale[key], np.float32)[:, None] for key in ("mean", "std"))
    with torch.no_grad():
        logits = model(torch.from_numpy((x - mean) / std)).numpy()
    np.testing.assert_allclose(logits, found.logits, rtol=1e-4, atol=1e-4)
    assert meta["input"] == [2, 32]
    assert meta["params"] == sum(parameter.numel() for parameter in model.parameters())


def test_scaling_is_that_of_the_fit_subjects(run: Run) -> None:
    everything = run.windows()
    for place, fold in zip(run.finished(), run.folds, strict=True):
        x = np.asarray(everything.x[everything.of_subjects(fold["fit"])], np.float64)
        scale = place.preprocessing()["signal"]
        np.testing.assert_allclose(scale["mean"], x.mean((0, 2)), rtol=1e-9)
        np.testing.assert_allclose(scale["std"], x.std((0, 2)), rtol=1e-9)


def test_the_candidate_is_chosen_on_validation_subjects(run: Run) -> None:
    for place, fold in zip(run.finished(), run.folds, strict=True):
        selection = read_json(place.folder / "selection.json")
        accuracies = [row["validation_accuracy"] for row in selection["candidates"]]
        assert len(accuracies) == 2
        assert selection["chosen"] == 1 + accuracies.index(max(accuracies))
        assert selection["on_subjects"] == fold["validation"]
        assert [row["settings"]["tau"] for row in selection["candidates"]] == [0.7, 0.5]
        final = place.model_folder(DISTILLED_STUDENT)
        for number, accuracy in enumerate(accuracies, start=1):
            model, _ = load_model(final / f"candidate-{number}")
            assert accuracy_on(fold["validation"], model, place) == pytest.approx(accuracy)
        chosen = final / f"candidate-{selection['chosen']}"
        for name in ("checkpoint.safetensors", "metrics.jsonl"):
            assert (final / name).read_bytes() == (chosen / name).read_bytes()
        assert set(selection["epochs"]) == set(TRAINED)


def test_whoever_is_tested_changes_nothing_that_is_learned(run: Run, tmp_path: Path) -> None:
    tested = [int(subject) for subject in run.folds[0]["test"]]

    def change(x: np.ndarray, subject: np.ndarray) -> None:
        x[np.isin(subject, tested)] *= 9

    windows(change).save(tmp_path / "w")
    other = start_run(tmp_path / "r", tmp_path / "w", recipe(TWO_CANDIDATES))
    train_run(other, recipe(TWO_CANDIDATES), only_folds=[1], device="cpu")
    mine, theirs = run.fold_run(1, 0), other.fold_run(1, 0)
    assert theirs.preprocessing() == mine.preprocessing()
    before, after = said(run), said(other)
    for model in TRAINED:
        assert after[f"{model} weights"] == before[f"{model} weights"]
        assert after[model] != before[model]


@pytest.mark.parametrize("call", [1, 2, 4, 5, 6, 7, 9, 11, 12])
def test_an_interrupted_run_ends_in_the_same_predictions(
    call: int, run: Run, data: Path, tmp_path: Path
) -> None:
    # Told of the images and where they lie first, then before every epoch and at the end of each of the
    # five trainings.
    out = tmp_path / "r"
    with pytest.raises(KeyboardInterrupt):
        train_run(
            start_run(out, data, recipe(TWO_CANDIDATES)),
            recipe(TWO_CANDIDATES),
            only_folds=[1],
            device="cpu",
            progress=interrupt_at(call),
        )
    assert Run.open(out).finished() == []
    train_run(
        continue_run(out, data, recipe(TWO_CANDIDATES)), recipe(TWO_CANDIDATES), only_folds=[1], device="cpu"
    )
    assert said(Run.open(out)) == said(run)


def test_interrupted_in_the_middle_of_the_second_model(
    run: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "r"
    forward, calls = WideResNet.forward, iter(range(1000))

    def break_off(self: WideResNet, x: torch.Tensor) -> torch.Tensor:
        if self.spec.dims == 2 and self.training and next(calls) == 1:
            raise KeyboardInterrupt
        return forward(self, x)

    monkeypatch.setattr(WideResNet, "forward", break_off)
    with pytest.raises(KeyboardInterrupt):
        train_run(
            start_run(out, data, recipe(TWO_CANDIDATES)), recipe(TWO_CANDIDATES), only_folds=[1], device="cpu"
        )
    monkeypatch.undo()
    train_run(
        continue_run(out, data, recipe(TWO_CANDIDATES)), recipe(TWO_CANDIDATES), only_folds=[1], device="cpu"
    )
    assert said(Run.open(out)) == said(run)


def test_a_finished_run_is_not_trained_again(run: Run, data: Path) -> None:
    told: list[str] = []
    before = said(run)
    train_run(
        continue_run(run.folder, data, recipe(TWO_CANDIDATES)),
        recipe(TWO_CANDIDATES),
        device="cpu",
        progress=lambda task, done, total, note="": told.append(task),
    )
    assert told == []
    assert said(run) == before


def test_every_fold_and_seed_is_handed_on(data: Path, tmp_path: Path) -> None:
    two_seeds = recipe("seeds=[0, 5]")
    handed: list[tuple[int, int]] = []
    train_run(
        start_run(tmp_path / "r", data, two_seeds),
        two_seeds,
        only_folds=[3],
        device="cpu",
        after_fold=lambda _, place: handed.append((place.fold, place.seed)),
    )
    assert handed == [(3, 0), (3, 5)]
    one, other = (Run.open(tmp_path / "r").fold_run(3, seed) for seed in (0, 5))
    assert one.preprocessing() == other.preprocessing()
    logits = [place.predictions(SCRATCH_STUDENT).logits for place in (one, other)]
    assert not np.array_equal(*logits)


def test_seeds_are_added_to_a_run(data: Path, tmp_path: Path) -> None:
    at_once, one, both = tmp_path / "at-once", tmp_path / "grown", recipe("seeds=[0, 5]")
    train_run(start_run(at_once, data, both), both, only_folds=[3], device="cpu")
    train_run(start_run(one, data, recipe()), recipe(), only_folds=[3], device="cpu")
    with pytest.raises(BadInputError):
        continue_run(one, data, recipe("seeds=[5]"))
    with pytest.raises(BadInputError):
        continue_run(one, data, recipe("seeds=[0, 5]", "student.distilling.tau=0.6"))
    handed: list[int] = []
    train_run(
        continue_run(one, data, both),
        both,
        only_folds=[3],
        device="cpu",
        after_fold=lambda _, place: handed.append(place.seed),
    )
    assert handed == [0, 5]
    assert (one / "recipe.toml").read_bytes() == (at_once / "recipe.toml").read_bytes()
    for seed in (0, 5):
        grown, made = (Run.open(folder).fold_run(3, seed) for folder in (one, at_once))
        for model in TRAINED:
            assert np.array_equal(grown.predictions(model).logits, made.predictions(model).logits)


@pytest.mark.parametrize("annealing", [True, False])
def test_annealing_starts_from_the_student_trained_from_scratch(
    annealing: bool, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began: dict[str, dict[str, torch.Tensor]] = {}
    train = fold_module.train

    def watch(task: Any, *args: Any, **options: Any) -> WideResNet:
        began[options["name"]] = {k: v.clone() for k, v in task.model.state_dict().items()}
        return train(task, *args, **options)

    monkeypatch.setattr(fold_module, "train", watch)
    chosen = recipe(f"student.distilling.annealing={str(annealing).lower()}")
    run = start_run(tmp_path / "r", data, chosen)
    train_run(run, chosen, only_folds=[1], device="cpu")
    scratch, _ = load_model(run.fold_run(1, 0).model_folder(SCRATCH_STUDENT))
    state = began[f"fold 1, {DISTILLED_STUDENT}"]
    assert all(torch.equal(state[key], value) for key, value in scratch.state_dict().items()) == annealing
    untrained = began[f"fold 1, {SCRATCH_STUDENT}"]
    assert not any(torch.equal(state[key], untrained[key]) for key in state if "conv" in key)


def test_another_recipe_or_other_data_is_not_resumed(run: Run, data: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInputError) as caught:
        continue_run(run.folder, data, recipe(TWO_CANDIDATES, "student.distilling.tau=0.6"))
    assert len(caught.value.problems) == 1
    assert "recipe" in caught.value.problems[0]

    def change(x: np.ndarray, subject: np.ndarray) -> None:
        x[0, 0, 0] += 1

    windows(change).save(tmp_path / "w")
    with pytest.raises(BadInputError) as caught:
        continue_run(run.folder, tmp_path / "w", recipe())
    assert len(caught.value.problems) == 2
    assert str(tmp_path / "w") in str(caught.value)


def test_a_run_of_a_version_without_a_key_is_resumed(run: Run, data: Path) -> None:
    path = run.folder / "recipe.toml"
    written = path.read_text("utf-8")
    try:
        path.write_text(written.replace('activation = "pre"\n', ""), "utf-8")
        assert path.read_text("utf-8").count("\n") == written.count("\n") - 3
        continue_run(run.folder, data, recipe(TWO_CANDIDATES))
        with pytest.raises(BadInputError, match="cannot be resumed"):
            continue_run(run.folder, data, recipe(TWO_CANDIDATES, 'student.network.activation="post"'))
    finally:
        path.write_text(written, "utf-8")


def test_an_existing_folder_is_refused(data: Path, tmp_path: Path) -> None:
    kept = tmp_path / "r" / "kept.txt"
    kept.parent.mkdir()
    kept.write_text("mine", encoding="utf-8")
    with pytest.raises(BadInputError, match="already exists"):
        start_run(kept.parent, data, recipe())
    assert kept.read_text(encoding="utf-8") == "mine"
    start_run(kept.parent, data, recipe(), overwrite=True)
    assert not kept.exists()
    with pytest.raises(BadInputError, match="already exists"):
        start_run(kept.parent, data, recipe())


def test_no_folder_is_left_when_the_folds_are_impossible(data: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="only 6 subject"):
        start_run(tmp_path / "r", data, recipe("split.folds=7"))
    with pytest.raises(BadInputError, match="nobody is left to fit on"):
        start_run(tmp_path / "r", data, recipe("split.validation_subjects=4"))
    assert list(tmp_path.iterdir()) == []


def test_a_run_takes_leave_one_out_and_fixed_lists(data: Path, tmp_path: Path) -> None:
    one_out = 'split={kind = "leave-one-out", validation_subjects = 2}'
    folds = start_run(tmp_path / "a", data, recipe(one_out)).folds
    assert sorted(fold["test"] for fold in folds) == [[str(number)] for number in range(1, 7)]
    lists = '{test = ["1", "2"], validation = ["3"], fit = ["4", "5"]}'
    folds = start_run(tmp_path / "b", data, recipe(f'split={{kind = "fixed", fold = [{lists}]}}')).folds
    assert folds == [{"fold": 1, "test": ["1", "2"], "validation": ["3"], "fit": ["4", "5"]}]
    strange = lists.replace('"5"', '"9"')
    with pytest.raises(BadInputError, match="fold 1: fit: subject 9 has no window"):
        start_run(tmp_path / "c", data, recipe(f'split={{kind = "fixed", fold = [{strange}]}}'))
    assert not (tmp_path / "c").exists()


def test_a_run_refuses_one_person_under_two_names(tmp_path: Path) -> None:
    def copy(x: np.ndarray, subject: np.ndarray) -> None:
        x[subject == 5] = x[subject == 2]

    windows(copy).save(tmp_path / "w")
    with pytest.raises(CheckFailedError, match="subjects 2 and 5 share signals"):
        start_run(tmp_path / "r", tmp_path / "w", recipe())
    assert not (tmp_path / "r").exists()


def test_a_fold_that_does_not_exist(run: Run) -> None:
    with pytest.raises(UsageError, match="folds 1 to 3"):
        train_run(run, recipe(TWO_CANDIDATES), only_folds=[2, 4], device="cpu")


def test_devices() -> None:
    assert choose_device("cpu") == CPU
    with pytest.raises(UsageError, match="expected auto, cpu or cuda"):
        choose_device("gpu")
    if not torch.cuda.is_available():
        assert choose_device("auto") == CPU
        with pytest.raises(MissingError, match="no usable CUDA"):
            choose_device("cuda")


FOLD = Fold(1, test=("1", "2"), validation=("3",), fit=("4", "5", "6"))


def prepared(made: WindowSet, folder: Path) -> dict[str, Any]:
    return fit_and_apply(made, FOLD, Topology(size=(16, 16)), folder, CPU, silent)[1]


@pytest.mark.parametrize("value", [0.0, 1.0, -273.15])
def test_a_channel_that_does_not_vary_is_named(value: float, tmp_path: Path) -> None:
    def change(x: np.ndarray, subject: np.ndarray) -> None:
        x[subject > 3, 1] = value  # the others do vary

    with pytest.raises(BadInputError, match="channel acc_y does not vary over the fit subjects 4, 5, 6"):
        prepared(windows(change), tmp_path)


@pytest.mark.parametrize("unit", [1e-7, 1e4])
def test_the_unit_does_not_matter(unit: float, tmp_path: Path) -> None:
    made = windows()
    other = windows(lambda x, subject: np.multiply(x, np.float32(unit), out=x))
    usual, changed = prepared(made, tmp_path / "a"), prepared(other, tmp_path / "b")
    np.testing.assert_allclose(changed["signal"]["std"], np.array(usual["signal"]["std"]) * unit, rtol=1e-5)
    np.testing.assert_allclose(changed["image"]["mean"], usual["image"]["mean"], rtol=1e-2)


def test_both_views_are_standardised_over_the_fit_subjects(tmp_path: Path) -> None:
    made = windows()
    views, document = fit_and_apply(made, FOLD, Topology(size=(16, 16)), tmp_path, CPU, silent)
    fit = torch.from_numpy(made.of_subjects(FOLD.fit))
    assert views.images.shape == (len(made), 2, 16, 16)
    for view, tolerance in ((views.signals, 1e-5), (views.images, 2e-3)):
        axes = (0, *range(2, view.ndim))
        part = view[fit].double()
        np.testing.assert_allclose(part.mean(axes).numpy(), 0, atol=tolerance)
        np.testing.assert_allclose(part.std(axes, correction=0).numpy(), 1, atol=tolerance)
    assert json.loads(json.dumps(document, allow_nan=False))["topology"]["size"] == [16, 16]


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("subject", [5, 1])
def test_a_sample_that_is_no_number_is_refused(value: float, subject: int, tmp_path: Path) -> None:
    def change(x: np.ndarray, subjects: np.ndarray) -> None:
        x[np.flatnonzero(subjects == subject)[2], 1, 7] = value

    with pytest.raises(BadInputError, match=r"NaN|infinite|finite"):
        prepared(windows(change), tmp_path)


def test_with_no_validation_subjects_everyone_else_is_fitted_on(data: Path, tmp_path: Path) -> None:
    alone = recipe("split.validation_subjects=0")
    started = start_run(tmp_path / "r", data, alone)
    train_run(started, alone, only_folds=[1], device="cpu")
    (fold,) = [item for item in started.folds if item["fold"] == 1]
    assert sorted([*fold["test"], *fold["fit"]]) == list(windows().subjects)
    assert fold["validation"] == []
    selection = read_json(started.fold_run(1, 0).folder / "selection.json")
    assert selection["on_subjects"] == []
    assert not selection["optimistic"]
    assert selection["epochs"]["teacher.topology"] == 1


@pytest.mark.parametrize(
    ("override", "told"),
    [
        (TWO_CANDIDATES, "to choose among student.candidates"),
        ("student.distilling.alpha='adaptive'", "for alpha = 'adaptive' to measure confusion on"),
    ],
)
def test_without_validation_subjects_nothing_can_be_chosen(override: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        recipe("split.validation_subjects=0", override)
    assert list(caught.value.problems) == [
        f"split.validation_subjects = 0: nobody is left {told}"
        + ("; give one setting" if "candidates" in told else "")
    ]
