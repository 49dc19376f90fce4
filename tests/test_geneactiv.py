"""Reading GENEActiv recordings: raw `.bin` files, and `.csv` exports of the maker's software."""

from __future__ import annotations

import csv
import json
import pickle
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import made_recordings
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_geneactiv import DATA, SOME, START, csv_text, digits, header, page, steady

from topokd_edge.data.importers import geneactiv, geneactiv_csv
from topokd_edge.data.stream import CHUNK_SAMPLES, Chunk, ReadOptions, Stream
from topokd_edge.errors import BadInputError, UsageError

REAL = (
    "geneacore_100650Hz_file",
    "geneacore_20Hz_file",
    "geneacore_667Hz",
    "geneacore_Incomplete_bin_file",
    "geneacore_One_page_bin_file",
    "genearead_TESTfile",
    "ggirread_GENEActiv_testfile",
    "wristpy_example_geneactiv",
)
REAL_CSV = "geneactiv/gaitpy_demo_data_geneactiv_export.csv"


@dataclass
class Read:
    stream: Stream
    chunks: list[Chunk]

    @property
    def samples(self) -> npt.NDArray[np.float32]:
        return np.concatenate([chunk.samples for chunk in self.chunks])

    @property
    def time(self) -> npt.NDArray[np.float64]:
        return np.concatenate([chunk.time for chunk in self.chunks if chunk.time is not None])

    @property
    def notes(self) -> str:
        return "\n".join(note for chunk in self.chunks for note in chunk.notes)

    @property
    def borders(self) -> list[int]:
        starts = np.cumsum([0, *(len(chunk.samples) for chunk in self.chunks)])
        return [
            int(start + border)
            for start, chunk in zip(starts, self.chunks, strict=False)
            for border in chunk.borders
        ]


def read(path: Path) -> Read:
    opened = (geneactiv_csv if path.suffix == ".csv" else geneactiv).open_streams(path, ReadOptions())
    if opened.refused:
        raise BadInputError(opened.refused[0].reason)
    (stream,) = opened.streams
    return Read(stream, list(stream.chunks()))


def refusal(path: Path) -> str:
    with pytest.raises(BadInputError) as caught:
        read(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Path]:
    def write(content: str | bytes, name: str = "made.bin") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def physical(rows: Sequence[Sequence[int]]) -> npt.NDArray[np.float64]:
    counts = np.array(rows, dtype=np.float64)
    counts[:, :3] = (counts[:, :3] * 100 - [-33, -983, -354]) / [25211, 25165, 24925]
    counts[:, 3] *= 911 / 48
    return counts


