"""What an app must know to use a model file, as it travels inside the ONNX and TFLite files."""

from __future__ import annotations

import json
from typing import Any

from topokd_edge.errors import BadInputError
from topokd_export.c.writer import AppNumbers

KEYS = ("class_names", "rate_hz", "channels", "units", "normalisation")


def document_of(app: AppNumbers) -> dict[str, Any]:
    """Return labels, rate, channels, units and normalisation as JSON-able data, in the order of `KEYS`."""
    return {
        "class_names": list(app.class_names),
        "rate_hz": app.rate_hz,
        "channels": list(app.channel_names),
        "units": list(app.units),
        "normalisation": {"mean": list(app.normalisation.mean), "std": list(app.normalisation.std)},
    }


def onnx_metadata(app: AppNumbers) -> dict[str, str]:
    """Return `metadata_props` of an ONNX file: each value of `document_of` as JSON."""
    return {key: json.dumps(value, ensure_ascii=False) for key, value in document_of(app).items()}


def read_onnx_metadata(content: bytes) -> dict[str, Any]:
    """Return the document that an ONNX file carries.

    Raises
    ------
    BadInputError
        When a part of it is missing or no JSON.
    """
    import onnx

    model = onnx.load_model_from_string(content)
    found = {entry.key: entry.value for entry in model.metadata_props}
    try:
        return {key: json.loads(found[key]) for key in KEYS}
    except (KeyError, ValueError) as error:
        raise BadInputError(f"the ONNX file carries no usable metadata ({error})") from None
