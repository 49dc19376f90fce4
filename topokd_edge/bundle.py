"""What travels to a device, in one place for apps and for the bench: bundle, student, model files, errors.

Light on purpose (standard library and numpy). An app needs `Student`.
"""

from __future__ import annotations

from topokd_edge.bundle_folder import SUMS, Bundle, read_sums, same_rate, write_sums
from topokd_edge.errors import BadInputError, CheckFailedError, DeviceError, MissingError, TopokdError
from topokd_edge.manifest import Int8Numbers, Manifest, ModelFile, Normalisation
from topokd_edge.runtime import Model, dequantise, open_model, quantise_input, quiet
from topokd_edge.streaming import WindowStream
from topokd_edge.student import Answer, Student

__all__ = [
    "SUMS",
    "Answer",
    "BadInputError",
    "Bundle",
    "CheckFailedError",
    "DeviceError",
    "Int8Numbers",
    "Manifest",
    "MissingError",
    "Model",
    "ModelFile",
    "Normalisation",
    "Student",
    "TopokdError",
    "WindowStream",
    "dequantise",
    "open_model",
    "quantise_input",
    "quiet",
    "read_sums",
    "same_rate",
    "write_sums",
]
