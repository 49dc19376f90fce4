"""PAMAP2 files and the published windows of them, against hand-made files and the printed numbers."""

from __future__ import annotations

import math
import pickle
import time
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from made_recordings import shared_data

from topokd_edge.data.archive import unpack
from topokd_edge.data.importers import pamap2, published
from topokd_edge.data.importers._number_rows import number_rows
from topokd_edge.data.options import ImportOptions
from topokd_edge.data.prepare import import_windows
from topokd_edge.data.stream import ReadOptions, Stream
from topokd_edge.data.windows import Cut
from topokd_edge.data.windowset import WindowSet
from topokd_edge.errors import BadInputError, UsageError

PRINTED_LENGTHS = (83319, 87783, 58113, 77141, 90814, 83366, 77592, 87368, 2131)
"""Kept samples of subjects 101 to 109 as the published notebook prints them."""
PRINTED_CLASSES = (12, 12, 8, 10, 12, 11, 11, 12, 1)
"""Classes with windows, from the same print."""


def made_rows(activities: list[int], seed: int = 0) -> npt.NDArray[np.float64]:
    """One row per activity id: 100 Hz, heart rate every 11th row, each column its own range."""
    random = np.random.default_rng(seed)
    rows = np.round(random.normal(0, 3, (len(activities), 54)) + np.arange(54) % 5, 4)
    rows[:, 0] = 8.38 + np.arange(len(rows)) / 100
    rows[:, 1] = activities
    rows[:, 2] = np.where(np.arange(len(rows)) % 11 == 3, 90 + np.arange(len(rows)) % 40, np.nan)
    return rows


def written(path: Path, rows: npt.NDArray[np.float64]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savetxt(path, rows, fmt="%.6g")
    return path


def whole(
    stream: Stream,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64], npt.NDArray[np.str_]]:
    chunks = list(pickle.loads(pickle.dumps(stream)).chunks())
    times = [chunk.time for chunk in chunks if chunk.time is not None]
    labels = [chunk.labels for chunk in chunks if chunk.labels is not None]
    return np.concatenate([c.samples for c in chunks]), np.concatenate(times), np.concatenate(labels)


def column(name: str) -> int:
    return pamap2.CHANNELS.index(name)


