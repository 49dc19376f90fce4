"""docs/data.md says what the program does: its lists are complete, and its messages are those that come."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_files import of_geneactiv
from made_recordings import recording, write_npz
from typer.main import get_command

from topokd_edge.cli.data import app
from topokd_edge.data.importers import IMPORTERS, npz
from topokd_edge.data.options import import_options, preset_names
from topokd_edge.data.prepare import import_windows
from topokd_edge.data.windows import Cut, LabelRule, make_windows
from topokd_edge.errors import TopokdError

DOC = (Path(__file__).parents[1] / "docs" / "data.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", DOC, re.MULTILINE | re.DOTALL)
    assert found is not None, title
    return found[1]


def first_cells(text: str) -> list[str]:
    """The first cell of each row of a table, without its head."""
    cells = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("|")]
    return cells[2:]


def test_every_format_has_a_row() -> None:
    assert [cell.strip("`") for cell in first_cells(section("Formats"))] == list(IMPORTERS)


def test_every_option_has_a_row() -> None:
    options = {
        name
        for item in get_command(app).commands["import"].params  # type: ignore[attr-defined]
        for name in item.opts
        if name.startswith("--") and name not in ("--help", "--keep-transitions")
    }
    options.add("--drop-transitions")
    rows = " ".join(first_cells(section("Options of `data import`")))
    assert set(re.findall(r"--[a-z-]+", rows)) == options


def test_every_array_of_the_neutral_form_has_a_row() -> None:
    rows = " ".join(first_cells(section("The .npz form")))
    assert set(npz.REQUIRED) < set(re.findall(r"`(\w+)`", rows))
    assert "section The .npz form" in Path(npz.__file__).read_text(encoding="utf-8")


def test_every_preset_is_named() -> None:
    assert all(f"`{name}`" in section("Presets") for name in preset_names())


def test_every_key_of_the_account_has_a_row() -> None:
    made = make_windows([recording()], Cut(seconds=1.0), made={}).made
    rows = {cell.strip("`") for cell in first_cells(section('What is left out: `made["dropped"]`'))}
    assert rows == made["dropped"].keys() - {"samples"}


@pytest.mark.parametrize("rule", ["all", "majority", "last", "ends"])
def test_the_drawing_of_the_label_rules(rule: LabelRule) -> None:
    label = re.search(r"^label +([WS.]+)$", DOC, re.MULTILINE)
    drawn = re.search(rf"^{rule} +(\[.*\])$", DOC, re.MULTILINE)
    assert label is not None and drawn is not None
    text = label[1]
    names = ((0, text.index("."), "walk"), (text.index("S"), len(text), "sit"))
    item = recording(samples=len(text), labels=names, rate_hz=8.0)
    windows = make_windows([item], Cut(seconds=1.0, overlap=0.0, label_rule=rule), made={})
    line = [" "] * len(text)
    for start, y in zip(windows.start.tolist(), windows.y.tolist(), strict=True):
        line[start : start + 8] = f"[ {windows.class_names[y]:<4} ]"
    assert drawn[1] == "".join(line).rstrip()


HEAD = "t [s],acc_x [g],acc_y [g],acc_z [g],act\n"


def table(path: str, change: Callable[[int, list[str]], None] = lambda i, cells: None, hz: int = 50) -> None:
    """A good table of 300 rows, each row changed."""
    lines = []
    for i in range(300):
        cells = [f"{i / hz:.3f}", f"{i % 7 / 100}", f"{i % 5 / 100}", f"{1 + i % 3 / 100}", "walk"]
        change(i, cells)
        lines.append(",".join(cells))
    Path(path).parent.mkdir(exist_ok=True)
    Path(path).write_text(HEAD + "\n".join([*lines, ""]), encoding="utf-8")


def at(row: int, column: int, text: str) -> Callable[[int, list[str]], None]:
    def change(i: int, cells: list[str]) -> None:
        if i == row:
            cells[column] = text

    return change


def everywhere(column: int, text: Callable[[int], str]) -> Callable[[int, list[str]], None]:
    return lambda i, cells: cells.__setitem__(column, text(i))


def refusals() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Make files in this folder, and give format, path and flags of imports that are refused."""
    yield "csv", "nowhere.csv", {}
    Path("night").mkdir()
    yield "geneactiv", "night", {}
    table("a.csv")
    yield "geneactiv", "a.csv", {}
    yield "csv", "a.csv", {"label": "activity"}
    yield "geneactiv", "a.csv", {"time": "t:s"}
    yield "uea", "a.csv", {}
    table("gone.csv", at(40, 2, ""))
    yield "csv", "gone.csv", {"label": "act"}
    table("cell.csv", at(7, 2, "o.1"))
    yield "csv", "cell.csv", {"label": "act"}
    table("back.csv", at(50, 0, "0.2"))
    yield "csv", "back.csv", {"label": "act"}
    steps = np.cumsum(np.random.default_rng(0).uniform(0.005, 0.035, 300))
    table("uneven.csv", everywhere(0, lambda i: f"{steps[i]:.4f}"))
    yield "csv", "uneven.csv", {"label": "act"}
    table("flat.csv", everywhere(2, lambda i: "0"))
    yield "csv", "flat.csv", {"label": "act"}
    table("short.csv", everywhere(4, lambda i: "walk" if i < 270 else "run"))
    yield "csv", "short.csv", {"label": "act"}
    table("rates/a.csv")
    table("rates/b.csv", hz=100)
    yield "csv", "rates", {"label": "act"}
    Path("labels.csv").write_text("start,end,label\n0,3,walk\n2,4,sit\n", encoding="utf-8")
    yield "csv", "a.csv", {"labels": "labels.csv", "label": "act"}
    Path("l.csv").write_text("start,end,label\n2024-02-28T23:59:58,2024-02-29T00:00:03,walk\n", "utf-8")
    yield "csv", "a.csv", {"labels": "l.csv", "columns": "acc_x=2,acc_y=3,acc_z=4"}
    Path("zone.csv").write_text("start,end,label\n2024-02-28T23:59:58Z,2024-02-29T00:00:03Z,walk\n", "utf-8")
    of_geneactiv(Path(), 1)
    yield "geneactiv", "made.bin", {"labels": "zone.csv"}
    Path("made.bin").write_bytes(Path("made.bin").read_bytes().replace(b"Page Time:2024", b"Page Time:2O24"))
    yield "geneactiv", "made.bin", {}
    write_npz(Path("set.npz"), fs=np.float64(0))
    yield "npz", "set.npz", {}
    yield "npz", "a.csv", {}
    Path("old.csv").write_text("time,ax,ay,az\n" + "0,0.1,0.2,1\n20,0.1,0.3,1\n" * 3, encoding="utf-8")
    yield "csv", "old.csv", {}


