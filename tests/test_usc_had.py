"""USC-HAD MATLAB files, against the set's own files and the same recordings in the neutral form."""

from __future__ import annotations

import io
import pickle
import resource
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from made_recordings import shared_data

from topokd_edge.data.archive import unpack
from topokd_edge.data.importers import usc_had
from topokd_edge.data.importers._mat5 import read_mat5
from topokd_edge.data.stream import Chunk, ReadOptions, Stream
from topokd_edge.errors import UsageError

READINGS = np.random.default_rng(0).normal(0, 1, (300, 6))


def made(path: Path, *, packed: bool = True, **changes: Any) -> Path:
    """A file like those of the set; a change to None leaves a variable out."""
    fields: dict[str, Any] = {
        "title": "made",
        "subject": "3",
        "age": "30",
        "height": "170cm",
        "weight": "60kg",
        "activity": "run",
        "activity_number": "6",
        "trial": "2",
        "sensor_location": "front-right-hip",
        "sensor_readings": READINGS,
        **changes,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, {k: v for k, v in fields.items() if v is not None}, do_compression=packed)
    return path


def place(folder: Path) -> Path:
    return folder / "Subject3" / "a6t2.mat"


def chunks_of(stream: Stream) -> list[Chunk]:
    return list(pickle.loads(pickle.dumps(stream)).chunks())


def compare_with_scipy(content: bytes) -> None:
    """Every variable of a file is what another reader says."""
    other = {k: v for k, v in scipy.io.loadmat(io.BytesIO(content)).items() if not k.startswith("__")}
    found = read_mat5(content, set(other))
    assert set(found) == set(other)
    for name, value in other.items():
        if value.dtype.kind == "U":
            assert found[name] == value.item()
        else:
            np.testing.assert_array_equal(found[name], value)


def reason(path: Path) -> str:
    (refused,) = usc_had.open_streams(path, ReadOptions()).refused
    assert refused.reason.startswith(f"{path}: ")
    return refused.reason


class TestRealFiles:
    def test_equal_the_neutral_form(self, tmp_path: Path) -> None:
        """The neutral form has the accelerometer's own counts and steps of 0.05 deg/s."""
        with np.load(shared_data("usc_had/usc_had_100hz.npz")) as data:
            neutral = {key: data[key] for key in data.files}
        truth = {tuple(row[:3]): slice(*row[3:]) for row in neutral["recordings"].tolist()}
        folder = unpack(shared_data("usc_had/raw_mat_sample.zip"), tmp_path / "set")
        opened = usc_had.open_streams(folder, ReadOptions())
        assert not opened.refused and len(opened.streams) == 25
        assert tuple(neutral["class_names"].tolist()) == usc_had.ACTIVITIES
        for stream in opened.streams:
            assert stream.channels == tuple(neutral["channels"].tolist())
            assert stream.units == tuple(neutral["units"].tolist())
            assert stream.rate_hz == neutral["fs"]
            activity = usc_had.ACTIVITIES.index(str(stream.label))
            trial = int(stream.session.removeprefix("trial-"))
            counts = neutral["counts"][:, truth[int(stream.subject), activity, trial]]
            expected = counts.T * neutral["scale"] + neutral["offset"]
            (chunk,) = chunks_of(stream)
            assert chunk.samples.shape == expected.shape
            np.testing.assert_allclose(chunk.samples[:, :3], expected[:, :3], atol=2e-6)
            np.testing.assert_allclose(chunk.samples[:, 3:], expected[:, 3:], atol=0.0251)

    def test_equal_what_scipy_reads(self, tmp_path: Path) -> None:
        folder = unpack(shared_data("usc_had/raw_mat_sample.zip"), tmp_path / "set")
        for path in sorted(folder.rglob("*.mat")):
            compare_with_scipy(path.read_bytes())

    def test_its_known_oddities(self, tmp_path: Path) -> None:
        folder = unpack(shared_data("usc_had/raw_mat_sample.zip"), tmp_path / "set")
        streams = {stream.source: stream for stream in usc_had.open_streams(folder, ReadOptions()).streams}
        (note,) = streams["Subject14/a3t2.mat"].notes
        assert note == "a3t2.mat: its path says activity 3, the file 2; the path is taken"
        assert streams["Subject14/a3t2.mat"].label == "walking_right"
        assert streams["Subject13/a11t4.mat"].label == "elevator_up"
        assert sum(bool(stream.notes) for stream in streams.values()) == 1
        about = streams["Subject1/a1t1.mat"].about
        assert about == {"position": "front-right-hip", "age": "27", "height": "164cm", "weight": "43kg"}


