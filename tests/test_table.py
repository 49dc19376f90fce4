"""CSV and Parquet tables: what is stated, what is a guess, what is read, and what is refused."""

from __future__ import annotations

import csv
import gzip
import itertools
import pickle
import random
import resource
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from made_recordings import shared_data
from pyarrow import parquet

from topokd_edge.data.importers import _table_csv, _table_parquet, table
from topokd_edge.data.importers.table import open_csv, open_parquet
from topokd_edge.data.stream import ReadOptions, Stream
from topokd_edge.data.units import spelled
from topokd_edge.errors import BadInputError, MissingError, TopokdError, UsageError

STATED = "time [ms],acc_x [g],acc_y [m/s^2],act,who\n"


def write(folder: Path, content: str | bytes, name: str = "rec.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def streams(path: Path, **options: Any) -> tuple[Stream, ...]:
    opened = (open_parquet if path.suffix == ".parquet" else open_csv)(path, ReadOptions(**options))
    assert opened.refused == ()
    return opened.streams


def values(stream: Stream) -> tuple[np.ndarray, np.ndarray | None, list[str]]:
    chunks = list(pickle.loads(pickle.dumps(stream.chunks))())
    time = None if chunks[0].time is None else np.concatenate([c.time for c in chunks])
    labels = [label for c in chunks if c.labels is not None for label in c.labels.tolist()]
    return np.concatenate([c.samples for c in chunks]), time, labels


def refusal(path: Path, **options: Any) -> str:
    opened = (open_parquet if path.suffix == ".parquet" else open_csv)(path, ReadOptions(**options))
    assert opened.streams == () and len(opened.refused) == 1
    assert opened.refused[0].file == str(path) and str(path) in opened.refused[0].reason
    return opened.refused[0].reason


def error(path: Path, **options: Any) -> str:
    with pytest.raises(UsageError) as caught:
        open_csv(path, ReadOptions(**options))
    return str(caught.value)


# What the header states


def test_the_header_states_everything(tmp_path: Path) -> None:
    path = write(tmp_path, STATED + "0,0.5,9.81,walk,S1\n20,-0.5,,walk,S1\n")
    (stream,) = streams(path, label="act", subject="who", rate_hz=50.0)
    samples, time, labels = values(stream)
    assert stream.channels == ("acc_x", "acc_y") and stream.units == ("g", "m/s2")
    assert (stream.subject, stream.session, stream.rate_hz) == ("S1", "1", 50.0)
    assert stream.start is None and stream.notes == ()
    np.testing.assert_array_equal(samples, np.array([[0.5, 9.81], [-0.5, np.nan]], np.float32))
    assert time is not None and time.tolist() == [0, 0.02]
    assert labels == ["walk", "walk"]


def test_units_become_those_of_the_project(tmp_path: Path) -> None:
    header = "a [mg],b [m/s²],c [mdps],d [dps],e [gauss],f [uV],g (µT),h [°C],i(lx)\n"
    (stream,) = streams(write(tmp_path, header + "1000,1,2000,3,2,5000,7,8,9\n"), rate_hz=1.0)
    assert stream.units == ("g", "m/s2", "deg/s", "deg/s", "uT", "mV", "uT", "degC", "lux")
    assert values(stream)[0].tolist() == [[1, 1, 2, 3, 200, 5, 7, 8, 9]]
    assert spelled("G") is None and spelled("furlong") is None


def test_csv_sample_is_the_shared_recording() -> None:
    folder = shared_data("pamap2_wrist_26hz/csv_sample")
    truth = np.load(shared_data("pamap2_wrist_26hz/pamap2_wrist_26hz.npz"))
    logs = {(c, log): slice(start, stop) for c, log, start, stop in truth["recordings"].tolist()}
    opened = streams(folder, rate_hz=26.0)
    assert len(opened) == 4
    for number, stream in enumerate(opened):
        samples, time, _ = values(stream)
        counts = truth["counts"][:, logs[number, 0]].T * truth["scale"] + truth["offset"]
        assert time is None and stream.units == ("g", "g", "g")
        assert np.abs(samples * 1000 - counts).max() <= 0.2501  # the npz has steps of 0.5 mg
        assert stream.path is not None
        by_hand = np.array(list(csv.reader(stream.path.read_text().splitlines()))[3:], np.float64)
        np.testing.assert_array_equal(samples, (by_hand * 1e-3).astype(np.float32))


# Layouts


@pytest.mark.parametrize(
    "text",
    [
        "t,x\n0,1.5\n1,-2.5\n",
        "\ufefft,x\r\n0,1.5\r\n1,-2.5\r\n",
        "# made by\n#\n\n   \n// more\nt;x\n\n0;1,5\n\n1;-2,5\n\n",
        "t\tx\n0\t1.5\n1\t-2.5",
        "t\tx\n0\t1,5\n1\t-2,5",
        '"t","x"\n"0","1.5"\n"1","-2.5"\n',
        "t,x,\n0,1.5,\n1,-2.5,\n",
        "t,x\n0,1.5,\n1,-2.5,\n",
        "t,x,\n0,1.5\n1,-2.5\n",
        "sep=;\nt;x\n0;1.5\n1;-2.5\n",
        "# t x\n# t, x\n 0, 1.5\n 1,+25e-1\n".replace("+", "-"),
        "0,1.5\n1,-2.5\n",
        "t,x,note\n0,1.5,\xb2\n1,-2.5,\xe4\n".encode("latin-1"),
        gzip.compress(b"t,x\n0,1.5\n", mtime=0) + gzip.compress(b"1,-2.5\n", mtime=0),
    ],
)
def test_layouts(tmp_path: Path, text: str | bytes) -> None:
    (stream,) = streams(write(tmp_path, text), time="1:s", columns="acc_x=2", units="g")
    samples, time, _ = values(stream)
    assert samples.tolist() == [[1.5], [-2.5]]
    assert time is not None and time.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("\n\n\r\n", "empty"),
        ("t,x\n", "a header but no row"),
        ("# only\n", "no line with data"),
        ("t,x\n1,2,3\n", "names 2 columns, the first row has 3"),
        ("t,x\n1,2\n".encode("utf-16"), "UTF-16"),
        (b"PK\x03\x04\0\0", "binary"),
        ("t,x\r0,1\r", "carriage return"),
        (gzip.compress(b"t,x\n0,1\n" * 500, mtime=0)[:-20], "cut off"),
        ("t," + "x" * 70_000 + "\n1,2\n", "first 65,536 bytes"),
    ],
)
def test_no_table(tmp_path: Path, text: str | bytes, said: str) -> None:
    assert said in refusal(write(tmp_path, text), time="1:s", columns="x=2", units="g")


