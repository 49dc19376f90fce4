"""The model card: front matter that YAML reads, numbers that come from elsewhere too, honest words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from made_recordings import windows_of
from scipy import stats

from topokd_edge.bundle import Manifest, ModelFile, Normalisation
from topokd_edge.data.windowset import WindowSet
from topokd_edge.errors import BadInputError
from topokd_edge.files import write_json
from topokd_edge.report.model_card import model_card
from topokd_edge.run import DISTILLED_STUDENT, INT8_STUDENT, Predictions, Run

NAMES = ('a "b": c', "run | walk", "sit")
RIGHT = {"1": 0.9, "2": 0.6, "3": 0.75, "4": 0.8}
"""Share of each subject's 20 windows that the student names rightly."""
LOSS = {"loss": 0.05, "ci95": [0.01, 0.09], "float32": 0.9, "int8": 0.85, "windows": 20}


def windows() -> WindowSet:
    rng = np.random.default_rng(0)
    made = {"format": "npz", "source": "watch.npz", "credit": "A. Nobody", "licence": "CC BY 4.0"}
    subject = np.repeat([*RIGHT], 20)
    return windows_of(rng.normal(size=(80, 2, 10)), np.arange(80) % 3, subject, NAMES, made=made)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Four folds, each tested on one subject."""
    data = windows()
    data.save(tmp_path / "windows")
    run = Run(tmp_path / "run")
    run.write("data.json", {**data.describe(), "path": str(tmp_path / "windows")})
    people = [*RIGHT]
    run.write(
        "folds.json",
        [
            {"fold": k + 1, "test": [p], "validation": [people[k - 1]], "fit": [q for q in people if q != p]}
            for k, p in enumerate(people)
        ],
    )
    for number, (who, share) in enumerate(RIGHT.items(), start=1):
        index = data.of_subjects([who])
        y = data.y[index]
        for model, wrong in ((DISTILLED_STUDENT, 1 - share), (INT8_STUDENT, 1 - share + 0.1)):
            said = y.copy()
            said[: round(20 * wrong)] = (said[: round(20 * wrong)] + 1) % 3
            place = run.fold_run(number, 0).predictions_path(model)
            Predictions(index, y, 4 * np.eye(3, dtype=np.float32)[said]).save(place)
    return run


def manifest() -> Manifest:
    return Manifest(
        channels=2,
        length=10,
        rate_hz=50.0,
        channel_names=("acc_x", "acc_y"),
        units=("g", "g"),
        normalisation=Normalisation((0.0, 0.0), (1.0, 1.0)),
        class_names=NAMES,
        files=(ModelFile("onnx", "float32", "student_float32.onnx", 1234, "0" * 64),),
        int8=None,
        macs=100,
        params=61843,
        self_test="selftest.npz",
        versions={"torch": "2"},
    )


def card(run: Run, loss: dict[str, Any] | None = None) -> str:
    return model_card(run, run.fold_run(1, 0), run.windows(), manifest(), loss)


def parts(text: str) -> tuple[dict[str, Any], str]:
    _, front, body = text.split("---\n", 2)
    return yaml.safe_load(front), body


def test_the_front_matter_is_what_hugging_face_reads(run: Run) -> None:
    front, _ = parts(card(run))
    assert front["license"] == "unknown"
    assert front["library_name"] == "topokd-edge"
    assert {"human-activity-recognition", "onnx"} <= set(front["tags"])
    (entry,) = front["model-index"]
    (result,) = entry["results"]
    assert result["dataset"] == {"type": "npz", "name": "watch.npz"}
    assert result["metrics"][0]["type"] == "accuracy"
    assert result["metrics"][0]["value"] == 90.0
    assert set(result["task"]) == {"type"}


def test_accuracies_and_intervals_are_those_of_scipy(run: Run) -> None:
    _, body = parts(card(run))
    scores = np.array([*RIGHT.values()])
    low, high = stats.t.interval(0.95, 3, scores.mean(), stats.sem(scores))
    assert high < 1
    assert (
        f"{100 * scores.mean():.1f} % of windows (95 % interval {100 * low:.1f} % to {100 * high:.1f} %)"
        in body
    )
    right = np.repeat([1.0, 0.0], [18, 2])
    low, high = stats.t.interval(0.95, 19, right.mean(), stats.sem(right))
    assert f"90.0 % of 20 windows (95 % interval {100 * low:.1f} % to {100 * min(high, 1):.1f} %)" in body
    for who, share in RIGHT.items():
        assert f"| {who} | 20 | {100 * share:.1f} % |" in body


def test_who_is_held_out_and_what_the_data_are(run: Run) -> None:
    _, body = parts(card(run))
    assert "| held out: nothing was learned from or chosen on them | 1 |" in body
    assert "| validation: epoch and settings were chosen on them | 4 |" in body
    assert "Credit: A. Nobody. Licence: CC BY 4.0." in body
    assert run.windows().content_hash in body
    assert "| run / walk | 27 |" in body, "a name with a bar breaks the table"
    assert "It knows 3 classes and no other" in body


def test_what_int8_costs(run: Run) -> None:
    assert "This bundle has no int8 model." in card(run)
    text = card(run, LOSS)
    assert (
        "5.0 points on 20 held-out windows (95 % interval \u22129.0 to \u22121.0): 90.0 % in float32" in text
    )
    assert (
        "student.int8 is worse than student.distilled" in text or "within noise of student.distilled" in text
    )


def test_only_measurements_of_these_files_are_shown(run: Run) -> None:
    assert "None yet: `topokd-edge bench" in card(run)
    entry = {
        "target": "local",
        "basis": "measured",
        "pipeline": "student.float32",
        "runtime": "onnxruntime",
        "model_bytes": 1234,
        "ram_bytes": 30_000_000,
        "latency_ms": {"p50": 0.25, "p95": 0.5, "p99": 1.0, "min": 0.2, "cold": 90.0},
        "device": {"cpu": "Some CPU"},
    }
    other = {**entry, "runtime": "litert", "model_bytes": 999}
    failed = {**entry, "latency_ms": None, "runtime": "broken"}
    write_json(run.folder / "bench.json", {"results": [entry, other, failed]})
    text = card(run)
    assert (
        "| local | Some CPU | measured | student.float32 on onnxruntime | 250 µs | 500 µs | 30.0 MB |" in text
    )
    assert "litert" not in text and "broken" not in text


def test_the_optimistic_protocol_is_marked(run: Run) -> None:
    assert "optimistic" not in card(run)
    (run.folder / "recipe.toml").write_text('name = "x"\nprotocol = "paper"\n')
    assert "**These numbers are optimistic" in card(run)


def test_the_same_run_gives_the_same_text(run: Run) -> None:
    assert card(run, LOSS) == card(run, LOSS)


def test_predictions_of_other_windows_are_refused(run: Run) -> None:
    path = run.fold_run(2, 0).predictions_path(DISTILLED_STUDENT)
    told = Predictions.open(path)
    Predictions(told.window - 1, told.y, told.logits).save(path)
    with pytest.raises(BadInputError, match="do not belong to the held-out windows"):
        card(run)