class TestRealBin:
    """Values that two independent readers agree on."""

    @pytest.mark.parametrize("name", REAL)
    def test_values(self, name: str) -> None:
        path = made_recordings.shared_data(f"geneactiv/{name}.bin")
        expected = json.loads(path.with_name("expected.json").read_text())[path.name]
        found = read(path)
        x = found.samples.astype(np.float64)
        acc = x[:, :3]
        assert len(x) == expected["samples"]
        assert acc[0] == pytest.approx(expected["first_acc_g"], abs=1e-7)
        assert acc[-1] == pytest.approx(expected["last_acc_g"], abs=1e-7)
        assert acc.mean(axis=0) == pytest.approx(expected["mean_acc_g"], abs=1e-6)
        assert np.median(np.linalg.norm(acc, axis=1)) == pytest.approx(expected["median_norm_g"], abs=1e-6)
        light = expected["first_light_count"] * float(expected["lux"]) / float(expected["volts"])
        assert x[0, 3] == pytest.approx(light, rel=1e-6)
        assert x[:, 4].sum() == expected["button_samples"] and set(x[:, 4]) <= {0.0, 1.0}
        assert x[0, 5] == pytest.approx(expected["temperature_first"], rel=1e-6)

    @pytest.mark.parametrize("name", REAL)
    def test_what_the_header_says(self, name: str) -> None:
        path = made_recordings.shared_data(f"geneactiv/{name}.bin")
        expected = json.loads(path.with_name("expected.json").read_text())[path.name]
        stream = read(path).stream
        assert stream.rate_hz == expected["page_fs"]
        assert stream.about["serial"] == expected["serial"]
        assert stream.about["firmware"] == expected["firmware"]
        assert stream.about.get("position", "") == expected["location"]
        assert stream.about["calibration"].startswith(f"x gain {expected['gain'][0]:.0f}, x offset ")
        assert stream.device == f"{expected['device_type']} {expected['model']}"
        assert stream.session == stream.path.stem
        assert stream.start is not None
        assert stream.start.replace("T", " ").replace(".", ":") == expected["first_page_time"]

    @pytest.mark.parametrize("name", REAL)
    def test_no_gap_and_no_border_where_there_is_none(self, name: str) -> None:
        found = read(made_recordings.shared_data(f"geneactiv/{name}.bin"))
        assert found.stream.rate_hz is not None
        steps = np.diff(found.time) * found.stream.rate_hz
        assert steps.min() > 0.998 and steps.max() < 1.002
        assert found.borders == []

    def test_a_stated_rate_that_is_rounded_does_not_stretch_the_time(self) -> None:
        """17 pages of 3.5 s: 85.714 Hz, of which the header tells 85.7."""
        found = read(made_recordings.shared_data("geneactiv/ggirread_GENEActiv_testfile.bin"))
        assert found.time[4800] == 56.0
        assert found.time[-1] == pytest.approx(5030 * 3.5 / 300, abs=1e-9)

    def test_endings(self) -> None:
        cut = read(made_recordings.shared_data("geneactiv/ggirread_GENEActiv_testfile.bin"))
        assert "ends inside page 17, which has 231 whole samples" in cut.notes
        assert "states 222048 pages, the file has 17" in cut.notes
        no_data = read(made_recordings.shared_data("geneactiv/geneacore_Incomplete_bin_file.bin"))
        assert no_data.notes == "the file ends inside page 10, which has 0 whole samples"
        assert read(made_recordings.shared_data("geneactiv/wristpy_example_geneactiv.bin")).notes == ""

    def test_refused_with_a_plain_reason(self) -> None:
        short = refusal(made_recordings.shared_data("geneactiv/geneacore_Short_header.bin"))
        assert "followed by no sample" in short
        band = refusal(made_recordings.shared_data("geneactiv/geneacore_Not_a_GENEActiv_bin_file.bin"))
        assert "Activinsights Band" in band


