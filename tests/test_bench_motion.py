"""A phone's motion events as samples of a student: evenly spaced, in its units, gaps kept out."""

from __future__ import annotations

import json
import math
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.interpolate import make_interp_spline
from wasm_cases import printed

CODE = """
import { readFileSync } from "node:fs";
import { Resampler, valuesOf } from "./motion.js";
const { rate, events, plan, motions } = JSON.parse(readFileSync(0, "utf8"));
let gaps = 0;
const resampler = new Resampler(rate, () => (gaps += 1));
const samples = events.flatMap(([time, ...values]) => resampler.push(time, values));
const values = motions.map(([event, turned]) => valuesOf(event, plan, turned));
console.log(JSON.stringify({ samples, gaps, values }));
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    there = tmp_path_factory.mktemp("motion")
    script = resources.files("topokd_bench.browser") / "page" / "motion.js"
    (there / "motion.js").write_bytes(script.read_bytes())
    (there / "package.json").write_text('{"type": "module"}')
    return there


def resampled(folder: Path, rate: float, events: np.ndarray) -> tuple[np.ndarray, int]:
    data = {"rate": rate, "events": events.tolist(), "plan": {"channels": []}, "motions": []}
    answer = json.loads(printed(folder, CODE, json.dumps(data)))
    return np.array(answer["samples"]), answer["gaps"]


def uneven(seconds: float, rate: float, seed: int = 0) -> np.ndarray:
    """Events (time in ms, two values) at about a rate, early and late by a third of a step."""
    rng = np.random.default_rng(seed)
    step = 1000 / rate
    times = (
        5000.0 + step * np.arange(int(seconds * rate)) + rng.uniform(-step / 3, step / 3, int(seconds * rate))
    )
    return np.column_stack([times, rng.normal(size=len(times)), np.sin(times / 120)])


@pytest.mark.parametrize("rate", [20.0, 30.5, 60.0, 100.0])
def test_samples_are_means_of_the_lines_between_events(folder: Path, rate: float) -> None:
    """Against SciPy's integral of the linear spline."""
    events = uneven(6.0, 60.0)
    got, gaps = resampled(folder, rate, events)
    times = events[:, 0]
    edges = times[0] + 1000 / rate * np.arange(len(got) + 1)
    assert gaps == 0 and edges[-1] <= times[-1] < edges[-1] + 1000 / rate
    for channel in (0, 1):
        whole = make_interp_spline(times, events[:, channel + 1], k=1).antiderivative()
        np.testing.assert_allclose(got[:, channel], np.diff(whole(edges)) * rate / 1000, atol=1e-9)


def test_what_lies_far_above_half_the_rate_is_kept_out(folder: Path) -> None:
    """24 Hz, seen at 200 Hz: taken at 25 Hz as it is it would be 1 Hz of full height."""
    times = 5.0 * np.arange(1200)
    wave = np.sin(2 * math.pi * 24.0 * times / 1000)
    got, _ = resampled(folder, 25.0, np.column_stack([times, wave, wave]))
    assert np.abs(got[:, 0]).max() < 0.06 and np.abs(wave[::8]).max() > 0.99


def test_no_sample_reaches_across_a_gap(folder: Path) -> None:
    events = uneven(4.0, 60.0)
    late = events.copy()
    late[120:, 0] += 2000.0
    got, gaps = resampled(folder, 30.0, late)
    first, _ = resampled(folder, 30.0, events[:120])
    second, _ = resampled(folder, 30.0, events[120:])
    assert gaps == 1
    np.testing.assert_allclose(got, np.concatenate([first, second]), atol=1e-9)


def test_events_that_repeat_or_go_back_are_passed_over(folder: Path) -> None:
    events = uneven(2.0, 60.0)
    wrong = np.insert(events, [30, 60], events[[29, 50]] + [0.0, 99.0, 99.0], axis=0)
    np.testing.assert_array_equal(resampled(folder, 30.0, wrong)[0], resampled(folder, 30.0, events)[0])


def values(folder: Path, channels: list[dict[str, Any]], *motions: tuple[dict[str, Any], bool]) -> Any:
    data = {"rate": 30, "events": [], "plan": {"channels": channels}, "motions": motions}
    return json.loads(printed(folder, CODE, json.dumps(data)))["values"]


def test_units_axes_and_signs(folder: Path) -> None:
    """Rotation is alpha about x, beta about y, gamma about z, as browsers do it."""
    plan = [
        {"sensor": "acceleration", "axis": "z", "factor": 1 / 9.80665},
        {"sensor": "rotation", "axis": "x", "factor": math.pi / 180},
        {"sensor": "rotation", "axis": "z", "factor": 1},
    ]
    event = {
        "accelerationIncludingGravity": {"x": 1, "y": 2, "z": -9.80665},
        "acceleration": {"x": 0, "y": 0, "z": 0},
        "rotationRate": {"alpha": 180, "beta": 5, "gamma": 7},
    }
    plain, turned = values(folder, plan, (event, False), (event, True))
    assert plain == pytest.approx([-1.0, math.pi, 7.0])
    assert turned == pytest.approx([1.0, math.pi, 7.0])


def test_a_sensor_that_is_not_there_gives_nothing(folder: Path) -> None:
    plan = [
        {"sensor": "acceleration", "axis": "x", "factor": 1},
        {"sensor": "rotation", "axis": "y", "factor": 1},
    ]
    there = {"accelerationIncludingGravity": {"x": 1}, "rotationRate": {"beta": 2}}
    nothing = [{}, {"accelerationIncludingGravity": None}, {**there, "rotationRate": {"beta": None}}]
    got = values(folder, plan, (there, False), *((event, False) for event in nothing))
    assert got == [[1, 2], None, None, None]
