"""What `topokd-edge data import` tells a person."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from topokd_edge.cli import console

if TYPE_CHECKING:
    from topokd_edge.data.windowset import WindowSet

_MOST = 12


def show_import(windows: WindowSet, out: Path) -> None:
    """Print the set, what was dropped and why, and what a person should look at."""
    made, recordings = windows.made, windows.recordings
    dropped = {name: n for name, n in made["dropped"].items() if name not in ("samples", "in_windows")}
    total = made["dropped"]["samples"]
    lost = ", ".join(f"{name} {n} ({n / total:.1%})" for name, n in dropped.items() if n) or "none"
    gaps = [gap.seconds for item in recordings for gap in item.gaps if gap.seconds > 0]
    borders = sum(gap.seconds == 0 for item in recordings for gap in item.gaps)
    named = list(zip(windows.channels, windows.units, strict=True))
    rows = [
        ["windows", f"{len(windows)}, each {windows.length} samples at {windows.rate_hz:g} Hz"],
        ["recordings", f"{len(recordings)}, {total / windows.rate_hz / 3600:.3g} h"],
        ["gaps", f"{len(gaps)}, {sum(gaps):.4g} s missing" if gaps else "none"],
        *([["borders of unknown length", str(borders)]] if borders else []),
        ["samples filled", _filled(windows)],
        ["subjects", f"{len(windows.subjects)}: {' '.join(windows.subjects)}"],
        ["classes", f"{len(windows.class_names)}: {' '.join(windows.class_names)}"],
        ["channels", " ".join(f"{channel} [{unit}]" for channel, unit in named)],
        ["channels left out", " ".join(made["channels_left_out"]) or "none"],
        ["samples in no window", lost],
        ["classes left out", ", ".join(made["left_out_classes"]) or "none"],
        ["credit", f"{made['credit']} (licence: {made['licence']})"],
    ]
    console.table(f"Window set {out}", ["what", "value"], rows)
    for line in findings(windows):
        console.note(line)
    if not windows.class_names:
        console.note(
            "no recording has labels, so no window was cut; give them with --labels FILE.csv to train"
        )
    console.note(f"look at it before training: topokd-edge data inspect {out}")


def findings(windows: WindowSet) -> list[str]:
    """Return refusals, warnings and notes, each kind once with the recordings it is about."""
    found: dict[str, list[str]] = {}
    for item, warned in zip(windows.recordings, windows.made["warnings"], strict=True):
        for text in [*(f"warning: {line}" for line in warned), *(f"note: {line}" for line in item.notes)]:
            found.setdefault(text, []).append(f"subject {item.subject}, {item.source}")
    lines = [f"refused: {item['file']}: {item['reason']}" for item in windows.made["refused"]]
    lines += [f"note: {line}" for line in windows.made["label_rows_left_over"]]
    lines += [f"note: no recording has the label {name!r}" for name in windows.made["labels_to_drop_absent"]]
    for text, where in found.items():
        more = f" and {len(where) - 1} more" if len(where) > 1 else ""
        kind, _, rest = text.partition(": ")
        lines.append(f"{kind}: {where[0]}{more}: {rest}")
    if len(lines) > _MOST:
        lines = [*lines[:_MOST], f"... and {len(lines) - _MOST} more"]
    return lines


def _filled(windows: WindowSet) -> str:
    samples = sum(stop - start for item in windows.recordings for start, stop in item.filled)
    touched = int((windows.filled > 0).sum())
    return f"{samples}, in {touched} windows" if samples else "none"