class TestMadeFiles:
    @pytest.mark.parametrize("packed", [False, True])
    def test_readings_and_what_the_path_says(self, tmp_path: Path, packed: bool) -> None:
        made(place(tmp_path), packed=packed)
        (stream,) = usc_had.open_streams(tmp_path, ReadOptions()).streams
        assert (stream.subject, stream.session, stream.label) == ("3", "trial-2", "running_forward")
        assert stream.notes == ()
        (chunk,) = chunks_of(stream)
        np.testing.assert_array_equal(chunk.samples, READINGS.astype(np.float32))

    def test_another_subject_or_activity_inside_is_noted(self, tmp_path: Path) -> None:
        made(place(tmp_path), subject="4", activity_number="7")
        (stream,) = usc_had.open_streams(place(tmp_path), ReadOptions()).streams
        assert (stream.subject, stream.label) == ("3", "running_forward")
        assert [note.partition(": ")[2] for note in stream.notes] == [
            "its path says subject 3, the file 4; the path is taken",
            "its path says activity 6, the file 7; the path is taken",
        ]

    def test_a_text_of_several_lines_is_left_out(self, tmp_path: Path) -> None:
        made(place(tmp_path), subject=np.array(["12", "34"]))
        (stream,) = usc_had.open_streams(tmp_path, ReadOptions()).streams
        assert stream.notes == ()

    def test_missing_texts_are_no_fault(self, tmp_path: Path) -> None:
        made(place(tmp_path), subject=None, activity_number=None, age=None, height=7.0, weight="\n\x1b")
        (stream,) = usc_had.open_streams(tmp_path, ReadOptions()).streams
        assert stream.notes == () and stream.about == {"position": "front-right-hip"}

    def test_wrong_places_are_refused_singly(self, tmp_path: Path) -> None:
        for name in ("Subject3/a6t2.mat", "Subject3/a13t1.mat", "Subject3/a0t1.mat", "other/a1t1.mat"):
            made(tmp_path / name)
        opened = usc_had.open_streams(tmp_path, ReadOptions())
        assert [stream.source for stream in opened.streams] == ["Subject3/a6t2.mat"]
        assert len(opened.refused) == 3
        assert all("expected a place like Subject1/a1t1.mat" in item.reason for item in opened.refused)

    def test_without_a_path(self) -> None:
        with pytest.raises(UsageError, match="needs a path"):
            usc_had.open_streams(None, ReadOptions())

    @pytest.mark.parametrize(
        "readings",
        [
            None,
            READINGS[:, :5],
            READINGS[:0],
            READINGS[None],
            READINGS[:, :, None],
            READINGS * 1j,
            "text",
            {"a": READINGS},
            np.array([READINGS, "b"], dtype=object),
            READINGS > 0,
        ],
        ids=["absent", "five", "empty", "3-d", "deep", "complex", "text", "struct", "cell", "logical"],
    )
    def test_readings_of_another_kind(self, tmp_path: Path, readings: Any) -> None:
        assert "sensor_readings: " in reason(made(place(tmp_path), sensor_readings=readings))

    @pytest.mark.parametrize("value", [np.nan, np.inf, 1e39])
    def test_readings_that_are_no_finite_number(self, tmp_path: Path, value: float) -> None:
        readings = READINGS.copy()
        readings[[70, 90], 4] = value
        found = reason(made(place(tmp_path), sensor_readings=readings))
        assert "sensor_readings row 71: no finite number (2 such rows)" in found

    def test_integers_are_numbers(self, tmp_path: Path) -> None:
        made(place(tmp_path), sensor_readings=np.arange(12.0).reshape(2, 6))
        (stream,) = usc_had.open_streams(tmp_path, ReadOptions()).streams
        np.testing.assert_array_equal(chunks_of(stream)[0].samples, np.arange(12).reshape(2, 6))


