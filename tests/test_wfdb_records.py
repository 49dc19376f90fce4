"""WFDB records: ones written by the package itself, a real one, and damaged ones."""

from __future__ import annotations

import pickle
import shutil
import socket
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_recordings import shared_data

from topokd_edge.data.importers import wfdb_labels, wfdb_records
from topokd_edge.data.stream import CHUNK_SAMPLES, ReadOptions, Stream
from topokd_edge.errors import BadInputError, MissingError, UsageError

wfdb = pytest.importorskip("wfdb")
# Where the tests call the package themselves; its last version uses what pandas 3.1 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword")
NONE = ReadOptions()


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def wave(n: int = 1000) -> npt.NDArray[np.int64]:
    return np.stack([np.arange(n) % 700 - 300, 200 - np.arange(n) % 401], axis=1)


def record(
    folder: Path,
    counts: npt.NDArray[np.int64] | None = None,
    beats: dict[int, str] | None = None,
    rhythms: dict[int, str] | None = None,
    **changes: Any,
) -> Path:
    """Write a record `r` of two leads at 100 Hz with the package; return its header."""
    says = {
        "record_name": "r",
        "fs": 100,
        "units": ["mV", "uV"],
        "sig_name": ["II", "V1"],
        "fmt": ["16", "16"],
        "adc_gain": [200.0, 2.0],
        "baseline": [10, 0],
        "comments": ["Subject: P07", "resting"],
        **changes,
    }
    name = says.pop("record_name")
    wfdb.wrsamp(name, d_signal=wave() if counts is None else counts, write_dir=str(folder), **says)
    marks = {**{at: ("+", note) for at, note in (rhythms or {}).items()}}
    marks |= {at: (symbol, "") for at, symbol in (beats or {}).items()}
    if marks:
        at = sorted(marks)
        symbols, notes = [marks[k][0] for k in at], [marks[k][1] for k in at]
        wfdb.wrann(name, "atr", np.array(at), symbol=symbols, aux_note=notes, write_dir=str(folder))
    return folder / f"{name}.hea"


def only(path: Path, options: ReadOptions = NONE) -> Stream:
    opened = wfdb_records.open_streams(path, options)
    assert opened.refused == ()
    (stream,) = opened.streams
    return stream


def read(stream: Stream) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.str_] | None]:
    chunks = list(pickle.loads(pickle.dumps(stream.chunks))())
    samples = np.concatenate([chunk.samples for chunk in chunks])
    labels = [chunk.labels for chunk in chunks if chunk.labels is not None]
    assert samples.dtype == np.float32
    assert len(labels) in (0, len(chunks))
    return samples, np.concatenate(labels) if labels else None


def refusal(path: Path, options: ReadOptions = NONE) -> str:
    opened = wfdb_records.open_streams(path, options)
    assert opened.streams == ()
    return opened.refused[0].reason


def edit(path: Path, old: str, new: str) -> Path:
    text = path.read_text("ascii")
    assert old in text
    path.write_text(text.replace(old, new), "ascii")
    return path


def test_a_record_written_by_the_package(tmp_path: Path) -> None:
    path = record(tmp_path)
    stream = only(path)
    assert (stream.channels, stream.units, stream.rate_hz) == (("II", "V1"), ("mV", "mV"), 100.0)
    assert (stream.subject, stream.session) == ("P07", "r")
    assert stream.about == {"comments": "Subject: P07; resting"}
    samples, labels = read(stream)
    assert labels is None
    np.testing.assert_allclose(
        samples, np.stack([(wave()[:, 0] - 10) / 200, wave()[:, 1] / 2000], axis=1), rtol=1e-6
    )


@pytest.mark.parametrize("name", ["r", "r.hea", "r.dat", "."])
def test_ways_to_name_a_record(tmp_path: Path, name: str) -> None:
    record(tmp_path)
    assert only(tmp_path / name).session == "r"


