"""Several processes on one batch: gradients, statistics and students of one process; none waits in vain.

The processes of a test run this file itself, see `main`.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from made_training import waves
from safetensors.numpy import load_file

from topokd_edge.distill import distributed, shared
from topokd_edge.distill.recipe import Recipe, parse_recipe
from topokd_edge.distill.run_training import continue_run, start_run, train_run
from topokd_edge.errors import TopokdError, UsageError
from topokd_edge.files import write_text
from topokd_edge.models.wrn import WRNSpec
from topokd_edge.run import TRAINED

RECIPE = """
name = "tiny"
split = { folds = 3, validation_subjects = 1 }
topology = { size = [16, 16] }
augmentation = { rotation = 0.1, shift = 0.1, images = "redrawn" }
signal_teacher = { network = { depth = 10 }, training = { epochs = 2, batch_size = 15 } }
topology_teacher = { network = { depth = 10, stem_stride = 2 }, training = { epochs = 2, batch_size = 15 } }

[student]
network = { depth = 10 }
scratch = { epochs = 2, batch_size = 15 }
distilled = { epochs = 2, batch_size = 15, learning_rate = 0.02 }
distilling = { similarity = 10.0, input_noise = 0.1, mixup_share = 0.5 }
"""
"""36 windows to learn from: an epoch has two batches of 15, in shares of 7 and 8, and one of 6."""
STEPS = [(1, 7, "pre"), (2, 7, "pre"), (1, 1, "pre"), (1, 7, "post")]
"""Dimensions, rows and activation; of a single row the first of two processes has none."""
SINGLE = 1e-5
"""Of float32: sums in another order differ by 2**-24 of their largest term, and steps carry that on; it is
3e-7 here. Statistics of a share instead of the batch would change weights by more than 0.01."""


def tiny() -> Recipe:
    return parse_recipe(RECIPE, "tiny", [])


def step(dims: int, rows: int, activation: str) -> dict[str, np.ndarray]:
    """Answers, gradients and running statistics of one step in float64, with a loss that compares rows."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = shared.network(WRNSpec(dims, 10, 1, 2, 3, activation=activation)).double()
        x = torch.randn(rows, 2, *(9,) * dims, dtype=torch.float64) + 1
    logits, maps = model.observe(x, lambda features: features.flatten(1) @ features.flatten(1).T)
    loss = logits[:, 0].square().mean() + sum(1e-4 * item.square().mean() for item in maps)
    loss.backward()
    shared.sum_gradients(model)
    found = {"logits": logits.detach().numpy()}
    found |= {f"gradient of {name}": value.grad.numpy() for name, value in model.named_parameters()}
    found |= {name: value.numpy() for name, value in model.named_buffers()}
    return found | {"evaluated": model.eval()(x).detach().numpy()}


