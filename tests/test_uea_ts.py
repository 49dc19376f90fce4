"""`.ts` files: hand-written ones, real ones, and damaged ones."""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_recordings import shared_data

from topokd_edge.data.importers import uea_ts
from topokd_edge.data.stream import CHUNK_SAMPLES, ReadOptions, Stream
from topokd_edge.errors import BadInputError, UsageError

AT_16_HZ = ReadOptions(rate_hz=16.0)
HEAD = """# made for a test
@problemName Made
@timeStamps false
@missing false
@univariate false
@dimensions 2
@equalLength true
@seriesLength 3
@classLabel true walk run
@data
"""


def ts(path: Path, cases: str, head: str = HEAD) -> Path:
    path.write_text(head + cases, encoding="utf-8")
    return path


def samples(stream: Stream) -> npt.NDArray[np.float32]:
    chunks = list(pickle.loads(pickle.dumps(stream.chunks))())
    assert all(chunk.time is None and chunk.labels is None for chunk in chunks)
    return np.concatenate([chunk.samples for chunk in chunks])


def refusal(path: Path) -> str:
    opened = uea_ts.open_streams(path, AT_16_HZ)
    assert opened.streams == ()
    return opened.refused[0].reason


def test_a_hand_written_file(tmp_path: Path) -> None:
    path = ts(tmp_path / "made_TRAIN.ts", "1,2,3:-1,-2.5,3e-1:walk\n\n# between\n4,?,6:7,8,NaN:run\n")
    opened = uea_ts.open_streams(path, AT_16_HZ)
    assert opened.refused == ()
    first, second = opened.streams
    np.testing.assert_array_equal(samples(first), np.float32([[1, -1], [2, -2.5], [3, 0.3]]))
    np.testing.assert_array_equal(samples(second), np.float32([[4, 7], [np.nan, 8], [6, np.nan]]))
    assert samples(first).dtype == np.float32
    assert (first.label, second.label) == ("walk", "run")
    assert first.channels == ("dim_1", "dim_2")
    assert first.units == ("1", "1")
    assert (first.subject, first.session, first.device) == ("unknown", "made_TRAIN.ts", "Made")
    assert first.rate_hz == 16.0
    assert first.lost_as_nan
    assert first.source.endswith("made_TRAIN.ts#line 11")
    assert "split by subject is not possible" in first.notes[0]
    assert second.notes == ()


def test_cases_may_differ_in_length_and_have_no_class(tmp_path: Path) -> None:
    head = "@problemName Made\n@univariate true\n@equalLength false\n@classLabel false\n@data\n"
    opened = uea_ts.open_streams(ts(tmp_path / "a.ts", "1\n1,2,3\r\n", head), AT_16_HZ)
    assert [samples(stream).shape for stream in opened.streams] == [(1, 1), (3, 1)]
    assert [stream.label for stream in opened.streams] == [None, None]


def test_a_long_case_comes_in_chunks(tmp_path: Path) -> None:
    n = CHUNK_SAMPLES + 10
    head = "@univariate true\n@equalLength false\n@classLabel false\n@data\n"
    path = ts(tmp_path / "a.ts", ",".join(str(k) for k in range(n)), head)
    (stream,) = uea_ts.open_streams(path, AT_16_HZ).streams
    assert [len(chunk.samples) for chunk in stream.chunks()] == [CHUNK_SAMPLES, 10]
    np.testing.assert_array_equal(samples(stream)[:, 0], np.arange(n))


@given(st.lists(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1), min_size=1))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, cases: list[list[float]]) -> None:
    head = "@dimensions 1\n@equalLength false\n@classLabel true a\n@data\n"
    text = "".join(",".join(map(repr, case)) + ":a\n" for case in cases)
    opened = uea_ts.open_streams(ts(tmp_path_factory.mktemp("ts") / "a.ts", text, head), AT_16_HZ)
    assert len(opened.streams) == len(cases)
    for stream, case in zip(opened.streams, cases, strict=True):
        np.testing.assert_array_equal(samples(stream)[:, 0], np.float32(case))


