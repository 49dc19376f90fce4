"""TFLite metadata: labels, normalisation and files in the model, where TensorFlow Lite's tools look.

The layout is that of TensorFlow Lite Support 0.4.4: a flatbuffer of metadata_schema.fbs in the model's buffer
TFLITE_METADATA, and associated files in a zip archive, uncompressed, behind the model. The numbers of the
fields below are their places in that schema.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from topokd_edge.errors import BadInputError
from topokd_export.app_metadata import KEYS, document_of
from topokd_export.c.writer import AppNumbers
from topokd_export.tflite_pack import pack_tflite

BUFFER_NAME, IDENTIFIER, PARSER_VERSION = "TFLITE_METADATA", b"M001", "1.0.0"
LABELS, CHANNELS, DOCUMENT = "labels.txt", "channels.txt", "student.json"
_DESCRIPTIONS, _AXIS_LABELS = 1, 2  # AssociatedFileType
_FEATURE, _NORMALIZATION = 1, 1  # ContentProperties, ProcessUnitOptions
_MOST_BYTES = 1 << 20
_DIMENSIONS = ("batch", "height", "time", "channel")


def with_metadata(content: bytes, app: AppNumbers) -> bytes:
    """Return a TFLite student with its metadata; the same student gives the same bytes.

    Parameters
    ----------
    content
        A model without metadata, input (1, 1, length, channels).
    app
        Rate, channels, units, normalisation and class names.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content, 0)
    length = int(model.subgraphs[0].tensors[int(model.subgraphs[0].inputs[0])].shape[2])
    entry, buffer = schema.MetadataT(), schema.BufferT()
    buffer.data = np.frombuffer(_described(app, length), dtype=np.uint8)
    model.buffers.append(buffer)
    entry.name, entry.buffer = BUFFER_NAME, len(model.buffers) - 1
    model.metadata = [*(model.metadata or []), entry]
    return _with_files(
        pack_tflite(model),
        {
            LABELS: _lines(app.class_names),
            CHANNELS: _lines(app.channel_names),
            DOCUMENT: json.dumps(document_of(app), ensure_ascii=False, indent=2) + "\n",
        },
    )


def read_metadata(content: bytes) -> dict[str, Any]:
    """Return the document that a TFLite student carries behind the model; see `document_of`.

    Raises
    ------
    BadInputError
        When there is none, or it is damaged.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if archive.getinfo(DOCUMENT).file_size > _MOST_BYTES:
                raise BadInputError(f"{DOCUMENT} in the TFLite file is larger than {_MOST_BYTES} bytes")
            document = json.loads(archive.read(DOCUMENT))
        return {key: document[key] for key in KEYS}
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError, NotImplementedError) as error:
        raise BadInputError(f"the TFLite file carries no usable metadata ({error})") from None


def _lines(names: Sequence[str]) -> str:
    """Return one name a line; a name that has line ends itself gets spaces."""
    return "".join(f"{' '.join(name.split())}\n" for name in names)


def _with_files(content: bytes, files: Mapping[str, str]) -> bytes:
    """Append a zip archive whose offsets count from the start of the model, so that `unzip` reads it."""
    stream = io.BytesIO(content)
    with zipfile.ZipFile(stream, "a", zipfile.ZIP_STORED) as archive:
        for name, text in files.items():
            info = zipfile.ZipInfo(name)  # dated 1980-01-01, whenever it is written
            info.create_system, info.external_attr = 3, 0o644 << 16
            archive.writestr(info, text.encode("utf-8"))
    return stream.getvalue()


def _described(app: AppNumbers, length: int) -> bytes:
    """Return the ModelMetadata flatbuffer of a student."""
    table = _Tables()
    units = ", ".join(f"{name} ({unit})" for name, unit in zip(app.channel_names, app.units, strict=True))
    window = f"{length} samples at {app.rate_hz:g} Hz"
    normalisation = table.add(
        {0: table.floats(app.normalisation.mean), 1: table.floats(app.normalisation.std)}
    )
    first = table.add(
        {
            0: table.text("x"),
            1: table.text(f"{window}; channels: {units}; normalised by the caller: (x - mean) / std"),
            2: table.vector([table.text(name) for name in _DIMENSIONS]),
            3: table.feature(),
            4: table.vector([table.add({1: normalisation}, {0: _NORMALIZATION})]),
            6: table.vector([table.file(CHANNELS, "channels, in input order", _AXIS_LABELS)]),
        }
    )
    last = table.add(
        {
            0: table.text("logits"),
            1: table.text("one logit for each class; the largest is the answer"),
            3: table.feature(),
            6: table.vector([table.file(LABELS, "classes, in output order", _AXIS_LABELS)]),
        }
    )
    document = table.file(DOCUMENT, "labels, rate, channels, units and normalisation as JSON", _DESCRIPTIONS)
    graph = table.add({2: table.vector([first]), 3: table.vector([last])})
    return table.finish(
        {
            0: table.text("topokd-edge student"),
            1: table.text(f"activity of {window}: one of {len(app.class_names)} classes"),
            3: table.vector([graph]),
            6: table.vector([document]),
            7: table.text(PARSER_VERSION),
        }
    )


class _Tables:
    """Writes flatbuffer tables by the numbers of their fields; what is returned is a place in the buffer."""

    def __init__(self) -> None:
        import flatbuffers

        self._builder = flatbuffers.Builder(1 << 12)

    def add(self, places: Mapping[int, int], small: Mapping[int, int] | None = None) -> int:
        """Write a table: `places` of strings, vectors and tables, and `small` numbers of one byte."""
        small = small or {}
        self._builder.StartObject(1 + max([*places, *small], default=-1))
        for slot, place in places.items():
            self._builder.PrependUOffsetTRelativeSlot(slot, place, 0)
        for slot, number in small.items():
            self._builder.PrependUint8Slot(slot, number, 0)
        return int(self._builder.EndObject())

    def text(self, value: str) -> int:
        return int(self._builder.CreateString(value))

    def floats(self, values: Sequence[float]) -> int:
        return int(self._builder.CreateNumpyVector(np.asarray(values, dtype="<f4")))

    def vector(self, places: Sequence[int]) -> int:
        self._builder.StartVector(4, len(places), 4)
        for place in reversed(places):
            self._builder.PrependUOffsetTRelative(place)
        return int(self._builder.EndVector())

    def feature(self) -> int:
        """Write a Content that holds FeatureProperties."""
        return self.add({1: self.add({})}, {0: _FEATURE})

    def file(self, name: str, description: str, kind: int) -> int:
        """Write an AssociatedFile."""
        return self.add({0: self.text(name), 1: self.text(description)}, {2: kind})

    def finish(self, places: Mapping[int, int]) -> bytes:
        self._builder.Finish(self.add(places), IDENTIFIER)
        return bytes(self._builder.Output())
