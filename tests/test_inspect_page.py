"""The page of an inspection: whole, offline, escaped, and its verb on the command line."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import typer
from made_recordings import recording, shared_data, write_npz
from typer.testing import CliRunner

from topokd_edge.cli.inspect import inspect_data
from topokd_edge.data.inspection import Inspected, look
from topokd_edge.data.options import import_options
from topokd_edge.data.prepare import import_windows
from topokd_edge.data.recording import Clock, Gap
from topokd_edge.data.recordingset import RecordingSet
from topokd_edge.data.timeline import envelope, zoom
from topokd_edge.data.windows import Cut, make_windows
from topokd_edge.errors import BadInputError, UsageError
from topokd_edge.report.findings import findings
from topokd_edge.report.inspect_figures import class_colours
from topokd_edge.report.inspect_page import write_page
from topokd_edge.report.signals import Panel, closer, overview

HOSTILE = '<b>sitting</b> & "$x_1$"'
ALL_SECTIONS = ["findings", "signals", "clocks", "units", "classes", "wear", "dropped", "made", "examples"]
app = typer.Typer(pretty_exceptions_enable=False)
app.command()(inspect_data)


class Page(HTMLParser):
    """Every tag closed in order; what the page would load, its ids and what refers to them, its text."""

    VOID = ("meta", "br", "wbr")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.open: list[str] = []
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.refers: set[str] = set()
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self._note(tag, attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self._note(tag, attrs)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def _note(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            assert not name.startswith("on"), f"{tag} {name}"
            if name == "id":
                self.ids.append(value)
            if name in ("src", "srcset", "data", "poster", "action") or (
                name.endswith("href") and value[0] != "#"
            ):
                self.loads.append(value)
            if name.endswith("href") and value[0] == "#":
                self.refers.add(value[1:])
            self.refers |= set(re.findall(r"url\(#([^)]+)\)", value or ""))


def page_of(inspected: Inspected, folder: Path) -> Page:
    facts = look(inspected)
    write_page(inspected, facts, findings(inspected, facts), folder / "page.html")
    return Page((folder / "page.html").read_text("utf-8"))


def hostile_set() -> Inspected:
    """Two people; gaps, filled samples, a wrong clock, names that are markup."""
    first = recording(
        HOSTILE, 3000, labels=((0, 1000, HOSTILE), (1000, 2000, "walking"), (2500, 3000, HOSTILE))
    )
    first = replace(
        first,
        gaps=(Gap(499, 65.0), Gap(1499, 0.0)),
        filled=((700, 720),),
        start="2025-03-30T08:00:00",
        clock=Clock(25.5, 25.0, 0.001, 0.02, 900.0, 3, (25.5, float("nan"), 25.5)),
        source="<i>study</i>/a.bin",
        notes=("page <3> is cut off",),
    )
    second = recording("2", 2000, labels=((0, 1000, "walking"), (1000, 2000, HOSTILE)))
    made = {
        "source": "<u>study</u>",
        "credit": "A & B",
        "licence": "CC0-1.0",
        "refused": [{"file": "<s>.bin", "reason": "<s>.bin: page 3 is damaged"}],
        "channels_left_out": ["light<"],
        "warnings": [["<em>odd</em>"], []],
    }
    return Inspected.of("<h1>set</h1>", make_windows([first, second], Cut(2.0, 0.5), made=made))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return page_of(hostile_set(), tmp_path_factory.mktemp("hostile"))


class TestPage:
    def test_it_loads_nothing_and_runs_nothing(self, hostile: Page) -> None:
        assert hostile.loads == []
        assert not {"script", "link", "img", "iframe", "object", "form"} & set(hostile.tags)
        assert "://" not in re.sub(r'xmlns(:xlink)?="[^"]+"', "", hostile.html)
        assert "default-src 'none'" in hostile.html

    def test_every_section_is_there_once_and_every_reference_leads_somewhere(self, hostile: Page) -> None:
        assert [name for name in hostile.ids if name in ALL_SECTIONS] == ALL_SECTIONS
        assert len(set(hostile.ids)) == len(hostile.ids)
        assert hostile.refers <= set(hostile.ids)

    def test_names_are_text(self, hostile: Page) -> None:
        for name in (HOSTILE, "<i>study</i>/a.bin", "<u>study</u>", "<s>.bin", "light<", "<em>odd</em>"):
            assert name in hostile.text
        assert not {"i", "u", "s", "em"} & set(hostile.tags)
        assert hostile.tags.count("h1") == 1

    def test_nothing_reads_like_a_failed_number(self, hostile: Page) -> None:
        assert not re.search(r"\b(nan|NaN|inf|None|undefined)\b", hostile.text)
        assert not re.search(r'd="[^"]*nan', hostile.html, re.IGNORECASE)

    def test_what_is_odd_is_said(self, hostile: Page) -> None:
        for words in ("1 min 5 s", "1 border", "25.5 Hz", "20 samples interpolated", "page <3> is cut off"):
            assert words in hostile.text

    def test_the_gap_is_hatched_and_named_in_the_picture(self, hostile: Page) -> None:
        pictures = re.findall(r"<svg.*?</svg>", hostile.html, re.DOTALL)
        assert "1 min 5 s" in pictures[0]
        assert "<pattern" in pictures[0]
        assert "08:0" in pictures[0]
        assert "time since the start" in "".join(pictures[2:4])

    def test_no_label_is_drawn_over_a_gap(self) -> None:
        item = recording(samples=200, gaps=((99, 2.0),))
        panels = [Panel("g", (0, 1, 2))]
        seen = envelope(item, [0, 1, 2], 50)
        near = zoom(item, seen, 8.0)
        for picture in (
            closer("x", item, panels, {"a": "#123456"}, near),
            overview("x", item, panels, seen, {"a": "#123456"}, near),
        ):
            assert picture.count("fill: #123456") == 2

    def test_before_windows_are_cut(self, tmp_path: Path) -> None:
        whole = hostile_set()
        page = page_of(Inspected("files", whole.recordings, {}), tmp_path)
        assert [name for name in page.ids if name in ALL_SECTIONS] == [
            name for name in ALL_SECTIONS if name not in ("dropped", "examples")
        ]
        assert "Labelled time." in page.text

    def test_without_labels_acceleration_or_stamps(self, tmp_path: Path) -> None:
        item = replace(recording(samples=30), labels=(), units=("bpm", "lux", "1"), channels=("a", "b", "c"))
        page = page_of(Inspected("files", RecordingSet.of((item,)), {}), tmp_path)
        assert [name for name in page.ids if name in ALL_SECTIONS] == [
            "findings",
            "signals",
            "clocks",
            "wear",
            "made",
        ]
        assert "nothing here can check it" in page.text

    @pytest.mark.parametrize("samples", [1, 2, 9])
    def test_a_recording_of_hardly_anything(self, tmp_path: Path, samples: int) -> None:
        page = page_of(Inspected("tiny", RecordingSet.of((recording(samples=samples),)), {}), tmp_path)
        assert "signals" in page.ids

    @pytest.mark.parametrize(
        ("subjects", "classes"), [(42, 20), pytest.param(200, 60, marks=pytest.mark.slow)]
    )
    def test_many_subjects_and_classes(self, tmp_path: Path, subjects: int, classes: int) -> None:
        labels = tuple((n * 40, n * 40 + 40, f"class number {n} with a long name") for n in range(classes))
        people = [recording(f"s{n}", 40 * classes, labels=labels, source=f"f{n}") for n in range(subjects)]
        page = page_of(Inspected.of("many", make_windows(people, Cut(1.0, 0.0), made={})), tmp_path)
        assert len(page.html) < 2_000_000
        assert page.tags.count("figure") == 6 * 2 + 1 + classes
        assert page.text.count(f"class number {classes - 1} with a long name") >= 3

    def test_sixty_classes_have_names_beside_colours_that_repeat(self) -> None:
        colours = class_colours([str(n) for n in range(60)])
        assert len(set(list(colours.values())[:24])) == 24
        assert all(re.fullmatch("#[0-9a-f]{6}", colour) for colour in colours.values())


def small_windows(folder: Path) -> Path:
    options = import_options(None, {"seconds": 1.0, "overlap": 0.0})
    import_windows("npz", write_npz(folder / "study.npz"), options, out=folder / "windows")
    return folder / "windows"


class TestVerb:
    def test_a_window_set(self, tmp_path: Path) -> None:
        place = small_windows(tmp_path)
        result = CliRunner().invoke(app, [str(place)])
        assert result.exit_code == 0, result.output
        page = Page((place / "inspect.html").read_text("utf-8"))
        assert "windows: the data before training" in page.text
        assert "Classes" in result.stdout
        assert "inspect.html" in result.stdout

    def test_a_page_is_not_overwritten_unasked(self, tmp_path: Path) -> None:
        place, out = small_windows(tmp_path), tmp_path / "page.html"
        out.write_text("mine")
        result = CliRunner().invoke(app, [str(place), "--out", str(out)])
        assert isinstance(result.exception, BadInputError)
        assert out.read_text() == "mine"
        assert CliRunner().invoke(app, [str(place), "--out", str(out), "--overwrite"]).exit_code == 0
        assert out.read_text().startswith("<!doctype html>")

    def test_json_is_one_document_and_writes_no_page_unasked(self, tmp_path: Path) -> None:
        place = small_windows(tmp_path)
        document = json.loads(CliRunner().invoke(app, [str(place), "--json"]).stdout)
        assert document["subjects"] == ["1", "2", "3", "4"]
        assert document["windows"] == [[4] * 4] * 2
        assert document["labelled_seconds"] == [[4.0] * 4] * 2
        assert document["page"] is None
        assert not (place / "inspect.html").exists()

    def test_files_that_are_not_imported_yet(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        write_npz(tmp_path / "study.npz")
        options = ["study.npz", "--format", "npz", "--channels", "acc_x,acc_z", "--rate", "50"]
        result = CliRunner().invoke(app, [*options, "--json", "--out", "page.html"])
        assert result.exit_code == 0, result.output
        document = json.loads(result.stdout)
        assert (document["channels"], document["rate_hz"], document["windows"]) == (
            ["acc_x", "acc_z"],
            50.0,
            None,
        )
        assert "study.npz" in (tmp_path / "page.html").read_text("utf-8")
        assert sorted(item.name for item in tmp_path.iterdir()) == ["page.html", "study.npz"]

    def test_reading_flags_need_a_format(self, tmp_path: Path) -> None:
        result = CliRunner().invoke(app, [str(tmp_path), "--rate", "50", "--subject-from", "folder"])
        assert isinstance(result.exception, UsageError)
        assert "--rate, --subject-from" in str(result.exception)

    def test_what_is_no_window_set_is_refused(self, tmp_path: Path) -> None:
        assert isinstance(CliRunner().invoke(app, [str(tmp_path)]).exception, BadInputError)

    def test_a_geneactiv_file_without_labels(self, tmp_path: Path) -> None:
        source = shared_data("geneactiv/genearead_TESTfile.bin")
        out = tmp_path / "page.html"
        result = CliRunner().invoke(app, [str(source), "--format", "geneactiv", "--out", str(out)])
        assert result.exit_code == 0, result.output
        page = Page(out.read_text("utf-8"))
        assert "2012-05-23 16:47" in page.text
        assert "No labels" in page.text


def test_dsads_makes_a_page_of_less_than_two_megabytes(tmp_path: Path) -> None:
    options = import_options(None, {})
    source = shared_data("dsads/dsads_3imu_25hz.npz")
    windows = import_windows("npz", source, options, out=tmp_path / "windows")
    page = page_of(Inspected.of("dsads", windows), tmp_path)
    assert 100_000 < len(page.html.encode()) < 2_000_000
    assert "5 recordings with 4 min 38 s frozen" in page.text
