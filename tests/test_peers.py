"""Simpler models beside a run: what is measured, which files are refused, what the table says of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from made_training import waves

from topokd_edge.errors import BadInputError
from topokd_edge.files import read_json, write_json, write_text
from topokd_edge.run import DISTILLED_STUDENT, INT8_STUDENT, Predictions, Run

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
FOLDS = [
    {"fold": 1, "test": ["1", "2"], "validation": ["3"], "fit": ["4", "5", "6"]},
    {"fold": 2, "test": ["3", "4"], "validation": ["6"], "fit": ["1", "2", "5"]},
    {"fold": 3, "test": ["5", "6"], "validation": ["1"], "fit": ["2", "3", "4"]},
]
RIGHT = {"1": 9, "2": 9, "3": 8, "4": 9, "5": 7, "6": 9}
"""Of twelve windows, those that the made student gets right; int8 one less."""


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield import_module


@pytest.fixture
def peers(load: Any) -> ModuleType:
    return load("peers")


def finish(run: Run, number: int) -> None:
    """Write the predictions of a fold: RIGHT windows of each subject, then others."""
    windows, place = run.windows(), run.fold_run(number, 0)
    index = windows.of_subjects(run.fold(number)["test"])
    for model, fewer in ((DISTILLED_STUDENT, 0), (INT8_STUDENT, 1)):
        said = windows.y[index].copy()
        for who in run.fold(number)["test"]:
            mine = np.flatnonzero(windows.subject[index] == who)[RIGHT[who] - fewer :]
            said[mine] = (said[mine] + 1) % 3
        logits = 4 * np.eye(3, dtype=np.float32)[said]
        Predictions(index, windows.y[index], logits).save(place.predictions_path(model))
    checkpoint = place.model_folder(DISTILLED_STUDENT) / "checkpoint.json"
    write_json(checkpoint, {"params": 63020, "macs": 2_190_000})
    settings = {"eta": 0.7, "alpha_signal": 0.0, "alpha_topology": 0.0, "mixup_share": 1.0, "alpha": "fixed"}
    row = {"candidate": 1, "validation_accuracy": 0.5, "settings": settings}
    write_json(place.folder / "selection.json", {"chosen": 1, "on_subjects": ["1"], "candidates": [row]})


@pytest.fixture
def run(tmp_path: Path) -> Run:
    windows, folder = waves(6, 4), tmp_path / "run"
    windows.save(tmp_path / "w")
    described = {**windows.describe(), "made": {"window_seconds": 1.6}, "path": str(tmp_path / "w")}
    write_json(folder / "data.json", described)
    write_json(folder / "folds.json", FOLDS)
    write_text(folder / "recipe.toml", '[student]\nchannels = ["acc_x"]\n')
    versions = {"device": "cpu", "platform": "p", "threads": 1, "versions": {"torch": "2"}}
    write_json(folder / "environment.json", {**versions, "command": ["topokd-edge", "train"]})
    for fold in FOLDS:
        finish(Run.open(folder), int(str(fold["fold"])))
    return Run.open(folder)


def made_peer(peers: ModuleType, run: Run, **changes: Any) -> dict[str, Any]:
    """The file of a peer that is right on two thirds of the windows of everybody."""

    def two_thirds(lesson: Any) -> tuple[np.ndarray, int]:
        # The windows are in the order of their classes, each as often; the third class is never said.
        return np.repeat([0, 1, 0], len(lesson.asked) // 3), 50_000 * (lesson.seed + 1)

    made = peers.measure("minirocket", "made", two_thirds, run.windows(), run.folds, ("acc_x",), (0, 1))
    return {**made, **changes}


def test_a_peer_learns_from_all_but_the_tested_and_sees_the_channels_of_the_student(
    peers: ModuleType, run: Run
) -> None:
    windows, asked_for = run.windows(), []

    def learn(lesson: Any) -> tuple[np.ndarray, int]:
        asked_for.append(lesson)
        return np.zeros(len(lesson.asked), dtype=np.int64), 10 + lesson.seed

    made = peers.measure("p", "about", learn, windows, run.folds, peers.student_channels(run), (0, 3))
    assert len(asked_for) == 6
    lesson = asked_for[1]
    train = np.isin(windows.subject, ["3", "4", "5", "6"])
    np.testing.assert_array_equal(lesson.x, np.asarray(windows.x)[train][:, :1])
    np.testing.assert_array_equal(lesson.y, windows.y[train])
    np.testing.assert_array_equal(lesson.judges, windows.subject[train] == "3")
    test = np.isin(windows.subject, ["1", "2"])
    np.testing.assert_array_equal(lesson.asked, np.asarray(windows.x)[test][:, :1])
    assert (lesson.channels, lesson.seed) == (("acc_x",), 3)
    # The first class always: a third is right; F1 is 2 * (1/3) / (1 + 1/3) = 1/2 for it, and 0 for two.
    assert made["by_subject"] == pytest.approx(dict.fromkeys("123456", 1 / 3))
    assert made["macro_f1"] == pytest.approx(0.5 / 3)
    assert (made["bytes"], made["seeds"]) == (13, [0, 3])
    assert made["folds"][1] == {"fold": 2, "test": ["3", "4"], "trained_on": ["1", "2", "5", "6"]}
    json.dumps(made, allow_nan=False)


def test_seeds_are_averaged(peers: ModuleType, run: Run) -> None:
    def by_seed(lesson: Any) -> tuple[np.ndarray, int]:
        return np.repeat([0, lesson.seed, 2 * lesson.seed], len(lesson.asked) // 3), 1

    made = peers.measure("p", "", by_seed, run.windows(), run.folds, ("acc_y",), (0, 1))
    assert made["by_subject"] == pytest.approx(dict.fromkeys("123456", (1 / 3 + 1) / 2))


def test_a_file_that_fits_is_read(peers: ModuleType, run: Run, tmp_path: Path) -> None:
    made = made_peer(peers, run)
    write_json(tmp_path / "p.json", made)
    assert peers.read_peer(tmp_path / "p.json", run) == made


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"content_hash": "f" * 64}, "window set ffffffffffff, the run has"),
        ({"channels": ["acc_x", "acc_y"]}, "channels acc_x, acc_y, the student has acc_x"),
        ({"folds": []}, "fold 1: other subjects"),
        ({"by_subject": {}}, "subject 5: no accuracy"),
        ({"by_subject": dict.fromkeys("123456", float(7))}, "subject 5: no accuracy"),
        ({"format": "topokd-peer/0"}, "not a file of format"),
    ],
)
def test_what_was_measured_on_something_else_is_refused(
    peers: ModuleType, run: Run, tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    write_json(tmp_path / "p.json", made_peer(peers, run, **change))
    with pytest.raises(BadInputError) as caught:
        peers.read_peer(tmp_path / "p.json", run)
    assert says in str(caught.value) and "p.json" in str(caught.value)


def test_other_folds_are_refused_also_where_only_the_trained_differ(
    peers: ModuleType, run: Run, tmp_path: Path
) -> None:
    made = made_peer(peers, run)
    made["folds"][2]["trained_on"] = ["1", "2", "3"]
    write_json(tmp_path / "p.json", made)
    with pytest.raises(BadInputError, match="fold 3: other subjects") as caught:
        peers.read_peer(tmp_path / "p.json", run)
    assert "fold 2" not in str(caught.value)


def test_a_missing_file_and_missing_keys_are_refused(peers: ModuleType, run: Run, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"gone\.json"):
        peers.read_peer(tmp_path / "gone.json", run)
    made = made_peer(peers, run)
    del made["bytes"], made["seeds"]
    write_json(tmp_path / "p.json", made)
    with pytest.raises(BadInputError, match="without bytes, seeds"):
        peers.read_peer(tmp_path / "p.json", run)


def test_a_window_set_is_dealt_as_the_recipe_would(
    peers: ModuleType, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from topokd_edge.distill.recipe import load_recipe
    from topokd_edge.distill.run_training import planned_folds

    def learn(lesson: Any) -> tuple[np.ndarray, int]:
        return np.zeros(len(lesson.asked), dtype=np.int64), 1

    out = tmp_path / "p.json"
    split = "folds=3,validation=2,seed=0"
    words = ["p", str(tmp_path / "w"), "--split", split, "--channels", "acc_y", "--out", str(out)]
    monkeypatch.setattr("sys.argv", words)
    peers.command("p", "about", learn, None)
    overrides = ["split.folds=3", "split.validation_subjects=2"]
    folds = planned_folds(run.windows(), load_recipe("usc-had", overrides))
    assert [fold["test"] for fold in read_json(out)["folds"]] == [list(fold.test) for fold in folds]
    assert read_json(out)["channels"] == ["acc_y"]
    monkeypatch.setattr("sys.argv", [*words[:2], "--out", str(out)])
    with pytest.raises(SystemExit, match="--split is needed"):
        peers.command("p", "about", learn, None)


@pytest.mark.parametrize(("rows", "columns"), [(40, 90), (120, 30)])
def test_the_ridge_is_that_of_scikit_learn(load: Any, rows: int, columns: int) -> None:
    from sklearn.linear_model import RidgeClassifier

    rng = np.random.default_rng(rows)
    x = rng.normal(1, 1, (rows, columns)).astype(np.float32)
    y = np.arange(rows) % 4
    for penalty, (weights, offset) in zip(
        (10.0, 1000.0), load("minirocket").ridge(x, y, (10.0, 1000.0)), strict=True
    ):
        theirs = RidgeClassifier(alpha=penalty).fit(x.astype(np.float64), y)
        np.testing.assert_allclose(weights.T, theirs.coef_, atol=1e-5)
        np.testing.assert_allclose(offset, theirs.intercept_, atol=1e-4)


def test_the_table_has_a_row_a_column_and_a_verdict_for_each_peer(
    load: Any, peers: ModuleType, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = load("accuracy_table")
    write_json(tmp_path / "p.json", made_peer(peers, run))
    words = [str(run.folder), str(tmp_path / "t.md"), "--peer", str(tmp_path / "p.json")]
    monkeypatch.setattr("sys.argv", ["accuracy_table.py", *words])
    table.main()
    text = (tmp_path / "t.md").read_text("utf-8")
    # Two of three classes right for everybody. F1: 2 * (1/2) / (3/2) = 2/3 for the first, 1, 0.
    assert "| minirocket | 66.7 | 0.0 | - | 55.6 | - | - | 100 | - |" in text
    assert "| student.distilled | 70.8 |" in text and "| 63,020 | 252 | 2.19 M |" in text
    assert "| student.int8 | 62.5 |" in text and "| 63,020 | 63 | 2.19 M |" in text
    assert "| student.distilled | student.int8 | forest | minirocket |" in text
    assert "| 5 | 12 | 58.3 | 50.0 |" in text
    assert "minirocket: made; 2 seed(s)" in text
    # 51 of 72 windows against 48: differences of 1, 1, 0, 1, -1, 1 windows of twelve.
    assert "student.distilled is within noise of minirocket: +4.2 points" in text
    assert "student.int8 is within noise of minirocket: -4.2 points" in text
    document = read_json(tmp_path / "t.json")
    forest = document["peers"]["forest"]["by_subject"]
    assert forest.keys() == RIGHT.keys() and np.mean(list(forest.values())) > 0.6, forest
    # 300 trees of five nodes at least, as there are three classes, 16 bytes each.
    assert 300 * 5 * 16 <= document["peers"]["forest"]["bytes"] < 300 * 100 * 16
    against = document["against_peers"]
    differences = np.array([1, 1, 0, 1, -1, 1]) / 12
    half = 2.5706 * differences.std(ddof=1) / 6**0.5  # t of 5 degrees of freedom, from a table
    assert against[2]["ci95"] == pytest.approx([0.5 / 12 - half, 0.5 / 12 + half], abs=1e-5)


def test_a_forest_that_was_measured_is_not_trained_again(
    load: Any, peers: ModuleType, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_json(tmp_path / "p.json", made_peer(peers, run, peer="forest"))
    words = ["accuracy_table.py", str(run.folder), str(tmp_path / "t.md"), "--peer", str(tmp_path / "p.json")]
    monkeypatch.setattr("sys.argv", words)
    load("accuracy_table").main()
    text = (tmp_path / "t.md").read_text("utf-8")
    assert "| forest | 66.7 | 0.0 | - | 55.6 |" in text and "forest: made" in text


def test_a_refused_peer_leaves_no_table(
    load: Any, peers: ModuleType, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_json(tmp_path / "p.json", made_peer(peers, run, content_hash="0" * 64))
    words = ["accuracy_table.py", str(run.folder), str(tmp_path / "t.md"), "--peer", str(tmp_path / "p.json")]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit, match="does not belong to"):
        load("accuracy_table").main()
    assert not (tmp_path / "t.md").exists()
