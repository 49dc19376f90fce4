"""Several processes on one batch: gradients, statistics and students of one process; none waits in vain.

The processes of a test run this file itself, see `main`.
"""

from __future__ import annotations

import json
import os
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
from topokd_edge.errors import TopokdError
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
STEPS = [(1, 7), (2, 7), (1, 1)]
"""Dimensions and rows; of a single row the first of two processes has none."""
SINGLE = 1e-5
"""Of float32: sums in another order differ by 2**-24 of their largest term, and steps carry that on; it is
3e-7 here. Statistics of a share instead of the batch would change weights by more than 0.01."""


def tiny() -> Recipe:
    return parse_recipe(RECIPE, "tiny", [])


def step(dims: int, rows: int) -> dict[str, np.ndarray]:
    """Answers, gradients and running statistics of one step in float64, with a loss that compares rows."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = shared.network(WRNSpec(dims=dims, depth=10, width=1, in_channels=2, classes=3)).double()
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
    for dims, rows in STEPS:
        np.savez(folder / f"step-{rank}-{dims}-{rows}.npz", **step(dims, rows))
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
    said = [process.communicate(timeout=300)[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 9], said
    return folder


def difference(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    assert one.keys() == other.keys()
    return max(float(np.abs(one[key].astype(float) - other[key]).max()) for key in one)


@pytest.mark.parametrize(("dims", "rows"), STEPS)
def test_a_step_has_the_gradients_and_statistics_of_one_process(both: Path, dims: int, rows: int) -> None:
    alone = step(dims, rows)
    assert type(shared.network(WRNSpec(1, 10, 1, 2, 3))).__name__ == "WideResNet"
    assert min(np.abs(value).max() for value in alone.values()) > 1e-9
    for rank in range(2):
        found = dict(np.load(both / f"step-{rank}-{dims}-{rows}.npz"))
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


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
