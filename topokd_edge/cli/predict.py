"""`topokd-edge predict`: a bundle on raw recordings, to a timeline."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from topokd_edge.cli import console
from topokd_edge.errors import UsageError

if TYPE_CHECKING:
    from topokd_edge.predict.run import Predicted
    from topokd_edge.predict.timeline import Score

_MOST_ROWS = 40


def predict(
    bundle: Annotated[Path, typer.Argument(help="Bundle folder, as made by `topokd-edge export`.")],
    path: Annotated[Path, typer.Argument(metavar="RECORDING", help="A file, folder or archive.")],
    *,
    format_name: Annotated[
        str | None,
        typer.Option("--format", metavar="FORMAT", help="See: topokd-edge data list (by the file's name)."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The timeline to write: .csv or .json.")] = None,
    picture: Annotated[
        Path | None, typer.Option(help="A picture of one recording to write: .svg or .png.")
    ] = None,
    smooth: Annotated[int, typer.Option(help="Majority of this odd number of windows; 1 is none.")] = 1,
    resample: Annotated[
        bool, typer.Option("--resample", help="Bring another rate to the student's; else it is refused.")
    ] = False,
    overlap: Annotated[float, typer.Option(help="Share that the next window repeats, 0 to below 1.")] = 0.5,
    precision: Annotated[
        str | None, typer.Option(help="float32 or int8 (float32 where the bundle has it).")
    ] = None,
    channels: Annotated[
        str, typer.Option(metavar="STUDENT=FILE,...", help="Channels that the file calls otherwise.")
    ] = "",
    only: Annotated[
        str | None, typer.Option(help="Only recordings called so; * and ? as in a shell.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(metavar="HZ", help="The rate, where the file is wrong or silent.")
    ] = None,
    lost: Annotated[
        str | None, typer.Option(help="A NaN is an error (refuse, default) or a lost sample (gap).")
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="The truth, if known: a CSV of intervals.")] = None,
    join: Annotated[
        bool | None, typer.Option("--join", help="Files of one folder and subject belong together.")
    ] = None,
    time: Annotated[str | None, typer.Option(help="csv, parquet: time column and unit, as t:ms.")] = None,
    columns: Annotated[str | None, typer.Option(help="csv, parquet: channel=column,...")] = None,
    units: Annotated[
        str | None, typer.Option(help="Unit, or channel=unit,... where files are silent.")
    ] = None,
    label: Annotated[str | None, typer.Option(help="csv, parquet: column of the label.")] = None,
    subject: Annotated[str | None, typer.Option(help="csv, parquet: column of the subject.")] = None,
    yes: Annotated[bool | None, typer.Option("--yes", help="Take what was guessed of the columns.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --out and --picture.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Run a bundle on recordings and tell when it sees which activity.

    A recording that does not fit the student is refused: channels, units, rate. No window crosses a gap.

    Example: topokd-edge predict bundle monday.cwa --resample --smooth 5 --out monday.csv --picture monday.png
    """
    for place, kinds in ((out, (".csv", ".json")), (picture, (".svg", ".png"))):
        if place is not None and place.suffix not in kinds:
            raise UsageError(f"{place}: expected a name that ends in {' or '.join(kinds)}")
    from topokd_edge.bundle import Student
    from topokd_edge.data.importers import format_of
    from topokd_edge.data.options import import_options
    from topokd_edge.files import refuse_existing
    from topokd_edge.predict import run
    from topokd_edge.predict.fit import channels_in_file
    from topokd_edge.predict.smoothing import check_windows

    check_windows(smooth)
    for place in (out, picture):
        if place is not None:
            refuse_existing(place, overwrite=overwrite)
    flags = {
        "rate_hz": rate,
        "lost": lost,
        "labels": None if labels is None else str(labels),
        "join": join,
        "time": time,
        "columns": columns,
        "units": units,
        "label": label,
        "subject": subject,
        "assume_yes": yes,
    }
    student = Student.load(bundle, precision=precision, overlap=overlap)
    wanted = channels_in_file(student.bundle.manifest, channels)
    options, name = import_options(None, flags), format_name or format_of(path)
    with (
        console.progress() as progress,
        run.predict(
            student,
            name,
            path,
            options,
            wanted,
            only=only,
            resample=resample,
            smooth=smooth,
            progress=progress,
        ) as predicted,
    ):
        _write(predicted, out, picture)
        if json:
            from topokd_edge.predict.write import write_json

            write_json(sys.stdout, predicted)
        else:
            _show(predicted)
            for place in (out, picture):
                if place is not None:
                    typer.echo(f"{place}: {place.stat().st_size / 1000:.0f} kB")


