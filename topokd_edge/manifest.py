"""The manifest of a bundle: what an app must know to use the model files, read and checked field by field.

Light on purpose (standard library and numpy).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from topokd_edge.errors import BadInputError

FORMAT = "topokd-bundle/1"
MANIFEST = "manifest.json"
_MOST = 2**53
_LARGEST = float(np.finfo(np.float32).max)
_LONGEST_PATH = 200


@dataclass(frozen=True)
class Normalisation:
    """Per-channel z-score that stands outside the graph, in the units of the manifest.

    Attributes
    ----------
    mean, std
        One number per channel; std > 0.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def apply(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return (x - mean) / std of windows (n, channels, length), float32.

        Raises
        ------
        BadInputError
            When the channels do not fit.
        """
        if x.ndim != 3 or x.shape[1] != len(self.mean):
            raise BadInputError(
                f"windows have shape {x.shape}, expected (n, {len(self.mean)} channels, length)"
            )
        mean = np.asarray(self.mean, dtype=np.float32)[:, None]
        std = np.asarray(self.std, dtype=np.float32)[:, None]
        return ((x - mean) / std).astype(np.float32, copy=False)


@dataclass(frozen=True)
class ModelFile:
    """One model file of a bundle.

    Attributes
    ----------
    target
        "onnx", "tflite", ...
    precision
        "float32", "int8" or "int16".
    path
        Relative to the bundle, with forward slashes.
    bytes, sha256
        Size and hash of the file.
    """

    target: str
    precision: str
    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Int8Numbers:
    """Scale and zero point of an integer model's input and output: real = (q - zero_point) * scale."""

    input_scale: float
    input_zero_point: int
    output_scale: float
    output_zero_point: int


@dataclass(frozen=True)
class Manifest:
    """Everything an app must know to use the model files.

    Attributes
    ----------
    channels, length, rate_hz
        Input window: number of channels, samples, samples per second.
    channel_names, units
        Per channel, in input order.
    normalisation
        Applied by the caller before the model.
    class_names
        Per output, in output order.
    files
        The model files.
    int8
        Of the int8 model, None when the bundle has none.
    macs, params
        Multiply-accumulates of one window and parameters, of the student as trained.
    self_test
        Path of the self-test vectors (see `topokd_edge.bundle.Bundle.self_test`).
    provenance
        run, fold, seed, window_set (content hash), held_out (subjects never trained on).
    versions
        Of the tools that wrote the files.
    int16
        Of the int16 model, None when the bundle has none; zero points are 0.
    """

    channels: int
    length: int
    rate_hz: float
    channel_names: tuple[str, ...]
    units: tuple[str, ...]
    normalisation: Normalisation
    class_names: tuple[str, ...]
    files: tuple[ModelFile, ...]
    int8: Int8Numbers | None
    macs: int
    params: int
    self_test: str
    provenance: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    int16: Int8Numbers | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the document that `manifest.json` holds."""
        return {
            "format": FORMAT,
            "input": {
                "channels": self.channels,
                "length": self.length,
                "rate_hz": self.rate_hz,
                "channel_names": list(self.channel_names),
                "units": list(self.units),
            },
            "normalisation": {"mean": list(self.normalisation.mean), "std": list(self.normalisation.std)},
            "class_names": list(self.class_names),
            "files": [vars(item) for item in self.files],
            "int8": None if self.int8 is None else vars(self.int8),
            **({} if self.int16 is None else {"int16": vars(self.int16)}),
            "macs": self.macs,
            "params": self.params,
            "self_test": self.self_test,
            "provenance": dict(self.provenance),
            "versions": dict(self.versions),
        }

    @classmethod
    def from_json(cls, document: Any, where: str) -> Manifest:
        """Check and read a manifest.

        Parameters
        ----------
        document
            The parsed JSON.
        where
            Name of the file, for messages.

        Raises
        ------
        BadInputError
            When the format is another or newer one, or with every field that is missing or wrong.
        """
        _check_format(document, where)
        reader = _Reader(document)
        channels = reader.whole("input.channels", least=1)
        normalisation = Normalisation(
            reader.numbers("normalisation.mean", channels),
            reader.numbers("normalisation.std", channels, positive=True),
        )
        manifest = cls(
            channels=channels,
            length=reader.whole("input.length", least=1),
            rate_hz=reader.number("input.rate_hz", positive=True),
            channel_names=reader.names("input.channel_names", channels),
            units=reader.texts("input.units", channels),
            normalisation=normalisation,
            class_names=reader.names("class_names"),
            files=reader.files(),
            int8=reader.integers("int8", -128, 127),
            macs=reader.whole("macs"),
            params=reader.whole("params"),
            self_test=reader.path("self_test"),
            provenance=reader.get("provenance", dict, {}),
            versions=reader.get("versions", dict, {}),
            int16=reader.integers("int16", 0, 0),
        )
        if reader.problems:
            raise BadInputError(
                f"{where}: not a usable manifest", problems=reader.problems, hint="export the bundle again"
            )
        return manifest


def _check_format(document: Any, where: str) -> None:
    got = document.get("format") if isinstance(document, dict) else None
    if got == FORMAT:
        return
    kind, _, version = str(got).partition("/")
    if kind == "topokd-bundle" and version.isdecimal():
        raise BadInputError(
            f"{where}: a bundle of format {got}, this program reads {FORMAT}",
            hint="pip install --upgrade topokd-edge, or export the bundle again",
        )
    raise BadInputError(f"{where}: not a bundle manifest (format {FORMAT!r} expected)")


class _Reader:
    """Takes typed values out of a JSON document and collects what is wrong with it."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document
        self.problems: list[str] = []

    def get(self, key: str, kind: type, default: Any) -> Any:
        value: Any = self._document
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if type(value) is kind:
            return value
        self.problems.append(f"{key}: expected {kind.__name__}, found {_shown(value)}")
        return default

    def whole(self, key: str, *, least: int = 0) -> int:
        value = self.get(key, int, least)
        if not least <= value <= _MOST:
            self.problems.append(f"{key}: expected {least} to {_MOST}, found {_shown(value)}")
        return int(value)

    def number(self, key: str, *, positive: bool = False) -> float:
        value: Any = self._document
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return self._number(key, value, positive)

    def numbers(self, key: str, count: int, *, positive: bool = False) -> tuple[float, ...]:
        values = self.get(key, list, [])
        if len(values) != count:
            self.problems.append(f"{key}: expected {count} numbers, found {len(values)}")
        return tuple(self._number(key, value, positive) for value in values)

    def _number(self, key: str, value: Any, positive: bool) -> float:
        """Take a number that is finite, and positive if it must be, also as the float32 of a device."""
        if type(value) in (int, float) and abs(value) <= _LARGEST:
            rounded = float(np.float32(value))
            if math.isfinite(rounded) and (rounded > 0 or not positive):
                return float(value)
        kind = f"a {'positive ' if positive else ''}number"
        self.problems.append(f"{key}: expected {kind} within float32, found {_shown(value)}")
        return 1.0

    def texts(self, key: str, count: int | None = None) -> tuple[str, ...]:
        values = self.get(key, list, [])
        legible = all(isinstance(value, str) and value and _is_text(value) for value in values)
        if not values or not legible or count not in (None, len(values)):
            self.problems.append(f"{key}: expected {count or 'some'} names, found {_shown(values)}")
        return tuple(str(value) for value in values)

    def names(self, key: str, count: int | None = None) -> tuple[str, ...]:
        values = self.texts(key, count)
        if len(set(values)) < len(values):
            self.problems.append(f"{key}: expected different names, found {_shown(values)}")
        return values

    def path(self, key: str) -> str:
        return self._inside(key, self.get(key, str, "x"))

    def _inside(self, key: str, value: str) -> str:
        parts = PurePosixPath(value).parts
        outside = not parts or value.startswith("/") or ".." in parts or "\\" in value or ":" in value
        if outside or not value.isprintable() or len(value) > _LONGEST_PATH:
            self.problems.append(f"{key}: {_shown(value)} is not a path inside the bundle")
        return value

    def files(self) -> tuple[ModelFile, ...]:
        found = []
        for index, item in enumerate(self.get("files", list, [])):
            reader = _Reader(item if isinstance(item, dict) else {})
            texts = [reader.get(key, str, "x") for key in ("target", "precision", "path", "sha256")]
            reader._inside("path", texts[2])
            found.append(ModelFile(texts[0], texts[1], texts[2], reader.whole("bytes"), texts[3]))
            self.problems += [f"files[{index}].{problem}" for problem in reader.problems]
        if not found:
            self.problems.append("files: no model file is named")
        return tuple(found)

    def integers(self, name: str, least: int, most: int) -> Int8Numbers | None:
        if self._document.get(name) is None:
            return None
        scales = [self.number(f"{name}.{key}_scale", positive=True) for key in ("input", "output")]
        zeros = [self.get(f"{name}.{key}_zero_point", int, 0) for key in ("input", "output")]
        if any(not least <= zero <= most for zero in zeros):
            self.problems.append(
                f"{name}: expected zero points from {least} to {most}, found {_shown(zeros)}"
            )
        return Int8Numbers(scales[0], zeros[0], scales[1], zeros[1])


def _shown(value: Any) -> str:
    """Return a value as an error shows it: escaped, and short."""
    text = ascii(value) if not isinstance(value, int) or abs(value) <= _MOST else "a huge number"
    return text if len(text) <= 80 else text[:77] + "..."


def _is_text(value: str) -> bool:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
