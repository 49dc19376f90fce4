"""Writing what feeds the WebAssembly: the JavaScript, its types, its self-test, and the page."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt

from topokd_edge.streaming import DEFAULT_OVERLAP, window_step
from topokd_export.c.integer_graph import IntegerGraph
from topokd_export.c.writer import AppNumbers, SelfTest

MODULES = {"simd": "student.simd.wasm", "scalar": "student.scalar.wasm"}
"""File of each build, by what `topokd_export.wasm.build.CPUS` calls it."""
SCRIPT = "student.js"
_PLAIN = ("student.d.ts", "page.js", "csv.js", "index.html", "package.json")


def write_scripts(
    graph: IntegerGraph, app: AppNumbers, self_test: SelfTest, modules: Mapping[str, bytes]
) -> dict[str, str]:
    """Return the text files that stand beside the WebAssembly, by name.

    Parameters
    ----------
    graph, app
        The student, and what an app must know of it.
    self_test
        Quantised windows and their logits, for `selftest.js`.
    modules
        The WebAssembly by build, whose hashes the script checks.
    """
    folder = resources.files("topokd_export.wasm") / "runtime"
    texts = {name: (folder / name).read_text("utf-8") for name in (SCRIPT, "selftest.js", *_PLAIN)}
    texts[SCRIPT] = texts[SCRIPT].replace("@INFO@", _json(_info(graph, app, modules)))
    texts["selftest.js"] = texts["selftest.js"].replace("@VECTORS@", _json(_vectors(graph, app, self_test)))
    return texts


def _info(graph: IntegerGraph, app: AppNumbers, modules: Mapping[str, bytes]) -> dict[str, Any]:
    return {
        "length": graph.input.rows,
        "step": window_step(graph.input.rows, DEFAULT_OVERLAP),
        "rateHz": app.rate_hz,
        "channels": list(app.channel_names),
        "units": list(app.units),
        "classes": list(app.class_names),
        "scale": _float32(graph.output.scale),
        "zeroPoint": graph.output.zero_point,
        "builds": {
            build: {"file": MODULES[build], "hash": integrity(content)} for build, content in modules.items()
        },
    }


def integrity(content: bytes) -> str:
    """Return a SHA-256 as subresource integrity writes it (W3C), the form `fetch` takes."""
    return "sha256-" + _base64(hashlib.sha256(content).digest())


def _vectors(graph: IntegerGraph, app: AppNumbers, self_test: SelfTest) -> dict[str, Any]:
    return {
        "scale": _float32(graph.input.scale),
        "zeroPoint": graph.input.zero_point,
        "mean": list(app.normalisation.mean),
        "std": list(app.normalisation.std),
        "windows": _base64(self_test.windows.tobytes()),
        "logits": _base64(self_test.logits.tobytes()),
    }


def raw_windows(
    graph: IntegerGraph, app: AppNumbers, levels: npt.NDArray[np.int8]
) -> npt.NDArray[np.float32]:
    """Return quantised windows (n, length, channels) as an app has them: of each level its middle."""
    std, mean = (np.array(v, dtype=np.float64) for v in (app.normalisation.std, app.normalisation.mean))
    scale = _float32(graph.input.scale)
    middle = (levels.astype(np.float64) - graph.input.zero_point) * scale * std + mean
    return middle.astype(np.float32)


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=True, allow_nan=False)


def _float32(value: float) -> float:
    return float(np.float32(value))


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
