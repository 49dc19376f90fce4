"""Cross-check of the exported TFLite files by Google's own converter, litert-torch, on held-out windows.

It has an environment of its own, because it pins what the project must not (docs/decisions/export.md):

    python3.11 -m venv cross && cross/bin/pip install -e '.[train,export,cross]'
    cross/bin/python benchmarks/litert_torch_check.py RUN BUNDLE
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import litert_torch
import numpy as np
import torch
from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import calibrator, quantizer, recipe
from ai_edge_quantizer.utils import qsv_utils
from topokd_export.student import Student, load_student

from topokd_edge.bundle import Bundle, open_model
from topokd_edge.models.wrn import WideResNet
from topokd_edge.run import Run

WINDOWS = 1000


class Plain(torch.nn.Module):
    """A pre-activation student without what litert-torch 0.10.0 cannot convert (`mean` with a dtype)."""

    def __init__(self, model: WideResNet) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        model = self.model
        x = model.stem(x.unsqueeze(2))
        for block in model.blocks:
            x = block(x)
        return model.head(model.bn(x).relu().mean((2, 3)))


def answers(content: bytes, x: np.ndarray) -> np.ndarray:
    """Run a converted model, input (1, channels, length), on windows (n, channels, length)."""
    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    (first,), (last,) = interpreter.get_input_details(), interpreter.get_output_details()
    rows = []
    for window in x:
        native = window[None]
        if first["dtype"] is np.int8:
            scale, zero_point = first["quantization"]
            native = np.clip(np.rint(native / scale) + zero_point, -128, 127).astype(np.int8)
        interpreter.set_tensor(first["index"], native)
        interpreter.invoke()
        out = interpreter.get_tensor(last["index"])[0].astype(np.float64)
        scale, zero_point = last["quantization"]
        rows.append((out - zero_point) * scale if scale else out)
    return np.array(rows)


def converted(student: Student) -> tuple[bytes, bytes]:
    """Return the student as litert-torch and its quantiser make it: float32, and static int8 by extremes."""
    sample = torch.zeros(1, len(student.channels), student.windows.length)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.tflite"
        litert_torch.convert(Plain(student.model).eval(), (sample,)).export(str(path))
        tool = quantizer.Quantizer(str(path))
        tool.load_quantization_recipe(recipe.static_wi8_ai8())
        windows = [{"args_0": window[None]} for window in student.calibration()]
        # Its own default is a moving average; extremes need the private manager of recipes.
        ranges = calibrator.Calibrator(str(path), num_threads=1, qsv_update_func=qsv_utils.min_max_update)
        ranges.calibrate({"serving_default": windows}, tool._recipe_manager)
        return path.read_bytes(), bytes(tool.quantize(ranges.get_model_qsvs()).quantized_model)


def compared(ours: np.ndarray, theirs: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    return {
        "accuracy": [float((logits.argmax(1) == y).mean()) for logits in (ours, theirs)],
        "largest difference": float(np.abs(ours - theirs).max()),
        "agreement": float((ours.argmax(1) == theirs.argmax(1)).mean()),
    }


def main() -> None:
    run, bundle = Run.open(Path(sys.argv[1])), Bundle.open(Path(sys.argv[2]))
    said = bundle.manifest.provenance
    student = load_student(run, said["fold"], said["seed"])
    index = student.windows.of_subjects(student.held_out)
    index = index[np.linspace(0, len(index) - 1, min(WINDOWS, len(index))).astype(int)]
    x, y = student.normalised(index), student.windows.y[index]
    float32, int8 = converted(student)
    ours = {name: open_model(bundle.model_path("tflite", name)).run(x) for name in ("float32", "int8")}
    theirs = {"float32": answers(float32, x), "int8": answers(int8, x)}
    table = {name: compared(ours[name], theirs[name], y) for name in ours}
    print(json.dumps({"windows": len(x), "bytes": {"float32": len(float32), "int8": len(int8)}, **table}))


if __name__ == "__main__":
    main()
