"""The student before and after the sum: accuracy, operators, bytes, latency, instructions of both.

python benchmarks/activation_twins.py RUN-PRE RUN-POST docs/results/activation_twins.md

The runs have the same folds, seeds and teachers, and students of `activation` pre and post. Accuracy is
paired over held-out subjects; the rest is of the first fold and seed. Latency is that of LiteRT with one
thread, the files in turn, round after round, so that other work on the machine meets all alike.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from exported import instructions, machine, memory, table
from topokd_bench.npu import estimate
from topokd_export.c.tflite_reader import read_integer_graph
from topokd_export.describe import describe_tflite
from topokd_export.quantise import write_int8
from topokd_export.student import Student, int8_of, load_student
from topokd_export.tflite_writer import write_tflite

from topokd_edge.bundle import open_model
from topokd_edge.evaluate.compare import compare
from topokd_edge.evaluate.run_table import evaluate_run
from topokd_edge.files import write_json, write_text
from topokd_edge.run import DISTILLED_STUDENT, INT8_STUDENT, SCRATCH_STUDENT, Run

MODELS = (SCRATCH_STUDENT, DISTILLED_STUDENT, INT8_STUDENT)
CASES = ("cortex-m4:BLK", "cortex-m4:SMLAD")
NPU = "ethos-u55-128"
ROUNDS, CALLS = 60, 60


def facts(run: Run, student: Student) -> tuple[dict[str, Any], dict[str, bytes]]:
    """What is counted of a student, and its files."""
    files = {"float32": write_tflite(student.graph), "int8": write_int8(*int8_of(run, student))}
    graph = read_integer_graph(files["int8"])
    found: dict[str, Any] = {
        "network": student.model.spec.name,
        "parameters": sum(item.numel() for item in student.model.parameters()),
        "operators": describe_tflite(files["int8"]).operators,
        "bytes": {name: len(content) for name, content in files.items()},
        **memory(graph),
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "student_int8.tflite"
        path.write_bytes(files["int8"])
        made = estimate(path, NPU)
        found["npu"] = {"cycles": made.cycles, "latency_ms": (made.latency_ms or {})["p50"], **made.versions}
    found["cores"] = instructions(files["int8"], student.app, CASES)
    return found, files


def latency(files: dict[str, bytes], window: np.ndarray) -> dict[str, dict[str, float]]:
    """Least and median microseconds of each file by XNNPACK, in turn, one window at a time."""
    with tempfile.TemporaryDirectory() as folder:
        opened = {}
        for index, (name, content) in enumerate(files.items()):
            path = Path(folder) / f"{index}.tflite"
            path.write_bytes(content)
            opened[name] = open_model(path)
        native = {name: model.prepare(window) for name, model in opened.items()}
        taken: dict[str, list[float]] = {name: [] for name in files}
        for number in range(ROUNDS + 1):
            for name, model in opened.items():
                for _ in range(CALLS):
                    began = time.perf_counter()
                    model.invoke(native[name])
                    if number:  # the first round is to warm up
                        taken[name].append(1e6 * (time.perf_counter() - began))
    return {
        name: {"min_us": float(np.min(values)), "p50_us": float(np.median(values))}
        for name, values in taken.items()
    }


def accuracy(runs: dict[str, Run]) -> tuple[list[list[str]], list[dict[str, Any]]]:
    """Rows of the table, and the verdict on each model, post against pre, over subjects."""
    evaluated = {name: evaluate_run(run) for name, run in runs.items()}
    rows, compared = [], []
    for model in MODELS:
        scores = {
            name: {item["subject"]: item["models"][model] for item in document["subjects"]}
            for name, document in evaluated.items()
        }
        found = compare(f"{model} (pre)", f"{model} (post)", scores["pre"], scores["post"])
        compared.append(found.to_json())
        low, high = found.ci95 or (float("nan"), float("nan"))
        means = [f"{100 * np.mean(list(scores[name].values())):.1f}" for name in ("pre", "post")]
        interval = f"{100 * low:+.1f} to {100 * high:+.1f}"
        rows.append(
            [model, *means, f"{100 * found.difference:+.1f}", interval, f"{found.p:.3f}", found.verdict]
        )
    return rows, compared


def counted(found: dict[str, dict[str, Any]], timed: dict[str, dict[str, float]]) -> list[list[str]]:
    def row(name: str, of: Any) -> list[str]:
        return [name, *(of(activation, found[activation]) for activation in ("pre", "post"))]

    kinds = sorted({kind for item in found.values() for kind in item["operators"]})
    return [
        row("parameters", lambda _, item: f"{item['parameters']:,}"),
        row("multiply-accumulates", lambda _, item: f"{item['products']:,}"),
        row("operators of the int8 file", lambda _, item: str(sum(item["operators"].values()))),
        *(row(f"- {kind}", lambda _, item, kind=kind: str(item["operators"].get(kind, 0))) for kind in kinds),
        *(
            row(f"bytes, {name}", lambda _, item, name=name: f"{item['bytes'][name]:,}")
            for name in ("float32", "int8")
        ),
        row("C: RAM, bytes", lambda _, item: f"{item['ram_bytes']:,}"),
        *(
            row(f"C: {case}, {what}", lambda _, item, case=case, how=how: how(item, item["cores"][case]))
            for case in CASES
            for what, how in (
                ("instructions", lambda item, core: f"{core['instructions']:,}"),
                ("instructions per MAC", lambda item, core: f"{core['instructions'] / item['products']:.2f}"),
                ("flash, bytes", lambda item, core: f"{core['flash_bytes']:,}"),
            )
        ),
        row(
            f"{NPU}, modelled by vela, cycles / ms",
            lambda _, item: f"{item['npu']['cycles']:,} / {item['npu']['latency_ms']:.3f}",
        ),
        *(
            row(
                f"LiteRT {name}, least / median, us",
                lambda which, _, name=name: "{min_us:.1f} / {p50_us:.1f}".format(**timed[f"{which} {name}"]),
            )
            for name in ("float32", "int8")
        ),
    ]


def main() -> None:
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    runs = {"pre": Run.open(Path(sys.argv[1])), "post": Run.open(Path(sys.argv[2]))}
    out = Path(sys.argv[3])
    rows, compared = accuracy(runs)
    found, files, window = {}, {}, np.empty(0, np.float32)
    for name, run in runs.items():
        place = run.finished()[0]
        student = load_student(run, place.fold, place.seed)
        if student.model.spec.activation != name:
            sys.exit(f"{run.folder}: its student has activation = {student.model.spec.activation!r}")
        found[name], made = facts(run, student)
        files |= {f"{name} {precision}": content for precision, content in made.items()}
        window = student.normalised(student.windows.of_subjects(student.held_out)[:1])[0]
    timed, told = latency(files, window), machine()
    data = runs["pre"].data
    parts = [
        "# The student before and after the sum",
        f"{data['windows']} windows of {len(data['subjects'])} subjects, {len(data['channels'])} channels, "
        f"recipe {runs['pre'].recipe['name']}, {len(runs['pre'].folds)} folds, seeds "
        f"{runs['pre'].recipe['seeds']}; the same teachers, folds and seeds for both. Accuracy in %, mean "
        "over held-out subjects.",
        table(["model", "pre", "post", "difference", "95 % interval", "p", "post is"], rows),
        "The student of the first fold:",
        table(["", "pre", "post"], counted(found, timed)),
        f"{told['cpu']}, one thread, {ROUNDS} rounds of {CALLS} calls of each file in turn; load "
        f"{told['load'][0]}. Instructions: ziglang {told['versions']['ziglang']}, -O2, counted by Unicorn, "
        "answers equal to TensorFlow Lite Micro's.",
    ]
    write_text(out, "\n\n".join(parts) + "\n")
    write_json(
        out.with_suffix(".json"),
        {"comparisons": compared, "students": found, "latency": timed, "machine": told},
    )
    print(out.read_text("utf-8"))


if __name__ == "__main__":
    main()
