"""The student of a bundle on a Cortex-M55, in QEMU: as on other cores, with counts right to a SysTick."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from topokd_edge.bundle import quantise_input
from topokd_export.c.cores import CORES
from topokd_export.c.cycles import VECTOR_CORE_CPI
from topokd_export.c.firmware import Compiler, Firmware
from topokd_export.c.on_core import INPUT_NAME, Counts, StudentOnCore, raw_samples, reference
from topokd_export.c.qemu import Found, build_for_qemu, require_qemu, run_in_qemu
from topokd_export.c.writer import AppNumbers, write_c
from topokd_export.deploy import Array


class StudentOnM55(StudentOnCore):
    """An int8 student for the Cortex-M55; see `StudentOnCore`."""

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
        self._elf = build_for_qemu(write_c(self.graph, self.app, None), self.core, self.flags, compiler)
        return super().build(compiler)

    def prove(self, x: Array) -> Counts:
        """Run self-test windows, compare every layer of each, and count; see `StudentOnCore.prove`."""
        levels = quantise_input(np.moveaxis(x, 1, 2), self.graph.input.scale, self.graph.input.zero_point)
        samples = np.stack([raw_samples(window, self.graph, self.app.normalisation) for window in levels])
        found = self._run_all(samples)
        for index, (one, (checksums, _)) in enumerate(
            zip(found, reference(self.graph, self.app, levels), strict=True)
        ):
            self._compare(index, one.checksums, checksums)
        return counts_of(found, [layer.name for layer in self.graph.layers], len(found))

    def classify(self, windows: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        """Return the classes of raw windows, (n, channels, length), as the core finds them: int64 (n,)."""
        found = self._run_all(np.moveaxis(windows, 1, 2))
        return np.array([int(one.logits.argmax()) for one in found], dtype=np.int64)

    def _run_all(self, samples: npt.NDArray[np.float32]) -> list[Found]:
        if not self._elf:
            self.build()
        return run_in_qemu(
            self._elf,
            samples,
            core=self.core,
            layers=len(self.graph.layers),
            classes=self.graph.output.channels,
        )


def counts_of(found: Sequence[Found], layers: Sequence[str], proven: int) -> Counts:
    """Return what QEMU counted, with cycles of the Cortex-M55.

    Parameters
    ----------
    found
        Of each window that was counted.
    layers
        Their names, in the order they run.
    proven
        Windows that gave what they should.
    """
    totals = [one.instructions for one in found]
    each = found[0].layer_instructions
    low, high = VECTOR_CORE_CPI
    return Counts(
        totals[0],
        (min(totals), max(totals)),
        tuple(zip((INPUT_NAME, *layers), (totals[0] - sum(each), *each), strict=True)),
        (low * min(totals), high * max(totals)),
        max(one.stack_bytes for one in found),
        len(found),
        proven,
    )


def student_on(tflite: bytes, app: AppNumbers, core: str) -> StudentOnCore:
    """Return a student for any core of `CORES`."""
    kind = StudentOnCore if CORES[core].emulator else StudentOnM55
    return kind(tflite, app, core)
