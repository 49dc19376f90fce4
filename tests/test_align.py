"""Sensors at rates of their own meet on one clock: the signal, the time, the gaps and the labels are true."""

from __future__ import annotations

import tracemalloc
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_recordings import import_into, recording

from topokd_edge.data import align as align_module
from topokd_edge.data import clean as clean_module
from topokd_edge.data import gaps, interleaved, ticks
from topokd_edge.data import resample as resample_module
from topokd_edge.data.align import Sensor, align
from topokd_edge.data.clean import Cleaning, UndecidedError, clean
from topokd_edge.data.clock import read_clock
from topokd_edge.data.join import join_streams
from topokd_edge.data.recording import LabelInterval, Recording
from topokd_edge.data.spool import Spooled
from topokd_edge.data.stream import Chunk, Opened, Stream
from topokd_edge.errors import BadInputError, UsageError

Floats = npt.NDArray[np.float64]
ACC, GYR = ("acc_x", "acc_y", "acc_z"), ("gyr_x", "gyr_y", "gyr_z")
BLOCKS = [
    (align_module, "BLOCK"),
    (resample_module, "BLOCK"),
    (gaps, "BLOCK"),
    (ticks, "BLOCK"),
    (clean_module, "BLOCK"),
    (interleaved, "BLOCK"),
]
TO_HZ = 50.0
HZ = 1.3
"""Of the movement; its lines between samples at 52 Hz err by (pi 1.3 / 52)^2 / 2 = 0.3 %."""


def uneven(rate_hz: float, seconds: float, seed: int, late: float = 0.0) -> Floats:
    """Stamps that leave the even ones by up to 0.45 of an interval, so never run backward."""
    even = np.arange(int(seconds * rate_hz))
    return late + (even + np.random.default_rng(seed).uniform(-0.45, 0.45, len(even))) / rate_hz


def truth(time: Floats) -> Floats:
    """The movement as all six channels feel it: the gyroscope 70 degrees later, and gravity in acc_z."""
    turns = 2 * np.pi * HZ * time
    late = turns - np.radians(70)
    acc = [np.sin(turns), np.cos(turns), 1 + 0.2 * np.sin(turns)]
    gyr = [3 * np.sin(late), 2 * np.cos(late), np.sin(late) + np.cos(late)]
    return np.stack([*acc, *gyr], axis=1)


def sensor(
    time: Floats, channels: tuple[str, ...], samples: Floats, labels: tuple[LabelInterval, ...] = ()
) -> Sensor:
    reading = read_clock(lambda: iter([time]), stated_hz=None, stated_by_user=False, borders=(), where="made")
    made = replace(
        recording(samples=len(time), rate_hz=reading.rate_hz),
        channels=channels,
        units=("1",) * len(channels),
        samples=samples.astype(np.float32).T,
        gaps=reading.gaps,
        labels=labels,
        clock=reading.clock,
        start="2024-05-01T12:00:00+00:00",
    )
    return Sensor(made, time)


def two(acc: Floats, gyr: Floats) -> list[Sensor]:
    return [sensor(acc, ACC, truth(acc)[:, :3]), sensor(gyr, GYR, truth(gyr)[:, 3:])]


def shift_seconds(found: npt.NDArray[np.float32], expected: Floats) -> float:
    """How much later one sine is than another of the same frequency, by least squares."""
    turns = 2 * np.pi * HZ * np.arange(len(found)) / TO_HZ
    basis = np.stack([np.sin(turns), np.cos(turns), np.ones_like(turns)], axis=1)
    angles = []
    for one in (found, expected):
        sine, cosine, _ = np.linalg.lstsq(basis, one, rcond=None)[0]
        angles.append(np.arctan2(cosine, sine))
    turn = (angles[1] - angles[0] + np.pi) % (2 * np.pi) - np.pi
    return float(turn / (2 * np.pi * HZ))


