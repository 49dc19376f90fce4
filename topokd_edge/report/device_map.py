"""Latency against accuracy: every device and pipeline in one figure, each target by its number."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from topokd_edge.report import figures
from topokd_edge.report.device_names import (
    COLOURS,
    Kind,
    device_name,
    is_steady,
    kind_of,
    latency_span,
    pipeline_name,
    rank,
)
from topokd_edge.report.svg import INK, QUIET, svg

Box = tuple[float, float, float, float]
"""Left, bottom, right, top."""
WIDE, NARROW = (10.6, 4.6), (3.4, 3.7)
"""Inches of the figure beside others, and on a phone, where it is not shrunk."""
_MARKER, _GAP = 7.0, 1.5
_FAR = _MARKER + 8
"""How far a label may be from its point before a line leads to it."""
_LITTLE = 1e-6
_RINGS = (1.0, 1.6, 2.4, 3.4, 4.6, 6.0, 8.0, 11.0)
_WAYS = ((1, 1), (-1, 1), (1, -1), (-1, -1), (0, 1), (0, -1), (1, 0), (-1, 0))


@dataclass(frozen=True)
class Point:
    """A pipeline on a target: `latency` is (low, middle, high) in ms, accuracies lie between 0 and 1."""

    number: int
    pipeline: str
    kind: Kind
    modelled: bool
    latency: tuple[float, float, float]
    accuracy: float | None
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Mapped:
    """The points, and the legend: number, name and kind of each target, colour and name of each pipeline."""

    points: list[Point]
    targets: list[dict[str, Any]]
    pipelines: list[dict[str, str]]


def collect(results: Sequence[dict[str, Any]]) -> Mapped:
    """Return what has a latency: of each target and pipeline the quickest that was timed back to back."""
    quickest: dict[tuple[str, str], dict[str, Any]] = {}
    for entry in results:
        if entry.get("latency_ms") and not entry.get("error") and is_steady(entry):
            key = (entry["target"], entry["pipeline"])
            if key not in quickest or latency_span(entry)[1] < latency_span(quickest[key])[1]:
                quickest[key] = entry
    targets = sorted(dict.fromkeys(target for target, _ in quickest), key=_rank(quickest))
    points = []
    for (target, pipeline), entry in quickest.items():
        bounds = entry.get("accuracy_ci95")
        points.append(
            Point(
                targets.index(target) + 1,
                pipeline,
                kind_of(entry),
                entry["basis"] == "modelled",
                latency_span(entry),
                entry.get("accuracy"),
                (bounds[0], bounds[1]) if bounds else None,
            )
        )
    legend = []
    for number, target in enumerate(targets, start=1):
        entry = next(entry for (name, _), entry in quickest.items() if name == target)
        name = device_name(entry)
        legend.append(
            {
                "number": number,
                "name": target if name == target else f"{target}, {name}",
                "sign": kind_of(entry).sign,
                "kind": f"{kind_of(entry).name}, {entry['basis']}",
            }
        )
    used = dict.fromkeys(point.pipeline for point in points)
    order = [*(name for name in COLOURS if name in used), *(name for name in used if name not in COLOURS)]
    pipelines = [{"colour": COLOURS.get(name, QUIET), "name": pipeline_name(name)} for name in order]
    return Mapped(points, legend, pipelines)


def figure(mapped: Mapped, *, narrow: bool) -> str:
    """Return the figure as SVG; empty when nothing has a latency."""
    if not mapped.points:
        return ""
    name = f"latency accuracy {'narrow' if narrow else 'wide'}"
    return svg(name, NARROW if narrow else WIDE, drawing(mapped))


def drawing(mapped: Mapped, *, legend: bool = False) -> Callable[[Any], None]:
    """Return what draws the figure; with `legend`, for a file that stands alone, the legend too."""

    def draw(figure: Any) -> None:
        from matplotlib.ticker import LogLocator

        axes = figure.subplots()
        axes.set_xscale("log")
        floor = _floor(mapped.points)
        for point in mapped.points:
            _draw_point(axes, point, floor)
        axes.xaxis.set_major_locator(
            LogLocator(subs=(1.0,) if _decades(mapped.points) > 2 else (1.0, 2.0, 5.0))
        )
        axes.xaxis.set_major_formatter(lambda value, _: figures.tick_ms(value))
        axes.minorticks_off()
        axes.margins(x=0.06, y=0.07)
        axes.set_xlabel("time for one window (logarithmic)")
        _scale_accuracy(axes, mapped.points, floor)
        if legend:
            _draw_legend(figure, mapped)
        figure.draw_without_rendering()
        _label(figure, axes, mapped.points, floor)

    return draw


def place(
    anchors: Sequence[tuple[float, float]], sizes: Sequence[tuple[float, float]], frame: Box
) -> list[Box]:
    """Place one label beside each anchor so that no label lies on another, on an anchor, or outside `frame`.

    Rings of places around each anchor are tried from the inside out, those nearer to another anchor last
    unless a line leads there; where all are taken, the one that covers least. Lengths are pixels, boxes
    (left, bottom, right, top).
    """
    half = _MARKER / 2 + _GAP
    marks = [(x - half, y - half, x + half, y + half) for x, y in anchors]
    placed: list[Box] = []
    for (x, y), (width, height) in zip(anchors, sizes, strict=True):
        best, least = (x, y, x + width, y + height), float("inf")
        for ring, (across, up) in itertools.product(_RINGS, _WAYS):
            left = x + across * ring * (half + width / 2) - width / 2
            low = y + up * ring * (half + height / 2) - height / 2
            box = (left, low, left + width, low + height)
            covered = sum(overlap(box, other) for other in (*placed, *marks)) + _outside(box, frame)
            covered += _LITTLE * _misleads(box, (x, y), anchors)
            if covered < least:
                best, least = box, covered
            if covered == 0:
                break
        placed.append(best)
    return placed


def _misleads(box: Box, own: tuple[float, float], anchors: Sequence[tuple[float, float]]) -> bool:
    """Tell whether a label that no line leads to is nearer to another anchor than to its own."""
    middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
    away = math.dist(middle, own)
    return away <= _FAR and any(math.dist(middle, other) < away for other in anchors)


def overlap(one: Box, other: Box) -> float:
    """Return the area that two boxes share."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, width) * max(0.0, height)


