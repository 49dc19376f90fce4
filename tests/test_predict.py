"""A bundle on raw recordings: what fits, which windows, smoothing, the timeline, the files written."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export_cases import make_run
from hypothesis import given, settings
from hypothesis import strategies as st
from made_recordings import recording, shared_data
from topokd_export.export import export_student

from topokd_edge.bundle import Manifest, Student
from topokd_edge.cli import main
from topokd_edge.data.options import import_options
from topokd_edge.data.recording import Gap, LabelInterval, Recording
from topokd_edge.data.units import factor
from topokd_edge.data.windows import Cut, make_windows
from topokd_edge.errors import BadInputError, UsageError
from topokd_edge.predict.answers import Answers, answer
from topokd_edge.predict.fit import channels_in_file
from topokd_edge.predict.run import predict
from topokd_edge.predict.smoothing import majority
from topokd_edge.predict.timeline import intervals, score, window_rows
from topokd_edge.run import Run

RATE = 30.5
"""Of the made student, which has channels x [mV], y [g], z [uT] and windows of 50 samples."""
LENGTH = 50
NAMES = ("lie", "run", "sit", "stand", "walk")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def bundle(run: Run) -> Path:
    out = run.folder.parent / "bundle"
    export_student(run, 1, 0, out)
    return out


@pytest.fixture(scope="module")
def day(run: Run) -> Recording:
    """Forty windows of the run, one after the other, with their labels and a gap of 10 s after 15."""
    windows = run.windows()
    labels = tuple(LabelInterval(LENGTH * i, LENGTH * (i + 1), NAMES[windows.y[i]]) for i in range(40))
    return replace(
        recording("3", samples=40 * LENGTH, rate_hz=RATE),
        channels=("x", "y", "z"),
        units=("mV", "g", "uT"),
        samples=np.concatenate(list(windows.x[:40]), axis=1),
        labels=labels,
        gaps=(Gap(15 * LENGTH - 1, 10.0),),
        start="2024-03-05T23:59:00",
    )


def write_csv_of(path: Path, made: Recording, *, names: tuple[str, ...] | None = None) -> Path:
    """The recording as a table with time stamps."""
    start = datetime.fromisoformat(made.start or "2024-01-01")
    delay = np.zeros(made.samples.shape[1])
    for gap in made.gaps:
        delay[gap.after_sample + 1 :] += gap.seconds
    label = [""] * made.samples.shape[1]
    for item in made.labels:
        label[item.start : item.stop] = [item.label] * (item.stop - item.start)
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["time", *(names or made.channels), "label"])
        for at, (row, late, name) in enumerate(zip(made.samples.T, delay, label, strict=True)):
            stamp = start + timedelta(seconds=at / made.rate_hz + late)
            writer.writerow([stamp.isoformat(timespec="microseconds"), *map(repr, row.tolist()), name])
    return path


OPTIONS = {"time": "time:iso", "units": "x=mV,y=g,z=uT", "label": "label", "columns": "x=x,y=y,z=z"}
FLAGS = [word for key, value in OPTIONS.items() for word in (f"--{key}", value)]


def command(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["topokd-edge", *map(str, words)])
    try:
        main()
    except SystemExit as error:
        return int(error.code or 0)
    return 0


def made_answers(
    label: list[int], *, length: int = 4, step: int = 2, gaps: tuple[tuple[int, float], ...] = (), **more: Any
) -> Answers:
    """Answers for as many windows as there are labels, in stretches that `gaps` divide."""
    start, stretch, at = [], [], 0
    samples = 1000
    for number, stop in enumerate([*(after + 1 for after, _ in gaps), samples]):
        found = list(range(at, stop - length + 1, step))
        start, stretch, at = start + found, stretch + [number] * len(found), stop
    count = len(label)
    probability = np.full((count, 3), 0.1, dtype=np.float32)
    probability[np.arange(count), label] = np.linspace(0.5, 0.9, count)
    return Answers(
        recording=replace(recording(samples=samples, rate_hz=2.0, gaps=gaps), **more),
        class_names=("a", "b", "c"),
        length=length,
        step=step,
        start=np.array(start[:count], dtype=np.int64),
        stretch=np.array(stretch[:count], dtype=np.int64),
        label=np.array(label, dtype=np.int64),
        probability=probability,
    )


class TestWindows:
    @pytest.mark.parametrize("precision", ["float32", "int8"])
    def test_they_are_those_of_training_and_cross_no_gap(
        self, bundle: Path, day: Recording, tmp_path: Path, precision: str
    ) -> None:
        student = Student.load(bundle, precision=precision)
        got = answer(student, day, tmp_path / "answers.npy")
        one_label = replace(day, labels=(LabelInterval(0, 40 * LENGTH, "walk"),))
        cut = make_windows([one_label], Cut(LENGTH / RATE, 0.5), made={})
        assert got.start.tolist() == cut.start.tolist()
        assert got.stretch.tolist() == [int(at >= 15 * LENGTH) for at in cut.start]
        x = student.bundle.manifest.normalisation.apply(np.asarray(cut.x[:]))
        assert np.array_equal(got.label, student.model.run(x).argmax(axis=1))
        np.testing.assert_allclose(got.probability.sum(axis=1), 1, atol=1e-5)

    def test_how_right_it_is(self, bundle: Path, day: Recording, tmp_path: Path, run: Run) -> None:
        got = answer(Student.load(bundle, overlap=0.0), day, tmp_path / "answers.npy")
        found = score(got)
        assert found is not None
        assert (found.judged, found.unclear, found.unknown) == (40, 0, {})
        assert found.right == int((got.label == run.windows().y[:40]).sum()) >= 36

    def test_what_is_out_of_range_is_named(self, bundle: Path, day: Recording, tmp_path: Path) -> None:
        samples = day.samples.copy()
        samples[1, 1000] = 1e9
        with pytest.raises(
            BadInputError, match=r"memory#3, counting from sample 750: sample 250, channel 1: 1e\+09"
        ):
            answer(Student.load(bundle), replace(day, samples=samples), tmp_path / "answers.npy")


class TestSmoothing:
    def test_by_hand(self) -> None:
        label = np.array([0, 0, 1, 0, 2, 2, 1, 2])
        one = np.zeros(8, dtype=np.int64)
        assert majority(label, one, 1).tolist() == label.tolist()
        assert majority(label, one, 3).tolist() == [0, 0, 0, 0, 2, 2, 2, 2]

    def test_votes_do_not_cross_a_gap(self) -> None:
        label = np.array([0, 0, 1, 1, 0, 1])
        assert majority(label, np.array([0, 0, 0, 1, 1, 1]), 3).tolist() == [0, 0, 1, 1, 1, 1]

    def test_a_window_keeps_its_own_in_a_tie(self) -> None:
        assert majority(np.array([0, 0, 1, 2, 2]), np.zeros(5, np.int64), 5).tolist() == [0, 0, 1, 2, 2]

    @settings(max_examples=200, deadline=None)
    @given(
        st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=40), st.sampled_from([1, 3, 5, 7, 99])
    )
    def test_against_counting(self, rows: list[tuple[int, bool]], windows: int) -> None:
        label = np.array([row[0] for row in rows], dtype=np.int64)
        stretch = np.cumsum([row[1] for row in rows]).astype(np.int64)
        expected = []
        for at in range(len(label)):
            near = [i for i in range(len(label)) if abs(i - at) <= windows // 2 and stretch[i] == stretch[at]]
            votes = np.bincount(label[near], minlength=4)
            winners = np.flatnonzero(votes == votes.max())
            expected.append(int(winners[0]) if len(winners) == 1 else int(label[at]))
        assert majority(label, stretch, windows).tolist() == expected

    @pytest.mark.parametrize("windows", [0, 2, -3])
    def test_an_even_number_has_no_middle(self, windows: int) -> None:
        with pytest.raises(UsageError, match="expected an odd number"):
            majority(np.zeros(3, np.int64), np.zeros(3, np.int64), windows)


class TestTimeline:
    def test_windows_speak_for_their_middle(self) -> None:
        """Windows of 4 samples every 2: 0-4 a, 2-6 a, 4-8 b; the edges belong to the outer windows."""
        found = intervals(made_answers([0, 0, 1]))
        assert found.start.tolist() == [0, 5]
        assert found.stop.tolist() == [5, 8]
        assert found.label.tolist() == [0, 1]
        assert found.windows.tolist() == [2, 1]
        np.testing.assert_allclose(found.probability, [0.6, 0.9], atol=1e-6)

    def test_nothing_is_said_of_a_gap_nor_of_what_no_window_covers(self) -> None:
        """A stretch of 7 samples has windows at 0 and 2, and one sample in none; then 2 s are missing."""
        answers = made_answers([0, 0, 0, 0], gaps=((6, 2.0),))
        found = intervals(answers)
        assert list(zip(found.start, found.stop, strict=True)) == [(0, 6), (7, 13)]
        rows = list(window_rows(answers))
        assert [row.start_s for row in rows] == [0.0, 1.0, 5.5, 6.5]
        assert [row.end_s for row in rows] == [2.0, 3.0, 7.5, 8.5]

    @settings(max_examples=150, deadline=None)
    @given(st.lists(st.integers(0, 2), min_size=1, max_size=60), st.integers(1, 9), st.integers(1, 9))
    def test_intervals_tile_what_windows_cover(self, label: list[int], length: int, step: int) -> None:
        answers = made_answers(label, length=length, step=min(step, length), gaps=((40, 1.0), (44, 0.0)))
        found = intervals(answers)
        covered = np.zeros(1000, dtype=bool)
        for at in answers.start:
            covered[at : at + length] = True
        told = np.zeros(1000, dtype=int)
        for start, stop in zip(found.start, found.stop, strict=True):
            told[start:stop] += 1
        assert np.array_equal(told, covered.astype(int))
        assert found.windows.sum() == len(label)

    def test_clock_times_end_where_an_unknown_time_passed(self) -> None:
        start = "2024-03-05T23:59:59+01:00"
        rows = list(window_rows(made_answers([0, 0, 0], gaps=((4, 0.0),), start=start)))
        assert [row.start for row in rows] == ["2024-03-05T23:59:59.000+01:00", "", ""]
        assert rows[0].end == "2024-03-06T00:00:01.000+01:00"

    def test_no_window_no_interval(self) -> None:
        assert len(intervals(made_answers([])).start) == 0

    def test_the_score_by_hand(self) -> None:
        """Windows 0-4 a, 2-6 none (two labels), 4-8 b, 6-10 unlabelled in part, 8-12 unknown."""
        labels = (LabelInterval(0, 4, "a"), LabelInterval(4, 8, "b"), LabelInterval(8, 12, "swim"))
        found = score(made_answers([0, 0, 0, 0, 0, 0], labels=labels))
        assert found is not None
        assert (found.judged, found.right, found.unclear, found.unknown) == (2, 1, 3, {"swim": 1})
        assert score(made_answers([0], labels=())) is None


class TestFit:
    def manifest(self, bundle: Path) -> Manifest:
        return Student.load(bundle).bundle.manifest

    def test_names_of_the_file(self, bundle: Path) -> None:
        manifest = self.manifest(bundle)
        assert channels_in_file(manifest, "") == ("x", "y", "z")
        assert channels_in_file(manifest, "z=mag, x=ecg") == ("ecg", "y", "mag")
        with pytest.raises(UsageError) as caught:
            channels_in_file(manifest, "x=y,q=a,z=")
        assert caught.value.problems == (
            "z=: expected STUDENT=FILE",
            "the student has no channel 'q'",
            "'y' is taken twice",
        )

    def test_units_have_a_rule_or_none(self) -> None:
        assert factor("g", "m/s2") == 9.80665
        assert factor("m/s2", "g") == pytest.approx(1 / 9.80665)
        assert factor("uT", "uT") == 1.0
        assert factor("deg/s", "rad/s") is None

    def predicted(self, bundle: Path, path: Path, flags: dict[str, str], **more: Any) -> list[Answers]:
        student = Student.load(bundle)
        with predict(student, "csv", path, import_options(None, flags), ("x", "y", "z"), **more) as found:
            return [replace(item, probability=np.array(item.probability)) for item in found.answers]

    def test_everything_that_is_wrong_is_told_at_once(
        self, bundle: Path, day: Recording, tmp_path: Path
    ) -> None:
        path = write_csv_of(tmp_path / "day.csv", replace(day, rate_hz=50.0))
        flags = {**OPTIONS, "units": "x=deg/s,y=g", "columns": "x=x,y=y", "rate_hz": 50.0}
        with pytest.raises(BadInputError) as caught:
            self.predicted(bundle, path, flags)
        assert caught.value.message.endswith("takes x [mV], y [g], z [uT] at 30.5 Hz")
        assert caught.value.problems == (
            "day.csv: no channel z; it has x [deg/s], y [g]",
            "day.csv: channel x is in deg/s, the student takes mV",
            "day.csv: 50 Hz, the student takes 30.5 Hz",
        )
        assert "--resample" in caught.value.hint

    def test_a_rate_that_only_the_stamps_tell(self, bundle: Path, day: Recording, tmp_path: Path) -> None:
        path = write_csv_of(tmp_path / "day.csv", replace(day, rate_hz=61.0))
        with pytest.raises(BadInputError, match=r"day.csv: 61 Hz, the student takes 30.5 Hz"):
            self.predicted(bundle, path, OPTIONS)

    def test_another_unit_and_twice_the_rate_give_the_same_classes(
        self, bundle: Path, day: Recording, tmp_path: Path
    ) -> None:
        """y in m/s2, and every sample held for two at 61 Hz: resampled down again it is nearly the day."""
        plain = self.predicted(bundle, write_csv_of(tmp_path / "plain.csv", day), OPTIONS)[0]
        samples = day.samples.copy()
        samples[1] *= 9.80665
        other = replace(
            day,
            samples=np.repeat(samples, 2, axis=1),
            rate_hz=61.0,
            labels=(),
            gaps=(Gap(30 * LENGTH - 1, 10.0),),
        )
        path = write_csv_of(tmp_path / "other.csv", other)
        flags = {**OPTIONS, "units": "x=mV,y=m/s2,z=uT"}
        fast = self.predicted(bundle, path, flags, resample=True)[0]
        assert fast.start.tolist() == plain.start.tolist()
        assert (fast.label == plain.label).mean() > 0.85

    def test_a_hint_names_the_option_as_it_is_here(self, bundle: Path, tmp_path: Path) -> None:
        rng = np.random.default_rng(0)
        times = np.cumsum(rng.uniform(0.01, 0.05, 3000))
        rows = "".join(f"{t:.4f},{100 + t % 7},{-3},{0.01}\n" for t in times)
        (tmp_path / "uneven.csv").write_text("time,x,y,z\n" + rows)
        flags = {**OPTIONS, "time": "time:s"}
        del flags["label"]
        with pytest.raises(BadInputError, match="not evenly spaced") as caught:
            self.predicted(bundle, tmp_path / "uneven.csv", flags)
        assert caught.value.hint.startswith("--resample interpolates them")
        assert len(self.predicted(bundle, tmp_path / "uneven.csv", flags, resample=True)[0]) > 50

    def test_a_constant_channel_may_be_predicted_on(
        self, bundle: Path, day: Recording, tmp_path: Path
    ) -> None:
        samples = day.samples.copy()
        samples[2] = 0.01
        path = write_csv_of(tmp_path / "day.csv", replace(day, samples=samples))
        assert len(self.predicted(bundle, path, OPTIONS)[0]) == 29 + 49


class TestCommand:
    def test_files_and_json(
        self,
        bundle: Path,
        day: Recording,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        path = write_csv_of(tmp_path / "day.csv", day)
        out, picture = tmp_path / "timeline.csv", tmp_path / "timeline.svg"
        words = ["predict", bundle, path, *FLAGS, "--smooth", 3]
        assert command(monkeypatch, *words, "--out", out, "--picture", picture, "--json") == 0
        answered = json.loads(capsys.readouterr().out)
        assert len(answered["windows"]) == 29 + 49
        assert set(answered["windows"][0]) >= {"start_s", "end_s", "class", "probability"}
        (described,) = answered["recordings"]
        assert (described["windows"], described["gaps"], described["start"]) == (78, 1, "2024-03-05T23:59:00")
        assert described["seconds"] == pytest.approx(40 * LENGTH / RATE + 10, abs=0.01)
        assert answered["score"]["judged"] == 40
        rows = list(csv.DictReader(io.StringIO(out.read_text("utf-8"))))
        for row, item in zip(rows, answered["timeline"], strict=True):
            assert (row["class"], float(row["start_s"]), row["end"]) == (
                item["class"],
                item["start_s"],
                item["end"],
            )
        ends = [float(row["end_s"]) for row in rows]
        jumps = [float(row["start_s"]) - end for row, end in zip(rows[1:], ends, strict=False)]
        assert sorted(jumps)[-1] == pytest.approx(10, abs=0.01)
        assert sum(abs(jump) > 1e-5 for jump in jumps) == 1
        assert rows[0]["start"] == "2024-03-05T23:59:00.000"
        assert rows[-1]["end"].startswith("2024-03-06T00:00:1")
        text = picture.read_text("utf-8")
        assert text.startswith("<?xml") and all(
            name in text for name in ("walk", "stand", "day.csv: 78 windows")
        )
        assert command(monkeypatch, *words, "--out", out) == 3
        assert "already exists" in capsys.readouterr().err
        again = tmp_path / "timeline.json"
        assert command(monkeypatch, *words, "--out", again) == 0
        assert json.loads(again.read_text("utf-8")) == answered
        assert "of 40 labelled windows are right" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("words", "code", "message"),
        [
            (["--out", "t.txt"], 2, "expected a name that ends in .csv or .json"),
            (["--smooth", "4"], 2, "expected an odd number"),
            (["--overlap", "1"], 2, "--overlap 1.0: expected 0 or more"),
            (["--only", "night*"], 2, "no recording is called so; there are day.csv"),
            (["--precision", "int4"], 3, "no int4 model"),
            (["--channels", "x=nose"], 3, "no channel nose; it has x [mV]"),
            (["--format", "cuneiform"], 2, "unknown, expected one of"),
        ],
    )
    def test_refusals(
        self,
        bundle: Path,
        day: Recording,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        words: list[str],
        code: int,
        message: str,
    ) -> None:
        path = write_csv_of(
            tmp_path / "day.csv", replace(day, samples=day.samples[:, :200], labels=(), gaps=())
        )
        assert command(monkeypatch, "predict", bundle, path, *FLAGS, *words) == code
        told = capsys.readouterr()
        assert message in told.err and told.out == ""
        assert sorted(item.name for item in tmp_path.iterdir()) == ["day.csv"]

    def test_a_picture_is_of_one_recording(
        self,
        bundle: Path,
        day: Recording,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        (tmp_path / "days").mkdir()
        for name in ("a.csv", "b.csv"):
            write_csv_of(tmp_path / "days" / name, day)
        words = ["predict", bundle, tmp_path / "days", "--format", "csv", *FLAGS]
        assert command(monkeypatch, *words, "--picture", tmp_path / "t.png") == 2
        assert "choose one with --only" in capsys.readouterr().err
        assert command(monkeypatch, *words, "--picture", tmp_path / "t.png", "--only", "b.csv") == 0
        assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")
        capsys.readouterr()
        assert command(monkeypatch, *words, "--json") == 0
        answered = json.loads(capsys.readouterr().out)
        assert [item["source"] for item in answered["recordings"]] == ["a.csv", "b.csv"]
        assert answered["score"]["judged"] == 80

    def test_a_name_that_does_not_tell_the_format(
        self,
        bundle: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        (tmp_path / "day.txt").write_text("x")
        assert command(monkeypatch, "predict", bundle, tmp_path / "day.txt") == 2
        assert "--format" in capsys.readouterr().err

    @pytest.mark.parametrize("file", ["geneacore_100650Hz_file.bin", "wristpy_example_geneactiv.bin"])
    def test_a_watch_that_does_not_fit(
        self, bundle: Path, file: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = shared_data(f"geneactiv/{file}")
        assert command(monkeypatch, "predict", bundle, path, "--channels", "y=acc_y,x=acc_x,z=acc_z") == 3
        told = capsys.readouterr().err
        assert "acc_x is in g, the student takes mV" in told
        assert "Hz, the student takes 30.5 Hz" in told


@pytest.mark.slow
def test_a_week_at_100_hz_needs_no_more_memory_than_an_hour(bundle: Path, tmp_path: Path) -> None:
    """Peak memory of the command on 60,480,000 samples, less that on 360,000."""
    peaks = []
    for hours in (1, 7 * 24):
        path = tmp_path / f"{hours}.npz"
        samples = hours * 360_000
        counts = np.lib.format.open_memmap(tmp_path / "counts.npy", "w+", np.int16, (3, samples))
        wave = (1000 * np.sin(np.arange(1 << 16) / 9)).astype(np.int16)
        for at in range(0, samples, len(wave)):
            counts[:, at : at + len(wave)] = wave[: samples - at]
        counts.flush()
        np.savez(
            path,
            counts=counts,
            scale=np.array([0.05, 1e-3, 2e-6]),
            offset=np.array([100, -3, 0.01]),
            fs=np.float64(100),
            channels=np.array(["x", "y", "z"]),
            units=np.array(["mV", "g", "uT"]),
            recordings=np.array([[0, 0, samples]]),
            recording_columns=np.array(["class", "start", "stop"]),
            class_names=np.array(["walk"]),
        )
        del counts
        command_line = ["predict", bundle, path, "--resample", "--overlap", "0", "--smooth", "9"]
        files = ["--out", tmp_path / f"{hours}.csv", "--picture", tmp_path / f"{hours}.png"]
        program = "from topokd_edge.cli import main; main()"
        words = [sys.executable, "-c", program, *map(str, command_line + files)]
        code = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=2); "
        code += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
        child = subprocess.run(
            [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True
        )
        peaks.append(int(child.stdout) * 1024)
        for file in (path, tmp_path / "counts.npy"):
            file.unlink()
    assert peaks[1] - peaks[0] < 200e6, peaks
