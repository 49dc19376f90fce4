"""Write a run's held-out accuracies as a Markdown table, a random forest on simple statistics beside them.

python benchmarks/accuracy_table.py RUN docs/results/NAME.md

The forest sees the same windows in the same outer folds, and of them what the student sees; it has no choice
to make, so the inner validation subjects are trained on as well.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from topokd_edge.evaluate.compare import compare
from topokd_edge.evaluate.metrics import accuracy_by_subject
from topokd_edge.evaluate.run_table import evaluate_run
from topokd_edge.files import read_json, write_json, write_text
from topokd_edge.run import DISTILLED_STUDENT, INT8_STUDENT, Run

FOREST = "forest"


def with_norms(x: npt.NDArray[np.float32], channels: tuple[str, ...]) -> npt.NDArray[np.float32]:
    """Append the norm of every sensor whose channels are named NAME_x, NAME_y, NAME_z."""
    place = {name: index for index, name in enumerate(channels)}
    sensors = [name.removesuffix("_x") for name in channels if name.endswith("_x")]
    axes = [[place.get(f"{sensor}_{axis}") for axis in "xyz"] for sensor in sensors]
    norms = [np.linalg.norm(x[:, some], axis=1) for some in axes if None not in some]
    return np.concatenate([x, np.stack(norms, axis=1)], axis=1) if norms else x


def statistics(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return eight statistics per channel, shape (windows, 8 * channels)."""
    quartiles = np.percentile(x, (25, 50, 75), axis=2)
    step = np.abs(np.diff(x, axis=2)).mean(2)
    parts = (x.mean(2), x.std(2), x.min(2), x.max(2), *quartiles, step)
    return np.concatenate(parts, axis=1).astype(np.float32)


def seen_by_student(run: Run) -> tuple[str, ...]:
    """Return the channels of the student; its teachers may see more."""
    return tuple(run.recipe["student"]["channels"]) or run.windows().channels


def forest_by_subject(run: Run) -> dict[str, float]:
    """Train and test a forest on every finished outer fold; return the accuracy of each tested subject."""
    from sklearn.ensemble import RandomForestClassifier

    windows = run.windows()
    names = seen_by_student(run)
    x = np.asarray(windows.x)[:, [windows.channels.index(name) for name in names]]
    features = statistics(with_norms(x, names))
    scores: dict[str, float] = {}
    for number in sorted({place.fold for place in run.finished()}):
        fold = run.fold(number)
        train = windows.of_subjects([*fold["fit"], *fold["validation"]])
        test = windows.of_subjects(fold["test"])
        forest = RandomForestClassifier(n_estimators=300, random_state=0, n_jobs=-1).fit(
            features[train], windows.y[train]
        )
        said = forest.predict_proba(features[test])
        scores |= accuracy_by_subject(said, windows.y[test], windows.subject[test])
    return scores


def table(columns: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def models_table(evaluated: dict[str, Any], forest: dict[str, float]) -> str:
    rows = [
        [
            name,
            f"{100 * row['accuracy']:.1f}",
            "-" if row["std_subjects"] is None else f"{100 * row['std_subjects']:.1f}",
            f"{100 * row['macro_f1']:.1f}",
            f"{row['ece']:.3f}",
            f"{row['params']:,}",
            f"{row['macs'] / 1e6:.2f} M",
        ]
        for name, row in evaluated["models"].items()
    ]
    values = np.array(list(forest.values()))
    spread = f"{100 * values.std(ddof=1):.1f}" if len(values) > 1 else "-"
    rows.append([f"{FOREST} (300 trees)", f"{100 * values.mean():.1f}", spread, "-", "-", "-", "-"])
    return table(["model", "accuracy %", "± subjects", "macro F1 %", "ECE", "parameters", "MACs"], rows)


def subjects_table(evaluated: dict[str, Any], forest: dict[str, float]) -> str:
    names = list(evaluated["models"])
    rows = [
        [
            item["subject"],
            str(item["windows"]),
            *(f"{100 * item['models'][name]:.1f}" if name in item["models"] else "-" for name in names),
            f"{100 * forest[item['subject']]:.1f}",
        ]
        for item in evaluated["subjects"]
    ]
    return table(["subject", "windows", *names, FOREST], rows)


def sentences(evaluated: dict[str, Any], forest: dict[str, float]) -> list[str]:
    said = [item["sentence"] for item in evaluated["comparisons"]]
    for model in (DISTILLED_STUDENT, INT8_STUDENT):
        scores = {
            item["subject"]: item["models"][model]
            for item in evaluated["subjects"]
            if model in item["models"]
        }
        said.append(compare(FOREST, model, {name: forest[name] for name in scores}, scores).sentence)
    return said


def page(run: Run, evaluated: dict[str, Any], forest: dict[str, float], out: Path) -> str:
    data, made = run.data, run.environment
    classes, subjects = len(data["class_names"]), len(data["subjects"])
    done = len({place.fold for place in run.finished()})
    seeds = len({place.seed for place in run.finished()})
    facts = [
        f"{data['windows']} windows of {data['made']['window_seconds']} s, {len(data['channels'])} channels "
        f"({len(seen_by_student(run))} for student and forest), {classes} classes, {subjects} subjects; "
        f"window set `{data['content_hash'][:12]}`",
        f"{done} of {len(run.folds)} outer folds by subject, {seeds} seed(s); "
        + (
            evaluated["optimistic"]
            or "epoch and candidate are chosen on inner validation subjects, never on test subjects"
        ),
        f"made on {made['device']} ({made['platform']}, {made['threads']} thread(s)), "
        f"torch {made['versions']['torch']}",
    ]
    commands = [
        " ".join(made["command"]),
        f"python benchmarks/accuracy_table.py {run.folder} {out}",
    ]
    parts = [
        f"# {run.folder.name}: accuracy on held-out subjects",
        "\n".join(f"- {fact}" for fact in facts),
        models_table(evaluated, forest),
        "Accuracy is the mean over subjects; ± is the sample standard deviation between them.",
        subjects_table(evaluated, forest),
        "\n".join(f"- {sentence}" for sentence in sentences(evaluated, forest)),
        "## Chosen on the inner validation subjects",
        selection_table(run),
        "## Command",
        "```sh\n" + "\n".join(commands) + "\n```",
    ]
    return "\n\n".join(parts) + "\n"


def selection_table(run: Run) -> str:
    rows = []
    for place in run.finished():
        made = read_json(place.folder / "selection.json")
        for row in made["candidates"]:
            settings = row["settings"]
            fixed = f"{settings['alpha_signal']}, {settings['alpha_topology']}, {settings['mixup_share']}"
            mixup = fixed if settings["alpha"] == "fixed" else settings["alpha"]
            rows.append(
                [
                    str(place.fold),
                    str(place.seed),
                    ", ".join(made["on_subjects"]),
                    f"{settings['eta']}",
                    mixup,
                    f"{100 * row['validation_accuracy']:.1f}",
                    "chosen" if row["candidate"] == made["chosen"] else "",
                ]
            )
    columns = ["fold", "seed", "validation subjects", "eta", "alphas and share", "validation accuracy %", ""]
    return table(columns, rows)


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    run, out = Run.open(Path(sys.argv[1])), Path(sys.argv[2])
    evaluated = evaluate_run(run)
    forest = forest_by_subject(run)
    write_text(out, page(run, evaluated, forest, out))
    write_json(out.with_suffix(".json"), {"evaluation": evaluated, "forest_by_subject": forest})
    print(f"{out}: {len(evaluated['subjects'])} subjects")


if __name__ == "__main__":
    main()