class TestBinValues:
    @settings(max_examples=40, deadline=None)
    @given(data=st.data())
    def test_every_form_of_file_gives_the_same_values(self, data: Any, tmp_path_factory: Any) -> None:
        eol = data.draw(st.sampled_from(["\n", "\r\n"]))
        pages = data.draw(st.integers(1, 3))
        generator = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
        low, high = [-2048, -2048, -2048, 0, 0], [2048, 2048, 2048, 1024, 2]
        rows = generator.integers(low, high, (300 * pages, 5))
        kept = data.draw(st.integers(1, 300))
        lower = data.draw(st.booleans())
        comma = data.draw(st.booleans())
        text = header(eol, Volts="48,0" if comma else "48", Device_Type=data.draw(st.sampled_from(DEVICES)))
        for i in range(pages):
            hexadecimal = digits(rows[300 * i : 300 * (i + 1)].tolist())
            if i == pages - 1:
                hexadecimal = hexadecimal[: kept * 12] + "0" * data.draw(st.integers(0, 11)) * (kept < 300)
            at = START + timedelta(seconds=3 * i)
            temperature = "21,3" if comma else "21.3"
            text += page(i, at, hexadecimal.lower() if lower else hexadecimal, eol, temperature=temperature)
        text += data.draw(st.sampled_from(["", eol, "\0" * 50_000]))
        path = tmp_path_factory.mktemp("made") / "made.bin"
        path.write_text(text, newline="")
        found = read(path)
        length = 300 * (pages - 1) + kept
        np.testing.assert_allclose(
            found.samples[:, :5], physical(rows[:length].tolist()), rtol=1e-6, atol=1e-7
        )
        assert np.all(found.samples[:, 5] == np.float32(21.3))
        np.testing.assert_allclose(found.time, np.arange(length) / 100, atol=1e-6)
        assert ("ends inside" in found.notes) == (kept < 300)

    def test_channels(self, made: Callable[..., Path]) -> None:
        stream = read(made(header() + steady(2))).stream
        assert stream.channels == ("acc_x", "acc_y", "acc_z", "light", "button", "temperature")
        assert stream.units == ("g", "g", "g", "lux", "1", "degC")
        assert geneactiv.DEFAULT_CHANNELS == geneactiv_csv.DEFAULT_CHANNELS == stream.channels[:3]

    def test_what_is_told_of_the_wearer(self, made: Callable[..., Path]) -> None:
        stream = read(made(header() + steady(2))).stream
        assert (stream.subject, stream.device) == ("P 07", "GENEActiv 1.1")
        assert stream.session == stream.path.stem
        assert stream.about["side"] == "left" and stream.about["position"] == "Left wrist"
        assert stream.about["subject_code"] == "P 07" and stream.about["time_zone"] == "GMT +01:00"
        assert "configured_start" not in stream.about
        assert not {"1970-01-01", "female", "61.5"} & set(stream.about.values())
        assert read(made(header(Subject_Code="\0" * 20) + steady(1))).stream.subject == "unknown"

    def test_a_subject_in_the_letters_of_old_windows(self, made: Callable[..., Path]) -> None:
        content = (header(Subject_Code="Jürgen") + steady(2)).encode("latin-1")
        assert read(made(content)).stream.subject == "Jürgen"

    def test_a_long_file_comes_in_chunks_that_fit_together(self, made: Callable[..., Path]) -> None:
        found = read(made(header() + steady(500)))
        assert len(found.chunks) == 3 and max(len(c.samples) for c in found.chunks) <= CHUNK_SAMPLES
        np.testing.assert_allclose(
            found.samples[:, :5], np.tile(physical(SOME), (500, 1)), rtol=1e-6, atol=1e-7
        )
        np.testing.assert_allclose(found.time, np.arange(150_000) / 100, atol=1e-6)
        assert found.notes == "the header states 2 pages, the file has 500"

    def test_a_last_page_without_samples_makes_no_empty_chunk(self, made: Callable[..., Path]) -> None:
        found = read(made(header() + steady(CHUNK_SAMPLES // 300 + 1)[: -len(DATA) - 20]))
        assert [len(chunk.samples) for chunk in found.chunks] == [CHUNK_SAMPLES // 300 * 300]
        assert "which has 0 whole samples" in found.notes

    def test_another_process_can_read_the_chunks(self, made: Callable[..., Path]) -> None:
        for path in (made(header() + steady(1)), made(csv_text(5), "made.csv")):
            found = read(path)
            again = list(pickle.loads(pickle.dumps(found.stream.chunks))())
            np.testing.assert_array_equal(again[0].samples, found.samples)


DEVICES = ["GENEActiv", "GENEActiv   ", "GENEACTIV", "GENEAsleep\0\0\0"]


class TestBinTime:
    def test_a_rate_that_is_a_little_wrong_adds_up_to_nothing(self, made: Callable[..., Path]) -> None:
        """Pages of 29.994 s (0.02 % fast), stamped in milliseconds: 18 s off after 25 h if just counted."""
        text = header(Measurement_Frequency="10 Hz") + steady(3000, 29.994, rate="10.0")
        found = read(made(text))
        assert found.borders == [] and "clock" not in found.notes
        truth = np.arange(900_000) * 29.994 / 300
        assert np.abs(found.time - truth).max() < 0.002
        steps = np.diff(found.time) * 10
        assert steps.min() > 0.999 and steps.max() < 1.001

    @pytest.mark.parametrize("stated", ["85.7", "66.7", "33.3", "100", "30"])
    @pytest.mark.parametrize("jitter", [0.0, 0.0005])
    def test_rounding_of_rate_and_stamp_makes_no_gap(
        self, made: Callable[..., Path], stated: str, jitter: float
    ) -> None:
        true = {"85.7": 600 / 7, "66.7": 200 / 3, "33.3": 100 / 3}.get(stated, float(stated))
        noise = np.random.default_rng(0).uniform(-jitter, jitter, 200)
        text = header(Measurement_Frequency=f"{stated} Hz") + "".join(
            page(i, START + timedelta(seconds=300 * i / true + noise[i]), rate=stated) for i in range(200)
        )
        found = read(made(text))
        steps = np.diff(found.time) * true
        assert steps.min() > 0.98 and steps.max() < 1.02 and found.borders == []
        assert len(steps) / (found.time[-1] - found.time[0]) == pytest.approx(true, rel=1e-5)

    def test_a_lost_page_is_a_gap(self, made: Callable[..., Path]) -> None:
        pages = [page(i, START + timedelta(seconds=3 * i)) for i in (0, 1, 4, 5)]
        found = read(made(header() + "".join(pages)))
        assert found.time[600] == pytest.approx(12.0, abs=1e-6)
        steps = np.diff(found.time)
        assert np.flatnonzero(steps > 0.015).tolist() == [599]
        assert found.borders == []

    def test_a_late_page_is_a_gap_from_two_samples_on(self, made: Callable[..., Path]) -> None:
        for late, gaps in ((0.010, []), (0.011, [299])):
            pages = page(0, START) + page(1, START + timedelta(seconds=3 + late))
            steps = np.diff(read(made(header() + pages)).time)
            assert np.flatnonzero(steps > 0.015).tolist() == gaps

    def test_a_clock_that_was_set_back_is_a_border(self, made: Callable[..., Path]) -> None:
        seconds = (0, 3, -3600, -3597, -3594)
        pages = [page(i, START + timedelta(seconds=at)) for i, at in enumerate(seconds)]
        found = read(made(header(Number_of_Pages="5") + "".join(pages)))
        assert found.borders == [600]
        np.testing.assert_allclose(np.diff(found.time), 0.01, atol=1e-6)
        assert found.notes == (
            "the clock was set back 1 time(s), first by 3606.000 s before page 3; the time after that counts "
            "on from the sample before"
        )

    def test_a_border_in_a_later_chunk(self, made: Callable[..., Path]) -> None:
        pages = [page(i, START + timedelta(seconds=3 * i - 9 * (i >= 250))) for i in range(300)]
        found = read(made(header() + "".join(pages)))
        assert len(found.chunks) == 2 and found.borders == [75_000]
        assert np.all(np.diff(found.time) > 0)

    def test_a_clock_that_was_never_set(self, made: Callable[..., Path]) -> None:
        found = read(made(header() + "".join(page(i, None) for i in range(4))))
        assert found.stream.start is None and found.borders == []
        np.testing.assert_allclose(found.time, np.arange(1200) / 100, atol=1e-9)
        assert "4 page(s), first page 1, have no time: the clock was not set" in found.notes

    def test_a_clock_set_while_recording_is_a_border(self, made: Callable[..., Path]) -> None:
        stamps = [None, None, START, START + timedelta(seconds=3), None, None]
        found = read(made(header() + "".join(page(i, at) for i, at in enumerate(stamps))))
        assert found.borders == [600, 1200]
        np.testing.assert_allclose(found.time, np.arange(1800) / 100, atol=1e-6)

    def test_a_page_lost_without_a_clock_is_a_border(self, made: Callable[..., Path]) -> None:
        assert read(made(header() + "".join(page(i, None) for i in (0, 1, 3)))).borders == [600]


class TestBinRefused:
    def test_all_that_is_wrong_with_a_header_is_named(self, made: Callable[..., Path]) -> None:
        changes = {
            "x gain": "0",
            "y gain": None,
            "z offset": "-",
            "Volts": "0",
            "Measurement Frequency": "nan",
        }
        text = refusal(made(header(**changes) + steady(1)))
        assert all(f"  - {key}: " in text for key in changes), text
        assert "y gain: missing" in text

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            ("", "no line 'Device Type'"),
            ("\0" * 100_000, "no line 'Device Type'"),
            (bytes(range(256)) * 1000, "no line 'Device Type'"),
            (header(), "followed by no sample"),
            (header() + "Recorded Data\r\n", "followed by no sample"),
            (header() + steady(1)[:150], "followed by no sample"),
            (header(Device_Type="Activinsights Band"), "'Activinsights Band'"),
            (header(Measurement_Frequency="1e99 Hz") + steady(1), "Measurement Frequency: '1e99 Hz'"),
            ((header() + steady(3)).replace("Recorded", "Recorbed", 1), "no line 'Recorded Data' between"),
            (header() + "\n".join("a:b" for _ in range(500)), "no line 'Recorded Data' between"),
        ],
    )
    def test_files_without_a_recording(
        self, made: Callable[..., Path], content: str | bytes, reason: str
    ) -> None:
        assert reason in refusal(made(content))

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            (("Page Time:2024-02-29 00:00:00:500", "Page Time:2024-02-30 00:00:00:500"), "page 2, Page Time"),
            (("Page Time:2024-02-29 00:00:00:500", "Page Time:9024-02-29 00:00:00:500"), "page 2, Page Time"),
            (("Sequence Number:1", "Sequence Number:"), "page 2, Sequence Number: ''"),
            (("Sequence Number:1\r\n", ""), "expected Sequence Number"),
            ((DATA + "\r\nRecorded", DATA + "\r\nRecorbed"), "'Recorbed Data', expected 'Recorded Data'"),
            (("00:00:00:500\r\nUnassigned:\r\nTemperature:21.3", "00:00:00:500\r\nTemperature:x"), "'x'"),
            (
                (
                    "00:00:00:500\r\nUnassigned:",
                    "00:00:00:500\r\n" + "".join(f"{i}:b\r\n" for i in range(20)),
                ),
                "page 2: '13:b'",
            ),
            ((DATA + "\r\nRecorded", DATA[:-12] + "\r\nRecorded"), "page 1: 299 whole samples, expected 300"),
            ((DATA + "\r\nRecorded", DATA + "000\r\nRecorded"), "page 1, 3603 or more digits"),
            ((DATA + "\r\nRecorded", "g" + DATA[1:] + "\r\nRecorded"), "page 1, samples: something else"),
            ((DATA + "\r\nRecorded", "Recorded"), "no samples of page 1 before it"),
            ((DATA + "\r\nRecorded", DATA + "\r\n" + "A" * 50_000 + "\r\nRecorded"), "'AAAAAA"),
        ],
    )
    def test_damage_is_named(self, made: Callable[..., Path], change: tuple[str, str], reason: str) -> None:
        content = header() + steady(3)
        assert change[0] in content
        text = refusal(made(content.replace(*change, 1)))
        assert reason in text and "before the place named first" in text

    def test_a_page_of_another_rate(self, made: Callable[..., Path]) -> None:
        text = header() + page(0, START) + page(1, START + timedelta(seconds=3), rate="50.0")
        assert "page 2, Measurement Frequency: '50.0'" in refusal(made(text))

    def test_ten_problems_are_named(self, made: Callable[..., Path]) -> None:
        text = refusal(made(header() + steady(1) + steady(30, temperature="hot")))
        assert len(re.findall("^  - page", text, re.MULTILINE)) == 10

    def test_a_folder_of_good_and_bad(self, made: Callable[..., Path], tmp_path: Path) -> None:
        good, bad = made(header() + steady(1), "a.BIN"), made("nothing", "b.bin")
        opened = geneactiv.open_streams(tmp_path, ReadOptions())
        assert [stream.path for stream in opened.streams] == [good]
        assert [item.file for item in opened.refused] == [str(bad)]

    @pytest.mark.parametrize("module", [geneactiv, geneactiv_csv])
    def test_no_file(self, module: Any, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="needs a"):
            module.open_streams(None, ReadOptions())
        with pytest.raises(BadInputError, match="no such file"):
            module.open_streams(tmp_path / "absent", ReadOptions())

    def test_cut_off_anywhere_gives_all_whole_samples_before(self, made: Callable[..., Path]) -> None:
        content = (header() + steady(3)).encode()
        at = [match.start() for match in re.finditer(DATA.encode(), content)]
        whole = physical(SOME * 3)
        for end in range(0, len(content), 29):
            kept = sum(min(max(end - start, 0), 3600) // 12 for start in at)
            path = made(content[:end])
            if kept == 0:
                refusal(path)
                continue
            found = read(path)
            np.testing.assert_allclose(found.samples[:, :5], whole[:kept], rtol=1e-6, atol=1e-7)
            between_pages = any(start + 3600 <= end <= start + 3602 for start in at)
            assert ("ends inside" in found.notes) != between_pages


# Made .csv exports.


def csv_values(rows: int) -> npt.NDArray[np.float64]:
    i = np.arange(rows)
    return np.stack(
        [i % 999 / 1000, -(i % 999) / 500, np.full(rows, 1.0007), i % 50, i % 2, 20.5 + i % 10], axis=1
    )


class TestCsv:
    def test_real_file(self) -> None:
        path = made_recordings.shared_data(REAL_CSV)
        found = read(path)
        lines = path.read_text("latin-1").replace("\0", "").splitlines()[100:]
        rows = list(csv.reader(lines))
        np.testing.assert_array_equal(found.samples, np.array([row[1:] for row in rows], dtype=np.float32))
        stamps = [datetime.strptime(f"{row[0]}000", "%Y-%m-%d %H:%M:%S:%f") for row in rows]
        truth = [(at - stamps[0]).total_seconds() for at in stamps]
        np.testing.assert_allclose(found.time, truth, atol=1e-9)
        assert (found.stream.rate_hz, found.stream.subject) == (50.0, "20190806")
        assert found.stream.start == "2019-08-06T10:25:50.000"
        assert found.stream.about["position"] == "back" and found.stream.about["serial"] == "046164"
        assert np.median(np.linalg.norm(found.samples[:, :3], axis=1)) == pytest.approx(1, abs=0.02)

    def test_the_half_second_missing_after_the_first_page_of_the_real_file(self) -> None:
        found = read(made_recordings.shared_data(REAL_CSV))
        steps = np.diff(found.time)
        assert np.flatnonzero(steps > 0.03).tolist() == [299]
        assert steps[299] == pytest.approx(0.52) and found.borders == [] and found.notes == ""

    @settings(max_examples=40, deadline=None)
    @given(rows=st.integers(1, 60), block=st.integers(1, 3000), eol=st.sampled_from(["\n", "\r\n"]))
    def test_blocks_do_not_matter(self, rows: int, block: int, eol: str, tmp_path_factory: Any) -> None:
        path = tmp_path_factory.mktemp("made") / "made.csv"
        path.write_text(csv_text(rows, eol), newline="")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(geneactiv_csv, "_BLOCK_BYTES", block)
            found = read(path)
        np.testing.assert_array_equal(found.samples, csv_values(rows).astype(np.float32))
        np.testing.assert_allclose(found.time, np.arange(rows) / 50, atol=1e-9)
        assert found.stream.start == "2024-02-28T23:59:57.500"
        assert found.stream.about["side"] == "right" and found.stream.subject == "S1"

    def test_long_files_come_in_chunks(self, made: Callable[..., Path]) -> None:
        found = read(made(csv_text(100_000), "made.csv"))
        assert (
            len(found.chunks) == 2 and max(len(chunk.samples) for chunk in found.chunks) < 2 * CHUNK_SAMPLES
        )
        np.testing.assert_array_equal(found.samples, csv_values(100_000).astype(np.float32))

    @pytest.mark.parametrize("block", [1 << 22, 100])
    def test_a_clock_that_was_set_back_is_a_border(
        self, made: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, block: int
    ) -> None:
        monkeypatch.setattr(geneactiv_csv, "_BLOCK_BYTES", block)
        times = [
            START + timedelta(milliseconds=20 * i - 5000 * (i >= 30) - 70 * (i >= 41)) for i in range(60)
        ]
        found = read(made(csv_text(60, times=times), "made.csv"))
        assert found.borders == [30, 41]
        np.testing.assert_allclose(np.diff(found.time), 0.02, atol=1e-9)
        assert "first by 4.980 s in line 131;" in found.notes

    def test_a_last_line_that_was_cut_off_is_left_out(self, made: Callable[..., Path]) -> None:
        content = csv_text(12)
        rows = [match.end() for match in re.finditer("\r\n", content)][100:]
        for end in range(rows[0], len(content), 5):
            kept = sum(row <= end for row in rows)
            found = read(made(content[:end], "made.csv"))
            assert len(found.samples) == kept
            assert (f"line {101 + kept}, the last one, has no line end" in found.notes) == (end not in rows)

    @pytest.mark.parametrize("ending", ["\r\n", "\n\n\n", "\0" * 1000, "\r\n\0\0"])
    def test_nothing_after_the_last_row_is_nothing(self, made: Callable[..., Path], ending: str) -> None:
        found = read(made(csv_text(20) + ending, "made.csv"))
        assert len(found.samples) == 20 and found.notes == ""

    @pytest.mark.parametrize(
        ("row", "reason"),
        [
            ("2024-02-28 23:59:57:600,1,2,3,4,0", "6 column(s), expected 7"),
            ("2024-02-28 23:59:57:600,1,2,3,4,0,5,6", "8 column(s)"),
            ("2024-02-28 23:59:57:600,1,2,3,4,0,5" + ",0" * 5, "an export of averages over epochs"),
            ("", "1 column(s)"),
            ("2023-02-29 23:59:57:600,1,1,1,4,0,5", "time '2023-02-29 23:59:57:600'"),
            ("2024-02-28 24:59:57:600,1,1,1,4,0,5", "time '2024-02-28 24:59:57:600'"),
            ("2024-13-28 23:59:57:600,1,1,1,4,0,5", "time '2024-13-28"),
            ("1024-12-28 23:59:57:600,1,1,1,4,0,5", "time '1024-12-28"),
            ("0000-00-00 00:00:00:000,1,1,1,4,0,5", "time '0000-00-00"),
            ("2024-02-28T23:59:57.600,1,1,1,4,0,5", "time '2024-02-28T"),
            ("2024-02-28 23:59:57:600,1,1,,4,0,5", "z '', expected a number from -20 to 20"),
            ("2024-02-28 23:59:57:600,nan,1,1,4,0,5", "x 'nan'"),
            ("2024-02-28 23:59:57:600,1,inf,1,4,0,5", "y 'inf'"),
            ("2024-02-28 23:59:57:600,1,1,1e30,4,0,5", "z '1e30'"),
            ("2024-02-28 23:59:57:600,1,1,1,4,2,5", "button '2', expected a number from 0 to 1"),
            ("2024-02-28 23:59:57:600,1,1,1 1,4,1,5", "z '1 1'"),
            ("2024-02-28 23:59:57:600,1_0,1,1,4,1,5", "not in the form"),
        ],
    )
    def test_rows_that_cannot_be_read_are_named(
        self, made: Callable[..., Path], row: str, reason: str
    ) -> None:
        lines = csv_text(20).split("\r\n")
        lines[112] = row
        text = refusal(made("\r\n".join(lines), "made.csv"))
        line = 101 if reason == "not in the form" else 113
        assert f"- line {line}" in text and reason in text

    def test_a_value_that_slipped_into_the_next_row(self, made: Callable[..., Path]) -> None:
        lines = csv_text(20).split("\r\n")
        lines[112] = "2024-02-28 23:59:57:600,1,1,1,1,1"
        lines[113] = "2024-02-28 23:59:57:620,1,1,1,1,1,1,1"
        text = refusal(made("\r\n".join(lines), "made.csv"))
        assert "line 113: 6 column(s)" in text and "line 114: 8 column(s)" in text

    def test_ten_rows_are_named(self, made: Callable[..., Path]) -> None:
        lines = csv_text(40).split("\r\n")
        lines[105:130] = ["?"] * 25
        text = refusal(made("\r\n".join(lines), "made.csv"))
        assert re.findall(r"- line (\d+)", text) == [str(line) for line in range(106, 116)]

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            ("", "no line 'Device Type'"),
            (csv_text(5).partition("\r\n\r\n")[2].lstrip(), "header is lost"),
            (csv_text(0), "no row of a sample follows the header"),
            (csv_text(1)[:-2], "no row of a sample follows the header"),
            (csv_text(5, Device_Type="Axivity"), "'Axivity'"),
            (csv_text(5, Measurement_Frequency=None), "Measurement Frequency: missing"),
            (csv_text(5) + "1" * 10_000_000, "line 106: too long"),
            (bytes(range(256)) * 1000, "no line 'Device Type'"),
        ],
    )
    def test_files_without_a_recording(
        self, made: Callable[..., Path], content: str | bytes, reason: str
    ) -> None:
        assert reason in refusal(made(content, "made.csv"))


