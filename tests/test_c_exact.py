"""The C gives the bytes of TensorFlow Lite Micro, and LiteRT's reference kernels within one step."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

import numpy as np
import pytest
from c_cases import (
    any_levels,
    c_files,
    compiled,
    graph_of,
    int8_file,
    lite_tensors,
    random_int8,
    tflm_logits,
)
from export_cases import activities, random_student
from made_recordings import shared_data
from topokd_export.c.host import HostStudent
from topokd_export.c.integer_graph import Add, Conv, Scale
from topokd_export.c.tflite_reader import quantised_multiplier
from topokd_export.deploy import deploy_form
from topokd_export.quantise import quantise

from topokd_edge.bundle import open_model, quantise_input
from topokd_edge.errors import BadInputError
from topokd_edge.models.wrn import WRNSpec

SATURATED = (163, 182, 186)
"""Random graphs whose biases are too large, for the quantiser too."""


def difference(got: np.ndarray, expected: np.ndarray) -> int:
    return int(np.abs(got.astype(int) - expected.astype(int)).max())


def test_a_thousand_windows_extreme_and_random_ones(tmp_path: Path) -> None:
    content = int8_file()
    graph = graph_of(content)
    x, _ = activities(1000, seed=11)
    levels = quantise_input(np.moveaxis(x, 1, 2), graph.input.scale, graph.input.zero_point)
    levels = np.concatenate([levels, any_levels(graph, 100)])
    expected = tflm_logits(content, levels)
    assert len(np.unique(expected.argmax(axis=1))) == 5
    for kernel in ("REF", "BLK"):
        assert np.array_equal(compiled(content, kernel).invoke(levels), expected), kernel
    (tmp_path / "m.tflite").write_bytes(content)
    reference = open_model(tmp_path / "m.tflite", reference_kernels=True)
    for window, logits in zip(levels[::10], expected[::10], strict=True):
        assert difference(reference.invoke(window[None, None]), logits) <= 1


@pytest.mark.parametrize("perturbed", [False, True], ids=["calibrated", "perturbed"])
@pytest.mark.parametrize("seed", range(3))
def test_every_operator_in_odd_sizes(seed: int, perturbed: bool) -> None:
    check_random(seed, perturbed=perturbed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 200))
def test_many_more_graphs(seed: int) -> None:
    for perturbed in (True, False):
        if seed in SATURATED:
            with pytest.raises(BadInputError, match="may overflow 32 bits"):
                check_random(seed, perturbed=perturbed)
        else:
            check_random(seed, perturbed=perturbed)


def check_random(seed: int, *, perturbed: bool) -> None:
    content = random_int8(seed, perturbed=perturbed)
    levels = any_levels(graph_of(content), 60, seed=seed)
    expected = tflm_logits(content, levels)
    for kernel in ("REF", "BLK"):
        assert np.array_equal(compiled(content, kernel).invoke(levels), expected), kernel


def test_the_random_graphs_reach_every_path() -> None:
    """Quick and general arithmetic, shifts to the left, cut-offs at -128 and above."""
    layers = [
        layer
        for seed in range(3)
        for perturbed in (False, True)
        for layer in graph_of(random_int8(seed, perturbed=perturbed)).layers
    ]
    sums = [layer for layer in layers if isinstance(layer, Conv | Scale)]
    assert {layer.rescale.fast for layer in sums if isinstance(layer, Conv)} == {True, False}
    assert {layer.rescale.fast for layer in sums if isinstance(layer, Scale)} == {True, False}
    assert {layer.fast for layer in layers if isinstance(layer, Add)} == {True, False}
    assert max(int(layer.rescale.shift.max()) for layer in sums) > 0
    assert len({layer.rescale.low for layer in sums}) > 2


def test_every_layer_has_the_bytes_of_the_reference_kernels(tmp_path: Path) -> None:
    content = int8_file()
    graph = graph_of(content)
    student = compiled(content, "BLK", "-DSTUDENT_DEBUG")
    window = any_levels(graph, 8, seed=3)[7]
    student.invoke(window[None])
    tensors = lite_tensors(content, window, tmp_path)
    exact = [layer.name for layer in graph.layers[:-2]]  # LiteRT's MEAN may differ by one step
    assert [name for name, _ in checksums(student, len(graph.layers))][:-2] == exact
    for name, hashed in checksums(student, len(graph.layers))[:-2]:
        assert hashed == fnv(tensors[name]), name


def test_a_layer_that_does_not_run_is_named() -> None:
    content = int8_file()
    files = c_files(content)
    window = any_levels(graph_of(content), 8, seed=3)[7:]
    count = len(graph_of(content).layers)
    flags = ("-O1", "-DSTUDENT_DEBUG")
    right = HostStudent(files, 5, flags)
    right.invoke(window)
    for index in (1, 4, count - 2):
        call = re.compile(rf"    tk_run_\w+\(&layer_{index},[^;]*;\n")
        assert len(call.findall(files["student.c"])) == 1
        # The constants of the layer are then unused, which is what the compiler would say first.
        text = call.sub(f"    (void)&layer_{index};\n", files["student.c"])
        broken = HostStudent({**files, "student.c": text}, 5, flags)
        broken.invoke(window)
        pairs = zip(checksums(right, count), checksums(broken, count), strict=True)
        first = next(ours[0] for ours, theirs in pairs if ours != theirs)
        assert first == graph_of(content).layers[index].name


def checksums(student: HostStudent, count: int) -> list[tuple[str, int]]:
    """Name and hash of every layer's output in a debug build."""
    library = student.library
    library.student_layer_name.restype = ctypes.c_char_p
    library.student_layer_checksum.restype = ctypes.c_uint32
    assert library.student_layer_name(count) is None
    pointer = ctypes.c_void_p(student.student)
    return [
        (library.student_layer_name(index).decode(), library.student_layer_checksum(pointer, index))
        for index in range(count)
    ]


def fnv(values: np.ndarray) -> int:
    hashed = 2166136261
    for byte in values.astype(np.int8).tobytes():
        hashed = ((hashed ^ byte) * 16777619) % 2**32
    return hashed


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.5, (1 << 30, 0)),
        (1.0, (1 << 30, 1)),
        (0.75, (3 << 29, 0)),
        (2**-31, (1 << 30, -30)),
        (2**-40, (0, 0)),
    ],
)
def test_multipliers(value: float, expected: tuple[int, int]) -> None:
    assert quantised_multiplier(value) == expected
    assert quantised_multiplier(0.0) == (0, 0)
    assert quantised_multiplier(1 - 2**-40) == (1 << 30, 1)


@pytest.mark.slow
def test_real_windows_of_eight_people() -> None:
    """A student as large as on a wrist, on the 125-sample windows of DSADS, calibrated on them."""
    with np.load(shared_data("dsads/dsads_3imu_25hz.npz")) as data:
        counts = data["counts"][:6].reshape(6, -1, 125)[:, ::8].astype(np.float32)
    mean, std = (getattr(counts, name)(axis=(1, 2), keepdims=True) for name in ("mean", "std"))
    x = np.moveaxis((counts - mean) / std, 0, 1)
    model = random_student(WRNSpec(1, 16, 1, 6, 19))
    content = quantise(deploy_form(model, (125,)), x[:: len(x) // 200])
    graph = graph_of(content)
    levels = quantise_input(np.moveaxis(x, 1, 2), graph.input.scale, graph.input.zero_point)
    assert len(levels) >= 1000
    expected = tflm_logits(content, levels)
    for kernel in ("REF", "BLK"):
        assert np.array_equal(compiled(content, kernel).invoke(levels), expected), kernel