def test_the_messages_of_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    monkeypatch.chdir(tmp_path)
    told = []
    for name, path, flags in refusals():
        with pytest.raises(TopokdError) as caught:
            import_windows(name, Path(path), import_options(None, flags), out=Path("w"))
        told.append(str(caught.value))
    rows = [cell.strip("`") for cell in first_cells(section("What a refusal says, and what to do"))]
    for row in rows:
        assert any(row in text for text in told), f"{row}\nis none of\n" + "\n".join(told)
    for text in told:
        assert any(row in text for row in rows), f"{text}\nis not in docs/data.md"


def test_the_question_about_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    monkeypatch.chdir(tmp_path)
    lines = [f"{1_700_000_000_000 + 20 * i},{i % 7 / 100},0.{i % 5},1,walk" for i in range(100)]
    Path("guess.csv").write_text("\n".join(["timestamp,ax,ay,az,activity", *lines, ""]), encoding="utf-8")
    with pytest.raises(TopokdError) as caught:
        import_windows("csv", Path("guess.csv"), import_options(None, {}), out=Path("w"))
    assert f"```\nerror: {caught.value}\n```" in DOC


def test_cut_has_no_option_that_is_not_told() -> None:
    known = {"seconds", "overlap", "label_rule", "majority", "transitions", "drop_labels"}
    assert {item.name for item in fields(Cut)} == known | {"min_subjects_per_class"}
