"""The tables of exports: agreement by hand, and the page says what its JSON says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from topokd_edge.files import read_json

ROOT = Path(__file__).parents[1]
pytest.importorskip("topokd_export")


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


def test_agreement_by_hand() -> None:
    from exported import MICRO, agreement

    said = {
        "torch, float32": np.array([[1.0, 0.0], [0.0, 2.0], [0.3, 0.2], [0.0, 1.0]]),
        MICRO: np.array([[1.0, 0.0], [0.0, 2.0], [0.0, 0.5], [0.0, 1.0]]),
        "another, int8": np.array([[1.0, 0.0], [0.0, 2.5], [0.5, 0.5], [1.0, 1.0]]),
        "the same, float32 ends": np.array([[1.0, 0.0], [0.0, 2.0], [0.0, 0.5], [0.0, 1.0]]),
    }
    found = agreement(said, step=0.5)
    assert found["torch, float32"] == {"same_class_as_torch": 1.0, "largest_difference_from_torch": 0.0}
    assert found[MICRO] == {
        "same_class_as_torch": 0.75,
        "largest_difference_from_torch": pytest.approx(0.3),
        "equal_logits": 1.0,
        "worst_step": 0.0,
    }
    other = found["another, int8"]
    assert (other["same_class_as_torch"], other["equal_logits"], other["worst_step"]) == (0.75, 5 / 8, 2.0)
    assert found["the same, float32 ends"]["equal_logits"] == 1.0


def test_the_page_says_what_its_json_says() -> None:
    from export_table import page

    document = read_json(ROOT / "docs" / "results" / "export.json")
    found = {name: document[name] for name in ("3x500", "6x128", "40x100")}
    assert page(found) == (ROOT / "docs" / "results" / "export.md").read_text("utf-8")
    assert all(item["export_s"]["wall"] < 60 for item in found.values())


def test_made_signals_are_of_the_asked_shape_and_spread_over_subjects() -> None:
    from export_table import MADE, SUBJECTS, made_windows

    channels, length, classes = MADE["40x100"]
    windows = made_windows(channels, length, classes)
    assert windows.x[[0]].shape == (1, channels, length)
    assert {
        (who, label) for who, label in zip(windows.subject.tolist(), windows.y.tolist(), strict=True)
    } == {(str(who), label) for who in range(1, SUBJECTS + 1) for label in range(classes)}
