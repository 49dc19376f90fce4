"""What int8 costs a run's students, by how it is made, and which tensors it is lost in.

python benchmarks/int8_cost.py RUN docs/results/int8.md

Every finished fold: the float student and each int8 file on the held-out windows; which tensors change
answers when rounded alone, on calibration windows; which classes lose; what noise the float student bears.
The students that learn on with rounding are trained into RUN, unless they are there.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from topokd_export.deploy import Array
from topokd_export.int8_model import make_int8, torch_logits
from topokd_export.layers import layers_report
from topokd_export.ranges import find_ranges
from topokd_export.simulate import simulate
from topokd_export.student import Student, int8_settings, load_student

from topokd_edge.bundle import open_model
from topokd_edge.distill.int8_part import Int8
from topokd_edge.evaluate.compare import interval_of_difference, sign_flip_test
from topokd_edge.files import write_json, write_text
from topokd_edge.progress import silent
from topokd_edge.run import Run

FILES = {
    "min-max": Int8(),
    "percentile": Int8(ranges="percentile"),
    "mse": Int8(ranges="mse"),
    "min-max, bias correction": Int8(bias_correction=True),
    "mse, bias correction": Int8(ranges="mse", bias_correction=True),
}
TRAINED = "trained with rounding"
WEIGHTS = {"weights int8, activations float": 8, "weights int4, activations float": 4}
NOISE = (0.01, 0.02, 0.04)
"""Standard deviations of Gaussian noise on the float student's input, in those of the sensor."""


@dataclass(frozen=True)
class Measured:
    """One fold: right or wrong of every held-out window by how it was answered; its tensors; its classes."""

    fold: int
    right: dict[str, npt.NDArray[np.bool_]]
    y: npt.NDArray[np.int64]
    layers: list[dict[str, Any]]
    movement: npt.NDArray[np.float64]
    step: float


def measure(run: Run, fold: int, seed: int, trained: Int8) -> Measured:
    student = load_student(run, fold, seed)
    index = student.windows.of_subjects(student.held_out)
    x, y = student.normalised(index), np.asarray(student.windows.y[index])
    said = dict(float_answers(student, x))
    for name, settings in {**FILES, TRAINED: trained}.items():
        said[name] = file_answers(make_int8(run, student, settings, silent).content, x)
    windows = student.calibration(128)
    graph = student.graph.with_floored_weights()
    layers = layers_report(graph, windows, find_ranges(graph, student.calibration(), "min-max"))
    return Measured(
        fold,
        {name: logits.argmax(1) == y for name, logits in said.items()},
        y,
        [item.to_dict() for item in layers],
        x.std(2).mean(1).astype(np.float64),
        layers[0].step,
    )


def float_answers(student: Student, x: Array) -> Iterator[tuple[str, Array]]:
    """Yield the float student's logits, as it is, with rounded weights alone, and under noise."""
    yield "float32", torch_logits(student, x)
    last = student.graph.ops[-1].name
    with torch.no_grad():
        for name, bits in WEIGHTS.items():
            yield name, simulate(student.graph, torch.from_numpy(x), {}, bits=bits)[last].numpy()
    rng = np.random.default_rng(0)
    for deviation in NOISE:
        noisy = x + deviation * rng.standard_normal(x.shape).astype(np.float32)
        yield f"float32, input noise {deviation}", torch_logits(student, noisy)


def file_answers(content: bytes, x: Array) -> Array:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "student_int8.tflite"
        path.write_bytes(content)
        return open_model(path).run(x)


def table(columns: list[str], rows: list[list[str]]) -> str:
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def losses(found: list[Measured]) -> tuple[str, dict[str, Any]]:
    """Points lost per fold, and over folds: mean, interval and p of a sign-flip test."""
    rows, facts = [], {}
    for name in found[0].right:
        if name == "float32":
            continue
        lost = np.array([item.right["float32"].mean() - item.right[name].mean() for item in found])
        mean, interval = interval_of_difference(lost)
        p = sign_flip_test(lost)[0]
        low, high = interval or (float("nan"), float("nan"))
        rows.append(
            [
                name,
                *(f"{100 * value:+.1f}" for value in lost),
                f"**{100 * mean:+.1f}**",
                f"{100 * low:+.1f} to {100 * high:+.1f}",
                f"{p:.3f}",
            ]
        )
        facts[name] = {"lost": lost.tolist(), "mean": mean, "ci95": [low, high], "p": p}
    heads = ["points lost", *(f"fold {item.fold}" for item in found), "mean", "95 % interval", "p"]
    accuracy = ["float32, accuracy %", *(f"{100 * item.right['float32'].mean():.1f}" for item in found)]
    mean = f"{100 * np.mean([item.right['float32'].mean() for item in found]):.1f}"
    return table(heads, [[*accuracy, mean, "", ""], *rows]), facts


