"""What an export of all targets gives, and costs, for three students: docs/results/export.md.

python benchmarks/export_table.py RUN docs/results/export.md [--work runs/export-table]

RUN is the run of `topokd-edge demo`: 6 channels of 128 samples of real wrists. No labelled set of 3x500 or
40x100 comes with a package, so two students of these shapes are trained on made signals, within a minute;
their accuracy means nothing beyond float32 against int8. What is measured lies in --work and is not
measured again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from exported import MICRO, agreement, all_answers, instructions, machine, memory, sizes, table
from topokd_export.c.tflite_reader import read_integer_graph
from topokd_export.describe import describe_tflite
from topokd_export.export import ALL_TARGETS
from topokd_export.student import load_student

from topokd_edge.data.recording import LabelInterval, Recording
from topokd_edge.data.recordingset import RecordingSet
from topokd_edge.data.windowset import WindowSet
from topokd_edge.distill.recipe import parse_recipe
from topokd_edge.distill.run_training import continue_run, start_run, train_run
from topokd_edge.evaluate.compare import compare
from topokd_edge.evaluate.run_table import evaluate_run
from topokd_edge.files import read_json, write_json, write_text
from topokd_edge.run import DISTILLED_STUDENT, INT8_STUDENT, Run

MADE = {"3x500": (3, 500, 14), "40x100": (40, 100, 12)}
"""Channels, samples and classes of the students on made signals: the shapes of GENEActiv and PAMAP2."""
REAL = "6x128"
SUBJECTS, EACH = 8, 10
COMPARED = 400
RECIPE = """
name = "made-signals"
split = { folds = 4, validation_subjects = 1 }
signal_teacher = { training = { epochs = 1 } }
topology_teacher = { training = { epochs = 1 } }

