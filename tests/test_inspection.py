"""Facts of an inspection: against recordings whose truth is known because they were made by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_recordings import recording, shared_data

from topokd_edge.data import frozen
from topokd_edge.data.frozen import frozen_stretches
from topokd_edge.data.inspection import Inspected, chosen_recordings, facts_json, look
from topokd_edge.data.recording import UNKNOWN_SUBJECT, Clock, Gap, LabelInterval, Recording
from topokd_edge.data.recordingset import RecordingSet
from topokd_edge.data.timeline import Timeline, envelope, start_time, zoom
from topokd_edge.data.wear import still_stretches, wear_time
from topokd_edge.data.windows import Cut, make_windows
from topokd_edge.report.findings import findings
from topokd_edge.report.inspect_tables import clocks_table, dropped_table, norm_rows

RATE = 25.0
MINUTE = round(60 * RATE)


def worn(minutes: int, still: tuple[int, int] = (0, 0), seed: int = 0, **changes: object) -> Recording:
    """A moving sensor that lies still from one minute to another."""
    samples = minutes * MINUTE
    generator = np.random.default_rng(seed)
    signal = generator.normal(0, 0.2, (3, samples)).astype(np.float32)
    first, last = still[0] * MINUTE, still[1] * MINUTE
    signal[:, first:last] = generator.normal(0, 0.004, (3, last - first))
    signal[2] += 1
    return replace(recording(samples=10), samples=signal, labels=(), rate_hz=RATE, **changes)


def inspected(*recordings: Recording, made: dict | None = None, cut: Cut | None = None) -> Inspected:
    if cut is None:
        return Inspected("made", RecordingSet.of(recordings), made or {})
    return Inspected.of("made", make_windows(recordings, cut, made=made or {}))


def found(target: Inspected) -> dict[str, str]:
    """Title and details of every finding, by its tone and first words."""
    return {f"{item.tone}: {item.title}": " | ".join(item.details) for item in findings(target, look(target))}


def clock(
    estimated: float, stated: float = RATE, jitter: float = 0.0, drift: float = 0.0, repeated: int = 0
) -> Clock:
    return Clock(estimated, stated, 0.001, jitter, drift, repeated, (estimated,))


class TestTimeline:
    def test_a_gap_moves_what_comes_after_it(self) -> None:
        timeline = Timeline(recording(samples=100, gaps=((49, 10.0), (69, 0.0))))
        assert timeline.seconds == pytest.approx(100 / 25 + 10)
        assert timeline.at([0, 49, 50, 70]).tolist() == pytest.approx([0, 1.96, 12.0, 12.8])
        assert timeline.ends([50, 100]).tolist() == pytest.approx([2.0, 14.0])

    def test_the_first_sample_from_a_moment_inside_a_gap_is_the_one_behind_it(self) -> None:
        timeline = Timeline(recording(samples=100, gaps=((49, 10.0),)))
        assert timeline.first_from([0.0, 0.03, 1.96, 2.0, 7.0, 12.0, 12.01, 99.0]).tolist() == [
            0, 1, 49, 50, 50, 50, 51, 100,
        ]  # fmt: skip

    @given(
        st.lists(st.tuples(st.integers(0, 398), st.sampled_from([0.0, 0.3, 7.0, 500.0])), max_size=8),
        st.floats(1.0, 200.0),
    )
    def test_time_and_samples_are_each_others_inverse(self, gaps: list, rate: float) -> None:
        by_place = tuple(sorted(dict(gaps).items()))
        timeline = Timeline(recording(samples=400, gaps=by_place, rate_hz=rate))
        places = np.arange(400)
        assert np.array_equal(timeline.first_from(timeline.at(places)), places)

    def test_the_start_of_the_clock(self) -> None:
        item = recording()
        assert start_time(item) is None
        assert str(start_time(replace(item, start="2025-03-30T08:00:00+02:00"))) == "2025-03-30 08:00:00"
        assert start_time(replace(item, start="9999-12-31T23:59:59")) is None
        assert start_time(replace(item, start="yesterday")) is None


class TestEnvelope:
    def test_it_equals_the_extremes_of_each_bucket(self) -> None:
        item = recording(samples=1000)
        seen = envelope(item, [2, 0], 7)
        for bucket in range(7):
            part = item.samples[[2, 0], seen.first[bucket] : seen.first[bucket + 1]]
            assert np.array_equal(seen.low[:, bucket], part.min(axis=1))
            assert np.array_equal(seen.high[:, bucket], part.max(axis=1))
        assert seen.first.tolist()[0] == 0
        assert seen.first.tolist()[-1] == 1000

    def test_a_gap_is_empty(self) -> None:
        seen = envelope(recording(samples=100, gaps=((49, 4.0),)), [0], 8)
        assert np.isnan(seen.low[0]).tolist() == [False, False, True, True, True, True, False, False]

    def test_zoom_prefers_what_is_odd(self) -> None:
        plain = recording(samples=1000, labels=((0, 500, "a"), (500, 1000, "b")))
        seen = envelope(plain, [0], 10)
        assert (zoom(plain, seen, 8.0).start, zoom(plain, seen, 8.0).why) == (16.0, "a label change")
        gap = replace(plain, gaps=(Gap(249, 2.0),))
        assert zoom(gap, envelope(gap, [0], 10), 8.0).why == "a gap"
        filled = replace(gap, filled=((700, 720),))
        assert zoom(filled, envelope(filled, [0], 10), 8.0).why == "interpolated samples"
        signal = plain.samples.copy()
        signal[:2, 300] = 9
        signal[2] *= 1000
        calm = replace(plain, samples=signal, labels=())
        near = zoom(calm, envelope(calm, [0, 1, 2], 50), 8.0)
        assert (near.why, near.start < 12.0 < near.stop) == ("the strongest movement", True)
        assert zoom(plain, seen, 999.0).stop == pytest.approx(40.0)


class TestWear:
    def test_still_and_flat_is_found_where_it_is(self) -> None:
        (stretch,) = still_stretches(worn(40, still=(12, 27)))
        assert (stretch.sensor, stretch.start, stretch.seconds) == ("acc", 720.0, 900.0)

    def test_nine_minutes_are_too_short_and_so_is_a_stretch_cut_by_a_gap(self) -> None:
        assert still_stretches(worn(40, still=(12, 21))) == ()
        assert still_stretches(worn(40, still=(12, 27), gaps=(Gap(19 * MINUTE, 0.0),))) == ()

    def test_units_do_not_matter(self) -> None:
        item = worn(40, still=(12, 27))
        metric = replace(item, samples=item.samples * np.float32(9.80665), units=("m/s2",) * 3)
        assert [s.seconds for s in still_stretches(metric)] == [900.0]

    def test_time_is_accounted_for(self) -> None:
        item = recording(
            samples=1000, labels=((0, 250, "a"), (300, 400, "b")), gaps=((99, 2.5), (199, 0.0)), rate_hz=RATE
        )
        wear = wear_time(replace(item, filled=((10, 20),)))
        assert (wear.recorded, wear.missing, wear.labelled, wear.filled) == (40.0, 2.5, 14.0, 0.4)
        assert (wear.borders, wear.still, wear.still_seconds) == (1, (), 0.0)


class TestFrozen:
    def test_repeats_are_found_across_blocks(self) -> None:
        item = worn(60)
        signal = item.samples.copy()
        signal[:, 65_530:65_560] = signal[:, 65_530:65_531]
        signal[:, 100:105] = signal[:, 100:101]
        assert frozen_stretches(replace(item, samples=signal)) == ((65_530, 65_560),)

    def test_one_living_channel_is_enough_and_slow_quantities_do_not_count(self) -> None:
        item = worn(1)
        signal = item.samples.copy()
        signal[:2] = 0
        assert frozen_stretches(replace(item, samples=signal)) == ()
        signal[2] = 1
        assert frozen_stretches(replace(item, samples=signal)) == ((0, MINUTE),)
        assert frozen_stretches(replace(item, samples=signal, units=("bpm", "degC", "lux"))) == ()

    @given(st.integers(0, 60), st.integers(1, 60), st.sampled_from([1, 7, 50]), st.integers(0, 118))
    def test_the_block_does_not_matter(self, first: int, size: int, block: int, border: int) -> None:
        signal = np.random.default_rng(0).normal(size=(3, 120)).astype(np.float32)
        signal[:, first : first + size] = 1
        item = replace(worn(1), samples=signal, gaps=(Gap(border, 0.0),))
        parts = [(first, min(first + size, border + 1)), (max(first, border + 1), first + size)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(frozen, "BLOCK", block)
            assert list(frozen_stretches(item)) == [part for part in parts if part[1] - part[0] >= 12]

    def test_a_border_parts_them(self) -> None:
        item = replace(worn(1), samples=np.zeros((3, 60), np.float32), gaps=(Gap(29, 0.0),))
        assert frozen_stretches(item) == ((0, 30), (30, 60))


class TestFacts:
    def test_seconds_and_windows_by_class_and_subject(self) -> None:
        target = inspected(
            recording("2", 200, labels=((0, 100, "walk"), (100, 200, "sit"))),
            recording("10", 100, labels=((0, 100, "walk"),)),
            cut=Cut(1.0, 0.0),
        )
        facts = look(target)
        assert (facts.subjects, facts.classes) == (("2", "10"), ("sit", "walk"))
        assert facts.seconds.tolist() == [[4.0, 0.0], [4.0, 4.0]]
        assert facts.windows is not None
        assert facts.windows.tolist() == [[4, 0], [4, 4]]

    def test_a_subject_whose_windows_all_fell_away_stays(self) -> None:
        halves = ((0, 50, "a"), (50, 100, "b"))
        target = inspected(
            recording("1", 100, labels=halves), recording("2", 100, labels=((0, 10, "a"),)), cut=Cut(1.0, 0.0)
        )
        facts = look(target)
        assert facts.windows is not None
        assert facts.windows.tolist() == [[2, 0], [2, 0]]
        assert found(target)["look: 1 subject without any window"] == "2"

    def test_json_has_no_nan(self) -> None:
        item = replace(recording(), clock=Clock(25.0, None, 0.04, 0.0, 0.0, 0, (float("nan"),)))
        document = facts_json(inspected(item), look(inspected(item)))
        text = json.dumps(document, allow_nan=False)
        assert json.loads(text)["recordings"][0]["clock"]["segment_hz"] == [None]


class TestChosen:
    def test_each_oddity_gets_its_picture_and_no_subject_two(self) -> None:
        recordings = [
            recording("1", 400, gaps=((99, 5.0),)),
            recording("1", 400, gaps=((99, 4.0),)),
            replace(recording("2", 400), filled=((10, 12),)),
            recording("3", 400, labels=((0, 200, "a"), (200, 400, "b"))),
            recording("4", 300, labels=((0, 300, "c"),)),
            recording("5", 900),
        ]
        target = inspected(*recordings)
        chosen = chosen_recordings(target, look(target))
        assert [(item.index, item.why) for item in chosen] == [
            (0, "the most time missing"),
            (2, "the most samples interpolated"),
            (3, "the most label changes"),
            (4, "another subject"),
            (5, "another subject"),
        ]
        assert len(chosen_recordings(target, look(target), most=2)) == 2

    def test_recordings_of_nobody_known_are_not_one_person(self) -> None:
        target = inspected(*[recording(UNKNOWN_SUBJECT, 100, source=f"f{n}") for n in range(3)])
        assert [item.index for item in chosen_recordings(target, look(target))] == [0, 1, 2]


class TestFindings:
    def test_nothing_stands_out_of_good_data(self) -> None:
        halves = tuple((100 * n, 100 * (n + 1), "ab"[n % 2]) for n in range(20))
        recordings = [recording(str(n), 2000, labels=halves) for n in range(4)]
        flat = [
            replace(item, samples=item.samples * np.float32([[0], [1], [1]]) + np.float32([[0.01], [0], [0]]))
            for item in recordings
        ]
        assert found(inspected(*flat, cut=Cut(1.0, 0.0))) == {}

    def test_a_wrong_unit_is_wrong_and_comes_first(self) -> None:
        item = worn(2, still=(0, 1))
        target = inspected(replace(item, samples=item.samples * np.float32(9.80665)))
        first, details = next(iter(found(target).items()))
        assert first.startswith("bad: The acceleration has the wrong size")
        assert "a factor near 9.8" in details

    def test_a_missing_calibration_is_only_to_look_at(self) -> None:
        item = worn(2, still=(0, 1))
        target = inspected(replace(item, samples=item.samples * np.float32(1.08)))
        assert "+8 %" in found(target)["look: Gravity is not quite 1 g: sensors without calibration"]

    def test_refused_files_name_their_reason_once(self) -> None:
        refused = [{"file": "a.bin", "reason": "a.bin: page 3 is damaged\nWhat to do: read it again"}]
        told = found(inspected(recording(), made={"refused": refused}))
        assert told["bad: 1 file could not be read and is not in here"] == (
            "a.bin: page 3 is damaged What to do: read it again"
        )

    def test_classes_and_subjects_that_have_little(self) -> None:
        many = tuple((100 * n, 100 * (n + 1), "ab"[n % 2]) for n in range(20))
        target = inspected(
            recording("1", 2000, labels=many),
            recording("2", 2000, labels=many),
            recording("3", 2000, labels=((0, 2000, "a"),)),
            recording("4", 2000, labels=((0, 1000, "b"), (1000, 1100, "c"), (1100, 2000, "a"))),
            recording("5", 100, labels=((0, 50, "a"), (50, 100, "b"))),
            cut=Cut(1.0, 0.0),
        )
        told = found(target)
        assert told["bad: 1 class that only one subject has"].startswith("c | ")
        assert told["look: 1 class with few windows: accuracy on them will be noise"] == "c: 4 windows"
        assert told["look: 1 subject with one class only: accuracy on them says little"] == "3: a"
        assert told["look: 1 subject with few windows"] == "5: 4 windows"

    def test_one_subject_cannot_be_tested_on_another(self) -> None:
        told = found(inspected(recording("7", 2000), cut=Cut(1.0, 0.0)))
        assert told["bad: One subject only: nothing can be tested on anybody else"] == "7"

    def test_clocks(self) -> None:
        base = recording(samples=2000)
        told = found(
            inspected(
                replace(base, subject="1", clock=clock(25.5)),
                replace(base, subject="2", clock=clock(25.0, drift=900)),
                replace(base, subject="3", clock=clock(25.0, jitter=0.02, repeated=4)),
            )
        )
        told_of_rate = told["look: 1 recording whose stamps contradict the rate that is used"]
        assert "states 25 Hz, its stamps say 25.5 Hz" in told_of_rate
        assert "subject 2" in told["look: 1 recording whose rate drifts"]
        assert "20 ms at 25 Hz" in told["note: 1 recording with uneven time stamps"]
        assert "note: 1 recording with repeated time stamps, spread evenly" in told

    def test_a_rate_that_is_corrected(self) -> None:
        item = replace(recording(samples=2000, rate_hz=25.5), clock=clock(25.5))
        told = found(inspected(item))
        assert "look: 1 recording at another rate than stated; that of the stamps is used" in told
        assert not any("contradict" in key for key in told)

    def test_gaps_borders_and_filled_samples(self) -> None:
        item = recording("1", 2500, gaps=((499, 20.0), (999, 0.0)))
        told = found(inspected(replace(item, filled=((100, 110),))))
        assert "1 gap, 20 s of 2 min missing" in told["look: 1 recording with many or long gaps"]
        assert any(key.startswith("note: 1 border ") for key in told)
        assert any(key.startswith("note: 10 samples interpolated") for key in told)

    def test_still_and_frozen(self) -> None:
        item = worn(40, still=(12, 27))
        signal = item.samples.copy()
        signal[:, 500:550] = signal[:, 500:501]
        told = found(inspected(replace(item, samples=signal)))
        assert "look: 15 min still and flat: perhaps not worn, perhaps deep sleep" in told
        assert any("2 s frozen" in key for key in told)

    def test_nobody_named(self) -> None:
        told = found(inspected(recording(UNKNOWN_SUBJECT)))
        assert any(key.startswith("bad: 1 recording without a subject") for key in told)

    def test_many_notes_become_one_finding(self) -> None:
        noted = [replace(recording(str(n)), notes=(f"page {n} is cut off",)) for n in range(9)]
        told = found(inspected(*noted))
        assert "and 4 more" in told["note: 9 remarks of the reader"]


class TestTables:
    def test_more_than_forty_recordings_are_grouped(self) -> None:
        recordings = [
            replace(recording(str(n % 3), 100, source=f"f{n}"), clock=clock(25.0 + n / 1000))
            for n in range(42)
        ]
        table = clocks_table(inspected(*recordings))
        assert table is not None
        assert [row[:2] for row in table.rows] == [[str(s), "14 recordings"] for s in range(3)]
        column = table.columns.index("from stamps")
        assert table.rows[0][column] == "25 Hz to 25.039 Hz"

    def test_without_stamps_and_gaps_there_is_no_table(self) -> None:
        assert clocks_table(inspected(recording())) is None

    def test_norms_are_taken_at_rest_where_there_is_rest(self) -> None:
        still = worn(10, still=(0, 1), subject="1")
        moving = replace(worn(2, subject="2"), samples=worn(2).samples * 3)
        rows = norm_rows(inspected(still, moving), look(inspected(still, moving)))
        assert [(row.subject, row.rest) for row in rows] == [("1", True), ("2", False)]
        assert rows[0].median == pytest.approx(1.0, abs=0.002)
        assert np.median(np.linalg.norm(still.samples, axis=0)) > 1.01
        assert rows[1].median == pytest.approx(np.median(np.linalg.norm(moving.samples, axis=0)), rel=1e-6)

    def test_what_was_dropped_adds_up(self) -> None:
        target = inspected(
            recording("1", 210, labels=((0, 110, "a"), (110, 120, "a")), gaps=((79, 1.0),)), cut=Cut(1.0, 0.0)
        )
        table = dropped_table(target)
        assert table is not None
        lost = sum(int(row[1]) for row in table.rows)
        assert lost + target.made["dropped"]["in_windows"] == 210


def test_dsads_has_frozen_seconds() -> None:
    """In five of its recordings, a second of every piece of five repeats one value."""
    with np.load(shared_data("dsads/dsads_3imu_25hz.npz")) as arrays:
        counts, rows = arrays["counts"], arrays["recordings"]
        columns = arrays["recording_columns"].tolist()
    start, stop = (rows[4, columns.index(name)] for name in ("start", "stop"))
    item = replace(
        recording(samples=10, rate_hz=25.0),
        samples=counts[:, start:stop].astype(np.float32),
        channels=tuple(f"c{n}" for n in range(len(counts))),
        units=("g",) * len(counts),
        labels=(LabelInterval(0, 1, "a"),),
    )
    assert len(frozen_stretches(item)) == 60
