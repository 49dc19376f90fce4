"""Inline SVG in the style of the house: text stays text, colours are told apart by colour-blind readers."""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from topokd_edge.files import replacing

# Okabe and Ito, "Color Universal Design" (2008); the yellow is too faint on white and left out.
CHANNEL_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#B65F94", "#7A7A7A", "#56B4E9")
INK, QUIET, GRID = "#1d2530", "#5b6675", "#e3e7ec"

_STYLE = {
    "svg.fonttype": "none",
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8.0,
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": QUIET,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.major.size": 0.0,
    "ytick.major.size": 0.0,
}


def save(path: Path, inches: tuple[float, float], draw: Callable[[Any], None]) -> None:
    """Run `draw` on a new figure and write it to `path`, as .svg or .png by its suffix."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    kind = path.suffix[1:]
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type")) if kind == "svg" else {}
    with rc_context({**_STYLE, "svg.hashsalt": path.name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = Figure(figsize=inches, layout="constrained")
        draw(figure)
        with replacing(path) as part:
            figure.savefig(part, format=kind, dpi=150, facecolor="white", metadata=nothing)


def svg(name: str, inches: tuple[float, float], draw: Callable[[Any], None]) -> str:
    """Run `draw` on a new figure and return it as an SVG element whose ids are its own."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    stream = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with rc_context({**_STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
        # Names in any script may occur; the browser has the glyphs that the layout font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = Figure(figsize=inches, layout="constrained")
        draw(figure)
        figure.savefig(stream, format="svg", transparent=True, metadata=nothing)
    text = stream.getvalue()
    return _own_ids(text[text.index("<svg") :], name)


def channel_colours(units: Sequence[str]) -> list[str]:
    """Return the colour of each channel: counted anew for each unit, as each unit has its own panel."""
    seen: dict[str, int] = {}
    colours = []
    for unit in units:
        colours.append(CHANNEL_COLOURS[seen.get(unit, 0) % len(CHANNEL_COLOURS)])
        seen[unit] = seen.get(unit, 0) + 1
    return colours


def name_lines(axes: Any, names: Sequence[tuple[str, str]]) -> None:
    """Write the channel names above a panel, each in the colour of its line."""
    for place, (label, colour) in enumerate(names[:6]):
        axes.annotate(
            short(label, 14),
            (place / max(3, min(6, len(names))), 1.02),
            xycoords="axes fraction",
            color=colour,
            fontsize=7.5,
            annotation_clip=False,
        )


def short(text: str, longest: int = 18) -> str:
    """Return `text` on one line, cut to `longest` letters."""
    plain = "".join(letter if letter.isprintable() else "?" for letter in text)
    return plain if len(plain) <= longest else plain[: longest - 1] + "…"


def _own_ids(text: str, name: str) -> str:
    """Give ids a prefix of their own, drop matplotlib's style and needless digits, size by CSS."""
    prefix = "f" + hashlib.sha256(name.encode()).hexdigest()[:8]
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{prefix}-\1"', text)
    text = re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), text)
    width = float(re.findall(r'\bwidth="([\d.]+)pt"', text)[0])
    text = re.sub(r'\b(?:width|height)="[\d.]+pt"', "", text)
    rems = width * 96 / 72 / 16
    return text.replace("<svg ", f'<svg style="width:{rems:.2f}rem" aria-hidden="true" focusable="false" ', 1)