def main(rank: int, size: int, folder: Path) -> None:
    """Be one of several processes: take a step, train a run, and then lose the last process."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", f"file://{folder / 'meeting'}", rank=rank, world_size=size, timeout=distributed.TIMEOUT
    )
    for each in STEPS:
        np.savez(folder / f"step-{rank}-{STEPS.index(each)}.npz", **step(*each))
    with distributed.first_ahead():
        begin = start_run if distributed.first() else continue_run
        run = begin(folder / "several", folder / "data", tiny())
    told: list[str] = []
    train_run(
        run,
        tiny(),
        only_folds=[1],
        device="cpu",
        progress=lambda task, done, total, note="": told.append(task),
        after_fold=lambda run, place: told.append("after"),
    )
    write_text(folder / f"told-{rank}", json.dumps(told))
    distributed.wait()
    if rank == size - 1:
        os._exit(9)
    began = time.monotonic()
    try:
        distributed.wait()
    except TopokdError as error:
        write_text(folder / f"lost-{rank}", f"{time.monotonic() - began} {error}")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes made, and beside it the same run of one process, `alone`."""
    folder = tmp_path_factory.mktemp("both")
    waves(6, 4).save(folder / "data")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-W", "error", __file__]
    processes = [
        subprocess.Popen([*command, str(rank), "2", str(folder)], env=environment, stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    alone = start_run(folder / "alone", folder / "data", tiny())
    train_run(alone, tiny(), only_folds=[1], device="cpu")
    said = [process.communicate(timeout=600)[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 9], said
    return folder


def difference(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    assert one.keys() == other.keys()
    return max(float(np.abs(one[key].astype(float) - other[key]).max()) for key in one)


@pytest.mark.parametrize("each", STEPS)
def test_a_step_has_the_gradients_and_statistics_of_one_process(
    both: Path, each: tuple[int, int, str]
) -> None:
    alone = step(*each)
    assert type(shared.network(WRNSpec(1, 10, 1, 2, 3))).__name__ == "WideResNet"
    assert min(np.abs(value).max() for value in alone.values()) > 1e-9
    for rank in range(2):
        found = dict(np.load(both / f"step-{rank}-{STEPS.index(each)}.npz"))
        assert difference(found, alone) < 1e-9, (rank, difference(found, alone))


def compare(alone: Path, several: Path) -> None:
    """Weights, predictions and the course of every training of fold 1 are equal within float error."""
    for model in TRAINED:
        one, other = alone / "fold-1" / "seed-0" / model, several / "fold-1" / "seed-0" / model
        weights = [load_file(folder / "checkpoint.safetensors") for folder in (one, other)]
        assert difference(*weights) < SINGLE, model
        said = [dict(np.load(folder / "predictions.npz")) for folder in (one, other)]
        assert difference(*said) < SINGLE, model
        assert (said[0]["logits"].argmax(1) == said[1]["logits"].argmax(1)).all()
        lines = [(folder / "metrics.jsonl").read_text().splitlines() for folder in (one, other)]
        for row, line in zip(*lines, strict=True):
            first, second = ({**json.loads(text), "seconds": 0} for text in (row, line))
            assert first["validation_accuracy"] == second["validation_accuracy"]
            assert second == pytest.approx(first, rel=SINGLE, abs=SINGLE)


def test_two_processes_train_the_students_of_one(both: Path) -> None:
    compare(both / "alone", both / "several")


def test_the_first_process_alone_writes_and_talks(both: Path) -> None:
    files = [
        {str(path.relative_to(both / run)) for path in (both / run).rglob("*")}
        for run in ("alone", "several")
    ]
    assert files[0] == files[1]
    told = [json.loads((both / f"told-{rank}").read_text()) for rank in range(2)]
    assert told[0][-1] == "after" and told[1] == []
    environment = json.loads((both / "several" / "environment.json").read_text())
    assert environment["processes"] == 2


def test_who_waits_for_a_process_that_has_ended_is_told_at_once(both: Path) -> None:
    seconds, _, message = (both / "lost-0").read_text().partition(" ")
    assert float(seconds) < 10
    assert "process 1 of 2: another process has ended" in message and "--resume" in message


def command(data: Path, out: str, *more: str) -> list[str]:
    recipe = data.parent / "tiny.toml"
    write_text(recipe, RECIPE)
    program = str(Path(sys.executable).with_name("topokd-edge"))
    return [program, "train", f"--data={data}", f"--recipe={recipe}", f"--out={data.parent / out}",
            "--folds=1", "--device=cpu", *more]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("way", ["devices", "torchrun", "nodes"])
def test_started_by_fabric_by_torchrun_and_on_two_nodes(both: Path, way: str) -> None:
    quiet = {**os.environ, "OMP_NUM_THREADS": "1"}
    here = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    plain = command(both / "data", way)
    started = {
        "devices": [([*plain, "--devices=2", "--json"], quiet)],
        "torchrun": [
            ([str(Path(sys.executable).with_name("torchrun")), "--nproc-per-node=2", *plain], quiet)
        ],
        "nodes": [([*plain, "--nodes=2"], {**quiet, **here, "NODE_RANK": str(rank)}) for rank in range(2)],
    }[way]
    processes = [
        subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for words, env in started
    ]
    said = [process.communicate(timeout=600) for process in processes]
    assert all(process.returncode == 0 for process in processes), said
    compare(both / "alone", both / way)
    if way == "devices":  # one document, and nothing of Fabric's
        assert json.loads(said[0][0])["finished"] == [{"fold": 1, "seed": 0}]
        assert "Lightning" not in said[0][1] and "Warn" not in said[0][1]


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_the_other_and_the_run_goes_on(both: Path, rank: int) -> None:
    words = command(both / "data", f"killed-{rank}", "--devices=2")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    while "teacher.topology" not in process.stderr.readline():
        pass
    (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    began = time.monotonic()
    os.kill([process.pid, int(child)][rank], signal.SIGKILL)
    said = process.communicate(timeout=60)[1]
    while Path(f"/proc/{child}").exists():
        assert time.monotonic() - began < 60
        time.sleep(0.1)
    assert "another process has ended" in said and "Traceback" not in said
    subprocess.run([*words, "--resume"], check=True, capture_output=True, env=environment, timeout=600)
    compare(both / "alone", both / f"killed-{rank}")


@pytest.mark.slow
def test_folds_side_by_side_on_one_folder_are_those_of_one_process(both: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for out in ("in-turn", "aside"):
        words = command(both / "data", out)
        first = subprocess.Popen(words, stderr=subprocess.PIPE, env=environment)
        while not (both / out / "folds.json").exists():
            assert first.poll() is None
            time.sleep(0.05)
        if out == "in-turn":
            first.communicate(timeout=600)
        other = [*words, "--folds=2", "--resume"]
        subprocess.run(other, check=True, capture_output=True, env=environment, timeout=600)
        first.communicate(timeout=600)
        assert first.returncode == 0
    for model in TRAINED:
        for place in (f"fold-1/seed-0/{model}", f"fold-2/seed-0/{model}"):
            for name in ("checkpoint.safetensors", "predictions.npz"):
                one, other = (both / out / place / name for out in ("in-turn", "aside"))
                assert one.read_bytes() == other.read_bytes(), place


def test_torchrun_and_the_options_must_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="2 processes on each of 2 nodes"):
        distributed.start(4, 1, "cpu")


def test_one_process_starts_nothing_and_waits_for_nobody() -> None:
    distributed.start(1, 1, "auto")
    assert not dist.is_initialized()
    distributed.wait()
    assert distributed.end()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
