"""Methods in a whole run: who is trained, where students start, which are kept, whom the paper chooses on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from made_training import interrupt_at
from test_run_training import FOLD, TWO_CANDIDATES, data, recipe, said, windows

from topokd_edge.bundle import Bundle
from topokd_edge.cli._bench_plan import _teachers
from topokd_edge.cli.evaluate import evaluate
from topokd_edge.cli.train import train
from topokd_edge.distill import fold as fold_module
from topokd_edge.distill.checkpoint import load_model
from topokd_edge.distill.preprocessing import fit_and_apply
from topokd_edge.distill.recipe import Recipe, builtin_recipes, load_recipe
from topokd_edge.distill.run_training import continue_run, start_run, train_run
from topokd_edge.distill.signatures import Signature
from topokd_edge.errors import BadInputError
from topokd_edge.evaluate.run_table import evaluate_run
from topokd_edge.files import read_json
from topokd_edge.models.wrn import WideResNet
from topokd_edge.progress import silent
from topokd_edge.report.build import write_report
from topokd_edge.run import Run

__all__ = ["data"]

KEPT = (
    'student.keep="all"',
    'student.candidates=[{label = "one", teachers = ["signal"], annealing = false}, '
    '{label = "both", similarity = 10.0}, {label = "none", teachers = []}]',
    'experiments=[{claim = "two are better", pairs = [["student.one", "student.both"]], images = [16, 16]}]',
)


def trained(chosen: Recipe, data: Path, folder: Path, **options: Any) -> Run:
    run = start_run(folder / "r", data, chosen)
    train_run(run, chosen, only_folds=[1], device="cpu", **options)
    return run


@pytest.fixture(scope="module")
def kept(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One fold with three candidates that are all kept."""
    return trained(recipe(*KEPT), data, tmp_path_factory.mktemp("kept"))


def test_every_candidate_is_a_student_of_its_own(kept: Run) -> None:
    place = kept.fold_run(1, 0)
    students = ["student.one", "student.both", "student.none"]
    assert place.models() == [
        *("teacher.signal", "teacher.topology", "student.scratch"),
        *(*students, "student.distilled"),
    ]
    assert place.models() == recipe(*KEPT).models()
    selection = place.selection()
    best = students[selection["chosen"] - 1]
    for name in students:
        model, meta = load_model(place.model_folder(name))
        found = place.predictions(name)
        assert meta["chosen_on"] == "validation subjects"
        assert (found.logits.tobytes() == place.predictions("student.distilled").logits.tobytes()) == (
            name == best
        )
        scale = place.preprocessing()["signal"]
        mean, std = (np.array(scale[key], np.float32)[:, None] for key in ("mean", "std"))
        x = (np.asarray(kept.windows().x)[found.window] - mean) / std
        with torch.no_grad():
            np.testing.assert_allclose(model(torch.from_numpy(x)).numpy(), found.logits, rtol=1e-4, atol=1e-4)
    assert [row["settings"]["label"] for row in selection["candidates"]] == ["one", "both", "none"]


def test_an_evaluation_shows_and_compares_all(kept: Run) -> None:
    table = evaluate_run(kept)
    assert list(table["models"]) == kept.fold_run(1, 0).models()
    assert ("student.one", "student.both") in [(item["a"], item["b"]) for item in table["comparisons"]]
    (experiment,) = table["experiments"]
    assert experiment["claim"] == "two are better"
    assert experiment["verdict"] == "within noise"  # two subjects
    assert table["optimistic"] is None
    assert all(row["published_error"] is None for row in table["models"].values())
    targets = table["smoothness"]["targets"]
    assert set(targets["student.one"]) == {"labels", "signal"}
    assert set(targets["student.both"]) == {"labels", "signal", "topology"}
    assert set(targets["student.none"]) == {"labels"}
    assert set(table["smoothness"]["softened"]) == {"teacher.signal", "teacher.topology"}
    json.dumps(table, allow_nan=False)


def test_the_report_shows_claims_and_smoothness(kept: Run) -> None:
    write_report(kept, kept.folder / "before.html", overwrite=True)
    assert 'id="smoothness"' not in (kept.folder / "before.html").read_text("utf-8")
    kept.write("evaluation.json", evaluate_run(kept))
    write_report(kept, kept.folder / "report.html", overwrite=True)
    page = (kept.folder / "report.html").read_text("utf-8")
    assert '<span class="badge neutral">within noise</span> two are better' in page
    assert "student.both is within noise of student.one" in page
    assert 'id="smoothness"' in page
    assert "Targets: topology" in page