def _outside(box: Box, frame: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1]) - overlap(box, frame)


def _rank(quickest: dict[tuple[str, str], dict[str, Any]]) -> Callable[[str], tuple[int, bool]]:
    places = {target: rank(entry) for (target, _), entry in quickest.items()}
    return lambda target: places[target]


def _floor(points: Sequence[Point]) -> float:
    """Return where points without an accuracy stand, below all others, in percent."""
    known = [point.interval[0] if point.interval else point.accuracy for point in points]
    values = [100 * value for value in known if value is not None]
    return min(values) - 2.0 - 0.12 * (max(values) - min(values)) if values else 0.0


def _decades(points: Sequence[Point]) -> float:
    ends = [end for point in points for end in point.latency]
    return float(np.log10(max(ends) / max(min(ends), 1e-9)))


def _height(point: Point, floor: float) -> float:
    return floor if point.accuracy is None else 100 * point.accuracy


def _draw_point(axes: Any, point: Point, floor: float) -> None:
    colour = COLOURS.get(point.pipeline, QUIET)
    low, middle, high = point.latency
    at = _height(point, floor)
    axes.plot([low, high], [at, at], color=colour, linewidth=1.6, alpha=0.55, solid_capstyle="butt")
    if point.interval:
        bounds = [100 * bound for bound in point.interval]
        axes.plot([middle, middle], bounds, color=colour, linewidth=0.8, alpha=0.4)
    axes.scatter(
        [middle],
        [at],
        s=30,
        marker=point.kind.marker,
        facecolors="white" if point.modelled else colour,
        edgecolors=colour,
        linewidths=1.3,
        zorder=3,
    )


def _scale_accuracy(axes: Any, points: Sequence[Point], floor: float) -> None:
    """Name the strip at the bottom for what has a latency alone; without any accuracy it is all there is."""
    known = any(point.accuracy is not None for point in points)
    if known:
        axes.set_ylabel("accuracy, %")
    if any(point.accuracy is None for point in points):
        low, high = axes.get_ylim()
        ticks = (
            [tick for tick in axes.get_yticks() if floor + 0.05 * (high - low) < tick < high] if known else []
        )
        axes.set_yticks(
            [floor, *ticks], ["not\ntried" if known else "accuracy\nnot tried", *map("{:g}".format, ticks)]
        )
        axes.set_ylim(low, high)


def _label(figure: Any, axes: Any, points: Sequence[Point], floor: float) -> None:
    """Write numbers in free places; a thin line leads to a number that is not beside its point."""
    pixels = figure.dpi / 72
    anchors = [
        tuple(axes.transData.transform((point.latency[1], _height(point, floor))) / pixels)
        for point in points
    ]
    sizes = [(5.2 * len(str(point.number)) + 3.5, 7.4) for point in points]
    area = axes.get_window_extent()
    frame = tuple(value / pixels for value in (area.x0, area.y0, area.x1, area.y1))
    for point, anchor, box in zip(points, anchors, place(anchors, sizes, frame), strict=True):
        middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        offset = np.subtract(middle, anchor)
        far = float(np.hypot(*offset)) > _FAR
        axes.annotate(
            str(point.number),
            anchor,
            xycoords="figure points",
            xytext=tuple(offset),
            textcoords="offset points",
            ha="center",
            va="center_baseline",
            color=INK,
            fontsize=7.5,
            fontweight="bold",
            arrowprops={"arrowstyle": "-", "color": QUIET, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 4}
            if far
            else None,
        ).set_in_layout(False)


def _draw_legend(figure: Any, mapped: Mapped) -> None:
    """Write the legend into the figure, for a file that stands alone."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], linestyle="", marker="o", color=item["colour"], label=item["name"])
        for item in mapped.pipelines
    ]
    markers = {point.number: point for point in mapped.points}
    for item in mapped.targets:
        point = markers[item["number"]]
        face = "white" if point.modelled else QUIET
        handles.append(
            Line2D([], [], linestyle="", marker=point.kind.marker, markerfacecolor=face, color=QUIET,
                   label=f"{item['number']}  {item['name']} ({item['kind']})")
        )  # fmt: skip
    figure.legend(handles=handles, loc="outside lower left", ncols=2, frameon=False, labelcolor=INK)
