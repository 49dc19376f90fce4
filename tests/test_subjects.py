"""Who a file is of, by its folder or its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from topokd_edge.data.subjects import subject_of
from topokd_edge.errors import BadInputError, UsageError


@pytest.mark.parametrize(
    ("rule", "path", "subject"),
    [
        ("folder", "study/S07/left.csv", "S07"),
        ("name:sub(\\d+)", "study/x/sub012_wrist.csv", "012"),
        ("name:^([^_]+)_", "P3_run.csv", "P3"),
        ("name:(?:a|b)-(.)", "b-1 .csv", "1"),
        ("literal:me", "study/x.csv", "me"),
        ("literal:a:b", "x.csv", "a:b"),
    ],
)
def test_rules(rule: str, path: str, subject: str) -> None:
    assert subject_of(rule, Path(path)) == subject


def test_folder_of_a_bare_name_is_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "S1"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert subject_of("folder", Path("a.csv")) == "S1"


@pytest.mark.parametrize(
    "rule", ["", "folders", "folder:x", "name:", "name:(", "name:abc", "literal:", "literal: "]
)
def test_a_bad_rule_is_a_usage_error(rule: str) -> None:
    with pytest.raises(UsageError, match="--subject-from"):
        subject_of(rule, Path("a.csv"))


@pytest.mark.parametrize(
    ("rule", "path"),
    [
        ("name:sub(\\d+)", "x/other.csv"),
        ("name:a(b)?", "x/a.csv"),
        ("name:a(b*)", "x/a.csv"),
        ("name:(a)", "x/" + "a" * 300),
        ("folder", "/a.csv"),
    ],
)
def test_a_file_that_does_not_fit_is_named(rule: str, path: str) -> None:
    with pytest.raises(BadInputError) as caught:
        subject_of(rule, Path(path))
    assert path in str(caught.value)
