"""Horizontal bars in groups, with their figures in a column of text: as wide as a phone, so never shrunk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from topokd_edge.report.svg import INK, QUIET, short, svg

WIDTH = 3.4
"""Inches; the page's text is as wide on a phone of 390 px."""
_ROW, _HEADER = 0.175, 0.24
_TOO_MUCH = "#9c3d00"


@dataclass(frozen=True)
class Bar:
    """One bar: `parts` are (from, to, colour); `loud` paints the text as what does not fit."""

    label: str
    parts: Sequence[tuple[float, float, str]]
    text: str
    loud: bool = False


@dataclass(frozen=True)
class Group:
    """Bars under a header, which may be empty."""

    header: str
    bars: Sequence[Bar]


@dataclass(frozen=True)
class Axis:
    """What the bars' lengths mean; `limit` is a line across, `most` where longer bars are cut off."""

    label: str
    tick: Callable[[float], str]
    log: bool = False
    limit: float | None = None
    most: float = float("inf")


def bars(name: str, groups: Sequence[Group], axis: Axis) -> str:
    """Draw groups of bars from top to bottom and return them as SVG."""
    rows = sum(len(group.bars) for group in groups)
    headers = sum(1 for group in groups if group.header)
    inches = (WIDTH, _ROW * rows + _HEADER * headers + 0.55)
    return svg(name, inches, drawing(groups, axis))


def drawing(groups: Sequence[Group], axis: Axis) -> Callable[[Any], None]:
    """Return what draws the bars; a row is one unit high, a header a little more."""

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        at, ticks, labels = 0.0, [], []
        for group in groups:
            if group.header:
                at += _HEADER / _ROW - 1
                axes.annotate(
                    short(group.header, 46),
                    (0.0, at + 0.1),
                    xycoords=("figure fraction", "data"),
                    color=INK,
                    fontweight="bold",
                    fontsize=7.5,
                    va="center",
                    annotation_clip=False,
                    zorder=5,
                    bbox={"facecolor": "white", "linewidth": 0, "pad": 0.8},
                ).set_in_layout(False)
                at += 1
            for bar in group.bars:
                _draw_bar(axes, at, bar, axis)
                ticks.append(at)
                labels.append(short(bar.label, 18))
                at += 1
        axes.set_yticks(ticks, labels)
        axes.tick_params(axis="y", labelcolor=INK, labelsize=7.5)
        axes.set_ylim(at - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        _scale(axes, groups, axis)

    return draw


def _draw_bar(axes: Any, at: float, bar: Bar, axis: Axis) -> None:
    for low, high, colour in bar.parts:
        end = min(high, axis.most)
        if axis.log:
            axes.plot(
                [low, high], [at, at], color=colour, linewidth=5, solid_capstyle="butt", marker="|",
                markersize=5, markeredgewidth=1.2,
            )  # fmt: skip
        else:
            axes.barh(at, end - low, left=low, height=0.62, color=colour, linewidth=0)
        if axis.limit is not None and end > axis.limit:
            axes.barh(
                at, end - axis.limit, left=axis.limit, height=0.62, color="white", edgecolor=_TOO_MUCH,
                hatch="/////", linewidth=0.8,
            )  # fmt: skip
    axes.annotate(
        bar.text,
        (1.02, at),
        xycoords=("axes fraction", "data"),
        color=_TOO_MUCH if bar.loud else INK,
        fontweight="bold" if bar.loud else "normal",
        fontsize=7.5,
        va="center",
        annotation_clip=False,
    )


def _scale(axes: Any, groups: Sequence[Group], axis: Axis) -> None:
    from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator

    values = [
        end for group in groups for bar in group.bars for low, high, _ in bar.parts for end in (low, high)
    ]
    top = min(max(values), axis.most)
    if axis.log:
        axes.set_xscale("log")
        axes.set_xlim(0.75 * min(values), 1.35 * top)
        wide = top > 30 * min(values)
        axes.xaxis.set_major_locator(
            LogLocator(subs=(1.0,) if wide else (1.0, 3.0), numticks=4 if wide else 6)
        )
        axes.minorticks_off()
    elif axis.limit is not None:
        axes.set_xlim(0, max(1.1 * axis.limit, 1.02 * top))
        axes.xaxis.set_major_locator(FixedLocator([0, 0.5 * axis.limit, axis.limit, 2 * axis.limit]))
        axes.axvline(axis.limit, color=INK, linewidth=1.2, zorder=4)
    else:
        axes.set_xlim(0, 1.02 * top)
        axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.xaxis.set_major_formatter(lambda value, _: axis.tick(value))
    axes.set_xlabel(axis.label, color=QUIET, fontsize=7.5)
