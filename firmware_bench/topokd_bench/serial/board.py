"""What the bench firmware on a board is asked, and what its answers mean."""

from __future__ import annotations

import struct
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from topokd_bench.serial.link import Kind, Link, RefusedError, Why
from topokd_bench.ssh import clean
from topokd_bench.types import Array
from topokd_edge.bundle import DeviceError

INT8_STUDENT = "student.int8"
"""The one pipeline whose logits are int8; those of all others are 32-bit floats."""
PIECE = 256
"""Bytes of a window in one frame: a damaged one costs little."""
_ROUNDS = 3
"""Times a window is sent, at most: a board that restarts forgets it."""
_NUMBER_NAMES = (
    *("ticks_hz", "clock_hz", "channels", "length", "classes", "layers"),
    *("pipeline_bytes", "image_bytes"),
)
_NUMBERS = struct.Struct(f"<{len(_NUMBER_NAMES)}I32s")
_CLOCK_TOLERANCE = 0.03
"""An RC oscillator is right to one per cent; a wrong divider is off by far more."""
_COUNTER = 1 << 32
_CLOCK_S = 2.0


@dataclass(frozen=True)
class Hello:
    """What a board says of itself.

    Attributes
    ----------
    ticks_hz, clock_hz
        Rate of the counter it times with, and clock of the core.
    channels, length, classes, layers
        Of the pipeline.
    pipeline_bytes, image_bytes
        All memory of the pipeline; code, tables and weights of the whole firmware.
    digest
        Of the bundle, hexadecimal.
    about
        `board`, `core`, `pipeline`, `compiler`, `kernel`, `flags`, `code`.
    """

    ticks_hz: int
    clock_hz: int
    channels: int
    length: int
    classes: int
    layers: int
    pipeline_bytes: int
    image_bytes: int
    digest: str
    about: Mapping[str, str]

    @property
    def pipeline(self) -> str:
        """Which pipeline is on the board."""
        return self.about["pipeline"]

    @property
    def logit(self) -> np.dtype[Any]:
        """Type of a logit on the wire."""
        return np.dtype(np.int8 if self.pipeline == INT8_STUDENT else "<f4")


@dataclass(frozen=True)
class Ran:
    """One window: logits (classes,), int8 or float32, and how long it took."""

    logits: npt.NDArray[Any]
    ns: int


