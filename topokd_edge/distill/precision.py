"""In which numbers a network computes while it learns: float32, or bfloat16 where that is fast."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

Precision = Literal["float32", "bfloat16"]
"""`bfloat16` is what convolutions, their normalisation and activations compute in while a network learns.
Weights, optimiser, logits and losses stay float32, and so does every answer of a trained network."""

_CPU_INFO = Path("/proc/cpuinfo")
_FAST = frozenset({"avx512_bf16", "amx_bf16"})
"""Instructions of a CPU, as /proc/cpuinfo spells them, without which bfloat16 is slower than float32."""


def usable(asked: Precision, device: torch.device) -> Precision:
    """Return the precision that a device computes fast in: what is asked for, or else float32."""
    return asked if asked == "float32" or fast_bfloat16(device) else "float32"


def fast_bfloat16(device: torch.device) -> bool:
    """Return whether a device has bfloat16 arithmetic of its own; of CPUs only x86 on Linux is known to."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    try:
        return bool(_FAST & {*_CPU_INFO.read_text("utf-8").split()})
    except OSError:
        return False
