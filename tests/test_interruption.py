"""After Ctrl-C or on a full disk a person sees one sentence, an exit code, and nothing half-written."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from made_recordings import windows_of

PROGRAM = [sys.executable, "-c", "from topokd_edge.cli import main; main()"]


@pytest.fixture
def windows(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    subject = np.repeat(["a", "b", "c", "d", "e", "f"], 80)
    y = np.tile(np.arange(2), 240)
    x = rng.normal(size=(480, 2, 64)).astype(np.float32) + y[:, None, None]
    windows_of(x, y, subject, ("no", "yes"), made={"credit": "made in a test"}).save(tmp_path / "windows")
    return tmp_path / "windows"


def leftovers(folder: Path) -> list[str]:
    return [str(path) for path in folder.rglob("*.part")]


def test_ctrl_c_in_training_leaves_a_run_that_resumes_to_the_same_student(windows: Path) -> None:
    def command(name: str, *more: str) -> list[str]:
        sizes = ["--set", "split.folds=2", "--set", "topology.size=[16, 16]"]
        out = str(windows.parent / name)
        return [*PROGRAM, "train", "--data", str(windows), "--recipe", "demo", "--out", out, *sizes,
                "--set", "split.validation_subjects=1", "--folds", "1", *more]  # fmt: skip

    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    interrupted = windows.parent / "interrupted"
    process = subprocess.Popen(command("interrupted"), stderr=subprocess.PIPE, text=True, env=environment)
    state = interrupted / "fold-1" / "seed-0" / "teacher.signal" / "training.safetensors"
    while process.poll() is None and not state.exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "--resume" in said and "Traceback" not in said
    assert leftovers(windows.parent) == []
    subprocess.run(command("interrupted", "--resume"), check=True, capture_output=True, env=environment)
    subprocess.run(command("whole"), check=True, capture_output=True, env=environment)
    for model in ("student.distilled", "student.int8"):
        place = Path("fold-1") / "seed-0" / model / "predictions.npz"
        one, other = (np.load(windows.parent / run / place)["logits"] for run in ("interrupted", "whole"))
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "verb",
    [
        ("data", "import", "shoulder-watch"),
        ("topology", "extract", "windows"),
        ("train", "--recipe", "demo", "--set", "split.folds=2", "--data", "windows"),
    ],
    ids=lambda verb: verb[0],
)
def test_a_disk_that_takes_no_more_is_named_and_nothing_is_left(windows: Path, verb: tuple[str, ...]) -> None:
    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))

    done = subprocess.run(
        [*PROGRAM, *verb, "--out", "out"],
        cwd=windows.parent,
        capture_output=True,
        text=True,
        preexec_fn=small_files,
        check=False,
    )
    assert done.returncode == 4, done.stderr
    assert "out" in done.stderr and "What to do" in done.stderr and "Traceback" not in done.stderr
    assert leftovers(windows.parent) == []
    whole = [path for path in (windows.parent / "out").rglob("*") if path.is_file()]
    assert all(path.suffix in (".json", ".toml") for path in whole)


def test_an_existing_run_is_not_touched_and_resume_is_offered(windows: Path) -> None:
    out = windows.parent / "run"
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    command = [*PROGRAM, "train", "--data", str(windows), "--recipe", "demo", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "--resume" in done.stderr and "--overwrite" in done.stderr
    assert (out / "mine.txt").read_text() == "keep"