[student]
scratch = { epochs = 8, learning_rate = 0.1, batch_size = 32 }
distilled = { epochs = 4, learning_rate = 0.02, batch_size = 32 }
distilling = { teachers = [], mixup_share = 0.0 }
"""


def made_windows(channels: int, length: int, classes: int) -> WindowSet:
    """Noisy waves: the class is the period, the subject its gain and a few percent of the period."""
    rng = np.random.default_rng(0)
    names = tuple(f"wave {index:02}" for index in range(classes))
    periods = np.geomspace(5, 40, classes)
    recordings, y = [], []
    for number in range(SUBJECTS * classes * EACH):
        label, who = number % classes, number // (classes * EACH)
        period = periods[label] * (1 + 0.08 * (who / (SUBJECTS - 1) - 0.5) + rng.normal(0, 0.02))
        phase = np.arange(length) / period + rng.uniform() + 0.3 * np.arange(channels)[:, None]
        wave = (0.6 + 0.1 * who) * np.sin(2 * np.pi * phase) + rng.normal(0, 1.0, (channels, length))
        y.append(label)
        recordings.append(
            Recording(
                subject=str(who + 1), session=None, device="made", rate_hz=50.0, start=None,
                channels=tuple(f"c{index}" for index in range(channels)), units=("1",) * channels,
                samples=wave.astype(np.float32), labels=(LabelInterval(0, length, names[label]),),
                gaps=(), source=f"made#{number}",
            )
        )  # fmt: skip
    order = np.arange(len(y), dtype=np.int64)
    return WindowSet(
        recordings=RecordingSet.of(recordings), recording=order, start=np.zeros_like(order), length=length,
        y=np.array(y, dtype=np.int64), class_names=names, made={"window_seconds": length / 50},
    )  # fmt: skip


def made_run(folder: Path, shape: tuple[int, int, int]) -> Run:
    """Train a student on made signals, one fold, or go on with it."""
    recipe, data = parse_recipe(RECIPE, "made-signals"), folder / "windows"
    if not data.is_dir():
        made_windows(*shape).save(data)
    begin = continue_run if (folder / "run").is_dir() else start_run
    run = begin(folder / "run", data, recipe)
    train_run(run, recipe, only_folds=[1], device="cpu")
    return run


def exported(run: Run, place: Any, out: Path) -> dict[str, Any]:
    """Run `topokd-edge export` with all targets; return what it says, and its seconds."""
    program = "import sys; from topokd_edge.cli import main; sys.exit(main())"
    targets = ["--targets", ",".join(ALL_TARGETS), "--fold", str(place.fold), "--seed", str(place.seed)]
    command = [sys.executable, "-c", program, "export", str(run.folder), "--out", str(out)]
    began, before = time.perf_counter(), os.times()
    child = subprocess.run(
        [*command, *targets, "--overwrite", "--json"], capture_output=True, text=True, check=False
    )
    wall, after = time.perf_counter() - began, os.times()
    if child.returncode != 0:
        sys.exit(child.stderr)
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return {**json.loads(child.stdout), "wall_s": wall, "cpu_s": used}


def measured(run: Run, folder: Path) -> dict[str, Any]:
    """All facts of the student of the first finished fold."""
    place = run.finished()[0]
    student = load_student(run, place.fold, place.seed)
    bundle = folder / "bundle"
    answer = exported(run, place, bundle)
    content = (bundle / "student_int8.tflite").read_bytes()
    description = describe_tflite(content)
    held_out = student.windows.of_subjects(student.held_out)
    chosen = held_out[np.linspace(0, len(held_out) - 1, min(COMPARED, len(held_out))).astype(np.int64)]
    said = all_answers(student, bundle, student.normalised(chosen))
    return {
        "network": student.model.spec.name,
        "parameters": sum(item.numel() for item in student.model.parameters()),
        "operators": description.operators,
        "bytes": sizes(bundle),
        **memory(read_integer_graph(content)),
        "loss": answer["int8"]["loss"],
        "subjects": over_subjects(run),
        "compared_windows": len(chosen),
        "runtimes": agreement(said, float(description.output.scale or 0)),
        "cores": instructions(content, student.app),
        "export_s": {"wall": answer["wall_s"], "cpu": answer["cpu_s"]},
        "machine": machine(),
    }


def over_subjects(run: Run) -> dict[str, Any] | None:
    """Judge int8 against float32 over all subjects, where int8 answers were saved."""
    scores = {
        model: {item["subject"]: item["models"][model] for item in rows if model in item["models"]}
        for rows in (evaluate_run(run)["subjects"],)
        for model in (DISTILLED_STUDENT, INT8_STUDENT)
    }
    found = scores[INT8_STUDENT] and compare(DISTILLED_STUDENT, INT8_STUDENT, *scores.values())
    return found.to_json() if found else None


def once(path: Path, make: Any) -> dict[str, Any]:
    if not path.is_file():
        write_json(path, make())
    return dict(read_json(path))


def rows_of(found: dict[str, dict[str, Any]], key: str, say: Any) -> list[list[str]]:
    """One row for everything that any student has under `key`."""
    names = dict.fromkeys(name for item in found.values() for name in item[key])
    return [
        [name, *(say(item, item[key][name]) if name in item[key] else "-" for item in found.values())]
        for name in names
    ]


def accuracy_rows(found: dict[str, dict[str, Any]]) -> list[list[str]]:
    def interval(ci: list[float] | None, sign: int) -> str:
        ends = sorted(sign * 100 * value for value in ci or ())
        return f" ({ends[0]:+.1f} to {ends[1]:+.1f})" if ends else ""

    def subjects(item: dict[str, Any]) -> str:
        over = item["subjects"]
        if over is None:
            return "-"
        return f"{100 * over['difference']:+.1f}{interval(over['ci95'], 1)}, {over['verdict']}"

    each = {
        "signals": lambda name, item: "real" if name == REAL else "made: no claim",
        "held-out windows": lambda _, item: f"{item['loss']['windows']:,}",
        "float32, %": lambda _, item: f"{100 * item['loss']['float32']:.1f}",
        "int8, %": lambda _, item: f"{100 * item['loss']['int8']:.1f}",
        "int8 less float32, points, over windows": lambda _, item: (
            f"{0 - 100 * item['loss']['loss']:+.1f}{interval(item['loss']['ci95'], -1)}"
        ),
        "the same over subjects, all folds": lambda _, item: subjects(item),
    }
    return [[name, *(say(key, item) for key, item in found.items())] for name, say in each.items()]


def cost_rows(found: dict[str, dict[str, Any]]) -> list[list[str]]:
    def number(key: str) -> Any:
        return lambda item: f"{item[key]:,}"

    flash, stack = (
        lambda item, key=key: f"{item['cores']['cortex-m4:SMLAD'][key]:,}"
        for key in ("flash_bytes", "stack_bytes")
    )
    each = {
        "parameters": number("parameters"),
        "multiply-accumulates": number("products"),
        "operators of the int8 file": lambda item: str(sum(item["operators"].values())),
        "C: RAM (all of `student_t`), bytes": number("ram_bytes"),
        "of that the arena": number("arena_bytes"),
        "C: stack, Cortex-M4, bytes": stack,
        "C: flash (code, weights, tables), Cortex-M4, bytes": flash,
        "of that weights": number("weight_bytes"),
        "export of all targets, s": lambda item: f"{item['export_s']['wall']:.0f}",
        "of that on the processor, s": lambda item: f"{item['export_s']['cpu']:.0f}",
    }
    return [[name, *(say(item) for item in found.values())] for name, say in each.items()]


def runtime_cell(item: dict[str, Any], row: dict[str, float]) -> str:
    same = f"{100 * row['same_class_as_torch']:.2f}"
    if "worst_step" not in row:
        return f"{same}; {row['largest_difference_from_torch']:.0e}"
    return f"{same}; {100 * row['equal_logits']:.1f}, {row['worst_step']:.0f}"


def page(found: dict[str, dict[str, Any]]) -> str:
    shapes = list(found)
    told = found[REAL]["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in told["versions"].items())
    loads = ", ".join(f"{item['machine']['load'][0]}" for item in found.values())
    parts = [
        "# Export: three students, every target",
        f"Each a {' or a '.join({item['network'] for item in found.values()})}. 6x128 is a student of "
        "`topokd-edge demo`, shoulder exercises of real wrists. 3x500 and 40x100 are **trained on made "
        "signals**, for no labelled set of these shapes comes with a package: their accuracy says nothing "
        "beyond float32 against int8.",
        f"{told['cpu']}, {told['cores']} cores, {told['platform']}; {versions}. Load while measuring (1 is "
        f"one busy core): {loads}.",
        "## Size and cost",
        table(["", *shapes], cost_rows(found)),
        table(["operators, int8", *shapes], rows_of(found, "operators", lambda _, count: str(count))),
        table(["bytes", *shapes], rows_of(found, "bytes", lambda _, size: f"{size:,}")),
        "## float32 against int8",
        table(["", *shapes], accuracy_rows(found)),
        "In brackets the paired 95 % interval. Files run by XNNPACK.",
        "## Every runtime on the same windows",
        f"{', '.join(str(item['compared_windows']) for item in found.values())} held-out windows. float32: % "
        "of windows with torch's class; largest difference of a logit from torch's. int8: % with torch's "
        f"class; % of logits equal to those of {MICRO.partition(',')[0]}, and the worst difference in steps "
        "of the output.",
        table(["runtime", *shapes], rows_of(found, "runtimes", runtime_cell)),
        "## Instructions of the C per multiply-accumulate",
        table(
            ["core:kernel", *shapes],
            rows_of(found, "cores", lambda item, core: f"{core['instructions'] / item['products']:.2f}"),
        ),
        f"Whole network, ziglang {told['versions']['ziglang']}, -O2, counted by Unicorn; logits equal to "
        "TensorFlow Lite Micro's on every core. Instructions are not cycles.",
    ]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--work", type=Path, default=Path("runs/export-table"))
    asked = parser.parse_args()
    found = {
        name: once(
            asked.work / f"{name}.json",
            lambda name=name, shape=shape: measured(made_run(asked.work / name, shape), asked.work / name),
        )
        for name, shape in MADE.items()
    }
    found[REAL] = once(asked.work / f"{REAL}.json", lambda: measured(Run.open(asked.run), asked.work / REAL))
    found = {name: found[name] for name in ("3x500", REAL, "40x100")}
    write_text(asked.out, page(found))
    write_json(asked.out.with_suffix(".json"), found)
    print(f"{asked.out}: {', '.join(found)}")


if __name__ == "__main__":
    main()
