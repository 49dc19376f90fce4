"""Counting pieces of code on an emulated core by a hook in C: in Python it would take longer than the core.

Of a float pipeline in software the core runs some hundred million pieces a window.
"""

from __future__ import annotations

import ctypes
import functools
import tempfile
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from topokd_edge.errors import CheckFailedError
from topokd_export.c.host import compile_c

_MOST_KERNELS = 16
_HEAD = np.dtype([("kernels", "<u4", _MOST_KERNELS), ("state", "<u4", 4)])
_PIECE = np.dtype(
    [("times", "<u8"), ("address", "<u4"), ("size", "<u4"), ("layer", "<u4"), ("jumped", "<u4")]
)
_FULL = 3


class Counter:
    """What one run of a core comes to; see `emulation/counter.c`.

    Parameters
    ----------
    core
        A Unicorn machine, which counts from now on.
    kernels
        Where the functions begin of which each call is a layer.
    """

    def __init__(self, core: Any, kernels: Iterable[int]) -> None:
        from unicorn import UC_HOOK_BLOCK, UcError
        from unicorn.unicorn_py3 import unicorn

        library = _library()
        self._memory = np.zeros(int(library.counter_size()), dtype=np.uint8)
        starts = sorted(kernels)
        head = self._memory[: _HEAD.itemsize].view(_HEAD)
        head["kernels"][0, : len(starts)] = starts
        # Unicorn's Python takes functions of Python alone; its C takes any.
        status = unicorn.uclib.uc_hook_add(
            core._uch,
            ctypes.byref(ctypes.c_size_t()),
            UC_HOOK_BLOCK,
            ctypes.cast(library.counter_seen, ctypes.c_void_p),
            ctypes.c_void_p(self._memory.ctypes.data),
            ctypes.c_uint64(1),
            ctypes.c_uint64(0),
        )
        if status != 0:
            raise UcError(status)

    def pieces(self) -> npt.NDArray[Any]:
        """Return times, address, size, layer, and 1 for jumped to, of every piece of code that was run.

        Raises
        ------
        CheckFailedError
            When there were more of them than there is room for.
        """
        head = self._memory[: _HEAD.itemsize].view(_HEAD)
        if head["state"][0, _FULL]:
            raise CheckFailedError("the program has more pieces of code than can be counted")
        found = self._memory[_HEAD.itemsize :].view(_PIECE)
        return found[found["times"] > 0]


@functools.cache
def _library() -> ctypes.CDLL:
    source = (resources.files("topokd_export.c") / "emulation" / "counter.c").read_text("utf-8")
    with tempfile.TemporaryDirectory(prefix="topokd-counter-") as name:
        folder = Path(name)
        (folder / "counter.c").write_text(source, "utf-8")
        compile_c(folder, ("counter.c",), folder / "counter.so", ("-O2", "-shared", "-fPIC"))
        return ctypes.CDLL(str(folder / "counter.so"))