def test_a_name_with_a_dot(tmp_path: Path) -> None:
    record(tmp_path)
    (tmp_path / "r.hea").rename(tmp_path / "a.1.hea")
    assert only(tmp_path / "a.1").session == "a.1"
    assert len(read(only(tmp_path))[0]) == 1000


@pytest.mark.parametrize("fmt", ["16", "24", "32", "61", "80", "212"])
@pytest.mark.parametrize("n", [999, 1000])
def test_formats_and_lost_samples(tmp_path: Path, fmt: str, n: int) -> None:
    counts = wave(n) // (8 if fmt == "80" else 1)
    counts[7, 0] = wfdb_records.LOST[fmt]
    path = record(tmp_path, counts, fmt=["16" if fmt == "61" else fmt] * 2)
    if fmt == "61":  # as 16, the high byte first; the package does not write it
        np.fromfile(path.with_suffix(".dat"), "<i2").astype(">i2").tofile(path.with_suffix(".dat"))
        edit(path, "r.dat 16", "r.dat 61")
    samples, _ = read(only(path))
    assert np.flatnonzero(np.isnan(samples).any(axis=1)).tolist() == [7]
    np.testing.assert_allclose(samples[8:, 1], counts[8:, 1] / 2000, rtol=1e-6)


def test_blocks_join(tmp_path: Path) -> None:
    counts = wave(2 * CHUNK_SAMPLES + 11)
    path = record(tmp_path, counts, fmt=["212"] * 2)
    stream = only(path)
    assert [len(chunk.samples) for chunk in stream.chunks()] == [CHUNK_SAMPLES, CHUNK_SAMPLES, 11]
    expected = wfdb.rdrecord(str(path.with_suffix(""))).p_signal
    np.testing.assert_allclose(read(stream)[0], expected * [1, 1e-3], rtol=1e-6)


def test_beats_label_what_is_nearest_to_them(tmp_path: Path) -> None:
    path = record(tmp_path, beats={100: "N", 200: "V", 301: "N", 900: "A"}, rhythms={50: "(AFIB"})
    labels = read(only(path))[1]
    assert labels is not None
    expected = np.full(1000, "", dtype="<U1")
    expected[100:150] = "N"  # nothing before the first beat, then up to the middle
    expected[150:251] = "V"
    expected[251 : 301 + 151] = "N"  # 1.5 s at most
    expected[900 - 150 : 901] = "A"  # nothing after the last beat
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_array_equal(read(only(path, ReadOptions(label="beats")))[1], expected)


@given(st.lists(st.integers(0, 400), min_size=1, max_size=30).map(sorted))
def test_beats_against_a_plain_search(beats: list[int]) -> None:
    starts, ends = wfdb_labels.around(np.array(beats), 40)
    names = np.array([str(number) for number in range(len(beats))])
    found = wfdb_labels.labels_at(np.arange(450), (starts, ends, names))
    assert found is not None
    for place in range(450):
        near = min(abs(place - beat) for beat in beats)
        inside = beats[0] <= place <= beats[-1] and near <= 40
        assert (found[place] != "") == inside
        if inside:
            assert abs(place - beats[int(found[place])]) == near


def test_rhythms_last_until_the_next(tmp_path: Path) -> None:
    path = record(tmp_path, beats={100: "N", 500: "N"}, rhythms={50: "(N", 300: "(AFIB"})
    labels = read(only(path, ReadOptions(label="rhythm")))[1]
    assert labels is not None
    assert labels.tolist() == [""] * 50 + ["N"] * 250 + ["AFIB"] * 700


def test_labels_that_are_not_there(tmp_path: Path) -> None:
    path = record(tmp_path)
    assert "no such file; beats are labelled from it" in refusal(path, ReadOptions(label="beats"))
    record(tmp_path, beats={10: "N"})
    assert "no rhythm among its 1 annotations" in refusal(path, ReadOptions(label="rhythm"))
    record(tmp_path, rhythms={10: "(N"})
    labels = read(only(path))[1]
    assert labels is not None
    assert set(labels.tolist()) == {""}
    with pytest.raises(UsageError, match="label 'sleep', expected one of beats, rhythm"):
        wfdb_records.open_streams(path, ReadOptions(label="sleep"))