def test_kept_candidates_are_resumed_to_the_same_end(kept: Run, data: Path, tmp_path: Path) -> None:
    chosen = recipe(*KEPT)
    names = ("student.one", "student.both", "student.none")
    for call in (8, 10, 12):  # in or around each of the three distillations
        out = tmp_path / str(call)
        with pytest.raises(KeyboardInterrupt):
            trained(chosen, data, out, progress=interrupt_at(call))
        train_run(continue_run(out / "r", data, chosen), chosen, only_folds=[1], device="cpu")
        again = Run.open(out / "r")
        assert said(again) == said(kept)
        for name in names:
            one, other = (run.fold_run(1, 0).predictions(name) for run in (again, kept))
            assert one.logits.tobytes() == other.logits.tobytes()
        assert again.fold_run(1, 0).selection() == kept.fold_run(1, 0).selection()


@pytest.mark.parametrize(
    ("teachers", "absent"), [('["signal"]', "topology"), ('["topology"]', "signal"), ("[]", "both")]
)
def test_who_is_not_needed_is_not_trained(teachers: str, absent: str, data: Path, tmp_path: Path) -> None:
    run = trained(recipe(f"student.distilling.teachers={teachers}"), data, tmp_path)
    place = run.fold_run(1, 0)
    for name in ("signal", "topology"):
        assert place.model_folder(f"teacher.{name}").exists() == (absent not in (name, "both"))
    made = place.preprocessing()
    assert ("image" in made) == ("topology" in made) == (absent == "signal")
    assert place.selection()["epochs"].keys() >= {"student.scratch", "student.distilled"}
    table = evaluate_run(run)
    assert f"teacher.{absent}" not in table["models"]
    json.dumps(table, allow_nan=False)
    run.write("evaluation.json", table)
    missing = [item.why for item in write_report(run, tmp_path / "report.html")]
    assert any("no image was made" in why for why in missing) == (absent != "signal")


def test_a_teacher_that_was_not_trained_is_not_measured(data: Path, tmp_path: Path) -> None:
    run = trained(recipe("student.distilling.teachers=[]"), data, tmp_path)
    assert _teachers(cast(Bundle, None), run.fold_run(1, 0), tmp_path) == []


def test_a_teacher_that_one_candidate_needs_is_trained(kept: Run) -> None:
    assert load_recipe("demo").student.needs() == {"signal", "topology"}
    assert recipe('student.candidates=[{teachers=["signal"]}, {teachers=[]}]').student.needs() == {"signal"}
    inherits = 'student.candidates=[{teachers=["topology"], annealing_from="signal-teacher"}]'
    assert recipe(inherits).student.needs() == {"signal", "topology"}
    assert kept.fold_run(1, 0).model_folder("teacher.topology").exists()


def test_what_is_not_finite_is_refused_without_images_too(tmp_path: Path) -> None:
    def change(x: np.ndarray, subject: np.ndarray) -> None:
        x[np.flatnonzero(subject == 1)[2], 1, 7] = np.nan  # a subject that is tested

    with pytest.raises(BadInputError, match="NaN"):
        fit_and_apply(windows(change), FOLD, None, tmp_path, torch.device("cpu"), silent)


