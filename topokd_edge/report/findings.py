"""What to look at first: the facts of an inspection, ranked and in plain words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from topokd_edge.data.inspection import Facts, Inspected, covered, norm_oddness
from topokd_edge.data.recording import UNKNOWN_SUBJECT, Recording
from topokd_edge.report.inspect_tables import DROPPED, reason
from topokd_edge.report.numbers import count, percent, span

Tone = Literal["bad", "look", "note"]
TONES: tuple[Tone, ...] = ("bad", "look", "note")
"""Worst first: wrong as it is; look at it before training; good to know."""

FEW = 0.1
"""A class or subject with less than this share of the median one's windows has few."""
FEWEST_WINDOWS = 20
"""Fewer windows of a class or subject are few, whatever the others have."""
RATE_SHARE = 0.005
"""Rates that differ by more mean another setting of the sensor, not a bad crystal."""
_DRIFT_PPM = 500.0
_JITTER_SHARE = 0.25
_GAPS_AN_HOUR = 6.0
_MISSING_SHARE = 0.05
_LOST_SHARE = 0.1
_CALIBRATION = 1.2
"""A factor that a missing calibration can explain."""
_NAMED = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """Something a person should know.

    Attributes
    ----------
    tone
        How bad it is.
    title
        What it is, one sentence.
    details
        Where, and what it means, one line each.
    """

    tone: Tone
    title: str
    details: tuple[str, ...] = ()


def findings(inspected: Inspected, facts: Facts) -> list[Finding]:
    """Return everything that stands out, the worst first."""
    looks: tuple[Callable[[Inspected, Facts], Iterable[Finding]], ...] = (
        _refused,
        _nameless,
        _norms,
        _classes,
        _subjects,
        _warned,
        _lost,
        _rates,
        _frozen,
        _gaps,
        _still,
        _filled,
        _clocks,
        _noted,
    )
    found = [finding for one in looks for finding in one(inspected, facts)]
    return sorted(found, key=lambda finding: TONES.index(finding.tone))


def as_json(found: Iterable[Finding]) -> list[dict[str, object]]:
    """Return findings as JSON-able data."""
    return [{"tone": item.tone, "title": item.title, "details": list(item.details)} for item in found]


def _refused(inspected: Inspected, facts: Facts) -> Iterable[Finding]:
    refused = inspected.made.get("refused", [])
    if refused:
        title = f"{_many(len(refused), 'file')} could not be read and {_is(refused)} not in here"
        yield Finding("bad", title, _first([f"{item['file']}: {reason(item)}" for item in refused]))


def _nameless(inspected: Inspected, facts: Facts) -> Iterable[Finding]:
    nameless = [item.source for item in inspected.recordings if item.subject == UNKNOWN_SUBJECT]
    if nameless:
        yield Finding(
            "bad",
            f"{_many(len(nameless), 'recording')} without a subject, so a split by subject is impossible",
            (*_first(nameless), "say who: --subject-from when importing"),
        )


def _norms(inspected: Inspected, facts: Facts) -> Iterable[Finding]:
    """Group what gravity says by subject: its recordings tell the same."""
    worst: dict[tuple[str, str], tuple[float, str]] = {}
    number: dict[tuple[str, str], int] = {}
    for item, checks in zip(inspected.recordings, facts.acceleration, strict=True):
        for check in checks:
            if check.warning:
                key = (item.subject, check.name)
                number[key] = number.get(key, 0) + 1
                worst[key] = max(worst.get(key, (-1.0, "")), (norm_oddness(check), check.warning))
    ranked = sorted(worst, key=lambda key: -worst[key][0])
    if ranked:
        lines = [f"subject {key[0]}, {_many(number[key], 'recording')}: {worst[key][1]}" for key in ranked]
        if worst[ranked[0]][0] > np.log(_CALIBRATION):
            yield Finding(
                "bad", "The acceleration has the wrong size: another unit, or no gravity", _first(lines)
            )
        else:
            yield Finding("look", "Gravity is not quite 1 g: sensors without calibration", _first(lines))


def _classes(inspected: Inspected, facts: Facts) -> Iterable[Finding]:
    if facts.windows is None:
        if not facts.classes:
            yield Finding("note", "No labels: signals and clocks can be judged, classes cannot")
        return
    known = len(inspected.windows.class_names) if inspected.windows else 0
    counts = facts.windows[:known]
    alone = [name for name, row in zip(facts.classes, counts, strict=False) if np.count_nonzero(row) == 1]
    few = _few(facts.classes, counts.sum(axis=1))
    if len(facts.subjects) == 1 and facts.subjects != (UNKNOWN_SUBJECT,):
        yield Finding(
            "bad", "One subject only: nothing can be tested on anybody else", _first(facts.subjects)
        )
    elif alone and len(facts.subjects) > 1:
        title = f"{_many(len(alone), 'class', 'classes')} that only one subject has"
        yield Finding("bad", title, (*_first(alone), "unseen whenever that subject is tested"))
    if few:
        title = f"{_many(len(few), 'class', 'classes')} with few windows: accuracy on them will be noise"
        yield Finding("look", title, _first(few))