class TestReader:
    def test_real_rows_are_read_as_the_readme_of_the_set_says(self, tmp_path: Path) -> None:
        path = tmp_path / "Protocol" / "subject101.dat"
        path.parent.mkdir()
        path.write_bytes(shared_data("pamap2_wrist_26hz/pamap2_54col_rows.dat").read_bytes())
        (stream,) = pamap2.open_streams(tmp_path, ReadOptions()).streams
        samples, times, labels = whole(stream)
        assert (stream.subject, stream.session, stream.rate_hz) == ("101", "protocol", 100.0)
        assert stream.lost_as_nan and stream.label is None
        assert samples.shape == (4, 40) and set(labels) == {""}
        np.testing.assert_array_equal(times, [8.38, 8.39, 5.64, 5.65])
        # First row, picked out of the text by hand.
        by_hand = {
            "heart_rate": 104,
            "hand_temperature": 30,
            "hand_acc_x": 2.37223,
            "hand_acc6_x": 2.43954,
            "hand_gyro_z": -0.0158445,
            "hand_mag_z": -5.58905,
            "chest_temperature": 31.8125,
            "chest_acc_x": 0.23808,
            "ankle_temperature": 30.3125,
            "ankle_acc_x": 9.65918,
            "ankle_mag_z": -58.1438,
        }
        for name, value in by_hand.items():
            assert samples[0, column(name)] == np.float32(value), name
        assert np.isnan(samples[1:, 0]).all() and np.isfinite(samples[:, 1:]).all()

    def test_default_channels_exist_and_are_the_accurate_ones(self) -> None:
        assert len(pamap2.CHANNELS) == len(pamap2.UNITS) == len(set(pamap2.CHANNELS)) == 40
        assert len(pamap2.DEFAULT_CHANNELS) == 18
        units = [pamap2.UNITS[column(name)] for name in pamap2.DEFAULT_CHANNELS]
        assert units == (["m/s2"] * 3 + ["rad/s"] * 3) * 3
        assert pamap2.DEFAULT_CHANNELS[:4] == ("hand_acc_x", "hand_acc_y", "hand_acc_z", "hand_gyro_x")

    def test_many_blocks_give_the_rows_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        rows = made_rows([0] * 50 + [24] * 100 + [1] * 50)
        rows[20:30, 3:20] = np.nan
        written(tmp_path / "PAMAP2_Dataset" / "Optional" / "subject109.dat", rows)
        monkeypatch.setattr(pamap2, "number_rows", partial(number_rows, at_once=64))
        (stream,) = pamap2.open_streams(tmp_path, ReadOptions()).streams
        assert len(list(stream.chunks())) == 4
        samples, times, labels = whole(stream)
        np.testing.assert_allclose(times, rows[:, 0], rtol=1e-5)
        kept = np.delete(rows, [0, 1, *range(16, 20), *range(33, 37), *range(50, 54)], axis=1)
        np.testing.assert_allclose(samples, kept, rtol=1e-5)
        assert labels.tolist() == [""] * 50 + ["rope_jumping"] * 100 + ["lying"] * 50
        assert stream.session == "optional"

    def test_every_file_of_a_folder_and_a_wrong_one_does_not_stop_the_rest(self, tmp_path: Path) -> None:
        for name in ("Protocol/subject101.dat", "Protocol/subject102.dat", "Optional/subject101.dat"):
            written(tmp_path / name, made_rows([1] * 20))
        (tmp_path / "Protocol" / "subject103.dat").write_text("no numbers\n")
        (tmp_path / "Protocol" / "subjectX.dat").write_text("1 2\n")
        opened = pamap2.open_streams(tmp_path, ReadOptions())
        assert [(s.subject, s.session) for s in opened.streams] == [
            ("101", "optional"),
            ("101", "protocol"),
            ("102", "protocol"),
        ]
        assert [Path(item.file).name for item in opened.refused] == ["subject103.dat", "subjectX.dat"]
        assert "expected a name like subject101.dat" in opened.refused[1].reason

    def test_the_archive_as_it_is_downloaded(self, tmp_path: Path) -> None:
        written(tmp_path / "f", made_rows([1, 2, 3]))
        inner = tmp_path / "PAMAP2_Dataset.zip"
        with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as zipped:
            zipped.write(tmp_path / "f", "PAMAP2_Dataset/Protocol/subject105.dat")
        with zipfile.ZipFile(tmp_path / "download.zip", "w") as zipped:
            zipped.write(inner, inner.name)
        folder = unpack(tmp_path / "download.zip", tmp_path / "set")
        (stream,) = pamap2.open_streams(folder, ReadOptions()).streams
        assert (stream.subject, stream.session, stream.source) == (
            "105",
            "protocol",
            "Protocol/subject105.dat",
        )

    def test_without_a_path(self) -> None:
        with pytest.raises(UsageError, match="needs a path"):
            pamap2.open_streams(None, ReadOptions())


def replaced(line: int, change: Callable[[str], str]) -> Callable[[list[str]], list[str]]:
    return lambda lines: [change(text) if n == line else text for n, text in enumerate(lines, 1)]