class TestSignal:
    @pytest.mark.parametrize(("acc_hz", "gyr_hz"), [(97, 52), (52, 97), (100, 9), (30, 40)])
    def test_sines_fall_where_they_are(self, tmp_path: Path, acc_hz: float, gyr_hz: float) -> None:
        sensors = two(uneven(acc_hz, 60, 1, 0.013), uneven(gyr_hz, 60, 2, 0.4217))
        found, begin = align(sensors, (*ACC, *GYR), TO_HZ, tmp_path / "new.npy")
        assert begin == max(item.time[0] for item in sensors)
        assert (found.rate_hz, found.channels, found.gaps) == (TO_HZ, (*ACC, *GYR), ())
        time = begin + np.arange(found.samples.shape[1]) / TO_HZ
        last = min(item.time[-1] for item in sensors)
        assert last - 1 / TO_HZ < time[-1] <= last + 1e-8
        expected = truth(time)
        inner = slice(100, -100)
        for column, (_, hz) in enumerate([("acc", acc_hz)] * 3 + [("gyr", gyr_hz)] * 3):
            # The longest step between uneven stamps is 1.9 intervals; a line across it errs by this share.
            bound = (np.pi * HZ * 1.9 / hz) ** 2 / 2 + 0.002
            size = np.ptp(expected[:, column]) / 2
            assert np.abs(found.samples[column] - expected[:, column])[inner].max() < bound * size
            assert abs(shift_seconds(found.samples[column][inner], expected[inner, column])) < 1e-3

    def test_a_wrong_origin_would_be_seen(self, tmp_path: Path) -> None:
        sensors = two(uneven(97, 60, 1), uneven(52, 60, 2))
        late = replace(sensors[1], time=sensors[1].time + 0.005)
        found, begin = align([sensors[0], late], (*ACC, *GYR), TO_HZ, tmp_path / "new.npy")
        expected = truth(begin + np.arange(found.samples.shape[1]) / TO_HZ)
        assert shift_seconds(found.samples[3], expected[:, 3]) == pytest.approx(0.005, abs=1e-3)
        assert abs(shift_seconds(found.samples[0], expected[:, 0])) < 1e-3

    def test_what_would_alias_is_taken_down(self, tmp_path: Path) -> None:
        acc, gyr = np.arange(0, 30, 1 / 200), uneven(52, 30, 2)
        tone = np.stack([np.sin(2 * np.pi * 41 * acc)] * 3, axis=1)
        found, _ = align(
            [sensor(acc, ACC, tone), sensor(gyr, GYR, truth(gyr)[:, 3:])], (*ACC, *GYR), 50.0, tmp_path / "n"
        )
        assert np.abs(found.samples[:3, 100:-100]).max() < 0.01

    def test_stamps_of_whole_ticks(self, tmp_path: Path) -> None:
        """Phones hand out ten samples with one stamp; each belongs to the time until the next."""
        acc = np.arange(0, 60, 0.01)
        gyr = uneven(52, 60, 2)
        sensors = [
            sensor(np.floor(acc * 10 + 1e-9) / 10, ACC, truth(acc)[:, :3]),
            sensor(gyr, GYR, truth(gyr)[:, 3:]),
        ]
        found, begin = align(sensors, (*ACC, *GYR), TO_HZ, tmp_path / "new.npy")
        expected = truth(begin + np.arange(found.samples.shape[1]) / TO_HZ)
        assert abs(shift_seconds(found.samples[0], expected[:, 0])) < 1e-3

    def test_a_stretch_in_blocks_equals_the_whole(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sensors = two(uneven(97, 30, 1), uneven(52, 30, 2))
        whole, _ = align(sensors, (*ACC, *GYR), TO_HZ, tmp_path / "whole.npy")
        for module, name in BLOCKS:
            monkeypatch.setattr(module, name, 97)
        parts, _ = align(sensors, (*ACC, *GYR), TO_HZ, tmp_path / "parts.npy")
        np.testing.assert_allclose(parts.samples, whole.samples, atol=1e-6)
        assert sorted(item.name for item in tmp_path.iterdir()) == ["parts.npy", "whole.npy"]


@st.composite
def stamps_with_holes(draw: st.DrawFn) -> Floats:
    rate = draw(st.sampled_from([20.0, 37.0, 50.0, 100.0]))
    count = draw(st.integers(60, 150))
    # Whole microseconds: two clocks some nanoseconds apart are one, and where a stretch ends is then open.
    time = draw(st.integers(0, 10**6)) / 1e6 + np.arange(count) / rate
    for _ in range(draw(st.integers(0, 4))):
        at, length = draw(st.integers(5, count - 5)), draw(st.sampled_from([2.2 / rate, 0.137, 1.0]))
        time[at:] += length
    return time


class TestGaps:
    @settings(max_examples=150, deadline=None)
    @given(stamps_with_holes(), stamps_with_holes(), st.sampled_from([10.0, 25.0, 50.0]))
    def test_the_union_against_brute_force(self, acc: Floats, gyr: Floats, to_hz: float) -> None:
        sensors = two(acc, gyr)
        begin = max(acc[0], gyr[0])
        grid = begin + np.arange(int((max(acc[-1], gyr[-1]) - begin) * to_hz) + 2) / to_hz

        def stretch_of(item: Sensor, at: float) -> int:
            """Which gapless stretch of a sensor holds a time, or -1; one by one."""
            edges = [0, *(gap.after_sample + 1 for gap in item.recording.gaps), len(item.time)]
            for number in range(len(edges) - 1):
                low, high = item.time[edges[number]], item.time[edges[number + 1] - 1]
                if low - 1e-8 <= at <= high + 1e-8:
                    return number
            return -1

        kept = [(k, *(stretch_of(item, at) for item in sensors)) for k, at in enumerate(grid)]
        kept = [item for item in kept if min(item[1:]) >= 0]
        with TemporaryDirectory() as folder:
            path = Path(folder) / "new.npy"
            if not kept:
                with pytest.raises(BadInputError, match="no time in common"):
                    align(sensors, (*ACC, *GYR), to_hz, path)
                return
            found, _ = align(sensors, (*ACC, *GYR), to_hz, path)
            assert np.isfinite(found.samples).all()
        assert found.samples.shape[1] == len(kept)
        expected = {
            place: (later[0] - before[0] - 1) / to_hz
            for place, (before, later) in enumerate(pairwise(kept))
            if later[1:] != before[1:] or later[0] != before[0] + 1
        }
        assert [gap.after_sample for gap in found.gaps] == list(expected)
        assert all(gap.seconds > 0 for gap in found.gaps)
        np.testing.assert_allclose([gap.seconds for gap in found.gaps], list(expected.values()), atol=1e-6)

    def test_nothing_in_common(self, tmp_path: Path) -> None:
        acc, gyr = np.arange(0, 5, 0.01), np.arange(7, 12, 0.02)
        with pytest.raises(BadInputError) as caught:
            align(two(acc, gyr), (*ACC, *GYR), TO_HZ, tmp_path / "new.npy")
        assert "acc_x, acc_y, acc_z: 0 to 4.99 s" in str(caught.value)
        assert "gyr_x, gyr_y, gyr_z: 7 to 11.98 s" in str(caught.value)
        assert list(tmp_path.iterdir()) == []


def changes(item: Recording) -> list[tuple[float, float, str]]:
    """Labels in seconds of the result."""
    return [(label.start / item.rate_hz, label.stop / item.rate_hz, label.label) for label in item.labels]


class TestLabels:
    def labelled(self, time: Floats, channels: tuple[str, ...], *edges: tuple[float, str]) -> Sensor:
        """Rows with the label that holds from each of the times on."""
        begins = [int(np.searchsorted(time, at)) for at, _ in edges] + [len(time)]
        labels = tuple(
            LabelInterval(begins[index], begins[index + 1], name)
            for index, (_, name) in enumerate(edges)
            if name
        )
        columns = slice(0, 3) if channels == ACC else slice(3, 6)
        return sensor(time, channels, truth(time)[:, columns], labels)

    @pytest.mark.parametrize("both", [False, True])
    def test_by_time(self, tmp_path: Path, both: bool) -> None:
        edges = ((0, "walk"), (10.0, ""), (12.0, "sit"), (20.0, "walk"))
        acc = self.labelled(uneven(97, 30, 1), ACC, *edges)
        gyr = self.labelled(uneven(52, 30, 2, 0.31), GYR, *(edges if both else ()))
        found, begin = align([acc, gyr], (*ACC, *GYR), TO_HZ, tmp_path / "new.npy")
        names = ["" for _ in range(found.samples.shape[1])]
        for item in found.labels:
            names[item.start : item.stop] = [item.label] * (item.stop - item.start)
        for k, name in enumerate(names):
            at = begin + k / TO_HZ
            near = min(abs(at - edge) for edge, _ in edges)
            expected = [label for edge, label in edges if edge <= at][-1]
            assert name == expected or near < 2 / 52
        assert [label for *_, label in changes(found)] == ["walk", "sit", "walk"]
        assert found.notes == ()

    def test_rows_that_differ_for_long_have_none(self, tmp_path: Path) -> None:
        acc = self.labelled(uneven(97, 30, 1), ACC, (0, "walk"), (20, "sit"))
        gyr = self.labelled(uneven(52, 30, 2), GYR, (0, "walk"), (15, "sit"))
        found, begin = align([acc, gyr], (*ACC, *GYR), TO_HZ, tmp_path / "new.npy")
        (_, stop, _), (start, _, _) = changes(found)
        assert (stop + begin, start + begin) == pytest.approx((15, 20), abs=0.05)
        (note,) = found.notes
        assert int(note.split()[0]) == pytest.approx(250, abs=3) and "have no label" in note


@dataclass(frozen=True)
class Made:
    """Rows of two sensors in one table, in the order of time."""

    time: Floats
    samples: npt.NDArray[np.float32]

    @classmethod
    def of(cls, acc: Floats, gyr: Floats) -> Made:
        time = np.concatenate([acc, gyr])
        samples = truth(time).astype(np.float32)
        samples[: len(acc), 3:] = np.nan
        samples[len(acc) :, :3] = np.nan
        order = np.argsort(time, kind="stable")
        return cls(time[order], samples[order])

    def stream(self, labels: npt.NDArray[np.str_] | None = None, **changes: object) -> Stream:
        made = Stream(
            source="made.csv",
            path=None,
            channels=(*ACC, *GYR),
            units=("g",) * 3 + ("rad/s",) * 3,
            rate_hz=None,
            chunks=partial(self.chunks, labels),
            start="2024-05-01T12:00:00",
        )
        return replace(made, **changes)

    def chunks(self, labels: npt.NDArray[np.str_] | None):  # type: ignore[no-untyped-def]
        for low in range(0, len(self.time), 1000):
            part = slice(low, low + 1000)
            yield Chunk(self.samples[part], self.time[part], None if labels is None else labels[part])


def sensors_in(samples: npt.NDArray[np.float32]) -> list[tuple[int, ...]]:
    time = np.arange(len(samples), dtype=np.float64)
    return interleaved.sensor_columns(Spooled(samples, time, (), (), ()))


class TestOneTable:
    made = Made.of(uneven(97, 30, 1), uneven(52, 30, 2, 0.31))

    def test_without_a_rate_it_asks_and_says_what_it_saw(self, tmp_path: Path) -> None:
        for lost in ("refuse", "gap"):
            with pytest.raises(UndecidedError) as caught:
                clean(self.made.stream(), Cleaning(lost=lost), tmp_path)  # type: ignore[arg-type]
            for words in ("acc_x, acc_y, acc_z at about 97", "gyr_x, gyr_y, gyr_z at about 52"):
                assert words in str(caught.value)
            assert "--resample 97" in caught.value.hint

    def test_one_stated_rate_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="--rate 50 states one rate"):
            clean(self.made.stream(), Cleaning(rate_hz=50, resample_hz=50), tmp_path)

    def test_it_becomes_one_recording(self, tmp_path: Path) -> None:
        labels = np.where(self.made.time < 10, "walk", "sit")
        channels = ("gyr_z", "acc_x", "gyr_x", "acc_z")
        cleaning = Cleaning(resample_hz=TO_HZ, channels=channels)
        item = clean(self.made.stream(labels), cleaning, tmp_path).recording
        begin = self.made.time[~np.isnan(self.made.samples[:, 3])][0]
        expected = truth(begin + np.arange(item.samples.shape[1]) / TO_HZ)[:, [5, 0, 3, 2]]
        assert (item.channels, item.units) == (channels, ("rad/s", "g", "rad/s", "g"))
        assert np.abs(item.samples.T - expected)[100:-100].max() < 0.08
        assert item.start is not None
        origin = datetime.fromisoformat("2024-05-01T12:00:00")
        assert (datetime.fromisoformat(item.start) - origin).total_seconds() == pytest.approx(begin, abs=1e-6)
        (_, stop, first), (start, _, second) = changes(item)
        assert (first, second) == ("walk", "sit")
        assert (stop + begin, start + begin) == pytest.approx((10, 10), abs=0.03)
        assert "brought to one clock of 50 Hz: gyr_z, gyr_x at about 52" in item.notes[0]

    def test_one_sensor_alone_is_read_as_before(self, tmp_path: Path) -> None:
        cleaning = Cleaning(channels=ACC, lost="gap", resample_hz=TO_HZ)
        item = clean(self.made.stream(), cleaning, tmp_path).recording
        assert item.samples.shape[0] == 3

    def test_a_value_lost_within_a_sensor_stays_lost(self, tmp_path: Path) -> None:
        samples = self.made.samples.copy()
        rows = np.flatnonzero(~np.isnan(samples[:, 0]))[1000:1050]
        samples[rows, 1] = np.nan
        stream = replace(self.made, samples=samples).stream()
        with pytest.raises(UndecidedError) as caught:
            clean(stream, Cleaning(resample_hz=TO_HZ), tmp_path)
        assert "acc_y" in str(caught.value) and "--lost gap" in caught.value.hint
        item = clean(stream, Cleaning(resample_hz=TO_HZ, lost="gap"), tmp_path).recording
        (gap,) = item.gaps
        lasted = self.made.time[rows[-1]] - self.made.time[rows[0]]
        assert gap.seconds == pytest.approx(lasted, abs=0.05)

    def test_rows_without_any_value_are_asked_for(self, tmp_path: Path) -> None:
        samples = self.made.samples.copy()
        samples[500:700] = np.nan
        stream = replace(self.made, samples=samples).stream()
        with pytest.raises(UndecidedError, match="200 row"):
            clean(stream, Cleaning(resample_hz=TO_HZ), tmp_path)
        (gap,) = clean(stream, Cleaning(resample_hz=TO_HZ, lost="gap"), tmp_path).recording.gaps
        assert gap.seconds == pytest.approx(self.made.time[700] - self.made.time[500], abs=0.06)

    def test_gaps_are_filled_when_that_is_asked_for(self, tmp_path: Path) -> None:
        hole = (self.made.time > 10) & (self.made.time < 10.5)
        stream = replace(self.made, time=self.made.time[~hole], samples=self.made.samples[~hole]).stream()
        item = clean(stream, Cleaning(resample_hz=TO_HZ, fill_seconds=1.0), tmp_path).recording
        assert item.gaps == ()
        ((start, stop),) = item.filled
        assert (stop - start) / TO_HZ == pytest.approx(0.5, abs=0.06)

    def test_which_channels_belong_together(self) -> None:
        rows = np.arange(1200)

        def without(*holes: tuple[npt.NDArray[np.bool_], list[int]]) -> list[tuple[int, ...]]:
            samples = np.ones((1200, 4), np.float32)
            for lost, columns in holes:
                samples[np.ix_(lost, columns)] = np.nan
            return sensors_in(samples)

        one = [(0, 1, 2, 3)]
        odd = rows % 2 == 1
        assert without() == one
        assert without((odd, [0, 2]), (~odd, [1, 3])) == [(0, 2), (1, 3)]
        # Half the rate with the same stamps: every second row is complete.
        assert without((odd, [2, 3])) == [(0, 1), (2, 3)]
        # A slow quantity in every tenth row.
        assert without((rows % 10 != 0, [3])) == [(0, 1, 2), (3,)]
        # Lost samples, a sensor that failed for two thirds of the time, and a channel without any value.
        assert without((rows % 7 == 0, [2, 3])) == one
        assert without((rows > 400, [2, 3])) == one
        assert without((rows >= 0, [3])) == one
        # Three sensors in turn.
        turn = rows % 3
        assert without((turn != 0, [0]), (turn != 1, [1, 2]), (turn != 2, [3])) == [(0,), (1, 2), (3,)]

    def test_stamps_that_run_backward_within_a_sensor(self, tmp_path: Path) -> None:
        time = self.made.time.copy()
        row = np.flatnonzero(~np.isnan(self.made.samples[:, 0]))[500]
        time[row] -= 1
        with pytest.raises(BadInputError, match="no clock gives"):
            clean(replace(self.made, time=time).stream(), Cleaning(resample_hz=TO_HZ), tmp_path)

    def test_rows_need_not_be_in_the_order_of_time(self, tmp_path: Path) -> None:
        """Phones write a batch of one sensor, then a batch of the other."""
        batch = np.floor(self.made.time / 0.5) * 2 + np.isnan(self.made.samples[:, 0])
        order = np.argsort(batch, kind="stable")
        labels = np.where(self.made.time < 10.2, "walk", "sit")
        cleaning = Cleaning(resample_hz=TO_HZ)
        sorted_rows = clean(self.made.stream(labels), cleaning, tmp_path).recording
        expected, known = np.array(sorted_rows.samples), sorted_rows.labels
        mixed = Made(self.made.time[order], self.made.samples[order]).stream(labels[order])
        item = clean(mixed, cleaning, tmp_path).recording
        np.testing.assert_array_equal(item.samples, expected)
        assert item.labels == known


