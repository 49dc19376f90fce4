"""Compiling a float pipeline on this machine and running it: the answers of a core, whatever the core."""

from __future__ import annotations

import ctypes
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from topokd_edge.errors import CheckFailedError
from topokd_export.c.float_plan import layer_outputs, plan_floats
from topokd_export.c.float_writer import FloatPipeline, write_pipeline
from topokd_export.c.host import compile_c

_WATCHER = ctypes.CFUNCTYPE(None, ctypes.c_int32)
EXACT = ("-O2", "-ffp-contract=off")
"""Every product is rounded before it is added, so that every machine gives the same bits."""
_SHIM = """#include "pipeline.h"
static pipeline_t pipeline;
static void (*watcher)(int32_t layer);
uint32_t host_size(void);
float *host_arena(void);
void host_watch(void (*done)(int32_t layer));
void pipeline_done(int32_t layer);
int32_t host_classify(const float *in, float *out, int32_t windows);
uint32_t host_size(void) { return (uint32_t)sizeof(pipeline_t); }
float *host_arena(void) { return pipeline.arena; }
void host_watch(void (*done)(int32_t layer)) { watcher = done; }
void pipeline_done(int32_t layer)
{
    if (watcher != 0) {
        watcher(layer);
    }
}
int32_t host_classify(const float *in, float *out, int32_t windows)
{
    int32_t i;
    int32_t status = 0;
    for (i = 0; (i < windows) && (status == 0); i++) {
        status = (int32_t)pipeline_classify(&pipeline, &in[i * PIPELINE_LENGTH * PIPELINE_CHANNELS],
                                            &out[i * PIPELINE_CLASSES]);
    }
    return status;
}
"""


class HostPipeline:
    """A float pipeline as a shared library of this machine.

    Parameters
    ----------
    pipeline
        What to compile.
    flags
        For the compiler.
    files
        Its C files, as `write_pipeline` gives them, where they are at hand.

    Attributes
    ----------
    ram_bytes
        Size of `pipeline_t` here.
    """

    def __init__(
        self,
        pipeline: FloatPipeline,
        flags: Sequence[str] = EXACT,
        files: Mapping[str, str] | None = None,
    ) -> None:
        self._pipeline = pipeline
        with tempfile.TemporaryDirectory(prefix="topokd-float-") as name:
            folder = Path(name)
            for file, text in {**(files or write_pipeline(pipeline)), "host.c": _SHIM}.items():
                (folder / file).write_text(text, "utf-8")
            out = folder / "pipeline.so"
            watched = ("-shared", "-fPIC", "-DPIPELINE_WATCHED")
            compile_c(folder, ("host.c", *pipeline.sources), out, (*watched, *flags))
            self._library = ctypes.CDLL(str(out))
        self.ram_bytes = int(self._library.host_size())

    def run(self, windows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Run raw windows, float32 (n, channels, length), to logits, float32 (n, classes)."""
        x = np.ascontiguousarray(np.moveaxis(windows, 1, 2), dtype=np.float32)
        out = np.empty((len(x), self._pipeline.classes), dtype=np.float32)
        pointers = [ctypes.c_void_p(array.ctypes.data) for array in (x, out)]
        status = self._library.host_classify(*pointers, ctypes.c_int32(len(x)))
        if status != 0:
            raise CheckFailedError(f"pipeline_classify answered {status}")
        return out

    def layers(self, window: npt.NDArray[np.float32]) -> tuple[list[int], bytes]:
        """Return the CRC-32 of every layer's output of a raw window, (channels, length), and its logits.

        Diagrams do not fill their place in memory: what is left of it is zero.
        """
        outputs = layer_outputs(self._pipeline)
        library = self._library
        library.host_arena.restype = ctypes.c_void_p
        arena = int(library.host_arena())
        found: list[int] = []

        def done(layer: int) -> None:
            if 0 <= layer < len(outputs):
                value, size = outputs[layer]
                found.append(zlib.crc32(ctypes.string_at(arena + 4 * value, size)))

        ctypes.memset(arena, 0, plan_floats(self._pipeline).arena_bytes)
        watcher = _WATCHER(done)
        library.host_watch(watcher)
        try:
            logits = self.run(window[np.newaxis])[0].tobytes()
        finally:
            library.host_watch(None)
        return [*found, zlib.crc32(logits)], logits
