"""A search: nobody who is tested is looked at, what is best is found, and an interruption changes nothing."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_training import interrupt_at, waves
from typer.testing import CliRunner

from topokd_edge import filesystem
from topokd_edge.cli import app
from topokd_edge.cli._tune_latency import check_latency, time_student
from topokd_edge.data.windowset import WindowSet
from topokd_edge.distill import fold as fold_module
from topokd_edge.distill.checkpoint import load_model
from topokd_edge.distill.recipe import Recipe, load_recipe, parse_recipe
from topokd_edge.distill.tuning.job import Plan, Search, check_same, prepare, start
from topokd_edge.distill.tuning.results import untouched, write_results
from topokd_edge.distill.tuning.search import run_trials
from topokd_edge.distill.tuning.space import Space, check_space, load_space, parse_space, tunable
from topokd_edge.distill.tuning.storage import JOURNAL, shown
from topokd_edge.distill.tuning.trials import Scores, Trainer, inner_parts, without_test
from topokd_edge.errors import BadInputError, MissingError, TopokdError, UsageError
from topokd_edge.files import read_json
from topokd_edge.locking import held

RECIPE = """
name = "tiny"
split = { folds = 3, validation_subjects = 2 }
topology = { size = [16, 16] }
signal_teacher = { network = { depth = 10 }, training = { epochs = 1, batch_size = 16 } }
topology_teacher = { network = { depth = 10, stem_stride = 2 }, training = { epochs = 1, batch_size = 16 } }

[student]
network = { depth = 10 }
scratch = { epochs = 1, batch_size = 16 }
distilled = { epochs = 2, batch_size = 16, learning_rate = 0.02 }
candidates = [{ tau = 0.1 }, { tau = 0.9 }]
"""
SPACE = """
name = "small"
vary."student.distilling.tau" = { low = 0.1, high = 0.9 }
vary."student.distilling.alpha_signal" = { low = 0.0, high = 0.4, step = 0.05 }
vary."student.network.width" = { choices = [1, 2] }
"""
CPU = torch.device("cpu")


def recipe(*overrides: str) -> Recipe:
    return parse_recipe(RECIPE, "tiny", overrides)


def space(text: str = SPACE) -> Space:
    return parse_space(text, "small")


def windows(change: Callable[[np.ndarray, np.ndarray], None] | None = None) -> WindowSet:
    """Nine subjects, three classes, three windows of each: waves of three speeds, larger by subject."""
    return waves(9, 3, change)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "w"
    windows().save(path)
    return path


def started(data: Path, out: Path, plan: Plan | None = None, *, of: Space | None = None) -> Search:
    search = prepare(data, recipe(), of or space(), plan or Plan(), out)
    start(search, data)
    return search


def trainer(search: Search, **options: Any) -> Trainer:
    return Trainer(
        search.folder, search.windows, search.chosen, search.recipe, search.plan.parts, CPU, **options
    )


def found(search: Search, study: Any) -> dict[str, Any]:
    return write_results(search, study)


def peak(tried: Recipe, number: int) -> Scores:
    """An accuracy that is best at alpha 0.2, tau 0.5; a wider student costs more and brings a little."""
    settings, width = tried.student.distilling, tried.student.network.width
    far = (settings.alpha_signal - 0.2) ** 2 + (settings.tau - 0.5) ** 2
    return Scores(0.9 * math.exp(-4 * far) + 0.01 * width, 1000 * width, 10 * width, ())


def answers(document: dict[str, Any]) -> list[Any]:
    return [(row["number"], row["state"], row["parameters"], row["accuracy"]) for row in document["trials"]]


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Two trials that were trained, never interrupted."""
    search = started(data, tmp_path_factory.mktemp("trained") / "t")
    return answers(found(search, run_trials(search, trainer(search), 2)))