def test_every_bad_row_is_named_by_its_line(tmp_path: Path) -> None:
    lines = ["# a comment", "", "t,x,y", "0,1,2", "", "1,1,2", "2,1", "3,1,2,4", '4,"1,2', "5,1,2"]
    said = refusal(write(tmp_path, "\r\n".join(lines) + "\r\n"), time="1:s", columns="x=2", units="g")
    assert said.count("\n  - ") == 3
    assert "line 7: 2 cells, expected 3" in said and "line 8: 4 cells" in said
    assert "line 9: a quote that is not closed" in said


def test_every_bad_cell_is_named_and_at_most_twenty(tmp_path: Path) -> None:
    rows = ["0,1,2", "1,inf,x y", "2,1e39,3", "3,4,--", ",1,1", "5,NA,nan"]
    said = refusal(write(tmp_path, "t,x,y\n" + "\n".join(rows)), time="1:s", columns="x=2,y=3", units="g")
    assert said.count("\n  - ") == 5
    for part in (
        "line 3, column 2 'x': inf is not a finite number",
        "line 3, column 3 'y': 'x y' is not a number",
        "line 4, column 2 'x': 1e+39 is not a finite number",
        "line 5, column 3 'y': '--' is not a number",
        "line 6, column 1 't': no time stamp",
    ):
        assert part in said
    many = write(tmp_path, "t,x,y\n" + "0,a,b\n" * 300_000)
    assert refusal(many, time="none", rate_hz=1.0, columns="x=2,y=3", units="g").count("\n  - ") == 20


def test_a_bad_cell_far_behind_is_named_when_it_is_reached(tmp_path: Path) -> None:
    path = write(tmp_path, "t,x\n" + "0,1.25\n" * 200_000 + "1,oops\n1,2\n")
    (stream,) = streams(path, time="1:s", columns="x=2", units="g")
    with pytest.raises(BadInputError, match="line 200002, column 2 'x': 'oops'"):
        list(stream.chunks())
    bytes_far = path.read_bytes() + b"1,\xff\n"
    (stream,) = streams(
        write(tmp_path, bytes_far.replace(b"oops", b"3")), time="1:s", columns="x=2", units="g"
    )
    with pytest.raises(BadInputError, match="line 200004: not text in UTF-8"):
        list(stream.chunks())


def test_a_line_that_the_file_ends_in_is_left_out_and_told(tmp_path: Path) -> None:
    (stream,) = streams(write(tmp_path, "t,x\n0,1\n1,2\n2"), time="1:s", columns="x=2", units="g")
    chunks = list(stream.chunks())
    assert [row for chunk in chunks for row in chunk.samples.tolist()] == [[1], [2]]
    assert [note for chunk in chunks for note in chunk.notes] == [
        "line 4: the file ends inside this line; it was left out"
    ]


