"""Measure how mixed windows look to each teacher: python benchmarks/why_mixup.py OUT.md RUN [RUN ...]

For every fold and seed of the runs that has both teachers; see topokd_edge/evaluate/why.py. Writes OUT.md,
OUT.json and OUT.svg.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from topokd_edge.distill.checkpoint import META
from topokd_edge.evaluate.why import why
from topokd_edge.files import write_json, write_text
from topokd_edge.report.figures import COLOURS
from topokd_edge.report.svg import INK, svg
from topokd_edge.run import SIGNAL_TEACHER, TOPOLOGY_TEACHER, FoldRun, Run

TEACHERS = (SIGNAL_TEACHER, TOPOLOGY_TEACHER)
NAMES = {
    "signal": "signal teacher",
    "topology": "topology teacher, images mixed",
    "redrawn": "topology teacher, images drawn of mixed signals",
    "signal-softened": "signal teacher, softened until as sure as the other",
    "topology-softened": "topology teacher, softened until as sure as the other",
}
LOOKS = {
    "signal": (COLOURS[SIGNAL_TEACHER], "-"),
    "topology": (COLOURS[TOPOLOGY_TEACHER], "-"),
    "redrawn": (COLOURS[TOPOLOGY_TEACHER], "--"),
    "signal-softened": (COLOURS[SIGNAL_TEACHER], ":"),
    "topology-softened": (COLOURS[TOPOLOGY_TEACHER], ":"),
}
SHOWN = (0.1, 0.5)
Row = dict[str, Any]


def ready(run: Run) -> list[FoldRun]:
    """Folds and seeds whose teachers are both trained."""
    places = [(int(path.parent.name.split("-")[1]), int(path.name.split("-")[1])) for path in
              sorted(run.folder.glob("fold-*/seed-*"))]  # fmt: skip
    found = [run.fold_run(*place) for place in places]
    return [place for place in found if all((place.model_folder(name) / META).is_file() for name in TEACHERS)]


def table(rows: list[Row]) -> str:
    lines = [
        "| run | fold | teacher | accuracy % | confidence | distance at 0.1, 0.5 | excess at 0.1, 0.5, bits "
        "| of what sets the two apart | alpha | share |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        for name, made in row["measured"].items():
            at = [made["lesser_share"].index(share) for share in SHOWN]
            distance = ", ".join(f"{made['distance'][index]:.2f}" for index in at)
            excess = ", ".join(f"{made['excess_bits'][index]:.3f}" for index in at)
            part = made["excess_bits"][-1] / made["apart_bits"][-1]
            lines.append(
                f"| {row['run']} | {row['fold']} | {NAMES[name]} | {100 * made['accuracy']:.1f} "
                f"| {made['confidence'][0]:.2f} | {distance} | {excess} | {part:.2f} "
                f"| {made['alpha']:.2f} | {made['share']:.2f} |"
            )
    return "\n".join(lines)


def figure(rows: list[Row]) -> str:
    """One line of panels a run: distance, excess, surplus of confidence; means over folds."""
    runs = list(dict.fromkeys(row["run"] for row in rows))

    def draw(drawing: Any) -> None:
        panels = drawing.subplots(len(runs), 3, sharex=True, sharey="col", squeeze=False)
        for line, run in zip(panels, runs, strict=True):
            measured = [row["measured"] for row in rows if row["run"] == run]
            for name in NAMES:
                draw_teacher(line, name, [made[name] for made in measured if name in made])
            line[0].axhline(1, color=INK, linewidth=0.6)
            line[0].set_ylabel(run, color=INK)
        for axes, title in zip(
            panels[0],
            ("distance to what it saw", "excess confusion, bits", "surer than a linear teacher"),
            strict=True,
        ):
            axes.set_title(title, fontsize=8, loc="left")
        for axes in panels[-1]:
            axes.set_xlabel("share of the second window")
        handles = {
            label: handle
            for axes in panels[:, 1]
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        drawing.legend(handles.values(), handles.keys(), loc="outside upper left", ncols=2, frameon=False)

    return svg("why mixup", (7.4, 1.45 * len(runs) + 0.9), draw)


def draw_teacher(panels: Any, name: str, made: list[Row]) -> None:
    def mean(key: str) -> Any:
        return np.mean([row[key] for row in made], axis=0)

    if not made:
        return
    colour, style = LOOKS[name]
    look: Row = {"color": colour, "linestyle": style, "linewidth": 1.4, "label": NAMES[name]}
    share = made[0]["lesser_share"]
    if not name.endswith("softened"):  # softening moves no window
        panels[0].plot(share, mean("distance"), **look)
    panels[1].plot(share, mean("excess_bits"), **look)
    panels[2].plot(share, mean("confidence") - mean("confidence_linear"), **look)


def main() -> None:
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    out, rows = Path(sys.argv[1]), []
    for folder in map(Path, sys.argv[2:]):
        run = Run.open(folder)
        for place in ready(run):
            with tempfile.TemporaryDirectory() as cache:
                measured = why(run, place, Path(cache))
            rows.append({"run": folder.name, "fold": place.fold, "seed": place.seed, "measured": measured})
    parts = [
        "# How mixed windows look to each teacher",
        "Windows of the validation subjects, in blind pairs, no more than 512 a fold.",
        "- **Distance**: to the nearest training window, in the space that the last layer reads; median, "
        "over that of clean windows.\n"
        "- **Excess**: Jensen-Shannon divergence of the answer from the mixture of the two clean answers; "
        "mean. In the next column, at even shares, as part of what sets the two clean answers apart.\n"
        '- **Alpha** and **share**: what `alpha = "adaptive"` gives with its default budget.',
        table(rows),
        f"![The same over the share of the second window]({out.with_suffix('.svg').name})",
        f"```sh\npython benchmarks/why_mixup.py {' '.join(sys.argv[1:])}\n```",
    ]
    write_text(out, "\n\n".join(parts) + "\n")
    write_json(out.with_suffix(".json"), rows)
    write_text(out.with_suffix(".svg"), figure(rows) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
