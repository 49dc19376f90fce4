"""The int8 TFLite model with float32 at both ends, for runtimes that pass float tensors only (LiteRT.js)."""

from __future__ import annotations

from typing import Any

from topokd_export.describe import INTEGER_TYPES, TFLiteDescription, check_full_int8, describe_tflite
from topokd_export.tflite_pack import pack_tflite

_DEQUANTIZE_VERSION = 2  # the first that takes int8
_INNER = "_int8"


def with_float_io(content: bytes) -> bytes:
    """Put QUANTIZE before and DEQUANTIZE after a full-integer model; the integers between stay the same.

    Parameters
    ----------
    content
        A full-integer TFLite model with one input and one output, without metadata.

    Raises
    ------
    CheckFailedError
        When the model is not integer throughout.
    """
    from ai_edge_litert import schema_py_generated as schema

    check_full_int8(describe_tflite(content))
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    graph = model.subgraphs[0]
    first, last = int(graph.inputs[0]), int(graph.outputs[0])
    outer_first, outer_last = _float_twin(graph, first), _float_twin(graph, last)
    start = _operator(model, "QUANTIZE", 1, outer_first, first)
    end = _operator(model, "DEQUANTIZE", _DEQUANTIZE_VERSION, last, outer_last)
    graph.operators = [start, *graph.operators, end]
    graph.inputs, graph.outputs = [outer_first], [outer_last]
    signature = model.signatureDefs[0]
    signature.inputs[0].tensorIndex, signature.outputs[0].tensorIndex = outer_first, outer_last
    return pack_tflite(model)


def float_io_problems(description: TFLiteDescription) -> list[str]:
    """Return what keeps a model from being int8 between float32 ends."""
    counts, types = description.operators, description.tensor_types
    problems = [
        f"the {place} is {tensor.dtype}"
        for place, tensor in (("input", description.input), ("output", description.output))
        if tensor.dtype != "FLOAT32"
    ]
    if (counts.get("QUANTIZE"), counts.get("DEQUANTIZE")) != (1, 1):
        problems.append("not one QUANTIZE and one DEQUANTIZE")
    if types.get("FLOAT32") != 2 or set(types) - {*INTEGER_TYPES, "FLOAT32"}:
        problems.append(f"tensors are {types}, expected int8 and int32 between two of float32")
    return problems


def _float_twin(graph: Any, index: int) -> int:
    """Add a float32 tensor that takes over the name of tensor `index`; return its index."""
    from ai_edge_litert import schema_py_generated as schema

    inner, twin = graph.tensors[index], schema.TensorT()
    twin.name, twin.shape, twin.type, twin.buffer = inner.name, inner.shape, schema.TensorType.FLOAT32, 0
    inner.name = inner.name + _INNER.encode() if isinstance(inner.name, bytes) else inner.name + _INNER
    graph.tensors.append(twin)
    return len(graph.tensors) - 1


def _operator(model: Any, name: str, version: int, source: int, target: int) -> Any:
    """Return an operator from one tensor to another, its code added to the model."""
    from ai_edge_litert import schema_py_generated as schema

    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, name)
    code.version = version
    model.operatorCodes.append(code)
    operator = schema.OperatorT()
    operator.opcodeIndex = len(model.operatorCodes) - 1
    operator.inputs, operator.outputs = [source], [target]
    options = f"{name.capitalize()}Options"
    operator.builtinOptionsType = getattr(schema.BuiltinOptions, options)
    operator.builtinOptions = getattr(schema, f"{options}T")()
    return operator
