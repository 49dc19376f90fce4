"""Claims of a recipe are decided by their comparisons; smoothness is measured as by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from topokd_edge.evaluate.compare import Comparison, compare
from topokd_edge.evaluate.experiments import decide, signatures
from topokd_edge.evaluate.smoothness import answer_smoothness, entropy, smoothness
from topokd_edge.files import write_json
from topokd_edge.run import FoldRun, Predictions

BASE = {str(who): 0.5 + 0.01 * who for who in range(8)}


def against_base(change: float, spread: float = 0.005) -> Comparison:
    """A model that is so much better than BASE on each of eight subjects, give or take a little."""
    other = {who: score + change + spread * (-1) ** int(who) for who, score in BASE.items()}
    return compare("base", f"by {change}", BASE, other)


def verdict(changes: list[float], **options: Any) -> str:
    compared = {("base", f"by {change}"): against_base(change) for change in changes}
    claim = {"claim": "it is so", "pairs": [list(pair) for pair in compared], **options}
    return str(decide(claim, compared)["verdict"])


def test_a_claim_of_all_pairs() -> None:
    assert verdict([0.05, 0.03]) == "confirmed"
    assert verdict([0.05, 0.0]) == "within noise"
    assert verdict([0.05, -0.05]) == "refuted"
    assert verdict([0.0]) == "within noise"


def test_a_claim_of_any_pair() -> None:
    assert verdict([0.05, 0.0, -0.05], holds="any") == "confirmed"
    assert verdict([0.0, 0.001], holds="any") == "within noise"
    assert verdict([-0.05, -0.03], holds="any") == "refuted"
    assert verdict([-0.05, 0.0], holds="any") == "within noise"


def test_the_best_of_several_must_be_better_by_more() -> None:
    # Six subjects, all better: p = 2/64 = 0.031. Alone that is below 0.05, among two it must be below 0.025.
    base = {str(who): 0.5 for who in range(6)}
    better = compare("a", "b", base, {who: 0.55 + 0.001 * int(who) for who in base})
    assert better.verdict == "better"
    assert better.p == pytest.approx(2 / 64)
    nothing = compare("a", "c", base, {who: 0.5 + 0.01 * (-1) ** int(who) for who in base})
    alone = decide({"claim": "", "pairs": [["a", "b"]], "holds": "any"}, {("a", "b"): better})
    two = {"claim": "", "pairs": [["a", "b"], ["a", "c"]], "holds": "any"}
    assert alone["verdict"] == "confirmed"
    assert decide(two, {("a", "b"): better, ("a", "c"): nothing})["verdict"] == "within noise"


def test_what_was_not_compared_is_told() -> None:
    compared = {("base", "by 0.05"): against_base(0.05)}
    made = decide({"claim": "c", "pairs": [["base", "by 0.05"], ["base", "x"]]}, compared)
    assert made["verdict"] == "not tested"
    assert made["sentences"][1] == "x against base: not compared"


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        ({"size": [64, 64], "normalise": "max"}, "confirmed"),
        ({"size": [32, 32], "normalise": "max"}, "refuted"),
        ({"size": [64, 64], "normalise": "none"}, "refuted"),
        (None, "refuted"),
    ],
)
def test_images_may_be_part_of_a_claim(made: dict[str, Any] | None, expected: str, tmp_path: Path) -> None:
    write_json(tmp_path / "preprocessing.json", {"topology": made} if made else {})
    compared = {("base", "by 0.05"): against_base(0.05)}
    claim = {"claim": "c", "pairs": [["base", "by 0.05"]], "images": [64, 64]}
    assert decide(claim, compared, [FoldRun(tmp_path, 1, 0)])["verdict"] == expected


def test_only_signatures_that_were_found_are_told(tmp_path: Path) -> None:
    rows = [{"name": "a", "found": True}, {"name": "b", "found": False}, {"name": "c", "found": None}]
    write_json(tmp_path / "selection.json", {"signatures": rows})
    assert signatures([FoldRun(tmp_path, 3, 7)]) == [{"fold": 3, "seed": 7, "name": "a", "found": True}]
    assert signatures([FoldRun(tmp_path / "nothing", 1, 0)]) == []


def test_entropy_by_hand() -> None:
    assert entropy(np.zeros((3, 4), np.float32)) == pytest.approx(math.log(4))
    logits = np.array([[0.0, math.log(3)]], np.float32)
    assert entropy(logits) == pytest.approx(-(0.25 * math.log(0.25) + 0.75 * math.log(0.75)))
    p = 1 / (1 + math.sqrt(3))
    assert entropy(logits, 2.0) == pytest.approx(-(p * math.log(p) + (1 - p) * math.log(1 - p)))
    assert entropy(np.array([[1e4, -1e4]], np.float32)) == 0


def test_answers_by_hand() -> None:
    # Three windows of two classes: right with 3/4, wrong with 3/4, undecided.
    logits = np.array([[math.log(3), 0.0], [math.log(3), 0.0], [0.0, 0.0]], np.float32)
    found = answer_smoothness(logits, np.array([0, 1, 0]))
    assert found["confidence"] == pytest.approx((0.75 + 0.75 + 0.5) / 3)
    assert found["margin"] == pytest.approx((0.5 - 0.5 + 0.0) / 3)
    assert found["accuracy"] == pytest.approx(2 / 3)
    # Bins of 3/4: accuracy 1/2 of two windows; of 1/2: accuracy 1 of one.
    assert found["ece"] == pytest.approx(2 / 3 * 0.25 + 1 / 3 * 0.5)


def test_what_is_added_is_less_the_student_from_scratch(tmp_path: Path) -> None:
    y = np.array([0, 1, 0, 1])
    sharp = (6 * np.eye(2)[y]).astype(np.float32)
    said = {
        "teacher.signal": Predictions(np.arange(4), y, sharp),
        "student.scratch": Predictions(np.arange(4), y, sharp),
        "student.soft": Predictions(np.arange(4), y, sharp / 6),
    }
    lines = ['{"train_entropy_labels": 9}', '{"train_entropy_labels": 0.5, "train_entropy_signal": 0.25}']
    folder = tmp_path / "student.soft"
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    found = smoothness([FoldRun(tmp_path, 1, 0)], said)
    soft = found["answers"]["student.soft"]
    assert soft["entropy_added"] == pytest.approx(entropy(sharp / 6) - entropy(sharp))
    assert soft["ece_added"] == pytest.approx(1 - math.e / (1 + math.e) - (1 - 1 / (1 + math.exp(-6))))
    assert found["answers"]["student.scratch"]["ece_added"] == 0
    assert "ece_added" not in found["answers"]["teacher.signal"]
    assert found["targets"] == {"student.soft": {"labels": 0.5, "signal": 0.25}}
    by_temperature = list(found["softened"]["teacher.signal"].values())
    assert by_temperature == sorted(by_temperature)
    assert list(found["softened"]["teacher.signal"]) == ["1", "2", "4", "8", "12"]
