"""Persistence and persistence images in C: pairs of gudhi, images of the fast backend."""

from __future__ import annotations

import ctypes
import dataclasses
import functools
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_topology_diagram import Signal, by_gudhi, multiset, signals
from topokd_export.c.host import compile_c
from topokd_export.c.topology_layers import topology_layers

from topokd_edge.errors import UsageError
from topokd_edge.topology.image import persistence_images
from topokd_edge.topology.params import ImageParams
from topokd_edge.topology.sublevel import diagram

SHIM = """#include "topokd_topology.h"
@CONSTANTS@
void diagrams(const float *window, int32_t length, float *pairs);
void draw(const float *window, int32_t length, float *pairs, float *image, float *scratch);
void diagrams(const float *window, int32_t length, float *pairs)
{
    tk_persistence layer = layer_0;
    layer.length = length;
    tk_run_persistence(&layer, window, (tk_pair *)(void *)pairs);
}
void draw(const float *window, int32_t length, float *pairs, float *image, float *scratch)
{
    tk_image layer = layer_1;
    layer.length = length;
    diagrams(window, length, pairs);
    tk_run_image(&layer, (const tk_pair *)(const void *)pairs, image, scratch);
}
"""
RANGES = {"birth_range": ((-1.5, 1.0), (-0.7, 2.1)), "persistence_range": ((0.0, 2.5), (0.0, 1.3))}
PAPER = {"birth_range": ((-1.25, 1.25), (0.0, 2.0)), "persistence_range": ((0.0, 1.25), (0.0, 2.0))}
CASES = {
    "published": ImageParams(**RANGES),
    "narrow": ImageParams(**RANGES, sigma=0.002, size=(40, 70), min_life=0.0),
    "wide": ImageParams(**RANGES, sigma=0.4, size=(9, 5), normalise="none"),
    "one pixel": ImageParams(**RANGES, size=(1, 1), normalise="none"),
    "superlevel": ImageParams(**RANGES, filtration="superlevel", essential="cap"),
    "capped": ImageParams(**RANGES, size=(20, 30), essential="cap", essential_cap=0.75, min_life=0.05),
    "superlevel, capped": ImageParams(
        **RANGES,
        filtration="superlevel",
        size=(20, 30),
        essential="cap",
        essential_cap=-0.5,
        weight="constant",
    ),
    "kept": ImageParams(**RANGES, size=(32, 32), essential="keep"),
    "square root": ImageParams(**RANGES, size=(32, 32), weight_power=0.5, normalise="none"),
    "steep": ImageParams(**RANGES, size=(16, 32), weight_power=7.3),
    "steepest": ImageParams(**RANGES, size=(32, 16), weight_power=60.0),
    "ramp": ImageParams(**RANGES, size=(32, 16), weight="ramp", weight_ramp=(0.1, 0.6)),
    "paper": ImageParams(**PAPER, layout="paper", min_life=0.01),
    "paper, one row": ImageParams(**PAPER, layout="paper", sigma=0.1, size=(1, 9), min_life=0.0),
    "paper, narrow": ImageParams(**PAPER, layout="paper", sigma=0.004, size=(24, 50), essential="keep"),
    "paper, one column": ImageParams(**PAPER, layout="paper", sigma=0.1, size=(7, 1), normalise="none"),
}
LOST = 1e-12
"""What a pair beyond a range, of which the fast backend draws nothing at all, may leave."""
NONE, ONE = (0.0, 0.0), (1.0, 1.0)


@functools.cache
def compiled(case: str) -> ctypes.CDLL:
    layers = topology_layers(CASES[case], 1, NONE, ONE, "image")
    constants = "\n".join(layer.constants(index) for index, layer in enumerate(layers))
    runtime = resources.files("topokd_export.c") / "runtime"
    with TemporaryDirectory() as name:
        folder = Path(name)
        for file in ("topokd_topology.h", "topokd_topology.c"):
            (folder / file).write_text((runtime / file).read_text("utf-8"), "utf-8")
        (folder / "shim.c").write_text(SHIM.replace("@CONSTANTS@", constants), "utf-8")
        flags = (
            "-O1",
            "-shared",
            "-fPIC",
            "-ffp-contract=off",
            "-fsanitize=undefined",
            "-fno-sanitize-recover",
        )
        compile_c(folder, ("shim.c", "topokd_topology.c"), folder / "shim.so", flags)
        return ctypes.CDLL(str(folder / "shim.so"))