def _subjects(inspected: Inspected, facts: Facts) -> Iterable[Finding]:
    if facts.windows is None or len(facts.classes) < 2:
        return
    shown = np.count_nonzero(facts.windows, axis=0)
    per_subject = list(zip(facts.subjects, facts.windows.T, shown.tolist(), strict=True))
    none = [who for who, _, number in per_subject if number == 0]
    single = [f"{who}: {facts.classes[int(row.argmax())]}" for who, row, number in per_subject if number == 1]
    few = _few(facts.subjects, facts.windows.sum(axis=0))
    all_classes = len(inspected.windows.class_names) if inspected.windows else 0
    partial = [
        f"{who}: {number} of {all_classes}" for who, _, number in per_subject if 1 < number < all_classes
    ]
    if none:
        yield Finding("look", f"{_many(len(none), 'subject')} without any window", _first(none))
    if single:
        title = f"{_many(len(single), 'subject')} with one class only: accuracy on them says little"
        yield Finding("look", title, _first(single))
    if few:
        yield Finding("look", f"{_many(len(few), 'subject')} with few windows", _first(few))
    if partial:
        title = f"{_many(len(partial), 'subject')} without some of the classes"
        yield Finding("note", title, _first(partial))


def _warned(inspected: Inspected, facts: Facts) -> Iterable[Finding]:
    """Repeat the warnings of the import that no other finding tells."""
    told = {check.warning for checks in facts.acceleration for check in checks}
    nameless = {item.source for item in inspected.recordings if item.subject == UNKNOWN_SUBJECT}
    warnings = inspected.made.get("warnings") or [[] for _ in inspected.recordings]
    where: dict[str, list[str]] = {}
    for item, lines in zip(inspected.recordings, warnings, strict=True):
        for line in lines:
            if line not in told and not (item.source in nameless and "subject" in line):
                where.setdefault(line, []).append(_name(item))
    for line, names in where.items():
        yield Finding("look", f"{_many(len(names), 'recording')}: {line}", _first(names))
    left_over = inspected.made.get("label_rows_left_over", [])
    if left_over:
        yield Finding("look", "Rows of the label file that no recording used", _first(left_over))


def _lost(inspected: Inspected, facts: Facts) -> Iterable[Finding]:
    dropped = inspected.made.get("dropped", {})
    total = dropped.get("samples", 0)
    used = dropped.get("in_windows", 0)
    if total and 1 - used / total > _LOST_SHARE:
        lost = sorted(((dropped.get(key, 0), why) for key, why in DROPPED.items()), reverse=True)
        lines = [f"{percent(number / total)} {why}" for number, why in lost if number > 0.01 * total]
        yield Finding("look", f"Only {percent(used / total)} of all samples are in a window", _first(lines))


def _rates(inspected: Inspected, facts: Facts) -> Iterable[Finding]:
    used: list[str] = []
    ignored: list[str] = []
    for item in inspected.recordings:
        clock = item.clock
        if not clock or not clock.stated_hz or not _apart(clock.estimated_hz, clock.stated_hz):
            continue
        line = f"{_name(item)}: states {clock.stated_hz:.6g} Hz, its stamps say {clock.estimated_hz:.6g} Hz"
        (used if _apart(item.rate_hz, clock.stated_hz) else ignored).append(line)
    if ignored:
        title = f"{_many(len(ignored), 'recording')} whose stamps contradict the rate that is used"
        yield Finding("look", title, (*_first(ignored), "with a wrong rate, windows are off in time"))
    if used:
        title = f"{_many(len(used), 'recording')} at another rate than stated; that of the stamps is used"
        yield Finding("look", title, _first(used))


def _apart(one: float, other: float) -> bool:
    return abs(one / other - 1) > RATE_SHARE


def _frozen(inspected: Inspected, facts: Facts) -> Iterable[Finding]:
    rows = []
    for item, stretches in zip(inspected.recordings, facts.frozen, strict=True):
        if stretches:
            seconds = covered(stretches) / item.rate_hz
            line = f"{_name(item)}: {_many(len(stretches), 'stretch', 'stretches')}, {span(seconds)}"
            rows.append((seconds, line))
    if rows:
        lines = [line for _, line in sorted(rows, key=lambda row: -row[0])]
        whole = span(sum(seconds for seconds, _ in rows))
        title = f"{whole} frozen: every channel repeats one value, so nothing was measured"
        yield Finding("look", f"{_many(len(rows), 'recording')} with {title}", _first(lines))


