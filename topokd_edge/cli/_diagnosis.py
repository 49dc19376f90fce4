"""What the state of an installation means: what keeps it from working, and the command that mends it."""

from __future__ import annotations

import os
import platform
import tempfile
from pathlib import Path

from topokd_edge.cli._installed import BASE, Package, installed_version, satisfies, try_import

_TORCH = """
import torch
from topokd_edge.distill.precision import fast_bfloat16
cuda = torch.cuda.is_available()
speed = "fast" if fast_bfloat16(torch.device("cuda" if cuda else "cpu")) else "no fast"
print(f"{torch.cuda.get_device_name(0) if cuda else 'cpu'} ({speed} bfloat16)")
"""
_RUNTIMES = {
    "onnxruntime": "from topokd_edge.runtime import import_onnxruntime as load; load()",
    "ai-edge-litert": "import ai_edge_litert.interpreter",
    "tflite-runtime": "import tflite_runtime.interpreter",
}


def try_runtimes() -> dict[str, tuple[bool, str]]:
    """Import each installed runtime of model files in a child: whether it worked, and what it said."""
    return {name: try_import(code) for name, code in _RUNTIMES.items() if installed_version(name)}


def torch_device() -> str | None:
    """Return what torch would train on, or its error; None without torch."""
    return try_import(_TORCH)[1] if installed_version("torch") else None


def needed(packages: list[Package]) -> list[str]:
    """Return what keeps every verb from working."""
    problems = [
        f"{item.name} {item.wanted}: {item.state} {item.found}".rstrip() + "; pip install topokd-edge"
        for item in packages
        if item.extra == BASE and item.state != "ok"
    ]
    for purpose, folder in (("results", Path.cwd()), ("temporary files", Path(tempfile.gettempdir()))):
        if not os.access(folder, os.W_OK):
            problems.append(f"{folder}: {purpose} cannot be written there; choose a folder that is yours")
    return problems


def missing_extras(packages: list[Package]) -> list[str]:
    """Return one command for each extra that is not complete."""
    advice = []
    for extra in dict.fromkeys(item.extra for item in packages if item.extra != BASE):
        lacking = [item.name for item in packages if item.extra == extra and item.state != "ok"]
        if lacking:
            command = f"pip install 'topokd-edge[{extra}]'"
            advice.append(f"{extra} is not complete ({', '.join(lacking)}): {command}")
    return advice


def runtime_advice(runtimes: dict[str, tuple[bool, str]]) -> list[str]:
    """Return what to do about the runtimes of model files: each has platforms it is not made for."""
    advice = [f"{name} does not work here: {said}" for name, (works, said) in runtimes.items() if not works]
    if "tflite-runtime" in runtimes and not satisfies(installed_version("numpy"), "<2"):
        advice.append(
            "tflite-runtime was built for numpy 1 and fails with the installed numpy 2: "
            "pip install ai-edge-litert, or where that has no wheel: pip install 'numpy<2'"
        )
    if platform.machine() == "armv7l" and "tflite-runtime" not in runtimes:
        advice.append(
            "32-bit Arm: neither ai-edge-litert nor onnxruntime has a wheel; with Python 3.11 use "
            "pip install tflite-runtime 'numpy<2'"
        )
    return advice
