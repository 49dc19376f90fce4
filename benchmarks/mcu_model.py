"""Cycle models against published figures: python benchmarks/mcu_model.py [docs/results/mcu_model.md]

Writes the table, .json and .svg beside it; TEXT below says what is compared. Needs the extras mcu and export.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np
from topokd_export.c.cycles import RULES, cycles
from topokd_export.c.emulated import run_firmware
from topokd_export.c.firmware import FLAGS, build_firmware, compiler_version
from topokd_export.c.integer_graph import Add, Conv, IntegerGraph, Mean, Rescale, Tensor
from topokd_export.c.writer import AppNumbers, write_c

from topokd_edge.bundle import Normalisation
from topokd_edge.files import write_json, write_text
from topokd_edge.report.svg import CHANNEL_COLOURS, INK, svg

PUBLISHED_MACS = 12_501_632
"""Of ResNet-8 (MLPerf Tiny, image classification)."""
TUNED, LIBRARY, PLAIN = "tuned by a vendor", "CMSIS-NN through a framework", "reference kernels"
PUBLISHED = (
    ("cortex-m0plus", "G0B1 64 MHz", "Bosch v1.1", TUNED, 64, 1669.0),
    ("cortex-m0plus", "G0B1 64 MHz", "Bosch v1.2", TUNED, 64, 1522.0),
    ("cortex-m4", "L4R5 120 MHz", "TFLM reference v0.5", PLAIN, 120, 704.2),
    ("cortex-m4", "L4R5 120 MHz", "microTVM CMSIS-NN v1.0", LIBRARY, 120, 389.6),
    ("cortex-m4", "L4R5 120 MHz", "Skymizer v1.1", LIBRARY, 120, 296.6),
    ("cortex-m4", "L4R5 120 MHz", "X-CUBE-AI v1.0", TUNED, 120, 226.9),
    ("cortex-m4", "L4R5 120 MHz", "X-CUBE-AI v1.2", TUNED, 120, 165.1),
    ("cortex-m4", "L4R5 120 MHz", "Plumerai v1.1", TUNED, 120, 167.8),
    ("cortex-m4", "L4R5 120 MHz", "Bosch v1.1", TUNED, 120, 179.0),
    ("cortex-m4", "CY8C 150 MHz", "Plumerai v1.1", TUNED, 150, 189.0),
    ("cortex-m33", "nRF5340 128 MHz", "microTVM CMSIS-NN v1.0", LIBRARY, 128, 316.2),
    ("cortex-m33", "U575 160 MHz", "X-CUBE-AI v1.0", TUNED, 160, 139.7),
    ("cortex-m33", "U575 160 MHz", "X-CUBE-AI v1.3", TUNED, 160, 109.5),
    ("cortex-m33", "U575 160 MHz", "Plumerai", TUNED, 160, 104.3),
    ("cortex-m7", "H7A3 280 MHz", "X-CUBE-AI v1.0", TUNED, 280, 54.3),
    ("cortex-m7", "H7A3 280 MHz", "X-CUBE-AI v1.2", TUNED, 280, 40.8),
    ("cortex-m7", "H7A3 280 MHz", "Bosch", TUNED, 280, 46.8),
    ("cortex-m7", "F746 216 MHz", "Plumerai", TUNED, 216, 62.9),
    ("cortex-m7", "F746 216 MHz", "Bosch", TUNED, 216, 61.6),
)
"""Core, board, runtime, class, MHz, ms an image: mlcommons/tiny_results v0.5 to v1.3, closed division."""
CASES = (
    ("cortex-m0plus", "BLK", (TUNED,)),
    ("cortex-m4", "REF", (PLAIN,)),
    ("cortex-m4", "SMLAD", (TUNED, LIBRARY)),
    ("cortex-m33", "SMLAD", (TUNED, LIBRARY)),
    ("cortex-m7", "SMLAD", (TUNED,)),
)
"""Core and kernels, and the published classes they are set against."""
HEADS = (
    *("core", "kernels", "instructions a product", "modelled cycles a product"),
    *("published, class", "published cycles a product", "middle against median"),
)
TEXT = """# Cycle models against published figures

