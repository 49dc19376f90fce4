"""A serial port of this machine, by termios: opened for one program alone, raw, with timeouts."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import stat
import termios
import time
from types import TracebackType

from topokd_edge.bundle import DeviceError

TARGET = "serial:"
BAUD = 115_200
_SPEEDS = {
    int(name[1:]): getattr(termios, name) for name in dir(termios) if name[0] == "B" and name[1:].isdigit()
}
_READ_AT_ONCE = 4096
_WRITE_TIMEOUT_S = 10.0


class VanishedError(DeviceError):
    """The port went away while it was used."""


def parse_target(text: str) -> str:
    """Return the path of `serial:/dev/ttyACM0`.

    Raises
    ------
    ValueError
        When it is anything else.
    """
    path = text.removeprefix(TARGET)
    if path == text or not path.startswith("/") or not path.isprintable() or "," in path:
        raise ValueError(f"{text!r}: expected serial:/dev/ttyACM0 or another serial port's path")
    return path


class Port:
    """An open port; 8 bits, no parity, one stop bit, no flow control.

    Parameters
    ----------
    path
        The device file.
    baud
        Bits a second.
    """

    def __init__(self, path: str, baud: int = BAUD) -> None:
        self.path = path
        self.baud = baud
        self._file = -1

    def __enter__(self) -> Port:
        """Open the port.

        Raises
        ------
        DeviceError
            When it is not there, is in use, may not be used, or is no serial port.
        """
        if self.baud not in _SPEEDS:
            raise DeviceError(
                f"{self.path}: {self.baud} baud is not a speed of this machine",
                hint=f"the firmware speaks {BAUD}: leave --baud out",
            )
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise _explain(self.path, error) from None
        try:
            self._own()
            self._before = termios.tcgetattr(self._file)
            self._make_raw()
            termios.tcflush(self._file, termios.TCIOFLUSH)
        except (OSError, termios.error) as error:
            os.close(self._file)
            raise _explain(self.path, error) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError, termios.error):
            termios.tcflush(self._file, termios.TCOFLUSH)
            termios.tcsetattr(self._file, termios.TCSANOW, self._before)
            fcntl.ioctl(self._file, termios.TIOCNXCL)
        os.close(self._file)

    def read(self, until: float) -> bytes:
        """Return bytes that came, at least one; none when `time.monotonic()` reaches `until`.

        Raises
        ------
        VanishedError
            When the port goes away.
        """
        ready, _, _ = select.select([self._file], [], [], max(0.0, until - time.monotonic()))
        if not ready:
            return b""
        try:
            data = os.read(self._file, _READ_AT_ONCE)
        except BlockingIOError:
            return b""
        except OSError as error:
            raise self._vanished(error.strerror) from None
        if not data:
            raise self._vanished("end of file")
        return data

    def write(self, data: bytes) -> None:
        """Write all bytes.

        Raises
        ------
        VanishedError
            When the port goes away, or takes nothing for long.
        """
        end = time.monotonic() + _WRITE_TIMEOUT_S
        while data:
            select.select([], [self._file], [], max(0.0, end - time.monotonic()))
            try:
                data = data[os.write(self._file, data) :]
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise self._vanished("takes no bytes") from None
            except OSError as error:
                raise self._vanished(error.strerror) from None

    def _vanished(self, why: str | None) -> VanishedError:
        return VanishedError(
            f"{TARGET}{self.path}: the board vanished while it was measured ({why})",
            hint="check the cable and its power, and bench again",
        )

    def _own(self) -> None:
        """Refuse a port that another program holds: by its lock, or because it asked to be alone."""
        if not stat.S_ISCHR(os.fstat(self._file).st_mode):
            raise OSError(errno.ENOTTY, "not a terminal")
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.ioctl(self._file, termios.TIOCEXCL)

    def _make_raw(self) -> None:
        """Bytes as they are, 8 bits, no flow control, modem lines ignored."""
        speed, characters = _SPEEDS[self.baud], list(termios.tcgetattr(self._file)[6])
        characters[termios.VMIN], characters[termios.VTIME] = 1, 0
        control = termios.CS8 | termios.CREAD | termios.CLOCAL
        termios.tcsetattr(self._file, termios.TCSANOW, [0, 0, control, 0, speed, speed, characters])


def _explain(path: str, error: OSError | termios.error) -> DeviceError:
    """Return the error of a port that cannot be opened."""
    number, text = error.args[0], error.args[-1]
    where = f"{TARGET}{path}"
    if number in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return DeviceError(
            f"{where}: no such port",
            hint="plug the board in; ls /dev/ttyACM* /dev/ttyUSB* shows what is there",
        )
    if number in (errno.EACCES, errno.EPERM):
        return DeviceError(
            f"{where}: this user may not use the port",
            hint="sudo usermod -aG dialout $USER, then log in again",
        )
    if number in (errno.EBUSY, errno.EAGAIN):
        return DeviceError(
            f"{where}: another program uses the port", hint=f"close it; fuser -v {path} names it"
        )
    return DeviceError(f"{where}: not a serial port ({text})", hint="give a port such as /dev/ttyACM0")