def test_a_student_may_inherit_from_the_signal_teacher(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began: dict[str, dict[str, torch.Tensor]] = {}
    train = fold_module.train

    def watch(task: Any, *args: Any, **options: Any) -> WideResNet:
        began[options["name"]] = {k: v.clone() for k, v in task.model.state_dict().items()}
        return train(task, *args, **options)

    monkeypatch.setattr(fold_module, "train", watch)
    run = trained(recipe('student.distilling.annealing_from="signal-teacher"'), data, tmp_path)
    teacher, _ = load_model(run.fold_run(1, 0).model_folder("teacher.signal"))
    state = began["fold 1, student.distilled"]
    for key, value in teacher.state_dict().items():
        assert torch.equal(state[key], value), key


def test_the_published_protocol_chooses_on_the_test_subjects(data: Path, tmp_path: Path) -> None:
    chosen = recipe('protocol="paper"')
    run = trained(chosen, data, tmp_path)
    for fold in run.folds:
        assert fold["validation"] == []
        assert sorted({*fold["test"], *fold["fit"]}) == [str(number) for number in range(1, 7)]
        assert not {*fold["test"]} & {*fold["fit"]}
    place = run.fold_run(1, 0)
    selection = place.selection()
    assert selection["optimistic"] is True
    assert selection["on_subjects"] == run.folds[0]["test"]
    assert selection["signatures"] == []
    for model in place.models():
        meta = read_json(place.model_folder(model) / "checkpoint.json")
        assert meta["chosen_on"] == "test subjects"
        found = place.predictions(model)  # the accuracy it was chosen by is the one that is reported
        assert meta["validation_accuracy"] == pytest.approx((found.logits.argmax(1) == found.y).mean())
    assert run.optimistic
    table = evaluate_run(run)
    assert table["protocol"] == "paper"
    scores = [row["models"]["student.scratch"] for row in table["subjects"]]
    # Two subjects with one seed: two trainings.
    error = np.std(scores) / np.sqrt(2 * 1 - 1)
    assert table["models"]["student.scratch"]["published_error"] == pytest.approx(error)
    assert table["optimistic"].startswith("optimistic: epoch and candidate were chosen on the test subjects")


@pytest.mark.parametrize("protocol", ["paper", "nested-subject"])
def test_optimism_is_marked_wherever_it_is_shown(
    protocol: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained(recipe(f'protocol="{protocol}"'), data, tmp_path)
    evaluate(run.folder)
    told = capsys.readouterr()
    for title in (f"Held-out subjects, protocol {protocol}", "Accuracy % by subject"):
        assert (f"{title}, OPTIMISTIC" in told.out) == (protocol == "paper")
        assert title in told.out
    assert ("± as published" in " ".join(told.out.split())) == (protocol == "paper")
    assert ("these accuracies are optimistic" in told.err) == (protocol == "paper")
    write_report(run, run.folder / "report.html")
    page = (run.folder / "report.html").read_text("utf-8")
    assert ("All accuracies on this page are optimistic" in page) == (protocol == "paper")
    honest = "neither trained on nor used to choose anything", "never on the test subjects"
    assert all((words in page) == (protocol != "paper") for words in honest)


def test_the_published_scaling_is_the_mean_of_the_windows_own(tmp_path: Path) -> None:
    made = windows()
    fit = np.asarray(made.x, np.float64)[made.of_subjects(FOLD.fit)]
    cpu = torch.device("cpu")
    topology = recipe().topology
    views, document = fit_and_apply(made, FOLD, topology, tmp_path, cpu, silent, spread="window")
    np.testing.assert_allclose(document["signal"]["mean"], fit.mean((0, 2)), rtol=1e-9)
    np.testing.assert_allclose(document["signal"]["std"], fit.std(2).mean(0), rtol=1e-9)
    _, usual = fit_and_apply(made, FOLD, topology, tmp_path, cpu, silent)
    assert not np.allclose(document["signal"]["std"], usual["signal"]["std"], rtol=1e-3)
    assert not np.allclose(document["image"]["std"], usual["image"]["std"], rtol=1e-3)
    assert document["image"]["mean"] == usual["image"]["mean"]
    assert views.images is not None


TINY = (
    *("split={folds = 3}", "seeds=[0]", "topology.size=[16, 16]"),
    *(f"{part}.network={{depth = 10}}" for part in ("student", "signal_teacher", "topology_teacher")),
    *(f"{part}.training.epochs=1" for part in ("signal_teacher", "topology_teacher")),
    *(f"student.{part}.epochs=1" for part in ("scratch", "distilled")),
)


@pytest.mark.parametrize("name", [name for name in builtin_recipes() if name.startswith("paper/")])
def test_the_recipes_of_the_paper_run(name: str, data: Path, tmp_path: Path) -> None:
    chosen = load_recipe(name, TINY)
    run = trained(chosen, data, tmp_path)
    table = evaluate_run(run)
    assert list(table["models"]) == chosen.models()
    assert len(table["experiments"]) == len(chosen.experiments) > 0
    assert {item["verdict"] for item in table["experiments"]} <= {"within noise", "refuted"}
    wrong_size = [item for item in table["experiments"] if "images of" in item["sentences"][-1]]
    assert len(wrong_size) == (name == "paper/first-three")
    assert bool(table["optimistic"]) == (name in ("paper/geneactiv-14", "paper/pamap2"))
    json.dumps(table, allow_nan=False)


def test_the_recipe_says_which_scaling(data: Path, tmp_path: Path) -> None:
    run = trained(recipe('scaling="window"', "student.distilling.teachers=[]"), data, tmp_path)
    everything = run.windows()
    x = np.asarray(everything.x, np.float64)[everything.of_subjects(run.folds[0]["fit"])]
    made = run.fold_run(1, 0).preprocessing()["signal"]
    np.testing.assert_allclose(made["std"], x.std(2).mean(0), rtol=1e-9)


def test_a_teacher_with_mixup_learns_something_else(data: Path, tmp_path: Path) -> None:
    plain = trained(recipe(), data, tmp_path / "a")
    mixed = trained(recipe("signal_teacher.mixup_alpha=1.0"), data, tmp_path / "b")
    weights = [
        {
            name: (run.fold_run(1, 0).model_folder(name) / "checkpoint.safetensors").read_bytes()
            for name in ("teacher.signal", "teacher.topology", "student.scratch")
        }
        for run in (plain, mixed)
    ]
    same = {name: weights[0][name] == weights[1][name] for name in weights[0]}
    assert same == {"teacher.signal": False, "teacher.topology": True, "student.scratch": True}


def test_train_prints_a_verdict_on_each_claim(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tiny.toml").write_text(recipe(*KEPT).to_toml(), "utf-8")
    train(data, recipe=str(tmp_path / "tiny.toml"), out=tmp_path / "r", device="cpu", folds="1")
    told = capsys.readouterr().out
    assert "experiment 1: two are better" in told
    assert "student.both is " in told
    assert "verdict: " in told
    evaluate(tmp_path / "r")
    told = capsys.readouterr().out
    assert told.count("student.both is within noise of student.one") == 1  # not again among the comparisons
    assert "Smoothness" in told
    # Two subjects are fewer than the models: they are the columns.
    line = next(line for line in told.splitlines() if line.startswith("│ windows "))
    assert [cell.strip() for cell in line.split("│")[2:-1]] == ["12", "12"]
    assert (tmp_path / "r" / "evaluation.json").is_file()


def test_signatures_are_told_after_the_fold(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def find(y: np.ndarray, *rest: Any) -> list[Signature]:
        seen["y"], seen["rest"] = y, rest
        return [
            Signature("weak-teacher", True, 0.2, 0.1, "it is weak", "another one"),
            Signature("teacher-gap", False, 0.0, 0.1, "it is narrow", "nothing"),
        ]

    monkeypatch.setattr(fold_module, "find_signatures", find)
    (tmp_path / "tiny.toml").write_text(recipe(TWO_CANDIDATES).to_toml(), "utf-8")
    train(data, recipe=str(tmp_path / "tiny.toml"), out=tmp_path / "r", device="cpu", folds="1")
    told = capsys.readouterr()
    assert "fold 1, seed 0: weak-teacher: it is weak; what to do: another one" in told.err
    assert "teacher-gap" not in told.err
    run = Run.open(tmp_path / "r")
    everything = run.windows()
    judges = everything.of_subjects(run.folds[0]["validation"])
    np.testing.assert_array_equal(seen["y"], everything.y[judges])
    teachers, scratch, candidates, chosen = seen["rest"]
    assert set(teachers) == {"signal", "topology"}
    assert all(len(logits) == len(judges) for logits in (*teachers.values(), scratch))
    selection = run.fold_run(1, 0).selection()
    rows = [row["validation_accuracy"] for row in selection["candidates"]]
    assert [(logits.argmax(1) == seen["y"]).mean() for _, logits in candidates] == pytest.approx(rows)
    assert chosen == selection["chosen"] - 1
    assert [item["name"] for item in selection["signatures"]] == ["weak-teacher", "teacher-gap"]
    evaluate(run.folder)
    assert "fold 1, seed 0: weak-teacher: it is weak" in (told := capsys.readouterr()).out
    assert "teacher-gap" not in told.out
