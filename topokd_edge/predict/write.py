"""Writing a timeline as CSV or JSON, row by row."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import IO, Any

from topokd_edge.data.timeline import Timeline
from topokd_edge.predict.answers import Answers
from topokd_edge.predict.run import Predicted
from topokd_edge.predict.timeline import Row, Score, interval_rows, score, window_rows

COLUMNS = (
    "recording",
    "subject",
    "start_s",
    "end_s",
    "start",
    "end",
    "class",
    "probability",
    "windows",
)


def write_csv(stream: IO[str], predicted: Predicted) -> None:
    """Write the timeline of every recording: one row an interval, columns as in `COLUMNS`."""
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for item in predicted.answers:
        for row in interval_rows(item):
            times = (row.start_s, row.end_s, row.start, row.end)
            said = (row.class_name, row.probability, row.windows)
            writer.writerow((item.recording.source, item.recording.subject, *times, *said))


def write_json(stream: IO[str], predicted: Predicted) -> None:
    """Write one JSON document: what ran on what, then `timeline` and `windows`, a line each."""
    head = json.dumps(describe(predicted), indent=2, allow_nan=False, ensure_ascii=False)
    stream.write(head.removesuffix("\n}"))
    for key, rows in (("timeline", interval_rows), ("windows", window_rows)):
        stream.write(f',\n  "{key}": [')
        for place, line in enumerate(_lines(predicted, rows)):
            stream.write(f"{',' if place else ''}\n    {line}")
        stream.write("\n  ]")
    stream.write("\n}\n")


def describe(predicted: Predicted) -> dict[str, Any]:
    """Return everything but the rows, as JSON-able data."""
    student = predicted.student
    manifest = student.bundle.manifest
    return {
        "bundle": str(student.bundle.folder),
        "digest": student.bundle.digest,
        "runtime": f"{student.model.runtime} {student.model.version}",
        "window_s": manifest.length / manifest.rate_hz,
        "step_s": student.step / manifest.rate_hz,
        "smooth": predicted.smooth,
        "class_names": list(manifest.class_names),
        "recordings": [_recording(number, item) for number, item in enumerate(predicted.answers)],
        "score": score_json(total_score(predicted)),
        "refused": list(predicted.refused),
        "notes": list(predicted.notes),
    }


def total_score(predicted: Predicted) -> Score | None:
    """Return the score over all recordings that have labels; None when none has."""
    total = None
    for item in predicted.answers:
        mine = score(item)
        total = mine if total is None else total if mine is None else total + mine
    return total


def score_json(found: Score | None) -> dict[str, Any] | None:
    """Return a score with its `accuracy`, which is None when no window could be judged."""
    if found is None:
        return None
    return {"accuracy": found.right / found.judged if found.judged else None, **asdict(found)}


def _recording(number: int, item: Answers) -> dict[str, Any]:
    recording = item.recording
    return {
        "recording": number,
        "source": recording.source,
        "subject": recording.subject,
        "start": recording.start,
        "seconds": round(Timeline(recording).seconds, 6),
        "gaps": len(recording.gaps),
        "windows": len(item),
        "score": score_json(score(item)),
    }


def _lines(predicted: Predicted, rows: Callable[[Answers], Iterator[Row]]) -> Iterator[str]:
    for number, item in enumerate(predicted.answers):
        for row in rows(item):
            clock = {"start": row.start, "end": row.end} if row.start else {}
            document = {
                "recording": number,
                "start_s": row.start_s,
                "end_s": row.end_s,
                **clock,
                "class": row.class_name,
                "probability": row.probability,
            }
            yield json.dumps(document, allow_nan=False, ensure_ascii=False)