def _write(predicted: Predicted, out: Path | None, picture: Path | None) -> None:
    from topokd_edge.files import replacing
    from topokd_edge.predict.write import write_csv, write_json

    if picture is not None:
        _draw(predicted, picture)
    if out is not None:
        write = write_csv if out.suffix == ".csv" else write_json
        with replacing(out) as part, part.open("w", encoding="utf-8", newline="") as stream:
            write(stream, predicted)


def _draw(predicted: Predicted, picture: Path) -> None:
    from topokd_edge.predict.timeline import score
    from topokd_edge.report.timeline_figure import draw_timeline

    if len(predicted.answers) > 1:
        sources = ", ".join(item.recording.source for item in predicted.answers[:3])
        raise UsageError(
            f"--picture: shows one recording, and there are {len(predicted.answers)}",
            hint=f"choose one with --only; they are called {sources}, ...",
        )
    (item,) = predicted.answers
    smoothed = f", majority of {predicted.smooth} windows" if predicted.smooth > 1 else ""
    found = score(item)
    title = f"{item.recording.source}: {len(item)} windows{smoothed}"
    draw_timeline(item, title if found is None else f"{title}; {_score_words(found)}", picture)


def _show(predicted: Predicted) -> None:
    """Print the time of each class, the first intervals, the accuracy, and what to know."""
    from topokd_edge.predict.timeline import interval_rows
    from topokd_edge.predict.write import total_score
    from topokd_edge.report.numbers import span

    seconds: dict[str, float] = {}
    counts: dict[str, int] = {}
    shown: list[list[str]] = []
    total = 0
    for item in predicted.answers:
        for row in interval_rows(item):
            total += 1
            seconds[row.class_name] = seconds.get(row.class_name, 0.0) + row.end_s - row.start_s
            counts[row.class_name] = counts.get(row.class_name, 0) + 1
            if len(shown) < _MOST_ROWS:
                times = [row.start or f"{row.start_s:.2f}", row.end or f"{row.end_s:.2f}"]
                shown.append([item.recording.source, *times, row.class_name, f"{row.probability:.2f}"])
    columns, title = ["recording", "start", "end", "class", "probability"], "Timeline"
    if len(predicted.answers) == 1:
        title = f"Timeline of {predicted.answers[0].recording.source}"
        columns, shown = columns[1:], [row[1:] for row in shown]
    if total > len(shown):
        shown.append([f"and {total - len(shown)} more", *[""] * (len(columns) - 1)])
    console.table(title, columns, shown)
    whole = sum(seconds.values())
    rows = [
        [name, span(value), f"{100 * value / whole:.1f}", str(counts[name])]
        for name, value in sorted(seconds.items(), key=lambda pair: -pair[1])
    ]
    console.table("Time of each class", ["class", "time", "%", "intervals"], rows)
    found = total_score(predicted)
    if found is not None:
        typer.echo(_score_words(found))
    _tell(predicted, found)


def _score_words(found: Score) -> str:
    if not found.judged:
        return "no window has one label that the student knows, so nothing can be judged"
    share = 100 * found.right / found.judged
    return f"{share:.1f} % of {found.judged} labelled windows are right"


def _tell(predicted: Predicted, found: Score | None) -> None:
    if found is not None:
        for name, count in found.unknown.items():
            console.note(f"note: {count} windows of {name!r} were not judged: the student does not know it")
        if found.unclear:
            console.note(f"note: {found.unclear} windows were not judged: they have no label, or several")
        held_out = predicted.student.bundle.manifest.provenance.get("held_out") or []
        console.note(
            "note: this accuracy is that of a new person only for subjects the student never saw"
            + (f" (in its own data set: {', '.join(map(str, held_out))})" if held_out else "")
        )
    for item in predicted.refused:
        console.note(f"refused: {item['file']}: {item['reason']}")
    for line in predicted.notes:
        console.note(f"note: {line}")
