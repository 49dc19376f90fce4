"""Does bfloat16 change what networks learn? python benchmarks/precision.py WINDOWS OUT.md [--seeds N]

Every subject is tested once, with the next one to choose the epoch. In each fold the same networks learn in
float32 and in bfloat16, from the same weights and batches; OUT.json beside OUT.md has all digits. On a
machine without fast bfloat16 there is nothing to compare.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from topokd_edge.data.split import Fold
from topokd_edge.data.windowset import WindowSet
from topokd_edge.distill.inputs import Inputs
from topokd_edge.distill.parts import Training
from topokd_edge.distill.precision import fast_bfloat16
from topokd_edge.distill.preprocessing import fit_and_apply
from topokd_edge.distill.recipe import Topology
from topokd_edge.distill.tasks import LabelTask
from topokd_edge.distill.trainer import Subset, predict, train
from topokd_edge.evaluate.compare import compare
from topokd_edge.files import write_json, write_text
from topokd_edge.models.wrn import WideResNet, WRNSpec
from topokd_edge.progress import silent

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
EPOCHS = {"student": 10, "topology teacher": 5}
PRECISIONS = ("float32", "bfloat16")
Row = dict[str, Any]


def learn(network: str, inputs: Inputs, y: torch.Tensor, parts: tuple[torch.Tensor, ...], seed: int) -> Row:
    """Train one network in each precision; return accuracy on the test part, and seconds of an epoch."""
    fit, validation, test = parts
    classes, strided = int(y.max()) + 1, 2 if inputs.ndim == 4 else 1
    row: Row = {}
    for precision in PRECISIONS:
        torch.manual_seed(seed)
        model = WideResNet(WRNSpec(inputs.ndim - 2, 16, 1, inputs.shape[1], classes, strided)).to(DEVICE)
        settings = Training(epochs=EPOCHS[network], precision=precision)
        with tempfile.TemporaryDirectory() as folder:
            began = time.process_time()
            task, subset = LabelTask(model, inputs, y), Subset(fit, validation)
            train(task, subset, settings, seed=seed, folder=Path(folder), meta={})
        row[f"{precision}_cpu_s"] = (time.process_time() - began) / settings.epochs
        right = predict(model, inputs, test).argmax(1) == y[test]
        row[precision] = right.float().mean().item()
    return row


def measure(windows: WindowSet, every: int, seeds: int) -> list[Row]:
    """Return a row for every subject, network and seed; `every` n-th window of a subject is used."""
    rows: list[Row] = []
    people = windows.subjects
    for number, tested in enumerate(people):
        choosing = people[(number + 1) % len(people)]
        others = tuple(name for name in people if name not in (tested, choosing))
        fold = Fold(number + 1, (tested,), (choosing,), others)
        with tempfile.TemporaryDirectory() as cache:
            topology = Topology(size=(32, 32))
            views, _ = fit_and_apply(windows, fold, topology, Path(cache), DEVICE, silent, per="sensor")
            parts = tuple(
                torch.from_numpy(windows.of_subjects(names)[::every]).to(DEVICE)
                for names in (others, (choosing,), (tested,))
            )
            assert views.images is not None
            for network, inputs in (("student", views.signals), ("topology teacher", views.images)):
                for seed in range(seeds):
                    made = learn(network, inputs, views.y, parts, seed)
                    rows.append({"network": network, "subject": tested, "seed": seed, **made})
                    sys.stderr.write(f"{rows[-1]}\n")
    return rows


def line(network: str, rows: list[Row]) -> str:
    """Return the table's line of a network: subjects' means over seeds are compared."""
    own = [row for row in rows if row["network"] == network]
    scores: dict[str, dict[str, float]] = {}
    for precision in PRECISIONS:
        people = {row["subject"] for row in own}
        scores[precision] = {
            name: float(np.mean([row[precision] for row in own if row["subject"] == name])) for name in people
        }
    found = compare(*PRECISIONS, *scores.values())
    low, high = found.ci95 or (float("nan"),) * 2
    apart = [
        abs(row["float32"] - other["float32"])
        for row in own for other in own
        if row["subject"] == other["subject"] and row["seed"] < other["seed"]
    ]  # fmt: skip
    means = " | ".join(f"{100 * np.mean([*scores[name].values()]):.1f}" for name in PRECISIONS)
    ratio = np.median([row["float32_cpu_s"] / row["bfloat16_cpu_s"] for row in own])
    return (
        f"| {network} | {len(own)} | {means} | {100 * found.difference:+.1f} ({100 * low:+.1f} to "
        f"{100 * high:+.1f}), {found.verdict} | {100 * np.mean(apart):.1f} | {ratio:.2f} |"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("windows", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--every", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=2)
    given = parser.parse_args()
    if not fast_bfloat16(DEVICE):
        sys.stderr.write("this machine has no fast bfloat16: nothing to compare\n")
        return 1
    rows = measure(WindowSet.open(given.windows), given.every, given.seeds)
    head = (
        "| network | trainings each | float32 % | bfloat16 % | difference, points (95 % over subjects) "
        "| two seeds apart, points | CPU time, float32 / bfloat16 |\n|---|---:|---:|---:|---|---:|---:|"
    )
    text = "\n".join([head, *(line(network, rows) for network in EPOCHS)])
    write_text(given.out, f"# Learning in bfloat16\n\n{text}\n")
    write_json(given.out.with_suffix(".json"), {"every": given.every, "rows": rows})
    sys.stdout.write(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