def test_a_last_line_without_end_is_read_and_told(tmp_path: Path) -> None:
    (stream,) = streams(write(tmp_path, "t,x\n0,1\n1,2"), time="1:s", columns="x=2", units="g")
    (chunk,) = stream.chunks()
    assert chunk.samples.tolist() == [[1], [2]]
    assert chunk.notes == (
        "line 3, the last one, has no line end; if the file was cut off, its last cell is not whole",
    )


def test_an_endless_line_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, b"t,x\n0,1\n" + b"1" * (3 << 20))
    (stream,) = streams(path, time="1:s", columns="x=2", units="g") or (None,)
    with pytest.raises(BadInputError, match="line 3: longer than"):
        list(stream.chunks())


def test_blocks_join_without_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "t,x,who\n" + "".join(f"{i},{i / 8},S{i // 37}\n" + "\n" * (i % 3 == 0) for i in range(400))
    expected = [[i / 8] for i in range(400)]
    for size in (37, 64, 1000, 1 << 20):
        monkeypatch.setattr(_table_csv, "BLOCK_BYTES", size)
        for name, content in (("a.csv", text.encode()), ("a.csv.gz", gzip.compress(text.encode()))):
            found = streams(
                write(tmp_path, content, name), time="1:s", columns="x=2", units="g", subject="who"
            )
            parts = [values(stream) for stream in found]
            assert [row for part in parts for row in part[0].tolist()] == expected
            assert [stream.subject for stream in found] == [f"S{i}" for i in range(11)]
            assert all(part[1] is not None and part[1][0] == 0 for part in parts)


@settings(max_examples=150, deadline=None)
@given(
    cells=st.lists(
        st.tuples(st.floats(width=32, allow_infinity=False), st.integers(-(2**40), 2**40)),
        min_size=1,
        max_size=30,
    ),
    delimiter=st.sampled_from([",", ";", "\t"]),
    comma=st.booleans(),
    end=st.sampled_from(["\n", "\r\n"]),
    header=st.booleans(),
    trailing=st.booleans(),
)
def test_any_numbers_come_back(
    tmp_path_factory: pytest.TempPathFactory,
    cells: list[tuple[float, int]],
    delimiter: str,
    comma: bool,
    end: str,
    header: bool,
    trailing: bool,
) -> None:
    lines = [f"{t}{delimiter}{x!r}{delimiter}0.5" for x, t in cells]
    if comma and delimiter != ",":
        lines = [line.replace(".", ",") for line in lines]
    lines = ["t,x,y".replace(",", delimiter)] * header + lines
    path = tmp_path_factory.mktemp("t") / "a.csv"
    path.write_bytes((end.join(lines) + end * trailing).encode())
    (stream,) = streams(path, time="1:us", columns="x=2,y=3", units="1")
    samples, time, _ = values(stream)
    expected = np.array([[x, 0.5] for x, _ in cells]).astype(np.float32)
    np.testing.assert_array_equal(samples, expected)
    assert time is not None
    np.testing.assert_array_equal(time, [(t - cells[0][1]) / 1e6 for _, t in cells])


# Time


def test_nanoseconds_of_the_epoch_keep_every_digit(tmp_path: Path) -> None:
    stamps = [1_700_000_000_000_000_001, 1_700_000_000_000_000_002, 1_700_000_000_020_000_004]
    path = write(tmp_path, "t,x\n" + "".join(f"{stamp},1\n" for stamp in stamps))
    (stream,) = streams(path, time="t:ns", columns="x=x", units="g")
    time = values(stream)[1]
    assert time is not None and time.tolist() == [0, 1e-9, 0.020000003]
    assert stream.start == "2023-11-14T22:13:20+00:00"


@pytest.mark.parametrize(
    ("unit", "first", "second"), [("s", "1.5", "3"), ("ms", "1500", "3000.0"), ("us", "15e5", "3e6")]
)
def test_numeric_units_of_time(tmp_path: Path, unit: str, first: str, second: str) -> None:
    path = write(tmp_path, f"t,x\n{first},1\n{second},1\n")
    (stream,) = streams(path, time=f"t:{unit}", columns="x=x", units="g")
    time = values(stream)[1]
    assert time is not None and time.tolist() == [0, 1.5]
    assert stream.start is None


