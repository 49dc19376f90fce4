"""One request to the page server: what is asked for stands in a table, or is refused."""

from __future__ import annotations

import hmac
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from topokd_bench.browser.server import PageServer

RESULT = "result"
"""Where the page posts to."""
MOST_BYTES = 1 << 18
"""Of a post on two builds, unless the server says otherwise; a sound one has some tens of kilobytes."""
_PIECE_BYTES = 1 << 16
"""Sent at once: `timeout` is then that of a piece, and not of a whole file on a slow network."""
_TEXT = "text/plain; charset=utf-8"
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; "
    "connect-src 'self'; worker-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""With the opener and embedder policies a page on localhost has a finer clock (5 us rather than 100)."""


class _RefusedError(Exception):
    """A request that is answered with a status and a sentence."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why


class Handler(BaseHTTPRequestHandler):
    """Answers GET for the files of the server, and one POST; HTTP/1.0, a connection each."""

    server: PageServer
    timeout = 10.0
    server_version = "topokd-edge"
    sys_version = ""

    def do_GET(self) -> None:
        """Give a file of the table."""
        try:
            name = self._name()
            served = self.server.files.get(name)
            if served is None:
                raise _RefusedError(404, "no such file here")
        except _RefusedError as refused:
            self._answer(refused.status, _TEXT, refused.why.encode())
            return
        if name == "":
            self.server.opened_by = str(self.client_address[0])
        self.server.given.add(name)
        self._answer(200, served.kind, served.content)

    def do_POST(self) -> None:
        """Take the result, once."""
        try:
            if self._name() != RESULT:
                raise _RefusedError(404, "no such file here")
            if not self.server.take(self._body()):
                raise _RefusedError(409, "there is a result already; start the bench anew for another")
            self._answer(200, _TEXT, b"taken")
        except _RefusedError as refused:
            self._answer(refused.status, _TEXT, refused.why.encode())
        finally:
            self.server.finish()

    def _name(self) -> str:
        """Return what is asked for under the token, from our own page and by our own name."""
        origin = self.headers.get("Origin")
        if self.headers.get_all("Host", []) not in [[host] for host in self.server.hosts]:
            refused = _RefusedError(421, "asked for by another name than that of the bench")
        elif origin is not None and origin not in {f"http://{host}" for host in self.server.hosts}:
            refused = _RefusedError(403, "asked for by the page of another site")
        else:
            slash, token, *rest = self.path.split("/", 2) if self.path.count("/") >= 2 else ("x", "")
            if slash == "" and hmac.compare_digest(token.encode("utf-8"), self.server.token.encode("ascii")):
                return rest[0]
            refused = _RefusedError(
                403, "wrong or old address: open the one that topokd-edge bench shows now, or scan its code"
            )
        self.server.count_refused()
        raise refused

    def _body(self) -> bytes | str:
        """Read the post, or say what is wrong with it, which is then the answer of the phone."""
        lengths = self.headers.get_all("Content-Length", [])
        if len(lengths) != 1 or not (lengths[0].isascii() and lengths[0].isdecimal()):
            raise _RefusedError(411, "a post needs one Content-Length")
        if self.headers.get_content_type() != "application/json" or "Transfer-Encoding" in self.headers:
            raise _RefusedError(415, "expected plain application/json")
        most = self.server.most_bytes
        if len(lengths[0]) > 12 or int(lengths[0]) > most:
            self.server.take(f"a post of {lengths[0][:20]} bytes, expected at most {most}")
            raise _RefusedError(413, f"expected at most {most} bytes")
        size = int(lengths[0])
        body = self.rfile.read(size)
        if len(body) < size:
            raise _RefusedError(400, f"the post ended after {len(body)} of {size} bytes")
        return body

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what http.server itself refuses, in a sentence and no page."""
        self._answer(code, _TEXT, b"not a request that is answered here")

    def _answer(self, status: int, kind: str, content: bytes) -> None:
        self.close_connection = True
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            for start in range(0, len(content), _PIECE_BYTES):
                self.wfile.write(content[start : start + _PIECE_BYTES])

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the bench tells what matters."""