def tensors(found: list[Measured]) -> str:
    """Mean over folds of what min-max rounding does to each tensor."""
    rows = []
    for place, name in enumerate(item["name"] for item in found[0].layers):
        of = [item.layers[place] for item in found]

        def mean(key: str, of: list[dict[str, Any]] = of) -> float:
            values = [entry[key] for entry in of if entry[key] is not None]
            return float(np.mean(values)) if values else float("nan")

        rows.append(
            [
                name,
                f"{mean('low'):.1f} to {mean('high'):.1f}",
                f"{mean('step'):.3f}",
                f"{100 * mean('range_used'):.0f} %",
                f"{100 * mean('saturated'):.2f} %",
                f"{mean('signal_to_noise_db'):.1f}",
                f"{mean('own_db'):.1f}",
                "-" if np.isnan(mean("quiet_db")) else f"{mean('quiet_db'):.1f}",
                f"{100 * mean('changed'):.1f} %",
            ]
        )
    heads = ["tensor", "range", "step", "range used", "saturated", "dB, all int8", "dB, alone"]
    return table([*heads, "dB, quiet windows", "answers changed alone"], rows)


def classes(found: list[Measured], names: tuple[str, ...]) -> str:
    """Each class: movement within its windows, in steps of the input, and its accuracy in three ways."""
    y = np.concatenate([item.y for item in found])
    steps = np.concatenate([item.movement / item.step for item in found])
    columns = ("float32", "min-max", TRAINED)
    right = {name: np.concatenate([item.right[name] for item in found]) for name in columns}
    order = sorted(np.unique(y), key=lambda label: float(np.median(steps[y == label])))
    rows = [
        [
            names[label].replace("_", " "),
            f"{np.median(steps[y == label]):.2f}",
            *(f"{100 * right[name][y == label].mean():.1f}" for name in columns),
        ]
        for label in order
    ]
    return table(["class", "movement, input steps", *(f"{name}, %" for name in columns)], rows)


def page(run: Run, found: list[Measured], asked: Int8) -> str:
    """Return the result as Markdown, without the command."""
    parts = [
        f"# {run.recipe['name']}: what int8 costs",
        f"{len(found)} folds, {sum(len(item.y) for item in found)} held-out windows, one seed; files run by "
        "XNNPACK; the interval and p are over folds. A negative loss is a gain. Calibration windows, 256, "
        f"are of fit subjects; '{TRAINED}' learned on from {asked.ranges} ranges for {asked.training.epochs} "
        "epochs, labels and teachers in the loss, its epoch chosen as that of the float student.",
        losses(found)[0],
        "## Which tensors",
        "Min-max ranges, 128 calibration windows, mean over folds. *Quiet windows*: movement within a window "
        "against the error in it, the window at the lowest tenth.",
        tensors(found),
        "## Which classes",
        "Movement: standard deviation within a window, mean over channels, median over windows, in steps of "
        "the input.",
        classes(found, run.windows().class_names),
    ]
    return "\n\n".join(parts) + "\n"


def write(run: Run, found: list[Measured], asked: Int8, out: Path, command: str) -> None:
    """Write the page, and every digit as JSON beside it."""
    write_text(out, f"{page(run, found, asked)}\n## Command\n\n```sh\n{command}\n```\n")
    digits = {"lost": losses(found)[1], "tensors": {str(item.fold): item.layers for item in found}}
    write_json(out.with_suffix(".json"), digits)


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    torch.set_num_threads(1)
    run, out = Run.open(Path(sys.argv[1])), Path(sys.argv[2])
    asked = int8_settings(run, method="train", ranges="percentile")
    seed = run.finished()[0].seed
    found = []
    for place in run.finished():
        if place.seed == seed:
            print(f"fold {place.fold}", file=sys.stderr)
            found.append(measure(run, place.fold, seed, asked))
    write(run, found, asked, out, f"python benchmarks/int8_cost.py {' '.join(sys.argv[1:])}")
    print(losses(found)[0])


if __name__ == "__main__":
    main()
