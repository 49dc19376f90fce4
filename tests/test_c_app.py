"""What an app calls: samples in, classes out, errors as return codes, any names."""

from __future__ import annotations

import ctypes
import functools
import re
import subprocess
from pathlib import Path

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from c_cases import NAMES, NORMALISATION, app, c_files, compiled, graph_of, int8_file, random_int8
from export_cases import LENGTH, activities
from hypothesis import given, settings
from hypothesis import strategies as st
from topokd_export.c import literals
from topokd_export.c.host import SOURCES, HostStudent, compile_c
from topokd_export.c.tflite_reader import read_integer_graph
from topokd_export.c.writer import write_c

from topokd_edge.bundle import WindowStream, dequantise, quantise_input
from topokd_edge.errors import BadInputError
from topokd_edge.streaming import window_step

OK, WINDOW, NULL, NOT_FINITE, WRONG_STEP, NO_WINDOW = 0, 1, -1, -2, -3, -4


class App:
    """The C interface, called as C would."""

    def __init__(self, student: HostStudent) -> None:
        self.library, self.pointer = student.library, ctypes.c_void_p(student.student)
        self.library.student_class_name.restype = ctypes.c_char_p
        self.library.student_logit.restype = ctypes.c_float

    def init(self, step: int = LENGTH) -> int:
        return self.library.student_init(self.pointer, ctypes.c_uint32(step))

    def push(self, sample: np.ndarray) -> int:
        return self.library.student_push(self.pointer, (ctypes.c_float * 3)(*sample))

    def gap(self) -> int:
        return self.library.student_gap(self.pointer)

    def classify(self) -> tuple[int, list[int], int]:
        logits, label = (ctypes.c_int8 * 5)(), ctypes.c_int32(-1)
        status = self.library.student_classify(self.pointer, logits, ctypes.byref(label))
        return status, list(logits), label.value

    def quantise(self, values: list[float], scale: float, zero_point: int) -> tuple[int, list[int]]:
        out = (ctypes.c_int8 * len(values))()
        status = self.library.student_quantise_with(
            (ctypes.c_float * len(values))(*values), out, len(values), ctypes.c_float(scale), zero_point
        )
        return status, list(out)


@functools.cache
def the_student() -> HostStudent:
    return compiled(int8_file())


@pytest.fixture
def student() -> HostStudent:
    return the_student()


@pytest.fixture
def app_() -> App:
    return App(the_student())


@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.9])
def test_the_stream_gives_the_windows_of_the_python_stream(
    student: HostStudent, app_: App, overlap: float
) -> None:
    graph = graph_of(int8_file())
    x = np.concatenate(list(activities(6, seed=3)[0]), axis=1).T  # (samples, channels)
    raw = (x * np.array(NORMALISATION.std) + np.array(NORMALISATION.mean)).astype(np.float32)
    stream = WindowStream(3, LENGTH, overlap, NORMALISATION)
    assert app_.init(round(LENGTH * (1 - overlap))) == OK
    windows = 0
    for at, sample in enumerate(raw):
        if at in (70, 71, 190):
            stream.gap()
            assert app_.gap() == OK
        expected = stream.push(sample)
        assert app_.push(sample) == (WINDOW if len(expected) else OK)
        if len(expected):
            levels = quantise_input(np.moveaxis(expected, 1, 2), graph.input.scale, graph.input.zero_point)
            logits = student.invoke(levels)[0]
            for _ in range(2):  # asking again gives the same
                assert app_.classify() == (OK, logits.tolist(), int(logits.argmax()))
            windows += 1
    assert windows >= 3


def test_quantising_as_reported_by_users(app_: App) -> None:
    assert app_.quantise([-1.2, 0.3, 0.98], 0.0313, -5) == (OK, [-43, 5, 26])
    assert app_.quantise([0.5, 1.5, 2.5, -0.5, -1.5], 1.0, 0) == (OK, [0, 2, 2, 0, -2])
    assert app_.quantise([1e9, -1e9, np.inf, -np.inf, 3e38], 0.0313, -5) == (OK, [127, -128, 127, -128, 127])
    assert app_.quantise([0.0, np.nan], 0.0313, -5) == (NOT_FINITE, [0, 0])


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.floats(-1e9, 1e9, width=32), min_size=1, max_size=20),
    st.floats(2**-20, 1024, width=32),
    st.integers(-128, 127),
)
def test_quantising_is_that_of_python(values: list[float], scale: float, zero_point: int) -> None:
    app_ = App(the_student())
    halves = [scale * (round(value / scale % 200) + 0.5) for value in values]
    for x in (values, halves):
        expected = quantise_input(np.array(x, dtype=np.float32), scale, zero_point).tolist()
        assert app_.quantise(x, scale, zero_point) == (OK, expected)


