"""Label files: what they say, for whom, and which samples it is."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_recordings import import_into

from topokd_edge.data.label_file import read_label_file
from topokd_edge.data.labels import TimedLabel, to_samples
from topokd_edge.data.recording import Gap, LabelInterval
from topokd_edge.errors import BadInputError


def label_file(folder: Path, text: str | bytes) -> Path:
    path = folder / "labels.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def problems_of(folder: Path, text: str | bytes) -> str:
    path = label_file(folder, text)
    with pytest.raises(BadInputError) as caught:
        read_label_file(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_seconds_for_everybody(tmp_path: Path) -> None:
    file = read_label_file(
        label_file(tmp_path, "\ufeff# by hand\n\nLabel,start,end\r\nwalk,0,1.5\nsit,1.5,2\n")
    )
    found = file.intervals_for("anyone", None, None)
    assert found == (TimedLabel(0, 1.5, "walk", 4), TimedLabel(1.5, 2, "sit", 5))


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_decimal_comma(tmp_path: Path, delimiter: str) -> None:
    text = "start,end,label\n".replace(",", delimiter) + f"0,5{delimiter}1,25{delimiter}a, b\n"
    file = read_label_file(label_file(tmp_path, text))
    assert file.intervals_for("x", None, None) == (TimedLabel(0.5, 1.25, "a, b", 2),)


def test_dates_with_zones_are_instants(tmp_path: Path) -> None:
    text = (
        "start,end,label\n"
        "2024-05-01T12:00:00+02:00,2024-05-01T10:00:30Z,walk\n"
        "2024-05-01T11:00:30+01:00,2024-05-01T10:01:00.5Z,sit\n"
    )
    file = read_label_file(label_file(tmp_path, text))
    found = file.intervals_for("x", None, "2024-05-01T09:59:50+00:00")
    assert [(item.start, item.end) for item in found] == [(10, 40), (40, 70.5)]


@pytest.mark.parametrize(
    ("start", "said"),
    [(None, "does not say when"), ("2024-05-01T10:00:00+00:00", "without a time zone")],
)
def test_dates_need_a_start_of_their_kind(tmp_path: Path, start: str | None, said: str) -> None:
    text = "start,end,label\n2024-05-01T12:00:00,2024-05-01T12:01:00,walk\n"
    file = read_label_file(label_file(tmp_path, text))
    with pytest.raises(BadInputError, match=said) as caught:
        file.intervals_for("x", Path("rec.csv"), start)
    assert "rec.csv" in str(caught.value)


def test_subject_and_file_choose_the_recording(tmp_path: Path) -> None:
    text = (
        "subject,file,start,end,label\n"
        "S1,a.csv,0,1,one\nS1,day2/a.csv,1,2,two\nS2,a.csv,0,1,three\nS9,a.csv,0,1,four\nS1,b.csv,0,1,five\n"
    )
    file = read_label_file(label_file(tmp_path, text))
    one = file.intervals_for("S1", Path("day1/a.csv"), None)
    both = file.intervals_for("S1", Path("/x/day2/a.csv"), None)
    assert [item.label for item in one] == ["one"]
    assert [item.label for item in both] == ["one", "two"]
    assert file.intervals_for("S1", None, None) == ()
    notes = file.leftover({item.line for item in both} | {4}, {2, 3})
    assert len(notes) == 3
    assert "line 4" in notes[0] and "'three' is outside of every recording" in notes[0]
    assert "line 5" in notes[1] and "no recording of subject 'S9' and file 'a.csv'" in notes[1]


def test_rows_that_overlap_through_two_names_of_one_file(tmp_path: Path) -> None:
    file = read_label_file(label_file(tmp_path, "file,start,end,label\na.csv,0,2,x\nd/a.csv,1,3,y\n"))
    with pytest.raises(BadInputError, match="line 3: 'y' overlaps 'x' of line 2"):
        file.intervals_for("s", Path("d/a.csv"), None)


def test_all_problems_are_told_with_their_lines(tmp_path: Path) -> None:
    told = problems_of(
        tmp_path,
        "start,end,label,subject\n"
        "0,1,a,\n"  # 2: no subject
        "x,1,a,S\n"  # 3: no time
        "2,1,a,S\n"  # 4: ends before it starts
        "1,1,a,S\n"  # 5: empty
        "0,nan,a,S\n"  # 6
        "0,1e999,a,S\n"  # 7
        "0,2024-05-01,a,S\n"  # 8: mixed
        "0,1,,S\n"  # 9
        "0,1,a,S,more\n"  # 10
        f"0,1,{'a' * 201},S\n",  # 11
    )
    for line in range(2, 12):
        assert f"line {line}:" in told


def test_overlaps_are_told_within_a_subject_only(tmp_path: Path) -> None:
    text = (
        "subject,start,end,label\nA,0,100,long\nB,0,5,x\nA,10,20,in\nA,30,40,in2\nA,100,110,next\nB,5,6,y\n"
    )
    told = problems_of(tmp_path, text)
    assert "line 4: 'in' overlaps 'long' of line 2" in told
    assert "line 5: 'in2' overlaps 'long' of line 2" in told
    assert "line 3" not in told and "line 6" not in told and "line 7" not in told


def test_overlap_of_dates_in_different_zones(tmp_path: Path) -> None:
    text = (
        "start,end,label\n2024-05-01T12:00:00+02:00,2024-05-01T12:00:30+02:00,a\n"
        "2024-05-01T10:00:29Z,2024-05-01T10:00:31Z,b\n"
    )
    assert "line 3: 'b' overlaps 'a'" in problems_of(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("start,end,label\n", "no row"),
        ("start,stop,label\n0,1,a\n", "no column end"),
        ("start,end,label,end\n0,1,a,2\n", "twice"),
        ("start,end,label\n0,1,a\n2024-05-01,2024-05-02,b\n", "line 3: start is a date without zone"),
        ('start,end,label\n0,1,"a\n1,2,b\n', "line 2: more cells than columns, or a quote"),
        ("start,end,label\n0,1,gr\u00fcn\n".encode("latin-1"), "UTF-8"),
    ],
)
def test_not_a_label_file(tmp_path: Path, text: str | bytes, said: str) -> None:
    assert said in problems_of(tmp_path, text)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="no such file"):
        read_label_file(tmp_path / "none.csv")


def test_samples_are_half_open() -> None:
    labels = [TimedLabel(0.3, 0.6, "a", 2), TimedLabel(0.6, 0.65, "b", 3)]
    placed = to_samples(labels, rate_hz=10, samples=10)
    assert placed.intervals == (LabelInterval(3, 6, "a"), LabelInterval(6, 7, "b"))
    assert placed.notes == () and placed.lines == {2, 3}


def test_gaps_delay_the_samples_after_them() -> None:
    # 10 Hz; samples 0-9 at 0.0-0.9 s; 5 s missing; samples 10-19 at 6.0-6.9 s.
    gaps = [Gap(9, 5.0)]
    labels = [TimedLabel(0.5, 6.2, "across", 1), TimedLabel(6.2, 6.5, "after", 2)]
    placed = to_samples(labels, rate_hz=10, samples=20, gaps=gaps)
    assert placed.intervals == (LabelInterval(5, 12, "across"), LabelInterval(12, 15, "after"))
    inside = to_samples([TimedLabel(2, 3, "inside", 7)], rate_hz=10, samples=20, gaps=gaps)
    assert inside.intervals == () and "line 7" in inside.notes[0] and "in a gap" in inside.notes[0]


def test_outside_is_cut_and_told() -> None:
    labels = [TimedLabel(-5, -1, "w", 1), TimedLabel(-1, 0.5, "x", 2), TimedLabel(0.5, 3, "y", 3)]
    placed = to_samples([*labels, TimedLabel(3, 4, "z", 4)], rate_hz=10, samples=10)
    assert placed.intervals == (LabelInterval(0, 5, "x"), LabelInterval(5, 10, "y"))
    assert placed.lines == {2, 3}
    assert "line 2: 1 s of 'x'" in placed.notes[0] and "line 3: 2 s of 'y'" in placed.notes[1]


def test_nothing_is_labelled_after_a_border_of_unknown_length() -> None:
    gaps = [Gap(4, 1.0), Gap(9, 0.0), Gap(14, 2.0)]
    labels = [TimedLabel(0, 1.8, "a", 1), TimedLabel(1.8, 9, "b", 2)]
    placed = to_samples(labels, rate_hz=10, samples=20, gaps=gaps)
    assert placed.intervals == (LabelInterval(0, 8, "a"), LabelInterval(8, 10, "b"))
    assert "no labels from sample 10 on" in placed.notes[-1]
    assert to_samples(labels[:1], rate_hz=10, samples=20, gaps=gaps).notes == ()


@settings(max_examples=200, deadline=None)
@given(
    rate=st.sampled_from([10.0, 25.0, 26.0, 33.3, 85.7, 100.0]),
    samples=st.integers(1, 120),
    gaps=st.lists(
        st.tuples(st.integers(0, 118), st.floats(0.05, 3)), max_size=4, unique_by=lambda item: item[0]
    ),
    edges=st.lists(st.floats(-1, 12), min_size=2, max_size=8, unique=True),
)
def test_samples_by_counting(
    rate: float, samples: int, gaps: list[tuple[int, float]], edges: list[float]
) -> None:
    found = [Gap(*gap) for gap in sorted(gaps) if gap[0] < samples - 1]
    times = np.arange(samples) / rate
    for gap in found:
        times[gap.after_sample + 1 :] += gap.seconds
    edges = sorted(edges)
    labels = [TimedLabel(a, b, str(n), n) for n, (a, b) in enumerate(pairwise(edges))]
    expected = []
    for item in labels:
        inside = (times >= item.start - 1e-3 / rate) & (times < item.end - 1e-3 / rate)
        if inside.any():
            where = np.flatnonzero(inside)
            expected.append(LabelInterval(int(where[0]), int(where[-1]) + 1, item.label))
    assert to_samples(labels, rate_hz=rate, samples=samples, gaps=found).intervals == tuple(expected)


def test_many_labels_and_gaps_take_no_time() -> None:
    n = 20_000
    gaps = [Gap(100 * i + 99, 1.0) for i in range(n)]
    labels = [TimedLabel(2.0 * i, 2.0 * i + 1, "a", i) for i in range(n)]
    placed = to_samples(labels, rate_hz=100.0, samples=100 * n, gaps=gaps)
    assert [(item.start, item.stop) for item in placed.intervals] == [
        (100 * i, 100 * i + 100) for i in range(n)
    ]
    assert placed.notes == ()


def test_labels_follow_the_time_stamps_not_the_nominal_rate(tmp_path: Path) -> None:
    """The sensor says 100 Hz and takes 100.3 samples in a second: after an hour, 11 s apart."""
    time = np.round(np.arange(6000) / 100.3, 4)
    rows = [f"{t:.4f},{k % 7 / 100},{k % 5 / 100},{1 + k % 3 / 100}" for k, t in enumerate(time.tolist())]
    (tmp_path / "a.csv").write_text("\n".join(["t [s],acc_x [g],acc_y [g],acc_z [g]", *rows, ""]))
    file = label_file(tmp_path, "start,end,label\n0,20,sit\n50.001,55.001,walk\n")
    windows = import_into(tmp_path / "w", "csv", tmp_path / "a.csv", rate_hz=100.0, labels=str(file))
    assert windows.rate_hz == 100.0
    for item, (start, end) in zip(windows.recordings[0].labels, ((0, 20), (50.001, 55.001)), strict=True):
        assert item.start == np.searchsorted(time, start) and item.stop == np.searchsorted(time, end)
