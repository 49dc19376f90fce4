"""What verbs print: answers on standard output, everything else on standard error."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from typing import Any

from topokd_edge.progress import Progress


def fail(message: str) -> None:
    """Print an error for a person."""
    print(f"error: {message}", file=sys.stderr)


def note(message: str) -> None:
    """Print a remark for a person."""
    print(message, file=sys.stderr)


def answer_json(document: Any) -> None:
    """Print the one JSON document of a verb on standard output."""
    print(json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False))


def table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print a table on standard output; columns after the first are right-aligned."""
    from rich.console import Console
    from rich.table import Table

    shown = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        shown.add_column(column, justify="left" if index == 0 else "right", overflow="fold")
    for row in rows:
        shown.add_row(*row)
    width = None if sys.stdout.isatty() else 132
    Console(width=width, highlight=False, markup=False).print(shown)


def redirected(active: bool) -> AbstractContextManager[Any]:
    """Send standard output to standard error while `active`, so that one JSON document stays alone."""
    return redirect_stdout(sys.stderr) if active else nullcontext()


@contextmanager
def progress() -> Iterator[Progress]:
    """Show progress on standard error: bars on a terminal, else one plain line now and then.

    Yields
    ------
    Progress
        To pass to a long step.
    """
    if sys.stderr.isatty():
        with _bars() as report:
            yield report
    else:
        yield _Lines()


@contextmanager
def _bars() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Bars(*columns, console=Console(stderr=True), refresh_per_second=5) as bars:
        tasks: dict[str, TaskID] = {}

        def report(task: str, done: int, total: int, note: str = "") -> None:
            if task not in tasks:
                tasks[task] = bars.add_task(task, total=total, note=note)
            bars.update(tasks[task], completed=done, total=total, note=note)

        yield report


class _Lines:
    """Plain progress lines: the first, the last, and at most one every five seconds between."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}

    def __call__(self, task: str, done: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        if task in self._last and done < total and now - self._last[task] < 5.0:
            return
        self._last[task] = now
        print(f"{task}: {done}/{total} {note}".rstrip(), file=sys.stderr, flush=True)