def test_what_is_wrong_is_said_by_a_number_and_nothing_is_taken(app_: App) -> None:
    assert [app_.init(step) for step in (0, LENGTH + 1, 2**32 - 1)] == [WRONG_STEP] * 3
    assert app_.init() == OK
    assert app_.classify()[0] == NO_WINDOW
    for at in range(LENGTH):
        for broken in (np.nan, np.inf, -np.inf):
            assert app_.push(np.array([0.0, broken, 0.0])) == NOT_FINITE
        assert app_.push(np.array([100.0, -3.0, 0.01])) == (WINDOW if at == LENGTH - 1 else OK)
    status, logits, label = app_.classify()
    assert status == OK and label == int(np.argmax(logits))
    assert app_.gap() == OK and app_.classify()[0] == NO_WINDOW
    null, library = ctypes.c_void_p(None), app_.library
    assert library.student_init(null, 1) == NULL
    assert library.student_gap(null) == NULL
    assert library.student_push(app_.pointer, null) == NULL
    assert library.student_push(null, (ctypes.c_float * 3)()) == NULL
    assert library.student_invoke(app_.pointer, null, null) == NULL
    assert library.student_classify(app_.pointer, null, null) == NULL
    assert library.student_quantise(null, null, 1) == NULL


def test_numbers_of_the_header_are_those_of_the_model(app_: App) -> None:
    graph = graph_of(int8_file())
    levels = np.arange(-128, 128).astype(np.int8)
    expected = dequantise(levels, graph.output.scale, graph.output.zero_point)
    got = [app_.library.student_logit(ctypes.c_int8(int(level))) for level in levels]
    np.testing.assert_array_equal(np.array(got, dtype=np.float32), expected)
    assert [app_.library.student_class_name(i) for i in range(5)] == [name.encode() for name in NAMES]
    assert app_.library.student_class_name(5) is app_.library.student_class_name(-1) is None


ODD = ('say "hi"', "a\\b\n??/", "*/ int x; /*", "höchst größe é☃", "%s%n 12")


def test_an_odd_window_is_halved_as_in_python() -> None:
    content = random_int8(11)
    length = graph_of(content).input.rows
    assert length % 4 == 1  # where rounding half up and half to even differ
    assert f"#define STUDENT_DEFAULT_STEP {window_step(length, 0.5)}\n" in c_files(content)["student.h"]


def test_any_class_name_survives(tmp_path: Path) -> None:
    library = App(HostStudent(c_files(int8_file(), ODD), 5, ("-Wtrigraphs",))).library
    assert [library.student_class_name(i).decode() for i in range(5)] == list(ODD)
    assert literals.comment("*/ int x; /* \\\n") == "* / int x; / * .."


def test_the_header_can_be_included_twice(tmp_path: Path) -> None:
    for name, text in write_c(graph_of(int8_file()), app(graph_of(int8_file())), None).items():
        (tmp_path / name).write_text(text)
    (tmp_path / "app.c").write_text(
        '#include "student.h"\n#include "student.h"\nint main(void) { return STUDENT_CLASSES - 5; }\n'
    )
    compile_c(tmp_path, ("app.c",), tmp_path / "app")
    assert subprocess.run([tmp_path / "app"], check=False).returncode == 0


def test_the_example_of_the_documentation_works(tmp_path: Path) -> None:
    page = (Path(__file__).parents[1] / "docs" / "embedding.md").read_text("utf-8")
    (example,) = re.findall(r"```c\n(.*?)```", page, re.DOTALL)
    for name, text in {**c_files(int8_file()), "app.c": example}.items():
        (tmp_path / name).write_text(text)
    compile_c(tmp_path, ("app.c", *SOURCES), tmp_path / "app")
    assert subprocess.run([tmp_path / "app"], check=False).returncode == 0


def changed(change: str) -> bytes:
    model = schema.ModelT.InitFromPackedBuf(int8_file(), 0)
    graph = model.subgraphs[0]
    if change == "softmax":
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.SOFTMAX
        model.operatorCodes.append(code)
        graph.operators[-1].opcodeIndex = len(model.operatorCodes) - 1
    elif change == "dilation":
        graph.operators[0].builtinOptions.dilationWFactor = 2
    elif change == "relu6":
        graph.operators[2].builtinOptions.fusedActivationFunction = schema.ActivationFunctionType.RELU6
    elif change == "float":
        graph.tensors[graph.inputs[0]].type = schema.TensorType.FLOAT32
        graph.tensors[graph.inputs[0]].quantization = None
    else:
        for tensor in graph.tensors:
            if tensor.name == b"stem/bias":
                values = np.full(16, 2**31 - 1, dtype="<i4")
                model.buffers[tensor.buffer].data = np.frombuffer(values.tobytes(), np.uint8)
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("softmax", "logits: operator SOFTMAX, known are CONV_2D"),
        ("dilation", "stem: dilation 2, known is 1"),
        ("relu6", r"blocks.0.conv1: activation 3, known are none and ReLU"),
        ("float", "x: not int8 with a scale"),
        ("bias", "stem: sums that may overflow 32 bits"),
    ],
)
def test_what_the_kernels_do_not_know_is_named(change: str, message: str) -> None:
    with pytest.raises(BadInputError, match=message) as caught:
        read_integer_graph(changed(change))
    assert "--targets tflite" in caught.value.hint
    with pytest.raises(BadInputError, match="not a TFLite model"):
        read_integer_graph(b"PK\x03\x04 something else")
