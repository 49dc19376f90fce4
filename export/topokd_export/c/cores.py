"""The cores a student is built for and run on without the hardware."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Core:
    """A core, and what compilers and emulators call it.

    Attributes
    ----------
    name
        As users write it, e.g. `cortex-m4`.
    kernel
        Which of the C kernels is the best on it: `BLK`, `SMLAD` or `MVE`.
    zig, gcc
        Flags that choose the core; `gcc` is empty where arm-none-eabi-gcc does not know it.
    emulator
        Unicorn's constant of the processor; empty where only QEMU has it.
    """

    name: str
    kernel: str
    zig: tuple[str, ...]
    gcc: tuple[str, ...]
    emulator: str

    @property
    def is_riscv(self) -> bool:
        """Whether it is a RISC-V core; the others are Arm's."""
        return self.name.startswith("rv32")


def _arm(name: str, kernel: str, emulator: str, *, extension: str = "", abi: str = "eabi") -> Core:
    zig = ("-target", f"thumb-freestanding-{abi}", f"-mcpu={name.replace('-', '_')}{extension}")
    float_abi = "hard" if abi == "eabihf" else "soft"
    return Core(name, kernel, zig, (f"-mcpu={name}", "-mthumb", f"-mfloat-abi={float_abi}"), emulator)


CORES = {
    core.name: core
    for core in (
        _arm("cortex-m0plus", "BLK", "UC_CPU_ARM_CORTEX_M0"),
        _arm("cortex-m3", "BLK", "UC_CPU_ARM_CORTEX_M3"),
        _arm("cortex-m4", "SMLAD", "UC_CPU_ARM_CORTEX_M4"),
        _arm("cortex-m7", "SMLAD", "UC_CPU_ARM_CORTEX_M7"),
        _arm("cortex-m33", "SMLAD", "UC_CPU_ARM_CORTEX_M33", extension="+dsp"),
        _arm("cortex-m55", "MVE", "", extension="+mve_fp", abi="eabihf"),
        Core(
            "rv32imc",
            "BLK",
            ("-target", "riscv32-freestanding", "-mcpu=generic_rv32+m+c"),
            (),
            "UC_CPU_RISCV32_ANY",
        ),
    )
}
"""Floating point is in software except on the M55: a count then holds with and without an FPU."""
