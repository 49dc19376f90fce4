"""Figures of an inspection: colours of classes, norms about 1 g, small windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from topokd_edge.data.units import STANDARD_GRAVITY
from topokd_edge.report.svg import CHANNEL_COLOURS, INK, name_lines, short, svg

_HUES = ("#0072B2", "#D55E00", "#009E73", "#B65F94", "#E69F00", "#56B4E9", "#7A7A7A", "#8C6D31")
_MIXES = ((1.0, 0.0), (0.55, 0.45), (0.62, 0.0))
"""Shares of the hue and of white: as it is, lighter, darker."""
_SUBJECT_ROWS = 40
"""More subjects share one line a sensor."""


def class_colours(classes: Sequence[str]) -> dict[str, str]:
    """Return a colour for each class; they repeat after 24, so a name must stand beside them."""
    colours = {}
    for index, name in enumerate(classes):
        hue, (share, white) = _HUES[index % len(_HUES)], _MIXES[index // len(_HUES) % len(_MIXES)]
        parts = (int(hue[at : at + 2], 16) for at in (1, 3, 5))
        colours[name] = "#" + "".join(f"{round(share * part + 255 * white):02x}" for part in parts)
    return colours


def on(colour: str) -> str:
    """Return the colour of text that can be read on `colour`."""
    red, green, blue = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    return INK if 0.299 * red + 0.587 * green + 0.114 * blue > 0.56 else "#ffffff"


@dataclass(frozen=True, slots=True)
class Norm:
    """Norm of one sensor of one subject in g, over its recordings; `rest` says whether it was at rest."""

    subject: str
    sensor: str
    median: float
    low: float
    high: float
    rest: bool


def norms(rows: Sequence[Norm]) -> str:
    """Draw norms about 1 g: a line a subject, or, with many subjects, a line a sensor."""
    sensors = list(dict.fromkeys(row.sensor for row in rows))
    subjects = list(dict.fromkeys(row.subject for row in rows))
    crowded = len(subjects) > _SUBJECT_ROWS
    names = sensors if crowded else subjects
    offsets = (
        np.linspace(-0.22, 0.22, len(sensors)) if len(sensors) > 1 and not crowded else [0.0] * len(sensors)
    )
    far = max(max(row.high, 1 / max(row.low, 1e-3)) for row in rows) > 2
    lift = dict(zip(subjects, np.linspace(-0.3, 0.3, len(subjects)), strict=True))

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        axes.axvspan(0.95, 1.05, color="#009E73", alpha=0.12, linewidth=0)
        axes.axvline(1.0, color="#009E73", linewidth=0.9)
        for row in rows:
            colour = CHANNEL_COLOURS[sensors.index(row.sensor) % len(CHANNEL_COLOURS)]
            line = (
                names.index(row.sensor) + lift[row.subject]
                if crowded
                else (names.index(row.subject) + offsets[sensors.index(row.sensor)])
            )
            axes.plot([row.low, row.high], [line, line], color=colour, linewidth=1.2, alpha=0.5)
            face = colour if row.rest else "white"
            axes.scatter(
                [row.median], [line], s=15, facecolors=face, edgecolors=colour, linewidths=1.1, zorder=3
            )
        if len(sensors) > 1 and not crowded:
            name_lines(axes, list(zip(sensors, CHANNEL_COLOURS, strict=False)))
        axes.set_yticks(range(len(names)), [short(name) for name in names])
        axes.tick_params(axis="y", labelcolor=INK)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        if far:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.minorticks_off()
            for factor in (1 / STANDARD_GRAVITY, STANDARD_GRAVITY):
                axes.axvline(factor, color="#D55E00", linewidth=0.9, linestyle=(0, (4, 3)))
                axes.annotate(
                    "1/9.8" if factor < 1 else "9.8",
                    (factor, -0.6),
                    color="#D55E00",
                    ha="left",
                    va="bottom",
                    annotation_clip=False,
                )
            axes.set_xlim(min(0.08, *(row.low for row in rows)), max(13, *(row.high for row in rows)))
        else:
            reach = max(0.12, 1.1 * max(max(row.high - 1, 1 - row.low) for row in rows))
            axes.set_xlim(1 - reach, 1 + reach)
        axes.set_xlabel("norm of the acceleration, g" + (" (logarithmic)" if far else ""))

    return svg("norms", (5.0, 0.2 * max(len(names), 3) * (3 if crowded else 1) + 0.75), draw)


def small_window(
    name: str, signal: npt.NDArray[np.float32], rate_hz: float, unit: str, limits: tuple[float, float]
) -> str:
    """Draw a few channels of one window on axes that all windows share.

    Parameters
    ----------
    signal
        float32, shape (channels, length), in `unit`.
    limits
        Lowest and highest value shown.
    """

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        seconds = np.arange(signal.shape[1]) / rate_hz
        for channel, colour in zip(signal, CHANNEL_COLOURS, strict=False):
            axes.plot(seconds, channel, color=colour, linewidth=0.8)
        axes.margins(x=0)
        axes.set_ylim(*limits)
        axes.locator_params(axis="both", nbins=4)
        axes.set_ylabel("no unit" if unit == "1" else unit)
        axes.set_xlabel("s")

    return svg(f"window {name}", (2.2, 1.25), draw)