def test_units(tmp_path: Path) -> None:
    path = ts(tmp_path / "a.ts", "1,2,3:1,2,3:run\n")

    def units(text: str) -> tuple[str, ...]:
        return uea_ts.open_streams(path, ReadOptions(rate_hz=16.0, units=text)).streams[0].units

    assert units("g") == ("g", "g")
    assert units("dim_2=deg/s") == ("1", "deg/s")
    assert units("g,dim_2=deg/s") == ("g", "deg/s")
    with pytest.raises(UsageError, match="unit 'furlong', expected one of g, m/s2"):
        units("furlong")
    opened = uea_ts.open_streams(path, ReadOptions(rate_hz=16.0, units="acc=g"))
    assert "no channel acc; it has dim_1, dim_2" in opened.refused[0].reason


def test_the_rate_is_needed_and_not_guessed(tmp_path: Path) -> None:
    path = ts(tmp_path / "Epilepsy_TRAIN.ts", "1,2,3:1,2,3:run\n")
    with pytest.raises(UsageError, match=r"--rate, e\.g\. 16 for Epilepsy"):
        uea_ts.open_streams(path, ReadOptions())
    for rate in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="expected a number above 0"):
            uea_ts.open_streams(path, ReadOptions(rate_hz=rate))
    with pytest.raises(UsageError, match="a path is needed"):
        uea_ts.open_streams(None, AT_16_HZ)


def test_every_wrong_line_is_named(tmp_path: Path) -> None:
    wrong = {
        "1,2,3:1,2,3:sit": "line 11: class 'sit', expected one of walk, run",
        "1,2,3:run": "line 12: 1 channels, expected 2",
        "1,2,3:1,2:run": "line 13: 2 samples in channel 2, expected 3",
        "1,2,x:1,2,3:run": "line 14: channel 1: could not convert string to float: 'x'",
        "1,2,3::run": "line 15: channel 2: could not convert string to float: ''",
        "1,2,3:1,inf,3:run": "line 16: channel 2, sample 2: inf is too large",
        "1,2,3:1,2,-1e39:run": "line 17: channel 2, sample 3: -1e+39 is too large",
        "run": "line 18: 0 channels, expected 2",
    }
    reason = refusal(ts(tmp_path / "a.ts", "\n".join(wrong) + "\n1,2,3:1,2,3:run\n"))
    assert [line.removeprefix("  - ") for line in reason.splitlines()[1:]] == list(wrong.values())


def test_at_most_twenty_problems(tmp_path: Path) -> None:
    reason = refusal(ts(tmp_path / "a.ts", "no\n" * 1000))
    assert "the first 20 problems" in reason
    assert len(reason.splitlines()) == 21


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (HEAD.replace("@timeStamps false", "@timeStamps true"), "@timestamps true: only series"),
        (HEAD.replace("@classLabel true walk run", "@targetLabel true"), "@targetlabel true: only series"),
        (HEAD.replace("@classLabel true walk run", "@classLabel true"), "@classLabel: expected 'true' and"),
        (HEAD.replace("@classLabel true walk run\n", ""), "@classLabel: expected 'true' and"),
        (HEAD.replace("@dimensions 2", "@dimensions two"), "@dimensions two: expected a whole number"),
        (HEAD.replace("@dimensions 2", "@dimensions 1" + "0" * 30), "expected a whole number"),
        (HEAD.replace("@seriesLength 3", "@seriesLength 0"), "@serieslength 0: expected a whole number"),
        (HEAD.replace("@data\n", ""), "expected a line with @ before @data"),
        (HEAD, "no case after @data"),
        ("", "no line @data"),
        ("export const x = 1;\n", "line 1: 'export const x = 1;', expected a line with @"),
    ],
)  # fmt: skip
def test_headers_that_are_refused(tmp_path: Path, head: str, message: str) -> None:
    path = tmp_path / "a.ts"
    path.write_text(
        head + ("" if message.startswith("no case") else "1,2,3:1,2,3:run\n" * bool(head)), "utf-8"
    )
    assert message in refusal(path)