def pointer(array: npt.NDArray[np.float32]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def pairs_of(case: str, signal: Signal) -> npt.NDArray[np.float64]:
    """The pairs that the C finds in the first of two channels, an essential class among them."""
    window = np.stack([signal, np.full_like(signal, 9.0)], axis=1).astype(np.float32)
    room = np.full((2, len(signal) + 1, 2), 7.0, np.float32)
    compiled(case).diagrams(pointer(window), ctypes.c_int32(len(signal)), pointer(room))
    ends = np.flatnonzero(room[0, ::-1, 1] < room[0, ::-1, 0])
    return room[0, ::-1][: ends[0]].astype(np.float64)


def image_of(case: str, window: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The image of a window (2, length) by the C: (2, rows, columns)."""
    rows, columns = CASES[case].size
    samples = np.ascontiguousarray(window.T)
    room = np.empty((2, len(samples) + 1, 2), np.float32)
    image, scratch = np.empty((rows, columns, 2), np.float32), np.empty(rows + columns, np.float32)
    compiled(case).draw(pointer(samples), ctypes.c_int32(len(samples)), *map(pointer, (room, image, scratch)))
    return np.moveaxis(image, 2, 0)


def single(signal: Signal) -> Signal:
    return signal.astype(np.float32).astype(np.float64)


@settings(deadline=None, max_examples=150)
@given(signals())
def test_pairs_are_those_of_gudhi(signal: Signal) -> None:
    signal = single(signal)
    assert multiset(pairs_of("published", signal)) == multiset(by_gudhi(signal))


@settings(deadline=None, max_examples=60)
@given(signals())
def test_the_class_that_never_dies_is_treated_as_said(signal: Signal) -> None:
    signal = single(signal)
    for case, seen in (("superlevel", -signal), ("capped", signal)):
        params = CASES[case]
        expected = diagram(seen, essential="cap", cap=params.cap)
        assert multiset(pairs_of(case, signal)) == multiset(expected)
    kept = pairs_of("kept", signal)
    assert kept[:, 0].min() == signal.min() and kept[:, 1].max() == np.finfo(np.float32).max


@pytest.mark.parametrize("case", list(CASES))
@settings(deadline=None, max_examples=25)
@given(first=signals(), seed=st.integers(0, 10**6))
def test_images_are_those_of_the_fast_backend(case: str, first: Signal, seed: int) -> None:
    rng = np.random.default_rng(seed)
    second = rng.normal(0.3, 0.8, len(first)).round(int(rng.integers(1, 6)))
    window = np.stack([first, second]).astype(np.float32)
    params = CASES[case]
    expected = persistence_images(window[None], params, threads=1)[0][0]
    found = image_of(case, window)
    assert np.isfinite(found).all()
    # All pairs far beyond a range of the paper: a maximum out of the last bits of a Gaussian's tail.
    drawn, _ = persistence_images(window[None], dataclasses.replace(params, normalise="none"), threads=1)
    faint = (drawn > 0.0).any(axis=(0, 2, 3)) & (drawn[0].max(axis=(1, 2)) < 1e-6)
    for channel in np.flatnonzero(~faint | (params.layout == "cells")):
        wrong = np.abs(found[channel] - expected[channel]).max()
        assert wrong <= max(1e-5 * expected[channel].max(), LOST), (channel, wrong)


def test_loops_are_refused() -> None:
    with pytest.raises(UsageError, match="filtration = 'delay'"):
        topology_layers(ImageParams(**RANGES, filtration="delay"), 50, NONE, ONE, "image")
