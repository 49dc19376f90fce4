"""The page to look at before training: collect what an inspection found, and write one HTML file."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from topokd_edge import __version__
from topokd_edge.data.check import accelerometers
from topokd_edge.data.inspection import Chosen, Facts, Inspected, chosen_recordings
from topokd_edge.data.recording import Recording
from topokd_edge.data.timeline import envelope, start_time, zoom
from topokd_edge.files import write_text
from topokd_edge.report import inspect_tables as tables
from topokd_edge.report import numbers
from topokd_edge.report.examples import typical
from topokd_edge.report.findings import Finding
from topokd_edge.report.inspect_figures import class_colours, norms, small_window
from topokd_edge.report.page import render
from topokd_edge.report.signals import Panel, closer, overview

TEMPLATE = "inspect.html.j2"
_BUCKETS = 500
_ZOOM_SECONDS = 8.0
_ZOOM_SAMPLES = 100
_MOST_PANELS = 3
_LINES = 3
"""Channels of one unit in one picture."""
_STILL_ROWS = 20
_SHADES = 9
_RULES = {
    "all": "every sample has the label",
    "majority": "the label of most samples",
    "last": "the label of the last sample",
    "ends": "the label of the first and the last sample, when they agree",
}
_NAMED = 6


def write_page(inspected: Inspected, facts: Facts, found: list[Finding], out: Path) -> None:
    """Write what there is to see of recordings as one HTML file that needs no network.

    Parameters
    ----------
    inspected
        The recordings, with or without windows.
    facts, found
        What `look` and `findings` say of them.
    out
        The file to write, whole or not at all; one that exists is replaced.
    """
    write_text(out, render(TEMPLATE, collect(inspected, facts, found)))


def collect(inspected: Inspected, facts: Facts, found: list[Finding]) -> dict[str, Any]:
    """Return everything the page shows, formatted, with figures as SVG text."""
    colours = class_colours(facts.classes)
    norm_rows = tables.norm_rows(inspected, facts)
    return {
        "title": f"{inspected.name}: the data before training",
        "version": __version__,
        "sentence": _sentence(inspected),
        "tiles": _tiles(inspected, facts, found),
        "findings": found,
        "signals": [
            _signal(inspected, facts, chosen, colours) for chosen in chosen_recordings(inspected, facts)
        ],
        "recordings": len(inspected.recordings),
        "colours": [(name, colour) for name, colour in colours.items()],
        "clocks": tables.clocks_table(inspected),
        "stamped": any(item.clock for item in inspected.recordings),
        "rate": f"{inspected.recordings[0].rate_hz:.6g}",
        "norms": norms(norm_rows) if norm_rows else "",
        "norms_table": tables.norms_table(norm_rows),
        "sensors": len({row.sensor for row in norm_rows}),
        "heat": _heat(facts),
        "wear": tables.wear_rows(inspected, facts),
        "still": _still(inspected, facts),
        "dropped": tables.dropped_table(inspected),
        "left_out": list(inspected.made.get("left_out_classes", {}).items()),
        "channels_left_out": list(inspected.made.get("channels_left_out", [])),
        "refused": [
            {"file": item["file"], "reason": tables.reason(item)}
            for item in inspected.made.get("refused", [])
        ],
        "examples": _examples(inspected, colours),
        "made": _made(inspected),
    }


def _sentence(inspected: Inspected) -> str:
    recordings, first = inspected.recordings, inspected.recordings[0]
    devices = sorted({item.device for item in recordings} - {"unknown"})
    units = [first.units.count(unit) for unit in dict.fromkeys(first.units)]
    named = [f"{channel} ({unit})" for channel, unit in zip(first.channels, first.units, strict=True)]
    if len(named) > _NAMED:
        named = [f"{n} in {unit}" for n, unit in zip(units, dict.fromkeys(first.units), strict=True)]
    text = f"{_recordings(inspected)} at {first.rate_hz:.6g} Hz, "
    text += f"{len(first.channels)} channel{'s' * (len(first.channels) != 1)}: {', '.join(named)}."
    if devices:
        more = f" and {len(devices) - _NAMED} more" if len(devices) > _NAMED else ""
        text += f" Device: {', '.join(devices[:_NAMED])}{more}."
    return text


def _tiles(inspected: Inspected, facts: Facts, found: list[Finding]) -> list[dict[str, str]]:
    recorded, missing = sum(w.recorded for w in facts.wear), sum(w.missing for w in facts.wear)
    bad, looks = (sum(item.tone == tone for item in found) for tone in ("bad", "look"))
    known = [subject for subject in facts.subjects if subject != "unknown"]
    tiles = [
        _tile(
            "To look at",
            str(bad + looks),
            f"{bad} wrong as it is, {looks} to check" if bad + looks else "nothing stands out",
            "bad" if bad else "look" if looks else "",
        ),
        _tile(
            "Subjects",
            str(len(known)) if known else "unknown",
            f"in {_recordings(inspected)}",
        ),
        _tile(
            "Recorded",
            numbers.span(recorded),
            f"{numbers.span(missing)} missing in gaps" if missing else "no time missing in gaps",
        ),
    ]
    if facts.classes:
        labelled = sum(w.labelled for w in facts.wear)
        tiles.append(
            _tile(
                "Classes",
                str(len(facts.classes)),
                f"{numbers.percent(labelled / recorded)} of the time is labelled",
            )
        )
    if (windows := inspected.windows) is not None:
        seconds = windows.length / windows.rate_hz
        tiles.append(
            _tile(
                "Windows", numbers.count(len(windows)), f"of {seconds:.3g} s, {windows.length} samples each"
            )
        )
        dropped = inspected.made.get("dropped", {})
        if dropped.get("samples"):
            share = dropped.get("in_windows", 0) / dropped["samples"]
            tiles.append(_tile("Samples used", numbers.percent(share), "are in at least one window"))
    return tiles


def _recordings(inspected: Inspected) -> str:
    number = len(inspected.recordings)
    return f"{numbers.count(number)} recording{'s' * (number != 1)}"


def _tile(label: str, value: str, detail: str, tone: str = "") -> dict[str, str]:
    return {"label": label, "value": value, "detail": detail, "tone": tone}


def _signal(inspected: Inspected, facts: Facts, chosen: Chosen, colours: dict[str, str]) -> dict[str, Any]:
    """Return the pictures of one recording."""
    item, frozen = inspected.recordings[chosen.index], facts.frozen[chosen.index]
    name = str(chosen.index)
    panels = _panels(item)
    rows = [row for panel in panels for row in panel.rows]
    seen = envelope(item, rows, max(2, min(_BUCKETS, item.samples.shape[1] // 2)))
    zoomed = zoom(item, seen, max(_ZOOM_SECONDS, _ZOOM_SAMPLES / item.rate_hz), frozen)
    start = start_time(item)
    shown = list(dict.fromkeys(interval.label for interval in item.labels))
    gaps = [gap.seconds for gap in item.gaps if gap.seconds]
    return {
        "subject": item.subject,
        "source": item.source,
        "why": chosen.why,
        "about": f"{numbers.span(item.samples.shape[1] / item.rate_hz)} of samples"
        + (f", {len(gaps)} gap{'s' * (len(gaps) != 1)} of {numbers.span(sum(gaps))}" if gaps else "")
        + (f", from {start:%Y-%m-%d %H:%M:%S}" if start else ""),
        "shown": len(rows),
        "channels": len(item.channels),
        "overview": overview(name, item, panels, seen, colours, zoomed, frozen),
        "closer": closer(name, item, panels, colours, zoomed, frozen),
        "zoomed": zoomed.why,
        "seconds": numbers.span(zoomed.stop - zoomed.start),
        "borders": sum(gap.seconds == 0 for gap in item.gaps),
        "filled": bool(item.filled),
        "labels": [(name, colours[name]) for name in shown],
        "notes": list(item.notes),
    }


def _panels(item: Recording) -> list[Panel]:
    """Return which channels are drawn: the first accelerometer, then the first channels of other units."""
    sensor = next((rows for _, rows, _ in accelerometers(item)), None)
    panels = [] if sensor is None else [Panel(item.units[sensor[0]], tuple(sensor))]
    for unit in dict.fromkeys(item.units):
        if all(panel.unit != unit for panel in panels):
            rows = [row for row, other in enumerate(item.units) if other == unit]
            panels.append(Panel(unit, tuple(rows[:_LINES])))
    return panels[:_MOST_PANELS]


def _heat(facts: Facts) -> dict[str, Any] | None:
    """Return windows (labelled seconds before windows are cut) by class and subject, the longer list down."""
    if not facts.classes:
        return None
    counts = facts.seconds if facts.windows is None else facts.windows.astype(np.float64)
    seconds = facts.seconds
    down, across, turned = facts.classes, facts.subjects, len(facts.classes) < len(facts.subjects)
    if turned:
        counts, seconds, down, across = counts.T, seconds.T, facts.subjects, facts.classes
    most = max(float(counts.max()), 1.0)
    say = (lambda value: numbers.count(value)) if facts.windows is not None else numbers.span
    rows = []
    for name, numbers_row, time_row in zip(down, counts, seconds, strict=True):
        cells = [
            {
                "main": say(value) if value else "0",
                "small": numbers.span(time) if facts.windows is not None and time else "",
                "shade": int(np.ceil(_SHADES * value / most)),
            }
            for value, time in zip(numbers_row.tolist(), time_row.tolist(), strict=True)
        ]
        rows.append({"name": name, "cells": cells, "total": say(float(numbers_row.sum()))})
    return {
        "corner": "subject" if turned else "class",
        "across": list(across),
        "rows": rows,
        "totals": [say(float(value)) for value in counts.sum(axis=0)],
        "total": say(float(counts.sum())),
        "windows": facts.windows is not None,
    }


def _still(inspected: Inspected, facts: Facts) -> list[dict[str, str]]:
    """Return the longest stretches that look as if a sensor was not worn."""
    rows = []
    for item, wear in zip(inspected.recordings, facts.wear, strict=True):
        start = start_time(item)
        for still in wear.still:
            when = f"{numbers.span(still.start)} after the start"
            if start is not None:
                when = f"{start + timedelta(seconds=still.start):%Y-%m-%d %H:%M}"
            rows.append((still.seconds, {"subject": item.subject, "sensor": still.sensor, "when": when}))
    rows.sort(key=lambda row: -row[0])
    return [{**row, "length": numbers.span(seconds)} for seconds, row in rows[:_STILL_ROWS]]


def _examples(inspected: Inspected, colours: dict[str, str]) -> dict[str, Any] | None:
    """Return a typical window of each class, all on the same axes."""
    windows = inspected.windows
    if windows is None or len(windows) == 0:
        return None
    panel = _panels(windows.recordings[0])[0]
    chosen = typical(windows, np.arange(len(windows)), most=len(windows.class_names))
    signals = windows.x[chosen][:, list(panel.rows)]
    limits = float(signals.min()), float(signals.max())
    room = 0.05 * max(limits[1] - limits[0], 1e-6)
    cells = []
    for index, signal in zip(chosen.tolist(), signals, strict=True):
        label = windows.class_names[int(windows.y[index])]
        svg = small_window(
            str(index), signal, windows.rate_hz, panel.unit, (limits[0] - room, limits[1] + room)
        )
        subject = str(windows.subject[index])
        cells.append({"label": label, "colour": colours[label], "subject": subject, "svg": svg})
    return {
        "cells": cells,
        "channels": [windows.channels[row] for row in panel.rows],
        "seconds": f"{windows.length / windows.rate_hz:.3g}",
    }


def _made(inspected: Inspected) -> list[tuple[str, str]]:
    """Return how the set was made, one line a fact."""
    made, windows = inspected.made, inspected.windows
    first = inspected.recordings[0]
    rows = [
        ("Source", made.get("source")),
        ("Format", made.get("format")),
        ("Credit", made.get("credit")),
        ("Licence", made.get("licence")),
        ("Channels", ", ".join(f"{c} ({u})" for c, u in zip(first.channels, first.units, strict=True))),
        ("Devices", ", ".join(sorted({item.device for item in inspected.recordings})[:20])),
    ]
    if windows is not None:
        rule = _RULES.get(str(made.get("label_rule")), "not told")
        if "majority" in made:
            rule += f" (at least {numbers.percent(made['majority'])})"
        rows += [
            ("Window", f"{windows.length / windows.rate_hz:.4g} s, {windows.length} samples"),
            ("Overlap", numbers.percent(made["overlap"]) if "overlap" in made else None),
            ("Label rule", rule),
            ("Windows with two labels", "kept" if made.get("transitions") else "none"),
            ("Content hash (SHA-256)", windows.content_hash),
        ]
    return [(name, str(value)) for name, value in rows if value]
