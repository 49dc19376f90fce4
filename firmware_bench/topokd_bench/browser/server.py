"""A server that gives a fixed table of files under a secret path and takes one post, then nothing more."""

from __future__ import annotations

import ipaddress
import secrets
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

from topokd_bench.browser.handler import MOST_BYTES, Handler

MOST_CONNECTIONS = 16
"""At once; a browser opens six."""
CONNECTION_SECONDS = 30.0
"""Longest life of a connection, however slowly it sends, beside the time for the largest file."""
SLOWEST_BYTES = 250_000
"""A second: a slow wireless network still gets an engine of 14 MB."""
_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Served:
    """A file in memory: its content type and its bytes."""

    kind: str
    content: bytes


class PageServer(ThreadingHTTPServer):
    """Serves `files` at `/TOKEN/NAME`, and takes one post at `/TOKEN/result`.

    Attributes
    ----------
    files
        By name; "" is the page itself. Nothing else is ever answered.
    token
        Part of the address; whoever does not know it gets nothing.
    opened_by
        Address of whoever asked for the page last; None before.
    given
        Names that were asked for, and given.
    refused
        Requests without the right token or for another host.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = MOST_CONNECTIONS

    def __init__(
        self, address: str, port: int, files: Mapping[str, Served], most_bytes: int = MOST_BYTES
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.files = dict(files)
        self.token = secrets.token_urlsafe(24)
        self.most_bytes = most_bytes
        largest = max((len(served.content) for served in files.values()), default=0)
        self.connection_seconds = CONNECTION_SECONDS + largest / SLOWEST_BYTES
        self.given: set[str] = set()
        self.opened_by: str | None = None
        self.refused = 0
        self._lock = threading.Lock()
        self._since: dict[socket.socket, float] = {}
        self._answer: bytes | str | None = None
        self._answered = threading.Event()
        super().__init__((address, port), Handler)
        shown = f"[{address}]" if ":" in address else address
        names = [shown, "localhost"] if ipaddress.ip_address(address).is_loopback else [shown]
        self.hosts = frozenset(f"{name}:{self.server_port}" for name in names)
        self.url = f"http://{shown}:{self.server_port}/{self.token}/"

    def server_bind(self) -> None:
        """Bind without the look-up of a host name that http.server would do."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def take(self, body: bytes | str) -> bool:
        """Keep the one post, or a sentence on why it cannot be taken; False when there has been one."""
        with self._lock:
            if self._answer is not None:
                return False
            self._answer = body
            return True

    def finish(self) -> None:
        """End the wait if there is a post; called once the browser has been answered."""
        if self._answer is not None:
            self._answered.set()

    def count_refused(self) -> None:
        """Count a request that had no business here."""
        with self._lock:
            self.refused += 1

    def wait(self, seconds: float) -> bytes | str | None:
        """Return the post, or the sentence on why it was refused; None when none came in time."""
        return self._answer if self._answered.wait(seconds) else None

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Refuse more connections than a browser opens."""
        with self._lock:
            if len(self._since) >= MOST_CONNECTIONS:
                return False
            self._since[request] = time.monotonic()
            return True

    def shutdown_request(self, request: Any) -> None:
        """Forget a connection that is done."""
        with self._lock:
            self._since.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Cut connections that have lived too long."""
        now = time.monotonic()
        with self._lock:
            late = [one for one, since in self._since.items() if now - since > self.connection_seconds]
        for connection in late:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that goes away is no failure of the bench."""


@contextmanager
def serving(
    address: str, port: int, files: Mapping[str, Served], most_bytes: int = MOST_BYTES
) -> Iterator[PageServer]:
    """Serve until the block is left.

    Parameters
    ----------
    address
        The one IP address to listen on.
    port
        0 takes any free one.
    files
        See `PageServer`.
    most_bytes
        Of the post.

    Raises
    ------
    OSError
        When the address is not of this machine, or the port is taken.
    """
    server = PageServer(address, port, files, most_bytes)
    thread = threading.Thread(target=server.serve_forever, args=(_POLL_SECONDS,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
