"""ECG groups: which cases go together, where a record is cut; the recipe trains from files to table."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from made_recordings import import_into, shared_data

from topokd_edge.data.sensors import sensors
from topokd_edge.errors import BadInputError

HEAD = "@problemName Made\n@dimensions 1\n@equalLength true\n@seriesLength 8\n@classLabel true a b\n"


@pytest.fixture
def ecg(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    return import_module("ecg_groups")


def write(path: Path, *cases: str) -> Path:
    """Write cases of one channel: the value of its eight samples, and the class."""
    lines = [f"{','.join([case[0]] * 8)}:{case[1]}" for case in cases]
    path.write_text(HEAD + "@data\n" + "\n".join(lines) + "\n", "utf-8")
    return path


def test_a_group_has_one_case_of_each_class_and_every_case_is_in_one(ecg: ModuleType, tmp_path: Path) -> None:
    one = write(tmp_path / "one.ts", "1a", "2a", "3b", "4b")
    other = write(tmp_path / "other.ts", "5b", "6a")
    assert ecg.write_cases([one, other], tmp_path / "g") == 3
    windows = import_into(
        tmp_path / "w", "uea", tmp_path / "g", rate_hz=1.0, seconds=8.0, overlap=0.0, subject_from="folder"
    )
    got = {
        who: {(windows.class_names[windows.y[i]], float(windows.x[i : i + 1][0, 0, 0])) for i in rows}
        for who in windows.subjects
        for rows in [windows.of_subjects([who])]
    }
    assert got == {
        "group-01": {("a", 1), ("b", 3)},
        "group-02": {("a", 2), ("b", 4)},
        "group-03": {("a", 6), ("b", 5)},
    }


@pytest.mark.parametrize("cases", [("1a", "2a", "3b"), ()])
def test_unequal_classes_are_refused(ecg: ModuleType, tmp_path: Path, cases: tuple[str, ...]) -> None:
    path = write(tmp_path / "odd.ts", *cases)
    with pytest.raises(BadInputError, match=r"odd\.ts: expected as many cases"):
        ecg.write_cases([path], tmp_path / "g")


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # wfdb 4.3.1 with pandas 3.1
def test_the_parts_of_a_record_are_the_record(ecg: ModuleType, tmp_path: Path) -> None:
    wfdb = pytest.importorskip("wfdb")
    counts = np.random.default_rng(0).integers(-900, 900, (1001, 2))
    at, symbols = np.array([3, 250, 251, 700, 1000]), ["N", "A", "N", "V", "N"]
    about = {"fs": 100, "units": ["mV", "mV"], "sig_name": ["I", "II"], "fmt": ["212", "212"]}
    folder = str(tmp_path)
    wfdb.wrsamp("r", d_signal=counts, adc_gain=[200.0, 100.0], baseline=[0, 7], write_dir=folder, **about)
    wfdb.wrann("r", "atr", at, symbol=symbols, write_dir=folder)
    (tmp_path / "parts").mkdir()
    assert ecg.write_parts(tmp_path / "r.hea", 4, tmp_path / "parts") == 4
    names = [str(tmp_path / "parts" / f"r_part{number}") for number in range(1, 5)]
    signal = np.concatenate([wfdb.rdrecord(name).p_signal for name in names])
    np.testing.assert_array_equal(signal, wfdb.rdrecord(str(tmp_path / "r")).p_signal)
    notes = [wfdb.rdann(name, "atr") for name in names]
    # 1001 samples in four: edges at 0, 250, 500, 750, 1001.
    assert [list(note.sample) for note in notes] == [[3], [0, 1], [200], [250]]
    assert [note.symbol for note in notes] == [["N"], ["A", "N"], ["V"], ["N"]]


def test_leads_are_not_turned_whatever_their_names() -> None:
    # Frank's orthogonal leads are called X, Y, Z, and are no axes of a sensor that sits turned.
    found = sensors(("lead_x", "lead_y", "lead_z"), ("mV",) * 3)
    assert [sensor.channels for sensor in found] == [(0,), (1,), (2,)]


@pytest.mark.slow
def test_atrial_fibrillation_from_files_to_table(ecg: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from topokd_edge.distill.recipe import load_recipe
    from topokd_edge.distill.run_training import start_run, train_run
    from topokd_edge.evaluate.run_table import evaluate_run

    ecg.write_cases(
        [shared_data(f"uea_small/AtrialFibrillation_{name}.ts") for name in ("TRAIN", "TEST")], tmp_path / "g"
    )
    windows = import_into(
        tmp_path / "w",
        "uea",
        tmp_path / "g",
        rate_hz=128.0,
        units="mV",
        seconds=5.0,
        overlap=0.0,
        subject_from="folder",
    )
    assert len(windows) == 30 and len(windows.subjects) == 10
    training = (
        "signal_teacher.training",
        "topology_teacher.training",
        "student.scratch",
        "student.distilled",
    )
    recipe = load_recipe("ecg", ["split.folds=2", *(f"{name}.epochs=2" for name in training)])
    assert recipe.augmentation.rotation == 0 and recipe.augmentation.changes()
    run = start_run(tmp_path / "run", tmp_path / "w", recipe)
    train_run(run, recipe, device="cpu")
    evaluated = evaluate_run(run)
    assert len(evaluated["subjects"]) == 10
    assert set(evaluated["models"]) >= {"teacher.signal", "teacher.topology", "student.distilled"}