@pytest.mark.parametrize(
    ("first", "second", "start"),
    [
        ("2024-05-01T12:00:00.25", "2024-05-01T12:00:01.750", "2024-05-01T12:00:00.250000"),
        ("2024-05-01 23:59:59.5", "2024-05-02 00:00:01", "2024-05-01T23:59:59.500000"),
        ("2024-05-01T12:00:00.250Z", "2024-05-01T12:00:01.75Z", "2024-05-01T12:00:00.250000+00:00"),
        ("2024-05-01T12:00:00+02:00", "2024-05-01T12:00:01.5+02:00", "2024-05-01T12:00:00+02:00"),
    ],
)
def test_iso_time(tmp_path: Path, first: str, second: str, start: str) -> None:
    (stream,) = streams(write(tmp_path, f"when,x [g]\n{first},1\n{second},1\n"))
    time = values(stream)[1]
    assert time is not None and time.tolist() == [0, 1.5]
    assert stream.start == start


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ("2024-05-01T12:00:01", "zone missing, where the first stamp has +02:00"),
        ("2024-05-01T12:00:01Z", "zone Z"),
        ("2024-05-01T12:00:01+01:00", "zone +01:00"),
        ("2024-13-01T12:00:01+02:00", "is not a date and time"),
        ("12:00 +02:00", "is not a date and time"),
    ],
)
def test_iso_time_that_does_not_fit(tmp_path: Path, second: str, said: str) -> None:
    rows = ["2024-05-01T12:00:00+02:00,1"] * 3
    said_so = refusal(write(tmp_path, "when,x [g]\n" + "\n".join([*rows, f"{second},1"])), time="when:iso")
    assert "line 5, column 1 'when'" in said_so and said in said_so


def test_no_time_needs_a_rate(tmp_path: Path) -> None:
    path = write(tmp_path, "acc_x [g]\n1\n2\n")
    assert "--rate HZ" in error(path)
    assert "--rate HZ" in error(path, time="none")
    (stream,) = streams(path, time="none", rate_hz=12.5)
    assert values(stream)[1] is None and stream.rate_hz == 12.5


# Guesses


@pytest.mark.parametrize(
    ("scale", "unit", "step", "time_unit"),
    [(1, "g", 20, "ms"), (9.81, "m/s2", 0.02, "s"), (1000, "mg", 20_000, "us"), (1, "g", 2e7, "ns")],
)
def test_a_guess_is_shown_with_the_options_that_state_it(
    tmp_path: Path, scale: float, unit: str, step: float, time_unit: str
) -> None:
    rows = [f"{i * step},{0.1 * scale},{0.1 * scale},{scale},{0.9 * scale},30,walk" for i in range(50)]
    path = write(tmp_path, "timestamp,Acc X,Acc Y,acc_z,ay,age,activity\n" + "\n".join(rows))
    said = error(path)
    assert f"time = column 1 'timestamp' in {time_unit}" in said
    assert "not channels: column 6 'age', column 7 'activity'" in said
    assert f"Acc_X = column 2 'Acc X' in {unit}" in said and f"acc_z = column 4 'acc_z' in {unit}" in said
    # One axis alone says nothing, as its size depends on how it is held.
    assert "must be stated: the unit of ay" in said and "--yes" not in said
    assert "--yes" in error(path, columns="acc_x=2,acc_y=3,acc_z=4")


def guessable(folder: Path) -> Path:
    rows = [f"{i * 20},0.1,-0.2,0.97,{i},0.1,99,walk" for i in range(50)]
    header = "time,acc_x,acc_y,acc_z,id,gyr_x,gyr_y,act\n"
    return write(folder, header + "\n".join(rows))


def test_a_guess_must_be_confirmed_and_is_noted(tmp_path: Path) -> None:
    path = guessable(tmp_path)
    said = error(path, label="act")
    flags = (
        "--time 1:ms --columns acc_x=2,acc_y=3,acc_z=4,gyr_x=6,gyr_y=7 "
        "--units acc_x=g,acc_y=g,acc_z=g,gyr_x=deg/s,gyr_y=deg/s"
    )
    assert f"say --yes to take this, or state it: {flags}" in said
    (guessed,) = streams(path, label="act", assume_yes=True)
    assert guessed.notes == (f"guessed: {flags}",)
    words = flags.split()
    (stated,) = streams(path, label="act", time=words[1], columns=words[3], units=words[5])
    assert stated.notes == ()
    for first, second in zip(values(guessed), values(stated), strict=True):
        np.testing.assert_array_equal(first, second)


def test_what_is_stated_is_not_guessed(tmp_path: Path) -> None:
    path = guessable(tmp_path)
    said = error(path, time="1:s", columns="a=2,b=3,c=4")
    assert "--time" not in said.split("What to do")[1]
    (stream,) = streams(path, time="time:s", columns="a=acc_x,b=3", units="m/s^2")
    assert stream.channels == ("a", "b") and stream.units == ("m/s2", "m/s2")


def test_no_header_is_said(tmp_path: Path) -> None:
    said = error(write(tmp_path, "0,1,2\n1,2,3\n"), assume_yes=True)
    assert "no header" in said and "--columns channel=column" in said


def test_a_bad_cell_does_not_hide_its_column(tmp_path: Path) -> None:
    path = write(tmp_path, "t_s,acc_x [g],acc_y [g]\n0,1,1\n1,x,1\n2,1,1\n")
    assert "line 3, column 2" in refusal(path)


