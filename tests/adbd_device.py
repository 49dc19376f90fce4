"""The device's side of adb over TCP, so that the real client can be tried; programs run on this machine.

The protocol is that of AOSP's packages/modules/adb/protocol.txt and SYNC.TXT, without authentication. A
device with `shell_v2` tells output, errors and exit status apart; one without gives one stream.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path

CNXN, OPEN, OKAY, CLSE, WRTE = (
    int.from_bytes(word, "little") for word in (b"CNXN", b"OPEN", b"OKAY", b"CLSE", b"WRTE")
)
_VERSION, _MOST = 0x01000000, 4096
_STDOUT, _EXIT = 1, 3

Shell = Callable[[str], tuple[bytes, int]]
Store = Callable[[str, bytes], str]
"""Takes a path and its content; returns why it could not, or nothing."""


class Adbd:
    """A device that listens on a port of the loopback; `with` ends it."""

    def __init__(self, shell: Shell, store: Store, *, shell_v2: bool) -> None:
        self.shell, self.store, self.shell_v2 = shell, store, shell_v2
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.serial = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._connections: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Be unplugged."""
        for each in (self._listener, *self._connections):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        try:
            while True:
                connection, _ = self._listener.accept()
                self._connections.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()
        except OSError:
            return

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError):
            _Transport(self, connection).serve()


class _Transport:
    """One connection, on which one stream after another is open."""

    def __init__(self, device: Adbd, connection: socket.socket) -> None:
        self.device, self.connection = device, connection
        self.synced: dict[int, bytes] = {}
        self.waiting: dict[int, list[bytes]] = {}

    def serve(self) -> None:
        while True:
            command, theirs, ours, data = self._receive()
            if command == CNXN:
                features = "shell_v2" if self.device.shell_v2 else ""
                banner = f"device::ro.product.name=made;ro.product.model=made;features={features}"
                self._send(CNXN, _VERSION, _MOST, banner.encode())
            elif command == OPEN:
                self._open(theirs, data.rstrip(b"\0").decode())
            elif command == WRTE:
                self._send(OKAY, ours, theirs)
                self._sync(theirs, data)
            elif command == OKAY:
                self._next(theirs)
            elif command == CLSE:
                self.waiting.pop(theirs, None)

    def _open(self, stream: int, service: str) -> None:
        self._send(OKAY, stream, stream)
        kind, _, words = service.partition(":")
        if kind == "sync":
            self.synced[stream] = b""
            return
        assert kind.split(",")[0] == "shell", service
        output, status = self.device.shell(words)
        if ",v2" in f",{kind}" and self.device.shell_v2:
            parts = [output[at : at + 2048] for at in range(0, len(output), 2048)]
            output = b"".join(struct.pack("<BI", _STDOUT, len(part)) + part for part in parts)
            output += struct.pack("<BIB", _EXIT, 1, status)
        self.waiting[stream] = [output[at : at + _MOST] for at in range(0, len(output), _MOST)]
        self._next(stream)

    def _next(self, stream: int) -> None:
        """Send the next part; the client says OKAY to each before the next may come."""
        if stream not in self.waiting:
            return
        if self.waiting[stream]:
            self._send(WRTE, stream, stream, self.waiting[stream].pop(0))
        else:
            del self.waiting[stream]
            self._send(CLSE, stream, stream)

    def _sync(self, stream: int, data: bytes) -> None:
        """Take what is there of requests: STAT, and SEND with its DATA up to DONE."""
        held = self.synced.get(stream, b"") + data
        while len(held) >= 8:
            word, length = held[:4], struct.unpack("<I", held[4:8])[0]
            if word == b"STAT" and len(held) >= 8 + length:
                held = held[8 + length :]
                self._send(WRTE, stream, stream, b"STAT" + bytes(12))
            elif word == b"SEND" and (end := _end_of(held)) is not None:
                path = held[8 : 8 + length].decode().rpartition(",")[0]
                why = self.device.store(path, _content(held[8 + length : end - 8])).encode()
                self._send(
                    WRTE, stream, stream, (b"FAIL" if why else b"OKAY") + struct.pack("<I", len(why)) + why
                )
                held = held[end:]
            elif word == b"QUIT":
                self._send(CLSE, stream, stream)
                held = b""
            else:
                break
        self.synced[stream] = held

    def _send(self, command: int, first: int, second: int, data: bytes = b"") -> None:
        head = (command, first, second, len(data), sum(data) & 0xFFFFFFFF, command ^ 0xFFFFFFFF)
        self.connection.sendall(struct.pack("<6I", *head) + data)

    def _receive(self) -> tuple[int, int, int, bytes]:
        command, first, second, length, _, _ = struct.unpack("<6I", self._exactly(24))
        return command, first, second, self._exactly(length)

    def _exactly(self, count: int) -> bytes:
        found = b""
        while len(found) < count:
            part = self.connection.recv(count - len(found))
            if not part:
                raise EOFError
            found += part
        return found


def _end_of(held: bytes) -> int | None:
    """Return where a SEND ends, after its DONE; None when it is not there yet."""
    at = 8 + struct.unpack("<I", held[4:8])[0]
    while len(held) >= at + 8:
        word, length = held[at : at + 4], struct.unpack("<I", held[at + 4 : at + 8])[0]
        if word == b"DONE":
            return at + 8
        at += 8 + length
    return None


def _content(blocks: bytes) -> bytes:
    found, at = [], 0
    while at < len(blocks):
        length = struct.unpack("<I", blocks[at + 4 : at + 8])[0]
        found.append(blocks[at + 8 : at + 8 + length])
        at += 8 + length
    return b"".join(found)


def local_path(root: Path, path: str) -> Path:
    """Return where a path of the device lies here."""
    return root / path.removeprefix("/data/local/tmp/")