def element(kind: int, body: bytes) -> bytes:
    return struct.pack("<II", kind, len(body)) + body


def matrix(name: bytes, kind: int, inner: bytes, dims: tuple[int, int] = (1, 1)) -> bytes:
    """A MATLAB 5 array of class `kind` by the format's description."""
    flags = element(6, struct.pack("<II", kind, 0))
    padded = name + bytes(-len(name) % 8)
    named = struct.pack("<II", 1, len(name)) + padded
    return element(14, flags + element(5, struct.pack("<ii", *dims)) + named + inner)


HEADER = b"MATLAB 5.0".ljust(124) + b"\x00\x01IM"


class TestHostile:
    def test_a_file_that_is_no_matlab_5_file(self, tmp_path: Path) -> None:
        path = place(tmp_path)
        path.parent.mkdir()
        for content in (b"", b"x" * 500, b"\x89HDF\r\n\x1a\n" + bytes(500)):
            path.write_bytes(content)
            assert "not a MATLAB 5 file" in reason(path)

    def test_a_cut_file(self, tmp_path: Path) -> None:
        path = made(place(tmp_path))
        path.write_bytes(path.read_bytes()[:-9])
        assert "an element of" in reason(path)

    def test_a_file_that_is_too_large(self, tmp_path: Path) -> None:
        path = place(tmp_path)
        path.parent.mkdir()
        with path.open("wb") as stream:
            stream.truncate(usc_had.MAX_BYTES + 1)
        assert "larger than 16,777,216 bytes" in reason(path)

    def test_a_bomb(self, tmp_path: Path) -> None:
        path = place(tmp_path)
        path.parent.mkdir()
        path.write_bytes(HEADER + element(15, zlib.compress(bytes(200 << 20), 1)))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert "larger than 67,108,864 bytes when unpacked" in reason(path)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 << 10

    def test_a_bomb_in_parts(self, tmp_path: Path) -> None:
        path = place(tmp_path)
        path.parent.mkdir()
        part = element(15, zlib.compress(matrix(b"x", 6, element(9, bytes(40 << 20))), 1))
        path.write_bytes(HEADER + part)
        assert "sensor_readings: no real numbers" in reason(path)
        path.write_bytes(HEADER + part + part)
        assert "larger than 67,108,864 bytes when unpacked" in reason(path)

    @pytest.mark.parametrize("cut", [1, 5, 50])
    def test_packed_content_that_ends_too_early(self, tmp_path: Path, cut: int) -> None:
        path = place(tmp_path)
        path.parent.mkdir()
        noise = np.random.default_rng(0).bytes(480)
        whole = zlib.compress(matrix(b"sensor_readings", 6, element(9, noise), (10, 6)))
        path.write_bytes(HEADER + element(15, whole[:-cut]))
        assert "ends too early" in reason(path)

    def test_a_short_element_that_is_too_long(self) -> None:
        with pytest.raises(ValueError, match="a short element of 5 bytes"):
            read_mat5(HEADER + struct.pack("<HH", 1, 5) + bytes(12), {"x"})

    @pytest.mark.parametrize("dims", [(1 << 30, 6), (-5, 6), (0x7FFFFFFF, 0x7FFFFFFF)])
    def test_a_size_beyond_the_file(self, tmp_path: Path, dims: tuple[int, int]) -> None:
        path = place(tmp_path)
        path.parent.mkdir()
        path.write_bytes(HEADER + matrix(b"sensor_readings", 6, element(9, bytes(96)), dims))
        assert reason(path)

    def test_cells_in_cells_without_end(self, tmp_path: Path) -> None:
        path = place(tmp_path)
        path.parent.mkdir()
        inner, start = b"", matrix(b"", 1, b"")[8:]
        for _ in range(20_000):
            inner = struct.pack("<II", 14, len(start) + len(inner)) + start + inner
        for name in (b"sensor_readings", b"subject", b"title"):
            path.write_bytes(HEADER + matrix(name, 1, inner))
            assert "sensor_readings: no real numbers" in reason(path)

    def test_a_type_of_number_that_does_not_exist(self, tmp_path: Path) -> None:
        """Such a file ends the process inside scipy 1.17.1."""
        path = place(tmp_path)
        path.parent.mkdir()
        path.write_bytes(HEADER + matrix(b"sensor_readings", 6, element(99, bytes(96)), (2, 6)))
        assert "sensor_readings: numbers of the unknown type 99" in reason(path)


