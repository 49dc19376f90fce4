"""How many cycles a core would take for the instructions it was seen to run: a range, by its maker's rules.

The rules hold for memory without wait states; what flash adds is a matter of the board.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from topokd_edge.errors import MissingError
from topokd_export.c.cores import CORES
from topokd_export.c.emulated import Block, Execution

Span = tuple[float, float]


@dataclass(frozen=True)
class Rules:
    """Cycles of kinds of instructions, (least, most); whatever is not named takes one.

    Attributes
    ----------
    load, store
        A single one that no other load or store follows.
    next_load
        One that another load or store follows: it overlaps with that one on some cores.
    multiply, multiply_add, long_multiply, long_add, divide
        Of 32-bit values; `long` gives 64 bits.
    jump
        What a taken branch takes beyond one cycle.
    condition
        Arm's `it`, which may be folded into the instruction before it.
    float_load
        Of one 32-bit float; another load or store behind it may overlap, as with integers, or not.
    float_fused, float_divide
        Multiply-accumulate, and division or square root, of 32-bit floats. Other arithmetic takes one.
    float_wait
        What arithmetic on floats takes longer when the next instruction needs its result.
    scale
        Of the whole, for cores of which there is no table: cycles against those of the Cortex-M4's.
    source
        Where the numbers are from.
    """

    source: str
    load: Span = (2, 2)
    next_load: Span = (1, 1)
    store: Span = (1, 2)
    multiply: Span = (1, 1)
    multiply_add: Span = (1, 1)
    long_multiply: Span = (1, 1)
    long_add: Span = (1, 1)
    divide: Span = (2, 12)
    jump: Span = (1, 3)
    condition: Span = (0, 1)
    float_load: Span = (2, 2)
    float_fused: Span = (3, 3)
    float_divide: Span = (14, 14)
    float_wait: Span = (1, 1)
    scale: Span = (1, 1)


_M4 = "Cortex-M4 TRM (Arm DDI 0439), table 3-1 and section 3.3.3"
_SAME_CODE = "; the same vendor's kernels on both, MLPerf Tiny image classification, cycles per product: "
RULES = {
    "cortex-m0plus": Rules(
        "Cortex-M0+ TRM (Arm DDI 0484), table 3-1, with the single-cycle multiplier",
        next_load=(2, 2), store=(2, 2), divide=(1, 1), jump=(1, 2), condition=(1, 1),
    ),
    "cortex-m3": Rules(
        "Cortex-M3 TRM (Arm DDI 0337), table 3-1",
        multiply_add=(2, 2), long_multiply=(3, 5), long_add=(4, 7),
    ),
    "cortex-m4": Rules(_M4),
    "cortex-m33": Rules(
        f"no table is published: {_M4}, times 0.80 to 0.90{_SAME_CODE}"
        "X-CUBE-AI 1.79/2.18 and 1.40/1.59, Plumerai 1.33/1.61",
        scale=(0.80, 0.90),
    ),
    "cortex-m7": Rules(
        f"no table is published: {_M4}, times 0.55 to 0.70{_SAME_CODE}"
        "X-CUBE-AI 1.22/2.18 and 0.92/1.59, Plumerai 1.09/1.61, Bosch 1.05/1.72",
        scale=(0.55, 0.70),
    ),
    "rv32imc": Rules(
        "an assumption, no table is published: single issue, a load stalls once at most, a taken branch "
        "costs one to two cycles more, the upper half of a product one more",
        load=(1, 2), next_load=(1, 2), store=(1, 1), long_multiply=(1, 2), divide=(2, 34), jump=(1, 2),
    ),
}  # fmt: skip
FLOAT_SOURCE = (
    "floats by table 7-1 of the same: VADD and VMUL 1, 1 more where the next instruction waits for it"
)
"""Where the cycles of a floating-point unit are from, on cores that have one."""
VECTOR_CORE_CPI: Span = (1.3, 2.0)
"""Cycles per instruction of the Cortex-M55."""
SOURCES = {
    **{core: rules.source for core, rules in RULES.items()},
    "cortex-m55": "an assumption, no table is published: 1.3 to 2 cycles an instruction, since 128-bit "
    "operations take two beats or more; counts are right to 31 instructions",
}
"""Where the cycles of each core are from."""

_KINDS = (
    ("many", re.compile(r"(ldm|stm|push|pop|vldm|vstm|vpush|vpop|ldrd|strd)")),
    ("float_load", re.compile(r"vldr")),
    ("float_fused", re.compile(r"vn?(mla|mls)|vfn?m[as]")),
    ("float_divide", re.compile(r"v(div|sqrt)")),
    ("float", re.compile(r"v(n?mul|add|sub|cvt)")),
    ("load", re.compile(r"(ldr|lb|lh|lw|c\.lw)")),
    ("store", re.compile(r"(str|sb$|sh$|sw$|c\.sw|vstr)")),
    ("condition", re.compile(r"it[te]{0,3}$")),
    ("long_add", re.compile(r"(smlal|umlal|umaal)")),
    ("long_multiply", re.compile(r"(smull|umull|mulh)")),
    ("multiply_add", re.compile(r"(mla|mls)")),
    ("multiply", re.compile(r"mul")),
    ("divide", re.compile(r"([su]?divu?$|sdiv|udiv|remu?$)")),
)


_MEMORY = ("load", "store", "float_load")
_ARITHMETIC = ("float", "float_fused", "float_divide")


def cycles(execution: Execution, core: str) -> Span:
    """Return the least and the most cycles of a counted run.

    Parameters
    ----------
    execution
        Of `run_firmware`.
    core
        A key of `RULES`.

    Raises
    ------
    MissingError
        When capstone, which reads the instructions, is not installed.
    """
    rules, reader = RULES[core], _reader(core)
    low = high = 0.0
    known: dict[bytes, Span] = {}
    for block, times in execution.blocks.items():
        if block.code not in known:
            known[block.code] = _block(list(_read(reader, block)), rules)
        jump = rules.jump if block.jumped else (0, 0)
        low += times * (known[block.code][0] + jump[0])
        high += times * (known[block.code][1] + jump[1])
    return low * rules.scale[0], high * rules.scale[1]


def _block(instructions: Sequence[tuple[str, str]], rules: Rules) -> Span:
    """Return the cycles of a straight piece of code."""
    kinds = [_kind(name) for name, _ in instructions]
    spans = []
    for index, kind in enumerate(kinds):
        following = kinds[index + 1] if index + 1 < len(kinds) else ""
        if kind == "many":
            name, operands = instructions[index]
            count = 2 if name.startswith(("ldrd", "strd")) else _registers(operands)
            count *= 2 if "{d" in operands else 1
            spans.append((1.0 + count, 1.0 + count))
        elif kind == "load" and following in _MEMORY:
            spans.append(rules.next_load)
        elif kind == "float_load" and following in _MEMORY:
            spans.append((1.0, rules.float_load[1]))
        elif kind in _ARITHMETIC:
            least, most = (1.0, 1.0) if kind == "float" else getattr(rules, kind)
            waits = index + 1 < len(kinds) and _needs(instructions[index][1], *instructions[index + 1])
            wait = rules.float_wait if waits else (0, 0)
            spans.append((least + wait[0], most + wait[1]))
        else:
            spans.append(getattr(rules, kind) if kind else (1.0, 1.0))
    return sum(low for low, _ in spans), sum(high for _, high in spans)


def _needs(operands: str, following: str, its: str) -> bool:
    """Whether an instruction reads the register that arithmetic on floats just before it writes.

    The addend of a multiply-accumulate is needed a cycle later, so that there is no waiting for it.
    """
    written, (first, *others) = operands.split(",")[0], its.replace(" ", "").split(",")
    stored = following.startswith(("vstr", "vcmp"))
    return written in others or (stored and written == first)


def _kind(name: str) -> str:
    return next((kind for kind, pattern in _KINDS if pattern.match(name)), "")


def _registers(operands: str) -> int:
    """Count a list such as `r0!, {r1, r4-r7, lr}`."""
    inside = operands[operands.find("{") + 1 : operands.find("}")]
    count = 0
    for part in (part.strip() for part in inside.split(",")):
        first, _, last = part.partition("-")
        count += int(last[1:]) - int(first[1:]) + 1 if last else 1
    return count


def _reader(core: str) -> Any:
    try:
        import capstone
    except ModuleNotFoundError:
        raise MissingError(
            "modelling cycles needs the package capstone", hint="pip install 'topokd-edge[mcu]'"
        ) from None
    if CORES[core].is_riscv:
        return capstone.Cs(capstone.CS_ARCH_RISCV, capstone.CS_MODE_RISCV32 | capstone.CS_MODE_RISCVC)
    return capstone.Cs(capstone.CS_ARCH_ARM, capstone.CS_MODE_THUMB | capstone.CS_MODE_MCLASS)


def _read(reader: Any, block: Block) -> Iterator[tuple[str, str]]:
    """Yield (name, operands) of every instruction.

    Raises
    ------
    ValueError
        When some of the code is not understood.
    """
    done = 0
    for _, size, name, operands in reader.disasm_lite(block.code, block.address):
        done += size
        yield name, operands
    if done != len(block.code):
        raise ValueError(f"{block.code[done:].hex()} at {block.address + done:#x}: not an instruction known")
