"""A float pipeline on an emulated core: built, proven to give the bits of the same C here, counted."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from topokd_edge.errors import CheckFailedError
from topokd_export.c.cores import CORES
from topokd_export.c.cycles import cycles
from topokd_export.c.emulated import by_layer, run_firmware
from topokd_export.c.firmware import FLOAT_APP, Compiler, Firmware, build_firmware, compiler_version
from topokd_export.c.float_host import EXACT, HostPipeline
from topokd_export.c.float_plan import constant_bytes, float_ram_bytes, plan_floats
from topokd_export.c.float_writer import FloatPipeline, write_pipeline
from topokd_export.c.on_core import INPUT_NAME, Counts, Needs

TOLERANCE = 1e-4
"""How far logits may be from onnxruntime's, over the greatest of a window: sums are in another order."""
_GCC = ("-fno-tree-loop-distribute-patterns",)
"""Or it makes calls of memset out of loops, for which there is no library."""


class FloatOnCore:
    """A float pipeline for one core; see `StudentOnCore` for the int8 student.

    Parameters
    ----------
    pipeline
        Of `signal_pipeline` or `topology_pipeline`.
    core
        A key of `CORES` that Unicorn has.

    Attributes
    ----------
    needs
        Known before `build`.
    arena_bytes
        Part of it that holds activations.
    firmware, compiler
        Known after `build`.
    """

    def __init__(self, pipeline: FloatPipeline, core: str) -> None:
        plan = plan_floats(pipeline)
        self.pipeline = pipeline
        self.core = core
        self.needs = Needs(float_ram_bytes(pipeline, plan), constant_bytes(pipeline))
        self.arena_bytes = plan.arena_bytes
        self.flags: tuple[str, ...] = EXACT
        self.compiler = ""
        self.firmware: Firmware | None = None
        self._files = write_pipeline(pipeline)
        self._host: HostPipeline | None = None

    @property
    def kernel(self) -> str:
        """How it works with floats: `FPU` or `soft-float`."""
        return "FPU" if CORES[self.core].has_fpu else "soft-float"

    def build(self, compiler: Compiler = "zig") -> Firmware:
        """Build the firmware; see `build_firmware` for what it raises."""
        self.flags = (*EXACT, *(_GCC if compiler == "gcc" else ()))
        self.firmware = build_firmware(
            self._files,
            self.core,
            self.flags,
            program=FLOAT_APP,
            compiler=compiler,
            sources=self.pipeline.sources,
            fpu=True,
        )
        self.compiler = compiler_version(compiler)
        return self.firmware

    def prove(
        self, windows: npt.NDArray[np.float32], expected: npt.NDArray[np.float32], counted: int = 1
    ) -> Counts:
        """Compare logits with those of another runtime, and of the core bit by bit with the C here; count.

        Parameters
        ----------
        windows
            Raw, (n, channels, length).
        expected
            Logits by onnxruntime, (n, classes).
        counted
            How many of the windows are run on the core: in software a teacher takes half a minute for each.

        Raises
        ------
        CheckFailedError
            When a logit is farther off than `TOLERANCE`, or a bit of the core's differs.
        """
        logits = self._here().run(windows)
        refuse_far_logits(logits, expected)
        firmware = self.firmware or self.build()
        executions = []
        for index in range(counted):
            samples = np.moveaxis(windows[index], 0, 1)
            execution = run_firmware(firmware, samples, self.pipeline.classes, answer=np.float32)
            self._compare_bits(index, execution.logits, logits[index])
            executions.append(execution)
        spans = [cycles(execution, self.core) for execution in executions]
        totals = [execution.instructions for execution in executions]
        layers = by_layer(executions[0], riscv=CORES[self.core].is_riscv)
        names = (INPUT_NAME, *(layer.name for layer in self.pipeline.layers))
        return Counts(
            totals[0],
            (min(totals), max(totals)),
            tuple(zip(names, layers, strict=True)),
            (min(low for low, _ in spans), max(high for _, high in spans)),
            max(execution.stack_bytes for execution in executions),
            counted,
            len(windows),
        )

    def classify(self, windows: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        """Return the classes of raw windows, (n, channels, length), by the same C here: int64 (n,).

        It gives the core's bits, which `prove` has seen, and takes a thousandth of the time.
        """
        return np.asarray(self._here().run(windows).argmax(axis=1), dtype=np.int64)

    def _here(self) -> HostPipeline:
        if self._host is None:
            self._host = HostPipeline(self.pipeline, files=self._files)
        return self._host

    def _compare_bits(
        self, index: int, found: npt.NDArray[np.float32], wanted: npt.NDArray[np.float32]
    ) -> None:
        if found.tobytes() != wanted.tobytes():
            raise CheckFailedError(
                f"{self.core}: window {index}: logits {found.tolist()}, the same C gives "
                f"{wanted.tolist()} on this machine",
                hint="the compiler or the library of floats is at fault",
            )


def refuse_far_logits(logits: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> None:
    """Compare logits of the C with those of onnxruntime, (n, classes) each.

    Raises
    ------
    CheckFailedError
        When one is farther off than `TOLERANCE`.
    """
    scale = np.abs(expected).max(axis=1, keepdims=True)
    wrong = np.abs(logits - expected) > TOLERANCE * scale
    if not np.isfinite(logits).all() or wrong.any():
        index = int(np.flatnonzero((wrong | ~np.isfinite(logits)).any(axis=1))[0])
        raise CheckFailedError(
            f"window {index}: the C gives the logits {logits[index].tolist()}, onnxruntime "
            f"{expected[index].tolist()}: farther off than {TOLERANCE:g} of the greatest"
        )
