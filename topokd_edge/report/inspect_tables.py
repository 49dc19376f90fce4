"""Tables of an inspection, for the page and for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from topokd_edge.data.inspection import Facts, Inspected
from topokd_edge.data.timeline import start_time
from topokd_edge.data.windowset import subject_key
from topokd_edge.report.inspect_figures import Norm
from topokd_edge.report.numbers import MISSING, count, decimal, percent, span

MOST_RECORDINGS = 40
"""More are shown as one row a subject."""
DROPPED = {
    "unlabelled": "without a label",
    "too_short": "in labelled stretches shorter than a window",
    "gap": "cut off by a gap or border: too short a rest for a window",
    "tail": "left over at the end of a stretch",
    "no_clear_label": "only in windows without a clear label, or without any",
    "rare_class": "of classes that were left out because too few subjects have them",
}
"""Why samples are in no window, in the words of a person."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table of texts; the first column names the row."""

    title: str
    columns: list[str]
    rows: list[list[str]]

    def without(self, *left_out: int) -> Table:
        """Return the table without the columns of these numbers."""
        kept = [index for index in range(len(self.columns)) if index not in left_out]
        rows = [[row[index] for index in kept] for row in self.rows]
        return Table(self.title, [self.columns[index] for index in kept], rows)


@dataclass(frozen=True, slots=True)
class Group:
    """Recordings that share a row."""

    name: str
    what: str
    indices: tuple[int, ...]


def groups(inspected: Inspected) -> list[Group]:
    """Return every recording for itself, or with more than 40 those of each subject together."""
    recordings = inspected.recordings
    if len(recordings) <= MOST_RECORDINGS:
        return [Group(item.subject, item.source, (index,)) for index, item in enumerate(recordings)]
    members: dict[str, list[int]] = {}
    for index, item in enumerate(recordings):
        members.setdefault(item.subject, []).append(index)
    return [
        Group(subject, _shared(inspected, members[subject]), tuple(members[subject]))
        for subject in sorted(members, key=subject_key)
    ]


def clocks_table(inspected: Inspected) -> Table | None:
    """Say what stamps tell of the rate; None when there is neither a stamp nor a gap."""
    recordings = inspected.recordings
    if not any(item.clock or item.gaps for item in recordings):
        return None
    rows = []
    for group in groups(inspected):
        items = [recordings[index] for index in group.indices]
        clocks = [item.clock for item in items if item.clock]
        gaps = [gap.seconds for item in items for gap in item.gaps]
        rows.append(
            [
                group.name,
                group.what,
                between((item.rate_hz for item in items), _rate),
                between((clock.stated_hz for clock in clocks if clock.stated_hz), _rate),
                between((clock.estimated_hz for clock in clocks), _rate),
                between((1000 * clock.jitter_s for clock in clocks), _jitter),
                between((clock.drift_ppm for clock in clocks), lambda ppm: f"{decimal(ppm, 0)} ppm"),
                count(sum(seconds > 0 for seconds in gaps)),
                span(sum(gaps)) if sum(gaps) else MISSING,
                span(max(gaps)) if sum(gaps) else MISSING,
                count(sum(seconds == 0 for seconds in gaps)),
                count(sum(clock.repeated for clock in clocks)) if clocks else MISSING,
            ]
        )
    columns = ["subject", "recording", "rate used", "stated", "from stamps", "jitter", "drift"]
    columns += ["gaps", "missing", "longest", "borders", "repeated stamps"]
    return _without_empty(Table("Rates, stamps and gaps", columns, rows), keep=3)


def wear_rows(inspected: Inspected, facts: Facts) -> list[dict[str, object]]:
    """Return where the time of each subject's session goes, with shares of a bar."""
    sessions: dict[tuple[str, str], list[int]] = {}
    for index, item in enumerate(inspected.recordings):
        by_subject = len(inspected.recordings) > MOST_RECORDINGS
        session = "" if by_subject else item.session
        sessions.setdefault((item.subject, session), []).append(index)
    rows = []
    for subject, session in sorted(sessions, key=lambda key: (subject_key(key[0]), key[1])):
        items = [inspected.recordings[index] for index in sessions[subject, session]]
        wear = [facts.wear[index] for index in sessions[subject, session]]
        recorded, missing = sum(w.recorded for w in wear), sum(w.missing for w in wear)
        labelled, still = sum(w.labelled for w in wear), sum(w.still_seconds for w in wear)
        starts = sorted(start for item in items if (start := start_time(item)) is not None)
        whole = recorded + missing
        rows.append(
            {
                "subject": subject,
                "session": session or _shared(inspected, sessions[subject, session]),
                "recordings": len(items),
                "starts": f"{starts[0]:%Y-%m-%d %H:%M}" if starts else MISSING,
                "recorded": span(recorded),
                "missing": span(missing) if missing else MISSING,
                "labelled": f"{span(labelled)} ({percent(labelled / recorded)})" if labelled else MISSING,
                "still": span(still) if still else MISSING,
                "bar": [
                    ("labelled", round(100 * labelled / whole, 2)),
                    ("unlabelled", round(100 * max(recorded - labelled, 0) / whole, 2)),
                    ("missing", round(100 * missing / whole, 2)),
                ],
            }
        )
    return rows


