"""Instructions of the C student on emulated cores; arguments such as cortex-m4:SMLAD choose among them.

The student has random weights: what is counted does not depend on them. Needs ziglang and unicorn.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import torch
from topokd_export.c.arena import plan_arena
from topokd_export.c.emulated import run_firmware
from topokd_export.c.firmware import build_firmware
from topokd_export.c.integer_graph import Conv
from topokd_export.c.tflite_reader import read_integer_graph
from topokd_export.c.writer import AppNumbers, ram_bytes, weight_bytes, write_c
from topokd_export.deploy import deploy_form
from topokd_export.quantise import quantise
from topokd_export.selftest import smooth_signals

from topokd_edge.bundle import Normalisation
from topokd_edge.models.wrn import WideResNet, WRNSpec

CASES = (
    *("cortex-m4:REF", "cortex-m4:BLK", "cortex-m4:SMLAD", "cortex-m3:BLK", "cortex-m0plus:BLK"),
    *("cortex-m7:SMLAD", "cortex-m33:SMLAD", "rv32imc:BLK"),
)


def main() -> None:
    torch.manual_seed(0)
    model = WideResNet(WRNSpec(1, 16, 1, 3, 14)).eval()
    graph = read_integer_graph(quantise(deploy_form(model, (500,)), smooth_signals(128, 3, 500, seed=0)))
    same = Normalisation((0.0,) * 3, (1.0,) * 3)
    labels = tuple(f"class {index}" for index in range(14))
    files = write_c(graph, AppNumbers(50.0, ("x", "y", "z"), ("g",) * 3, same, labels), None)
    products = sum(layer.weight.size * layer.output.rows for layer in graph.layers if isinstance(layer, Conv))
    window = np.random.default_rng(0).integers(-128, 128, (500, 3)).astype(np.int8)
    weights, ram = weight_bytes(graph), ram_bytes(graph, plan_arena(graph))
    print(f"{products:,} products, weights {weights:,} B, RAM {ram:,} B")
    rows = []
    for case in sys.argv[1:] or CASES:
        core, kernel = case.split(":")
        firmware = build_firmware(files, core, ("-O2", f"-DTK_KERNEL=TK_KERNEL_{kernel}"))
        execution = run_firmware(firmware, window, 14)
        sizes = f"flash +{firmware.flash_bytes - weights:,} B, stack {execution.stack_bytes}"
        per_product = execution.instructions / products
        print(f"{case:22} {execution.instructions:12,} {per_product:6.3f} a product, {sizes}")
        rows.append(
            {"case": case, "instructions": execution.instructions, "by_function": execution.by_function}
        )
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
