"""Importers read real sets exactly, and name every problem of a bad file."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_recordings import import_into, npz_arrays, read_path, recording, shared_data, write_npz

from topokd_edge.arrays import map_npy
from topokd_edge.data.account import account
from topokd_edge.data.check import acceleration_norms_g, check_recordings
from topokd_edge.data.importers import IMPORTERS, importer, shoulder_watch
from topokd_edge.data.stream import ReadOptions, Refused, Stream, open_each
from topokd_edge.errors import BadInputError, MissingError, UsageError


def test_shoulder_watch_equals_the_arrays_in_the_package() -> None:
    if importlib.util.find_spec("seglearn") is None:
        pytest.skip("seglearn is not installed")
    truth = np.load(shoulder_watch.installed_file(), allow_pickle=True).item()
    recordings = read_path("shoulder-watch", None)
    assert len(recordings) == 140
    assert {item.subject for item in recordings} == {str(number) for number in range(1, 11)}
    for index, item in enumerate(recordings):
        np.testing.assert_array_equal(item.samples, truth["X"][index].T.astype(np.float32))
        assert item.labels[0].label == truth["y_labels"][truth["y"][index]]
        assert item.labels[0].stop == item.samples.shape[1]
        assert item.session == ("right" if truth["side"][index] else "left")
    assert recordings[0].units == ("g", "g", "g", "rad/s", "rad/s", "rad/s")
    assert not any(check_recordings(recordings))


def test_reading_shoulder_watch_does_not_import_seglearn() -> None:
    if importlib.util.find_spec("seglearn") is None:
        pytest.skip("seglearn is not installed")
    code = (
        "import sys; from topokd_edge.data.importers import shoulder_watch as s; "
        "from topokd_edge.data.stream import ReadOptions; s.open_streams(None, ReadOptions()); "
        "sys.exit('seglearn' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_shoulder_watch_refuses_another_file_before_unpickling_it(tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (marker,))  # type: ignore[return-value]

    path = tmp_path / "watch_dataset.npy"
    np.save(path, np.array([Evil()], dtype=object), allow_pickle=True)
    with pytest.raises(BadInputError, match="SHA-256"):
        shoulder_watch.open_streams(path, ReadOptions())
    assert not marker.exists()


def test_shoulder_watch_without_seglearn_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingError, match=r"pip install"):
        shoulder_watch.open_streams(None, ReadOptions())


def test_npz_gives_physical_values_subjects_and_labels(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "set.npz", offset=np.array([0.5, 0, 0]))
    recordings = read_path("npz", path)
    counts = npz_arrays()["counts"]
    assert [(item.subject, item.labels[0].label) for item in recordings[:3]] == [
        ("1", "a"),
        ("1", "b"),
        ("2", "a"),
    ]
    expected = (counts[0, 100:200] * 1e-3 + 0.5).astype(np.float32)
    np.testing.assert_array_equal(recordings[1].samples[0], expected)
    assert recordings[1].source == "set.npz#1"


def test_npz_units_are_brought_to_the_project_s(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "set.npz", scale=np.ones(3), units=np.array(["mg", "mg", "mg"]))
    first = read_path("npz", path)[0]
    assert first.units == ("g", "g", "g")
    assert acceleration_norms_g(first)["acc"] == pytest.approx(1.0, abs=0.06)
    metres = read_path("npz", write_npz(tmp_path / "m.npz", units=np.array(["m/s^2"] * 3)))[0]
    assert metres.units == ("m/s2", "m/s2", "m/s2")


def test_npz_segments_are_borders_no_window_crosses(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "set.npz", segment_samples=np.int32(40))
    assert [gap.after_sample for gap in read_path("npz", path)[0].gaps] == [39, 79]


def test_npz_credit_and_licence_come_from_the_file(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "set.npz", credit=np.array("A. Author"), licence=np.array("CC-BY-4.0"))
    assert import_into(tmp_path / "w", "npz", path, seconds=2).made["licence"] == "CC-BY-4.0"
    other = import_into(tmp_path / "v", "npz", write_npz(tmp_path / "other.npz"), seconds=2)
    assert (other.made["credit"], other.made["licence"]) == ("unknown", "unknown")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"scale": None}, ["scale: missing"]),
        ({"scale": np.ones(2)}, ["scale: shape (2,), expected (3,)"]),
        ({"scale": np.array([1.0, np.nan, 0.0])}, ["scale of channel 'acc_y'", "scale of channel 'acc_z'"]),
        ({"fs": np.float64(np.nan)}, ["fs: nan"]),
        ({"units": np.array(["g", "g", "furlong"])}, ["'acc_z': 'furlong'"]),
        ({"channels": np.array(["x", "x", "z"])}, ["channels: names must differ"]),
        ({"counts": np.zeros(5, dtype=np.int16)}, ["counts: int16 of shape (5,)"]),
        ({"recordings": np.array([[1, 0, 0, 100], [1, 9, 100, 200], [1, 1, 700, 900]])}, ["row 1", "row 2"]),
        ({"recording_columns": np.array(["subject", "label", "start", "stop"])}, ["no column 'class'"]),
        ({"class_names": np.array(["a", "b", "never"])}, ["no recording has class 2 ('never')"]),
        ({"segment_samples": np.int32(0)}, ["segment_samples: expected one positive"]),
    ],
)
def test_npz_names_every_problem(tmp_path: Path, changes: dict[str, object], named: list[str]) -> None:
    path = write_npz(tmp_path / "bad.npz", **changes)
    with pytest.raises(BadInputError) as caught:
        read_path("npz", path)
    assert "bad.npz" in str(caught.value)
    for text in named:
        assert any(text in problem for problem in caught.value.problems), caught.value.problems


def test_npz_without_pickle(tmp_path: Path) -> None:
    path = tmp_path / "objects.npz"
    np.savez(path, **{**npz_arrays(), "class_names": np.array(["a", None], dtype=object)})
    with pytest.raises(BadInputError, match="damaged"):
        read_path("npz", path)


@pytest.mark.parametrize("code", [0x110000, 0xD800], ids=["beyond Unicode", "half a letter"])
def test_npz_text_that_is_no_text(tmp_path: Path, code: int) -> None:
    names = np.array(["a", "b"])
    names.view(np.uint32)[1] = code
    path = write_npz(tmp_path / "bad.npz", class_names=names)
    with pytest.raises(BadInputError, match=r"class_names\.npy: damaged(.|\n)*letters"):
        read_path("npz", path)


def test_npz_with_a_header_of_python_2_is_read_without_a_warning(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(6).reshape(2, 3))
    content = (tmp_path / "a.npy").read_bytes()
    assert content.count(b"(2, 3), ") == 1
    (tmp_path / "a.npy").write_bytes(content.replace(b"(2, 3), ", b"(2L, 3),"))
    np.testing.assert_array_equal(map_npy(tmp_path / "a.npy", hint=""), [[0, 1, 2], [3, 4, 5]])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.floats(0, 1), flip=st.integers(0, 10**9), value=st.integers(1, 255), truncate=st.booleans())
def test_damaged_npz_is_refused_or_read_never_a_traceback(
    tmp_path: Path, cut: float, flip: int, value: int, truncate: bool
) -> None:
    path = write_npz(tmp_path / "set.npz")
    content = bytearray(path.read_bytes())
    if truncate:
        content = content[: int(cut * (len(content) - 1))]
    else:
        content[flip % len(content)] ^= value
    path.write_bytes(content)
    try:
        check_recordings(read_path("npz", path))
    except BadInputError as error:
        assert "set.npz" in str(error)
    else:
        assert not truncate


def test_nan_is_refused_with_its_place() -> None:
    bad = recording("7", source="night.npz#3")
    bad.samples[1, 41] = np.nan
    bad.samples[2, 5:7] = np.inf
    with pytest.raises(BadInputError) as caught:
        check_recordings([recording("1"), bad])
    assert len(caught.value.problems) == 2
    assert "subject 7, recording night.npz#3: channel 'acc_y', sample 41: nan" in str(caught.value)
    assert "channel 'acc_z', sample 5: inf (and 1 more in this channel)" in str(caught.value)


def test_constant_channel_is_refused_and_the_way_out_works() -> None:
    made = [recording("1"), recording("2")]
    for item in made:
        item.samples[1] = 0.25
    with pytest.raises(BadInputError, match=r"'acc_y'(.|\n)*--channels acc_x,acc_z"):
        check_recordings(made)
    made[1].samples[1] = 0.5
    check_recordings(made)


def test_channels_are_chosen_in_the_order_asked_for(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "set.npz")
    windows = import_into(tmp_path / "w", "npz", path, seconds=2, channels="acc_z,acc_x")
    assert windows.channels == ("acc_z", "acc_x")
    whole = import_into(tmp_path / "v", "npz", path, seconds=2)
    np.testing.assert_array_equal(windows.x[:], whole.x[:][:, [2, 0]])
    for names in ("acc_z,acc_z", "nope"):
        with pytest.raises(UsageError, match="--channels"):
            import_into(tmp_path / "u", "npz", path, seconds=2, channels=names)


@pytest.mark.parametrize(
    ("factor", "unit", "words"),
    [(1.0, "g", ""), (9.81, "m/s2", ""), (9.81, "g", "9.8"), (1.0, "m/s2", "9.8"), (1000.0, "g", "1000")],
)
def test_a_wrong_unit_is_told_by_its_factor(factor: float, unit: str, words: str) -> None:
    made = recording()
    made = replace(made, samples=made.samples * np.float32(factor), units=(unit,) * 3)
    (warnings,) = check_recordings([made])
    assert bool(warnings) == bool(words)
    assert words in "".join(warnings)


def test_unknown_format_lists_the_known() -> None:
    with pytest.raises(UsageError, match="shoulder-watch, geneactiv"):
        importer("floppy")
    assert set(IMPORTERS) >= {"shoulder-watch", "npz"}


def test_dsads_windows_are_the_published_segments(tmp_path: Path) -> None:
    path = shared_data("dsads/dsads_3imu_25hz.npz")
    windows = import_into(tmp_path / "w", "npz", path, seconds=5.0, overlap=0.0)
    assert windows.x.shape == (9120, 18, 125)
    assert np.unique(windows.y, return_counts=True)[1].tolist() == [480] * 19
    assert np.unique(windows.subject, return_counts=True)[1].tolist() == [1140] * 8
    medians = np.median([list(acceleration_norms_g(item).values()) for item in windows.recordings], axis=0)
    np.testing.assert_allclose(medians, 1.0, atol=0.02)
    half = import_into(tmp_path / "half", "npz", path, seconds=5.0, overlap=0.5)
    assert len(half) == 9120  # half-overlapping windows would cross the borders of the 5 s segments


def test_usc_had_windows_agree_with_the_independent_count(tmp_path: Path) -> None:
    path = shared_data("usc_had/usc_had_100hz.npz")
    windows = import_into(tmp_path / "w", "npz", path, seconds=2.56, overlap=0.5)
    assert windows.x.shape == (20768, 6, 256)
    by_class = dict(zip(windows.class_names, np.bincount(windows.y).tolist(), strict=True))
    assert (by_class["walking_forward"], by_class["jumping_up"], by_class["sleeping"]) == (2874, 728, 2854)
    by_subject = {who: int((windows.subject == who).sum()) for who in windows.subjects}
    assert list(by_subject.values()) == [
        1437, 1257, 979, 1153, 1009, 1155, 967, 1531, 1951, 1863, 1969, 2020, 1921, 1556,
    ]  # fmt: skip


def test_the_account_of_recordings_is_plain_json(tmp_path: Path) -> None:
    windows = import_into(tmp_path / "w", "npz", write_npz(tmp_path / "set.npz"), seconds=2, overlap=0.5)
    text = json.dumps(account(windows), allow_nan=False)
    first = json.loads(text)["recordings"][0]
    assert first["median_norm_g"] == pytest.approx(1.0, abs=0.06)
    assert first["units"] == ["g", "g", "g"]


def test_recordings_can_be_left_out_by_name(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "set.npz")
    windows = import_into(tmp_path / "w", "npz", path, seconds=2, leave_out="*#1,set.npz#[67]")
    assert [item.source for item in windows.recordings] == [f"set.npz#{number}" for number in (0, 2, 3, 4, 5)]
    with pytest.raises(UsageError, match=r"--leave-out night\*: no recording is called so; .*set.npz#0"):
        import_into(tmp_path / "v", "npz", path, seconds=2, leave_out="night*")


def test_a_file_that_cannot_be_opened_does_not_stop_the_others(tmp_path: Path) -> None:
    def open_one(file: Path) -> list[Stream]:
        raise PermissionError(13, "Permission denied", str(file))

    opened = open_each([tmp_path / "a.cwa"], open_one)
    assert opened.refused == (
        Refused(f"{tmp_path}/a.cwa", f"{tmp_path}/a.cwa: cannot be read (Permission denied)"),
    )
