"""Nonsense sent to the server of a bench in a browser: nothing comes back, nothing breaks."""

from __future__ import annotations

import random
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from browser_cases import CLASSES, FILES, VECTORS, ask, read, read_all, small_bundle, sound_post
from topokd_bench.browser.handler import MOST_BYTES
from topokd_bench.browser.post import PostError, Wanted, read_post
from topokd_bench.browser.server import PageServer, serving

from topokd_edge.bundle import Bundle

SENTENCES = (
    "no such file here",
    "asked for by",
    "wrong or old address",
    "a post needs",
    "expected",
    "the post ended",
    "not a request",
    "there is a result already",
)
"""How every refusal begins."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return small_bundle(tmp_path_factory.mktemp("browser") / "watch")


NAMES = [
    "",
    "worker.js",
    "result",
    "../../etc/passwd",
    "..%2f..%2fetc/passwd",
    "worker.js%00",
    "//",
    "a" * 300,
]
LENGTHS = ["-5", "1e3", "9" * 20, "٣", "", "0x10", str(MOST_BYTES + 1), "3"]


def fuzzed(rng: random.Random, server: PageServer) -> bytes:
    """A request that is wrong somewhere, mostly in few places so that it comes far."""

    def mostly(usual: str, *others: str, share: float = 0.85) -> str:
        return usual if rng.random() < share else rng.choice(others)

    token = mostly(server.token, server.token[:-1], "", "..", "%2e%2e", server.token.upper())
    method = mostly(rng.choice(["GET", "POST"]), "HEAD", "PUT", "BREW", "get", "", "G\0T")
    host = mostly(f"127.0.0.1:{server.server_port}", "evil.example", "", "127.0.0.1")
    body = rng.choice([rng.randbytes(rng.randrange(200)), b"[" * 50_000, b'{"bundle": "0"}', b"{}"])
    lines = [
        f"{method} /{token}/{rng.choice(NAMES if method == 'GET' else ['result'])} "
        f"HTTP/{mostly('1.1', '1.0', '9.9', 'x', '1.1.1', '-1')}",
        f"Host: {host}",
        f"Content-Length: {mostly(str(len(body)), *LENGTHS, share=0.7)}",
        f"Content-Type: {mostly('application/json', 'text/plain', ';', 'a/b; c=' + 'd' * 2000)}",
    ]
    rare = [
        "Content-Length: 4",
        "Transfer-Encoding: chunked",
        f"Origin: {rng.choice(['null', 'http://evil.example', f'http://{host}'])}",
        "Expect: 100-continue",
        "X: " + "y" * rng.choice([1, 70_000]),
        " folded",
        "no colon",
        "Host: evil.example",
    ]
    lines += rng.sample(rare, rng.choice([0, 0, 0, 1, 1, 3])) + ["A: b"] * rng.choice([0] * 20 + [150])
    request = bytearray("\r\n".join(lines).encode("utf-8", "replace") + b"\r\n\r\n" + body)
    for _ in range(rng.choice([0, 0, 0, 1, 3, 30])):
        request[rng.randrange(len(request))] = rng.randrange(256)
    return bytes(request[: rng.choice([len(request)] * 6 + [rng.randrange(len(request))])])


@contextmanager
def surprised(surprises: list[str]) -> Iterator[None]:
    """Collect what the server would not tell: errors in answering other than a client that is gone."""

    def tell(self: PageServer, request: object, client: object) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, ConnectionError):
            surprises.append(repr(error))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PageServer, "handle_error", tell)
        yield


def check_fuzzed(count: int, seed: int) -> dict[bytes, int]:
    """Send fuzzed requests, many to a server; whatever comes back is in the table, or a refusal."""
    rng, statuses = random.Random(seed), {}
    good = {served.content for served in FILES.values()} | {b"taken", b""}
    before, surprises = threading.active_count(), []
    for first in range(0, count, 30):
        with surprised(surprises), serving("127.0.0.1", 0, FILES) as running:
            for _ in range(min(30, count - first)):
                request = fuzzed(rng, running)
                connection = socket.create_connection(("127.0.0.1", running.server_port), timeout=5)
                try:
                    connection.sendall(request)
                    connection.shutdown(socket.SHUT_WR)
                except OSError:
                    pass
                answer = read_all(connection)
                status = answer[:12]
                statuses[status] = statuses.get(status, 0) + 1
                content = answer.partition(b"\r\n\r\n")[2] if status.startswith(b"HTTP/") else answer
                if status.endswith(b" 200"):
                    assert running.token.encode() in request and content in good
                else:
                    assert not content or content.decode().startswith(SENTENCES), (request, answer)
            assert ask(running, f"/{running.token}/")[:2] == (200, FILES[""].content)
            body = running.wait(0)
            if isinstance(body, bytes):
                with pytest.raises(PostError):
                    read_post(body, Wanted("0", VECTORS, len(CLASSES)))
    stop = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < stop:
        time.sleep(0.02)
    assert threading.active_count() <= before and surprises == []
    return statuses


def test_a_few_hundred_fuzzed_requests_get_nothing() -> None:
    statuses = check_fuzzed(300, seed=1)
    assert sum(statuses.values()) == 300 and len(statuses) >= 10


@pytest.mark.slow
def test_six_thousand_fuzzed_requests_get_nothing() -> None:
    statuses = check_fuzzed(6000, seed=2)
    assert sum(statuses.values()) == 6000


def spoil_anywhere(rng: random.Random, value: Any) -> Any:
    """Put nonsense in one random place of a document."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        return {**value, key: spoil_anywhere(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.9:
        place = rng.randrange(len(value))
        return [*value[:place], spoil_anywhere(rng, value[place]), *value[place + 1 :]]
    return rng.choice([None, True, -1, 1e300, 10**30, "", "x" * 600, [], {}, [[]], {"a": 1}, "\u202e", 0.5])


def check_spoilt_posts(count: int, bundle: Bundle) -> None:
    others = {"onnxruntime-web float32": "wasm/student.simd.wasm", "litert.js int8": "wasm/student.simd.wasm"}
    rng, document = random.Random(3), sound_post(bundle, windows=3, engines=others)
    failed = {"logits": [], "times_ms": [], "predicted": [], "error": "no such operator"}
    document["builds"].append({**document["builds"][0], "build": "litert.js float32", **failed})
    names = (*others, "litert.js float32")
    assert read(document, bundle, windows=3, engines=names).builds[-1].error
    refused = 0
    for _ in range(count):
        try:
            found = read(spoil_anywhere(rng, document), bundle, windows=3, engines=names)
        except PostError:
            refused += 1
            continue
        assert all(np.isfinite(run.logits).all() and (run.timing.ns >= 0).all() for run in found.builds)
    assert 0.5 * count < refused < count


def test_posts_spoilt_anywhere_are_refused_or_harmless(bundle: Bundle) -> None:
    check_spoilt_posts(800, bundle)
