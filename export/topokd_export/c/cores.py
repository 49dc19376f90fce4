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
    fpu_zig, fpu_gcc
        Flags that choose the core with its floating-point unit for 32-bit floats, for code whose work is in
        floats; empty where the boards of that core have none.
    """

    name: str
    kernel: str
    zig: tuple[str, ...]
    gcc: tuple[str, ...]
    emulator: str
    fpu_zig: tuple[str, ...] = ()
    fpu_gcc: tuple[str, ...] = ()

    @property
    def has_fpu(self) -> bool:
        """Whether code whose work is in floats is built for a floating-point unit."""
        return bool(self.fpu_zig)

    @property
    def is_riscv(self) -> bool:
        """Whether it is a RISC-V core; the others are Arm's."""
        return self.name.startswith("rv32")


def _arm(
    name: str,
    kernel: str,
    emulator: str,
    *,
    extension: str = "",
    abi: str = "eabi",
    fpu: tuple[str, str] = ("", ""),
) -> Core:
    """Describe an Arm core; `fpu` is what zig and gcc call its floating-point unit."""
    zig = f"-mcpu={name.replace('-', '_')}{extension}"
    chosen = (f"-mcpu={name}", "-mthumb")
    hard = ("-target", "thumb-freestanding-eabihf", zig + fpu[0])
    return Core(
        name,
        kernel,
        hard if abi == "eabihf" else ("-target", f"thumb-freestanding-{abi}", zig),
        (*chosen, f"-mfloat-abi={'hard' if abi == 'eabihf' else 'soft'}"),
        emulator,
        hard if fpu[1] else (),
        (*chosen, "-mfloat-abi=hard", f"-mfpu={fpu[1]}") if fpu[1] else (),
    )


CORES = {
    core.name: core
    for core in (
        _arm("cortex-m0plus", "BLK", "UC_CPU_ARM_CORTEX_M0"),
        _arm("cortex-m3", "BLK", "UC_CPU_ARM_CORTEX_M3"),
        _arm("cortex-m4", "SMLAD", "UC_CPU_ARM_CORTEX_M4", fpu=("+vfp4d16sp", "fpv4-sp-d16")),
        _arm("cortex-m7", "SMLAD", "UC_CPU_ARM_CORTEX_M7", fpu=("+fp_armv8d16sp", "fpv5-sp-d16")),
        _arm(
            "cortex-m33",
            "SMLAD",
            "UC_CPU_ARM_CORTEX_M33",
            extension="+dsp",
            fpu=("+fp_armv8d16sp", "fpv5-sp-d16"),
        ),
        _arm("cortex-m55", "MVE", "", extension="+mve_fp", abi="eabihf", fpu=("", "auto")),
        Core(
            "rv32imc",
            "BLK",
            ("-target", "riscv32-freestanding", "-mcpu=generic_rv32+m+c"),
            (),
            "UC_CPU_RISCV32_ANY",
        ),
    )
}
"""The int8 student's few floats are in software except on the M55: so a count holds with and without an FPU.
Float pipelines are built for the FPU where the boards of a core have one: M4, M7, M33, M55."""
