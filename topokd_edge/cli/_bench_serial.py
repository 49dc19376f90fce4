"""What a bench does with a real board on a serial port: greet, prove every layer, time, classify."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from topokd_bench.accuracy import accuracy_fields
from topokd_bench.local import Measured
from topokd_bench.serial.board import Board
from topokd_bench.serial.link import Link
from topokd_bench.serial.measure import TIMED_WINDOWS, Seen, as_result, time_windows
from topokd_bench.serial.port import Port, parse_target
from topokd_bench.types import Array
from topokd_bench.windows import HeldOut
from topokd_export.c.arena import plan_arena
from topokd_export.c.bundled import levels_of
from topokd_export.c.on_core import checksum, raw_samples, reference
from topokd_export.c.tflite_reader import read_integer_graph
from topokd_export.c.writer import app_numbers

from topokd_edge.bundle import Bundle
from topokd_edge.cli import console
from topokd_edge.cli._bench_outcome import Asked, Outcome
from topokd_edge.cli._bench_plan import find_run, student_windows
from topokd_edge.errors import BadInputError, CheckFailedError, DeviceError
from topokd_edge.progress import Progress

WINDOWS = 100
"""Held-out windows sent to a board: a window takes a third of a second on the wire."""
_STEPS = 4
_HEADS = [
    *("board", "core", "MHz", "p50 ms", "p95 ms", "p99 ms", "runs"),
    *("RAM B", "stack B", "flash B", "accuracy"),
]


def measure(asked: Asked, targets: list[str], progress: Progress) -> Outcome:
    """Return a result for every `serial:...`; a board that vanishes while it is timed gives part of one.

    Raises
    ------
    DeviceError
        When a port cannot be used, or its board does not answer, or vanishes before it was timed.
    BadInputError
        When the firmware on the board is of another bundle; when the bundle has no int8 TFLite file.
    CheckFailedError
        When a layer gives a wrong byte.
    MissingError
        When this machine has no C compiler to prove the board with.
    """
    held_out, subjects, notes = student_windows(asked.bundle, find_run(asked.bundle, asked.run))
    found = Outcome(subjects=subjects, notes=notes)
    found.show = lambda: _show(asked.name, found.measured)
    for target in targets:
        _measure_one(asked, target, held_out, found, progress)
    return found


class _Proof:
    """The student of a bundle, and what each of its layers must give for the self-test windows."""

    def __init__(self, bundle: Bundle) -> None:
        path, app = bundle.model_path("tflite", "int8"), app_numbers(bundle.manifest)
        self.graph = read_integer_graph(path.read_bytes())
        self.model_bytes = path.stat().st_size
        self.arena_bytes = plan_arena(self.graph).arena_bytes
        self._levels = levels_of(self.graph, bundle.self_test()["x"])
        self._expected = reference(self.graph, app, self._levels)
        self._normalisation = app.normalisation

    def fields(self, bundle: Bundle, vectors: int) -> dict[str, Any]:
        """Return what a result says of the student and of its proof."""
        layers = len(self.graph.layers)
        return {
            "model_bytes": self.model_bytes,
            "macs": bundle.manifest.macs,
            "arena_bytes": self.arena_bytes,
            "self_test": {
                "vectors": vectors,
                "layers": layers,
                "layer_vectors": vectors,
                "bundle": bundle.digest,
            },
        }

    def windows(self) -> Iterator[tuple[Array, list[int]]]:
        """Yield each self-test window in raw units, (length, channels), and a checksum for every layer."""
        for levels, (sums, logits) in zip(self._levels, self._expected, strict=True):
            samples = raw_samples(levels, self.graph, self._normalisation)
            yield samples, [*sums[:-1], checksum(logits)]


def _measure_one(asked: Asked, target: str, held_out: HeldOut, found: Outcome, progress: Progress) -> None:
    progress(target, 0, _STEPS, "connecting")
    correct: dict[int, bool] = {}
    with Port(parse_target(target)) as port:
        link = Link(port)
        board = Board(link)
        seen = Seen(board.greet())
        _refuse_other(asked.bundle, target, seen.hello.digest)
        progress(target, 1, _STEPS, "self-test")
        student = _Proof(asked.bundle)
        _prove(target, board, student, seen)
        seen.ticks_hz = board.ticks_hz_seen()
        try:
            progress(target, 2, _STEPS, "timing")
            timed = [window.T for window in held_out.x[held_out.spread(TIMED_WINDOWS)]]
            time_windows(board, timed, asked.seconds, seen)
            seen.stack_bytes = board.stack_bytes()
            progress(target, 3, _STEPS, "held-out windows")
            correct = _classify(target, board, held_out, asked.windows or WINDOWS, seen, found)
        except DeviceError as error:
            if not seen.ns:
                raise
            found.ended.append(error)
            found.notes.append(
                f"{target}: partial: {error.message}; {len(seen.ns)} runs were timed, no accuracy"
            )
    facts = {"baud": port.baud, "requests_repeated": link.repeats}
    result = as_result(target, seen, student.fields(asked.bundle, seen.vectors), facts)
    found.measured.append(Measured(result, correct))
    progress(target, _STEPS, _STEPS)


def _refuse_other(bundle: Bundle, target: str, digest: str) -> None:
    if digest != bundle.digest:
        raise BadInputError(
            f"{target}: the firmware on the board is of another bundle ({digest[:12]}), "
            f"not of {bundle.folder} ({bundle.digest[:12]})",
            hint="build it, flash it and bench again: "
            f"topokd-edge firmware {bundle.folder} --board NAME --out FOLDER",
        )


def _prove(target: str, board: Board, student: _Proof, seen: Seen) -> None:
    """Compare every layer, for every self-test window, with the plain kernels on this machine."""
    names = [layer.name for layer in student.graph.layers]
    for index, (samples, expected) in enumerate(student.windows()):
        board.load(samples)
        if index == 0:
            seen.cold_ns = board.run().ns
        logits, sums = board.layers()
        got = [*sums[:-1], checksum(logits.tobytes())]
        for name, one, wanted in zip(names, got, expected, strict=True):
            if one != wanted:
                raise CheckFailedError(
                    f"{target}: self-test window {index} goes wrong at {name}: checksum {one:#010x}, "
                    f"expected {wanted:#010x}",
                    hint="build and flash the firmware again; if it stays, the compiler, a kernel or the "
                    "board's memory is at fault",
                )
        seen.vectors += 1


def _classify(
    target: str, board: Board, held_out: HeldOut, most: int, seen: Seen, found: Outcome
) -> dict[int, bool]:
    """Classify held-out windows on the board; nothing when their truth is not known."""
    if held_out.y is None:
        return {}
    chosen = held_out.spread(most)
    answers = []
    for index in chosen:
        board.load(held_out.x[index].T)
        answers.append(int(board.run().logits.argmax()))
    right = np.array(answers) == held_out.y[chosen]
    seen.accuracy = accuracy_fields(held_out.subject, chosen, right)
    if len(chosen) < len(held_out.x):
        found.notes.append(
            f"{target}: accuracy on {len(chosen)} of {len(held_out.x)} held-out windows, evenly spread"
        )
    return dict(zip(chosen.tolist(), right.tolist(), strict=True))


def _show(name: str, measured: list[Measured]) -> None:
    """Print time and memory of the boards."""
    rows = [
        [
            str(result.device["name"]),
            str(result.device["core"]),
            f"{result.device['clock_mhz']:g}",
            *(f"{_latency(result.latency_ms)[key]:.3f}" for key in ("p50", "p95", "p99")),
            str(result.runs),
            f"{result.ram_bytes or 0:,}",
            "-" if result.stack_bytes is None else f"{result.stack_bytes:,}",
            f"{result.flash_bytes or 0:,}",
            "-" if result.accuracy is None else f"{result.accuracy:.3f}",
        ]
        for result in (item.result for item in measured)
    ]
    console.table(f"{name}: student.int8 on a board", _HEADS, rows)


def _latency(value: dict[str, Any] | None) -> dict[str, Any]:
    return value or {}