def test_annotations_cut_short_inside_their_notes(tmp_path: Path) -> None:
    path = record(tmp_path, rhythms={0: "(sit", 500: "(walk"})
    file = path.with_suffix(".atr")
    content = file.read_bytes()
    assert content.count(b"(sit\xf4\x71") == 1  # 500 samples on, the next rhythm
    file.write_bytes(content.replace(b"(sit\xf4\x71", b"(sit\xf4\xf3"))
    assert "r.atr: not readable annotations" in refusal(path, ReadOptions(label="rhythm"))


def test_annotations_outside_the_record(tmp_path: Path) -> None:
    path = record(tmp_path, beats={10: "N", 1000: "N"})
    assert "outside the 1000 samples" in refusal(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("r.dat 16 200", "../r.dat 16 200", "not a readable WFDB header"),
        ("r.dat 16 200", "/etc/passwd 16 200", "not a readable WFDB header"),
        ("r.dat 16 200", "http://host/r.dat 16 200", "not a readable WFDB header"),
        ("r.dat 16 200", "~ 16 200", "signal 1: file name '~', expected a plain name"),
        ("r.dat 16 200", "x.dat 16 200", "signal 1: no file x.dat"),
        ("r.dat 16 200", "r.dat 8 200", "signal 1: format 8, expected one of 16"),
        ("r.dat 16 200", "r.dat 16x2 200", "several samples per frame"),
        ("r.dat 16 200", "r.dat 16:3 200", "several samples per frame, or skewed"),
        ("r.dat 16 200.0(10)", "r.dat 16 1e999(10)", "gain inf"),
        ("r.dat 16 200", "r.dat 16 2x0", "line 2: 'r.dat 16 2x0"),
        ("r.dat 16 200.0(10)/mV 16 0 -300 55036 0 II", "r.dat 16", "line 2: 'r.dat 16', expected file"),
        ("r.dat 16 200", "r.dat 16 0", "line 2: gain 0, which means"),
        ("r 2 100 1000", "r 3 100 1000", "3 signals stated, 2 described"),
        ("r 2 100 1000", "r 2 100 1000000000000", "stated, its signal files hold 1000"),
        ("r 2 100 1000", "r 2 0 1000", "0 samples per second"),
        (
            "r 2 100 1000",
            "r 2 1e999 1000",
            "line 1: 'r 2 1e999 1000', expected name, signals, rate and samples",
        ),
        ("r 2 100 1000", "r 2 100", "line 1: 'r 2 100', expected name"),
        ("r 2 100 1000", "r/2 2 100 1000", "made of several segments"),
        ("r 2 100 1000", "???", "line 1: '???', expected name"),
        ("r 2 100 1000", "r 2 100/mV 16 1000", "line 1: 'r 2 100/mV 16 1000', expected name"),
    ],
)
def test_headers_that_are_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = edit(record(tmp_path), old, new)
    assert message in refusal(path)


@pytest.mark.parametrize("name", ["../r.dat", "/etc/passwd", "..", "s3://a/r.dat", "a::b", "a\\b", "", None])
def test_a_header_cannot_lead_out_of_its_folder(tmp_path: Path, name: str | None) -> None:
    """Whatever a later version of the package lets pass."""
    header = wfdb.rdheader(str(record(tmp_path).with_suffix("")))
    header.file_name[0] = name
    assert (
        "expected a plain name in the header's folder"
        in wfdb_records._problems(tmp_path / "r.hea", header)[0]
    )


def test_units_that_are_not_of_the_project_are_told(tmp_path: Path) -> None:
    stream = only(record(tmp_path, units=["mmHg", "g"]))
    assert stream.units == ("1", "g")
    assert stream.notes == ("II is in mmHg, which is no unit of this project; taken as numbers without unit",)


