"""Packing a TFLite model as the format asks for it: data of every buffer at a multiple of 16 bytes."""

from __future__ import annotations

from typing import Any

BUFFER_ALIGNMENT = 16
"""`force_align` of Buffer.data in schema.fbs of TensorFlow Lite; the Python packer does not heed it."""


def pack_tflite(model: Any) -> bytes:
    """Return the bytes of a `ModelT` of `ai_edge_litert.schema_py_generated`; same model, same bytes."""
    import flatbuffers

    class Builder(flatbuffers.Builder):  # type: ignore[misc]
        """Aligns vectors of bytes, which are buffers; others as they are."""

        def StartVector(self, size: int, count: int, alignment: int) -> Any:
            return super().StartVector(size, count, BUFFER_ALIGNMENT if size == 1 else alignment)

    builder = Builder(1 << 16)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