def wear_table(inspected: Inspected, facts: Facts) -> Table:
    """Return `wear_rows` as texts."""
    keys = ["subject", "session", "starts", "recorded", "missing", "labelled", "still"]
    rows = [[str(row[key]) for key in keys] for row in wear_rows(inspected, facts)]
    return Table("Time recorded", [*keys[:-1], "still and flat"], rows)


def classes_table(facts: Facts) -> Table | None:
    """Return each class with its subjects, windows and time; None without labels."""
    if not facts.classes:
        return None
    rows = []
    for index, name in enumerate(facts.classes):
        seconds = facts.seconds[index]
        row = [name, str(np.count_nonzero(seconds)), span(float(seconds.sum()))]
        rows.append(row if facts.windows is None else [*row, count(int(facts.windows[index].sum()))])
    columns = ["class", "subjects", "labelled"] + ["windows"] * (facts.windows is not None)
    return Table("Classes", columns, rows)


def dropped_table(inspected: Inspected) -> Table | None:
    """Say why samples are in no window; None when nothing was cut yet."""
    dropped = inspected.made.get("dropped")
    if not dropped or not dropped.get("samples"):
        return None
    total, rate_hz = dropped["samples"], inspected.recordings[0].rate_hz
    rows = [
        [why, count(dropped[key]), span(dropped[key] / rate_hz), _share(dropped[key] / total)]
        for key, why in DROPPED.items()
        if dropped.get(key)
    ]
    used = f"{percent(dropped.get('in_windows', 0) / total)} of all samples are in a window"
    return Table(f"Samples in no window; {used}", ["why", "samples", "time", "share"], rows)


def norm_rows(inspected: Inspected, facts: Facts) -> list[Norm]:
    """Return the norm of each subject's sensors: at rest where any recording rests, else of all samples."""
    rest: dict[tuple[str, str], list[float]] = {}
    moving: dict[tuple[str, str], list[float]] = {}
    for item, checks in zip(inspected.recordings, facts.acceleration, strict=True):
        for check in checks:
            key = (item.subject, check.name)
            moving.setdefault(key, []).append(check.median_g)
            if check.rest_g is not None:
                rest.setdefault(key, []).append(check.rest_g)
    rows = []
    for key in sorted(moving, key=lambda key: subject_key(key[0])):
        values = rest.get(key) or moving[key]
        rows.append(Norm(*key, float(np.median(values)), min(values), max(values), key in rest))
    return rows


def norms_table(rows: Sequence[Norm]) -> Table:
    """Return the norms as texts."""
    return Table(
        "Norm of the acceleration, g",
        ["subject", "sensor", "median", "lowest", "highest", "taken"],
        [
            [
                row.subject,
                row.sensor,
                f"{row.median:.3f}",
                f"{row.low:.3f}",
                f"{row.high:.3f}",
                "at rest" if row.rest else "moving: it never rests",
            ]
            for row in rows
        ],
    )


def between(values: Iterable[float], say: Callable[[float], str]) -> str:
    """Return one value, or the lowest and the highest, as `say` writes them."""
    finite = [value for value in values if np.isfinite(value)]
    if not finite:
        return MISSING
    low, high = say(min(finite)), say(max(finite))
    return low if low == high else f"{low} to {high}"


def _without_empty(table: Table, *, keep: int) -> Table:
    """Leave out the columns after the first `keep` that say nothing in any row."""
    silent = (
        index
        for index in range(keep, len(table.columns))
        if all(row[index] in (MISSING, "0") for row in table.rows)
    )
    return table.without(*silent)


def _shared(inspected: Inspected, indices: Sequence[int]) -> str:
    return f"{len(indices)} recordings" if len(indices) > 1 else inspected.recordings[indices[0]].source


def _share(share: float) -> str:
    return "< 0.1 %" if 0 < share < 0.0005 else percent(share)


def _jitter(ms: float) -> str:
    return f"{ms:.3g} ms" if ms >= 1e-3 else "0 ms"


def _rate(hz: float) -> str:
    return f"{hz:.5g} Hz"


def reason(refused: Mapping[str, str]) -> str:
    """Return why a file was refused, on one line and without its name."""
    return " ".join(refused["reason"].removeprefix(f"{refused['file']}: ").split())
