"""DSADS text files, against the set's own files and the same recordings in the neutral form."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from made_recordings import shared_data

from topokd_edge.data.archive import unpack
from topokd_edge.data.importers import dsads
from topokd_edge.data.stream import Chunk, ReadOptions, Stream
from topokd_edge.errors import BadInputError, UsageError


def made_rows(seed: int, lines: int = dsads.SEGMENT) -> npt.NDArray[np.float64]:
    return np.round(np.random.default_rng(seed).normal(0, 5, (lines, 45)), 4)


def written(path: Path, rows: npt.NDArray[np.float64]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savetxt(path, rows, fmt="%.5g", delimiter=",")
    return path


def chunks_of(stream: Stream) -> list[Chunk]:
    return list(pickle.loads(pickle.dumps(stream)).chunks())


class TestRealFiles:
    def test_equal_the_neutral_form(self, tmp_path: Path) -> None:
        """The neutral form has 18 of the 45 channels, rounded to steps of 0.01 m/s2 and 0.002 rad/s."""
        with np.load(shared_data("dsads/dsads_3imu_25hz.npz")) as data:
            neutral = {key: data[key] for key in data.files}
        truth = {tuple(row[:2]): row[2] for row in neutral["recordings"].tolist()}
        folder = unpack(shared_data("dsads/raw_txt_sample.zip"), tmp_path / "set")
        opened = dsads.open_streams(folder, ReadOptions())
        assert not opened.refused and len(opened.streams) == 38
        assert tuple(neutral["class_names"].tolist()) == dsads.ACTIVITIES
        rows = [dsads.CHANNELS.index(name) for name in neutral["channels"].tolist()]
        assert [dsads.UNITS[row] for row in rows] == [u.replace("^", "") for u in neutral["units"].tolist()]
        for stream in opened.streams:
            assert stream.rate_hz == neutral["fs"]
            start = truth[int(stream.subject), dsads.ACTIVITIES.index(str(stream.label))]
            expected = (neutral["counts"][:, start : start + 125] * neutral["scale"][:, None]).T
            (chunk,) = chunks_of(stream)
            assert (np.abs(chunk.samples[:, rows] - expected) <= 0.501 * neutral["scale"] + 1e-5).all()

    def test_magnetometers_are_in_units_of_the_earths_field(self, tmp_path: Path) -> None:
        folder = unpack(shared_data("dsads/raw_txt_sample.zip"), tmp_path / "set")
        for stream in dsads.open_streams(folder, ReadOptions()).streams[:8]:
            samples = chunks_of(stream)[0].samples
            for place in ("torso", "left_arm", "left_leg"):
                first = stream.channels.index(f"{place}_mag_x")
                assert stream.units[first : first + 3] == ("1", "1", "1")
                assert 0.5 < np.median(np.linalg.norm(samples[:, first : first + 3], axis=1)) < 1.5


class TestMadeFiles:
    def test_segments_in_order_with_a_border_before_each(self, tmp_path: Path) -> None:
        for segment in (10, 2, 1, 60):
            written(tmp_path / "data" / "a05" / "p3" / f"s{segment:02}.txt", made_rows(segment))
        written(tmp_path / "data" / "a19" / "p3" / "s01.txt", made_rows(0))
        (stairs, ball) = dsads.open_streams(tmp_path, ReadOptions()).streams
        assert (stairs.subject, stairs.label, ball.label) == ("3", "ascending_stairs", "playing_basketball")
        assert stairs.source == "data/a05/p3"
        chunks = chunks_of(stairs)
        assert [chunk.borders for chunk in chunks] == [(0,)] * 4
        expected = np.concatenate([made_rows(segment) for segment in (1, 2, 10, 60)])
        np.testing.assert_allclose(
            np.concatenate([c.samples for c in chunks]), expected, rtol=1e-4, atol=1e-6
        )

    def test_channels(self) -> None:
        assert len(dsads.CHANNELS) == len(dsads.UNITS) == len(set(dsads.CHANNELS)) == 45
        assert dsads.CHANNELS[0] == "torso_acc_x" and dsads.CHANNELS[9] == "right_arm_acc_x"
        assert dsads.CHANNELS[18] == "left_arm_acc_x" and dsads.CHANNELS[44] == "left_leg_mag_z"
        assert dsads.UNITS[:9] == ("m/s2",) * 3 + ("rad/s",) * 3 + ("1",) * 3

    def test_one_file_alone(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        written(tmp_path / "a01" / "p2" / "s07.txt", made_rows(7))
        monkeypatch.chdir(tmp_path / "a01" / "p2")
        (stream,) = dsads.open_streams(Path("s07.txt"), ReadOptions()).streams
        assert (stream.subject, stream.label) == ("2", "sitting")
        assert len(chunks_of(stream)) == 1

    def test_files_at_the_wrong_place_or_of_something_else_are_refused_singly(self, tmp_path: Path) -> None:
        good = written(tmp_path / "a01" / "p1" / "s01.txt", made_rows(1))
        written(tmp_path / "a20" / "p1" / "s01.txt", made_rows(1))
        written(tmp_path / "elsewhere" / "s01.txt", made_rows(1))
        (good.parent / "s02.txt").write_text("a,b,c\n")
        opened = dsads.open_streams(tmp_path, ReadOptions())
        assert [stream.source for stream in opened.streams] == [f"{tmp_path.name}/a01/p1"]
        reasons = {Path(item.file).relative_to(tmp_path).as_posix(): item.reason for item in opened.refused}
        assert len(reasons) == 3
        assert "line 1: 3 values, expected 45" in reasons["a01/p1/s02.txt"]
        assert "expected a place like a01/p1/s01.txt" in reasons["a20/p1/s01.txt"]
        assert "expected a place like a01/p1/s01.txt" in reasons["elsewhere/s01.txt"]

    def test_without_a_path(self) -> None:
        with pytest.raises(UsageError, match="needs a folder"):
            dsads.open_streams(None, ReadOptions())

    @pytest.mark.parametrize(("lines", "found"), [(124, "124 lines"), (126, "more lines"), (1, "1 lines")])
    def test_a_segment_of_another_length(self, tmp_path: Path, lines: int, found: str) -> None:
        path = written(tmp_path / "a01" / "p1" / "s01.txt", made_rows(1, lines))
        (stream,) = dsads.open_streams(tmp_path, ReadOptions()).streams
        with pytest.raises(BadInputError, match=f"{path}: {found}, expected 125"):
            chunks_of(stream)

    @pytest.mark.parametrize("value", ["nan", "inf", "x", "", "1e39", "1 2"])
    def test_a_value_that_is_no_number(self, tmp_path: Path, value: str) -> None:
        path = written(tmp_path / "a01" / "p1" / "s01.txt", made_rows(1))
        lines = path.read_text().splitlines()
        lines[99] = ",".join([value, *lines[99].split(",")[1:]])
        path.write_text("\n".join(lines) + "\n")
        (stream,) = dsads.open_streams(tmp_path, ReadOptions()).streams
        with pytest.raises(BadInputError, match=r"s01\.txt: .*\n.*line 100: column 1: "):
            chunks_of(stream)


def fuzz(tmp_path: Path, mutants: int, seed: int) -> int:
    """Return how many damaged files were refused; the others must give 125 finite rows."""
    path = written(tmp_path / "a01" / "p1" / "s01.txt", made_rows(1))
    content = path.read_bytes()
    random = np.random.default_rng(seed)
    count = 0
    for _ in range(mutants):
        mutant = bytearray(content)
        if random.random() < 0.3:
            del mutant[int(random.integers(len(mutant))) :]
        for _ in range(int(random.integers(0, 4))):
            if mutant:
                mutant[int(random.integers(len(mutant)))] = int(random.integers(256))
        path.write_bytes(mutant)
        opened = dsads.open_streams(path, ReadOptions())
        count += len(opened.refused)
        for stream in opened.streams:
            try:
                (chunk,) = chunks_of(stream)
            except BadInputError:
                count += 1
            else:
                assert chunk.samples.shape == (125, 45) and np.isfinite(chunk.samples).all()
    return count


def test_damaged_anywhere(tmp_path: Path) -> None:
    assert fuzz(tmp_path, 100, seed=0) > 50


@pytest.mark.slow
def test_damaged_anywhere_many_times(tmp_path: Path) -> None:
    assert fuzz(tmp_path, 3000, seed=1) > 1000


def test_a_last_number_that_may_be_cut_off_is_not_taken(tmp_path: Path) -> None:
    path = written(tmp_path / "data" / "a05" / "p3" / "s01.txt", made_rows(1))
    path.write_bytes(path.read_bytes()[:-2])
    (stream,) = dsads.open_streams(tmp_path, ReadOptions()).streams
    with pytest.raises(BadInputError, match=r"s01.txt(.|\n)*line 125: the file ends"):
        list(stream.chunks())
