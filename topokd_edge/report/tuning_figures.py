"""Figures of a search: what accuracy costs, how it rose, and where it lies over each varied value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from topokd_edge.report.svg import INK, QUIET, short, svg

FRONT, OTHER = "#0072B2", "#b3bcc7"
_WIDE = 3.0
"""A cost whose largest is so many times its smallest has a logarithmic axis."""
_LABEL = 0.16
"""Share of an axis that a label takes."""
_ACROSS = 3


def front(
    key: str,
    label: str,
    points: Sequence[tuple[int, float, float, bool]],
    shown: Callable[[float], str],
) -> str:
    """Draw the accuracy of trials over a cost; the line goes along the best that can be had for it.

    Parameters
    ----------
    key, label
        Name of the figure, and of the axis.
    points
        (trial, cost, accuracy between 0 and 1, whether no other trial beats it in all objectives).
    shown
        Writes a cost.
    """

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        cost = np.array([point[1] for point in points])
        accuracy = 100 * np.array([point[2] for point in points])
        best = np.array([point[3] for point in points])
        log = bool(cost.max() > _WIDE * cost.min() > 0)
        if log:
            axes.set_xscale("log")
            axes.minorticks_off()
        steps = stairs(cost, accuracy)
        axes.step(cost[steps], accuracy[steps], where="post", color=FRONT, linewidth=1.0, alpha=0.6)
        axes.scatter(cost[~best], accuracy[~best], s=16, color=OTHER, linewidths=0, zorder=3)
        axes.scatter(cost[best], accuracy[best], s=30, color=FRONT, linewidths=0, zorder=4)
        for (number, *_), x, y in zip(
            [point for point in points if point[3]], cost[best], accuracy[best], strict=True
        ):
            axes.annotate(str(number), (x, y), xytext=(4, 3), textcoords="offset points", color=INK)
        axes.margins(x=0.12, y=0.12)
        axes.set_xticks(apart(cost, log=log))
        axes.xaxis.set_major_formatter(lambda value, _: shown(value))
        axes.set_xlabel(label)
        axes.set_ylabel("accuracy on validation subjects, %")

    return svg(f"front {key}", (4.7, 3.1), draw)


def stairs(cost: npt.NDArray[np.float64], accuracy: npt.NDArray[np.float64]) -> list[int]:
    """Return the points that no cheaper or equal one is as accurate as, by rising cost."""
    kept: list[int] = []
    for index in np.lexsort((-accuracy, cost)).tolist():
        if not kept or accuracy[index] > accuracy[kept[-1]]:
            kept.append(index)
    return kept


def apart(cost: npt.NDArray[np.float64], *, log: bool) -> list[float]:
    """Return costs that have room for a label each, the least and the largest first."""
    values = np.unique(cost)
    places = np.log(values) if log else values
    room = _LABEL * float(places[-1] - places[0])
    kept = {0, len(values) - 1}
    for index in range(1, len(values) - 1):
        if all(abs(places[index] - places[other]) >= room for other in kept):
            kept.add(index)
    return [float(values[index]) for index in sorted(kept)]


def progress(points: Sequence[tuple[int, float]]) -> str:
    """Draw the accuracy (0 to 1) of each trial by its number, and the best so far."""

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        numbers = [number for number, _ in points]
        accuracy = 100 * np.array([value for _, value in points])
        axes.step(numbers, np.maximum.accumulate(accuracy), where="post", color=FRONT, linewidth=1.4)
        axes.scatter(numbers, accuracy, s=14, color=QUIET, alpha=0.6, linewidths=0, zorder=3)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlabel("trial")
        axes.set_ylabel("accuracy on validation subjects, %")

    return svg("progress", (4.7, 3.1), draw)


def slices(panels: Sequence[tuple[str, bool, Sequence[Any], Sequence[float], Sequence[bool]]]) -> str:
    """Draw accuracy over each value that was varied, one panel a key.

    Parameters
    ----------
    panels
        (name, whether its axis is logarithmic, value by trial, accuracy between 0 and 1 by trial, whether no
        other trial beats it). Values that are not numbers stand side by side.
    """

    def draw(figure: Any) -> None:
        axes_of = figure.subplots(rows, _ACROSS, squeeze=False, sharey=True).ravel()
        for axes in axes_of[len(panels) :]:
            axes.set_axis_off()
        for axes, (name, log, values, accuracy, best) in zip(axes_of, panels, strict=False):
            numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
            texts = sorted({str(value) for value in values})
            x = np.array(values, float) if numeric else np.array([texts.index(str(v)) for v in values], float)
            y, chosen = 100 * np.asarray(accuracy), np.asarray(best)
            axes.scatter(x[~chosen], y[~chosen], s=12, color=OTHER, linewidths=0)
            axes.scatter(x[chosen], y[chosen], s=20, color=FRONT, linewidths=0, zorder=3)
            if log:
                axes.set_xscale("log")
                axes.minorticks_off()
                axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
            if not numeric:
                axes.set_xticks(range(len(texts)), [short(text, 10) for text in texts])
            elif len(set(values)) <= 4:
                axes.set_xticks(sorted(set(values)))
            axes.margins(x=0.12, y=0.12)
            axes.set_title(short(name, 26), fontsize=8, color=INK, pad=3)
        for axes in axes_of[::_ACROSS]:
            axes.set_ylabel("accuracy, %")

    rows = -(-len(panels) // _ACROSS)
    return svg("slices", (7.4, 1.55 * rows + 0.2), draw)