class TestMatlab:
    def test_made_files_equal_what_scipy_reads(self) -> None:
        compare_with_scipy(HEADER + matrix(b"x", 6, element(9, struct.pack("<2d", 1, 2)), (2, 1)))
        kinds = ("f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8")
        variables: dict[str, Any] = {
            kind: np.arange(24).reshape(shape).astype(kind)
            for kind, shape in zip(kinds, [(4, 6), (2, 3, 4), (24, 1), (1, 24), (6, 4)] * 2, strict=True)
        }
        variables |= {"tiny": np.array([[1, 2]], "u1"), "none": np.empty((0, 6)), "text": "5"}
        for packed in (False, True):
            out = io.BytesIO()
            scipy.io.savemat(out, variables, do_compression=packed)
            compare_with_scipy(out.getvalue())

    def test_the_other_byte_order(self) -> None:
        body = struct.pack(">IIII", 6, 8, 6, 0) + struct.pack(">IIii", 5, 8, 1, 2)
        body += struct.pack(">HH", 1, 1) + b"x\0\0\0" + struct.pack(">IIdd", 9, 16, 1.5, -2)
        content = HEADER[:124] + b"\x01\x00MI" + struct.pack(">II", 14, len(body)) + body
        compare_with_scipy(content)
        np.testing.assert_array_equal(read_mat5(content, {"x"})["x"], [[1.5, -2]])


def fuzz(tmp_path: Path, mutants: int, seed: int) -> int:
    """Return how many damaged files were refused; the others must give finite rows of six."""
    contents = [made(place(tmp_path), packed=packed).read_bytes() for packed in (False, True)]
    path = place(tmp_path)
    random = np.random.default_rng(seed)
    count = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for index in range(mutants):
            mutant = bytearray(contents[index % 2])
            if random.random() < 0.1:
                del mutant[int(random.integers(len(mutant))) :]
            # The headers of the variables, small beside the readings, get most of the damage.
            tops = [len(mutant), max(1, len(mutant) - 300 * 48), 300]
            for _ in range(int(random.integers(1, 5))):
                if mutant:
                    top = tops[int(random.integers(3))]
                    mutant[int(random.integers(min(top, len(mutant))))] = int(random.integers(256))
            path.write_bytes(mutant)
            opened = usc_had.open_streams(path, ReadOptions())
            count += len(opened.refused)
            for stream in opened.streams:
                (chunk,) = chunks_of(stream)
                assert chunk.samples.shape[1] == 6 and np.isfinite(chunk.samples).all()
    return count


def test_damaged_anywhere(tmp_path: Path) -> None:
    assert fuzz(tmp_path, 200, seed=0) > 40


@pytest.mark.slow
def test_damaged_anywhere_many_times(tmp_path: Path) -> None:
    assert fuzz(tmp_path, 10_000, seed=1) > 2000
