"""What a bench does with a real board on a serial port: greet, prove every layer, time, classify."""

from __future__ import annotations

from typing import Any

from topokd_bench.accuracy import judge
from topokd_bench.local import Measured
from topokd_bench.serial.board import Board
from topokd_bench.serial.link import Link
from topokd_bench.serial.measure import TIMED_WINDOWS, Seen, as_result, time_windows
from topokd_bench.serial.port import Port, parse_target
from topokd_bench.windows import HeldOut
from topokd_export.c.board_programs import PIPELINES

from topokd_edge.bundle import Bundle
from topokd_edge.cli import console
from topokd_edge.cli._bench_outcome import Asked, Outcome
from topokd_edge.cli._bench_serial_proofs import Proof, proof_of
from topokd_edge.errors import BadInputError, CheckFailedError, DeviceError
from topokd_edge.progress import Progress

WINDOWS = 100
"""Held-out windows sent to a board: a window takes a third of a second on the wire."""
_STEPS = 4
_HEADS = [
    *("board", "pipeline", "core", "MHz", "p50 ms", "p95 ms", "p99 ms", "runs"),
    *("RAM B", "stack B", "flash B", "accuracy"),
]


def measure(asked: Asked, targets: list[str], progress: Progress) -> Outcome:
    """Return a result for every `serial:...`; a board that vanishes while it is timed gives part of one.

    Raises
    ------
    DeviceError
        When a port cannot be used, or its board does not answer, or vanishes before it was timed.
    BadInputError
        When the firmware on the board is of another bundle; when the bundle or its run does not have the
        pipeline that is on the board.
    CheckFailedError
        When a layer gives a wrong bit.
    MissingError
        When this machine has no C compiler to prove the board with.
    """
    found = Outcome()
    found.show = lambda: _show(asked.name, found.measured)
    for target in targets:
        _measure_one(asked, target, found, progress)
    return found


def _measure_one(asked: Asked, target: str, found: Outcome, progress: Progress) -> None:
    progress(target, 0, _STEPS, "connecting")
    correct: dict[int, bool] = {}
    with Port(parse_target(target)) as port:
        link = Link(port)
        board = Board(link)
        seen = Seen(board.greet())
        _refuse_other(asked.bundle, target, seen.hello.digest)
        name = _known(target, seen.hello.pipeline)
        progress(target, 1, _STEPS, f"proving {name}")
        proof = proof_of(name, asked.bundle, asked.run)
        found.subjects = proof.subjects
        found.notes += [note for note in proof.notes if note not in found.notes]
        _prove(target, board, proof, seen)
        seen.ticks_hz = board.ticks_hz_seen()
        try:
            progress(target, 2, _STEPS, "timing")
            timed = [window.T for window in proof.held_out.x[proof.held_out.spread(TIMED_WINDOWS)]]
            time_windows(board, timed, asked.seconds, seen)
            seen.stack_bytes = board.stack_bytes()
            progress(target, 3, _STEPS, "held-out windows")
            correct = _classify(target, board, proof.held_out, asked.windows or WINDOWS, seen, found)
        except DeviceError as error:
            if not seen.ns:
                raise
            found.ended.append(error)
            found.notes.append(
                f"{target}: partial: {error.message}; {len(seen.ns)} runs were timed, no accuracy"
            )
    facts = {"baud": port.baud, "requests_repeated": link.repeats}
    known = {**proof.fields, "self_test": _proven(asked.bundle, proof, seen)}
    found.measured.append(Measured(as_result(target, seen, known, facts), correct))
    progress(target, _STEPS, _STEPS)


def _proven(bundle: Bundle, proof: Proof, seen: Seen) -> dict[str, Any]:
    layers = len(proof.layers)
    return {"vectors": seen.vectors, "layers": layers, "layer_vectors": seen.vectors, "bundle": bundle.digest}


def _known(target: str, name: str) -> str:
    if name not in PIPELINES:
        raise DeviceError(
            f"{target}: the firmware on the board is of {name!r}, which this program does not know",
            hint="build and flash it again: topokd-edge firmware",
        )
    return name


def _refuse_other(bundle: Bundle, target: str, digest: str) -> None:
    if digest != bundle.digest:
        raise BadInputError(
            f"{target}: the firmware on the board is of another bundle ({digest[:12]}), "
            f"not of {bundle.folder} ({bundle.digest[:12]})",
            hint="build it, flash it and bench again: "
            f"topokd-edge firmware {bundle.folder} --board NAME --out FOLDER",
        )


def _prove(target: str, board: Board, proof: Proof, seen: Seen) -> None:
    """Compare every layer, for every window of the proof, with what this machine found."""
    for index, (samples, expected) in enumerate(proof.cases):
        board.load(samples)
        if index == 0:
            seen.cold_ns = board.run().ns
        logits, sums = board.layers()
        got = [*sums[:-1], proof.checksum(logits.tobytes())]
        if len(got) != len(expected):
            raise CheckFailedError(
                f"{target}: {seen.hello.pipeline} has {len(got)} layers on the board, {len(expected)} here",
                hint="build and flash the firmware again, with the run that the bundle is from",
            )
        for name, one, wanted in zip(proof.layers, got, expected, strict=True):
            if one != wanted:
                raise CheckFailedError(
                    f"{target}: window {index} of the proof goes wrong at {name}: checksum {one:#010x}, "
                    f"expected {wanted:#010x}",
                    hint="build and flash the firmware again, of this bundle and its run; if it stays, the "
                    "compiler, a kernel or the board's memory is at fault",
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
    seen.accuracy, correct = judge(held_out, chosen, answers)
    if len(chosen) < len(held_out.x):
        found.notes.append(
            f"{target}: accuracy on {len(chosen)} of {len(held_out.x)} held-out windows, evenly spread"
        )
    return correct


def _show(name: str, measured: list[Measured]) -> None:
    """Print time and memory of the boards."""
    rows = [
        [
            str(result.device["name"]),
            result.pipeline,
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
    console.table(f"{name} on a board", _HEADS, rows)


def _latency(value: dict[str, Any] | None) -> dict[str, Any]:
    return value or {}
