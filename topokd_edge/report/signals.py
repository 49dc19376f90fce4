"""Figures of a whole recording and of a few seconds of it: signals, gaps, filled samples, labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from topokd_edge.data.intervals import runs
from topokd_edge.data.recording import Recording
from topokd_edge.data.timeline import Envelope, Timeline, Zoom, start_time
from topokd_edge.data.windowset import covered_between
from topokd_edge.report.inspect_figures import on
from topokd_edge.report.numbers import span
from topokd_edge.report.svg import CHANNEL_COLOURS, INK, QUIET, name_lines, short, svg

Intervals = Sequence[tuple[int, int]]

GAP, FILLED, FROZEN = "#8b97a6", "#E69F00", "#B65F94"
_HATCHED = 40
"""Longest gaps that are drawn at their length; the others are lines."""
_NAMED_GAPS = 4
_WIDE, _NARROW = 7.6, 3.5
"""Inches."""
_LETTERS_AN_INCH = 15

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Panel:
    """Channels of one unit that are drawn together: their rows in the recording."""

    unit: str
    rows: tuple[int, ...]


def overview(
    name: str,
    recording: Recording,
    panels: Sequence[Panel],
    seen: Envelope,
    colours: Mapping[str, str],
    zoomed: Zoom,
    frozen: Intervals = (),
) -> str:
    """Draw a whole recording: envelopes, gaps, filled samples, and labels below.

    Parameters
    ----------
    panels
        What is drawn; the rows of `seen` are theirs, in order.
    colours
        Colour of each class.
    zoomed
        The stretch that `closer` draws.
    frozen
        Half-open sample intervals to mark as repeated values.
    """
    timeline = Timeline(recording)
    axis = TimeAxis(recording)

    def draw(figure: Any) -> None:
        axes = _panels(figure, panels, recording)
        middle = axis.x((seen.edges[:-1] + seen.edges[1:]) / 2)
        rows = iter(zip(seen.low, seen.high, strict=True))
        thin = timeline.seconds / 400
        start, stop = _at_least(zoomed.start, zoomed.stop, thin)
        for place, (panel, here) in enumerate(zip(panels, axes, strict=False)):
            for colour, (low, high) in zip(_cycle(panel), rows, strict=False):
                here.fill_between(middle, low, high, color=colour, alpha=0.6, linewidth=0.5)
            here.axvspan(axis.x(start), axis.x(stop), color=INK, alpha=0.16, linewidth=0)
            mark_gaps(here, recording, axis, named=place == 0)
            for intervals, colour in ((recording.filled, FILLED), (frozen, FROZEN)):
                for left, right in _touched(intervals, seen):
                    edges = _at_least(left, right, thin)
                    here.axvspan(*axis.x(edges), color=colour, alpha=0.35, linewidth=0)
            name_lines(here, _named(recording, panel))
        axes[0].set_xlim(axis.x(0.0), axis.x(timeline.seconds))
        if recording.labels:
            cells = _labels_at(recording, (seen.first[:-1] + seen.first[1:]) // 2)
            cells[np.diff(seen.first) == 0] = -1
            _band(axes[-1], axis.x(seen.edges), cells, recording, colours, _WIDE)
        axis.name(axes[-1])

    return svg(f"overview {name}", (_WIDE, _height(panels, recording)), draw)


def closer(
    name: str,
    recording: Recording,
    panels: Sequence[Panel],
    colours: Mapping[str, str],
    zoomed: Zoom,
    frozen: Intervals = (),
) -> str:
    """Draw a few seconds of a recording, sample by sample."""
    timeline = Timeline(recording)
    first, last = timeline.first_from([zoomed.start, zoomed.stop]).tolist()
    values = np.array(recording.samples[:, first:last], dtype=np.float64)
    time = timeline.at(np.arange(first, last)) - zoomed.start
    breaks = [gap.after_sample + 1 - first for gap in recording.gaps if first <= gap.after_sample < last - 1]
    broken_time, broken = np.insert(time, breaks, np.nan), np.insert(values, breaks, np.nan, axis=1)
    step = 1 / recording.rate_hz
    marked = [(*item, FILLED) for item in recording.filled] + [(*item, FROZEN) for item in frozen]
    marked = [item for item in marked if item[0] < last and item[1] > first]
    start = start_time(recording)
    since = span(zoomed.start)
    if start is not None:
        since = f"{start + timedelta(seconds=zoomed.start):%H:%M:%S}"

    def draw(figure: Any) -> None:
        axes = _panels(figure, panels, recording)
        for panel, here in zip(panels, axes, strict=False):
            for row, colour in zip(panel.rows, _cycle(panel), strict=True):
                here.plot(broken_time, broken[row], color=colour, linewidth=0.9)
            for at in breaks:
                _hatch(here, time[at - 1] + step, time[at])
            for left, right, colour in marked:
                sides = (timeline.at(left) - zoomed.start, timeline.ends(right) - zoomed.start)
                here.axvspan(*sides, color=colour, alpha=0.3, linewidth=0)
            name_lines(here, _named(recording, panel))
        axes[0].set_xlim(0, zoomed.stop - zoomed.start)
        if recording.labels and len(time):
            cells = np.insert(_labels_at(recording, np.arange(first, last)), breaks, -1)
            ends = [time[at - 1] + step for at in breaks]
            edges = np.append(np.insert(time, breaks, ends), time[-1] + step)
            _band(axes[-1], edges, cells, recording, colours, _NARROW)
        axes[-1].set_xlabel(f"seconds from {since}")

    return svg(f"closer {name}", (_NARROW, _height(panels, recording)), draw)


class TimeAxis:
    """Time across: the clock where the start is known, else seconds, minutes or hours since it."""

    def __init__(self, recording: Recording) -> None:
        self._start = start_time(recording)
        seconds = Timeline(recording).seconds
        units = (("s", 1.0, 300), ("min", 60.0, 10_800), ("h", 3600.0, 72 * 3600), ("days", 86_400.0, np.inf))
        self._unit, self._scale = next((unit, scale) for unit, scale, most in units if seconds < most)

    def x(self, seconds: Any) -> Any:
        """Return places on the axis."""
        if self._start is None:
            return np.asarray(seconds) / self._scale
        from matplotlib.dates import date2num

        return date2num(self._start) + np.asarray(seconds) / 86_400

    def name(self, axes: Any) -> None:
        """Write what the axis shows below `axes`."""
        if self._start is None:
            axes.set_xlabel(f"time since the start, {self._unit}")
            return
        from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

        locator = AutoDateLocator(minticks=3, maxticks=9)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))


def _panels(figure: Any, panels: Sequence[Panel], recording: Recording) -> Any:
    """Return one axes a panel and, with labels, a flat one for them."""
    heights = [1.0] * len(panels) + [0.17] * bool(recording.labels)
    axes = figure.subplots(len(heights), sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for panel, here in zip(panels, axes, strict=False):
        here.set_ylabel("no unit" if panel.unit == "1" else panel.unit)
        here.locator_params(axis="y", nbins=5)
    figure.align_ylabels()
    return axes


def _height(panels: Sequence[Panel], recording: Recording) -> float:
    panel = 1.45 if len(panels) == 1 else 1.15
    return panel * len(panels) + 0.5 + 0.25 * bool(recording.labels)


def _cycle(panel: Panel) -> list[str]:
    return [CHANNEL_COLOURS[index % len(CHANNEL_COLOURS)] for index in range(len(panel.rows))]


def _named(recording: Recording, panel: Panel) -> list[tuple[str, str]]:
    return [(recording.channels[row], colour) for row, colour in zip(panel.rows, _cycle(panel), strict=True)]


def _at_least(start: float, stop: float, width: float) -> tuple[float, float]:
    more = max(0.0, width - (stop - start)) / 2
    return start - more, stop + more


def _hatch(axes: Any, start: float, stop: float) -> None:
    axes.axvspan(start, stop, facecolor="white", edgecolor=GAP, hatch="/////", linewidth=0)


def mark_gaps(axes: Any, recording: Recording, axis: TimeAxis, *, named: bool) -> None:
    """Hatch the longest gaps, name the very longest, and tick the others and the borders at the top."""
    timeline = Timeline(recording)
    longest = sorted((gap for gap in recording.gaps if gap.seconds), key=lambda gap: -gap.seconds)
    for place, gap in enumerate(longest[:_HATCHED]):
        start = float(timeline.ends(gap.after_sample + 1))
        left, right = _at_least(start, start + gap.seconds, timeline.seconds / 400)
        _hatch(axes, axis.x(left), axis.x(right))
        if named and place < _NAMED_GAPS:
            axes.annotate(
                span(gap.seconds),
                (axis.x((left + right) / 2), 0.05),
                xycoords=("data", "axes fraction"),
                ha="center",
                fontsize=7,
                color=INK,
                bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": GAP, "linewidth": 0.5},
            )
    others = [gap for gap in recording.gaps if gap.seconds == 0] + longest[_HATCHED:]
    if others:
        at = np.unique(np.round(timeline.at([gap.after_sample + 1 for gap in others]), 3))
        shown = at[:: max(1, len(at) // 400)]
        axes.vlines(
            axis.x(shown), 0.92, 1.0, transform=axes.get_xaxis_transform(), color=QUIET, linewidth=0.7
        )


def _touched(intervals: Intervals, seen: Envelope) -> list[tuple[float, float]]:
    """Return the seconds from and to which buckets have samples of `intervals`."""
    touched = covered_between(intervals, seen.first[:-1], seen.first[1:]) > 0
    return [(float(seen.edges[first]), float(seen.edges[last])) for first, last in runs(touched)]


def _labels_at(recording: Recording, places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the number of the label interval at each sample, -1 where there is none."""
    begins = np.array([item.start for item in recording.labels], dtype=np.int64)
    stops = np.array([item.stop for item in recording.labels], dtype=np.int64)
    at = np.searchsorted(begins, places, side="right") - 1
    return np.where((at >= 0) & (places < stops[at]), at, -1).astype(np.int64)


def _band(
    axes: Any,
    edges: Floats,
    cells: npt.NDArray[np.int64],
    recording: Recording,
    colours: Mapping[str, str],
    inches: float,
) -> None:
    """Draw label intervals: `cells` are their numbers between `edges`."""
    whole = float(edges[-1] - edges[0])
    changes = np.flatnonzero(np.diff(cells)) + 1
    bounds = [0, *changes.tolist(), len(cells)]
    for first, last in pairwise(bounds):
        if cells[first] < 0:
            continue
        label = recording.labels[cells[first]].label
        left, width = float(edges[first]), float(edges[last] - edges[first])
        axes.broken_barh(
            [(left, width)], (0, 1), facecolors=colours[label], edgecolors="white", linewidth=0.4
        )
        letters = int(width / whole * inches * _LETTERS_AN_INCH) - 1
        if letters >= min(len(label), 5):
            axes.annotate(
                short(label, letters),
                (left + width / 2, 0.45),
                ha="center",
                va="center",
                fontsize=7,
                color=on(colours[label]),
            )
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)
