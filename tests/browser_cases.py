"""What the tests of a bench in a browser share: a table of files, a small bundle, what a page posts of it."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any

import numpy as np
from topokd_bench.browser.post import Post, Wanted, read_post
from topokd_bench.browser.server import PageServer, Served

from topokd_edge.bundle import Bundle, Manifest, ModelFile, Normalisation, write_sums
from topokd_edge.files import sha256_bytes, write_json

FILES = {
    "": Served("text/html", b"<p>page</p>"),
    "worker.js": Served("text/javascript", b"// worker"),
    "student.simd.wasm": Served("application/wasm", bytes(range(256))),
}
PIXEL = (
    "Mozilla/5.0 (Linux; Android 14; Pixel 7) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/131.0.0.0 Mobile Safari/537.36"
)


CLASSES = ("lie", "run", "sit")
VECTORS = 4


def small_bundle(
    folder: Path,
    *,
    units: tuple[str, ...] = ("g", "g", "g"),
    wasm: bool = True,
    models: tuple[tuple[str, str, str], ...] = (),
) -> Bundle:
    """A bundle whose WebAssembly is never run: files of a few bytes, and logits to expect of them.

    `models` are (target, precision, path) of others; of these `expected_of` gives the logits.
    """
    (folder / "wasm").mkdir(parents=True)
    names = [f"wasm/student.{build}.wasm" for build in ("simd", "scalar")]
    others = [path for _, _, path in models]
    for name in (*names, *others, "wasm/student.js", "wasm/selftest.js"):
        (folder / name).write_bytes(f"content of {name}".encode())
    rng = np.random.default_rng(0)
    logits = (rng.integers(-128, 128, (VECTORS, len(CLASSES))) * np.float32(0.05)).astype(np.float32)
    x = rng.normal(size=(VECTORS, 3, 10)).astype(np.float32)
    answers = {**dict.fromkeys(names, logits), **dict.fromkeys(others, expected_of(x))}
    np.savez(folder / "selftest.npz", x=x, **answers)
    contents = {name: (folder / name).read_bytes() for name in (*names, *others)}
    kinds = {**dict.fromkeys(names, ("wasm" if wasm else "onnx", "int8")), **{m[2]: m[:2] for m in models}}
    manifest = Manifest(
        channels=3,
        length=10,
        rate_hz=25.0,
        channel_names=("acc_x", "acc_y", "acc_z"),
        units=units,
        normalisation=Normalisation((0.0,) * 3, (1.0,) * 3),
        class_names=CLASSES,
        files=tuple(
            ModelFile(*kinds[name], name, len(content), sha256_bytes(content))
            for name, content in contents.items()
        ),
        int8=None,
        macs=1000,
        params=100,
        self_test="selftest.npz",
    )
    write_json(folder / "manifest.json", manifest.to_json())
    write_sums(folder)
    return Bundle.open(folder)


def expected_of(x: np.ndarray) -> np.ndarray:
    """What a stand-in of an engine answers to normalised windows (n, channels, length)."""
    steps = np.arange(1, x.shape[2] + 1)
    return (x.astype(np.float64) @ steps / x.shape[2]).astype(np.float32)


def sound_post(bundle: Bundle, *, windows: int = 0, engines: dict[str, str] | None = None) -> dict[str, Any]:
    """What a page posts when all is well; `engines` gives the model file of each run in another engine."""
    own = [(build, f"wasm/student.{build}.wasm", time) for build, time in (("simd", 1.0), ("scalar", 4.0))]
    others = [(build, path, 0.5) for build, path in (engines or {}).items()]
    builds = [
        {
            "build": build,
            "logits": bundle.self_test()[path].ravel().tolist(),
            "times_ms": [milliseconds + 0.001 * n for n in range(100)],
            "warmup": 48,
            "cold_ms": 12.5,
            "download_ms": 40,
            "error": "",
            "windows_per_time": 3,
            "clock_ms": 0.1,
            "predicted": [n % len(CLASSES) for n in range(windows)],
        }
        for build, path, milliseconds in own + others
    ]
    facts = {
        "user_agent": PIXEL,
        "cores": 8,
        "memory_gb": None,
        "screen": "390x844 at 2",
        "secure_context": False,
        "cross_origin_isolated": False,
        "hidden_while_timed": False,
    }
    return {"bundle": bundle.digest, "facts": facts, "builds": builds, "error": ""}


def read(
    document: Any,
    bundle: Bundle,
    windows: int = 0,
    engines: tuple[str, ...] = (),
    pipelines: dict[str, tuple[int, int]] | None = None,
) -> Post:
    wanted = Wanted(bundle.digest, VECTORS, len(CLASSES), windows, engines, pipelines or {})
    return read_post(document if isinstance(document, bytes) else json.dumps(document).encode(), wanted)


def ask(
    server: PageServer,
    path: str,
    *,
    method: str = "GET",
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
) -> tuple[int, bytes, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=5)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.msg
    finally:
        connection.close()


def read_all(connection: socket.socket) -> bytes:
    with connection:
        pieces = []
        try:
            while piece := connection.recv(65536):
                pieces.append(piece)
        except ConnectionResetError:
            pass
        return b"".join(pieces)
