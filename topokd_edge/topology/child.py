"""Work that may not end, or may want more memory than there is, in a process that can be killed."""

from __future__ import annotations

import multiprocessing
import resource
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from topokd_edge.errors import BadInputError, MissingError

_START_SECONDS = 60.0
_END_SECONDS = 0.5


def in_child(
    function: Callable[[Any], Any], items: Iterable[Any], *, name: str, seconds: float, memory: int, hint: str
) -> Iterator[Any]:
    """Yield `function(item)` for every item, computed one by one in a process of its own.

    Parameters
    ----------
    function
        At module level, or a partial of one; takes and gives what can be sent between processes.
    items
        Each is sent when it is asked for.
    name
        What is computed, for messages.
    seconds
        Limit for one item.
    memory
        Bytes the process may take beyond what it starts with (on Linux; elsewhere there is no limit).
    hint
        What to do when a limit is reached.

    Raises
    ------
    BadInputError
        When an item took too long, or too much memory. The process is gone by then.
    MissingError
        When the process did not start.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=_serve, args=(function, memory, theirs), daemon=True)
    child.start()
    theirs.close()
    try:
        if _answer(ours, _START_SECONDS) is None:
            raise MissingError(
                f"{name}: the process that computes them did not start (exit {child.exitcode})"
            )
        for number, item in enumerate(items):
            ours.send(item)
            answer = _answer(ours, seconds)
            if answer is None:
                child.join(_END_SECONDS)
                why = f"took more than {seconds:g} s" if child.is_alive() else f"ended by {child.exitcode}"
                raise BadInputError(f"{name}, window {number}: {why}, and was stopped", hint=hint)
            done, result = answer
            if not done:
                raise BadInputError(f"{name}, window {number}: {result}", hint=hint)
            yield result
    finally:
        ours.close()
        child.kill()
        child.join()


def _answer(ours: Connection, seconds: float) -> tuple[bool, Any] | None:
    """Return what the child says within `seconds`; None when it says nothing, or died."""
    try:
        return ours.recv() if ours.poll(seconds) else None
    except (EOFError, ConnectionError):
        return None


def _serve(function: Callable[[Any], Any], memory: int, theirs: Connection) -> None:
    """Answer what is sent until the other end closes."""
    _limit(memory)
    theirs.send((True, None))
    while True:
        try:
            item = theirs.recv()
        except EOFError:
            return
        try:
            theirs.send((True, function(item)))
        except MemoryError:
            theirs.send((False, f"wanted more than {memory / 1e6:.0f} MB of memory"))


def _limit(memory: int) -> None:
    try:
        lines = Path("/proc/self/status").read_text("ascii").splitlines()
        used = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData:"))
    except (OSError, StopIteration):
        return
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (used + memory, hard))