def test_stated_units_win_over_the_header_and_that_is_noted(tmp_path: Path) -> None:
    path = write(tmp_path, "acc_x [mg],acc_y [g]\n1,1\n")
    (stream,) = streams(path, rate_hz=1.0, units="g")
    assert values(stream)[0].tolist() == [[1, 1]]
    assert stream.notes == ("acc_x: read in g as stated; the header says mg",)


def test_names_that_repeat_are_numbered(tmp_path: Path) -> None:
    path = write(tmp_path, "x [g],x [g],2 [g]\n1,2,3\n")
    assert "x_1 = column 1 'x [g]'" in error(path, rate_hz=1.0)
    assert "2 times" in error(path, rate_hz=1.0, columns="a=x [g]")
    (stream,) = streams(path, rate_hz=1.0, columns="a=2")
    assert values(stream)[0].tolist() == [[2]]
    numbered = write(tmp_path, "2,1,acc_x\n1,5,9\n1,5,9\n")
    assert "--columns acc_x=acc_x" in error(numbered, rate_hz=1.0)
    (stream,) = streams(numbered, rate_hz=1.0, columns="a=1", units="g")
    assert values(stream)[0].tolist() == [[5], [5]]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"time": "t"}, "COLUMN:UNIT"),
        ({"time": "t:min"}, "COLUMN:UNIT"),
        ({"time": "u:s"}, "no such column"),
        ({"time": "9:s"}, "no such column"),
        ({"columns": "x"}, "channel=column"),
        ({"columns": "x=acc_x,x=t"}, "named twice"),
        ({"columns": "x=0"}, "no such column"),
        ({"units": "stone"}, "'stone' is not known"),
        ({"units": "acc_x=G"}, "'G' is not known"),
        ({"units": "acc_y=g"}, "no channel 'acc_y'"),
        ({"label": "z"}, "--label z"),
        ({"subject": "z"}, "--subject z"),
        ({"rate_hz": float("nan")}, "--rate nan"),
        ({"rate_hz": 0.0}, "--rate 0.0"),
    ],
)
def test_options_that_do_not_fit(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    text = error(write(tmp_path, "t,acc_x\n0,1\n1,1\n"), assume_yes=True, **options)
    assert said in text and "Traceback" not in text


def test_a_path_is_needed_and_must_be(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        open_csv(None, ReadOptions())
    with pytest.raises(BadInputError, match=r"no file named \*\.parquet or \*\.pq"):
        open_parquet(tmp_path, ReadOptions())


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingError, match="pyarrow"):
        open_csv(write(tmp_path, "t,x\n0,1\n"), ReadOptions())


def test_a_bad_file_does_not_stop_the_others(tmp_path: Path) -> None:
    write(tmp_path, "acc_x [g]\n1\n", "a.csv")
    write(tmp_path, "acc_x [g]\n?\n", "b.CSV")
    write(tmp_path, "not looked at", "readme.txt")
    opened = open_csv(tmp_path, ReadOptions(rate_hz=1.0, columns="x=1"))
    assert [stream.source for stream in opened.streams] == [str(tmp_path / "a.csv")]
    assert [item.file for item in opened.refused] == [str(tmp_path / "b.CSV")]


# Subjects and labels


def rows_of(subjects: str) -> str:
    return "t_s,acc_x [g],who\n" + "".join(f"{i},{i},{who}\n" for i, who in enumerate(subjects))


@settings(max_examples=60, deadline=None)
@given(
    subjects=st.text("ab\N{GREEK SMALL LETTER ALPHA}", min_size=1, max_size=40),
    block=st.integers(30, 200),
    group=st.integers(1, 25),
    chunk=st.integers(1, 25),
)
@example(subjects="a" * 13 + "b" * 7, block=30, group=5, chunk=7)  # blocks differ when read from row 8
def test_subjects_are_never_mixed(
    tmp_path_factory: pytest.TempPathFactory, subjects: str, block: int, group: int, chunk: int
) -> None:
    folder = tmp_path_factory.mktemp("s")
    paths = [write(folder, rows_of(subjects)), folder / "a.parquet"]
    count = len(subjects)
    columns = {"t_s": range(count), "acc_x [g]": np.arange(count, dtype=np.float32), "who": list(subjects)}
    parquet.write_table(pa.table(columns), paths[1], row_group_size=group)
    runs = [
        (who, [row for row, _ in pairs])
        for who, pairs in itertools.groupby(enumerate(subjects), lambda pair: pair[1])
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_table_csv, "BLOCK_BYTES", block)
        patch.setattr(_table_parquet, "CHUNK_SAMPLES", chunk)
        for path in paths:
            seen: dict[str, int] = {}
            for stream, (who, rows) in zip(streams(path, subject="who"), runs, strict=True):
                seen[who] = seen.get(who, 0) + 1
                samples, time, _ = values(stream)
                assert (stream.subject, stream.session) == (who, str(seen[who]))
                assert samples[:, 0].tolist() == rows
                assert time is not None and time.tolist() == [row - rows[0] for row in rows]


def test_sources_of_several_subjects_name_the_row(tmp_path: Path) -> None:
    found = streams(write(tmp_path, rows_of("aab")), subject="3")
    assert [stream.source for stream in found] == [f"{tmp_path}/rec.csv#line2", f"{tmp_path}/rec.csv#line4"]


def test_a_row_without_subject_is_refused(tmp_path: Path) -> None:
    said = refusal(write(tmp_path, rows_of(["a", "", "NA", "x" * 300])), subject="who")
    assert "line 5, column 3 'who': a text of 300" in said
    said = refusal(write(tmp_path, rows_of(["a", "", "NA"])), subject="who")
    assert "line 3, column 3 'who': no subject" in said and "line 4" in said


def test_a_subject_that_changes_all_the_time_is_refused(tmp_path: Path) -> None:
    assert "changes more than 10,000 times" in refusal(write(tmp_path, rows_of("ab" * 6000)), subject="who")


def test_labels(tmp_path: Path) -> None:
    text = "acc_x [g],act\n1,1\n1,\n1,NaN\n1, sit up \n"
    (stream,) = streams(write(tmp_path, text), rate_hz=1.0, label="act")
    assert values(stream)[2] == ["1", "", "", "sit up"]
    long = write(tmp_path, "acc_x [g],act\n1," + "x" * 201 + "\n")
    assert "a text of 201 letters" in refusal(long, rate_hz=1.0, label="act")


# Parquet


def write_parquet(folder: Path, columns: dict[str, Any], **how: Any) -> Path:
    path = folder / "rec.parquet"
    parquet.write_table(pa.table(columns), path, **how)
    return path


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_parquet_types(tmp_path: Path, unit: str, zone: str | None) -> None:
    moments = [datetime(2024, 5, 1, 12, 0, second, tzinfo=UTC) for second in (0, 2, 5)]
    columns = {
        "when": pa.array([m.replace(tzinfo=None) for m in moments]).cast(pa.timestamp(unit, zone)),
        "acc_x [mg]": pa.array([1000, None, 500], pa.int16()),
        "acc_y [g]": pa.array([1.5, 2.5, float("nan")], pa.float32()),
        "acc_z [g]": pa.array(["1", "2", ""]),
        "act": pa.array(["sit", None, "run"]).dictionary_encode(),
        "more": pa.array([[1], [2], [3]]),
        "flag": pa.array([True, False, None]),
    }
    options = {"label": "act", "columns": "x=acc_x [mg],y=acc_y [g],z=acc_z [g]"}
    (stream,) = streams(write_parquet(tmp_path, columns), **options)
    samples, time, labels = values(stream)
    np.testing.assert_array_equal(samples, [[1, 1.5, 1], [np.nan, 2.5, 2], [0.5, np.nan, np.nan]])
    assert time is not None and time.tolist() == [0, 2, 5]
    assert labels == ["sit", "", "run"]
    assert stream.start == ("2024-05-01T12:00:00+00:00" if zone else "2024-05-01T12:00:00")


def test_parquet_numbers_as_labels_and_large_integers_as_time(tmp_path: Path) -> None:
    first = 1_700_000_000_000_000_001
    columns = {
        "t": [first, first + 1],
        "x": [1.0, 2.0],
        "act": [3.0, float("nan")],
        "n": [2**63, 2**63 + 2**12],
    }
    columns["n"] = pa.array(columns["n"], pa.uint64())
    path = write_parquet(tmp_path, columns)
    (stream,) = streams(path, time="t:ns", columns="x=x", units="g", label="act")
    assert values(stream)[1].tolist() == [0, 1e-9] and values(stream)[2] == ["3", ""]
    (stream,) = streams(path, time="n:us", columns="x=x", units="g")
    assert values(stream)[1].tolist() == [0, 0.004096]


def test_parquet_row_groups_and_blocks(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=150_000)
    path = write_parquet(tmp_path, {"x [g]": x}, row_group_size=70_001)
    (stream,) = streams(path, rate_hz=50.0)
    np.testing.assert_array_equal(values(stream)[0][:, 0], x.astype(np.float32))


@pytest.mark.parametrize(
    ("columns", "options", "said"),
    [
        ({"t": [1], "x": pa.array([[1]])}, {}, "the column holds list"),
        ({"t": [1, None], "x": [1.0, 2.0]}, {}, "row 2, column 1 't': no time stamp"),
        ({"t": [1, 2], "x": [1.0, float("inf")]}, {}, "row 2, column 2 'x': inf is not a finite number"),
        ({"t": [1, 2], "x": ["1", "b"]}, {}, "row 2, column 2 'x': 'b' is not a number"),
        ({"t": [1], "x": [1]}, {"time": "t:iso"}, "expected dates and times"),
        ({"t": pa.array([1], pa.timestamp("s")), "x": [1]}, {"time": "t:ms"}, "its unit is iso"),
        ({"t": pa.array([2**40], pa.timestamp("s")), "x": [1]}, {"time": "t:iso"}, "is not a date"),
        ({"t": [0.0, 1e300], "x": [1, 1]}, {}, "1e+300 s from the first"),
        ({"t": pa.array([], pa.int64()), "x": pa.array([], pa.int64())}, {}, "no row"),
    ],
)
def test_parquet_that_does_not_fit(
    tmp_path: Path, columns: dict[str, Any], options: dict[str, str], said: str
) -> None:
    path = write_parquet(tmp_path, columns)
    assert said in refusal(path, **{"time": "t:s", "columns": "x=2", "units": "g", **options})


def test_no_parquet(tmp_path: Path) -> None:
    whole = write_parquet(tmp_path, {"x [g]": [1.0] * 1000}).read_bytes()
    for content, said in (
        (b"", "not a Parquet file"),
        (b"PAR1", "cut off"),
        (b"PAR1PAR1", "cut off"),
        (whole[:-1], "cut off"),
        (whole[:-8] + b"\xff\xff\xff\x7fPAR1", "cut off"),
        (b"PARE" + whole[4:], "encrypted"),
        (whole[:4] + b"\0" * 20 + whole[24:], "damaged"),
    ):
        assert said in refusal(write(tmp_path, content, "bad.parquet"), rate_hz=1.0)
    doubled = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["x", "x"])
    parquet.write_table(doubled, tmp_path / "bad.parquet")
    assert "repeat" in refusal(tmp_path / "bad.parquet", rate_hz=1.0)