def test_a_signal_file_that_was_changed_or_cut_off(tmp_path: Path) -> None:
    path = record(tmp_path)
    data = path.with_suffix(".dat")
    content = bytearray(data.read_bytes())
    content[100] ^= 4
    data.write_bytes(content)
    with pytest.raises(BadInputError, match="the checksum of II is not the header's"):
        list(only(path).chunks())
    data.write_bytes(content[:-1])
    assert "1000 samples per signal stated, its signal files hold 999" in refusal(path)


def test_a_path_that_the_package_would_take_for_an_address(tmp_path: Path) -> None:
    folder = tmp_path / "a::b"
    folder.mkdir()
    assert "'::' in a path" in refusal(record(tmp_path).rename(folder / "r.hea"))


def test_without_the_package_and_without_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="a path is needed"):
        wfdb_records.open_streams(None, NONE)
    with pytest.raises(BadInputError, match="no such file"):
        wfdb_records.open_streams(tmp_path / "r", NONE)
    monkeypatch.setattr(wfdb_records, "find_spec", lambda _: None)
    with pytest.raises(MissingError, match=r"pip install 'topokd-edge\[ecg\]'"):
        wfdb_records.open_streams(tmp_path, NONE)


def test_real_record() -> None:
    path = shared_data("ecg_mitbih_100/100.hea")
    stream = only(path)
    assert (stream.channels, stream.units, stream.rate_hz) == (("MLII", "V5"), ("mV", "mV"), 360.0)
    samples, labels = read(stream)
    assert labels is not None
    np.testing.assert_allclose(samples, wfdb.rdrecord(str(path.with_suffix(""))).p_signal, atol=1e-6)
    assert samples.shape == (650_000, 2)
    marks = wfdb.rdann(str(path.with_suffix("")), "atr")
    beats = [(at, symbol) for at, symbol in zip(marks.sample, marks.symbol, strict=True) if symbol != "+"]
    assert Counter(symbol for _, symbol in beats) == {"N": 2239, "A": 33, "V": 1}
    assert all(labels[at] == symbol for at, symbol in beats)
    runs = labels[np.r_[True, labels[1:] != labels[:-1]]]
    assert np.count_nonzero(runs == "V") == 1
    rhythm = read(only(path, ReadOptions(label="rhythm")))[1]
    assert rhythm is not None
    assert Counter(rhythm.tolist()) == {"": 18, "N": 649_982}


def fuzz(tmp_path: Path, count: int) -> int:
    """Damaged files give an error of this project, or samples in order; return how many do."""
    path = record(tmp_path, wave(60), beats={10: "N", 30: "V", 50: "N"}, rhythms={5: "(N"}, fmt=["212"] * 2)
    generator = np.random.default_rng(0)
    target = tmp_path / "m"
    good = 0
    for number in range(count):
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        for suffix in (".hea", ".dat", ".atr"):
            shutil.copy(path.with_suffix(suffix), target)
        file = target / f"r{('.hea', '.atr', '.hea', '.dat')[number % 4]}"
        changed = bytearray(file.read_bytes())
        for at in generator.integers(0, len(changed), int(generator.integers(1, 4))):
            pool = b"0123456789 ./:-x(\n#" if number % 8 < 4 else range(256)
            changed[at] = int(generator.choice(list(pool)))
        file.write_bytes(changed[: generator.integers(len(changed))] if number % 5 == 0 else changed)
        opened = wfdb_records.open_streams(target, ReadOptions(label="rhythm") if number % 3 else NONE)
        try:
            for stream in opened.streams:
                samples, _ = read(stream)
                assert not np.isinf(samples).any()
                good += 1
        except BadInputError:
            continue
    return good


def test_damaged_files(tmp_path: Path) -> None:
    assert 0 < fuzz(tmp_path, 30) < 30


@pytest.mark.slow
def test_many_damaged_files(tmp_path: Path) -> None:
    assert 0 < fuzz(tmp_path, 2500) < 2500
