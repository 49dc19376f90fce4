"""The picture of a timeline: the signals, and below them when the student says which class."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from topokd_edge.data.timeline import Envelope, Timeline, envelope
from topokd_edge.data.windowset import covered_between
from topokd_edge.predict.answers import Answers
from topokd_edge.predict.timeline import Intervals, intervals
from topokd_edge.report.inspect_figures import class_colours
from topokd_edge.report.signals import TimeAxis, mark_gaps
from topokd_edge.report.svg import CHANNEL_COLOURS, INK, QUIET, name_lines, save, short

_BUCKETS = 1500
_WIDE = 10.0
"""Inches."""
_FAINTEST = 0.25
"""Opacity of the least share of a bucket, so that a single window of a week is seen."""

Floats = npt.NDArray[np.float64]


def draw_timeline(answers: Answers, title: str, path: Path) -> None:
    """Draw a recording with its timeline: a row for each class that the student or the file names.

    Time is cut into 1,500 buckets; the opacity of a class in a bucket is its share of the samples. Where the
    file has labels, a dark line below the row says when they name the class.

    Parameters
    ----------
    answers
        Of one recording.
    title
        Written above.
    path
        The figure to write; its suffix is .svg or .png.
    """
    recording = answers.recording
    panels = [
        (unit, [row for row, _ in rows])
        for unit, rows in groupby(enumerate(recording.units), key=lambda item: item[1])
    ]
    order = [row for _, rows in panels for row in rows]
    seen = envelope(recording, order, _BUCKETS)
    found = intervals(answers)
    said, truth = shares(answers, found, seen)
    names = [name for name in said if said[name].any() or name in truth] + [n for n in truth if n not in said]
    timeline, axis = Timeline(recording), TimeAxis(recording)

    def draw(figure: Any) -> None:
        heights = [1.0] * len(panels) + [max(0.4, 0.19 * len(names))]
        axes = figure.subplots(len(heights), sharex=True, squeeze=False, height_ratios=heights)[:, 0]
        rows = iter(zip(seen.low, seen.high, strict=True))
        middle = axis.x((seen.edges[:-1] + seen.edges[1:]) / 2)
        for place, ((unit, members), here) in enumerate(zip(panels, axes, strict=False)):
            colours = [CHANNEL_COLOURS[index % len(CHANNEL_COLOURS)] for index in range(len(members))]
            for colour, (low, high) in zip(colours, rows, strict=False):
                here.fill_between(middle, low, high, color=colour, alpha=0.6, linewidth=0.5)
            here.set_ylabel("no unit" if unit == "1" else unit)
            mark_gaps(here, recording, axis, named=place == 0)
            name_lines(here, [(recording.channels[row], c) for row, c in zip(members, colours, strict=True)])
        mark_gaps(axes[-1], recording, axis, named=False)
        _class_rows(axes[-1], names, said, truth, axis.x(np.array([0.0, timeline.seconds])))
        axes[-1].set_xlim(axis.x(0.0), axis.x(timeline.seconds))
        axis.name(axes[-1])
        figure.align_ylabels(axes[:-1])
        figure.suptitle(title, x=0.01, ha="left", fontsize=9, color=INK)
        if truth:
            figure.supxlabel("dark line below a row: the labels of the file", fontsize=7.5, color=QUIET)

    save(path, (_WIDE, 1.25 * len(panels) + max(0.5, 0.24 * len(names)) + 0.9), draw)


def shares(answers: Answers, found: Intervals, seen: Envelope) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Return the share of each class in the samples of each bucket, by the student and by the file.

    Returns
    -------
    tuple of dict
        By class name, float64 of shape (buckets,); the second has the labels of the file only.
    """
    sizes = np.maximum(np.diff(seen.first), 1)

    def of(pairs: list[tuple[int, int]]) -> Floats:
        return np.asarray(covered_between(pairs, seen.first[:-1], seen.first[1:]) / sizes, dtype=np.float64)

    said = {}
    for number, name in enumerate(answers.class_names):
        mine = found.label == number
        said[name] = of(list(zip(found.start[mine].tolist(), found.stop[mine].tolist(), strict=True)))
    labels = answers.recording.labels
    truth = {
        name: of([(item.start, item.stop) for item in labels if item.label == name])
        for name in sorted({item.label for item in labels})
    }
    return said, truth


def _class_rows(
    axes: Any, names: list[str], said: dict[str, Floats], truth: dict[str, Floats], ends: Floats
) -> None:
    colours = class_colours(names)
    for row, name in enumerate(names):
        if name in said:
            _strip(axes, said[name], colours[name], (row - 0.4, row + 0.26), ends)
        if name in truth:
            _strip(axes, truth[name], INK, (row + 0.32, row + 0.42), ends)
    axes.set_yticks(range(len(names)), [short(name, 28) for name in names])
    axes.tick_params(axis="y", labelcolor=INK)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")


def _strip(axes: Any, share: Floats, colour: str, rows: tuple[float, float], ends: Floats) -> None:
    """Draw a line of buckets, the fuller the less transparent."""
    picture = np.empty((1, len(share), 4), dtype=np.float32)
    picture[..., :3] = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    picture[..., 3] = np.where(share > 0, _FAINTEST + (1 - _FAINTEST) * share, 0.0)
    extent = (float(ends[0]), float(ends[1]), rows[1], rows[0])
    axes.imshow(picture, extent=extent, aspect="auto", interpolation="nearest", zorder=2)
