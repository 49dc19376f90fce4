"""Windows hold exactly the samples they claim, and never cross a border."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_recordings import recording

from topokd_edge.data.recording import Clock
from topokd_edge.data.windows import Cut, make_windows
from topokd_edge.data.windowset import WindowSet
from topokd_edge.errors import BadInputError, UsageError


def test_windows_at_a_label_change_and_a_gap_counted_by_hand() -> None:
    # 200 rows, window 50, step 25, label change at row 100, 2 s gap at row 150:
    # rows 0-99 hold windows at 0, 25, 50; rows 100-149 one at 100; rows 150-199 one at 150.
    made = [
        recording(who, labels=((0, 100, "sit"), (100, 200, "walk")), gaps=((149, 2.0),))
        for who in ("1", "2", "3")
    ]
    windows = make_windows(made, Cut(2.0, 0.5), made={})
    assert windows.start.tolist() == [0, 25, 50, 100, 150] * 3
    assert windows.y.tolist() == [0, 0, 0, 1, 1] * 3
    assert windows.subject.tolist() == ["1"] * 5 + ["2"] * 5 + ["3"] * 5
    assert windows.class_names == ("sit", "walk")
    assert windows.made["dropped"] == {
        "samples": 600,
        "unlabelled": 0,
        "in_windows": 600,
        "too_short": 0,
        "gap": 0,
        "tail": 0,
        "no_clear_label": 0,
        "rare_class": 0,
    }


def test_every_sample_that_is_in_no_window_has_a_reason() -> None:
    # 0-60 unlabelled; a: 60-130 (70: one window of 50, tail 20); b: 130-160 (too short);
    # a: 160-260 cut by a gap after 214: 55 (window, 5 lost to the gap) and 45 (no window: gap).
    made = recording(
        samples=270,
        labels=((60, 130, "a"), (130, 160, "b"), (160, 260, "a")),
        gaps=((214, 1.0),),
    )
    windows = make_windows([made], Cut(2.0, 0.0, min_subjects_per_class=1), made={})
    assert windows.start.tolist() == [60, 160]
    account = windows.made["dropped"]
    assert account == {
        "samples": 270,
        "unlabelled": 70,
        "in_windows": 100,
        "too_short": 0,
        "gap": 50,
        "tail": 20,
        "no_clear_label": 0,
        "rare_class": 30,
    }
    assert windows.made["left_out_classes"] == {"b": 0}


@st.composite
def labelled_recordings(draw: st.DrawFn) -> list[object]:
    made = []
    for subject in range(draw(st.integers(1, 3))):
        samples = draw(st.integers(20, 150))
        cuts = sorted(draw(st.sets(st.integers(1, samples - 1), max_size=4)))
        edges = [0, *cuts, samples]
        labels = tuple((edges[i], edges[i + 1], draw(st.sampled_from("ab"))) for i in range(len(edges) - 1))
        gaps = tuple((at, 1.0) for at in sorted(draw(st.sets(st.integers(0, samples - 2), max_size=3))))
        made.append(recording(str(subject), samples=samples, labels=labels, gaps=gaps, rate_hz=10.0))
    return made


@settings(max_examples=80, deadline=None)
@given(made=labelled_recordings(), length=st.integers(8, 30), overlap=st.sampled_from([0.0, 0.25, 0.5, 0.9]))
def test_windows_against_a_sample_by_sample_account(made: list, length: int, overlap: float) -> None:
    step = max(1, round(length * (1 - overlap)))
    expected = []
    for index, item in enumerate(made):
        # Number the stretches sample by sample: a new one at each interval and after each gap.
        stretch = np.zeros(item.samples.shape[1], dtype=int)
        for interval in item.labels:
            stretch[interval.start :] += 1
        for gap in item.gaps:
            stretch[gap.after_sample + 1 :] += 100
        for number in np.unique(stretch):
            where = np.flatnonzero(stretch == number)
            expected += [(index, s) for s in range(where[0], where[-1] + 2 - length, step)]
    if not expected:
        with pytest.raises(BadInputError):
            make_windows(made, Cut(length / 10, overlap, min_subjects_per_class=1), made={})
        return
    windows = make_windows(made, Cut(length / 10, overlap, min_subjects_per_class=1), made={})
    found = sorted(zip(windows.recording.tolist(), windows.start.tolist(), strict=True))
    assert found == sorted(expected)
    for row in range(len(windows)):
        source, start = made[windows.recording[row]], windows.start[row]
        np.testing.assert_array_equal(windows.x[row], source.samples[:, start : start + length])
        (label,) = {i.label for i in source.labels if i.start <= start < i.stop}
        assert windows.class_names[windows.y[row]] == label
        assert windows.subject[row] == source.subject
    account = windows.made["dropped"]
    assert sum(account.values()) - account["samples"] == account["samples"]


def test_ids_that_are_not_contiguous_give_one_sorted_vocabulary() -> None:
    # PAMAP2-style ids 0, 24, 1, 12, 0, 7: each keeps one index wherever it occurs, and none is dropped.
    made = [
        recording(str(who), samples=60, labels=((0, 60, name),))
        for who, name in enumerate(["00", "24", "01", "12", "00", "07"])
    ]
    windows = make_windows(made, Cut(2.0, 0.0), made={})
    assert windows.class_names == ("00", "01", "07", "12", "24")
    assert windows.y.tolist() == [0, 4, 1, 3, 0, 2]
    backwards = make_windows(made[::-1], Cut(2.0, 0.0), made={})
    assert backwards.class_names == windows.class_names
    validation = windows.of_subjects(["0", "2"])
    assert "24" not in {windows.class_names[y] for y in windows.y[validation]}
    assert windows.y[validation].tolist() == [0, 1]


def test_rates_are_not_rounded() -> None:
    windows = make_windows([recording(rate_hz=85.7)], Cut(1.0, 0.0), made={})
    assert windows.rate_hz == 85.7
    assert windows.length == 86


def test_a_mixture_is_refused_naming_the_recording() -> None:
    other = replace(recording("2", rate_hz=50.0), units=("m/s2",) * 3)
    with pytest.raises(BadInputError) as caught:
        make_windows([recording("1"), other], Cut(2, 0), made={})
    assert [p.split(" is ")[0] for p in caught.value.problems] == ["memory#2: rate_hz", "memory#2: units"]


def test_a_class_too_short_for_a_window_is_refused_and_can_be_left_out() -> None:
    made = [recording(who, labels=((0, 180, "long"), (180, 200, "short"))) for who in "12"]
    with pytest.raises(BadInputError, match=r"'short'(.|\n)*--min-subjects-per-class 1"):
        make_windows(made, Cut(2, 0), made={})
    assert make_windows(made, Cut(2, 0, min_subjects_per_class=1), made={}).class_names == ("long",)


def test_a_class_of_one_person_can_be_left_out() -> None:
    made = [recording("1", labels=((0, 100, "a"), (100, 200, "only"))), recording("2")]
    windows = make_windows(made, Cut(2, 0, min_subjects_per_class=2), made={})
    assert windows.class_names == ("a",)
    assert windows.made["left_out_classes"] == {"only": 2}
    assert windows.made["dropped"]["rare_class"] == 100


@pytest.mark.parametrize(
    ("seconds", "overlap", "option"),
    [(0, 0.5, "--seconds"), (float("nan"), 0.5, "--seconds"), (0.1, 0, "--seconds"), (2, 1, "--overlap"),
     (2, -0.1, "--overlap"), (2, float("nan"), "--overlap"), (2, 0.999, "--overlap")],
)  # fmt: skip
def test_senseless_windows_are_refused(seconds: float, overlap: float, option: str) -> None:
    with pytest.raises(UsageError, match=option):
        make_windows([recording()], Cut(seconds, overlap), made={})


def test_a_window_set_comes_back_from_disk_the_same(tmp_path: Path) -> None:
    windows = make_windows([recording("1"), recording("2")], Cut(2, 0.5), made={"credit": "me"})
    windows.save(tmp_path / "w")
    again = WindowSet.open(tmp_path / "w")
    assert again.content_hash == windows.content_hash
    np.testing.assert_array_equal(again.x, windows.x)
    assert again.made == windows.made


def ruled(made: list, cut: Cut, length: int) -> list[tuple[int, int, str]]:
    """Windows by a label rule, sample by sample: (recording, start, label)."""
    found = []
    for index, item in enumerate(made):
        size = item.samples.shape[1]
        names = np.full(size, "", dtype="<U8")
        for interval in item.labels:
            names[interval.start : interval.stop] = interval.label
        edges = [0, *(gap.after_sample + 1 for gap in item.gaps), size]
        for begin, end in pairwise(edges):
            for start in range(begin, end - length + 1, max(1, round(length * (1 - cut.overlap)))):
                inside = names[start : start + length].tolist()
                label = ""
                if cut.label_rule == "majority":
                    best = max(sorted(set(inside) - {""}), key=inside.count, default="")
                    label = best if best and inside.count(best) >= cut.majority * length else ""
                elif cut.label_rule == "last" or inside[0] == inside[-1]:
                    label = inside[-1]
                if label and (cut.transitions or len(set(inside)) == 1):
                    found.append((index, start, label))
    return found


@settings(max_examples=120, deadline=None)
@given(
    made=labelled_recordings(),
    length=st.integers(8, 30),
    overlap=st.sampled_from([0.0, 0.5, 0.9]),
    rule=st.sampled_from(["majority", "last", "ends"]),
    majority=st.sampled_from([0.51, 0.75, 1.0]),
    transitions=st.booleans(),
    hole=st.booleans(),
)
def test_label_rules_against_a_sample_by_sample_account(
    made: list, length: int, overlap: float, rule: str, majority: float, transitions: bool, hole: bool
) -> None:
    if hole:  # an unlabelled stretch in the first recording
        made = [replace(made[0], labels=made[0].labels[1:]), *made[1:]]
    cut = Cut(length / 10, overlap, rule, majority, transitions, min_subjects_per_class=1)
    expected = ruled(made, cut, length)
    if not expected and any(item.labels for item in made):
        with pytest.raises(BadInputError):
            make_windows(made, cut, made={})
        return
    windows = make_windows(made, cut, made={})
    names = [windows.class_names[label] for label in windows.y]
    assert list(zip(windows.recording.tolist(), windows.start.tolist(), names, strict=True)) == expected
    account = windows.made["dropped"]
    assert sum(account.values()) - account["samples"] == account["samples"]
    covered = {(index, at) for index, start, _ in expected for at in range(start, start + length)}
    assert account["in_windows"] == len(covered)


def test_labels_can_be_dropped_and_a_misspelt_one_is_told() -> None:
    made = [recording(labels=((0, 100, "transient"), (100, 200, "walk")))]
    windows = make_windows(made, Cut(2, 0, drop_labels=("transient",)), made={})
    assert windows.class_names == ("walk",)
    assert windows.made["dropped"]["unlabelled"] == 100
    misspelt = make_windows(made, Cut(2, 0, drop_labels=("transit",)), made={})
    assert misspelt.class_names == ("transient", "walk")
    assert misspelt.made["labels_to_drop_absent"] == ["transit"]


def test_filled_samples_are_counted_per_window() -> None:
    made = replace(recording(samples=200), filled=((10, 20), (45, 55), (199, 200)))
    windows = make_windows([recording("2", samples=50), made], Cut(2, 0.5), made={})
    assert windows.start.tolist() == [0, 0, 25, 50, 75, 100, 125, 150]
    assert windows.filled.tolist() == [0, 15, 10, 5, 0, 0, 0, 1]


def test_windows_read_like_an_array_without_being_in_memory() -> None:
    windows = make_windows([recording("1"), recording("2")], Cut(2, 0.5), made={})
    everything = np.asarray(windows.x)
    assert everything.shape == windows.x.shape == (14, 3, 50)
    np.testing.assert_array_equal(windows.x[np.array([9, 0, 9])], everything[[9, 0, 9]])
    np.testing.assert_array_equal(windows.x[2:11:3], everything[2:11:3])
    np.testing.assert_array_equal(windows.x[-1], everything[-1])
    assert windows.x[np.array([], dtype=np.int64)].shape == (0, 3, 50)
    with pytest.raises(IndexError):
        windows.x[14]


def test_recordings_come_back_from_disk_the_same(tmp_path: Path) -> None:
    clock = Clock(25.01, 25.0, 0.001, 0.0003, -12.0, 3, (25.0, float("nan")))
    full = replace(
        recording("1", gaps=((99, 2.5),), labels=((0, 50, "a"), (60, 200, "b"))),
        start="2026-03-01T08:00:00.250",
        filled=((3, 9),),
        clock=clock,
        about={"side": "left"},
        notes=("the last page is cut",),
    )
    windows = make_windows([full, recording("2")], Cut(2, 0.5, min_subjects_per_class=1), made={})
    windows.save(tmp_path / "w")
    again = WindowSet.open(tmp_path / "w").recordings
    assert again[0].clock is not None
    assert repr(again[0].clock) == repr(clock)
    for one, other in zip(windows.recordings, again, strict=True):
        np.testing.assert_array_equal(one.samples, other.samples)
        for field in ("subject", "rate_hz", "labels", "gaps", "start", "filled", "about", "notes", "units"):
            assert getattr(one, field) == getattr(other, field)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "recordings.json").write_text("[{}]"), "not a description"),
        (lambda folder: (folder / "recordings.json").write_text("[]"), r"shape \(0, 0\)"),
        (lambda folder: np.save(folder / "samples.npy", np.zeros((7, 3), np.float32)), r"\(400, 3\)"),
        (lambda folder: np.save(folder / "samples.npy", np.zeros((400, 3))), "float64"),
        (
            lambda folder: np.savez(folder / "index.npz", y=[0], recording=[0], start=[199]),
            "speaks of 14 windows",
        ),
        (
            lambda folder: np.savez(
                folder / "index.npz", y=[0] * 14, recording=[0] * 14, start=[0] * 13 + [151]
            ),
            "past the end",
        ),
        (
            lambda folder: np.savez(
                folder / "index.npz", y=[0] * 13 + [1], recording=[0] * 14, start=[0] * 14
            ),
            "not in the vocabulary",
        ),
        (
            lambda folder: np.savez(
                folder / "index.npz", y=[0] * 14, recording=[0] * 13 + [2], start=[0] * 14
            ),
            "in no recording",
        ),
    ],
)
def test_a_damaged_set_is_refused(tmp_path: Path, damage: Callable[[Path], object], words: str) -> None:
    made = make_windows([recording("1"), recording("2")], Cut(2, 0.5), made={})
    made.save(tmp_path / "w")
    damage(tmp_path / "w")
    with pytest.raises(BadInputError, match=words):
        WindowSet.open(tmp_path / "w")