def test_parquet_that_claims_too_many_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_table_parquet, "_ROWS_PER_BYTE", 100)
    path = tmp_path / "rec.parquet"
    with parquet.ParquetWriter(path, pa.schema([("x [g]", pa.int8())])) as writer:
        for _ in range(3):
            writer.write_table(pa.table({"x [g]": np.zeros(4_000_000, np.int8)}))
    assert "claims 12,000,000 rows" in refusal(path, rate_hz=1.0)


# Size and damage

MEMORY = """
import re, sys
from pathlib import Path
from topokd_edge.data.importers import table
from topokd_edge.data.stream import ReadOptions
import pyarrow.compute, pyarrow.csv, pyarrow.parquet
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024
before, rows = peak(), 0
for name in sys.argv[1:]:
    reader = table.open_parquet if name.endswith("parquet") else table.open_csv
    for stream in reader(Path(name), ReadOptions(label="act", subject="who")).streams:
        rows += sum(len(chunk.samples) for chunk in stream.chunks())
print(rows, peak() - before)
"""


@pytest.mark.parametrize("rows", [200_000, pytest.param(2_000_000, marks=pytest.mark.slow)])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, rows: int) -> None:
    line = b"%d,0.125,-0.25,1.0,walking,S1\n"
    header = b"t [ms],acc_x [g],acc_y [g],acc_z [g],act,who\n"
    big = write(tmp_path, header + b"".join([line % (i * 20) for i in range(rows)]))
    x = np.random.default_rng(0).normal(size=rows)
    columns = {"t [ms]": np.arange(rows) * 20, "x [g]": x, "act": ["walking"] * rows, "who": ["S1"] * rows}
    packed = write_parquet(tmp_path, columns, row_group_size=rows)
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(big), str(packed)], capture_output=True, text=True, check=True
    )
    read, grown = done.stdout.split()
    assert int(read) == 2 * rows
    assert float(grown) < 110, "MB"


