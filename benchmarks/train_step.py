"""Time training beside a plain loop: python benchmarks/train_step.py [--out FOLDER] [--epochs N] [--seeds N]

The peer is benchmarks/plain_loop.py. Both start from the same weights, learn the same made windows (18
channels of 125 samples, images of 32x32) for as many epochs, and take turns epoch by epoch, so that what else
the machine does meets both. Uses the GPU where there is one. Writes train_step.json and train_step.md, by
default in docs/results.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from plain_loop import PlainLoop, PlainNet
from topokd_bench import device as machine
from torch import Tensor

from topokd_edge.distill.inputs import Inputs
from topokd_edge.distill.method import Distilling
from topokd_edge.distill.parts import Training
from topokd_edge.distill.precision import fast_bfloat16
from topokd_edge.distill.tasks import DistillTask, LabelTask
from topokd_edge.distill.teacher import Teacher
from topokd_edge.distill.trainer import Subset, Task, steps_per_epoch, train
from topokd_edge.evaluate.compare import interval_of_difference
from topokd_edge.files import read_json, write_json, write_text
from topokd_edge.models.wrn import WideResNet, WRNSpec
from topokd_edge.topology.image import persistence_images
from topokd_edge.topology.params import fit_params

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
CLASSES, CHANNELS, LENGTH = 12, 18, 125
FIT, HELD = 3072, 768
CASES = {
    "student from scratch": (),
    "student, two teachers": (0.0,),
    "student, two teachers, mixup": (0.2,),
    "topology teacher": None,
}
Row = dict[str, Any]


class Pause(Exception):
    """Our training stops after each epoch, and goes on from its files."""


def windows(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return made signals, their images, and classes: three swings each, blurred by person and noise."""
    rng = np.random.default_rng(seed)
    y = np.arange(FIT + HELD) % CLASSES
    rates, heights = rng.uniform(0.05, 0.6, (CLASSES, 3)), rng.normal(0, 1, (CLASSES, 3, CHANNELS))
    person = 1 + 0.4 * rng.standard_normal((48, 3, CHANNELS))
    worn = heights[y] * person[(np.arange(len(y)) >= FIT) * 32 + rng.integers(0, 16, len(y))]
    phase = rng.uniform(0, 6, (len(y), 3, 1)) + rates[y][:, :, None] * np.arange(LENGTH)
    x = np.einsum("nkc,nkt->nct", worn, np.sin(phase)) + rng.normal(0, 2.0, (len(y), CHANNELS, LENGTH))
    x = (x / x[:FIT].std()).astype(np.float32)
    images, _ = persistence_images(x, fit_params(x[:FIT], size=(32, 32)))
    images = (images - images[:FIT].mean()) / images[:FIT].std()
    return x, images.astype(np.float32), y


def network(dims: int, width: int, seed: int) -> WideResNet:
    torch.manual_seed(seed)
    return WideResNet(WRNSpec(dims, 16, width, CHANNELS, CLASSES, dims)).to(DEVICE)


def one_epoch(task: Task, subset: Subset, training: Training, folder: Path, seed: int = 0) -> None:
    """Run the next epoch of our training, kept in `folder`."""
    calls = iter(range(2))

    def stop(_name: str, done: int, _total: int, _note: str = "") -> None:
        if next(calls) and done < training.epochs:
            raise Pause

    with suppress(Pause):
        train(task, subset, training, seed=seed, folder=folder, meta={}, progress=stop)


def timed(run: Callable[[], None]) -> tuple[float, float]:
    wall, busy = time.perf_counter(), time.process_time()
    run()
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - busy


