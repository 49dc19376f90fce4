"""After Ctrl-C or on a full disk a person sees one sentence, an exit code, and nothing half-written.

Who kills the program at any moment finds, having resumed, what it would have made undisturbed.
"""

import logging
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from made_recordings import windows_of
from made_training import waves

from topokd_edge.files import remove_halves, replacing, write_text

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
    models = interrupted / "fold-1" / "seed-0"
    while process.poll() is None and not any(models.glob("*/training.safetensors")):
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


RECIPE = """
name = "killed"
seeds = [0]
split = { folds = 2, validation_subjects = 1 }
topology = { size = [12, 12] }
augmentation = { rotation = 0.1, shift = 0.1 }
signal_teacher = { network = { depth = 10 }, training = { epochs = 6, batch_size = 16 } }
topology_teacher = { network = { depth = 10, stem_stride = 2 }, training = { epochs = 6, batch_size = 16 } }

[student]
network = { depth = 10 }
scratch = { epochs = 6, batch_size = 16 }
distilled = { epochs = 6, batch_size = 16, learning_rate = 0.02 }
candidates = [{}, { tau = 0.5 }]

[[experiments]]
claim = "teachers help"
pairs = [["student.scratch", "student.distilled"]]
"""


def small_run(folder: Path, out: str) -> list[str]:
    """The command of a run of seconds that goes through every phase; it makes the data at the first call."""
    if not (folder / "data").exists():
        waves(6, 12).save(folder / "data")
        (folder / "killed.toml").write_text(RECIPE)
    recipe = ["--data", str(folder / "data"), "--recipe", str(folder / "killed.toml")]
    return [*PROGRAM, "train", *recipe, "--device", "cpu", "--out", str(folder / out)]


def results(run: Path) -> dict[str, bytes]:
    """Every file of a finished run that does not tell of time, memory or the command."""
    assert not list(run.rglob("training.safetensors"))
    found = {}
    for path in sorted(run.rglob("*")):
        if path.is_file() and path.name not in ("environment.json", "inputs.json"):
            timeless = re.sub(rb', "seconds": [0-9.]+', b"", path.read_bytes())
            found[str(path.relative_to(run))] = timeless
    return found


@dataclass
class Ended:
    """How a command ended: with an exit code, or killed while it did what it last told of."""

    code: int | None
    phase: str
    seconds: float


def until(command: list[str], said: Path, seconds: float, *, from_word: bool = False) -> Ended:
    """Let a command run, and kill it after so long, counted from its start or from its first word."""
    began = time.monotonic()
    with said.open("w") as stderr:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(command, stdout=stderr, stderr=stderr, env=environment)
        while from_word and process.poll() is None and not said.stat().st_size:
            time.sleep(0.01)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
        killed = process.wait() == -signal.SIGKILL
    told = said.read_text()
    assert killed or process.returncode == 0, told
    last = re.sub(r"fold \d+, |, fold \d+|, seed \d+|:.*", "", (told.splitlines() or ["start"])[-1])
    return Ended(None if killed else 0, last, time.monotonic() - began)


@pytest.mark.slow
def test_killed_twenty_times_at_random_moments_the_run_is_the_same(tmp_path: Path) -> None:
    lasts = until(small_run(tmp_path, "whole"), tmp_path / "said", 600).seconds
    whole, out = results(tmp_path / "whole"), tmp_path / "killed"
    rng = np.random.default_rng(20)
    phases: Counter[str] = Counter()
    ends = 0
    while phases.total() < 20 or out.exists():
        more = ["--resume"] if out.exists() else []
        # Every other time counted from the first word: loading of packages is half of so short a run.
        counted = bool(phases.total() % 2)
        moment = rng.uniform(0, lasts / (1 + counted))
        ended = until([*small_run(tmp_path, "killed"), *more], tmp_path / "said", moment, from_word=counted)
        if ended.code is None:
            phases[ended.phase] += 1
            continue
        assert results(out) == whole
        shutil.rmtree(out)
        ends += 1
    logging.info("%.1f s a run; killed in %s; %d runs then ended alike", lasts, dict(phases), ends)
    assert len(phases) > 3


def test_what_a_killed_process_had_half_written_is_removed_below_a_folder_alone(tmp_path: Path) -> None:
    place = tmp_path / "fold-1"
    write_text(place / "model" / "kept.json", "{}")
    with replacing(place / "model" / "predictions.npz") as part:
        name = part.name
    for folder in (tmp_path, place, place / "model"):
        (folder / name).touch()
    remove_halves(place)
    assert leftovers(tmp_path) == [str(tmp_path / name)]
    assert sorted(path.name for path in place.rglob("*")) == ["kept.json", "model", "predictions.npz"]
    remove_halves(tmp_path / "absent")
