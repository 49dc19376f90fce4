"""Lost samples become gaps, and filling follows its rule, against sample-by-sample counting."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_recordings import recording

from topokd_edge.data import gaps as gaps_module
from topokd_edge.data.gaps import fill_gaps, mark_lost, refuse_nan, without_lost
from topokd_edge.data.recording import Gap, LabelInterval, Recording
from topokd_edge.errors import BadInputError

IN_TMP = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def tiny_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gaps_module, "BLOCK", 7)


def label_of_each(item: Recording) -> list[str]:
    labels = [""] * item.samples.shape[1]
    for interval in item.labels:
        assert interval.start < interval.stop
        for at in range(interval.start, interval.stop):
            assert labels[at] == ""
            labels[at] = interval.label
    return labels


def filled_of_each(item: Recording) -> list[bool]:
    flags = [False] * item.samples.shape[1]
    before = -1
    for start, stop in item.filled:
        assert before < start < stop
        before = stop
        flags[start:stop] = [True] * (stop - start)
    return flags


@st.composite
def recordings(draw: st.DrawFn) -> Recording:
    """Up to 40 samples at 10 Hz with any labels, gaps and filled intervals."""
    size = draw(st.integers(1, 40))
    borders = sorted(draw(st.sets(st.integers(0, size - 2), max_size=6))) if size > 1 else []
    seconds = st.sampled_from([0.0, 0.04, 0.1, 0.34, 1.0, 5.0])
    edges = sorted(draw(st.sets(st.integers(0, size), max_size=8)))
    labels = [(a, b, draw(st.sampled_from("ab"))) for a, b in pairwise(edges) if draw(st.booleans())]
    spans = sorted(draw(st.sets(st.integers(0, size), max_size=6)))
    made = recording(
        samples=size,
        labels=tuple(labels) or ((0, size, "a"),),
        gaps=tuple((at, draw(seconds)) for at in borders),
        rate_hz=10.0,
    )
    return replace(made, filled=tuple(zip(spans[::2], spans[1::2], strict=False)))


@IN_TMP
@given(made=recordings(), lost=st.sets(st.integers(0, 39)))
@pytest.mark.usefixtures("tiny_blocks")
def test_taking_out_lost_samples_equals_doing_it_one_by_one(
    tmp_path: Path, made: Recording, lost: set[int]
) -> None:
    size = made.samples.shape[1]
    lost = {at for at in lost if at < size}
    kept = [at for at in range(size) if at not in lost]
    samples = made.samples.copy()
    for at in lost:
        samples[at % 3, at] = np.nan
    holed = replace(made, samples=samples)
    if not kept:
        with pytest.raises(BadInputError, match="nothing is left"):
            mark_lost(holed, tmp_path / "kept.npy")
        return
    result = mark_lost(holed, tmp_path / "kept.npy")
    np.testing.assert_array_equal(result.samples, made.samples[:, kept])
    assert result.samples.dtype == np.float32
    assert label_of_each(result) == [label_of_each(made)[at] for at in kept]
    assert filled_of_each(result) == [filled_of_each(made)[at] for at in kept]
    known = {gap.after_sample: gap.seconds for gap in made.gaps}
    expected = []
    for index, (left, right) in enumerate(pairwise(kept)):
        between = [known[at] for at in range(left, right) if at in known]
        if between or right > left + 1:
            seconds = 0.0 if 0.0 in between else sum(between) + (right - left - 1) / 10.0
            expected.append(Gap(index, pytest.approx(seconds)))
    assert list(result.gaps) == expected
    stamps = np.arange(size, dtype=np.float64)
    np.testing.assert_array_equal(np.concatenate(list(without_lost(stamps, holed))), kept)


def test_lost_samples_at_the_beginning_move_the_start(tmp_path: Path) -> None:
    made = recording(samples=50, gaps=((4, 2.0),))
    made.samples[:, :5] = np.nan
    for start, moved in [
        ("2020-01-01T00:00:59", "2020-01-01T00:01:01.200000"),
        ("2020-01-01T00:00:59+02:00", "2020-01-01T00:01:01.200000+02:00"),
        ("no date", None),
        (None, None),
    ]:
        result = mark_lost(replace(made, start=start), tmp_path / "kept.npy")
        assert (result.start, result.gaps) == (moved, ())
    unknown = replace(made, gaps=(Gap(2, 0.0),), start="2020-01-01T00:00:00")
    assert mark_lost(unknown, tmp_path / "kept.npy").start is None


def test_a_whole_recording_is_not_copied(tmp_path: Path) -> None:
    made = recording(gaps=((9, 50.0), (20, 0.0)))
    assert mark_lost(made, tmp_path / "kept.npy") is made
    assert fill_gaps(made, 1.0, tmp_path / "kept.npy") is made
    assert not (tmp_path / "kept.npy").exists()


def test_only_nan_counts_as_lost(tmp_path: Path) -> None:
    made = recording(samples=20)
    made.samples[1, 4] = np.inf
    made.samples[0, 9] = np.nan
    result = mark_lost(made, tmp_path / "kept.npy")
    assert result.samples.shape == (3, 19)
    with pytest.raises(BadInputError, match="sample 4: inf"):
        refuse_nan(result)


def test_nan_stops_with_subject_file_channel_and_sample() -> None:
    rows = np.array([[1, 0, np.nan, 0, 3, 0], [0, 2, np.nan, 3, 0.5, 4], [0] * 6], dtype=np.float32)
    made = replace(recording("7", source="night.csv"), samples=rows)
    with pytest.raises(BadInputError) as caught:
        refuse_nan(made)
    for text in (
        "subject 7",
        "night.csv",
        "channel 'acc_x', sample 2: nan",
        "channel 'acc_y', sample 2: nan",
    ):
        assert text in str(caught.value)
    refuse_nan(recording())


def brute_filled(made: Recording, max_seconds: float) -> dict[str, Any]:
    """Walk over the samples one by one."""
    known = {gap.after_sample: gap.seconds for gap in made.gaps}
    labels, flags = label_of_each(made), filled_of_each(made)
    out: dict[str, Any] = {"samples": [], "labels": [], "filled": [], "gaps": []}
    for at in range(made.samples.shape[1]):
        out["samples"].append(made.samples[:, at].astype(np.float64))
        out["labels"].append(labels[at])
        out["filled"].append(flags[at])
        if at not in known:
            continue
        if not 0 < known[at] <= max_seconds:
            out["gaps"].append((len(out["samples"]) - 1, known[at]))
            continue
        count = round(known[at] * made.rate_hz)
        same = labels[at] == labels[at + 1]
        for step in range(1, count + 1):
            line = made.samples[:, at] + (made.samples[:, at + 1] - made.samples[:, at]) * step / (count + 1)
            out["samples"].append(line)
            out["labels"].append(labels[at] if same else "")
            out["filled"].append(True)
    return out


@IN_TMP
@given(made=recordings(), max_seconds=st.sampled_from([0.05, 0.1, 0.5, 100.0]))
@pytest.mark.usefixtures("tiny_blocks")
def test_filling_equals_doing_it_one_by_one(tmp_path: Path, made: Recording, max_seconds: float) -> None:
    result = fill_gaps(made, max_seconds, tmp_path / "filled.npy")
    expected = brute_filled(made, max_seconds)
    np.testing.assert_allclose(result.samples, np.stack(expected["samples"], axis=1), rtol=1e-6, atol=1e-7)
    assert label_of_each(result) == expected["labels"]
    assert filled_of_each(result) == expected["filled"]
    assert [(gap.after_sample, gap.seconds) for gap in result.gaps] == expected["gaps"]
    np.testing.assert_array_equal(
        result.samples[:, ~np.array(expected["filled"])], made.samples[:, ~np.array(filled_of_each(made))]
    )


def test_a_long_gap_is_left_and_a_short_one_is_a_straight_line(tmp_path: Path) -> None:
    made = recording(samples=100, gaps=((9, 0.2), (49, 3.0), (69, 0.0)), rate_hz=25.0)
    result = fill_gaps(made, 0.5, tmp_path / "filled.npy")
    assert result.samples.shape == (3, 105)
    np.testing.assert_allclose(result.samples[0, 9:16], 0.009 + 0.001 * np.arange(7) / 6, rtol=1e-5)
    assert result.filled == ((10, 15),)
    assert result.gaps == (Gap(54, 3.0), Gap(74, 0.0))
    assert result.labels == (LabelInterval(0, 105, "a"),)
    assert "1 gaps of up to 0.5 s were filled with 5 interpolated samples" in result.notes[-1]


@pytest.mark.parametrize(("second", "labels"), [("a", ["a"] * 7), ("b", ["a", "", "", "", "", "", "b"])])
def test_filled_samples_between_touching_labels(tmp_path: Path, second: str, labels: list[str]) -> None:
    made = recording(samples=20, labels=((0, 10, "a"), (10, 20, second)), gaps=((9, 0.2),), rate_hz=25.0)
    assert label_of_each(fill_gaps(made, 0.5, tmp_path / "filled.npy"))[9:16] == labels


def test_marked_then_filled_leaves_no_nan(tmp_path: Path) -> None:
    made = recording(samples=100, rate_hz=25.0)
    made.samples[0, [0, 1, 20, 21, 22, 60, 99]] = np.nan
    made.samples[:, 70:95] = np.nan
    result = fill_gaps(mark_lost(made, tmp_path / "kept.npy"), 0.2, tmp_path / "filled.npy")
    assert np.isfinite(result.samples).all()
    assert result.filled == ((18, 21), (58, 59))
    assert result.gaps == (Gap(67, 1.0),)
    np.testing.assert_allclose(result.samples[0, :68], np.arange(2, 70) / 1000, rtol=1e-6)


def test_filling_refuses_nan_by_its_place(tmp_path: Path) -> None:
    made = recording(gaps=((9, 0.2),))
    made.samples[2, 100] = np.nan
    with pytest.raises(BadInputError, match="'acc_z', sample 100: nan"):
        fill_gaps(made, 1.0, tmp_path / "filled.npy")


def test_extreme_values_are_filled_without_overflow(tmp_path: Path) -> None:
    made = recording(gaps=((9, 0.2),))
    made.samples[0, 9], made.samples[0, 10] = 3.4e38, -3.4e38
    assert np.isfinite(fill_gaps(made, 1.0, tmp_path / "filled.npy").samples).all()