def mutant(generator: random.Random, data: bytes) -> bytes:
    """Damage a file: bytes changed, put in, taken out, repeated, or cut off."""
    found = bytearray(data)
    if generator.random() < 0.12:
        del found[generator.randrange(len(found)) :]
    for _ in range(generator.choice([1, 1, 1, 2, 4, 16])):
        if not found:
            break
        at = generator.randrange(len(found))
        if generator.random() < 0.3:
            at = max(len(found) - 1 - generator.randrange(800), 0)
        kind = generator.random()
        if kind < 0.4:
            found[at] = generator.choice(b',;\t"\n\r\0 \xff\x7f\x80.-+eE#:TZ\xb2NaInf0123456789=[]()')
        elif kind < 0.7:
            found[at] ^= 1 << generator.randrange(8)
        elif kind < 0.85:
            del found[at : at + generator.randrange(1, 30)]
        else:
            found[at:at] = found[generator.randrange(len(found)) :][: generator.randrange(200)]
    return bytes(found)


def csv_seeds() -> list[tuple[bytes, ReadOptions]]:
    full = STATED + "".join(f'{20 * i},{i / 100},{-i / 7:.5f},"a, {i % 3}",S{i // 30}\n' for i in range(90))
    german = "\ufeffsep=;\r\nt;ax;ay\r\n" + "".join(
        f"2024-05-01T12:00:{i:02d}.{i:03d}+02:00;{i / 10};1,5\r\n".replace("0;", "0,1;") for i in range(60)
    )
    bare = "".join(f"{1_700_000_000_000_000_000 + i * 10**7}\t{i}.5\tNaN\n" for i in range(60))
    stated = ReadOptions(label="act", subject="who")
    guess = ReadOptions(assume_yes=True, rate_hz=50.0)
    return [
        (full.encode(), stated),
        (full.encode(), guess),
        (gzip.compress(full.encode()), stated),
        (german.encode(), ReadOptions(time="1:iso", columns="a=2,b=3", units="g")),
        (german.encode(), guess),
        (bare.encode(), ReadOptions(time="1:ns", columns="a=2,b=3", units="mg")),
    ]


