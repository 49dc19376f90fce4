"""What travels inside the TFLite files: labels, normalisation, and files where TFLite's tools look."""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from export_cases import activities, trained_student
from topokd_export.app_metadata import document_of, onnx_metadata, read_onnx_metadata
from topokd_export.c.tflite_reader import read_integer_graph
from topokd_export.c.writer import AppNumbers
from topokd_export.deploy import deploy_form
from topokd_export.describe import check_full_int8, describe_tflite
from topokd_export.onnx_writer import write_onnx
from topokd_export.quantise import quantise
from topokd_export.tflite_metadata import read_metadata, with_metadata
from topokd_export.tflite_writer import write_tflite

from topokd_edge.bundle import Normalisation, open_model
from topokd_edge.errors import BadInputError

APP = AppNumbers(
    30.5,
    ("x", "y", "z"),
    ("mV", "g", "µT"),
    Normalisation((100.0, -3.0, 0.01), (50.0, 1.0, 0.002)),
    ("lie", "run fast", "sit", "stehen für", "walk"),
)


@pytest.fixture(scope="module")
def int8() -> bytes:
    return quantise(deploy_form(trained_student(), (50,)), activities(128, seed=5)[0])


class Table:
    """A flatbuffer table read by hand, after the binary format alone: field number to place."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at

    @classmethod
    def root(cls, data: bytes) -> Table:
        return cls(data, struct.unpack_from("<I", data)[0])

    def place(self, field: int) -> int | None:
        vtable = self.at - struct.unpack_from("<i", self.data, self.at)[0]
        slot = 4 + 2 * field
        if slot >= struct.unpack_from("<H", self.data, vtable)[0]:
            return None
        offset = struct.unpack_from("<H", self.data, vtable + slot)[0]
        return self.at + offset if offset else None

    def number(self, field: int) -> int:
        return self.data[self.place(field)]

    def table(self, field: int) -> Table:
        return Table(self.data, self._to(self.place(field)))

    def text(self, field: int) -> str:
        at = self._to(self.place(field))
        return self.data[at + 4 : at + 4 + self._u32(at)].decode()

    def tables(self, field: int) -> list[Table]:
        at = self._to(self.place(field))
        return [Table(self.data, self._to(at + 4 + 4 * i)) for i in range(self._u32(at))]

    def floats(self, field: int) -> list[float]:
        at = self._to(self.place(field))
        return np.frombuffer(self.data, "<f4", self._u32(at), at + 4).tolist()

    def _u32(self, at: int) -> int:
        return struct.unpack_from("<I", self.data, at)[0]

    def _to(self, at: int) -> int:
        return at + self._u32(at)


def _model(content: bytes) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    return schema.Model.GetRootAs(content, 0)


def _described(content: bytes) -> Table:
    model = _model(content)
    entries = [model.Metadata(i) for i in range(model.MetadataLength())]
    (entry,) = [item for item in entries if item.Name() == b"TFLITE_METADATA"]
    data = model.Buffers(entry.Buffer()).DataAsNumpy().tobytes()
    assert data[4:8] == b"M001"
    return Table.root(data)


def test_labels_normalisation_and_files_stand_where_the_schema_says(int8: bytes) -> None:
    """Field numbers of metadata_schema.fbs: ModelMetadata, SubGraphMetadata, TensorMetadata, ProcessUnit."""
    root = _described(with_metadata(int8, APP))
    assert (root.text(0), root.text(7)) == ("topokd-edge student", "1.0.0")
    (graph,) = root.tables(3)
    (first,), (last,) = graph.tables(2), graph.tables(3)
    assert (first.text(0), last.text(0)) == ("x", "logits")
    assert "50 samples at 30.5 Hz" in first.text(1)
    assert "z (µT)" in first.text(1)
    (unit,) = first.tables(4)
    assert unit.number(0) == 1  # NormalizationOptions
    assert unit.table(1).floats(0) == np.float32(APP.normalisation.mean).tolist()
    assert unit.table(1).floats(1) == np.float32(APP.normalisation.std).tolist()
    assert first.table(3).number(0) == last.table(3).number(0) == 1  # FeatureProperties
    named = [(file.text(0), file.number(2)) for file in (*first.tables(6), *last.tables(6), *root.tables(6))]
    assert named == [("channels.txt", 2), ("labels.txt", 2), ("student.json", 1)]


def test_the_files_are_a_plain_zip_archive_behind_the_model(int8: bytes, tmp_path: Path) -> None:
    content = with_metadata(int8, APP)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        assert {item.compress_type for item in archive.infolist()} == {zipfile.ZIP_STORED}
        assert archive.read("labels.txt").decode() == "lie\nrun fast\nsit\nstehen für\nwalk\n"
        assert archive.read("channels.txt") == b"x\ny\nz\n"
    assert read_metadata(content) == document_of(APP)
    if shutil.which("unzip"):
        (tmp_path / "m.tflite").write_bytes(content)
        told = subprocess.run(
            ["unzip", "-t", str(tmp_path / "m.tflite")], capture_output=True, text=True, check=False
        )
        assert (told.returncode, told.stderr) == (0, "")


def test_the_model_is_the_same_with_and_without(int8: bytes, tmp_path: Path) -> None:
    content = with_metadata(int8, APP)
    assert content == with_metadata(int8, APP)
    check_full_int8(describe_tflite(content))
    assert describe_tflite(content).operators == describe_tflite(int8).operators
    assert len(content) - len(int8) < 3000
    assert repr(read_integer_graph(content)) == repr(read_integer_graph(int8))
    x = activities(20, seed=6)[0]
    for name, data in (("bare", int8), ("full", content)):
        (tmp_path / f"{name}.tflite").write_bytes(data)
    for reference in (False, True):
        bare, full = (
            open_model(tmp_path / f"{name}.tflite", reference_kernels=reference).run(x)
            for name in ("bare", "full")
        )
        assert np.array_equal(bare, full)


def test_tensorflow_lite_micro_runs_it(int8: bytes) -> None:
    runtime = pytest.importorskip("tflite_micro.python.tflite_micro.runtime")
    q = np.random.default_rng(0).integers(-128, 128, (1, 1, 50, 3)).astype(np.int8)
    answers = []
    for content in (int8, with_metadata(int8, APP)):
        interpreter = runtime.Interpreter.from_bytes(content)
        interpreter.set_input(q, 0)
        interpreter.invoke()
        answers.append(interpreter.get_output(0))
    assert np.array_equal(*answers)


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_buffers_are_aligned_as_the_format_asks(int8: bytes, kind: str) -> None:
    bare = int8 if kind == "int8" else write_tflite(deploy_form(trained_student(), (50,)))
    model = _model(with_metadata(bare, APP))
    places = [
        buffer._tab.Vector(buffer._tab.Offset(4))
        for buffer in map(model.Buffers, range(model.BuffersLength()))
        if not buffer.DataIsNone()
    ]
    assert len(places) > 40
    assert {place % 16 for place in places} == {0}


def test_onnx_carries_the_same_document() -> None:
    content = write_onnx(deploy_form(trained_student(), (50,)), onnx_metadata(APP))
    assert read_onnx_metadata(content) == document_of(APP)
    props = {entry.key: entry.value for entry in onnx.load_from_string(content).metadata_props}
    assert props["class_names"] == '["lie", "run fast", "sit", "stehen für", "walk"]'
    with pytest.raises(BadInputError, match="class_names"):
        read_onnx_metadata(write_onnx(deploy_form(trained_student(), (50,))))


def test_missing_or_damaged_metadata_is_refused(int8: bytes) -> None:
    with pytest.raises(BadInputError, match="no usable metadata"):
        read_metadata(int8)
    content = with_metadata(int8, APP)
    at = content.index(b'"class_names"')
    with pytest.raises(BadInputError, match="no usable metadata"):
        read_metadata(content[:at] + b"#" + content[at + 1 :])
    odd = AppNumbers(APP.rate_hz, APP.channel_names, APP.units, APP.normalisation, ("a\nb", *"cdef"))
    with zipfile.ZipFile(io.BytesIO(with_metadata(int8, odd))) as archive:
        assert archive.read("labels.txt") == b"a b\nc\nd\ne\nf\n"
