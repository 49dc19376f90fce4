"""Running a model file on this machine: integers for inputs and outputs, LiteRT and ONNX Runtime.

Light on purpose (standard library and numpy): it runs on a Raspberry Pi beside either runtime.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from topokd_edge.errors import BadInputError, MissingError

RUNNABLE = (".onnx", ".tflite")
"""Suffixes of the model files that `open_model` runs."""
_PROBE = "import sys, tflite_runtime.interpreter as t; t.Interpreter(model_path=sys.argv[1])"


def quantise_input(x: npt.ArrayLike, scale: float, zero_point: int) -> npt.NDArray[np.int8]:
    """Convert float values to int8: round(x / scale) + zero_point, ties to even, saturating.

    The arithmetic is float32, as in the generated C.

    Parameters
    ----------
    x
        Values of any shape, in the units the model was calibrated in; infinities saturate.
    scale, zero_point
        The model file's own numbers; scale > 0.

    Raises
    ------
    BadInputError
        When a value is NaN (with its place), or the scale or zero point is impossible.
    """
    levels = _levels(x, scale, zero_point)
    quantised: npt.NDArray[np.int8] = np.clip(levels, -128, 127).astype(np.int8)
    return quantised


def quantise_input_int16(x: npt.ArrayLike, scale: float) -> npt.NDArray[np.int16]:
    """Convert float values to int16, whose zero point is always 0; otherwise as `quantise_input`."""
    levels = _levels(x, scale, 0)
    quantised: npt.NDArray[np.int16] = np.clip(levels, -32768, 32767).astype(np.int16)
    return quantised


def _levels(x: npt.ArrayLike, scale: float, zero_point: int) -> npt.NDArray[np.float32]:
    """Return whole float32 levels, not yet clipped; refuse NaN and an impossible scale."""
    if not (np.isfinite(scale) and scale > 0 and -128 <= zero_point <= 127):
        raise BadInputError(
            f"int8 needs a positive scale and a zero point in -128..127, not {scale} and {zero_point}"
        )
    with np.errstate(over="ignore"):
        values = np.asarray(x).astype(np.float32)
        levels: npt.NDArray[np.float32] = np.rint(values / np.float32(scale)) + np.float32(zero_point)
    unclear = np.isnan(levels)
    if unclear.any():
        raise BadInputError(
            f"the input has {int(unclear.sum())} NaN, the first at index "
            f"{tuple(int(i) for i in np.argwhere(unclear)[0])}; a model needs finite numbers",
            hint="drop or mask the window",
        )
    return levels


def dequantise(
    q: npt.NDArray[np.int8] | npt.NDArray[np.int16], scale: float, zero_point: int
) -> npt.NDArray[np.float32]:
    """Convert int8 or int16 values back: (q - zero_point) * scale, float32, same shape."""
    return (q.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)


@contextmanager
def quiet() -> Iterator[None]:
    """Drop what native libraries write to standard error while the block runs (banners, not errors)."""
    sys.stderr.flush()
    kept = os.dup(2)
    sink = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(sink)


class Model(Protocol):
    """A model file that is ready to run.

    Attributes
    ----------
    runtime, version
        What runs it: "litert", "tflite-runtime" or "onnxruntime", and its version.
    input_shape
        One window as the caller has it, (channels, length) or (channels, height, width).
    """

    runtime: str
    version: str
    input_shape: tuple[int, ...]

    def run(self, windows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the logits, float32 (n, classes), of normalised windows, float32 (n, channels, length)."""
        ...

    def prepare(self, window: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        """Convert one normalised window to the model's own input: layout, batch axis, integers."""
        ...

    def invoke(self, native: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Run the model on what `prepare` returned; the output as the model gives it (for timing)."""
        ...


def open_model(path: Path, *, threads: int = 1, reference_kernels: bool = False) -> Model:
    """Open a `.tflite` or `.onnx` file.

    Parameters
    ----------
    path
        The model file.
    threads
        CPU threads of the runtime.
    reference_kernels
        TFLite only: the plain reference kernels, which define the right int8 answer, instead of XNNPACK.

    Raises
    ------
    BadInputError
        When the file is missing, of another kind, or refused by the runtime.
    MissingError
        When no runtime for it is installed, or the installed one cannot work.
    """
    if not path.is_file():
        raise BadInputError(f"{path}: no such file")
    if path.suffix == ".tflite":
        return _TFLiteModel(path, threads, reference_kernels)
    if path.suffix == ".onnx":
        return _OnnxModel(path, threads)
    raise BadInputError(f"{path}: not one of {', '.join(RUNNABLE)}")


class _TFLiteModel:
    """A TFLite model with input (1, height, width, channels), a window having height 1, and one output."""

    def __init__(self, path: Path, threads: int, reference_kernels: bool) -> None:
        module, self.runtime, self.version = _tflite_module(path)
        resolvers = module.OpResolverType
        resolver = resolvers.BUILTIN_REF if reference_kernels else resolvers.AUTO
        try:
            with quiet():
                self._interpreter = module.Interpreter(
                    model_path=str(path), num_threads=threads, experimental_op_resolver_type=resolver
                )
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise BadInputError(f"{path}: refused by {self.runtime} {self.version} ({error})") from None
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        if len(inputs) != 1 or len(outputs) != 1 or len(inputs[0]["shape"]) != 4:
            raise BadInputError(f"{path}: expected one input of four axes and one output")
        self._input, self._output = inputs[0], outputs[0]
        self._shape = tuple(int(n) for n in self._input["shape"])
        _, height, width, channels = self._shape
        self.input_shape: tuple[int, ...] = (channels, width) if height == 1 else (channels, height, width)

    def prepare(self, window: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        _expect(window.shape, self.input_shape)
        native = np.ascontiguousarray(np.moveaxis(window, 0, -1), dtype=np.float32).reshape(self._shape)
        scale, zero_point = self._input["quantization"]
        if self._input["dtype"] is np.int16:
            return quantise_input_int16(native, float(scale))
        if self._input["dtype"] is not np.int8:
            return native
        return quantise_input(native, float(scale), int(zero_point))

    def invoke(self, native: npt.NDArray[Any]) -> npt.NDArray[Any]:
        self._interpreter.set_tensor(self._input["index"], native)
        self._interpreter.invoke()
        output: npt.NDArray[Any] = self._interpreter.get_tensor(self._output["index"])
        return output

    def run(self, windows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        _expect(windows.shape[1:], self.input_shape)
        logits = np.empty((len(windows), int(self._output["shape"][-1])), dtype=np.float32)
        for row, window in enumerate(windows):
            output = self.invoke(self.prepare(window)).reshape(-1)
            if output.dtype in (np.int8, np.int16):
                scale, zero_point = self._output["quantization"]
                output = dequantise(output, float(scale), int(zero_point))
            logits[row] = output
        return logits


def import_onnxruntime() -> Any:
    """Import ONNX Runtime, with its reports to its maker turned off unless the user has decided otherwise.

    Since 1.29 its wheels for Linux and macOS name each user by a file in the cache folder, and send hashes of
    models and figures of use (microsoft/onnxruntime, docs/Privacy.md; pull request 27379). The variable works
    only before the import.

    Raises
    ------
    ImportError
        When it is not installed, or does not load.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime


class _OnnxModel:
    """An ONNX model with one float32 input, channels first, of any batch size or of a fixed one of 1."""

    def __init__(self, path: Path, threads: int) -> None:
        try:
            onnxruntime = import_onnxruntime()
        except ImportError as error:
            raise MissingError(
                f"{path.name} needs the package onnxruntime ({error})", hint="pip install onnxruntime"
            ) from None
        self.runtime, self.version = "onnxruntime", str(onnxruntime.__version__)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's own exception types share no public base
            raise BadInputError(f"{path}: refused by onnxruntime {self.version} ({error})") from None
        self._input = self._session.get_inputs()[0].name
        batch, *shape = self._session.get_inputs()[0].shape
        self._one_by_one = batch == 1
        self.input_shape = tuple(int(n) for n in shape)

    def prepare(self, window: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        _expect(window.shape, self.input_shape)
        return np.ascontiguousarray(window[None], dtype=np.float32)

    def invoke(self, native: npt.NDArray[Any]) -> npt.NDArray[Any]:
        output: npt.NDArray[Any] = self._session.run(None, {self._input: native})[0]
        return output

    def run(self, windows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        _expect(windows.shape[1:], self.input_shape)
        if self._one_by_one and len(windows) > 1:
            return np.concatenate([self.run(windows[at : at + 1]) for at in range(len(windows))])
        return self.invoke(np.ascontiguousarray(windows, dtype=np.float32)).astype(np.float32, copy=False)


def _expect(got: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if got != expected:
        raise BadInputError(f"a window has shape {got}, the model expects {expected} (channels first)")


def _tflite_module(path: Path) -> tuple[Any, str, str]:
    """Return the interpreter module, its short name and its version."""
    from importlib import metadata

    if importlib.util.find_spec("ai_edge_litert") is not None:
        from ai_edge_litert import interpreter

        return interpreter, "litert", metadata.version("ai-edge-litert")
    if importlib.util.find_spec("tflite_runtime") is not None:
        _probe_tflite_runtime(path)
        from tflite_runtime import interpreter as legacy

        return legacy, "tflite-runtime", metadata.version("tflite-runtime")
    raise MissingError(
        f"{path.name} needs the package ai-edge-litert (or, on 32-bit Arm, tflite-runtime)",
        hint="pip install ai-edge-litert",
    )


def _probe_tflite_runtime(path: Path) -> None:
    """Try tflite-runtime in a child: built for numpy 1, it imports under numpy 2 and then crashes."""
    child = subprocess.run(
        [sys.executable, "-c", _PROBE, str(path)], capture_output=True, text=True, timeout=120, check=False
    )
    if child.returncode == 0:
        return
    last = (child.stderr.strip().splitlines() or [f"exit status {child.returncode}"])[-1]
    if "_ARRAY_API" in child.stderr:
        raise MissingError(
            f"tflite-runtime was built for numpy 1 and cannot work with numpy {np.__version__}",
            hint="pip install ai-edge-litert, or where it has no wheel: pip install 'numpy<2'",
        )
    raise BadInputError(f"{path}: refused by tflite-runtime ({last})")
