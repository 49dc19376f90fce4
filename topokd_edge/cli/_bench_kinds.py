"""The kinds of target a bench knows: which names of `--on` each takes, and what it does with them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from topokd_bench import adb, browser, local, mcu, npu, ssh
from topokd_bench.serial import port

from topokd_edge.cli._bench_outcome import Asked, Outcome
from topokd_edge.progress import Progress

Measure = Callable[[Asked, list[str], Progress], Outcome]


@dataclass(frozen=True)
class Kind:
    """A kind of target.

    Attributes
    ----------
    prefix
        What its names begin with.
    measure
        Measures on all targets of this kind that were asked for.
    """

    prefix: str
    measure: Measure


def run_all(asked: Asked, targets: list[str], progress: Progress) -> list[Outcome]:
    """Return an outcome for each kind there are targets of, in the order of `KINDS`.

    They are measured the other way round: what can fail early without having measured anything goes first.
    """
    own = [(kind, [target for target in targets if target.startswith(kind.prefix)]) for kind in KINDS]
    outcomes = [kind.measure(asked, names, progress) for kind, names in reversed(own) if names]
    return outcomes[::-1]


def _local(asked: Asked, targets: list[str], progress: Progress) -> Outcome:
    from topokd_edge.cli import _bench_local

    return _bench_local.measure(asked, progress)


def _ssh(asked: Asked, targets: list[str], progress: Progress) -> Outcome:
    from topokd_edge.cli import _bench_ssh

    return _bench_ssh.measure(asked, targets, progress)


def _adb(asked: Asked, targets: list[str], progress: Progress) -> Outcome:
    from topokd_edge.cli import _bench_adb

    return _bench_adb.measure(asked, targets, progress)


def _browser(asked: Asked, targets: list[str], progress: Progress) -> Outcome:
    from topokd_edge.cli import _bench_browser, _bench_browser_engines, _bench_browser_results

    engines = _bench_browser_engines.plan(asked.bundle, asked.engines)
    there = _bench_browser.Where(asked.address, asked.port, asked.wait)
    measured, subjects, left_out = _bench_browser.run_there(
        asked.bundle, asked.run, asked.windows, asked.seconds, there, progress, engines
    )
    return Outcome(
        measured,
        subjects,
        [*engines.notes, *left_out, *_bench_browser_results.notes(measured)],
        show=lambda: _bench_browser_results.show(asked.name, measured),
    )


def _serial(asked: Asked, targets: list[str], progress: Progress) -> Outcome:
    from topokd_edge.cli import _bench_serial

    return _bench_serial.measure(asked, targets, progress)


def _mcu(asked: Asked, targets: list[str], progress: Progress) -> Outcome:
    from topokd_edge.cli import _bench_mcu
    from topokd_edge.cli._bench_mcu_floats import float_jobs
    from topokd_edge.cli._bench_plan import find_run, make_plan, student_windows

    run = find_run(asked.bundle, asked.run)
    held_out, subjects, notes = student_windows(asked.bundle, run)
    with tempfile.TemporaryDirectory(prefix="topokd-bench-") as folder:
        plan = make_plan(asked.bundle, run, Path(folder))
        options = _bench_mcu.Options(
            held_out,
            asked.windows,
            asked.compiler,
            asked.every,
            asked.battery,
            tuple(float_jobs(plan, asked.bundle.manifest.length)),
            plan.held_out,
        )
        counted = _bench_mcu.measure(asked.bundle, targets, options, progress)
    notes = [*notes, *_bench_mcu.notes(counted, options)]
    return Outcome(counted, subjects, notes, show=lambda: _bench_mcu.show(asked.name, counted))


def _npu(asked: Asked, targets: list[str], progress: Progress) -> Outcome:
    from topokd_edge.cli import _bench_npu

    modelled = _bench_npu.estimates(asked.bundle, targets, progress)
    return Outcome(modelled, show=lambda: _bench_npu.show(asked.name, modelled))


KINDS = (
    Kind(local.TARGET, _local),
    Kind(ssh.TARGET, _ssh),
    Kind(adb.TARGET, _adb),
    Kind(browser.TARGET, _browser),
    Kind(port.TARGET, _serial),
    Kind(mcu.TARGET, _mcu),
    Kind(npu.TARGET, _npu),
)
"""In the order their results are answered and shown."""