def parquet_seeds(folder: Path) -> list[tuple[bytes, ReadOptions]]:
    generator = np.random.default_rng(0)
    start = datetime(2024, 5, 1)
    found = []
    for rows, how in itertools.product(
        (6, 300),
        (
            {"compression": "snappy"},
            {"compression": "none", "use_dictionary": False},
            {"compression": "zstd", "data_page_version": "2.0"},
            {"compression": "gzip", "row_group_size": 4},
            {"compression": "lz4", "write_page_checksum": True},
            {
                "use_dictionary": False,
                "column_encoding": {"x": "BYTE_STREAM_SPLIT", "act": "DELTA_BYTE_ARRAY"},
            },
        ),
    ):
        columns = {
            "when": [start + timedelta(milliseconds=20 * i) for i in range(rows)],
            "x": generator.normal(size=rows),
            "y": generator.normal(size=rows).astype(np.float32),
            "act": ["walk", "sit"] * (rows // 2),
            "who": pa.array(["a"] * (rows // 2) + ["b"] * (rows // 2)).dictionary_encode(),
        }
        options = ReadOptions(time="when:iso", columns="x=x,y=y", units="g", label="act", subject="who")
        found.append((write_parquet(folder, columns, **how).read_bytes(), options))
    return found


def damaged_files_are_read_or_refused(folder: Path, kind: str, count: int) -> None:
    generator = random.Random(count)
    seeds = csv_seeds() if kind == "csv" else parquet_seeds(folder)
    read = refused = 0
    for number in range(count):
        data, options = generator.choice(seeds)
        path = write(folder, mutant(generator, data), f"m{number}.{kind}")
        try:
            opened = (open_csv if kind == "csv" else open_parquet)(path, options)
            refused += bool(opened.refused)
            for stream in opened.streams:
                for chunk in stream.chunks():
                    assert chunk.samples.shape == (len(chunk.samples), len(stream.channels))
                    assert not np.isinf(chunk.samples).any()
                    assert chunk.time is None or np.isfinite(chunk.time).all()
                    read += 1
        except TopokdError:
            refused += 1
        path.unlink()
    assert read > count / 20 and refused > count / 20


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_damaged_files(tmp_path: Path, kind: str) -> None:
    damaged_files_are_read_or_refused(tmp_path, kind, 150)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_many_damaged_files(tmp_path: Path, kind: str) -> None:
    damaged_files_are_read_or_refused(tmp_path, kind, 4000)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 2 << 20, "KiB"


@pytest.mark.parametrize(
    "text",
    [
        '"' * 60_000 + "\n",
        "a" + " " * 60_000 + "b\n1\n",
        "acc_" * 15_000 + "q\n1\n",
        "(" * 60_000 + "\n1\n",
        "t,x\n" + "2024-05-01T" * 5_000 + ",1\n",
        "1" * 60_000 + ",1\n",
        ("," * 60_000 + "\n") * 2,
        "t,x\n0,1\n" + "\n" * 5_000_000,
    ],
    ids=["quotes", "blanks", "words", "brackets", "dates", "digits", "cells", "lines"],
)
def test_hostile_texts_take_no_time(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, text)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    for options in (
        ReadOptions(assume_yes=True, rate_hz=1.0),
        ReadOptions(time="1:iso", columns="x=1", units="g"),
    ):
        try:
            for stream in open_csv(path, options).streams:
                list(stream.chunks())
        except TopokdError as told:
            assert len(str(told)) < 10_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_utime - before < 5
