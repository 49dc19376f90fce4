"""What `bench` asks of every kind of target, and what each kind answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from topokd_bench.local import Measured
from topokd_bench.result import BenchResult
from topokd_bench.windows import HeldOut

from topokd_edge.bundle import Bundle
from topokd_edge.cli._bench_int8 import Int8Cost
from topokd_edge.errors import DeviceError

if TYPE_CHECKING:
    from topokd_export.c.firmware import Compiler


@dataclass(frozen=True)
class Asked:
    """What to bench and how; as the command's options of the same names.

    Attributes
    ----------
    name
        Of the bundle, as the user gave it; for titles.
    engines
        The folders of `--engine`.
    sustained
        Minutes.
    """

    bundle: Bundle
    name: str
    run: Path | None = None
    windows: int | None = None
    threads: tuple[int, ...] = (1,)
    seconds: float = 3.0
    pin: bool = False
    sustained: float | None = None
    compiler: Compiler = "zig"
    every: float | None = None
    battery: float | None = None
    address: str | None = None
    port: int = 0
    wait: float = 600.0
    engines: tuple[Path, ...] = ()


def _nothing() -> None:
    """Show nothing."""


@dataclass
class Outcome:
    """What the targets of one kind gave.

    Attributes
    ----------
    measured
        The results.
    subjects
        Whose held-out windows they are of; empty when the truth is not known.
    notes
        What a reader of the figures must know.
    ended
        What ended a target early; the results are then partial, and the command fails after it answered.
    cost
        Of int8 against float32, where both ran.
    hint
        What to do where nothing could be measured.
    show
        Prints the results as tables.
    """

    measured: list[Measured] = field(default_factory=list)
    subjects: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)
    ended: list[DeviceError] = field(default_factory=list)
    cost: Int8Cost | None = None
    hint: str = ""
    show: Callable[[], None] = _nothing

    def by_target(self) -> dict[str, list[Measured]]:
        """Return the results of each target."""
        targets = dict.fromkeys(item.result.target for item in self.measured)
        return {
            target: [item for item in self.measured if item.result.target == target] for target in targets
        }

    def cut_short(self, target: str, error: DeviceError, rest: Sequence[str], threads: int = 1) -> None:
        """Take in what ended a target before the pipelines of `rest` were measured."""
        self.ended.append(error)
        self.measured += [
            Measured(BenchResult(target, "measured", pipeline, "-", threads=threads, error=str(error)))
            for pipeline in rest
        ]
        self.notes.append(f"{target}: partial: {error.message}; not measured: {', '.join(rest) or 'nothing'}")

    def refuse_failed(self) -> None:
        """Raise DeviceError for a target that ended early, or that could measure nothing."""
        if self.ended:
            raise self.ended[0]
        for target, items in self.by_target().items():
            if all(item.result.error for item in items):
                raise DeviceError(
                    f"{target}: no pipeline could be measured",
                    problems=[
                        f"{item.result.pipeline} on {item.result.runtime}: {item.result.error}"
                        for item in items
                    ],
                    hint=self.hint,
                )


def tried_on(target: str, items: Sequence[Measured], chosen: int, held_out: HeldOut) -> list[str]:
    """Return on how many held-out windows a device was tried, and its float C, where that is not all.

    Parameters
    ----------
    target, items
        The device and its results.
    chosen
        Windows that it was given at most.
    held_out
        All there are.
    """
    notes, count = [], len(held_out.x)
    if held_out.y is not None and chosen < count:
        notes.append(f"{target}: tried on {chosen} of {count} held-out windows")
    few = {item.result.windows for item in items} & set(range(1, chosen))
    if few:
        notes.append(f"{target}: float pipelines in C were tried on {min(few)} of {count} held-out windows")
    return notes
