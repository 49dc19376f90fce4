"""Compiling a float pipeline on this machine and running it: the answers of a core, whatever the core."""

from __future__ import annotations

import ctypes
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from topokd_edge.errors import CheckFailedError
from topokd_export.c.float_writer import FloatPipeline, write_pipeline
from topokd_export.c.host import compile_c

EXACT = ("-O2", "-ffp-contract=off")
"""Every product is rounded before it is added, so that every machine gives the same bits."""
_SHIM = """#include "pipeline.h"
static pipeline_t pipeline;
uint32_t host_size(void);
int32_t host_classify(const float *in, float *out, int32_t windows);
uint32_t host_size(void) { return (uint32_t)sizeof(pipeline_t); }
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
            compile_c(folder, ("host.c", *pipeline.sources), out, ("-shared", "-fPIC", *flags))
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
