"""The report: one offline page that shows everything there is, and says what is not there."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import made_bench
import numpy as np
import pytest
from export_cases import make_run as export_run
from made_recordings import windows_of
from topokd_export.export import export_student
from typer.testing import CliRunner

from topokd_edge.cli._bench_documents import read_documents
from topokd_edge.data.windowset import WindowSet
from topokd_edge.errors import BadInputError, UsageError
from topokd_edge.evaluate.run_table import evaluate_run
from topokd_edge.files import write_json, write_text
from topokd_edge.report import examples
from topokd_edge.report.build import write_report
from topokd_edge.run import DISTILLED_STUDENT, INT8_STUDENT, MODELS, TRAINED, Predictions, Run
from topokd_edge.topology.params import fit_params

HOSTILE = '<script>alert("1")</script> & $x_1$'
CLASSES = (HOSTILE, "cycling", "sitting", "stairs up", "walking")
SUBJECTS = tuple(str(number) for number in range(1, 9))
SKILL = dict(zip(MODELS, (0.93, 0.84, 0.88, 0.91, 0.905), strict=True))
RATE = 50.0


def synthetic_windows(seed: int = 0) -> WindowSet:
    rng = np.random.default_rng(seed)
    per = 6
    y = np.tile(np.repeat(np.arange(len(CLASSES)), per), len(SUBJECTS))
    subject = np.repeat(np.array(SUBJECTS), per * len(CLASSES))
    time = np.arange(128) / RATE
    x = np.empty((len(y), 6, len(time)), dtype=np.float32)
    for window, label in enumerate(y):
        pace = 0.6 + 0.7 * label + 0.1 * rng.normal()
        for channel in range(6):
            phase, size = rng.uniform(0, 6), (0.2 + 0.3 * label) * (2.0 if channel > 2 else 1.0)
            wave = size * np.sin(2 * np.pi * pace * time + phase) + 0.3 * size * np.sin(9 * pace * time)
            x[window, channel] = wave + 0.05 * rng.normal(size=len(time)) + (channel == 2)
    dropped = {
        "samples": 40_000,
        "in_windows": 30_720,
        "unlabelled": 5_000,
        "too_short": 900,
        "gap": 380,
        "tail": 3_000,
    }
    return windows_of(
        x,
        y,
        subject,
        CLASSES,
        rate_hz=RATE,
        channels=("acc_x", "acc_y", "acc_z", "gyro_x", "gyro_y", "gyro_z"),
        units=("g", "g", "g", "rad/s", "rad/s", "rad/s"),
        made={
            "source": "waves.npz",
            "credit": "made by the tests <b>",
            "licence": "CC0-1.0",
            "window_seconds": 2.56,
            "overlap": 0.0,
            "dropped": dropped,
            "left_out_classes": {"rope jumping": 12},
        },
    )


def make_run(folder: Path) -> Run:
    """Write a run of two folds with plausible random predictions, and evaluate it."""
    windows = synthetic_windows()
    windows.save(folder / "windows")
    run = Run(folder / "run")
    run.folder.mkdir()
    write_text(run.folder / "recipe.toml", 'name = "waves"\nnote = "Only for <tests>."\nseeds = [0, 1]\n')
    run.write("environment.json", {"python": "3.11", "versions": {"numpy": np.__version__}})
    run.write("data.json", {**windows.describe(), "path": "../windows"})
    halves = (SUBJECTS[:4], SUBJECTS[4:])
    folds = [
        {"fold": 1, "test": halves[0], "validation": halves[1][:1], "fit": halves[1][1:]},
        {"fold": 2, "test": halves[1], "validation": halves[0][:1], "fit": halves[0][1:]},
    ]
    run.write("folds.json", folds)
    rng = np.random.default_rng(1)
    for fold in folds:
        for seed in (0, 1):
            fill_fold(run, windows, fold, seed, rng)
    run.write("evaluation.json", evaluate_run(run))
    return run


def fill_fold(run: Run, windows: WindowSet, fold: dict, seed: int, rng: np.random.Generator) -> None:
    place = run.fold_run(fold["fold"], seed)
    place.folder.mkdir(parents=True)
    fit = fit_params(np.asarray(windows.x)[windows.of_subjects(fold["fit"])], size=(32, 32), sigma=0.02)
    scale = {"mean": [0.0] * 6, "std": [1.0] * 6}
    write_json(
        place.folder / "preprocessing.json", {"signal": scale, "topology": fit.to_dict(), "image": scale}
    )
    write_json(
        place.folder / "selection.json",
        {
            "chosen": 1,
            "on_subjects": fold["validation"],
            "candidates": [{"candidate": 1, "settings": {"tau": 0.7, "temperature": 4.0}}],
            "epochs": dict.fromkeys(TRAINED, 7),
        },
    )
    held_out = windows.of_subjects(fold["test"])
    y = windows.y[held_out]
    for model in MODELS:
        hard = np.array([0.06 * (int(who) % 4) for who in windows.subject[held_out]])
        said = np.where(rng.random(len(y)) < SKILL[model] - hard, y, rng.integers(0, len(CLASSES), len(y)))
        logits = rng.normal(size=(len(y), len(CLASSES))).astype(np.float32)
        logits[np.arange(len(y)), said] += 6
        place.model_folder(model).mkdir()
        Predictions(held_out, y, logits).save(place.predictions_path(model))
        if model in TRAINED:
            curve = [
                {
                    "epoch": epoch,
                    "train_loss": 1.6 * 0.75**epoch + 0.02 * rng.random(),
                    "validation_accuracy": SKILL[model] - 0.5 * 0.6**epoch + 0.02 * rng.random(),
                    "lr": 0.05,
                    "seconds": 1.0,
                }
                for epoch in range(10)
            ]
            text = "".join(json.dumps(line) + "\n" for line in curve)
            write_text(place.model_folder(model) / "metrics.jsonl", text)
            write_json(place.model_folder(model) / "checkpoint.json", {"params": 63_020, "macs": 2_190_000})


def bench_answer() -> dict:
    def row(pipeline: str, runtime: str, p50: float, accuracy: float, **more: object) -> dict:
        latency = {"p50": p50, "p95": 1.4 * p50, "p99": 2.1 * p50, "min": 0.9 * p50, "cold": 300 + 9 * p50}
        return {
            "target": "local",
            "basis": "measured",
            "pipeline": pipeline,
            "runtime": runtime,
            "latency_ms": latency,
            "runs": 2000,
            "warmup": 50,
            "threads": 1,
            "accuracy": accuracy,
            "accuracy_ci95": [accuracy - 0.04, accuracy + 0.04],
            "windows": 120,
            "ram_bytes": 91_000_000,
            "ram_baseline_bytes": 31_000_000,
            "macs": 2_190_000,
            "throttled": None,
            "device": {"cpu": "Some <CPU>"},
            "versions": {runtime: "1.0"},
            **more,
        }

    return {
        "results": [
            row("tda", "ripser+persim+onnxruntime", 41.7, 0.84, flash_bytes=60_000_000, model_bytes=730_000),
            row("tda", "fast+onnxruntime", 3.21, 0.84, flash_bytes=2_000_000, model_bytes=730_000),
            row("teacher.signal", "onnxruntime", 0.93, 0.93, model_bytes=970_000),
            row("student.float32", "litert", 0.412, 0.91, model_bytes=261_000),
            row("student.int8", "litert", 0.187, 0.905, model_bytes=88_512),
            {
                "target": "local",
                "basis": "measured",
                "pipeline": "student.int8",
                "runtime": "onnxruntime",
                "error": "no such op",
            },
        ],
        "int8_cost": {
            "cost": 0.005,
            "ci95": [-0.008, 0.018],
            "over": "subjects",
            "windows": 120,
            "subjects": 4,
        },
        "subjects": list(SUBJECTS[:4]),
        "notes": [],
    }


def export_answer() -> dict:
    return {
        "bundle": "run/bundle",
        "files": [
            {
                "target": "tflite",
                "precision": "float32",
                "path": "student.f32.tflite",
                "bytes": 261_000,
                "sha256": "a" * 64,
            },
            {
                "target": "tflite",
                "precision": "int8",
                "path": "student.int8.tflite",
                "bytes": 88_512,
                "sha256": "b" * 64,
            },
            {
                "target": "onnx",
                "precision": "float32",
                "path": "student.onnx",
                "bytes": 257_100,
                "sha256": "c" * 64,
            },
        ],
        "checks": [{"name": "onnx against torch", "max_abs_diff": 2.1e-6, "agreement": 1.0, "ok": True}],
    }


class Page(HTMLParser):
    """Reads a page strictly: every tag closed in order; collects what it would load, and its text."""

    VOID = ("meta", "link", "br", "img", "hr", "input")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.tags: set[str] = set()
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
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def _note(self, tag, attrs):
        self.tags.add(tag)
        for name, value in attrs:
            assert not name.startswith("on"), f"{tag} {name}"
            if name == "id":
                self.ids.append(value)
            if name in ("src", "srcset", "data", "poster") or (name.endswith("href") and tag != "a"):
                self.loads.append(value)
            if name.endswith("href") and value.startswith("#"):
                self.refers.add(value[1:])
            self.refers |= set(re.findall(r"url\(#([^)]+)\)", value or ""))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def html(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    write_json(folder / "export.json", export_answer())
    out = folder / "report.html"
    write_report(run, out, bench=bench_answer(), export=folder / "export.json")
    return out.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def test_one_file_that_loads_nothing(html, page):
    assert all(load.startswith(("#", "data:")) for load in page.loads)
    assert not page.tags & {"script", "link", "iframe", "object", "embed", "img", "base", "form"}
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)
    assert len(html) < 5_000_000


def test_ids_are_unique_and_every_reference_lands(page):
    assert len(page.ids) == len(set(page.ids))
    assert page.refers <= set(page.ids)


def test_a_student_with_fewer_channels_is_told_of(run, html, tmp_path):
    assert "Channels of the student" not in html
    copy = Run(shutil.copytree(run.folder.parent, tmp_path / "copy") / run.folder.name)
    recipe = copy.folder / "recipe.toml"
    write_text(recipe, recipe.read_text("utf-8") + '[student]\nchannels = ["acc_y", "acc_x"]\n')
    write_report(copy, tmp_path / "r.html")
    assert "acc_y, acc_x; its teachers have all" in Page((tmp_path / "r.html").read_text("utf-8")).text


def test_hostile_names_stay_text(html, page):
    assert HOSTILE in page.text
    assert "<script" not in html
    assert "made by the tests <b>" in page.text
    assert "Only for <tests>." in page.text


def test_tables_have_captions_and_figures_have_names(html):
    assert html.count("<table") == html.count("<caption")
    assert html.count("<figure") == len(re.findall(r'<figure role="group" aria-label="[^"]{20,}"', html))


def test_every_figure_of_the_evaluation_is_shown(run, page):
    evaluation = json.loads((run.folder / "evaluation.json").read_text())

    def percent(value):
        return f"{100 * value:.1f} %"

    for entry in evaluation["models"].values():
        assert percent(entry["accuracy"]) in page.text
        assert percent(entry["macro_f1"]) in page.text
        assert percent(entry["ece"]) in page.text
        assert f"{100 * entry['std_subjects']:.1f}" in page.text
    for fold in evaluation["folds"]:
        for entry in fold["models"].values():
            assert f"{percent(entry['accuracy'])} / {percent(entry['macro_f1'])}" in page.text
    for row in evaluation["subjects"]:
        assert all(percent(value) in page.text for value in row["models"].values())
    for entry in evaluation["comparisons"]:
        low, high = (f"{100 * bound:+.1f}".replace("-", "\u2212") for bound in entry["ci95"])
        shown = f"{low} to {high}".replace("+0.0", "0.0").replace("\u22120.0", "0.0")
        assert shown in page.text
        assert entry["verdict"] in page.text
        assert entry["test"] in page.text
    for model in (DISTILLED_STUDENT, INT8_STUDENT):
        for counts in evaluation["confusion"][model]:
            assert all(str(count) in page.text for count in counts)


def test_within_noise_is_never_coloured_as_good(html):
    badges = re.findall(r'class="badge (\w+)">([^<]+)<', html)
    verdicts = {"better": "good", "worse": "bad", "within noise": "neutral", "yes": "good", "no": "bad"}
    assert badges
    assert all(verdicts[words] == tone for tone, words in badges)


def test_tda_and_student_side_by_side(page):
    # The quickest pipeline with topology is the yardstick, not the slow reference: 3.21 / 0.187.
    assert "17 times as long" in page.text
    assert all(shown in page.text for shown in ("187 µs", "3.21 ms", "41.7 ms", "88.5 kB", "88512"))
    assert "no figures: no such op" in page.text


def test_data_and_what_was_dropped(page):
    for shown in ("waves.npz", "CC0-1.0", "rope jumping (12 windows)", "76.8 %", "12.5 %"):
        assert shown in page.text


def test_what_is_missing_is_named_with_its_command(run, tmp_path):
    out = tmp_path / "bare.html"
    write_report(run, out)
    text = Page(out.read_text(encoding="utf-8")).text
    assert "topokd-edge bench" in text
    assert "topokd-edge export" in text
    assert "topokd-edge evaluate" not in text


def test_a_run_that_has_just_begun_has_a_report(tmp_path):
    windows = synthetic_windows()
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    run.write("data.json", {**windows.describe(), "path": "gone"})
    run.write("folds.json", [{"fold": 1, "test": ["1"], "validation": ["2"], "fit": ["3"]}])
    out = tmp_path / "r.html"
    write_report(run, out)
    text = Page(out.read_text(encoding="utf-8")).text
    assert "topokd-edge evaluate" in text
    assert "1 of 1 trainings" in text
    assert "no such file" in text


def test_the_typical_window_does_not_depend_on_how_much_is_read_at_once(run, monkeypatch):
    windows = run.windows()
    every = np.arange(len(windows))
    chosen = examples.typical(windows, every, most=examples.MOST_CLASSES)
    assert len(chosen) > 1
    for label, window in zip(np.unique(windows.y), chosen, strict=False):
        members = np.flatnonzero(windows.y == label)
        energy = np.asarray(windows.x)[members].astype(np.float64).std(axis=2).sum(axis=1)
        assert energy[members == window] == np.sort(energy)[len(members) // 2]
    monkeypatch.setattr(examples, "_BLOCK", 7)
    np.testing.assert_array_equal(examples.typical(windows, every, most=examples.MOST_CLASSES), chosen)


def test_an_existing_page_is_refused(run, tmp_path):
    out = tmp_path / "report.html"
    out.write_text("mine")
    with pytest.raises(BadInputError, match="already exists"):
        write_report(run, out)
    assert out.read_text() == "mine"
    write_report(run, out, overwrite=True)
    assert out.read_text() != "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize(
    "document",
    [[], {}, {"results": 3}, {"results": [{"target": "local"}]}, {"results": [{"latency_ms": {}}]}],
)
def test_a_damaged_bench_file_is_an_error_not_a_page(run, tmp_path, document):
    write_json(tmp_path / "bench.json", document)
    with pytest.raises(BadInputError):
        write_report(run, tmp_path / "r.html", bench=read_documents([tmp_path / "bench.json"]))
    assert not (tmp_path / "r.html").exists()


def test_a_bench_file_that_was_named_must_exist(tmp_path):
    with pytest.raises(BadInputError, match="no such file"):
        read_documents([tmp_path / "none.json"])


def test_command_line(run, tmp_path):
    from topokd_edge.cli import app

    out = tmp_path / "report.html"
    result = CliRunner().invoke(app, ["report", str(run.folder), "--out", str(out), "--json"])
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert answer["report"] == str(out)
    assert answer["bytes"] == out.stat().st_size
    assert any("topokd-edge bench" in item["command"] for item in answer["missing"])


def test_command_line_merges_results(run, tmp_path):
    from topokd_edge.cli import app

    write_json(tmp_path / "a.json", made_bench.answer(made_bench.measured("local", made_bench.LOCAL)))
    write_json(tmp_path / "b.json", made_bench.answer(made_bench.on_board("nrf52840")))
    call = ["report", str(run.folder), str(tmp_path / "a.json"), str(tmp_path / "b.json")]
    answer = CliRunner().invoke(app, [*call, "--out", str(tmp_path / "r.html"), "--json"])
    assert answer.exit_code == 0, answer.output
    text = Page((tmp_path / "r.html").read_text("utf-8")).text
    assert "On the Nordic nRF52840" in text and "3.21 ms" in text
    with pytest.raises(BadInputError, match="manifest"):
        CliRunner().invoke(app, [*call, str(tmp_path)], catch_exceptions=False)
    with pytest.raises(UsageError, match="one bundle only"):
        CliRunner().invoke(app, [*call, str(tmp_path), "--export", "e.json"], catch_exceptions=False)


def test_a_page_of_results_and_a_bundle_without_their_run(run, tmp_path, monkeypatch):
    from topokd_edge.cli import app

    def page(*words: object) -> str:
        call = ["report", *map(str, words), "--out", str(tmp_path / "r.html"), "--overwrite"]
        answer = CliRunner().invoke(app, call, catch_exceptions=False)
        assert answer.exit_code == 0, answer.output
        return " ".join(Page((tmp_path / "r.html").read_text("utf-8")).text.split())

    write_json(tmp_path / "a.json", made_bench.answer(made_bench.measured("local", made_bench.LOCAL)))
    write_json(tmp_path / "b.json", made_bench.answer(made_bench.on_board("nrf52840")))
    text = page(tmp_path / "a.json", tmp_path / "b.json")
    assert text.count("On the Nordic nRF52840") == 1 and "3.21 ms" in text
    assert "Files for devices" not in text and "Results on held-out subjects" not in text
    bundle = tmp_path / "bundle"
    export_student(export_run(tmp_path / "exported"), 1, 0, bundle, targets=("tflite",))
    text = page(bundle, tmp_path / "b.json")
    assert "bundle: what it costs on devices The int8 model file takes" in text
    assert "On the Nordic nRF52840" in text and "student_int8.tflite" in text
    text = page(bundle)
    assert "student_int8.tflite" in text and "With and without topology" not in text
    with pytest.raises(UsageError, match="--export is for"):
        page(bundle, "--export", "e.json")
    with pytest.raises(UsageError, match="one bundle only"):
        page(bundle, bundle)
    with pytest.raises(BadInputError, match="no results of bench"):
        page(bundle / "manifest.json")
    # A bundle stays as its sums say: the page is written elsewhere.
    monkeypatch.chdir(tmp_path)
    before = {path.name for path in bundle.iterdir()}
    assert CliRunner().invoke(app, ["report", str(bundle)]).exit_code == 0
    assert {path.name for path in bundle.iterdir()} == before
    assert (tmp_path / "report.html").is_file()
