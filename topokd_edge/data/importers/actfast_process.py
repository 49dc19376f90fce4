"""Reads device files with the package actfast, in a process of its own.

actfast holds a whole file in memory, and its native code ends the process, or loops, on some damaged files.
The process has limits of memory and processor time and sends what it read through a pipe, block by block.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from topokd_edge.data.stream import CHUNK_SAMPLES
from topokd_edge.errors import BadInputError, MissingError
from topokd_edge.memory import free_memory

BYTES_PER_SAMPLE = 64
"""Memory actfast takes at most for a sample: time and six values, and a copy of each."""
BASE_BYTES = 6 << 30
"""Address space of the process besides; actfast reserves 4 GB without touching them."""
BASE_SECONDS = 30
SECONDS_PER_MEGABYTE = 1.0
"""Processor time the process and a megabyte of its file may take; about a hundred times what a sound file
takes."""
SCRIPT = Path(__file__).with_name("actfast_child.py")
HINT = "copy the file from the device again, or export it as CSV with the maker's software"


@dataclass(frozen=True, slots=True)
class Parsed:
    """What actfast says of a file; the samples follow through the pipe.

    Attributes
    ----------
    metadata
        By category, as actfast gives it.
    warnings
        What it left out.
    whole
        The small arrays asked for, by name.
    blocks
        The large arrays asked for, those that are there, in turn: tuples of the next rows of each.
    names
        Which large arrays are there.
    rows
        Their common length.
    """

    metadata: dict[str, dict[str, str]]
    warnings: tuple[str, ...]
    whole: dict[str, npt.NDArray[Any]]
    blocks: Iterator[tuple[npt.NDArray[Any], ...]]
    names: tuple[str, ...]
    rows: int


def need_actfast() -> None:
    """Raise MissingError when the package actfast is not installed."""
    if find_spec("actfast") is None:
        raise MissingError(
            "package actfast: not installed; it reads the files of Axivity and ActiGraph devices",
            hint="pip install 'topokd-edge[devices]'",
        )


@contextmanager
def parsed(path: Path, samples: int, whole: tuple[str, ...], rows: tuple[str, ...]) -> Iterator[Parsed]:
    """Read a file in another process, which ends with the block.

    Parameters
    ----------
    path
        The file.
    samples
        How many samples it holds; bounds the memory.
    whole
        Arrays to give whole, each `table/column` as actfast names them.
    rows
        Arrays to give block by block.

    Raises
    ------
    BadInputError
        When actfast refuses the file, or does not survive it.
    MissingError
        When actfast is not installed, or memory for the file is not available.
    """
    need_actfast()
    memory = samples * BYTES_PER_SAMPLE
    free = free_memory()
    if memory > free:
        raise MissingError(
            f"{path}: reading {samples} samples takes {memory >> 20} MiB of memory, {free >> 20} are free",
            hint="end other programs, or use a machine with more memory",
        )
    seconds = BASE_SECONDS + int(path.stat().st_size / 2**20 * SECONDS_PER_MEGABYTE)
    question = {
        "path": str(path),
        "whole": whole,
        "rows": rows,
        "chunk": CHUNK_SAMPLES,
        "bytes": BASE_BYTES + memory,
        "seconds": seconds,
    }
    process = subprocess.Popen(
        [sys.executable, "-P", str(SCRIPT), json.dumps(question)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        yield _answer(path, process, process.stdout)
    finally:
        process.kill()
        process.stdout.close()
        process.wait()


def _answer(path: Path, process: subprocess.Popen[bytes], pipe: IO[bytes]) -> Parsed:
    line = pipe.readline()
    if not line.endswith(b"\n"):
        raise BadInputError(
            f"{path}: the reader of the package actfast ended with status {process.wait()}; "
            "the file is damaged, or memory ran out",
            hint=HINT,
        )
    head = json.loads(line)
    if "error" in head:
        raise BadInputError(f"{path}: the package actfast cannot read it: {head['error']}", hint=HINT)

    def take(kind: str, shape: list[int]) -> npt.NDArray[Any]:
        dtype = np.dtype(kind)
        size = dtype.itemsize * int(np.prod(shape))
        data = pipe.read(size)
        if len(data) != size:
            raise BadInputError(f"{path}: the reader of the package actfast ended early", hint=HINT)
        return np.frombuffer(data, dtype=dtype).reshape(shape)

    def blocks() -> Iterator[tuple[npt.NDArray[Any], ...]]:
        for start in range(0, head["length"], CHUNK_SAMPLES):
            n = min(CHUNK_SAMPLES, head["length"] - start)
            yield tuple(take(kind, [n, *shape[1:]]) for _, kind, shape in head["rows"])

    return Parsed(
        metadata=head["metadata"],
        warnings=tuple(head["warnings"]),
        whole={name: take(kind, shape) for name, kind, shape in head["whole"]},
        blocks=blocks(),
        names=tuple(name for name, _, _ in head["rows"]),
        rows=head["length"],
    )
