"""Every real file is imported with the right numbers, or refused for the right reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_recordings import import_into, shared_data

from topokd_edge.data.check import acceleration_norms_g
from topokd_edge.data.windowset import WindowSet
from topokd_edge.errors import BadInputError

REFUSED = {
    "geneacore_Short_header.bin": "followed by no sample",
    "geneacore_Not_a_GENEActiv_bin_file.bin": "Activinsights Band",
}
BINS = (
    "geneacore_100650Hz_file",
    "geneacore_20Hz_file",
    "geneacore_667Hz",
    "geneacore_Incomplete_bin_file",
    "geneacore_One_page_bin_file",
    "genearead_TESTfile",
    "ggirread_GENEActiv_testfile",
    "wristpy_example_geneactiv",
)


def sizes(windows: WindowSet) -> list[int]:
    return [item.samples.shape[1] for item in windows.recordings]


def norms(windows: WindowSet) -> np.ndarray:
    return np.array([list(acceleration_norms_g(item).values()) for item in windows.recordings])


@pytest.mark.parametrize("name", BINS)
def test_geneactiv(name: str, tmp_path: Path) -> None:
    path = shared_data(f"geneactiv/{name}.bin")
    expected = json.loads(shared_data("geneactiv/expected.json").read_text())[path.name]
    windows = import_into(tmp_path / "w", "geneactiv", path)
    assert sizes(windows) == [expected["samples"]]
    assert windows.channels == ("acc_x", "acc_y", "acc_z") and windows.units == ("g", "g", "g")
    assert windows.rate_hz == pytest.approx(expected["page_fs"], rel=0.005)
    np.testing.assert_allclose(norms(windows), expected["median_norm_g"], atol=0.002)
    assert len(windows) == 0 and windows.class_names == ()


@pytest.mark.parametrize("name", REFUSED)
def test_geneactiv_files_that_are_refused(name: str, tmp_path: Path) -> None:
    path = shared_data(f"geneactiv/{name}")
    with pytest.raises(BadInputError, match=REFUSED[name]) as caught:
        import_into(tmp_path / "w", "geneactiv", path)
    assert name in str(caught.value) and list(tmp_path.iterdir()) == []


def test_geneactiv_csv(tmp_path: Path) -> None:
    path = shared_data("geneactiv/gaitpy_demo_data_geneactiv_export.csv")
    windows = import_into(tmp_path / "w", "geneactiv-csv", path)
    assert sizes(windows) == [8400] and windows.rate_hz == 50.0
    assert norms(windows)[0, 0] == pytest.approx(1.0, abs=0.05)
    (gap,) = windows.recordings[0].gaps  # between lines 400 and 401 the file steps by 0.52 s
    assert (gap.after_sample, gap.seconds) == (299, pytest.approx(0.5))


@pytest.mark.parametrize(
    ("name", "file", "samples", "rate_hz", "norm"),
    [
        ("axivity", "ggirread_ax3_testfile.cwa", 17_400, 100.0, 0.957),
        ("actigraph", "wristpy_example_actigraph.gt3x", 4860, 60.0, 1.007),
    ],
)
def test_other_devices(
    name: str, file: str, samples: int, rate_hz: float, norm: float, tmp_path: Path
) -> None:
    pytest.importorskip("actfast")
    windows = import_into(tmp_path / "w", name, shared_data(f"other_devices/{file}"))
    assert sizes(windows) == [samples]
    assert windows.rate_hz == pytest.approx(rate_hz, rel=0.02)
    assert norms(windows)[0, 0] == pytest.approx(norm, abs=0.01)


def test_usc_had_original_files(tmp_path: Path) -> None:
    with np.load(shared_data("usc_had/usc_had_100hz.npz")) as data:
        rows = {tuple(row[:3]): row[4] - row[3] for row in data["recordings"].tolist()}
        names = data["class_names"].tolist()
    windows = import_into(tmp_path / "w", "usc-had", shared_data("usc_had/raw_mat_sample.zip"))
    assert len(windows.recordings) == 25 and windows.subjects == ("1", "13", "14")
    for item, size in zip(windows.recordings, sizes(windows), strict=True):
        trial = int(item.session.removeprefix("trial-"))
        assert rows[int(item.subject), names.index(item.labels[0].label), trial] == size
    assert windows.class_names == tuple(sorted(names)) and windows.made["refused"] == []


def test_dsads_original_files(tmp_path: Path) -> None:
    path = shared_data("dsads/raw_txt_sample.zip")
    windows = import_into(tmp_path / "w", "dsads", path, seconds=5.0, overlap=0.0)
    assert windows.x.shape == (38, 45, 125) and windows.subjects == ("1", "2")
    assert np.bincount(windows.y).tolist() == [2] * 19
    np.testing.assert_allclose(np.median(norms(windows), axis=0), 1.0, atol=0.06)


def test_pamap2_as_a_neutral_file(tmp_path: Path) -> None:
    path = shared_data("pamap2_wrist_26hz/pamap2_wrist_26hz.npz")
    windows = import_into(tmp_path / "w", "npz", path, seconds=2.0, overlap=0.0)
    by_class = dict(zip(windows.class_names, np.bincount(windows.y).tolist(), strict=True))
    assert by_class == {"stationary": 450, "walking": 450, "running": 451, "cycling": 438}
    assert windows.units == ("g", "g", "g") and windows.subjects == ("unknown",)
    assert np.median(norms(windows)) == pytest.approx(1.0067, abs=0.02)


def test_pamap2_original_rows(tmp_path: Path) -> None:
    rows = shared_data("pamap2_wrist_26hz/pamap2_54col_rows.dat").read_bytes().splitlines(keepends=True)
    for number, lines in enumerate((rows[:2], rows[2:])):
        path = tmp_path / str(number) / "subject101.dat"
        path.parent.mkdir()
        path.write_bytes(b"".join(lines))
        windows = import_into(tmp_path / f"w{number}", "pamap2", path)
        assert sizes(windows) == [2] and len(windows.channels) == 18 and len(windows) == 0
    path = tmp_path / "subject101.dat"
    path.write_bytes(b"".join(rows))
    with pytest.raises(BadInputError, match=r"subject101\.dat(.|\n)*sample 2.*earlier"):
        import_into(tmp_path / "w", "pamap2", path)  # rows 3 and 4 are of another person's file


def test_csv_sample(tmp_path: Path) -> None:
    folder = shared_data("pamap2_wrist_26hz/csv_sample")
    flags: dict[str, Any] = {"rate_hz": 26.0, "subject_from": r"name:log_(\d)", "time": "none"}
    windows = import_into(tmp_path / "w", "csv", folder, **flags)
    files = sorted(folder.rglob("*.csv"))
    assert sizes(windows) == [len(file.read_text().splitlines()) - 3 for file in files]
    assert windows.channels == ("acc_x", "acc_y", "acc_z") and windows.units == ("g", "g", "g")
    assert np.median(norms(windows)) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(
    ("name", "cases", "channels", "samples", "rate_hz", "classes"),
    [
        ("Epilepsy_TRAIN", 137, 3, 206, 16.0, 4),
        ("Epilepsy_TEST", 138, 3, 206, 16.0, 4),
        ("BasicMotions_TRAIN", 40, 6, 100, 10.0, 4),
        ("BasicMotions_TEST", 40, 6, 100, 10.0, 4),
        ("AtrialFibrillation_TRAIN", 15, 2, 640, 128.0, 3),
        ("AtrialFibrillation_TEST", 15, 2, 640, 128.0, 3),
    ],
)
def test_uea(
    name: str, cases: int, channels: int, samples: int, rate_hz: float, classes: int, tmp_path: Path
) -> None:
    path = shared_data(f"uea_small/{name}.ts")
    windows = import_into(
        tmp_path / "w", "uea", path, rate_hz=rate_hz, seconds=samples / rate_hz, overlap=0.0
    )
    assert windows.x.shape == (cases, channels, samples)
    assert len(windows.class_names) == classes and windows.subjects == ("unknown",)


def test_mit_bih(tmp_path: Path) -> None:
    pytest.importorskip("wfdb")
    windows = import_into(tmp_path / "w", "wfdb", shared_data("ecg_mitbih_100/100.hea"), label_rule="last")
    assert sizes(windows) == [650_000] and windows.rate_hz == 360.0
    assert (windows.channels, windows.units) == (("MLII", "V5"), ("mV", "mV"))
    beats = [item.label for item in windows.recordings[0].labels]
    assert len(windows) > 1000 and set(beats) == {"N", "A", "V"}
