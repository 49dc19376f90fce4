"""Requests and answers over a port that may lose, damage, repeat and delay bytes.

One request is out at a time. It has a number, and is sent again until an answer of that number comes; the
board answers a repeated one again without doing it again.
"""

from __future__ import annotations

import time
from enum import IntEnum
from typing import Protocol

from topokd_bench.serial.frames import VERSION, Frame, Unpacker, pack
from topokd_edge.bundle import DeviceError

ATTEMPTS = 12
"""Times a request is sent, at most."""
ANSWER_S = 1.0
"""Until an answer, or word that the work is begun, once the bytes are over."""
WORK_S = 60.0
"""For work that was begun, at most; once some is done, `_PATIENCE` times as long as the slowest took."""
_PATIENCE = 4
_BITS_A_BYTE = 10


class Kind(IntEnum):
    """What a frame is; see `bench.c` of the firmware."""

    HELLO = 1
    SAMPLES = 2
    RUN = 3
    LAYERS = 4
    STACK = 5
    TICKS = 6
    TAKEN = 0x7E
    ERROR = 0x7F


class Why(IntEnum):
    """Why a board refuses."""

    FRAME = 1
    VERSION = 2
    KIND = 3
    LENGTH = 4
    PLACE = 5
    WINDOW = 6


class RefusedError(DeviceError):
    """The board answered that it cannot do what it was asked.

    Parameters
    ----------
    message
        What was asked.
    why
        As the board says.
    """

    def __init__(self, message: str, why: int) -> None:
        super().__init__(message)
        self.why = why


class Wire(Protocol):
    """What a link needs of a port."""

    path: str
    baud: int

    def read(self, until: float) -> bytes:
        """See `Port.read`."""

    def write(self, data: bytes) -> None:
        """See `Port.write`."""


class Link:
    """Asks a board.

    Parameters
    ----------
    wire
        An open port.
    work_s
        Seconds that work may take once it is begun.

    Attributes
    ----------
    repeats
        Requests that had to be sent again.
    """

    def __init__(self, wire: Wire, *, work_s: float = WORK_S) -> None:
        self._wire = wire
        self._work_s = work_s
        self._unpacker = Unpacker()
        self._sequence = 0
        self._slowest = 0.0
        self.repeats = 0

    @property
    def name(self) -> str:
        """The port, for messages."""
        return f"serial:{self._wire.path}"

    def ask(self, kind: Kind, payload: bytes = b"") -> bytes:
        """Send a request and return the payload of its answer.

        Raises
        ------
        RefusedError
            When the board cannot do it.
        DeviceError
            When no answer comes, or the board speaks another version.
        VanishedError
            When the port goes away.
        """
        self._sequence = self._sequence % 255 + 1
        data = pack(Frame(kind, self._sequence, payload))
        there = len(data) * _BITS_A_BYTE / self._wire.baud
        for attempt in range(ATTEMPTS):
            self.repeats += attempt > 0
            self._wire.write(data)
            answer = self._await(kind, time.monotonic() + there + ANSWER_S)
            if answer is not None:
                return answer
        raise DeviceError(
            f"{self.name}: no answer to {kind.name}, sent {ATTEMPTS} times",
            hint="flash the firmware (topokd-edge firmware), press reset, and check port, wires and baud",
        )

    def _await(self, kind: Kind, end: float) -> bytes | None:
        """Return the answer; None when it is time to send again."""
        taken = 0.0
        damaged = False
        while not damaged and (data := self._wire.read(end)):
            for frame in self._unpacker.feed(data):
                if frame is None or (frame.kind, frame.payload) == (Kind.ERROR, bytes([Why.FRAME])):
                    damaged = True
                    continue
                if frame.sequence != self._sequence:
                    continue
                if frame.version != VERSION:
                    raise self._stranger(frame.version)
                if frame.kind == kind | 0x80:
                    self._learn(taken)
                    return frame.payload
                if frame.kind == Kind.TAKEN:
                    taken = time.monotonic()
                    end = taken + self._work_s
                elif frame.kind == Kind.ERROR and len(frame.payload) == 1:
                    raise RefusedError(
                        f"{self.name}: refuses {kind.name} ({frame.payload[0]})", frame.payload[0]
                    )
        return None

    def _learn(self, taken: float) -> None:
        """Know how long work takes, so that a lost answer is soon missed."""
        if taken:
            self._slowest = max(self._slowest, time.monotonic() - taken)
            self._work_s = min(self._work_s, ANSWER_S + _PATIENCE * self._slowest)

    def _stranger(self, version: int) -> DeviceError:
        return DeviceError(
            f"{self.name}: the firmware speaks version {version} of the protocol, this program {VERSION}",
            hint="build the firmware again with this version: topokd-edge firmware",
        )
