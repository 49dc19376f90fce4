"""What an app feeds sample by sample gives exactly the windows of the batch path."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_recordings import recording

from topokd_edge.bundle import WindowStream
from topokd_edge.data.recording import Gap
from topokd_edge.data.windows import Cut, make_windows
from topokd_edge.errors import BadInputError, UsageError
from topokd_edge.manifest import Normalisation

SCALE = Normalisation((0.1, -0.2, 1.0), (0.5, 2.0, 0.1))


@settings(max_examples=150, deadline=None)
@given(
    samples=st.integers(30, 400),
    length=st.integers(8, 40),
    overlap=st.sampled_from([0.0, 0.25, 0.5, 0.9]),
    pieces=st.lists(st.integers(0, 90), min_size=1, max_size=12),
    gaps=st.sets(st.integers(0, 395), max_size=3),
)
def test_any_division_of_the_samples_gives_the_windows_of_the_batch_path(
    samples: int, length: int, overlap: float, pieces: list[int], gaps: set[int]
) -> None:
    borders = sorted(at for at in gaps if at < samples - 1)
    made = replace(recording(samples=samples, rate_hz=1.0), gaps=tuple(Gap(at, 1.0) for at in borders))
    try:
        expected = SCALE.apply(make_windows([made], Cut(length, overlap), made={}).x[:])
    except BadInputError:  # no window fits
        expected = np.empty((0, 3, length), dtype=np.float32)
    stream = WindowStream(3, length, overlap, SCALE)
    cuts = {at + 1 for at in borders} | set(np.cumsum(np.resize(pieces, 400)).tolist()) | {samples}
    found, at = [], 0
    for stop in sorted(cut for cut in cuts if 0 < cut <= samples):
        found.append(stream.push(made.samples[:, at:stop].T))
        if stop - 1 in borders:
            stream.gap()
        at = stop
    np.testing.assert_array_equal(np.concatenate(found), expected)
    assert stream.pending < length


def test_sample_by_sample() -> None:
    stream = WindowStream(2, 4, 0.5)
    counted = [len(stream.push([number, -number])) for number in range(8)]
    assert counted == [0, 0, 0, 1, 0, 1, 0, 1]
    (window,) = stream.push([[8, -8], [9, -9]])
    assert window.tolist() == [[6, 7, 8, 9], [-6, -7, -8, -9]]
    assert stream.push(np.empty((0, 2))).shape == (0, 2, 4)


def test_a_refused_push_takes_nothing() -> None:
    stream = WindowStream(2, 4)
    stream.push(np.zeros((3, 2)))
    with pytest.raises(BadInputError, match=r"sample 1, channel 0: nan"):
        stream.push([[1, 1], [np.nan, 1]])
    with pytest.raises(BadInputError, match=r"shape \(1, 3\), expected \(n, 2 channels\)"):
        stream.push([1, 2, 3])
    assert stream.pending == 3
    assert stream.push([5, 6])[0].tolist() == [[0, 0, 0, 5], [0, 0, 0, 6]]


@pytest.mark.parametrize(
    "arguments", [(0, 4), (2, 0), (2, 4, 1.0), (2, 4, -0.1), (2, 4, 0.99), (2, 4, 0.5, SCALE)]
)
def test_senseless_streams_are_refused(arguments: tuple) -> None:
    with pytest.raises(UsageError):
        WindowStream(*arguments)


def test_it_needs_numpy_only() -> None:
    code = (
        "import sys, topokd_edge.streaming; "
        "heavy = {'torch', 'scipy', 'numba', 'pandas', 'pydantic', 'sklearn', 'typer'} & set(sys.modules); "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
