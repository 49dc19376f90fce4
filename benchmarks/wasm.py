"""How long a window takes in WebAssembly beside LiteRT: python benchmarks/wasm.py BUNDLE [OUT.json]

The same int8 student by LiteRT (XNNPACK, one thread), and by its WebAssembly under Node.js and in headless
Chromium where there are these. A time is the least of some thousand single windows, so that other work on the
machine counts little; the page is cross-origin isolated, where a browser's clock has 5 us. Ratios are against
LiteRT in the same run.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from topokd_export.wasm.node import find_node

from topokd_edge.bundle import Bundle, open_model
from topokd_edge.files import write_json

PASSES, ROUNDS = 30, 5
TIMED = f"""
const all = windows();
const timed = (student) => {{
  let best = Infinity;
  for (let pass = 0; pass < {PASSES}; pass++)
    for (const window of all) {{
      const begin = performance.now();
      student.classify(window);
      best = Math.min(best, performance.now() - begin);
    }}
  return best;
}};
"""
UNDER_NODE = (
    """
import { readFile } from "node:fs/promises";
import { Student, info } from "./student.js";
import { windows } from "./selftest.js";
"""
    + TIMED
    + """
const out = {};
for (const [build, { file }] of Object.entries(info.builds))
  out[build] = timed(await Student.from(await readFile(file)));
console.log(JSON.stringify(out));
"""
)
PAGE = (
    """<!doctype html><script type="module">
import { Student } from "./wasm/student.js";
import { windows } from "./wasm/selftest.js";
"""
    + TIMED
    + """
const out = {};
for (const simd of [true, false])
  out[simd ? "simd" : "scalar"] = timed(await Student.load(undefined, { simd }));
await fetch("/answer", { method: "POST", body: JSON.stringify(out) });
</script>"""
)


def litert(bundle: Bundle) -> float:
    """Return milliseconds of a window, quantising included."""
    model = open_model(bundle.model_path("tflite", "int8"))
    x = bundle.self_test()["x"]
    best = float("inf")
    for _ in range(PASSES):
        for window in x:
            began = time.perf_counter()
            model.invoke(model.prepare(window))
            best = min(best, time.perf_counter() - began)
    return 1000 * best


def under_node(bundle: Bundle) -> dict[str, float]:
    program = find_node()
    if program is None:
        return {}
    command = [program, "--input-type=module", "-e", UNDER_NODE]
    child = subprocess.run(command, cwd=bundle.folder / "wasm", capture_output=True, text=True, check=True)
    return {f"node, {build}": value for build, value in json.loads(child.stdout).items()}


class _Handler(SimpleHTTPRequestHandler):
    answer: dict[str, float] | None = None

    def do_GET(self) -> None:
        if self.path != "/":
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.end_headers()
        self.wfile.write(PAGE.encode())

    def do_POST(self) -> None:
        type(self).answer = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


def in_chromium(bundle: Bundle) -> dict[str, float]:
    program = shutil.which("chromium")
    if program is None:
        return {}
    _Handler.answer = None
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=str(bundle.folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
        command = [program, *flags, "--remote-debugging-port=0", f"http://127.0.0.1:{server.server_port}/"]
        browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 60
        while _Handler.answer is None and time.monotonic() < until:
            time.sleep(0.1)
        browser.terminate()
        browser.wait()
    server.shutdown()
    return {f"Chromium, {build}": value for build, value in (_Handler.answer or {}).items()}


def main() -> None:
    bundle = Bundle.open(Path(sys.argv[1]))
    best: dict[str, float] = {}
    for _ in range(ROUNDS):
        for name, value in {"LiteRT": litert(bundle), **under_node(bundle), **in_chromium(bundle)}.items():
            best[name] = min(best.get(name, value), value)
    rows: dict[str, Any] = {
        name: {"ms": value, "ratio": value / best["LiteRT"]} for name, value in best.items()
    }
    print("| int8 student | ms | times LiteRT |\n|---|---|---|")
    for name, row in rows.items():
        print(f"| {name} | {row['ms']:.3f} | {row['ratio']:.1f} |")
    if len(sys.argv) > 2:
        manifest = bundle.manifest
        write_json(Path(sys.argv[2]), {"macs": manifest.macs, "passes": PASSES, "rows": rows})


if __name__ == "__main__":
    main()
