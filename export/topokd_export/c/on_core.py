"""The student of a bundle on an emulated core: built, proven layer by layer, counted, asked for answers."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from topokd_edge.bundle import CheckFailedError, Normalisation, dequantise, quantise_input
from topokd_export.c.arena import plan_arena
from topokd_export.c.cores import CORES
from topokd_export.c.cycles import Span, cycles
from topokd_export.c.emulated import Execution, by_layer, run_firmware
from topokd_export.c.firmware import APP, FLAGS, Compiler, Firmware, build_firmware, compiler_version
from topokd_export.c.host import HostStudent
from topokd_export.c.integer_graph import IntegerGraph
from topokd_export.c.tflite_reader import read_integer_graph
from topokd_export.c.writer import AppNumbers, ram_bytes, weight_bytes, write_c
from topokd_export.deploy import Array

INPUT_NAME = "input"
"""What stands before the first layer in a list of layers: normalising, quantising, keeping samples."""
COUNTED = 3
"""Self-test windows that are counted: the numbers of different windows differ a little."""


@dataclass(frozen=True)
class Needs:
    """Bytes that are known before anything is built.

    Attributes
    ----------
    ram_bytes
        All memory of a student; the stack comes on top.
    flash_bytes
        Its weights; code, biases and tables come on top.
    """

    ram_bytes: int
    flash_bytes: int


@dataclass(frozen=True)
class Counts:
    """What a proven run on a core came to.

    Attributes
    ----------
    instructions
        From raw samples to logits, of the first self-test window.
    instructions_range
        (fewest, most) over the windows that were counted.
    layers
        (name, instructions) of the first window; the first entry is `INPUT_NAME`.
    cycles
        (least, most) without wait states, by the rules of the core, over the counted windows.
    stack_bytes
        The deepest the stack has been.
    windows, proven
        Windows counted, and self-test windows that gave every bit they should.
    """

    instructions: int
    instructions_range: tuple[int, int]
    layers: tuple[tuple[str, int], ...]
    cycles: Span
    stack_bytes: int
    windows: int
    proven: int


class StudentOnCore:
    """An int8 student for one core.

    Parameters
    ----------
    tflite
        Content of the int8 TFLite file.
    app
        What the app must know.
    core
        A key of `CORES` that Unicorn has.

    Attributes
    ----------
    needs
        Known before `build`.
    firmware, compiler
        Known after it.
    """

    def __init__(self, tflite: bytes, app: AppNumbers, core: str) -> None:
        self.graph = read_integer_graph(tflite)
        self.core = core
        self.app = app
        self._plan = plan_arena(self.graph)
        value_bytes = 2 if self.kernel == "SMLAD" else 1
        self.needs = Needs(
            ram_bytes(self.graph, self._plan, value_bytes=value_bytes), weight_bytes(self.graph)
        )
        self.arena_bytes = self._plan.arena_bytes
        self.flags: tuple[str, ...] = (*FLAGS, f"-DTK_KERNEL=TK_KERNEL_{self.kernel}")
        self.compiler = ""
        self.firmware: Firmware | None = None

    @property
    def kernel(self) -> str:
        """The kernels it is built with."""
        return CORES[self.core].kernel

    def build(self, compiler: Compiler = "zig") -> Firmware:
        """Build the firmware; see `build_firmware` for what it raises."""
        files = write_c(self.graph, self.app, None)
        self.firmware = build_firmware(files, self.core, self.flags, program=APP, compiler=compiler)
        self.compiler = compiler_version(compiler)
        return self.firmware

    def prove(self, x: Array) -> Counts:
        """Run self-test windows, compare every layer with the plain kernels on this machine, and count.

        Parameters
        ----------
        x
            Normalised windows, (n, channels, length).

        Raises
        ------
        CheckFailedError
            When a byte differs; the first layer that does is named.
        """
        levels = quantise_input(np.moveaxis(x, 1, 2), self.graph.input.scale, self.graph.input.zero_point)
        expected = reference(self.graph, self.app, levels)
        counted = []
        for index, window in enumerate(levels):
            watched = index < COUNTED
            execution = self._run(raw_samples(window, self.graph, self.app.normalisation), watched=watched)
            checksums, logits = expected[index]
            found = [*map(checksum, execution.outputs), checksum(execution.logits.tobytes())]
            if not watched:
                checksums = [checksum(logits)]
            self._compare(index, found, checksums)
            counted += [execution] if watched else []
        return self._counts(counted, len(levels))

    def classify(self, windows: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        """Return the classes of raw windows, (n, channels, length), as the core finds them: int64 (n,)."""
        samples = np.moveaxis(windows, 1, 2)
        return np.array([int(self._run(window).logits.argmax()) for window in samples], dtype=np.int64)

    def _run(self, samples: npt.NDArray[np.float32], *, watched: bool = False) -> Execution:
        firmware = self.firmware or self.build()
        watch = [(self._plan.offsets[item.output.name], item.output.bytes) for item in self.graph.layers[:-1]]
        classes = self.graph.output.channels
        return run_firmware(firmware, samples, classes, count=watched, watch=watch if watched else ())

    def _compare(self, index: int, found: Sequence[int], wanted: Sequence[int]) -> None:
        """Compare the checksums of all layers, or of the last one alone."""
        names = [layer.name for layer in self.graph.layers][-len(wanted) :]
        for name, got, want in zip(names, found, wanted, strict=True):
            if got != want:
                raise CheckFailedError(
                    f"{self.core}: self-test window {index} goes wrong at {name}: checksum {got:#010x}, "
                    f"expected {want:#010x}",
                    hint="export the bundle again; if it stays, the compiler or the kernel is at fault",
                )

    def _counts(self, counted: Sequence[Execution], proven: int) -> Counts:
        spans = [cycles(execution, self.core) for execution in counted]
        totals = [execution.instructions for execution in counted]
        layers = by_layer(counted[0], riscv=CORES[self.core].is_riscv)
        names = [INPUT_NAME, *(layer.name for layer in self.graph.layers)]
        return Counts(
            totals[0],
            (min(totals), max(totals)),
            tuple(zip(names, layers, strict=True)),
            (min(low for low, _ in spans), max(high for _, high in spans)),
            max(execution.stack_bytes for execution in counted),
            len(counted),
            proven,
        )


def checksum(content: bytes) -> int:
    """Return the 32-bit FNV-1a hash that `tk_checksum` gives."""
    value = 2166136261
    for byte in content:
        value = (value ^ byte) * 16777619 & 0xFFFFFFFF
    return value


def raw_samples(
    levels: npt.NDArray[np.int8], graph: IntegerGraph, normalisation: Normalisation
) -> npt.NDArray[np.float32]:
    """Return samples with these quantised values: of each level its middle, so that no rounding moves it."""
    std, mean = (np.array(values, np.float32) for values in (normalisation.std, normalisation.mean))
    values = dequantise(levels, graph.input.scale, graph.input.zero_point) * std + mean
    return np.asarray(values, dtype=np.float32)


def reference(
    graph: IntegerGraph, app: AppNumbers, levels: npt.NDArray[np.int8]
) -> list[tuple[list[int], bytes]]:
    """Return the checksum of every layer and the logits, by the plain kernels compiled here."""
    flags = ("-O2", "-DSTUDENT_DEBUG", "-DTK_KERNEL=TK_KERNEL_REF")
    host = HostStudent(write_c(graph, app, None), graph.output.channels, flags)
    ask = host.library.student_layer_checksum
    ask.restype = ctypes.c_uint32
    found = []
    for window in levels:
        logits = host.invoke(window[None])[0].tobytes()
        sums = [ask(ctypes.c_void_p(host.student), ctypes.c_int32(i)) for i in range(len(graph.layers))]
        found.append((sums, logits))
    return found
