"""What the tests of boards on a wire share: a small student, its firmware, and a connection to it."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

import numpy as np
import pytest
from c_cases import any_levels, app, graph_of, random_int8
from serial_board import EmulatedBoard
from topokd_bench.serial.board import Board
from topokd_bench.serial.link import Link
from topokd_bench.serial.port import Port
from topokd_export.c.board_programs import Program, student_program
from topokd_export.c.boards import BOARD_PORTS, BoardImage, build_board, open_port
from topokd_export.c.on_core import raw_samples

SEED = 7
DIGEST = "c0ffee" + 58 * "1"
every_board = pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n == "nrf52840-dk" else pytest.mark.slow) for n in BOARD_PORTS]
)


@functools.cache
def content() -> bytes:
    return random_int8(SEED)


def program(core: str = "cortex-m4") -> Program:
    return student_program(content(), app(graph_of(content())), core)


@functools.cache
def image(name: str = "nrf52840-dk") -> BoardImage:
    port = open_port(name)
    return build_board(program(port.core), DIGEST, port)


def cases(n: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Quantised windows, some of them extreme, and the same in the app's units."""
    graph = graph_of(content())
    levels = any_levels(graph, n, seed=3)
    normalisation = app(graph).normalisation
    return levels, np.stack([raw_samples(one, graph, normalisation) for one in levels])


@contextlib.contextmanager
def connected(made: BoardImage, **how: float) -> Iterator[tuple[Board, Link]]:
    with EmulatedBoard(made, **how) as emulated, Port(emulated.path) as opened:  # type: ignore[arg-type]
        talk = Link(opened, work_s=5.0)
        yield Board(talk), talk