def test_channels_stay_as_many_where_the_header_says_nothing(tmp_path: Path) -> None:
    path = ts(tmp_path / "a.ts", "1,2:1,2\n1,2\n", "@equalLength false\n@classLabel false\n@data\n")
    assert "line 5: 1 channels, the cases before have 2" in refusal(path)


def test_a_folder_and_a_file_that_changes(tmp_path: Path) -> None:
    ts(tmp_path / "a_TRAIN.ts", "1,2,3:1,2,3:run\n")
    path = ts(tmp_path / "b_TEST.ts", "1,2,3:1,2,3:run\n")
    (tmp_path / "bad.ts").write_bytes(b"\xff\xfe\0")
    opened = uea_ts.open_streams(tmp_path, AT_16_HZ)
    assert [stream.session for stream in opened.streams] == ["a_TRAIN.ts", "b_TEST.ts"]
    assert len(opened.refused) == 1
    path.write_text("")
    with pytest.raises(BadInputError, match=r"line 11: .* the file changed while it was read"):
        list(opened.streams[1].chunks())


@pytest.mark.parametrize(
    ("name", "shape", "classes"),
    [
        ("Epilepsy_TRAIN", (137, 206, 3), {"WALKING": 37, "RUNNING": 36, "EPILEPSY": 34, "SAWING": 30}),
        ("Epilepsy_TEST", (138, 206, 3), {"WALKING": 37, "RUNNING": 37, "EPILEPSY": 34, "SAWING": 30}),
        (
            "BasicMotions_TRAIN",
            (40, 100, 6),
            dict.fromkeys(["Standing", "Running", "Walking", "Badminton"], 10),
        ),
        ("AtrialFibrillation_TEST", (15, 640, 2), {"n": 5, "s": 5, "t": 5}),
    ],
)
def test_real_files(name: str, shape: tuple[int, int, int], classes: dict[str, int]) -> None:
    path = shared_data(f"uea_small/{name}.ts")
    streams = uea_ts.open_streams(path, AT_16_HZ).streams
    assert np.stack([samples(stream) for stream in streams]).shape == shape
    assert Counter(stream.label for stream in streams) == classes
    last = path.read_text("utf-8").splitlines()[-1].split(":")
    assert last[-1] == streams[-1].label
    expected = [[float(word) for word in part.split(",")] for part in last[:-1]]
    np.testing.assert_array_equal(samples(streams[-1]).T, np.float32(expected))


def fuzz(tmp_path: Path, count: int) -> int:
    """Damaged files give an error of this project, or samples that are finite or NaN; return how many do."""
    content = (HEAD + "1,2.5,3:-1,?,3e5:walk\n4,5,6:7,8,9:run\n" * 3).encode()
    generator = np.random.default_rng(0)
    good = 0
    for number in range(count):
        changed = bytearray(content)
        for at in generator.integers(0, len(changed), int(generator.integers(1, 4))):
            changed[at] = int(generator.choice(list(b"0159:,?@\n .e-#") + list(range(256))))
        if number % 4 == 0:
            changed = changed[: generator.integers(len(changed))]
        (tmp_path / "m.ts").write_bytes(changed)
        opened = uea_ts.open_streams(tmp_path / "m.ts", AT_16_HZ)
        assert len(opened.refused) == (not opened.streams)
        for stream in opened.streams:
            assert not np.isinf(samples(stream)).any()
        good += bool(opened.streams)
    return good


def test_damaged_files(tmp_path: Path) -> None:
    assert 0 < fuzz(tmp_path, 200) < 200


@pytest.mark.slow
def test_many_damaged_files(tmp_path: Path) -> None:
    assert 0 < fuzz(tmp_path, 10_000) < 10_000