MLPerf Tiny's image classification (ResNet-8, 12.5 million products) has a twin in one dimension: the
same channels, rows and products in every layer, sums of the same length (a 3 x 3 kernel is one of nine
taps). It is built with this project's kernels, counted on emulated cores, and the cycles that the rules
give are set against what the submissions took on real boards.

{table}

![Modelled ranges and published figures]({picture})

Built by {compiler}, {flags}. A range begins with no wait states and the rules' least, and ends with
their most and flash adding {stall:.0f} %. With SMLAD the middle of the range lies between products: at
most {above:.0f} % above what vendors tuned, and at most {below:.0f} % below CMSIS-NN behind a
framework. The plain kernels, the same algorithm on both sides, are off by {plain:+.0f} %.

- The published figures are of other kernels, so this shows where a model lies among real products, and
  not that it is right to the percent. Nothing here was measured on a board of ours.
- The rules of the Cortex-M33 and M7 are those of the M4 times a factor from these very rows (one
  vendor's runtime on both), so that they land near is no evidence of its own; the M4's and M0+'s are
  from Arm's tables alone.
- The M0+ has no long multiplication and no kernel of its own here: it is slower than what Bosch hand-
  tuned.

Rules:

{rules}

```sh
python benchmarks/mcu_model.py
```
"""
STALL = 1.2
"""What flash may add, at most, as in the board files."""


def twin() -> IntegerGraph:
    """ResNet-8 with time in place of the two sides of an image; weights are random."""
    rng = np.random.default_rng(0)
    layers: list[Any] = []

    def conv(source: Tensor, channels: int, taps: int, stride: int) -> Tensor:
        out = Tensor(f"conv{len(layers)}", source.rows // stride, channels, 0.1, 0)
        weight = rng.integers(-127, 128, (channels, taps, source.channels)).astype(np.int8)
        shift = np.full(channels, -10, np.int8)
        rescale = Rescale(np.full(channels, 1 << 30, np.int32), shift, 0, -128, 127, True)
        bias = np.zeros(channels, np.int32)
        numbers = (source.rows, stride, (taps - 1) // 2, 0)
        layers.append(Conv(out.name, (source.name,), out, weight, bias, rescale, *numbers))
        return out

    def add(first: Tensor, second: Tensor) -> Tensor:
        out = Tensor(f"add{len(layers)}", first.rows, first.channels, 0.1, 0)
        multipliers, shifts = (1 << 30, 1 << 30), (-1, 0)
        names = (first.name, second.name)
        layers.append(Add(out.name, names, out, (0, 0), multipliers, shifts, 1 << 30, -19, -128, 127))
        return out

    image = Tensor("image", 1024, 3, 0.1, 0)
    x = conv(image, 16, 9, 1)
    for channels, stride in ((16, 1), (32, 4), (64, 4)):
        y = conv(conv(x, channels, 9, stride), channels, 9, 1)
        x = add(y, x if stride == 1 else conv(x, channels, 1, stride))
    mean = Tensor("mean", 1, 64, 0.1, 0)
    layers.append(Mean("mean", (x.name,), mean, 0, x.rows, 1 << 30, -5))
    conv(mean, 10, 1, 1)
    return IntegerGraph(image, tuple(layers))


def predict() -> list[dict[str, Any]]:
    """Count every case, and set the cycles of its rules against the published."""
    graph = twin()
    products = sum(item.weight.size * item.output.rows for item in graph.layers if isinstance(item, Conv))
    if products != PUBLISHED_MACS:
        raise AssertionError(f"{products:,} products are not those of ResNet-8")
    same = Normalisation((0.0,) * 3, (1.0,) * 3)
    app = AppNumbers(1.0, ("r", "g", "b"), ("g",) * 3, same, tuple(f"class {i}" for i in range(10)))
    files = write_c(graph, app, None)
    window = np.random.default_rng(1).integers(-128, 128, (1024, 3)).astype(np.int8)
    rows, answers = [], []
    for core, kernel, classes in CASES:
        execution = run_firmware(
            build_firmware(files, core, (*FLAGS, f"-DTK_KERNEL=TK_KERNEL_{kernel}")), window, 10
        )
        answers.append(execution.logits.tobytes())
        low, high = cycles(execution, core)
        published = {name: _published(core, name) for name in classes}
        rows.append(
            {
                "core": core,
                "kernel": kernel,
                "products": products,
                "instructions_per_product": execution.instructions / products,
                "cycles_per_product": [low / products, high * STALL / products],
                "no_wait_states": [low / products, high / products],
                "published": {name: sorted(values) for name, values in published.items()},
                "error": {name: _error(low, high, products, values) for name, values in published.items()},
            }
        )
    if len(set(answers)) != 1:
        raise AssertionError("the kernels disagree")
    return rows


def _published(core: str, kind: str) -> list[float]:
    return [
        ms * mhz * 1e3 / PUBLISHED_MACS
        for one, _, _, name, mhz, ms in PUBLISHED
        if (one, name) == (core, kind)
    ]


def _error(low: float, high: float, products: int, published: list[float]) -> float:
    """How far the middle of the range is from the published median, as a share of it."""
    middle = (low + high * STALL) / 2 / products
    return middle / statistics.median(published) - 1


def table(rows: list[dict[str, Any]]) -> str:
    """A line for every core, kernel and published class."""
    lines = [f"| {' | '.join(HEADS)} |", "|---" * len(HEADS) + "|"]
    for row in rows:
        low, high = row["cycles_per_product"]
        for name, values in row["published"].items():
            cells = (
                row["core"],
                row["kernel"],
                f"{row['instructions_per_product']:.2f}",
                f"{low:.2f} to {high:.2f}",
                name,
                ", ".join(f"{value:.2f}" for value in values),
                f"{100 * row['error'][name]:+.0f} %",
            )
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def figure(rows: list[dict[str, Any]]) -> str:
    """Modelled ranges as bars, published figures as dots."""

    def draw(drawing: Any) -> None:
        axes = drawing.subplots()
        colours = dict(zip((TUNED, LIBRARY, PLAIN), CHANNEL_COLOURS, strict=False))
        for place, row in enumerate(rows):
            low, high = row["cycles_per_product"]
            axes.barh(place, high - low, left=low, height=0.5, color="#c9d3df")
            for name, values in row["published"].items():
                axes.scatter(values, [place] * len(values), s=14, color=colours[name], zorder=3)
        axes.set_xscale("log")
        ticks = [1, 1.5, 2, 3, 5, 7, 10, 15]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.set_yticks(range(len(rows)), [f"{row['core']}, {row['kernel']}" for row in rows])
        axes.invert_yaxis()
        axes.set_xlabel("cycles a product (log)")
        for name, colour in colours.items():
            axes.scatter([], [], s=14, color=colour, label=f"published: {name}")
        axes.barh([0], [0], color="#c9d3df", label="modelled, flash adding up to a fifth")
        drawing.legend(loc="outside upper left", ncols=2, frameon=False, labelcolor=INK)

    return svg("mcu model", (7.2, 2.9), draw)


def main() -> None:
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/results/mcu_model.md")
    rows = predict()
    smlad = [row["error"] for row in rows if row["kernel"] == "SMLAD"]
    above = max(error[TUNED] for error in smlad)
    below = min(error[LIBRARY] for error in smlad if LIBRARY in error)
    text = TEXT.format(
        table=table(rows),
        picture=out.with_suffix(".svg").name,
        compiler=compiler_version("zig"),
        flags=" ".join(FLAGS),
        stall=100 * (STALL - 1),
        above=100 * above,
        below=-100 * below,
        plain=100 * rows[1]["error"][PLAIN],
        rules="\n".join(f"- {name}: {rules.source}." for name, rules in RULES.items()),
    )
    write_text(out, text)
    write_json(out.with_suffix(".json"), {"compiler": compiler_version("zig"), "rows": rows})
    write_text(out.with_suffix(".svg"), figure(rows) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