# Damage at random.


def mutants(content: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Content with bytes changed, cut off, cut out or doubled."""
    generator = np.random.default_rng(seed)
    for _ in range(count):
        changed = bytearray(content)
        kind = generator.integers(5)
        a, b = sorted(generator.integers(0, len(content), 2).tolist())
        if generator.random() < 0.5:
            a, b = a % 3000, a % 3000 + (b - a) % 50
        if kind <= 1:
            for at in generator.integers(0, [len(content), 2000][kind], generator.integers(1, 9)):
                changed[at % len(content)] ^= 1 << generator.integers(8)
        elif kind == 2:
            del changed[b:]
        elif kind == 3:
            del changed[a:b]
        else:
            changed[a:a] = content[a:b]
        yield bytes(changed)


def survive(content: bytes, path: Path, count: int, seed: int) -> tuple[int, int]:
    """Read damaged copies, and return how many were read and how many refused."""
    done = refused = 0
    for changed in mutants(content, count, seed):
        path.write_bytes(changed)
        before = time.monotonic()
        try:
            found = read(path)
        except BadInputError as error:
            refused += 1
            assert str(path) in str(error)
        else:
            done += 1
            assert np.all(np.isfinite(found.samples)) and len(found.samples) == len(found.time) > 0
            assert np.all(np.diff(found.time) >= 0)
        assert time.monotonic() - before < 10
    return done, refused


class TestDamage:
    def test_made_bin(self, tmp_path: Path) -> None:
        done, refused = survive((header() + steady(3)).encode(), tmp_path / "made.bin", 200, 1)
        assert done > 20 and refused > 20

    def test_made_csv(self, tmp_path: Path) -> None:
        done, refused = survive(csv_text(100).encode(), tmp_path / "made.csv", 200, 2)
        assert done > 20 and refused > 20

    @pytest.mark.slow
    @pytest.mark.parametrize("name", [f"geneactiv/{name}.bin" for name in REAL] + [REAL_CSV])
    def test_real_files(self, name: str, tmp_path: Path) -> None:
        path = made_recordings.shared_data(name)
        count = 2500 if name == REAL_CSV else 500
        done, refused = survive(path.read_bytes(), tmp_path / path.name, count, 3)
        assert done > count // 20 and refused > count // 20, (done, refused)
