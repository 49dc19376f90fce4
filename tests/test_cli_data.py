"""`topokd-edge data`: exit codes, messages and machine-readable answers of the real program."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from made_recordings import npz_arrays, write_npz

from topokd_edge.cli import main
from topokd_edge.data.windowset import WindowSet


@dataclass(frozen=True)
class Result:
    returncode: int
    stdout: str
    stderr: str


def run(*arguments: object, cwd: Path) -> Result:
    """Run the program as its entry point does, in this process."""
    out, err = io.StringIO(), io.StringIO()
    argv = ["topokd-edge", *map(str, arguments)]
    with chdir(cwd), redirect_stdout(out), redirect_stderr(err), mock.patch.object(sys, "argv", argv):
        try:
            main()
            code = 0
        except SystemExit as left:
            code = int(left.code or 0)
    return Result(code, out.getvalue(), err.getvalue())


def refused(result: Result, code: int, *words: str) -> None:
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr


def nothing_written(folder: Path, *kept: str) -> None:
    assert {path.name for path in folder.iterdir()} == set(kept)


def test_import_then_audit(tmp_path: Path) -> None:
    write_npz(tmp_path / "set.npz", credit=np.array("A. Author"))
    result = run("data", "import", "npz", "set.npz", "--out", "w", "--seconds", 2, "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    assert answer["refused"] == []
    first = answer["recordings"][0]
    assert {"file", "subject", "device", "rate_hz", "samples", "channels", "units", "start", "gaps"} <= set(
        first
    )
    assert (first["samples"], first["rate_hz"], first["units"]) == (100, 25.0, ["g", "g", "g"])
    # 8 recordings of 100 samples, windows of 50, step 25: three each.
    windows = WindowSet.open(tmp_path / "w")
    assert (len(windows), windows.class_names) == (24, ("a", "b"))
    assert windows.made["credit"] == "A. Author"

    result = run("data", "audit", "w", "--split", "folds=4", "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    assert answer["ok"]
    assert answer["classes"][0] == {"class": "a", "windows": {"1": 3, "2": 3, "3": 3, "4": 3}}
    assert sorted(who for fold in answer["folds"] for who in fold["test"]) == ["1", "2", "3", "4"]


def test_exit_code_and_message_of_a_real_process(tmp_path: Path) -> None:
    code = "from topokd_edge.cli import main; main()"
    command = [sys.executable, "-W", "error", "-c", code, "data", "audit", "nowhere"]
    result = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (3, "")
    assert result.stderr.startswith("error: nowhere/windows.json: no such file")


def test_answers_for_people(tmp_path: Path) -> None:
    write_npz(tmp_path / "set.npz")
    result = run("data", "import", "npz", "set.npz", "--out", "w", "--seconds", 2, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "24, each 50 samples at 25 Hz" in result.stdout
    audited = run("data", "audit", "w", "--split", "folds=2", cwd=tmp_path)
    assert audited.returncode == 0, audited.stderr
    for words in ("Windows by class", "Folds by subject", "Checks", "passed"):
        assert words in audited.stdout
    assert "FAILED" not in audited.stdout
    without = run("data", "audit", "w", cwd=tmp_path)
    assert without.returncode == 0
    assert "split: folds=4,validation=1,seed=0" in without.stderr
    assert "shoulder-watch" in run("data", "list", cwd=tmp_path).stdout


def test_existing_output_is_kept_without_overwrite(tmp_path: Path) -> None:
    write_npz(tmp_path / "set.npz")
    arguments = ("data", "import", "npz", "set.npz", "--out", "w", "--seconds", 2)
    assert run(*arguments, cwd=tmp_path).returncode == 0
    before = (tmp_path / "w" / "samples.npy").read_bytes()
    refused(run(*arguments, "--channels", "acc_x", cwd=tmp_path), 3, "w: already exists", "--overwrite")
    assert (tmp_path / "w" / "samples.npy").read_bytes() == before
    assert run(*arguments, "--channels", "acc_x", "--overwrite", cwd=tmp_path).returncode == 0
    assert WindowSet.open(tmp_path / "w").channels == ("acc_x",)
    nothing_written(tmp_path, "set.npz", "w")


def test_nan_is_refused_naming_its_place(tmp_path: Path) -> None:
    counts = npz_arrays()["counts"].astype(np.float32)
    counts[1, 230] = np.nan
    write_npz(tmp_path / "set.npz", counts=counts)
    result = run("data", "import", "npz", "set.npz", "--out", "w", "--seconds", 2, "--json", cwd=tmp_path)
    refused(result, 3, "subject 2, recording set.npz#2", "'acc_y', sample 30: nan")
    assert "sample 30" in json.loads(result.stdout)["refused"][0]["reason"]
    nothing_written(tmp_path, "set.npz")


def test_constant_channel_is_refused_and_the_hint_works(tmp_path: Path) -> None:
    counts = npz_arrays()["counts"]
    counts[1] = 7
    write_npz(tmp_path / "set.npz", counts=counts)
    arguments = ("data", "import", "npz", "set.npz", "--out", "w", "--seconds", 2)
    refused(run(*arguments, cwd=tmp_path), 3, "'acc_y': constant", "--channels acc_x,acc_z")
    nothing_written(tmp_path, "set.npz")
    assert run(*arguments, "--channels", "acc_x,acc_z", cwd=tmp_path).returncode == 0


def test_empty_class_is_refused(tmp_path: Path) -> None:
    write_npz(tmp_path / "set.npz", class_names=np.array(["a", "b", "c"]))
    refused(
        run("data", "import", "npz", "set.npz", "--out", "w", cwd=tmp_path), 3, "no recording has class 2"
    )
    write_npz(tmp_path / "short.npz")
    result = run("data", "import", "npz", "short.npz", "--out", "w", "--seconds", 4.1, cwd=tmp_path)
    refused(result, 3, "class 'a': its longest label is 4 s", "--seconds")
    nothing_written(tmp_path, "set.npz", "short.npz")


def test_class_of_one_person_fails_the_audit_and_the_hint_works(tmp_path: Path) -> None:
    rows = npz_arrays()["recordings"].copy()
    rows[-1, 1] = 2
    write_npz(tmp_path / "set.npz", recordings=rows, class_names=np.array(["a", "b", "only"]))
    arguments = ("data", "import", "npz", "set.npz", "--out", "w", "--seconds", 2)
    assert run(*arguments, cwd=tmp_path).returncode == 0
    audited = run("data", "audit", "w", "--split", "folds=4", cwd=tmp_path)
    refused(audited, 1, "'only': only subject 4 has it", "--min-subjects-per-class 2")
    assert run(*arguments, "--min-subjects-per-class", 2, "--overwrite", cwd=tmp_path).returncode == 0
    assert run("data", "audit", "w", "--split", "folds=4", cwd=tmp_path).returncode == 0


def test_fewer_subjects_than_folds(tmp_path: Path) -> None:
    write_npz(tmp_path / "set.npz")
    assert run("data", "import", "npz", "set.npz", "--out", "w", "--seconds", 2, cwd=tmp_path).returncode == 0
    audited = run("data", "audit", "w", "--split", "folds=5", cwd=tmp_path)
    refused(audited, 3, "5 folds", "only 4 subject(s)")


def test_a_copy_under_another_name_fails_the_audit_and_the_training(tmp_path: Path) -> None:
    counts = npz_arrays()["counts"].copy()
    counts[:, 610:790] = counts[:, 203:383]  # subject 4 is subject 2, moved
    write_npz(tmp_path / "set.npz", counts=counts)
    assert run("data", "import", "npz", "set.npz", "--out", "w", "--seconds", 2, cwd=tmp_path).returncode == 0
    audited = run("data", "audit", "w", cwd=tmp_path)
    refused(audited, 1, "subjects 2 and 4 share signals", "set.npz#2 equals set.npz#6 bit by bit")
    assert "FAILED" in audited.stdout
    answer = json.loads(run("data", "audit", "w", "--json", cwd=tmp_path).stdout)
    assert not answer["ok"]
    assert len(answer["problems"]) == 1
    assert [check["name"] for check in answer["checks"] if not check["ok"]] == ["copies"]
    assert {tuple(pair["subjects"]) for pair in answer["copied"]} == {("2", "4")}
    arguments = ("--recipe", "demo", "--set", "split.validation_subjects=1", "--out", "r")
    trained = run("train", "--data", "w", *arguments, cwd=tmp_path)
    refused(trained, 1, "subjects 2 and 4 share signals")
    (tmp_path / "split.toml").write_text(
        '[[fold]]\ntest = ["2", "4"]\nvalidation = ["1"]\nfit = ["3"]\n', encoding="utf-8"
    )
    together = run("data", "audit", "w", "--split", "split.toml", cwd=tmp_path)
    assert together.returncode == 0, together.stderr
    assert "warning: subjects 2 and 4 share signals" in together.stderr
    nothing_written(tmp_path, "set.npz", "w", "split.toml")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.99])
def test_truncated_file_is_refused(tmp_path: Path, share: float) -> None:
    content = write_npz(tmp_path / "set.npz").read_bytes()
    (tmp_path / "set.npz").write_bytes(content[: int(share * len(content))])
    refused(
        run("data", "import", "npz", "set.npz", "--out", "w", cwd=tmp_path), 3, "set.npz: not a .zip archive"
    )
    nothing_written(tmp_path, "set.npz")


def test_missing_file_and_missing_path(tmp_path: Path) -> None:
    refused(run("data", "import", "npz", "no.npz", "--out", "w", cwd=tmp_path), 3, "no.npz: no such file")
    refused(run("data", "import", "npz", "--out", "w", cwd=tmp_path), 2, "the npz format needs a file")
    refused(run("data", "audit", "w", cwd=tmp_path), 3, "no such file")


def test_wrong_hash_of_the_shipped_set(tmp_path: Path) -> None:
    (tmp_path / "watch_dataset.npy").write_bytes(b"not it")
    result = run("data", "import", "shoulder-watch", "watch_dataset.npy", "--out", "w", cwd=tmp_path)
    refused(result, 3, "SHA-256", "eb122f23")


@pytest.mark.parametrize(
    "arguments",
    [
        ("data", "import", "floppy", "set.npz", "--out", "w"),
        ("data", "import", "npz", "set.npz", "--out", "w", "--channels", "acc_x,nope"),
        ("data", "import", "npz", "set.npz", "--out", "w", "--overlap", "1"),
        ("data", "import", "npz", "set.npz", "--out", "w", "--seconds", "-1"),
        ("data", "import", "npz", "set.npz"),
        ("data", "nonsense"),
        ("data", "audit", "set.npz", "--folds", "3"),
    ],
)
def test_wrong_usage_is_code_2(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    write_npz(tmp_path / "set.npz")
    refused(run(*arguments, cwd=tmp_path), 2)
    nothing_written(tmp_path, "set.npz")


def test_recordings_without_labels_can_be_kept_but_not_split_or_trained_on(tmp_path: Path) -> None:
    rows = "\n".join(
        f"{0.04 * i:.2f},{0.1 * (i % 7)},{0.1 * (i % 5)},{1 + 0.01 * (i % 3)}" for i in range(200)
    )
    (tmp_path / "a.csv").write_text("t [s],acc_x [g],acc_y [g],acc_z [g]\n" + rows + "\n")
    result = run("data", "import", "csv", "a.csv", "--out", "w", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "no recording has labels, so no window was cut" in result.stderr
    refused(run("data", "audit", "w", cwd=tmp_path), 3, "the set has no window", "--labels")
    refused(run("train", "--data", "w", "--out", "r", cwd=tmp_path), 3, "the set has no window", "--labels")