class Board:
    """A board with the bench firmware.

    Parameters
    ----------
    link
        A connection to it.

    Attributes
    ----------
    hello
        Known after `greet`.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._window = b""
        self.hello: Hello

    def greet(self) -> Hello:
        """Hear what the board is.

        Raises
        ------
        DeviceError
            When it does not answer, or answers nonsense.
        """
        answer = self._link.ask(Kind.HELLO)
        if len(answer) < _NUMBERS.size:
            raise self._nonsense("HELLO")
        numbers = _NUMBERS.unpack_from(answer)
        text = clean(answer[_NUMBERS.size :].decode("utf-8", "replace"))
        pairs = (line.partition("=") for line in text.splitlines())
        about = {key: value for key, _, value in pairs if key}
        said = dict(zip(_NUMBER_NAMES, numbers[:-1], strict=True))
        self.hello = Hello(**said, digest=numbers[-1].hex(), about=about)
        if not all(numbers[:-1]) or "pipeline" not in about:
            raise self._nonsense("HELLO")
        return self.hello

    def load(self, window: Array) -> None:
        """Send a raw window, float32 (length, channels)."""
        self._window = np.ascontiguousarray(window, dtype="<f4").tobytes()
        for at in range(0, len(self._window), PIECE):
            self._link.ask(Kind.SAMPLES, struct.pack("<I", at) + self._window[at : at + PIECE])

    def run(self) -> Ran:
        """Classify the window that was sent, timed on the board.

        Raises
        ------
        DeviceError
            When the board answers nonsense, or its pipeline fails.
        """
        begin = time.monotonic()
        answer = self._of_window(Kind.RUN, 8 + self.hello.classes * self.hello.logit.itemsize)
        elapsed = time.monotonic() - begin
        status, ticks = struct.unpack_from("<iI", answer)
        self._check_status(status)
        seconds = ticks / self.hello.ticks_hz
        if elapsed * self.hello.ticks_hz >= _COUNTER:
            raise DeviceError(f"{self._link.name}: a window takes longer than the board's counter can count")
        if not 0 < seconds <= elapsed * (1 + _CLOCK_TOLERANCE):
            raise DeviceError(
                f"{self._link.name}: the board says {seconds:.4g} s for a run that took {elapsed:.4g} s",
                hint="the counter of the board is not at the rate it says: the firmware's clocks are wrong",
            )
        return Ran(np.frombuffer(answer, self.hello.logit, offset=8), round(seconds * 1e9))

    def layers(self) -> tuple[npt.NDArray[Any], list[int]]:
        """Classify the window that was sent; return logits, and a checksum of every layer's output."""
        classes, count, logit = self.hello.classes, self.hello.layers, self.hello.logit
        sums_at = 4 + classes * logit.itemsize
        answer = self._of_window(Kind.LAYERS, sums_at + 4 * count)
        self._check_status(struct.unpack_from("<i", answer)[0])
        logits = np.frombuffer(answer, logit, count=classes, offset=4)
        return logits, list(struct.unpack_from(f"<{count}I", answer, sums_at))

    def stack_bytes(self) -> int:
        """Return the deepest the stack has been in any `run` since `greet`."""
        return int(struct.unpack("<I", self._sized(self._link.ask(Kind.STACK), 4, "STACK"))[0])

    def ticks_hz_seen(self, seconds: float = _CLOCK_S) -> float:
        """Return the rate of the board's counter by this machine's clock.

        Raises
        ------
        DeviceError
            When it is not the rate that the board says.
        """
        first, begin = self._ticks()
        time.sleep(seconds)
        last, end = self._ticks()
        seen = ((last - first) % _COUNTER) / (end - begin)
        said = self.hello.ticks_hz
        if abs(seen / said - 1) > _CLOCK_TOLERANCE:
            raise DeviceError(
                f"{self._link.name}: the board's counter runs at {seen / 1e6:.4g} MHz, its firmware says "
                f"{said / 1e6:.4g}",
                hint="its clocks are not set as the firmware thinks: times would be wrong",
            )
        return seen

    def _ticks(self) -> tuple[int, float]:
        """Return the counter and when it was read, the quickest of some tries."""
        tries = []
        for _ in range(5):
            begin = time.monotonic()
            ticks = struct.unpack("<I", self._sized(self._link.ask(Kind.TICKS), 4, "TICKS"))[0]
            end = time.monotonic()
            tries.append((end - begin, ticks, (begin + end) / 2))
        _, ticks, when = min(tries)
        return ticks, when

    def _of_window(self, kind: Kind, size: int) -> bytes:
        """Ask for work on the window; send it again to a board that restarted in between."""
        crc = struct.pack("<I", zlib.crc32(self._window))
        for _ in range(_ROUNDS):
            try:
                return self._sized(self._link.ask(kind, crc), size, kind.name)
            except RefusedError as error:
                if error.why != Why.WINDOW:
                    raise
            self.load(np.frombuffer(self._window, "<f4"))
        raise DeviceError(
            f"{self._link.name}: the board does not keep a window", hint="it may restart: check its power"
        )

    def _sized(self, answer: bytes, size: int, kind: str) -> bytes:
        if len(answer) != size:
            raise self._nonsense(kind)
        return answer

    def _check_status(self, status: int) -> None:
        if status != 0:
            raise DeviceError(f"{self._link.name}: {self.hello.pipeline} answered {status} on the board")

    def _nonsense(self, kind: str) -> DeviceError:
        return DeviceError(
            f"{self._link.name}: answered nonsense to {kind}",
            hint="build and flash the firmware again: topokd-edge firmware",
        )