class TestDamage:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (replaced(40, lambda line: line + " 7"), "line 40: 55 values, expected 54"),
            (replaced(1, lambda line: line.partition(" ")[2]), "line 1: 53 values, expected 54"),
            (replaced(41, lambda _: ""), "line 41: empty"),
            (replaced(12, lambda line: line.replace(" ", ",")), "line 12: 1 values, expected 54"),
            (replaced(50, lambda line: line + " x"), "line 50: 55 values"),
            (replaced(50, lambda line: "x" + line[1:]), "line 50: column 1: 'x"),
            (replaced(50, lambda line: line[:-1] + "_0"), "line 50: column 54: '"),
            (replaced(50, lambda line: line.replace("nan", "inf", 1)), "line 50: column 3: 'inf'"),
            (
                replaced(50, lambda line: line.replace("nan", "1e39", 1)),
                "line 50: column 3: 1e39, expected at",
            ),
            (replaced(50, lambda line: line.replace("nan", "1e999", 1)), "line 50: column 3: 1e999"),
            (replaced(50, lambda line: line.replace("nan", "\0", 1)), "line 50: column 3: '\\x00'"),
            (replaced(9, lambda line: "nan" + line[4:]), "line 9: no time"),
            (replaced(9, lambda line: line.replace(" 1 ", " 8 ", 1)), "line 9: activity 8"),
            (replaced(9, lambda line: line.replace(" 1 ", " 1.5 ", 1)), "line 9: activity 1.5"),
            (replaced(9, lambda line: line.replace(" 1 ", " nan ", 1)), "line 9: activity nan"),
            (replaced(9, lambda line: line.replace(" 1 ", " 1e30 ", 1)), "line 9: activity 1e+30"),
            (replaced(9, lambda _: "9" * 9000), "line 9: 1 values"),
        ],
    )
    def test_the_line_is_named(
        self, tmp_path: Path, change: Callable[[list[str]], list[str]], message: str
    ) -> None:
        path = written(tmp_path / "subject101.dat", made_rows([1] * 60))
        path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")
        with pytest.raises(BadInputError) as caught:
            list(pamap2.rows_of(path))
        assert message in str(caught.value)
        assert str(path) in str(caught.value)

    def test_a_line_of_a_later_block(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pamap2, "number_rows", partial(number_rows, at_once=16))
        rows = made_rows([1] * 60)
        rows[40, 0] = np.nan
        path = written(tmp_path / "subject101.dat", rows)
        with pytest.raises(BadInputError, match="line 41: no time"):
            list(pamap2.rows_of(path))
        path.write_text(path.read_text().replace("nan", "x", 1).replace("\nnan", "\nx", 1))
        path.write_text("".join(f"{line}\n" for line in [*path.read_text().splitlines()[1:], "1"]))
        with pytest.raises(BadInputError, match="line 40: column 1: 'x'"):
            list(pamap2.rows_of(path))

    def test_a_cut_last_line(self, tmp_path: Path) -> None:
        path = written(tmp_path / "subject101.dat", made_rows([1] * 60))
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(BadInputError, match=r"line 60: \d+ values, expected 54; the file ends"):
            list(pamap2.rows_of(path))

    def test_all_bad_lines_are_counted_and_some_listed(self, tmp_path: Path) -> None:
        path = tmp_path / "subject101.dat"
        path.write_text("1 2 3\n" * 500)
        with pytest.raises(BadInputError, match=r"line 10: .*\n  - and 490 more lines"):
            list(pamap2.rows_of(path))

    @pytest.mark.parametrize("content", [b"", b"\n", b"\0" * 100_000])
    def test_nothing_to_read(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "subject101.dat"
        path.write_bytes(content)
        (refused,) = pamap2.open_streams(path, ReadOptions()).refused
        assert "empty" in refused.reason or "1 values" in refused.reason


def fuzz(tmp_path: Path, mutants: int, seed: int) -> int:
    """Return how many damaged files were refused; the others must give as many finite rows as lines."""
    path = written(tmp_path / "subject101.dat", made_rows([1] * 15 + [0, 24] * 5))
    content = path.read_bytes()
    random = np.random.default_rng(seed)
    count = 0
    for _ in range(mutants):
        mutant = bytearray(content)
        if random.random() < 0.3:
            del mutant[int(random.integers(len(mutant))) :]
        for _ in range(int(random.integers(0, 4))):
            if mutant:
                mutant[int(random.integers(len(mutant)))] = int(random.integers(256))
        path.write_bytes(mutant)
        opened = pamap2.open_streams(path, ReadOptions())
        count += len(opened.refused)
        for stream in opened.streams:
            try:
                samples, times, labels = whole(stream)
            except BadInputError as error:
                assert "line " in str(error)
                count += 1
            else:
                assert len(samples) == len(times) == len(labels) <= 25
                assert np.isfinite(times).all() and not np.isinf(samples).any()
    return count


def test_damaged_anywhere(tmp_path: Path) -> None:
    assert fuzz(tmp_path, 150, seed=0) > 50


@pytest.mark.slow
def test_damaged_anywhere_many_times(tmp_path: Path) -> None:
    assert fuzz(tmp_path, 4000, seed=1) > 1000


@pytest.mark.slow
def test_another_real_set_in_this_layout(tmp_path: Path) -> None:
    """DSADS, 1,140,000 rows, written as 54 columns: hand, chest, ankle carry its three IMUs."""
    with np.load(shared_data("dsads/dsads_3imu_25hz.npz")) as data:
        signal = (data["counts"] * data["scale"][:, None]).T
    random = np.random.default_rng(0)
    signal[random.random(len(signal)) < 0.001] = np.nan
    places = {f"{ours}_{kind}_{axis}": 6 * imu + 3 * second + third
              for imu, ours in enumerate(("chest", "hand", "ankle"))
              for second, kind in enumerate(("acc", "gyro"))
              for third, axis in enumerate("xyz")}  # fmt: skip
    rows = np.ones((len(signal), 54))
    rows[:, 0] = np.arange(len(signal)) / 100
    rows[:, 2] = np.nan
    for name, source in places.items():
        rows[:, pamap2.SOURCE_COLUMNS[column(name)]] = signal[:, source]
    path = written(tmp_path / "Protocol" / "subject101.dat", rows)
    begun = time.perf_counter()
    (stream,) = pamap2.open_streams(tmp_path, ReadOptions()).streams
    samples, _, _ = whole(stream)
    rate = len(samples) / (time.perf_counter() - begun)
    found = samples[:, [column(name) for name in places]]
    np.testing.assert_allclose(found, signal[:, list(places.values())], rtol=1e-5)
    assert rate > 20_000, f"{rate:.0f} rows/s of {path.stat().st_size} bytes"


def straight(rows: npt.NDArray[np.float64]) -> tuple[list[npt.NDArray[np.float64]], list[str]]:
    """The published steps once more, row by row and as plainly as can be."""
    low, high = published.MINIMA, published.MAXIMA
    beat, kept = math.nan, []
    for row in rows:
        if int(row[1]) in (0, 8, 9, 10, 11, 18, 19, 20):
            continue
        beat = row[2] if not math.isnan(row[2]) else beat
        values = []
        for channel, source in enumerate(pamap2.SOURCE_COLUMNS):
            value = beat if channel == 0 else row[source]
            value = 0.0 if math.isnan(value) else value
            value = (value - low[channel]) / (high[channel] - low[channel])
            values.append(0.99 if value > 1 else 0.0 if value < 0 else value)
        kept.append((pamap2.ACTIVITIES[int(row[1])], values))
    kept = kept[::3]
    windows, y = [], []
    for start in range(22, len(kept) - 100, 22):
        if kept[start][0] == kept[start + 99][0]:
            windows.append(np.array([values for _, values in kept[start : start + 100]]).T)
            y.append(kept[start][0])
    return windows, y


def cut_as_published(folder: Path, out: Path) -> WindowSet:
    options = ImportOptions(cut=Cut(seconds=published.SECONDS, overlap=published.OVERLAP, label_rule="ends"))
    assert options.cut.label_rule == published.LABEL_RULE
    return import_windows("pamap2-published", folder, options, out=out)


def published_note(folder: Path) -> list[str]:
    (stream,) = published.open_streams(folder, ReadOptions()).streams
    return [note for chunk in stream.chunks() for note in chunk.notes]


class TestPublished:
    @pytest.mark.parametrize("at_once", [97, 1 << 16])
    def test_equals_the_steps_done_one_by_one(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
    ) -> None:
        monkeypatch.setattr(pamap2, "number_rows", partial(number_rows, at_once=at_once))
        monkeypatch.setattr(pamap2, "refuse_other", lambda _: None)
        runs = [(0, 70), (1, 640), (0, 100), (12, 500), (20, 90), (24, 400), (9, 10), (13, 460), (17, 421)]
        rows = made_rows([activity for activity, length in runs for _ in range(length)])
        rows[:, 3:] *= 6
        rows[300:350, 3:20] = np.nan
        rows[:90, 2] = np.nan
        path = written(tmp_path / "set" / "Protocol" / "subject101.dat", rows)
        written(tmp_path / "set" / "Protocol" / "subject109.dat", made_rows([24] * 600, seed=1))
        written(tmp_path / "set" / "Optional" / "subject101.dat", made_rows([1] * 600))
        result = cut_as_published(tmp_path / "set", tmp_path / "out")
        windows, y = straight(np.concatenate(list(pamap2.rows_of(path))))
        mine = np.flatnonzero(result.subject == "101")
        assert 10 < len(mine) == len(windows)
        np.testing.assert_array_equal(result.x[mine], np.array(windows, dtype=np.float32))
        assert [result.class_names[label] for label in result.y[mine]] == y
        assert set(y) == {"rope_jumping", "lying", "ascending_stairs", "descending_stairs", "ironing"}
        assert 0 <= result.x[mine].min() < result.x[mine].max() <= 1
        assert (result.subject == "109").sum() == len(range(22, 100, 22))

    def test_every_length_gives_as_many_windows_as_published(self, tmp_path: Path) -> None:
        """The last window that would just fit is left out: 122 kept samples give none, 123 one."""
        for kept, windows in ((122, 0), (123, 1), (144, 1), (145, 2), (166, 2), (167, 3)):
            path = written(tmp_path / str(kept) / "subject109.dat", made_rows([24] * (3 * kept)))
            assert len(straight(next(pamap2.rows_of(path)))[0]) == windows
            (note,) = published_note(path)
            assert f"gives {windows} windows, published are 92" in note
            if windows:
                assert len(cut_as_published(path, tmp_path / f"out{kept}")) == windows

    def test_the_printed_lengths_give_the_printed_windows(self) -> None:
        """Window starts of each length, less those over a change of class: 4 or 5 of 99/22 per change."""
        for length, classes, printed in zip(
            PRINTED_LENGTHS, PRINTED_CLASSES, published.EXPECTED_WINDOWS.values(), strict=True
        ):
            over_changes = len(range(22, length - 100, 22)) - printed
            # The stairs were walked up and down twice in turn.
            most = classes - 1 + (2 if classes > 1 else 0)
            assert 4 * (classes - 1) <= over_changes <= 5 * most, (length, over_changes)
        # Kept samples times three are the labelled rows in the readme of the set, up to rounding up per file.
        labelled = 2_872_533 - 929_661
        assert labelled <= 3 * sum(PRINTED_LENGTHS) <= labelled + 2 * 9

    def test_subject_109_has_the_published_number_of_windows(self, tmp_path: Path) -> None:
        """Its only class of the twelve is rope jumping: 2131 kept samples, 92 windows."""
        path = written(tmp_path / "Protocol" / "subject109.dat", made_rows([0] * 50 + [24] * (3 * 2131 - 2)))
        assert published_note(path) == []
        assert len(cut_as_published(path, tmp_path / "out")) == 92

    def test_extremes(self) -> None:
        extremes = np.array([published.MINIMA, published.MAXIMA])
        np.testing.assert_array_equal(published.scale(extremes), np.repeat([[0.0], [1.0]], 40, axis=1))
        beyond = np.add(extremes, [[-1.0], [1.0]])
        np.testing.assert_array_equal(published.scale(beyond), np.repeat([[0.0], [0.99]], 40, axis=1))
        lost = published.scale(np.full((2, 40), np.nan))
        assert lost[0, 2] == pytest.approx(114.755 / (114.755 + 47.6314))

    def test_a_file_with_none_of_the_twelve_classes(self, tmp_path: Path) -> None:
        path = written(tmp_path / "subject105.dat", made_rows([0] * 60 + [10] * 60))
        assert published_note(path) == [
            "subject105.dat: the published cut gives 0 windows, published are 4065"
        ]

    def test_two_files_of_one_subject(self, tmp_path: Path) -> None:
        for folder in ("Protocol", "copy"):
            written(tmp_path / folder / "subject101.dat", made_rows([1] * 9))
        with pytest.raises(BadInputError, match="more than one file of a subject"):
            published.open_streams(tmp_path, ReadOptions())

    def test_optional_files_only(self, tmp_path: Path) -> None:
        written(tmp_path / "Optional" / "subject101.dat", made_rows([1] * 9))
        with pytest.raises(BadInputError, match="no protocol file"):
            published.open_streams(tmp_path, ReadOptions())