def _gaps(inspected: Inspected, facts: Facts) -> Iterable[Finding]:
    rows = []
    for item, wear in zip(inspected.recordings, facts.wear, strict=True):
        known = len(item.gaps) - wear.borders
        whole = wear.recorded + wear.missing
        often = known >= 2 and known > _GAPS_AN_HOUR * whole / 3600
        if wear.missing > _MISSING_SHARE * whole or often:
            line = f"{_name(item)}: {_many(known, 'gap')}, {span(wear.missing)} of {span(whole)} missing"
            rows.append((wear.missing, line))
    if rows:
        lines = [line for _, line in sorted(rows, key=lambda row: -row[0])]
        yield Finding("look", f"{_many(len(rows), 'recording')} with many or long gaps", _first(lines))
    borders = sum(wear.borders for wear in facts.wear)
    if borders:
        title = f"{_many(borders, 'border')} where the recording was cut, for a time that nobody knows"
        yield Finding("note", title, ("no window crosses one, so the ends of the pieces are lost",))


def _still(inspected: Inspected, facts: Facts) -> Iterable[Finding]:
    rows = [
        (wear.still_seconds, f"{_name(item)}: {span(wear.still_seconds)}")
        for item, wear in zip(inspected.recordings, facts.wear, strict=True)
        if wear.still
    ]
    if rows:
        lines = [line for _, line in sorted(rows, key=lambda row: -row[0])]
        title = f"{span(sum(row[0] for row in rows))} still and flat: perhaps not worn, perhaps deep sleep"
        yield Finding("look", title, _first(lines))


def _filled(inspected: Inspected, facts: Facts) -> Iterable[Finding]:
    filled = sum(covered(item.filled) for item in inspected.recordings)
    if filled:
        windows = inspected.windows
        inside = "" if windows is None else f", in {_many(int((windows.filled > 0).sum()), 'window')}"
        yield Finding(
            "note", f"{_many(filled, 'sample')} interpolated over gaps{inside}, as it was asked for"
        )


def _clocks(inspected: Inspected, facts: Facts) -> Iterable[Finding]:
    drifting, jittery, repeated = [], [], []
    for item in inspected.recordings:
        if (clock := item.clock) is None:
            continue
        if abs(clock.drift_ppm) > _DRIFT_PPM:
            drifting.append(f"{_name(item)}: {clock.drift_ppm:+.0f} ppm")
        if clock.jitter_s > _JITTER_SHARE / item.rate_hz:
            jittery.append(f"{_name(item)}: {1000 * clock.jitter_s:.3g} ms at {item.rate_hz:.4g} Hz")
        if clock.repeated:
            repeated.append(f"{_name(item)}: {clock.repeated}")
    kinds: tuple[tuple[list[str], Tone, str], ...] = (
        (drifting, "look", "whose rate drifts"),
        (jittery, "note", "with uneven time stamps"),
        (repeated, "note", "with repeated time stamps, spread evenly"),
    )
    for lines, tone, what in kinds:
        if lines:
            yield Finding(tone, f"{_many(len(lines), 'recording')} {what}", _first(lines))


def _noted(inspected: Inspected, facts: Facts) -> Iterable[Finding]:
    where: dict[str, list[str]] = {}
    for item in inspected.recordings:
        for note in item.notes:
            where.setdefault(note, []).append(_name(item))
    if len(where) > _NAMED:
        lines = [f"{names[0]}: {note}" for note, names in where.items()]
        yield Finding("note", f"{_many(len(where), 'remark')} of the reader", _first(lines))
        return
    for note, names in where.items():
        yield Finding("note", note, _first(names))


def _few(names: tuple[str, ...], counts: np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[str]:
    typical = float(np.median(counts)) if len(counts) else 0.0
    return [
        f"{name}: {_many(int(number), 'window')}"
        for name, number in zip(names, counts.tolist(), strict=False)
        if 0 < number < max(FEWEST_WINDOWS, FEW * typical)
    ]


def _name(item: Recording) -> str:
    return f"subject {item.subject}, {item.source}"


def _first(lines: Sequence[str]) -> tuple[str, ...]:
    more = [f"and {count(len(lines) - _NAMED)} more"] if len(lines) > _NAMED else []
    return (*lines[:_NAMED], *more)


def _is(things: list[object]) -> str:
    return "is" if len(things) == 1 else "are"


def _many(number: int, one: str, several: str = "") -> str:
    return f"{count(number)} {one if number == 1 else several or one + 's'}"