@pytest.fixture(scope="module")
def peaked(data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Fourteen trials judged by `peak`, never interrupted."""
    search = started(data, tmp_path_factory.mktemp("peaked") / "t")
    return answers(found(search, run_trials(search, peak, 14)))


def inline(tables: list[dict[str, list[str]]]) -> str:
    """The same as TOML on one line."""
    return json.dumps(tables).replace('": ', '" = ')


class TestTestSubjects:
    def test_their_windows_are_not_in_what_trials_see(self) -> None:
        everything = windows()
        fold = recipe().split.plan().deal(everything)[0]
        seen = without_test(everything, fold)
        assert set(seen.subjects) == {*fold.fit, *fold.validation}
        rows = everything.of_subjects(seen.subjects)
        np.testing.assert_array_equal(seen.x[np.arange(len(seen))], everything.x[rows])
        np.testing.assert_array_equal(seen.y, everything.y[rows])
        np.testing.assert_array_equal(seen.subject, everything.subject[rows])

    @pytest.mark.parametrize("parts", [1, 2, 6])
    def test_parts_hold_every_other_subject_once(self, parts: int) -> None:
        everything = windows()
        fold = recipe().split.plan().deal(everything)[1]
        dealt = inner_parts(everything, fold, parts)
        assert len(dealt) == parts
        for part in dealt:
            assert sorted([*part.validation, *part.fit]) == sorted([*fold.validation, *fold.fit])
        judged = [who for part in dealt for who in part.validation]
        assert sorted(judged) == (
            sorted(fold.validation) if parts == 1 else sorted({*fold.fit, *fold.validation})
        )

    def test_more_parts_than_subjects_are_refused(self, data: Path, tmp_path: Path) -> None:
        with pytest.raises(BadInputError, match="only 6"):
            started(data, tmp_path / "t", Plan(parts=7))

    def test_nothing_is_predicted_and_nothing_depends_on_them(
        self, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Other signals of the tested subjects lead to the same trials, to the bit."""
        search = started(data, tmp_path / "a", Plan(folds=(2,)))
        tested = {who for fold in search.chosen for who in fold.test}
        asked: list[int] = []
        predict = fold_module.predict

        def watch(model: Any, inputs: Any, rows: torch.Tensor, *rest: Any) -> torch.Tensor:
            asked.append(len(inputs))
            return predict(model, inputs, rows, *rest)

        monkeypatch.setattr(fold_module, "predict", watch)
        first = found(search, run_trials(search, trainer(search), 2))
        assert not list(search.folder.rglob("predictions.npz"))
        assert set(asked) == {
            len(windows().of_subjects([w for w in search.windows.subjects if w not in tested]))
        }

        def other(x: np.ndarray, subject: np.ndarray) -> None:
            mine = np.isin(subject.astype(str), list(tested))
            x[mine] = np.random.default_rng(9).normal(7, 3, x[mine].shape)

        windows(other).save(tmp_path / "other")
        again = started(tmp_path / "other", tmp_path / "b", Plan(folds=(2,)))
        assert again.windows.content_hash != search.windows.content_hash
        assert answers(found(again, run_trials(again, trainer(again), 2))) == answers(first)

        def validation(x: np.ndarray, subject: np.ndarray) -> None:
            mine = np.isin(subject.astype(str), list(search.chosen[0].validation))
            x[mine] = np.random.default_rng(9).normal(7, 3, x[mine].shape)

        windows(validation).save(tmp_path / "third")
        third = started(tmp_path / "third", tmp_path / "c", Plan(folds=(2,)))
        assert answers(found(third, run_trials(third, trainer(third), 1)))[0] != answers(first)[0]

    def test_which_folds_stay_honest_is_told(self, data: Path, tmp_path: Path) -> None:
        one = started(data, tmp_path / "one", Plan(folds=(2,)))
        first = found(one, run_trials(one, peak, 2))
        assert first["untouched_folds"] == [2]
        assert first["chosen_on"] == list(one.chosen[0].validation)
        assert "Only in fold 2" in " ".join(first["caveats"]) and "optimistic" in " ".join(first["caveats"])
        two = started(data, tmp_path / "two", Plan(folds=(1, 2)))
        second = found(two, run_trials(two, peak, 1))
        assert second["untouched_folds"] == []
        assert "In every fold" in " ".join(second["caveats"])
        assert second["caveats"][0].split(" of fold")[0].endswith(", ".join(second["chosen_on"]))

    def test_a_fold_stays_honest_only_if_its_tested_had_no_part(self, data: Path, tmp_path: Path) -> None:
        folds = [
            {"test": ["1"], "validation": ["2"], "fit": ["3", "4"]},
            {"test": ["3"], "validation": ["1"], "fit": ["2", "4"]},
            {"test": ["5", "6"], "validation": ["7"], "fit": ["8", "9"]},
        ]
        text = RECIPE.replace("split = { folds = 3, validation_subjects = 2 }", "")
        fixed = parse_recipe(text, "fixed", ["split.kind='fixed'", f"split.fold={inline(folds)}"])
        for asked, honest in (((1,), [1, 3]), ((2,), [2, 3]), ((3,), [1, 2, 3]), ((1, 2), [3])):
            assert untouched(prepare(data, fixed, space(), Plan(folds=asked), tmp_path / "t")) == honest

    def test_the_protocol_that_chooses_on_them_is_refused(self, data: Path, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="test subjects"):
            prepare(data, recipe("protocol=paper"), space(), Plan(), tmp_path / "t")


class TestFinding:
    def test_a_planted_best_is_found(self, data: Path, tmp_path: Path) -> None:
        search = started(data, tmp_path / "t", Plan(objectives=("accuracy",)))
        document = found(search, run_trials(search, peak, 40))
        best = document["trials"][document["best"]]
        assert best["parameters"]["student.distilling.alpha_signal"] == pytest.approx(0.2, abs=0.051)
        assert best["parameters"]["student.distilling.tau"] == pytest.approx(0.5, abs=0.06)
        assert best["parameters"]["student.network.width"] == 2
        assert best["accuracy"] == max(row["accuracy"] for row in document["trials"])
        late = np.mean([row["accuracy"] for row in document["trials"][25:]])
        assert late > np.mean([row["accuracy"] for row in document["trials"][:10]])

    def test_trials_that_no_other_beats(self, data: Path, tmp_path: Path) -> None:
        search = started(data, tmp_path / "t")
        document = found(search, run_trials(search, peak, 30))
        rows = document["trials"]

        def beaten(row: dict[str, Any]) -> bool:
            return any(
                other["accuracy"] >= row["accuracy"]
                and other["macs"] <= row["macs"]
                and (other["accuracy"], other["macs"]) != (row["accuracy"], row["macs"])
                for other in rows
            )

        expected = [row["number"] for row in rows if not beaten(row)]
        assert sorted(document["pareto"]) == expected
        assert {rows[number]["macs"] for number in expected} == {1000, 2000}
        assert document["best"] == max(rows, key=lambda row: (row["accuracy"], -row["macs"]))["number"]
        files = {path.name for path in (search.folder / "pareto").iterdir()}
        assert files == {f"trial-{number}.toml" for number in expected}

    def test_training_ranks_a_step_that_learns_above_one_that_does_not(
        self, data: Path, tmp_path: Path
    ) -> None:
        text = 'name = "rates"\nvary."student.distilled.learning_rate" = { choices = [1e-9, 0.05] }'
        search = prepare(
            data, recipe("student.distilled.epochs=4", "student.distilling.annealing=false"),
            space(text), Plan(parts=2), tmp_path / "t",
        )  # fmt: skip
        start(search, data)
        document = found(search, run_trials(search, trainer(search), 4))
        by_rate: dict[float, set[float]] = {}
        for row in document["trials"]:
            by_rate.setdefault(row["parameters"]["student.distilled.learning_rate"], set()).add(
                row["accuracy"]
            )
        assert {len(values) for values in by_rate.values()} == {1}
        assert min(by_rate[0.05]) > max(by_rate[1e-9])
        parts = document["trials"][0]["parts"]
        assert [part["part"] for part in parts] == [1, 2]
        assert document["trials"][0]["accuracy"] == pytest.approx(
            np.mean([part["accuracy"] for part in parts])
        )

    def test_the_best_recipe_can_be_trained_with(self, data: Path, tmp_path: Path) -> None:
        search = started(data, tmp_path / "t")
        document = found(search, run_trials(search, peak, 5))
        best = load_recipe(str(search.folder / "best.toml"))
        values = document["trials"][document["best"]]["parameters"]
        assert best.student.distilling.tau == values["student.distilling.tau"]
        assert best.student.network.width == values["student.network.width"]
        assert best.name == "tiny-tuned" and best.student.candidates == ()
        assert all(line in best.note for line in document["caveats"])
        assert best.signal_teacher == recipe().signal_teacher and best.split == recipe().split

    def test_teachers_are_trained_once_and_students_from_scratch_once_by_shape(
        self, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        search = started(data, tmp_path / "t")
        trained: list[str] = []
        train = fold_module.train

        def watch(*args: Any, folder: Path, **options: Any) -> Any:
            if not (folder / "checkpoint.json").is_file():
                trained.append(folder.name)
            return train(*args, folder=folder, **options)

        monkeypatch.setattr(fold_module, "train", watch)
        document = found(search, run_trials(search, trainer(search), 4))
        shapes = {row["parameters"]["student.network.width"] for row in document["trials"]}
        assert shapes == {1, 2}
        assert trained.count("teacher.signal") == trained.count("teacher.topology") == 1
        assert sum(name.startswith("student.scratch") for name in trained) == 2
        assert trained.count("candidate-1") == 4
        macs = {row["parameters"]["student.network.width"]: row["macs"] for row in document["trials"]}
        assert macs[2] > 2 * macs[1]

    def test_a_training_that_diverges_has_failed_and_the_next_is_tried(
        self, data: Path, tmp_path: Path
    ) -> None:
        def judge(tried: Recipe, number: int) -> Scores:
            if number == 1:
                raise TopokdError("the loss is not finite in epoch 0")
            return peak(tried, number)

        search = started(data, tmp_path / "t")
        document = found(search, run_trials(search, judge, 3))
        assert [row["state"] for row in document["trials"]] == ["complete", "fail", "complete"]
        assert document["trials"][1]["failed"] == "the loss is not finite in epoch 0"

    def test_every_objective_leads_the_right_way(self, data: Path, tmp_path: Path) -> None:
        """Slower with every unit of width, but cheaper: what is asked for decides which trials stay."""

        def judge(tried: Recipe, number: int) -> Scores:
            width = tried.student.network.width
            return Scores(0.5, 3000 - 1000 * width, 1, (), 0.1 * width, dict(TIMING))

        widths = {}
        for asked in ("macs", "latency"):
            search = started(data, tmp_path / asked, Plan(objectives=("accuracy", asked)))
            document = found(search, run_trials(search, judge, 8))
            tried = {row["number"]: row["parameters"]["student.network.width"] for row in document["trials"]}
            assert set(tried.values()) == {1, 2}
            widths[asked] = {tried[number] for number in document["pareto"]}
        assert widths == {"macs": {2}, "latency": {1}}
        assert "0.100 ms in int8" in (search.folder / "best.toml").read_text("utf-8")

    def test_an_input_that_cannot_be_used_ends_the_search(self, data: Path, tmp_path: Path) -> None:
        def judge(tried: Recipe, number: int) -> Scores:
            raise BadInputError("the window set is damaged")

        search = started(data, tmp_path / "t")
        with pytest.raises(BadInputError, match="damaged"):
            run_trials(search, judge, 3)


TIMING = {
    "shape": "wrn10-1",
    "basis": "measured",
    "cpu": "A",
    "threads": 1,
    "runtime": "litert",
    "processes": 5,
    "busy": False,
}


class TestLatency:
    def test_each_shape_is_timed_once_on_windows_of_nobody_who_is_tested(
        self, data: Path, tmp_path: Path
    ) -> None:
        search = started(data, tmp_path / "t", Plan(objectives=("accuracy", "latency")))
        timed: list[str] = []

        def timer(place: Any, seen: WindowSet, inner: Any) -> dict[str, Any]:
            model, meta = load_model(place.model_folder("student.distilled"))
            assert set(seen.subjects) == {*search.chosen[0].fit, *search.chosen[0].validation}
            assert inner.validation == search.chosen[0].validation
            assert place.preprocessing()["student"]["channels"] == ["acc_x", "acc_y"]
            timed.append(place.shape)
            return {**TIMING, "latency_ms": float(meta["macs"]) / 1e6, "busy": model.spec.width == 2}

        document = found(search, run_trials(search, trainer(search, timer=timer), 4))
        assert len(timed) == len(set(timed)) == 2
        for row in document["trials"]:
            assert row["latency_ms"] == row["macs"] / 1e6
        run_trials(search, trainer(search, timer=timer), 5)
        assert len(timed) == 2
        told = " ".join(document["caveats"])
        assert "Latency was measured on A" in told and "machine was busy whenever" in told
        assert "width2" in told.split("busy whenever")[1] and "width1" not in told.split("busy whenever")[1]

    def test_latencies_of_two_machines_are_not_compared(self, data: Path, tmp_path: Path) -> None:
        def judge(tried: Recipe, number: int) -> Scores:
            width = tried.student.network.width
            return Scores(0.5, width, 1, (), 0.1, {**TIMING, "shape": f"wrn{width}", "cpu": f"CPU {width}"})

        search = started(data, tmp_path / "t", Plan(objectives=("accuracy", "latency")))
        document = found(search, run_trials(search, judge, 8))
        assert "on CPU 1 and on CPU 2" in " ".join(document["caveats"])
        assert "cannot be compared" in " ".join(document["caveats"])

    def test_too_few_windows_to_calibrate_with_are_told_before_any_training(
        self, data: Path, tmp_path: Path
    ) -> None:
        search = prepare(data, recipe(), space(), Plan(objectives=("accuracy", "latency")), tmp_path / "t")
        with pytest.raises(BadInputError, match=r"objective latency.*at least 128 windows"):
            check_latency(search)

    @pytest.mark.slow
    def test_the_int8_student_is_timed_and_a_larger_one_takes_longer(self, tmp_path: Path) -> None:
        waves(9, 12).save(tmp_path / "w")
        plan = Plan(objectives=("accuracy", "latency"))
        wide = space('name = "s"\nvary."student.network.width" = { choices = [1, 8] }')
        search = prepare(tmp_path / "w", recipe("student.scratch.epochs=1"), wide, plan, tmp_path / "t")
        check_latency(search)
        start(search, tmp_path / "w")
        judge = trainer(search, timer=time_student)
        timings = {}
        for width in (1, 8):
            tried = recipe(f"student.network.width={width}", "student.candidates=[]")
            scores = judge(tried, width)
            assert scores.timing is not None and scores.latency_ms == min(scores.timing["p50_ms"])
            assert len(scores.timing["p50_ms"]) == scores.timing["processes"] == 5
            assert scores.timing["runs"] >= 50 and scores.timing["warmup"] == 10
            assert (scores.timing["basis"], scores.timing["pipeline"]) == ("measured", "student.int8")
            assert scores.timing["macs"] == scores.macs and "litert" in scores.timing["runtime"]
            timings[width] = scores.latency_ms
        assert 0.001 < timings[1] < timings[8] < 1000


class TestGoingOn:
    def test_the_same_seed_tries_the_same(self, peaked: list[Any], data: Path, tmp_path: Path) -> None:
        tried = {}
        for seed in (0, 1):
            search = started(data, tmp_path / str(seed), Plan(seed=seed))
            tried[seed] = answers(found(search, run_trials(search, peak, 12)))
        assert tried[0] == peaked[:12] != tried[1]
        assert len({json.dumps(row[2]) for row in peaked}) > 11

    def test_going_on_counts_on_and_tries_what_an_uninterrupted_search_does(
        self, peaked: list[Any], data: Path, tmp_path: Path
    ) -> None:
        expected = peaked
        search = started(data, tmp_path / "t")
        run_trials(search, peak, 5)
        again = prepare(data, recipe(), space(), Plan(), search.folder)
        check_same(again)
        assert answers(found(again, run_trials(again, peak, 14))) == expected
        assert answers(found(again, run_trials(again, peak, 3))) == expected

    @pytest.mark.parametrize("call", [2, 9])
    def test_an_interrupted_trial_goes_on(
        self, trained: list[Any], data: Path, tmp_path: Path, call: int
    ) -> None:
        expected = trained
        search = started(data, tmp_path / "t")
        with pytest.raises(KeyboardInterrupt):
            run_trials(search, trainer(search, progress=interrupt_at(call)), 2)
        assert answers(found(search, run_trials(search, trainer(search), 2))) == expected

    def test_a_process_that_was_killed_leaves_its_trial_to_the_next(
        self, peaked: list[Any], data: Path, tmp_path: Path
    ) -> None:
        expected = peaked[:3]
        search = started(data, tmp_path / "t")
        code = (
            "import sys, time; sys.path.insert(0, sys.argv[3])\n"
            "from pathlib import Path\nimport test_tune as t\n"
            "search = t.prepare(Path(sys.argv[1]), t.recipe(), t.space(), t.Plan(), Path(sys.argv[2]))\n"
            "def judge(tried, number):\n"
            "    if number == 1:\n        print('in it', flush=True); time.sleep(60)\n"
            "    return t.peak(tried, number)\n"
            "t.run_trials(search, judge, 3)\n"
        )
        arguments = [sys.executable, "-c", code, str(data), str(search.folder), str(Path(__file__).parent)]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None and child.stdout.readline() == "in it\n"
            with held(search.folder / "locks" / "trial-1.lock", wait=False) as mine:
                assert not mine
            # While it lives, its trial is left alone: the two others are all that this process gets.
            ours = found(search, run_trials(search, peak, 3))
            assert [row["state"] for row in ours["trials"]] == ["complete", "running", "complete"]
            os.kill(child.pid, signal.SIGKILL)
        after = answers(found(search, run_trials(search, peak, 3)))
        assert [row[:2] for row in after] == [row[:2] for row in expected]
        assert after[:2] == expected[:2]

    def test_a_line_that_was_cut_short_is_dropped(self, data: Path, tmp_path: Path) -> None:
        search = started(data, tmp_path / "t")
        expected = answers(found(search, run_trials(search, peak, 3)))
        with (search.folder / JOURNAL).open("ab") as stream:
            stream.write(b'{"op_code": 4, "wor')
        assert answers(found(search, run_trials(search, peak, 3))) == expected
        assert len(found(search, run_trials(search, peak, 4))["trials"]) == 4

    @pytest.mark.parametrize("junk", [b"junk\n", b"[]\n", b'{"op_code": 99, "worker_id": "x"}\n', b"\xff\n"])
    def test_a_damaged_journal_is_refused(self, data: Path, tmp_path: Path, junk: bytes) -> None:
        search = started(data, tmp_path / "t")
        run_trials(search, peak, 1)
        journal = search.folder / JOURNAL
        first, rest = journal.read_bytes().split(b"\n", 1)
        journal.write_bytes(first + b"\n" + junk + rest)
        with pytest.raises(BadInputError, match=JOURNAL):
            run_trials(search, peak, 2)

    def test_a_trial_is_not_mixed_with_another_of_its_number(self, data: Path, tmp_path: Path) -> None:
        search = started(data, tmp_path / "t")
        judge = trainer(search)
        judge(search.recipe, 0)
        changed = recipe("student.distilling.tau=0.123")
        with pytest.raises(BadInputError, match="other values"):
            judge(changed, 0)

    def test_other_settings_are_refused_all_at_once(self, data: Path, tmp_path: Path) -> None:
        search = started(data, tmp_path / "t")
        other = prepare(
            data,
            recipe("seeds=[0, 1]"),
            space(SPACE.replace("0.9", "0.8")),
            Plan(parts=2, seed=5),
            search.folder,
        )
        with pytest.raises(BadInputError) as caught:
            check_same(other)
        assert len(caught.value.problems) == 4
        with pytest.raises(BadInputError, match="not a search"):
            check_same(replace(search, folder=tmp_path))
        with pytest.raises(BadInputError, match="already exists"):
            start(search, data)


class TestSpace:
    def test_the_default_fits_the_recipes_that_come_along(self) -> None:
        for name in ("default", "demo", "pamap2", "usc-had", "dsads"):
            check_space(load_space("default"), load_recipe(name))
        assert all(item.source for item in load_space("default").vary.values())

    def test_everything_wrong_is_told(self) -> None:
        text = """
        name = "bad"
        [vary]
        "student.distilling.tua" = { low = 0, high = 1 }
        "signal_teacher.network.width" = { choices = [1, 2] }
        "student.distilling.tau" = { low = 0.9, high = 0.1 }
        "student.distilling.eta" = { low = 0.0, high = 1.0, step = 0.3 }
        "student.distilling.temperature" = { low = 0.0, high = 9.0, log = true, step = 1.0 }
        "student.network.width" = { low = 1, high = 2.5 }
        "student.distilling.weighting" = { low = 1, high = 2 }
        "student.distilling.alpha_signal" = { choices = [0.1] }
        "student.distilling.alpha_topology" = { low = 0.1 }
        "student.distilling.annealing" = { choices = [true, false], low = 1 }
        "student.distilling.mixup_share" = { choices = [[1], [2]] }
        """
        with pytest.raises(UsageError) as caught:
            space(text)
        told = "\n".join(caught.value.problems)
        for key in tomllib.loads(text)["vary"]:
            assert f"vary.{key}" in told
        assert len(caught.value.problems) == 12

    @pytest.mark.parametrize(
        ("text", "word"),
        [
            ("name = 'x'", "vary"),
            ("name = 'x'\n[vary]", "vary"),
            ("vary = 3\nname = 'x'", "vary"),
            ("name = 'x'\nvary.'student.distilling.tau' = { lo = 1, high = nan }", "known here: low"),
            ("name = 'x'\nvary.'student.distilling.tau' = 3", "student.distilling.tau"),
            ("name = ", "not valid TOML"),
            ("nome = 'x'", "known here: name"),
        ],
    )
    def test_what_is_no_space_is_refused(self, text: str, word: str) -> None:
        with pytest.raises(UsageError, match=word):
            space(text)

    def test_values_that_the_recipe_does_not_take_are_told(self) -> None:
        text = """
        name = "x"
        vary."student.distilling.tau" = { low = -0.5, high = 1.5 }
        vary."student.network.depth" = { choices = [10, 12] }
        vary."student.distilling.weighting" = { choices = ["fixed", "loud"] }
        """
        with pytest.raises(UsageError) as caught:
            check_space(space(text), recipe())
        assert len(caught.value.problems) == 4

    def test_a_shape_that_a_teacher_hands_on_is_not_changed(self) -> None:
        with pytest.raises(UsageError, match=r"space small"):
            check_space(
                space(), recipe("student.distilling.annealing_from=signal-teacher", "student.candidates=[]")
            )

    @pytest.mark.parametrize(
        ("change", "left_out"),
        [
            ("teachers=['signal', 'topology']", set()),
            ("teachers=['signal']", {"eta", "alpha_topology"}),
            ("teachers=['topology']", {"eta", "alpha_signal"}),
            ("teachers=[]", {"eta", "tau", "temperature", "alpha_topology"}),
            ("alpha='adaptive'", {"alpha_signal", "alpha_topology", "mixup_share"}),
        ],
    )
    def test_what_changes_nothing_is_not_varied(
        self, data: Path, tmp_path: Path, change: str, left_out: set[str]
    ) -> None:
        changed = recipe("student.candidates=[]", f"student.distilling.{change}")
        search = prepare(data, changed, load_space("default"), Plan(), tmp_path / "t")
        gone = set(load_space("default").vary) - set(search.space.vary)
        assert {key.removeprefix("student.distilling.") for key in gone} == left_out

    def test_no_teacher_can_be_tuned(self) -> None:
        assert not [
            key for key in tunable() if "teacher" in key.partition(".")[0] or key.endswith(".teachers")
        ]
        assert tunable()["student.network.width"] is int and tunable()["student.distilling.tau"] is float

    def test_whole_numbers_stay_whole(self, data: Path, tmp_path: Path) -> None:
        text = 'name = "x"\nvary."student.distilled.epochs" = { low = 1, high = 9, step = 2 }'
        search = started(data, tmp_path / "t", of=space(text))
        tried: list[int] = []

        def judge(one: Recipe, number: int) -> Scores:
            tried.append(one.student.distilled.epochs)
            return peak(one, number)

        run_trials(search, judge, 12)
        assert set(tried) <= {1, 3, 5, 7, 9} and len(set(tried)) > 2


MOUNTS = [
    "/dev/root / ext4 rw 0 0",
    "server:/home /home nfs4 rw 0 0",
    "tmpfs /home/me/local tmpfs rw 0 0",
    "me@host: /mnt/with\\040space fuse.sshfs rw 0 0",
    "//host/share /mnt/win cifs rw 0 0",
    "broken line",
]


class TestStorage:
    @pytest.mark.parametrize(
        ("path", "kind"),
        [
            ("/home/you/tune.db", "nfs4"),
            ("/home/me/local/tune.db", "tmpfs"),
            ("/homer/tune.db", "ext4"),
            ("/mnt/with space/a/b.db", "fuse.sshfs"),
            ("/mnt/win/x.db", "cifs"),
        ],
    )
    def test_sqlite_on_a_network_disk_is_refused(
        self, path: str, kind: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(filesystem, "mount_table", lambda: MOUNTS)
        assert filesystem.kind_of(Path(path)) == kind
        if kind in ("ext4", "tmpfs"):
            assert shown(f"sqlite:///{path}") == f"sqlite:///{path}"
        else:
            with pytest.raises(UsageError, match=rf"network disk \({kind}\)"):
                shown(f"sqlite:///{path}")

    def test_the_table_of_this_machine_is_read(self, tmp_path: Path) -> None:
        if not Path("/proc/self/mounts").exists():
            pytest.skip("no table of mounts")
        assert filesystem.kind_of(Path("/proc/self")) == "proc"
        assert filesystem.kind_of(tmp_path / "not" / "there") != ""

    @pytest.mark.parametrize(
        ("url", "word"),
        [
            ("tune.db", "not the address"),
            ("sqlite://", "nothing would be left"),
            ("sqlite:///:memory:", "nothing would be left"),
            ("redis://host/1", "redis is not served"),
            ("mysql://me:secret@host/db", "mysql is not served"),
        ],
    )
    def test_addresses_that_are_not_served(self, url: str, word: str) -> None:
        with pytest.raises(UsageError, match=word) as caught:
            shown(url)
        assert "secret" not in str(caught.value)

    def test_sqlite_for_one_process(self, peaked: list[Any], data: Path, tmp_path: Path) -> None:
        plan = Plan(storage=f"sqlite:///{tmp_path / 'tune.db'}")
        search = started(data, tmp_path / "t", plan)
        expected = peaked[:6]

        def interrupted(tried: Recipe, number: int) -> Scores:
            if number == 2:
                with held(search.folder / "locks" / "trial-2.lock", wait=False) as free:
                    assert not free
                with pytest.raises(BadInputError, match="SQLite is for one"):
                    run_trials(search, peak, 6)
                raise KeyboardInterrupt
            return peak(tried, number)

        with pytest.raises(KeyboardInterrupt):
            run_trials(search, interrupted, 6)
        assert answers(found(search, run_trials(search, peak, 6))) == expected

    def test_a_password_is_written_nowhere(
        self, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        url = "postgresql://me:geheim@localhost:1/db"
        monkeypatch.setattr(sys, "argv", ["topokd-edge", "tune", f"--storage={url}"])
        search = started(data, tmp_path / "t", Plan(storage=url))
        text = "".join(path.read_text("utf-8") for path in search.folder.iterdir() if path.is_file())
        assert "geheim" not in text and "***" in text
        with pytest.raises(MissingError) as caught:
            run_trials(search, peak, 1)
        assert "geheim" not in str(caught.value) and "postgresql" in str(caught.value)


WORKER = """
import sys, time; sys.path.insert(0, sys.argv[3])
from pathlib import Path
import test_tune as t
plan = t.Plan(storage=sys.argv[4])
search = t.prepare(Path(sys.argv[1]), t.recipe(), t.space(), plan, Path(sys.argv[2]))
def judge(tried, number):
    with (search.folder / f"judged-{number}").open("a") as stream:
        stream.write(f"{sys.argv[5]}\\n")
    time.sleep(0.15)
    return t.peak(tried, number)
print("ready", flush=True)
sys.stdin.readline()
t.run_trials(search, judge, 12)
"""


def share_the_work(search: Search, data: Path, workers: int) -> None:
    """Let several processes run twelve trials of a search at once."""
    storage = search.plan.storage
    call = [sys.executable, "-c", WORKER, str(data), str(search.folder), str(Path(__file__).parent), storage]
    children = [
        subprocess.Popen([*call, str(name)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for name in range(workers)
    ]
    for child in children:
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    for child in children:
        child.communicate(timeout=120)
    assert [child.returncode for child in children] == [0] * workers


def check_shared(search: Search) -> None:
    """Every trial was run once, by one process, and more than one process ran some."""
    document = found(search, search.study())
    assert [row["state"] for row in document["trials"]] == ["complete"] * 12
    assert [row["number"] for row in document["trials"]] == list(range(12))
    judges = [(search.folder / f"judged-{number}").read_text().split() for number in range(12)]
    assert all(len(names) == 1 for names in judges)
    assert len({names[0] for names in judges}) > 1


class TestSeveralProcesses:
    @pytest.mark.slow
    def test_one_journal(self, data: Path, tmp_path: Path) -> None:
        search = started(data, tmp_path / "t")
        share_the_work(search, data, 2)
        check_shared(search)
        lines = (search.folder / JOURNAL).read_text("utf-8").splitlines()
        assert all(isinstance(json.loads(line), dict) for line in lines)


@pytest.fixture
def postgres() -> str:
    """Address of a PostgreSQL database that a test may write to."""
    url = os.environ.get("TOPOKD_TEST_POSTGRES", "")
    if not url:
        pytest.skip("TOPOKD_TEST_POSTGRES is not the address of a PostgreSQL database")
    return url


class TestPostgres:
    def test_trials_are_those_of_a_journal_also_after_an_interruption(
        self, postgres: str, peaked: list[Any], data: Path, tmp_path: Path
    ) -> None:
        search = started(data, tmp_path / "t", Plan(storage=postgres))

        def interrupted(tried: Recipe, number: int) -> Scores:
            if number == 4:
                raise KeyboardInterrupt
            return peak(tried, number)

        with pytest.raises(KeyboardInterrupt):
            run_trials(search, interrupted, 8)
        again = prepare(data, recipe(), space(), Plan(storage=postgres), search.folder)
        check_same(again)
        assert answers(found(again, run_trials(again, peak, 8))) == peaked[:8]
        assert not (search.folder / JOURNAL).exists()

    def test_several_processes(self, postgres: str, data: Path, tmp_path: Path) -> None:
        search = started(data, tmp_path / "t", Plan(storage=postgres))
        share_the_work(search, data, 2)
        check_shared(search)

    def test_a_wrong_password_is_told_without_it(self, postgres: str, data: Path, tmp_path: Path) -> None:
        from sqlalchemy.engine import make_url

        wrong = make_url(postgres).set(password="falsch").render_as_string(hide_password=False)
        search = started(data, tmp_path / "t", Plan(storage=wrong))
        with pytest.raises(MissingError, match="does not answer") as caught:
            run_trials(search, peak, 1)
        assert "falsch" not in str(caught.value)


class TestCommand:
    def test_a_search_from_the_command_line(self, data: Path, tmp_path: Path) -> None:
        (tmp_path / "r.toml").write_text(RECIPE)
        (tmp_path / "s.toml").write_text(SPACE)
        out = tmp_path / "t"
        call = [
            "tune",
            "--data",
            str(data),
            "--recipe",
            str(tmp_path / "r.toml"),
            "--space",
            str(tmp_path / "s.toml"),
        ]
        call += ["--out", str(out), "--device", "cpu", "--parts", "2"]
        answer = CliRunner().invoke(app, [*call, "--trials", "1", "--json"], catch_exceptions=False)
        assert answer.exit_code == 0
        document = json.loads(answer.stdout)
        assert document["out"] == str(out) and document["best"] == 0
        assert {key: value for key, value in document.items() if key != "out"} == read_json(
            out / "trials.json"
        )
        shown_to_people = CliRunner().invoke(
            app, [*call, "--trials", "2", "--resume"], catch_exceptions=False
        )
        assert shown_to_people.exit_code == 0
        assert "2 of 2 trials" in shown_to_people.stdout
        assert (
            f"train --data {data} --recipe {out / 'best.toml'} --folds 1"
            in shown_to_people.stdout.replace("\n", " ")
        )
        assert "honest" in shown_to_people.stderr
        with pytest.raises(UsageError):
            CliRunner().invoke(app, [*call, "--objective", "speed"], catch_exceptions=False)

    @pytest.mark.parametrize(
        "plan",
        [
            {"folds": ()},
            {"folds": (1, 1)},
            {"parts": 0},
            {"objectives": ("macs",)},
            {"objectives": ("accuracy", "speed")},
            {"seed": -1},
        ],
    )
    def test_plans_that_make_no_sense(self, plan: dict[str, Any]) -> None:
        with pytest.raises(UsageError):
            Plan(**plan)

    def test_a_fold_that_is_not_there(self, data: Path, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="folds 1 to 3"):
            started(data, tmp_path / "t", Plan(folds=(4,)))


def test_a_lock_is_free_again_when_its_holder_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "lock"
    code = "import sys, time; from pathlib import Path; from topokd_edge.locking import held\n"
    code += "with held(Path(sys.argv[1]), wait=True):\n    print('held', flush=True); time.sleep(60)"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None and child.stdout.readline() == "held\n"
        with held(path, wait=False) as mine:
            assert not mine
        began = time.monotonic()
        os.kill(child.pid, signal.SIGKILL)
        with held(path, wait=True) as mine:
            assert mine and time.monotonic() - began < 10
    with held(path, wait=False) as mine:
        assert mine
