"""The server of a bench in a browser: what is served, to whom, and for how long."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Iterator

import pytest
from browser_cases import FILES, ask, read_all
from topokd_bench.browser import server as server_module
from topokd_bench.browser.handler import Handler
from topokd_bench.browser.server import MOST_CONNECTIONS, PageServer, Served, serving


@pytest.fixture
def server() -> Iterator[PageServer]:
    with serving("127.0.0.1", 0, FILES) as running:
        yield running


def post(server: PageServer, body: bytes, kind: str = "application/json") -> int:
    return ask(server, f"/{server.token}/result", method="POST", body=body, headers={"Content-Type": kind})[0]


# --- what is served


def test_the_table_is_served_under_the_token_and_nothing_else_is(server: PageServer) -> None:
    for name, served in FILES.items():
        status, content, headers = ask(server, f"/{server.token}/{name}")
        assert (status, content, headers["Content-Type"]) == (200, served.content, served.kind)
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
        assert "Python" not in headers["Server"]
    for name in (
        "../server.py",
        "%2e%2e/",
        "worker.js?x",
        "worker.js/",
        "/etc/passwd",
        ".",
        "WORKER.JS",
        "result",
    ):
        assert ask(server, f"/{server.token}/{name}")[0] == 404


def test_without_the_right_token_there_is_nothing(server: PageServer) -> None:
    wrong = [server.token[:-1], server.token + "x", server.token.swapcase(), "", "ä", "x" * 5000]
    for token in wrong:
        connection = socket.create_connection(("127.0.0.1", server.server_port), timeout=5)
        head = f"GET /{token}/worker.js HTTP/1.1\r\nHost: 127.0.0.1:{server.server_port}\r\n\r\n"
        connection.sendall(head.encode("utf-8"))
        answer = read_all(connection)
        assert answer.startswith(b"HTTP/1.0 403") and b"// worker" not in answer
    for path in ("/", "/favicon.ico", "/worker.js"):
        assert ask(server, path)[0] == 403
    assert server.refused == len(wrong) + 3 and server.opened_by is None


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "127.0.0.1"}, 421),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_other_names_and_other_sites_get_nothing(
    server: PageServer, headers: dict[str, str], status: int
) -> None:
    """A name that is made to point here (DNS rebinding) stands in Host; another site's page in Origin."""
    assert ask(server, f"/{server.token}/", headers=headers)[0] == status
    kind = {"Content-Type": "application/json"}
    refused = ask(server, f"/{server.token}/result", method="POST", body=b"{}", headers={**kind, **headers})
    assert refused[0] == status and server.wait(0) is None


def test_localhost_may_be_asked_where_it_listens_there(server: PageServer) -> None:
    """As adb reverse shows it to a phone."""
    host = f"localhost:{server.server_port}"
    headers = {"Host": host, "Origin": f"http://{host}"}
    assert ask(server, f"/{server.token}/", headers=headers)[0] == 200


@pytest.mark.parametrize("method", ["HEAD", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "get"])
def test_other_methods_get_nothing(server: PageServer, method: str) -> None:
    assert ask(server, f"/{server.token}/", method=method)[0] == 501


def test_it_listens_on_the_address_asked_for_alone() -> None:
    with serving("127.0.0.2", 0, FILES) as running:
        socket.create_connection(("127.0.0.2", running.server_port), timeout=2).close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", running.server_port), timeout=2)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", running.server_port), timeout=2)


def test_two_benches_have_two_tokens() -> None:
    with serving("127.0.0.1", 0, FILES) as one, serving("127.0.0.1", 0, FILES) as other:
        assert one.token != other.token and len(one.token) >= 32


def test_clients_that_dawdle_are_cut_and_more_than_a_few_are_turned_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_module, "CONNECTION_SECONDS", 0.5)
    with serving("127.0.0.1", 0, FILES) as running:
        place = ("127.0.0.1", running.server_port)
        dawdling = [socket.create_connection(place, timeout=5) for _ in range(MOST_CONNECTIONS)]
        begin = time.monotonic()
        with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
            ask(running, f"/{running.token}/")
        for connection in dawdling:
            assert read_all(connection) == b""
        assert 0.3 < time.monotonic() - begin < 2
        assert ask(running, f"/{running.token}/")[0] == 200


def test_a_large_file_arrives_slowly_or_is_cut_by_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sent whole it would have to arrive within the time of one piece."""
    monkeypatch.setattr(Handler, "timeout", 0.4)
    large = Served("application/wasm", bytes(range(256)) * (1 << 12))
    with serving("127.0.0.1", 0, {**FILES, "engine.wasm": large}) as running:
        running.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        assert running.connection_seconds == pytest.approx(30 + len(large.content) / 250_000)
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
        connection.connect(("127.0.0.1", running.server_port))
        head = f"GET /{running.token}/engine.wasm HTTP/1.1\r\nHost: 127.0.0.1:{running.server_port}\r\n\r\n"
        connection.sendall(head.encode())
        pieces, begin = [], time.monotonic()
        while piece := connection.recv(1 << 16):
            pieces.append(piece)
            time.sleep(0.01)
        connection.close()
        assert time.monotonic() - begin > 0.5
        assert b"".join(pieces).endswith(large.content) and running.given == {"engine.wasm"}


# --- the post


def test_one_post_is_taken(server: PageServer) -> None:
    assert post(server, b'{"a": 1}') == 200
    assert post(server, b'{"a": 2}') == 409
    assert server.wait(0) == b'{"a": 1}'


def test_a_post_that_is_no_plain_json_or_has_no_length_is_not_taken(server: PageServer) -> None:
    assert post(server, b"{}", "text/plain") == 415
    address = f"/{server.token}/result"
    host = f"Host: 127.0.0.1:{server.server_port}"
    head = f"POST {address} HTTP/1.1\r\n{host}\r\nContent-Type: application/json\r\n"
    for more, status in (
        ("", 411),
        ("Content-Length: -1\r\n", 411),
        ("Content-Length: 2\r\nContent-Length: 3\r\n", 411),
        ("Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", 415),
        ("Content-Length: 9\r\n", 400),
    ):
        connection = socket.create_connection(("127.0.0.1", server.server_port), timeout=5)
        connection.sendall(f"{head}{more}\r\n{{}}".encode())
        connection.shutdown(socket.SHUT_WR)
        assert read_all(connection).startswith(f"HTTP/1.0 {status}".encode())
    assert server.wait(0) is None