class Bench:
    """The made set, on the device and as numpy, and teachers that have learned it."""

    def __init__(self) -> None:
        self.arrays = windows()
        x, images, y = (torch.from_numpy(array).to(DEVICE) for array in self.arrays)
        self.inputs: dict[str, Inputs] = {"signal": x, "topology": images.half()}
        self.y: Tensor = y
        places = torch.arange(len(y), device=DEVICE)
        self.subset = Subset(places[:FIT], places[FIT:])
        self.teachers: dict[Any, WideResNet] = {}
        for name, model in (("signal", network(1, 2, 100)), ("topology", network(2, 1, 101))):
            with tempfile.TemporaryDirectory() as folder:
                task = LabelTask(model, self.inputs[name], y)
                self.teachers[name] = train(
                    task, self.subset, Training(epochs=4), seed=0, folder=Path(folder), meta={}
                )

    def plain(self, case: str, model: WideResNet, training: Training) -> PlainLoop:
        """Return the peer's training of a case."""
        x, images, y = self.arrays
        alphas = CASES[case]
        arrays = [images] if alphas is None else [x, images] if alphas else [x]
        teachers = [PlainNet(teacher) for teacher in self.teachers.values()] if alphas else []
        for teacher in teachers:
            teacher.requires_grad_(True)
        held = [array[FIT:] for array in arrays[:1]], y[FIT:]
        fit = [array[:FIT] for array in arrays]
        alpha = alphas[0] if alphas else 0.0
        return PlainLoop(PlainNet(model), fit, y[:FIT], held, training, teachers, alpha)

    def ours(self, case: str, model: WideResNet) -> Task:
        """Return our task of a case."""
        alphas = CASES[case]
        if not alphas:
            return LabelTask(model, self.inputs["topology" if alphas is None else "signal"], self.y)
        teachers: Any = {
            name: Teacher(teacher, self.inputs[name], self.subset.fit)
            for name, teacher in self.teachers.items()
        }
        settings = Distilling(alpha_signal=alphas[0], alpha_topology=alphas[0])
        return DistillTask(model, self.inputs["signal"], self.y, teachers, settings)

    def run(self, case: str, epochs: int, seed: int) -> Row:
        """Train once each way, in turns; return times of every epoch and the accuracies reached."""
        rate = 0.05 if CASES[case] else 0.1
        precisions = ["float32", *(["bfloat16"] if fast_bfloat16(DEVICE) else [])]
        start = network(2 if CASES[case] is None else 1, 1, seed)
        plain = self.plain(case, start, Training(epochs=epochs, learning_rate=rate))
        torch.manual_seed(seed)
        with tempfile.TemporaryDirectory() as scratch:
            arms: dict[str, Callable[[], None]] = {"plain": plain.run_epoch}
            for name in precisions:
                model = network(start.spec.dims, 1, seed)
                settings = Training(epochs=epochs, learning_rate=rate, precision=name)  # type: ignore[arg-type]
                task, folder = self.ours(case, model), Path(scratch) / name
                arms[name] = lambda task=task, settings=settings, folder=folder: one_epoch(  # type: ignore[misc]
                    task, self.subset, settings, folder, seed
                )
            times = [{name: timed(arm) for name, arm in arms.items()} for _ in range(epochs)]
            found = {
                name: read_json(Path(scratch) / name / "checkpoint.json")["validation_accuracy"]
                for name in precisions
            }
        return {
            "case": case,
            "seed": seed,
            "times": times,
            "accuracy": {"plain": max(plain.accuracies), **found},
        }


def line(case: str, rows: list[Row]) -> tuple[str, Row]:
    """Return the table's line of a case, and its figures: medians over epochs and seeds."""
    own = [row for row in rows if row["case"] == case]
    epochs = [times for row in own for times in row["times"][1:]]
    steps = steps_per_epoch(FIT, 64)
    arms = [*own[0]["accuracy"]]
    made: Row = {"case": case}
    for arm in arms:
        made[arm] = {
            "ms_per_step": 1e3 * float(np.median([times[arm][0] for times in epochs])) / steps,
            "speedup_wall": float(np.median([times["plain"][0] / times[arm][0] for times in epochs])),
            "speedup_cpu": float(np.median([times["plain"][1] / times[arm][1] for times in epochs])),
            "accuracy": float(np.mean([row["accuracy"][arm] for row in own])),
        }
        gains = np.array([row["accuracy"][arm] - row["accuracy"]["plain"] for row in own])
        made[arm]["gain"], made[arm]["ci95"] = interval_of_difference(gains)
    cells = [case, f"{made['plain']['ms_per_step']:.1f}", f"{100 * made['plain']['accuracy']:.1f}"]
    for arm in ("float32", "bfloat16"):
        if arm not in made:
            cells += ["-"] * 3
            continue
        item = made[arm]
        span = " to ".join(f"{100 * end:+.1f}" for end in item["ci95"] or ())
        cells += [
            f"{item['ms_per_step']:.1f}",
            f"**{item['speedup_wall']:.2f}x** ({item['speedup_cpu']:.2f}x)",
            f"{100 * item['gain']:+.1f}" + (f" ({span})" if span else ""),
        ]
    return f"| {' | '.join(cells)} |", made


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "results")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    bench, rows = Bench(), []
    for seed in range(given.seeds):
        for case in CASES:
            rows.append(bench.run(case, given.epochs, seed))
            sys.stderr.write(f"seed {seed}, {case}: {rows[-1]['accuracy']}\n")
    where = torch.cuda.get_device_name() if DEVICE.type == "cuda" else machine.describe()["cpu"]
    lines, figures = zip(*(line(case, rows) for case in CASES), strict=True)
    head = (
        "| training | plain, ms/step | plain, % | float32, ms/step | faster (CPU time) | accuracy, points "
        "| bfloat16, ms/step | faster (CPU time) | accuracy, points |\n"
        "|---|---:|---:|---:|---|---|---:|---|---|"
    )
    text = "\n".join([head, *lines])
    about = (
        f"Made by `python benchmarks/train_step.py` on {where}, {torch.get_num_threads()} thread(s), torch "
        f"{torch.__version__}; batches of 64, {given.epochs} epochs, {given.seeds} seeds; an epoch's "
        "evaluation and, in ours, its files are timed too. Medians over epochs. Accuracies: best epoch on "
        "held-out made windows; differences from the plain loop, 95 % over seeds."
    )
    write_text(
        given.out / "train_step.md", f"# A step of training, beside a plain loop\n\n{about}\n\n{text}\n"
    )
    write_json(
        given.out / "train_step.json",
        {"device": where, "threads": torch.get_num_threads(), "python": platform.python_version(),
         "torch": torch.__version__, "epochs": given.epochs, "figures": figures, "rows": rows},
    )  # fmt: skip
    sys.stdout.write(f"{about}\n\n{text}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