def write_csv(path: Path, time: Floats, samples: Floats, header: str, labels: object = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [header]
    for row, at in enumerate(time):
        cells = [f"{at:.9f}", *("" if np.isnan(v) else f"{v:.7g}" for v in samples[row])]
        lines.append(",".join(cells if labels is None else [*cells, str(labels[row])]))  # type: ignore[index]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


EPOCH = 1_714_557_600.0
FLAGS = {"units": "1", "label": "activity", "seconds": 2.0}


def write_pair(
    folder: Path,
    names: tuple[str, str] = ("Accelerometer.csv", "Gyroscope.csv"),
    channels: tuple[str, str] = ("x,y,z", "x,y,z"),
    late: float = 0.31,
    zero: float = EPOCH,
) -> tuple[Floats, Floats]:
    acc, gyr = uneven(97, 30, 1, 0.02), uneven(52, 30, 2, late)
    for name, columns, time, part in (
        (names[0], channels[0], acc, slice(0, 3)),
        (names[1], channels[1], gyr, slice(3, 6)),
    ):
        labels = np.where(time < 10, "walk", "sit")
        write_csv(folder / name, zero + time, truth(time)[:, part], f"t,{columns},activity", labels)
    return acc, gyr


class TestFiles:
    @pytest.mark.parametrize("zero", [EPOCH, 0.0, 8123.25])
    def test_two_files_of_a_phone(self, tmp_path: Path, zero: float) -> None:
        _, gyr = write_pair(tmp_path / "S1", zero=zero)
        write_pair(tmp_path / "S2", zero=zero)
        made = import_into(
            tmp_path / "w", "csv", tmp_path, join=True, time="t:s", resample_hz=TO_HZ,
            subject_from="folder", assume_yes=True, **FLAGS,
        )  # fmt: skip
        assert made.channels == tuple(f"{s}_{a}" for s in ("Accelerometer", "Gyroscope") for a in "xyz")
        first, second = made.recordings
        assert (first.subject, second.subject) == ("S1", "S2")
        begin = float(f"{gyr[0]:.9f}")
        expected = truth(begin + np.arange(first.samples.shape[1]) / TO_HZ)
        assert np.abs(first.samples.T - expected)[100:-100].max() < 0.06
        for column in range(6):
            assert abs(shift_seconds(first.samples[column], expected[:, column])) < 1e-3
        assert any("name of their file in front" in note for note in first.notes)
        assert any("count from the same moment" in note for note in first.notes) == (zero != EPOCH)
        assert [item.label for item in first.labels] == ["walk", "sit"]
        assert first.labels[1].start / TO_HZ + begin == pytest.approx(10, abs=0.03)
        assert set(made.class_names) == {"walk", "sit"}

    def test_names_that_say_the_sensor_stay(self, tmp_path: Path) -> None:
        write_pair(tmp_path / "d", ("acc.csv", "gyro.csv"), (",".join(ACC), ",".join(GYR)))
        made = import_into(
            tmp_path / "w", "csv", tmp_path / "d", join=True, time="t:s", resample_hz=TO_HZ,
            units="acc=g,gyro=rad/s", label="activity", seconds=2.0, assume_yes=True,
        )  # fmt: skip
        assert made.channels == (*ACC, *GYR)
        assert made.recordings[0].units == ("g",) * 3 + ("rad/s",) * 3

    def test_units_by_file(self, tmp_path: Path) -> None:
        write_pair(tmp_path / "d")
        given = {"columns": "x=x,y=y,z=z", "time": "t:s", "label": "activity", "seconds": 2.0}
        both = {"join": True, "resample_hz": TO_HZ, **given}
        units = "Accelerometer=g,Gyroscope=rad/s,Gyroscope.x=deg/s"
        with pytest.raises(UsageError, match=r"there is no channel 'Gyroscope\.x'"):
            import_into(tmp_path / "w", "csv", tmp_path / "d", units=units, **both)
        made = import_into(
            tmp_path / "w", "csv", tmp_path / "d", units="Accelerometer=g,Gyroscope=rad/s", **both
        )
        assert made.recordings[0].units == ("g",) * 3 + ("rad/s",) * 3

    def test_the_file_says_what_bare_axes_hold(self, tmp_path: Path) -> None:
        """A rotation of about 1 rad/s must not pass for gravity, whatever is guessed."""
        time = np.arange(0, 20, 0.02)
        vector = np.stack([np.cos(time), np.sin(time), 0 * time + 0.1], axis=1)
        for name, asked in (("Accelerometer", "z = column 4 'z' in g"), ("Gyroscope", "the unit of x")):
            path = write_csv(tmp_path / f"{name}.csv", time, vector, "t,x,y,z")
            with pytest.raises(UsageError) as caught:
                import_into(tmp_path / "w", "csv", path, time="t:s")
            assert asked in str(caught.value)

    def test_labels_of_one_file_hold_for_both(self, tmp_path: Path) -> None:
        acc, gyr = uneven(97, 30, 1, 0.02), uneven(52, 30, 2, 0.31)
        labels = np.where(acc < 10, "walk", "sit")
        whole = [
            stream_of("acc", acc, ACC, 0, "2024-05-01T12:00:00+02:00", labels),
            stream_of("gyr", gyr, GYR, 3, "2024-05-01T10:00:00+00:00", None),
        ]
        (joined,) = join_streams(Opened(tuple(whole))).streams
        spooled = np.concatenate([chunk.labels for chunk in joined.chunks() if chunk.labels is not None])
        # Not one interval for each row.
        assert np.count_nonzero(spooled[1:] != spooled[:-1]) == 1
        item = clean(joined, Cleaning(resample_hz=TO_HZ), tmp_path).recording
        (_, stop, first), (start, _, second) = changes(item)
        assert (first, second) == ("walk", "sit")
        assert (stop + gyr[0], start + gyr[0]) == pytest.approx((10, 10), abs=0.05)

    def test_a_label_file_counts_from_the_first_row(self, tmp_path: Path) -> None:
        acc, gyr = write_pair(tmp_path / "d")
        (tmp_path / "labels.csv").write_text("start,end,label\n0,8,a\n8,25,b\n")
        made = import_into(
            tmp_path / "w", "csv", tmp_path / "d", join=True, time="t:s", resample_hz=TO_HZ, units="1",
            seconds=2.0, labels=str(tmp_path / "labels.csv"), assume_yes=True,
        )  # fmt: skip
        item = made.recordings[0]
        assert item.labels[1].start / TO_HZ + gyr[0] - acc[0] == pytest.approx(8, abs=1 / TO_HZ)

    def test_a_table_of_both(self, tmp_path: Path) -> None:
        made = TestOneTable.made
        labels = np.where(made.time < 10, "walk", "sit")
        header = f"t,{','.join((*ACC, *GYR))},activity"
        path = write_csv(
            tmp_path / "phone.csv", EPOCH + made.time, made.samples.astype(float), header, labels
        )
        flags = {**FLAGS, "time": "t:s", "assume_yes": True}
        with pytest.raises(BadInputError) as caught:
            import_into(tmp_path / "w", "csv", path, **flags)
        assert "--resample 97" in str(caught.value)
        assert not (tmp_path / "w").exists()
        windows = import_into(tmp_path / "w", "csv", path, resample_hz=TO_HZ, **flags)
        assert windows.recordings[0].rate_hz == TO_HZ
        assert np.isfinite(np.array(windows.recordings[0].samples)).all()


def stream_of(
    name: str,
    time: Floats,
    channels: tuple[str, ...],
    column: int,
    start: str | None,
    labels: npt.NDArray[np.str_] | None,
    **changes: object,
) -> Stream:
    samples = truth(time)[:, column : column + len(channels)].astype(np.float32)

    def chunks(size: int = 700):  # type: ignore[no-untyped-def]
        for low in range(0, len(time), size):
            part = slice(low, low + size)
            yield Chunk(samples[part], time[part], None if labels is None else labels[part])

    made = Stream(
        source=f"d/{name}.csv",
        path=Path(f"d/{name}.csv"),
        channels=channels,
        units=("1",) * len(channels),
        rate_hz=None,
        chunks=chunks,
        start=start,
    )
    return replace(made, **changes)


class TestJoining:
    time = np.arange(0, 10, 0.02)

    def refusal(self, *streams: Stream) -> str:
        with pytest.raises(BadInputError) as caught:
            join_streams(Opened(streams))
        return str(caught.value)

    def test_the_same_channel_twice(self) -> None:
        told = self.refusal(
            stream_of("S1", self.time, ACC, 0, None, None, first_stamp=0.0),
            stream_of("S2", self.time, ACC, 0, None, None, first_stamp=0.0),
        )
        assert "channel acc_x is in d/S1.csv and in d/S2.csv" in told
        assert "--subject-from" in told

    def test_starts_that_cannot_be_compared(self) -> None:
        starts = {
            "a date with zone": "2024-05-01T12:00:00+00:00",
            "a date without zone": "2024-05-01T12:00:00",
            "no date": None,
        }
        for one, first in starts.items():
            for other, second in starts.items():
                if one == other:
                    continue
                told = self.refusal(
                    stream_of("acc", self.time, ACC, 0, first, None, first_stamp=None if first else 0.0),
                    stream_of("gyr", self.time, GYR, 3, second, None, first_stamp=None if second else 0.0),
                )
                assert f"the stamps of d/acc.csv have {one}, those of d/gyr.csv {other}" in told

    def test_nothing_to_join_and_no_time(self) -> None:
        alone = stream_of("acc", self.time, ACC, 0, None, None, first_stamp=0.0)
        assert "no two files" in self.refusal(alone, replace(alone, subject="2"))
        told = self.refusal(replace(alone, first_stamp=None), replace(alone, channels=GYR, first_stamp=None))
        assert "no time stamps" in told

    def test_borders_are_refused(self) -> None:
        def chunks():  # type: ignore[no-untyped-def]
            yield Chunk(truth(self.time)[:, :3].astype(np.float32), self.time, borders=(7,))

        streams = (
            stream_of("acc", self.time, ACC, 0, None, None, first_stamp=0.0, chunks=chunks),
            stream_of("gyr", self.time, GYR, 3, None, None, first_stamp=0.0),
        )
        (joined,) = join_streams(Opened(streams)).streams
        with pytest.raises(BadInputError, match="an unknown time passes within it"):
            list(joined.chunks())

    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.lists(st.integers(0, 50), min_size=1, max_size=30), min_size=2, max_size=4), st.data())
    def test_rows_are_merged_by_time_and_stay_in_the_order_of_their_file(
        self, stamps: list[list[int]], data: st.DataObject
    ) -> None:
        """Stamps that run backward must not be sorted away: the clock has to see and refuse them."""
        streams = []
        for number, times in enumerate(stamps):
            time = np.array(times, dtype=np.float64)
            size = data.draw(st.integers(1, 9))
            made = stream_of(
                str(number), time, (f"c{number}",), number, None, None, first_stamp=float(number)
            )
            streams.append(replace(made, chunks=partial(made.chunks, size)))
        (joined,) = join_streams(Opened(tuple(streams))).streams
        chunks = list(joined.chunks())
        time, samples = (np.concatenate([getattr(c, key) for c in chunks]) for key in ("time", "samples"))
        assert (np.isfinite(samples).sum(axis=1) == 1).all()
        for number, times in enumerate(stamps):
            mine = time[np.isfinite(samples[:, number])]
            np.testing.assert_array_equal(mine, np.array(times) + number)
        if all(sorted(times) == times for times in stamps):
            assert (np.diff(time) >= 0).all()


def test_memory_is_bounded_by_the_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files four times as long need no more memory."""
    for module, name in BLOCKS:
        monkeypatch.setattr(module, name, 1 << 10)
    monkeypatch.setattr(ticks, "_SAMPLE", 1 << 12)
    peaks = []
    for seconds in (200, 200, 800):
        made = Made.of(uneven(97, seconds, 1), uneven(52, seconds, 2))
        folder = tmp_path / f"{len(peaks)}"
        folder.mkdir()
        tracemalloc.start()
        clean(made.stream(), Cleaning(resample_hz=TO_HZ), folder)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 1.3 * peaks[1]
