"""The evaluation of a run: means over subjects and seeds by hand; predictions that do not fit are refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from made_recordings import window_set

from topokd_edge.errors import BadInputError
from topokd_edge.evaluate.run_table import _Outcome, _published_error, evaluate_run
from topokd_edge.files import write_json
from topokd_edge.run import DISTILLED_STUDENT, INT8_STUDENT, SCRATCH_STUDENT, Predictions, Run

SUBJECTS = ["1"] * 4 + ["2"] * 4 + ["3"] * 2
LABELS = [0, 0, 1, 1] * 2 + [0, 1]
FOLDS = [
    {"fold": 1, "test": ["1"], "validation": ["2"], "fit": ["3"]},
    {"fold": 2, "test": ["2", "3"], "validation": [], "fit": ["1"]},
]


def predict(run: Run, model: str, seed: int, wrong: set[int]) -> None:
    """Write predictions that are right except on the windows `wrong`."""
    windows = run.windows()
    for fold in FOLDS:
        index = windows.of_subjects(list(fold["test"]))
        said = np.array([1 - LABELS[i] if i in wrong else LABELS[i] for i in index])
        logits = (4.0 * np.eye(2)[said]).astype(np.float32)
        path = run.fold_run(int(str(fold["fold"])), seed).predictions_path(model)
        Predictions(index, windows.y[index], logits).save(path)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    windows = window_set(SUBJECTS, LABELS, ("a", "b"))
    windows.save(tmp_path / "w")
    folder = tmp_path / "run"
    write_json(folder / "folds.json", FOLDS)
    write_json(folder / "data.json", {**windows.describe(), "path": str(tmp_path / "w")})
    return Run.open(folder)


def test_means_over_subjects_and_seeds_by_hand(run: Run) -> None:
    # Seed 0: subject 1 gets 3/4, subject 2 4/4, subject 3 1/2. Seed 1: 2/4, 4/4, 2/2.
    predict(run, DISTILLED_STUDENT, 0, {0, 9})
    predict(run, DISTILLED_STUDENT, 1, {0, 1})
    predict(run, SCRATCH_STUDENT, 0, {0, 1, 4, 9})
    checkpoint = run.fold_run(1, 0).model_folder(DISTILLED_STUDENT) / "checkpoint.json"
    write_json(checkpoint, {"params": 63020, "macs": 2_190_000})
    predict(run, INT8_STUDENT, 0, {0, 9})
    table = evaluate_run(run)
    json.dumps(table, allow_nan=False)
    row = table["models"][DISTILLED_STUDENT]
    assert row["accuracy"] == pytest.approx((0.625 + 1.0 + 0.75) / 3)
    assert row["accuracy_windows"] == pytest.approx(0.8)
    assert row["std_subjects"] == pytest.approx(np.std([0.625, 1.0, 0.75], ddof=1))
    assert row["std_seeds"] == pytest.approx(np.std([0.75, 2.5 / 3], ddof=1))
    assert (row["params"], row["macs"]) == (63020, 2_190_000)
    assert table["models"][INT8_STUDENT]["params"] == 63020
    assert table["models"][SCRATCH_STUDENT]["std_seeds"] is None
    assert table["models"][SCRATCH_STUDENT]["params"] is None
    assert list(table["models"]) == [SCRATCH_STUDENT, DISTILLED_STUDENT, INT8_STUDENT]
    assert [fold["subjects"] for fold in table["folds"]] == [["1"], ["2", "3"]]
    assert table["folds"][0]["models"][DISTILLED_STUDENT]["accuracy"] == pytest.approx(0.625)
    assert [(item["a"], item["b"]) for item in table["comparisons"]] == [
        (SCRATCH_STUDENT, DISTILLED_STUDENT),
        (DISTILLED_STUDENT, INT8_STUDENT),
    ]
    # Scratch: 1/2, 3/4, 1/2 against 0.625, 1, 0.75.
    assert table["comparisons"][0]["difference"] == pytest.approx((0.125 + 0.25 + 0.25) / 3)
    assert table["comparisons"][0]["verdict"] == "within noise"
    assert table["subjects"][2] == {
        "subject": "3",
        "windows": 2,
        "models": {SCRATCH_STUDENT: 0.5, DISTILLED_STUDENT: 0.75, INT8_STUDENT: 0.5},
    }
    assert np.sum(table["confusion"][DISTILLED_STUDENT]) == 20


def test_the_published_error_of_pamap2() -> None:
    # Accuracy of the published signal WRN16-1 on nine subjects, three trainings of each; the authors divide
    # np.std(a) by np.sqrt(26).
    scores = {"0": 74.05, "1": 75.59, "2": 93.48, "3": 92.40, "4": 84.85, "5": 89.16, "6": 94.31, "7": 63.60}
    scores["8"] = 100.0
    items = [_Outcome(1, seed, Predictions(*np.zeros((3, 0)))) for seed in range(3)]
    values = np.array([*scores.values()])
    assert _published_error(items, scores) == pytest.approx(
        np.sqrt(((values - values.mean()) ** 2).mean() / 26)
    )


def test_unfinished_folds_are_named(run: Run) -> None:
    predict(run, DISTILLED_STUDENT, 0, set())
    run.fold_run(2, 0).predictions_path(DISTILLED_STUDENT).unlink()
    table = evaluate_run(run)
    assert table["folds_missing"] == [2]
    assert table["models"][DISTILLED_STUDENT]["std_subjects"] is None


def test_nothing_finished_is_refused(run: Run) -> None:
    with pytest.raises(BadInputError, match="no fold is finished"):
        evaluate_run(run)


def test_predictions_of_windows_that_were_not_held_out_are_refused(run: Run) -> None:
    predict(run, DISTILLED_STUDENT, 0, set())
    windows = run.windows()
    everything = np.arange(len(windows))
    path = run.fold_run(1, 0).predictions_path(DISTILLED_STUDENT)
    Predictions(everything, windows.y[:], np.zeros((len(windows), 2), np.float32)).save(path)
    with pytest.raises(BadInputError, match="do not belong to the held-out windows"):
        evaluate_run(run)
    Predictions(everything[4:8], windows.y[4:8], np.zeros((4, 2), np.float32)).save(path)
    with pytest.raises(BadInputError, match="not those of the fold's test subjects"):
        evaluate_run(run)
    Predictions(everything[:4], 1 - windows.y[:4], np.zeros((4, 2), np.float32)).save(path)
    with pytest.raises(BadInputError, match="true classes differ"):
        evaluate_run(run)
    Predictions(everything[:4], windows.y[:4], np.full((4, 2), np.nan, np.float32)).save(path)
    with pytest.raises(BadInputError, match="not finite"):
        evaluate_run(run)


def test_the_verb_writes_and_prints(run: Run) -> None:
    predict(run, SCRATCH_STUDENT, 0, {0, 4})
    predict(run, DISTILLED_STUDENT, 0, {0})
    code = "from topokd_edge.cli import main; main()"
    command = [sys.executable, "-W", "error", "-c", code, "evaluate", str(run.folder)]
    plain = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "student.distilled is within noise of student.scratch" in plain.stdout
    answer = json.loads(subprocess.run([*command, "--json"], check=True, capture_output=True).stdout)
    assert answer == json.loads((run.folder / "evaluation.json").read_text())
    assert answer["protocol"] == "nested-subject"
    missing = subprocess.run([*command[:-1], "nowhere"], check=False, capture_output=True, text=True)
    assert missing.returncode == 3
    assert "not a run" in missing.stderr
