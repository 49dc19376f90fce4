"""Compiling the C student on this machine and running it, so that what is shipped is what is checked."""

from __future__ import annotations

import ctypes
import importlib.util
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from topokd_edge.errors import CheckFailedError, MissingError

SOURCES = ("student.c", "topokd_kernels.c")
WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wconversion", "-pedantic")
_SHIM = """#include "student.h"
student_t host_student;
uint32_t host_size(void);
int32_t host_invoke(const int8_t *in, int8_t *out, int32_t windows);
uint32_t host_size(void) { return (uint32_t)sizeof(student_t); }
int32_t host_invoke(const int8_t *in, int8_t *out, int32_t windows)
{
    int32_t i;
    int32_t status = 0;
    for (i = 0; (i < windows) && (status == 0); i++) {
        status = (int32_t)student_invoke(&host_student, &in[i * STUDENT_LENGTH * STUDENT_CHANNELS],
                                         &out[i * STUDENT_CLASSES]);
    }
    return status;
}
"""


def find_compiler() -> list[str]:
    """Return the command of a C compiler: cc, gcc or clang of this machine, else that of ziglang.

    Raises
    ------
    MissingError
        When there is none.
    """
    for name in ("cc", "gcc", "clang"):
        found = shutil.which(name)
        if found:
            return [found]
    if importlib.util.find_spec("ziglang") is not None:
        return [sys.executable, "-m", "ziglang", "cc"]
    raise MissingError(
        "checking the C needs a C compiler", hint="pip install 'topokd-edge[c]', or install gcc"
    )


def compile_c(folder: Path, sources: Sequence[str], out: Path, flags: Sequence[str] = ()) -> None:
    """Compile C99 files of a folder into `out`, every warning an error.

    Raises
    ------
    CheckFailedError
        With what the compiler said.
    """
    command = [*find_compiler(), "-std=c99", *WARNINGS, *flags, *sources, "-o", str(out)]
    child = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if child.returncode != 0:
        raise CheckFailedError(
            f"the C does not compile with {command[0]}", problems=child.stderr.strip().splitlines()[:20]
        )


class HostStudent:
    """The C student as a shared library of this machine.

    Parameters
    ----------
    files
        The C files by name.
    classes
        Number of logits.
    flags
        More flags for the compiler, such as `-DTK_KERNEL=TK_KERNEL_REF`.

    Attributes
    ----------
    ram_bytes
        Size of `student_t` here, all the memory the student has.
    library
        The library itself; a student of its own lies at `student`.
    """

    def __init__(self, files: Mapping[str, str], classes: int, flags: Sequence[str] = ("-O2",)) -> None:
        with tempfile.TemporaryDirectory(prefix="topokd-c-") as name:
            folder = Path(name)
            for file, text in {**files, "host.c": _SHIM}.items():
                (folder / file).write_text(text, "utf-8")
            compile_c(folder, ("host.c", *SOURCES), folder / "student.so", ("-shared", "-fPIC", *flags))
            self.library = ctypes.CDLL(str(folder / "student.so"))
        self._classes = classes
        self.ram_bytes = int(self.library.host_size())
        self.student = ctypes.addressof((ctypes.c_char * self.ram_bytes).in_dll(self.library, "host_student"))

    def invoke(self, windows: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
        """Run quantised windows, int8 (n, length, channels), to quantised logits, int8 (n, classes)."""
        x = np.ascontiguousarray(windows, dtype=np.int8)
        out = np.empty((len(x), self._classes), dtype=np.int8)
        pointers = [ctypes.c_void_p(array.ctypes.data) for array in (x, out)]
        status = self.library.host_invoke(*pointers, ctypes.c_int32(len(x)))
        if status != 0:
            raise CheckFailedError(f"student_invoke answered {status}")
        return out
