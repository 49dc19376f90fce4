"""Axivity and ActiGraph files: made ones whose content is known, real ones, and damaged ones."""

from __future__ import annotations

import pickle
import struct
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from made_actfast import INFO, START, activity, cwa, gt3x, parameters, record, run, sector, still
from made_recordings import shared_data

from topokd_edge.data.importers import actfast_process, actigraph, axivity
from topokd_edge.data.stream import Chunk, Opened, ReadOptions
from topokd_edge.errors import BadInputError, MissingError, UsageError

pytest.importorskip("actfast")
NONE = ReadOptions()


def read(opened: Opened) -> tuple[Any, npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    assert opened.refused == ()
    (stream,) = opened.streams
    chunks: list[Chunk] = list(pickle.loads(pickle.dumps(stream.chunks))())
    samples = np.concatenate([chunk.samples for chunk in chunks])
    stamps = np.concatenate([chunk.time for chunk in chunks if chunk.time is not None])
    assert samples.dtype == np.float32
    assert samples.shape == (len(stamps), len(stream.channels))
    assert np.isfinite(samples).all()
    assert np.all(np.diff(stamps) > 0)
    return stream, samples, stamps


def refusal(opened: Opened) -> str:
    assert opened.streams == ()
    return opened.refused[0].reason


def test_axivity_made_file(tmp_path: Path) -> None:
    stream, samples, stamps = read(axivity.open_streams(cwa(tmp_path / "a.cwa", run(5)), NONE))
    assert (stream.subject, stream.session, stream.device, stream.rate_hz) == (
        "P07",
        "a",
        "Axivity AX3",
        100.0,
    )
    assert stream.about == {"serial": "39434", "firmware": "44", "side": "left", "position": "left wrist"}
    assert stream.start == "2020-09-13T12:26:40.250000"
    assert (stream.channels, stream.units) == (("acc_x", "acc_y", "acc_z"), ("g", "g", "g"))
    np.testing.assert_array_equal(samples, np.tile(still() / 256, (5, 1)).astype(np.float32))
    # 80 samples take 0.81 s: evenly spread, not in steps of 10 ms with a jump at the end of each sector.
    # A stamp has 15 bits of a second.
    np.testing.assert_allclose(stamps, np.arange(400) * 0.81 / 80, atol=2e-4)


def test_axivity_ax6_has_a_gyroscope_and_halves_of_a_hertz_stay(tmp_path: Path) -> None:
    counts = np.array([[36, -66, 2067, 15, 146, 2048]] * 40)
    sectors = [sector(k, START + 3.2 * k, counts, rate_hz=12.5, gyro=True) for k in range(3)]
    stream, samples, stamps = read(axivity.open_streams(cwa(tmp_path / "a.cwa", sectors), NONE))
    assert stream.rate_hz == 12.5
    assert stream.device == "Axivity AX6"
    assert stream.channels[3:] == ("gyro_x", "gyro_y", "gyro_z")
    assert stream.units[3:] == ("deg/s",) * 3
    expected = [15 / 2048, 146 / 2048, 1.0, 36 * 250 / 32768, -66 * 250 / 32768, 2067 * 250 / 32768]
    np.testing.assert_allclose(samples, np.tile(expected, (120, 1)), rtol=1e-6)
    np.testing.assert_allclose(stamps, np.arange(120) / 12.5, atol=1e-4)


@pytest.mark.parametrize("how", ["lost", "damaged"])
def test_axivity_a_missing_sector_is_a_gap_and_never_filled(tmp_path: Path, how: str) -> None:
    sectors = run(5, seconds=0.8)
    if how == "lost":
        del sectors[2]
    else:
        sectors[2] = sectors[2][:100] + bytes([sectors[2][100] ^ 1]) + sectors[2][101:]
    stream, samples, stamps = read(axivity.open_streams(cwa(tmp_path / "a.cwa", sectors), NONE))
    assert len(samples) == 320
    steps = np.diff(stamps)
    assert np.flatnonzero(steps > 0.02).tolist() == [159]
    assert steps[159] == pytest.approx(0.81, abs=1e-3)
    assert stream.notes == (
        ("1 of 5 sectors are damaged and left out, the first is number 3",) if how == "damaged" else ()
    )


def test_axivity_a_file_cut_off_inside_a_sector_is_noted(tmp_path: Path) -> None:
    path = cwa(tmp_path / "a.cwa", run(3))
    path.write_bytes(path.read_bytes()[:-100])
    stream, samples, _ = read(axivity.open_streams(path, NONE))
    assert len(samples) == 160
    assert stream.notes == ("the file ends inside a sector; its last 412 bytes are left out",)


BAD_CWA: dict[str, tuple[Callable[[], list[bytes]], str]] = {
    "empty": (list, "none of its 0 sectors"),
    "no sound one": (lambda: [b"AX" + b"\1" * 510], "none of its 1 sectors"),
    "rate changes": (
        lambda: [*run(2), sector(2, START + 2, still(), rate_hz=50.0)],
        "change from one sector",
    ),
    "scale changes": (
        lambda: [*run(2), sector(2, START + 2, still(), light=1 << 13)],
        "change from one sector",
    ),
    "old rate": (lambda: [sector(0, START, still(), rate=0x40)], "code 0 of the sampling rate"),
    "axes": (lambda: [sector(0, START, still(), axes=0x02)], "0 axes in packing 2"),
    "count": (lambda: [sector(0, START, still(), count=200)], "up to 200 samples, expected 1 to 80"),
    "clock back": (lambda: [*run(2), sector(2, START - 9, still())], "set back before sector 3"),
}


@pytest.mark.parametrize("case", BAD_CWA)
def test_axivity_refuses(tmp_path: Path, case: str) -> None:
    sectors, message = BAD_CWA[case]
    reason = refusal(axivity.open_streams(cwa(tmp_path / "a.cwa", sectors()), NONE))
    assert message in reason
    assert "a.cwa" in reason


def test_axivity_refuses_an_impossible_date(tmp_path: Path) -> None:
    """The package leaves such a sector out; the count tells."""
    good = bytearray(run(2)[1])
    struct.pack_into("<I", good, 14, 0)
    struct.pack_into("<H", good, 510, 0)
    struct.pack_into("<H", good, 510, -sum(struct.unpack("<255H", good[:510])) & 0xFFFF)
    reason = refusal(axivity.open_streams(cwa(tmp_path / "a.cwa", [run(1)[0], bytes(good)]), NONE))
    assert "actfast reads 1 sectors with 80 samples of 1 sensors, the file holds 2, 160 and 1" in reason


def test_axivity_refuses_more_than_a_sensor_measures(tmp_path: Path) -> None:
    counts = still()
    counts[33] = [9000, 0, 0]
    (stream,) = axivity.open_streams(cwa(tmp_path / "a.cwa", [sector(0, START, counts)]), NONE).streams
    with pytest.raises(BadInputError, match=r"a\.cwa, sample 34: \[35\.1"):
        list(stream.chunks())


def test_actigraph_made_file(tmp_path: Path) -> None:
    log = [parameters(), *(activity(START + k) for k in range(3))]
    stream, samples, stamps = read(actigraph.open_streams(gt3x(tmp_path / "a.gt3x", log), NONE))
    assert (stream.subject, stream.session, stream.rate_hz) == ("P07", "a", 30.0)
    assert stream.device == "ActiGraph wGT3XBT"
    assert stream.start == "2020-09-13T12:26:40"
    assert stream.about == {
        "serial": "MOS2", "firmware": "1.9.2", "side": "Left", "position": "Wrist", "time zone": "-05:00:00",
    }  # fmt: skip
    np.testing.assert_array_equal(samples, np.tile([[k / 256, -k / 256, 1] for k in range(30)], (3, 1)))
    np.testing.assert_allclose(stamps, np.arange(90) / 30, atol=1e-9)


def gap_log(how: str) -> list[bytes]:
    """Ten seconds of which the middle four have no sound sample."""
    middle = {
        "idle sleep": [record(0x03, START + 3, b"\x08"), record(0x03, START + 7, b"\x09")],
        "usb": [record(0x00, START + k, b"\0") for k in range(3, 7)],
        "checksum": [activity(START + k)[:-1] + b"\x55" for k in range(3, 7)],
        "clock back": [activity(START - 100 + k) for k in range(4)],
        "lost": [],
    }[how]
    return [
        parameters(),
        *(activity(START + k) for k in range(3)),
        *middle,
        *(activity(START + k) for k in range(7, 10)),
    ]


@pytest.mark.parametrize("how", ["idle sleep", "usb", "checksum", "clock back", "lost"])
def test_actigraph_gaps_stay_gaps(tmp_path: Path, how: str) -> None:
    stream, samples, stamps = read(actigraph.open_streams(gt3x(tmp_path / "a.gt3x", gap_log(how)), NONE))
    assert len(samples) == 180
    np.testing.assert_allclose(stamps, np.r_[np.arange(90), np.arange(210, 300)] / 30, atol=1e-9)
    assert stream.notes == {
        "checksum": ("4 of 10 records have a wrong checksum and are left out",),
        "clock back": ("the clock was set back; 4 of 10 records are left out",),
    }.get(how, ())


def test_actigraph_a_short_second_is_a_gap(tmp_path: Path) -> None:
    part = np.array([[0, 0, 256]] * 20)
    log = [parameters(), activity(START, part), activity(START + 1)]
    _, _, stamps = read(actigraph.open_streams(gt3x(tmp_path / "a.gt3x", log), NONE))
    np.testing.assert_allclose(stamps, np.r_[np.arange(20), np.arange(30, 60)] / 30, atol=1e-9)


GOOD_LOG = [parameters(), activity(START), activity(START + 1)]
BAD_GT3X: dict[str, tuple[dict[str, Any], str]] = {
    "newer device": ({"log": [*GOOD_LOG, record(0x1A, START + 2, bytes(180))]}, "1 records of samples are"),
    "no samples": ({"log": [parameters()]}, "no sound record of samples"),
    "too many": ({"log": [parameters(), activity(START, np.zeros((31, 3), int))]}, "31 samples, expected 30"),
    "cut off": ({"log": [*GOOD_LOG, activity(START + 2)[:50]]}, "cut off at record 4"),
    "separator": ({"log": [*GOOD_LOG, b"\0" * 9]}, "damaged or cut off at record 4"),
    "no rate": ({"log": GOOD_LOG, "info": "Firmware: 1\n"}, "Sample Rate None"),
    "rate": ({"log": GOOD_LOG, "info": "Sample Rate: 1e400\n"}, "Sample Rate '1e400'"),
    "rate 0": ({"log": GOOD_LOG, "info": "Sample Rate: 0\n"}, "expected 1 to 1000 Hz"),
    "uncalibrated": ({"log": GOOD_LOG, "calibration_json": '{"isCalibrated": false}'}, "not calibrated"),
    "package panics": ({"log": [parameters(rate_hz=0), activity(START)]}, "attempt to divide by zero"),
    "bomb": ({"log": [record(0x03, START, b"")] * 1_000_000}, "not a recording"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_GT3X)
def test_actigraph_refuses(tmp_path: Path, case: str) -> None:
    content, message = BAD_GT3X[case]
    reason = refusal(actigraph.open_streams(gt3x(tmp_path / "a.gt3x", **content), NONE))
    assert message in reason
    assert "a.gt3x" in reason


def test_actigraph_names_an_old_device_s_file(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.gt3x", "w") as archive:
        archive.writestr("info.txt", INFO)
        archive.writestr("activity.bin", b"")
    assert "log.bin missing in the archive (an old device's file)" in refusal(
        actigraph.open_streams(tmp_path / "a.gt3x", NONE)
    )


@pytest.mark.parametrize(
    ("log", "message"),
    [
        ([parameters(rate_hz=60), activity(START)], "another rate than the 30 Hz"),
        ([activity(START)], "beyond 8.8 g"),  # without parameters the package takes a wrong scale
    ],
)
def test_actigraph_refuses_while_reading(tmp_path: Path, log: list[bytes], message: str) -> None:
    (stream,) = actigraph.open_streams(gt3x(tmp_path / "a.gt3x", log), NONE).streams
    with pytest.raises(BadInputError, match=message):
        list(stream.chunks())


@pytest.mark.parametrize("module", [axivity, actigraph])
def test_wrong_files_are_refused_and_do_not_stop_the_others(tmp_path: Path, module: Any) -> None:
    for name in ("b.cwa", "b.gt3x"):
        (tmp_path / name).write_bytes(b"\0" * 4096)
    (tmp_path / "c.cwa").write_bytes(b"")
    cwa(tmp_path / "a.CWA", run(2))
    gt3x(tmp_path / "a.GT3X", GOOD_LOG)
    opened = module.open_streams(tmp_path, NONE)
    assert [stream.session for stream in opened.streams] == ["a"]
    assert len(opened.refused) == (2 if module is axivity else 1)
    with pytest.raises(BadInputError, match="no such file"):
        module.open_streams(tmp_path / "none", NONE)
    with pytest.raises(UsageError, match="a path is needed"):
        module.open_streams(None, NONE)


@pytest.mark.parametrize("module", [axivity, actigraph])
def test_without_the_package(tmp_path: Path, module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actfast_process, "find_spec", lambda _: None)
    with pytest.raises(MissingError, match=r"pip install 'topokd-edge\[devices\]'"):
        module.open_streams(tmp_path, NONE)


def test_without_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actfast_process, "free_memory", lambda: 1000)
    with pytest.raises(MissingError, match="reading 160 samples takes 0 MiB"):
        axivity.open_streams(cwa(tmp_path / "a.cwa", run(2)), NONE)


@pytest.mark.parametrize(
    ("does", "message"),
    [
        ("os.abort()", "a.cwa: the reader of the package actfast ended with status -6"),
        ("exec('while True: pass')", "a.cwa: the reader of the package actfast ended with status -"),
        ("bytearray(1 << 36)", "a.cwa: the package actfast cannot read it: "),
    ],
)
def test_a_reader_that_dies_loops_or_takes_memory_is_an_error_with_the_file_s_name(
    tmp_path: Path, does: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "child.py"
    lines = ["import os, sys, actfast", f"actfast.read = lambda *_, **__: {does}"]
    lines += [f"sys.path.insert(0, {str(actfast_process.SCRIPT.parent)!r})", "import actfast_child"]
    script.write_text("\n".join([*lines, "actfast_child.main()"]))
    monkeypatch.setattr(actfast_process, "SCRIPT", script)
    monkeypatch.setattr(actfast_process, "BASE_SECONDS", 1)
    started = time.monotonic()
    assert message in refusal(axivity.open_streams(cwa(tmp_path / "a.cwa", run(2)), NONE))
    assert time.monotonic() - started < 20


def test_an_abandoned_reader_ends(tmp_path: Path) -> None:
    path = cwa(tmp_path / "a.cwa", run(900))
    with actfast_process.parsed(path, 72000, (), axivity.ROWS) as file:
        (first,) = next(file.blocks)
        assert first.shape == (65536, 3)
    with pytest.raises(ValueError, match="closed file"):
        next(file.blocks)


def test_real_axivity() -> None:
    path = shared_data("other_devices/ggirread_ax3_testfile.cwa")
    stream, samples, stamps = read(axivity.open_streams(path, NONE))
    assert samples.shape == (17_400, 3)
    assert stream.rate_hz == 100.0
    assert stream.start == "2019-02-26T10:55:06.000488"
    assert stream.about["position"] == "right wrist"
    assert np.median(np.linalg.norm(samples, axis=1)) == pytest.approx(0.957, abs=5e-4)
    words = np.fromfile(path, "<u4", 120, offset=1024 + 30)
    fields = np.stack([words & 1023, words >> 10 & 1023, words >> 20 & 1023], axis=1).astype(int)
    fields = np.where(fields > 511, fields - 1024, fields) << (words >> 30)[:, None]
    np.testing.assert_array_equal(samples[:120], (fields / 256).astype(np.float32))
    # the sensor runs at 98.87 Hz; its sectors take 1.2114 to 1.2147 s
    assert len(samples) / (stamps[-1] + stamps[-1] - stamps[-2]) == pytest.approx(98.86, abs=0.01)
    assert 1.2111 < np.diff(stamps).min() * 120 < np.diff(stamps).max() * 120 < 1.215


def test_real_actigraph() -> None:
    path = shared_data("other_devices/wristpy_example_actigraph.gt3x")
    stream, samples, stamps = read(actigraph.open_streams(path, NONE))
    assert samples.shape == (4_860, 3)
    assert stream.rate_hz == 60.0
    assert stream.about["serial"] == "MOS2E17210537"
    assert np.median(np.linalg.norm(samples, axis=1)) == pytest.approx(1.005, abs=5e-4)
    np.testing.assert_allclose(stamps, np.arange(4860) / 60, atol=1e-9)
    with zipfile.ZipFile(path) as archive:
        log = archive.read("log.bin")
    at = log.index(struct.pack("<BBIH", 0x1E, 0, START_OF_REAL, 270))
    bits = np.unpackbits(np.frombuffer(log[at + 8 : at + 278], np.uint8)).reshape(-1, 12)
    values = bits @ (1 << np.arange(11, -1, -1))
    values = np.where(values > 2047, values - 4096, values).reshape(-1, 3)[:, [1, 0, 2]]
    np.testing.assert_array_equal(samples[:60], (values / 256).astype(np.float32))


START_OF_REAL = 1_714_488_780


def mutants(content: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Copies of a file with bytes changed, or cut off, or with a stretch doubled or zeroed."""
    generator = np.random.default_rng(seed)
    for number in range(count):
        changed = bytearray(content)
        if number % 4 == 3:
            yield bytes(changed[: generator.integers(len(changed))])
            continue
        if number % 4 == 2:
            at = int(generator.integers(len(changed)))
            changed[at : at + 64] = bytes(64) if number % 8 == 2 else changed[:64]
        for at in generator.integers(0, len(changed), int(generator.integers(1, 6))):
            changed[at] = int(generator.integers(256))
        yield bytes(changed)


def resealed(content: bytes) -> bytes:
    """The same file with each sector's checksum made right, so that the content itself is put to the test."""
    changed = bytearray(content)
    for at in range(1024, len(changed) - 511, 512):
        changed[at : at + 2] = b"AX"
        total = sum(struct.unpack_from("<255H", changed, at)) & 0xFFFF
        struct.pack_into("<H", changed, at + 510, -total & 0xFFFF)
    return bytes(changed)


def relogged(path: Path, log: bytes) -> bytes:
    return gt3x(path, [log]).read_bytes()


def survive(module: Any, path: Path) -> bool:
    """Read a damaged file: an error of this project, or finite samples in order."""
    opened = module.open_streams(path, NONE)
    try:
        for stream in opened.streams:
            last = -np.inf
            for chunk in stream.chunks():
                assert np.isfinite(chunk.samples).all()
                assert np.abs(chunk.samples).max(initial=0) < 2100
                assert np.all(np.diff(np.r_[last, chunk.time]) > 0)
                last = chunk.time[-1] if len(chunk.time) else last
    except BadInputError:
        return False
    return bool(opened.streams)


def fuzz(tmp_path: Path, module: Any, count: int) -> list[int]:
    """Return how many damaged files were read: of those as they are, and of those with sums made right."""
    read_ = [0, 0]
    log = b"".join(gap_log("idle sleep"))
    path = tmp_path / ("m.cwa" if module is axivity else "m.gt3x")
    content = (cwa(path, run(6)) if module is axivity else gt3x(path, [log])).read_bytes()
    for mutant in mutants(content, count // 2, 0):
        path.write_bytes(mutant)
        read_[0] += survive(module, path)
    for mutant in mutants(content if module is axivity else log, count // 2, 1):
        path.write_bytes(resealed(mutant) if module is axivity else relogged(path, mutant))
        read_[1] += survive(module, path)
    return read_


@pytest.mark.parametrize("module", [axivity, actigraph])
def test_damaged_files(tmp_path: Path, module: Any) -> None:
    assert fuzz(tmp_path, module, 8) != [4, 4]


@pytest.mark.slow
@pytest.mark.parametrize("module", [axivity, actigraph])
def test_many_damaged_files(tmp_path: Path, module: Any) -> None:
    assert min(fuzz(tmp_path, module, 2000)) < 1000
    assert max(fuzz(tmp_path, module, 40)) > 0
