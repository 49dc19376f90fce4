"""What is inside a TFLite file: operators, tensor types, the numbers of its input and output."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from topokd_edge.errors import BadInputError, CheckFailedError

INTEGER_TYPES = ("INT8", "INT32")
"""Tensors of a full-integer int8 model."""
_INT16_TYPES = ("INT8", "INT16", "INT32", "INT64")


@dataclass(frozen=True)
class TensorDescription:
    """An input or output: name, type, shape, and scale and zero point (None for float)."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    scale: float | None
    zero_point: int | None


@dataclass(frozen=True)
class TFLiteDescription:
    """Content of a TFLite model.

    Attributes
    ----------
    bytes
        Size of the file.
    operators
        How often each operator occurs.
    tensor_types
        How many tensors have each type.
    input, output
        The first input and output.
    """

    bytes: int
    operators: dict[str, int]
    tensor_types: dict[str, int]
    input: TensorDescription
    output: TensorDescription


def describe_tflite(content: bytes) -> TFLiteDescription:
    """Read what a TFLite model consists of.

    Raises
    ------
    BadInputError
        When `content` is not a TFLite model of one subgraph.
    """
    from ai_edge_litert import schema_py_generated as schema

    if content[4:8] != b"TFL3":
        raise BadInputError("not a TFLite model (no TFL3 identifier)")
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    if len(model.subgraphs) != 1:
        raise BadInputError(f"expected a TFLite model of one subgraph, found {len(model.subgraphs)}")
    graph = model.subgraphs[0]
    operator_names = _names(schema.BuiltinOperator)
    types = _names(schema.TensorType)
    codes = [operator_names[code.builtinCode] for code in model.operatorCodes]
    return TFLiteDescription(
        bytes=len(content),
        operators=dict(sorted(Counter(codes[op.opcodeIndex] for op in graph.operators).items())),
        tensor_types=dict(sorted(Counter(types[tensor.type] for tensor in graph.tensors).items())),
        input=_tensor(graph.tensors[graph.inputs[0]], types),
        output=_tensor(graph.tensors[graph.outputs[0]], types),
    )


def check_full_int8(description: TFLiteDescription) -> None:
    """Refuse a model that is not integer throughout.

    Raises
    ------
    CheckFailedError
        With every reason: a float tensor, an input or output that is not int8, a layout operator.
    """
    _refuse_problems(description, "INT8")


def check_int16(description: TFLiteDescription) -> None:
    """Refuse a model that is not int16 at both ends and integer throughout; see `check_full_int8`."""
    _refuse_problems(description, "INT16")
    others = set(description.tensor_types).difference(_INT16_TYPES)
    if others:
        raise CheckFailedError(f"the int16 model has tensors of {', '.join(sorted(others))}")


def _refuse_problems(description: TFLiteDescription, ends: str) -> None:
    problems = [
        f"{description.tensor_types[kind]} tensors are {kind}"
        for kind in ("FLOAT32", "FLOAT16", "FLOAT64", "BFLOAT16")
        if kind in description.tensor_types
    ]
    for place, tensor in (("input", description.input), ("output", description.output)):
        if tensor.dtype != ends:
            problems.append(f"the {place} is {tensor.dtype}")
    problems += [
        f"{description.operators[name]} operators are {name}"
        for name in ("QUANTIZE", "DEQUANTIZE", "TRANSPOSE", "RESHAPE")
        if name in description.operators
    ]
    if problems:
        raise CheckFailedError(f"the {ends.lower()} model is not full-integer", problems=problems)


def _names(enumeration: type) -> dict[int, str]:
    return {value: name for name, value in vars(enumeration).items() if isinstance(value, int)}


def _tensor(tensor: Any, types: dict[int, str]) -> TensorDescription:
    numbers = tensor.quantization
    quantised = numbers is not None and numbers.scale is not None and len(numbers.scale) > 0
    name = tensor.name.decode() if isinstance(tensor.name, bytes) else str(tensor.name)
    return TensorDescription(
        name=name,
        dtype=types[tensor.type],
        shape=tuple(int(n) for n in tensor.shape),
        scale=float(numbers.scale[0]) if quantised else None,
        zero_point=int(numbers.zeroPoint[0]) if quantised else None,
    )
