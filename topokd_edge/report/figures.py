"""Figures of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from topokd_edge.report.svg import INK, channel_colours, name_lines, short, svg
from topokd_edge.run import (
    DISTILLED_STUDENT,
    INT8_STUDENT,
    SCRATCH_STUDENT,
    SIGNAL_TEACHER,
    TOPOLOGY_TEACHER,
)

COLOURS = {
    SIGNAL_TEACHER: "#009E73",
    TOPOLOGY_TEACHER: "#B65F94",
    SCRATCH_STUDENT: "#7A7A7A",
    DISTILLED_STUDENT: "#0072B2",
    INT8_STUDENT: "#D55E00",
}
_ACROSS = 3
"""Persistence images side by side."""


def subject_strip(rows: Sequence[tuple[str, str, Sequence[float]]]) -> str:
    """Draw the accuracy on every subject, one line of dots a model, and the mean as a bar.

    Parameters
    ----------
    rows
        (model, label, accuracies between 0 and 1 by subject), top to bottom.
    """

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for line, (model, _, values) in enumerate(rows):
            shares = 100 * np.asarray(values, dtype=np.float64)
            offsets = _spread(shares)
            colour = COLOURS.get(model, INK)
            axes.scatter(shares, line + offsets, s=17, color=colour, alpha=0.55, linewidths=0)
            axes.plot([shares.mean()] * 2, [line - 0.34, line + 0.34], color=colour, linewidth=2.4)
        axes.set_yticks(range(len(rows)), [label for _, label, _ in rows])
        axes.tick_params(axis="y", labelcolor=INK)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("accuracy on one held-out subject, %")

    return svg("strip", (4.7, 0.45 * len(rows) + 0.6), draw)


def subject_pairs(subjects: Sequence[str], before: Sequence[float], after: Sequence[float]) -> str:
    """Draw each subject's accuracy without (ring) and with distillation (dot), joined by a line."""

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        lines = np.arange(len(subjects))
        old, new = 100 * np.asarray(before), 100 * np.asarray(after)
        axes.hlines(lines, old, new, color="#b9c2cd", linewidth=2.0, zorder=2)
        axes.scatter(
            old,
            lines,
            s=26,
            facecolors="white",
            edgecolors=COLOURS[SCRATCH_STUDENT],
            linewidths=1.3,
            zorder=3,
        )
        axes.scatter(new, lines, s=26, color=COLOURS[DISTILLED_STUDENT], linewidths=0, zorder=4)
        axes.set_yticks(lines, [short(subject) for subject in subjects])
        axes.tick_params(axis="y", labelcolor=INK)
        axes.set_ylim(len(subjects) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("accuracy, %")
        axes.set_ylabel("subject")

    return svg("pairs", (4.7, 0.2 * len(subjects) + 0.7), draw)


def traces(
    name: str,
    signal: npt.NDArray[np.float32],
    rate_hz: float,
    channels: Sequence[str],
    units: Sequence[str],
) -> str:
    """Draw the channels of one window over time, one panel a unit.

    Parameters
    ----------
    signal
        float32, shape (channels, length), in `units`.
    """
    groups: dict[str, list[int]] = {}
    for index, unit in enumerate(units):
        groups.setdefault(unit, []).append(index)

    def draw(figure: Any) -> None:
        panels = figure.subplots(len(groups), sharex=True, squeeze=False)[:, 0]
        seconds = np.arange(signal.shape[1]) / rate_hz
        for axes, (unit, members) in zip(panels, groups.items(), strict=True):
            for index in members:
                axes.plot(seconds, signal[index], color=colours[index], linewidth=0.9)
            axes.set_ylabel("no unit" if unit == "1" else unit)
            axes.margins(x=0)
            name_lines(axes, [(channels[index], colours[index]) for index in members])
        panels[-1].set_xlabel("time in the window, s")
        figure.align_ylabels()

    colours = channel_colours(units)
    return svg(f"traces {name}", (4.4, 1.15 * len(groups) + 0.45), draw)


def persistence_images(
    name: str,
    images: npt.NDArray[np.float32],
    channels: Sequence[str],
    units: Sequence[str],
    births: Sequence[tuple[float, float]],
    lives: Sequence[tuple[float, float]],
) -> str:
    """Draw the persistence images of some channels of one window, birth across and persistence up.

    Parameters
    ----------
    images
        float32, shape (channels, rows, columns): row 0 holds the longest lives, column 0 the lowest births.
    births, lives
        (low, high) of both axes, by channel.
    """

    def draw(figure: Any) -> None:
        from matplotlib.colors import LinearSegmentedColormap, PowerNorm

        ramp = LinearSegmentedColormap.from_list("ink", ["#f4f6f9", "#9ecae1", "#0072B2", "#0b1f3a"])
        rows = -(-len(images) // _ACROSS)
        panels = figure.subplots(rows, _ACROSS, squeeze=False).ravel()
        for place, axes in enumerate(panels):
            if place >= len(images):
                axes.set_axis_off()
                continue
            axes.imshow(
                images[place],
                cmap=ramp,
                norm=PowerNorm(0.5, 0.0, max(float(images[place].max()), 1e-12)),
                extent=(*births[place], *lives[place]),
                aspect="auto",
                interpolation="nearest",
            )
            unit = "" if units[place] == "1" else f", {units[place]}"
            axes.set_title(short(channels[place], 14) + unit, fontsize=7.5, color=colours[place], pad=2)
            axes.grid(visible=False)
            axes.locator_params(nbins=3)
            if place + _ACROSS >= len(images):
                axes.set_xlabel("birth")
            if place % _ACROSS == 0:
                axes.set_ylabel("persistence")

    colours = channel_colours(units)
    return svg(f"images {name}", (4.4, 1.15 * -(-len(images) // _ACROSS) + 0.45), draw)


def training_curves(
    model: str, runs: Sequence[Mapping[str, Sequence[float]]], chosen: Sequence[int | None]
) -> str:
    """Draw training loss and validation accuracy over epochs, one thin line a fold and seed.

    Parameters
    ----------
    runs
        Per fold and seed: `epoch`, `train_loss`, `validation_accuracy` (0 to 1, NaN where nobody validated).
    chosen
        The epoch each of them kept; None when unknown.
    """

    def draw(figure: Any) -> None:
        loss, accuracy = figure.subplots(2, sharex=True)
        colour = COLOURS.get(model, INK)
        faint = max(0.25, min(0.9, 3.0 / max(1, len(runs))))
        for curve, best in zip(runs, chosen, strict=True):
            shares = 100 * np.asarray(curve["validation_accuracy"], dtype=np.float64)
            loss.plot(curve["epoch"], curve["train_loss"], color=colour, alpha=faint, linewidth=1.0)
            accuracy.plot(curve["epoch"], shares, color=colour, alpha=faint, linewidth=1.0)
            if best is not None and best in curve["epoch"]:
                at = list(curve["epoch"]).index(best)
                accuracy.scatter([best], [shares[at]], s=14, color=colour, linewidths=0, zorder=4)
        loss.set_ylabel("loss")
        accuracy.set_ylabel("validation\naccuracy, %")
        accuracy.set_xlabel("epoch")
        accuracy.xaxis.get_major_locator().set_params(integer=True)
        figure.align_ylabels()

    return svg(f"curves {model}", (2.75, 2.4), draw)


def latency_bars(name: str, rows: Sequence[tuple[str, str, float, float]]) -> str:
    """Draw latencies on a logarithmic axis: the median as a bar, p95 as a whisker.

    Parameters
    ----------
    rows
        (label, colour, p50, p95) in milliseconds, top to bottom.
    """

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        left = 10.0 ** np.floor(np.log10(min(row[2] for row in rows)) - 0.15)
        for line, (label, colour, p50, p95) in enumerate(rows):
            axes.barh(line, p50 - left, left=left, height=0.34, color=colour, linewidth=0)
            axes.plot([p50, p95], [line, line], color=INK, linewidth=0.9)
            axes.plot([p95, p95], [line - 0.12, line + 0.12], color=INK, linewidth=0.9)
            axes.annotate(short(label, 48), (left, line - 0.24), color=INK)
        axes.set_xscale("log")
        axes.set_xlim(left, 1.6 * max(row[3] for row in rows))
        axes.xaxis.set_major_formatter(lambda value, _: tick_ms(value))
        axes.minorticks_off()
        axes.set_yticks([])
        axes.set_ylim(len(rows) - 0.7, -0.75)
        axes.set_xlabel("time for one window (logarithmic)")

    return svg(f"latency {name}", (5.0, 0.44 * len(rows) + 0.5), draw)


def tick_ms(milliseconds: float) -> str:
    """Return a whole number of µs, ms or s, as an axis has it."""
    for scale, unit in ((1e-3, "s"), (1.0, "ms"), (1e3, "µs")):
        if milliseconds * scale >= 1.0:
            return f"{milliseconds * scale:g} {unit}"
    return f"{milliseconds * 1e3:g} µs"


def _spread(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return small vertical offsets, so that near-equal dots do not hide each other."""
    offsets = np.zeros(len(values))
    for place, index in enumerate(np.argsort(values, kind="stable")):
        offsets[index] = (0.0, 0.13, -0.13, 0.24, -0.24)[place % 5]
    return offsets
