"""How long steps tell where they are, without knowing who listens."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called with the state of a named task; a task ends when `done` equals `total`."""

    def __call__(self, task: str, done: int, total: int, note: str = "") -> None:
        """Report that `done` of `total` steps of `task` are finished."""


def silent(task: str, done: int, total: int, note: str = "") -> None:
    """Ignore progress."""
