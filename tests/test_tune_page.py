"""The page of a search: whole, offline, escaped; its front is the front, and it says what it is worth."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_report import HOSTILE, Page
from test_tune import SPACE, TIMING, peak, space, started, windows
from typer.testing import CliRunner

from topokd_edge.cli import app
from topokd_edge.distill.recipe import Recipe
from topokd_edge.distill.tuning.job import Plan, Search
from topokd_edge.distill.tuning.results import write_results
from topokd_edge.distill.tuning.search import run_trials
from topokd_edge.distill.tuning.trials import Scores
from topokd_edge.errors import BadInputError, TopokdError, UsageError
from topokd_edge.files import write_json
from topokd_edge.report.tuning_figures import apart, stairs
from topokd_edge.report.tuning_page import is_search, write_search_page


def judge(tried: Recipe, number: int) -> Scores:
    """As `peak`, with a latency; trial 2 diverges."""
    if number == 2:
        raise TopokdError(f"not finite {HOSTILE}")
    found = peak(tried, number)
    return Scores(found.accuracy, found.macs, found.params, (), 0.187 * found.macs / 1000, dict(TIMING))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "w"
    windows().save(path)
    return path


@pytest.fixture(scope="module")
def search(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Search:
    plan = Plan(objectives=("accuracy", "macs", "latency"))
    made = started(data, tmp_path_factory.mktemp("page") / "watch-tune", plan)
    write_results(made, run_trials(made, judge, 12))
    return made


@pytest.fixture(scope="module")
def html(search: Search, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("html") / "report.html"
    write_search_page(search.folder, out)
    return out.read_text("utf-8")


def results(search: Search) -> dict[str, Any]:
    return dict(json.loads((search.folder / "trials.json").read_text("utf-8")))


class TestPage:
    def test_it_is_one_file_that_loads_nothing(self, html: str) -> None:
        page = Page(html)
        assert all(load.startswith("#") for load in page.loads)
        assert not page.tags & {"script", "link", "iframe", "object", "embed", "img", "base", "form"}
        assert len(page.ids) == len(set(page.ids)) and page.refers <= set(page.ids)
        assert not re.search(r"url\((?!#)|@import|https?://(?!www\.w3\.org)", html)

    def test_hostile_text_stays_text(self, html: str) -> None:
        assert f"Trial 2: not finite {HOSTILE}" in Page(html).text

    def test_every_trial_and_what_it_costs_is_shown(self, search: Search, html: str) -> None:
        text, found = Page(html).text, results(search)
        assert "11 of 12 trials were finished, 1 failed." in text
        for row in found["trials"]:
            if row["state"] == "complete":
                assert f"{100 * row['accuracy']:.1f} %" in text
        assert "187 µs" in text and "374 µs" in text
        assert "1\u202f000" in text and "2\u202f000" in text

    def test_what_the_numbers_are_worth_and_the_next_command(self, search: Search, html: str) -> None:
        text, found = Page(html).text, results(search)
        assert found["caveats"] and all(line in text for line in found["caveats"])
        assert any("Latency was measured on A" in line for line in found["caveats"])
        assert f"--recipe {search.folder / 'best.toml'} --folds 1" in text

    def test_the_front_is_that_of_the_search(self, search: Search, html: str) -> None:
        found = results(search)
        table = html.split("Trials that no other beats")[1].split("</table>")[0]
        listed = [int(number) for number in re.findall(r'<th scope="row">(\d+)</th>', table)]
        assert listed == found["pareto"] and listed[0] == found["best"]
        for section in html.split("<figure")[1:3]:
            drawn = {int(number) for number in re.findall(r">(\d+)</text>", section.split("</svg>")[0])}
            assert drawn >= set(found["pareto"])

    def test_a_cost_nobody_measured_is_not_shown(self, data: Path, tmp_path: Path) -> None:
        bare = started(data, tmp_path / "t")
        write_results(bare, run_trials(bare, peak, 4))
        write_search_page(bare.folder, tmp_path / "r.html")
        page = (tmp_path / "r.html").read_text("utf-8")
        assert "atency" not in page and page.count("<figure") == 3

    def test_the_end_of_a_range_is_told(self, data: Path, tmp_path: Path) -> None:
        """The planted best is tau 0.5, outside this space: trials press against its lower end."""
        narrow = SPACE.replace("low = 0.1, high = 0.9", "low = 0.8, high = 0.9, step = 0.1")
        for asked, told in ((narrow, True), (SPACE, False)):
            here = started(data, tmp_path / str(told), of=space(asked))
            write_results(here, run_trials(here, peak, 12))
            write_search_page(here.folder, tmp_path / f"{told}.html")
            text = Page((tmp_path / f"{told}.html").read_text("utf-8")).text
            assert ("tau of the best trial is 0.8, an end of its range" in text) is told

    def test_a_search_without_a_finished_trial_has_a_page(self, data: Path, tmp_path: Path) -> None:
        def fails(tried: Recipe, number: int) -> Scores:
            raise TopokdError("the loss is not finite")

        bare = started(data, tmp_path / "t")
        write_results(bare, run_trials(bare, fails, 1))
        write_search_page(bare.folder, tmp_path / "r.html")
        text = Page((tmp_path / "r.html").read_text("utf-8")).text
        assert "0 of 1 trials were finished, 1 failed." in text and "Trial 0: the loss is not finite" in text


class TestRefusals:
    def test_a_search_that_has_just_begun(self, data: Path, tmp_path: Path) -> None:
        bare = started(data, tmp_path / "t")
        with pytest.raises(BadInputError, match="no trial of this search has ended"):
            write_search_page(bare.folder, tmp_path / "r.html")

    @pytest.mark.parametrize(
        "damage", [{"trials": 3}, {"pareto": [99]}, {"sampler": None}, {"trials": [{"state": "complete"}]}]
    )
    def test_a_damaged_file_is_named_and_nothing_is_written(
        self,
        data: Path,
        tmp_path: Path,
        damage: dict[str, Any],
    ) -> None:
        bare = started(data, tmp_path / "t")
        found = write_results(bare, run_trials(bare, peak, 2))
        write_json(bare.folder / "trials.json", {**found, **damage})
        with pytest.raises(BadInputError, match=r"trials\.json"):
            write_search_page(bare.folder, tmp_path / "r.html")
        assert not (tmp_path / "r.html").exists()

    def test_the_command(self, search: Search, tmp_path: Path) -> None:
        out, call = tmp_path / "r.html", ["report", str(search.folder), "--out", str(tmp_path / "r.html")]
        answer = CliRunner().invoke(app, [*call, "--json"], catch_exceptions=False)
        assert json.loads(answer.stdout) == {
            "report": str(out),
            "bytes": out.stat().st_size,
            "missing": [],
        }
        with pytest.raises(BadInputError, match="exists"):
            CliRunner().invoke(app, call, catch_exceptions=False)
        with pytest.raises(UsageError, match="this is a search"):
            CliRunner().invoke(app, [*call, "--overwrite", "b.json"], catch_exceptions=False)
        assert is_search(search.folder) and not is_search(tmp_path)


class TestFigures:
    def test_the_line_is_the_best_accuracy_up_to_a_price(self) -> None:
        rng = np.random.default_rng(0)
        for _ in range(50):
            cost, accuracy = rng.integers(1, 6, 12).astype(float), rng.integers(0, 8, 12) / 8
            line = stairs(cost, accuracy)
            for price in np.unique(cost):
                reached = max(accuracy[index] for index in line if cost[index] <= price)
                assert reached == accuracy[cost <= price].max()
            assert all(np.diff(cost[line]) > 0) and all(np.diff(accuracy[line]) > 0)

    def test_labels_do_not_overlap(self) -> None:
        """On a logarithmic axis from 1 to 100, 10 is in the middle; 90 is next to 100."""
        assert apart(np.array([1.0, 10.0, 90.0, 100.0]), log=True) == [1.0, 10.0, 100.0]
        assert apart(np.array([1.0, 10.0, 90.0, 100.0]), log=False) == [1.0, 100.0]
        assert apart(np.array([5.0, 5.0]), log=False) == [5.0]
