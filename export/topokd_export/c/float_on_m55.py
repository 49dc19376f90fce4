"""A float pipeline on a Cortex-M55, in QEMU: as on other cores, with counts right to a SysTick."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from topokd_export.c.cores import CORES
from topokd_export.c.firmware import Compiler, Firmware
from topokd_export.c.float_on_core import FloatOnCore, refuse_far_logits
from topokd_export.c.float_writer import FloatPipeline
from topokd_export.c.on_core import Counts
from topokd_export.c.on_m55 import counts_of
from topokd_export.c.qemu import build_pipeline_for_qemu, require_qemu, run_in_qemu


class FloatOnM55(FloatOnCore):
    """A float pipeline for the Cortex-M55; see `FloatOnCore`."""

    _elf = b""

    def build(self, compiler: Compiler = "zig") -> Firmware:
        """Build the firmware, and beside it the program that QEMU runs.

        Raises
        ------
        MissingError
            When QEMU or the compiler is not installed.
        CheckFailedError
            When the C does not compile.
        """
        require_qemu()
        firmware = super().build(compiler)
        self._elf = build_pipeline_for_qemu(
            self._files, self.pipeline.sources, self.core, self.flags, compiler
        )
        return firmware

    def prove(
        self, windows: npt.NDArray[np.float32], expected: npt.NDArray[np.float32], counted: int = 1
    ) -> Counts:
        """Compare logits and count; see `FloatOnCore.prove`."""
        logits = self._here().run(windows)
        refuse_far_logits(logits, expected)
        if not self._elf:
            self.build()
        found = run_in_qemu(
            self._elf,
            np.moveaxis(windows[:counted], 1, 2),
            core=self.core,
            layers=len(self.pipeline.layers),
            classes=self.pipeline.classes,
            answer=np.float32,
        )
        for index, one in enumerate(found):
            self._compare_bits(index, one.logits, logits[index])
        return counts_of(found, [layer.name for layer in self.pipeline.layers], len(windows))


def pipeline_on(pipeline: FloatPipeline, core: str) -> FloatOnCore:
    """Return a float pipeline for any core of `CORES`."""
    return (FloatOnCore if CORES[core].emulator else FloatOnM55)(pipeline, core)
