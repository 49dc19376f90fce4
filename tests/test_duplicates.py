"""Copies across subjects are found however they are cut or scaled; likeness between people is no copy."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from made_recordings import recording, shared_data
from scipy.signal import butter, sosfilt

from topokd_edge.data import duplicates
from topokd_edge.data.copied import copied_recordings
from topokd_edge.data.duplicates import find_copies
from topokd_edge.data.recording import LabelInterval, Recording
from topokd_edge.data.windows import Cut, make_windows
from topokd_edge.data.windowset import WindowSet

RATE = 50.0
HALF = Cut(2.0, 0.5)


def person(subject: str, seed: int, samples: int = 1500, source: str = "") -> Recording:
    """Somebody moving irregularly below 5 Hz, three axes, with sensor noise."""
    rng = np.random.default_rng(seed)
    low_pass = butter(2, 5, fs=RATE, output="sos")
    signal = sosfilt(low_pass, rng.normal(0, 2, (3, samples))) + rng.normal(0, 0.002, (3, samples))
    return of(recording(subject, rate_hz=RATE, source=source or f"file-{seed}"), signal)


def of(item: Recording, signal: np.ndarray) -> Recording:
    """The same recording with another signal."""
    labels = (LabelInterval(0, signal.shape[1], "a"),)
    return replace(item, samples=np.ascontiguousarray(signal, dtype=np.float32), labels=labels)


def windows(*recordings: Recording, cut: Cut = HALF) -> WindowSet:
    return make_windows(recordings, cut, made={})


def crowd() -> list[Recording]:
    return [person(str(number), number) for number in range(1, 6)]


def quantised(signal: np.ndarray, bits: int) -> np.ndarray:
    step = 2 * np.abs(signal).max(axis=1, keepdims=True) / 2**bits
    return np.round(signal / step) * step


def noisy(signal: np.ndarray, db: float) -> np.ndarray:
    rng = np.random.default_rng(9)
    return signal + rng.normal(0, 1, signal.shape) * signal.std(axis=1, keepdims=True) * 10 ** (-db / 20)


def test_people_are_no_copies_of_each_other() -> None:
    copies, looked_up = find_copies(windows(*crowd()))
    assert (len(copies), looked_up) == (0, 5 * 29)


@pytest.mark.parametrize("shift", [0, 1, 17, 49, 50, 73])
@pytest.mark.parametrize("cut", [HALF, Cut(2.0, 0.0)])
def test_an_exact_copy_is_found_wherever_it_begins(shift: int, cut: Cut) -> None:
    original = crowd()
    copy = of(replace(original[2], subject="6", source="copy"), original[2].samples[:, shift:])
    made = windows(*original, copy, cut=cut)
    copies, _ = find_copies(made)
    assert copies.exact.all()
    (pair,) = copied_recordings(made, copies)
    assert (pair.subjects, pair.sources, pair.exact) == (("3", "6"), ("file-3", "copy"), True)
    assert pair.windows[1] >= 0.9 * np.count_nonzero(made.subject == "6")
    # Sample t of window b is sample t + shift of window a.
    assert set((made.start[copies.b] - made.start[copies.a] - copies.shift).tolist()) == {-shift}
    assert made.subject[copies.a].tolist() == ["3"] * len(copies)


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "another unit": lambda signal: signal * np.float32(9.80665),
    "a unit and an offset per channel": lambda signal: signal * np.array([[2], [0.1], [30]]) + 5,
    "10 bits": lambda signal: quantised(signal, 10),
    "noise at 40 dB": lambda signal: noisy(signal, 40),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("shift", [0, 23])
def test_a_near_copy_is_found_and_its_shift(change: str, shift: int) -> None:
    original = crowd()
    copy = CHANGES[change](original[2].samples[:, shift:])
    made = windows(*original, of(replace(original[2], subject="6", source="copy"), copy))
    copies, _ = find_copies(made)
    assert not copies.exact.any()
    (pair,) = copied_recordings(made, copies)
    assert (pair.subjects, pair.exact) == (("3", "6"), False)
    assert pair.windows[1] >= (0.9 if shift == 0 else 0.3) * np.count_nonzero(made.subject == "6")
    behind = made.start[copies.b] - made.start[copies.a] - copies.shift
    assert np.abs(behind + shift).max() <= 1
    assert copies.similarity.min() >= duplicates.SAME


def test_noise_that_moves_a_flat_peak_does_not_hide_a_copy() -> None:
    # Below 1 Hz, peaks are flat and noise moves them by a sample or two.
    low_pass = butter(2, 1, fs=RATE, output="sos")
    original = [of(item, sosfilt(low_pass, item.samples)) for item in crowd()]
    made = windows(*original, of(replace(original[2], subject="6"), noisy(original[2].samples, 34)))
    copies, _ = find_copies(made)
    assert len(np.unique(copies.b)) >= 0.9 * np.count_nonzero(made.subject == "6")
    assert set((made.start[copies.b] - made.start[copies.a] - copies.shift).tolist()) == {0}


def test_louder_noise_and_an_inverted_axis_are_not_called_copies() -> None:
    original = crowd()
    for signal in (noisy(original[2].samples, 10), original[2].samples * [[1], [1], [-1]]):
        copies, _ = find_copies(windows(*original, of(replace(original[2], subject="6"), signal)))
        assert len(copies) == 0


def test_a_copy_within_one_subject_is_his_own_affair() -> None:
    original = crowd()
    copies, _ = find_copies(windows(*original, replace(original[2], session="2", source="again")))
    assert len(copies) == 0


def test_stillness_and_saturation_are_no_evidence() -> None:
    still = np.repeat([[0.0], [0.0], [1.0]], 1500, axis=1)
    saturated = np.where(np.arange(1500) % 500 < 490, 8.0, -8.0) * np.ones((3, 1))
    for signal in (still, saturated):
        people = [of(person(str(number), number), signal) for number in (1, 2, 3)]
        for cut in (HALF, Cut(0.2, 0.0)):
            assert len(find_copies(windows(*people, cut=cut))[0]) == 0


def test_a_flickering_last_digit_is_no_evidence() -> None:
    people = []
    for number in (1, 2, 3):
        signal = np.repeat([[0.0], [0.0], [1.0]], 1500, axis=1)
        signal[0] += 0.004 * (np.random.default_rng(number).random(1500) < 0.1)
        people.append(of(person(str(number), number), signal))
    for cut in (HALF, Cut(0.2, 0.0)):
        assert len(find_copies(windows(*people, cut=cut))[0]) == 0


def test_slow_drifts_are_alike_but_no_copies() -> None:
    # A temperature: everybody's skin warms up, along a line or a bend.
    time = np.arange(1500) / 1500
    for shape in (time, time**2, np.exp(-time)):
        people = []
        for number in (1, 2, 3):
            warm = 30 + number * shape + np.random.default_rng(number).normal(0, 0.001, 1500)
            people.append(of(person(str(number), number), np.repeat(warm[None], 3, axis=0)))
        assert len(find_copies(windows(*people))[0]) == 0


def test_one_alike_moment_is_no_near_copy() -> None:
    # Two people make the same gesture once; all else differs.
    first, second = person("1", 1), person("2", 2)
    signal = second.samples.copy()
    signal[:, 500:640] = first.samples[:, 700:840] * 1.1
    copies, _ = find_copies(windows(first, of(second, signal)))
    assert len(copies) == 0


def test_the_sign_of_zero_does_not_hide_a_copy() -> None:
    signal = np.where(np.abs(person("1", 1).samples) < 0.2, 0.0, person("1", 1).samples)
    made = windows(of(person("1", 1), signal), of(person("2", 2), np.where(signal == 0, -0.0, signal)))
    assert find_copies(made)[0].exact.all()
    assert len(find_copies(made)[0]) >= 25


def test_the_shortest_windows_and_a_single_subject_are_taken() -> None:
    for cut in (Cut(0.16, 0.0), Cut(0.32, 0.5), Cut(0.34, 0.0)):
        assert len(find_copies(windows(*crowd()[:2], cut=cut))[0]) == 0
    assert len(find_copies(windows(person("1", 1)))[0]) == 0


def test_a_large_set_is_sampled_and_its_copies_are_still_found(monkeypatch: pytest.MonkeyPatch) -> None:
    original = [person(str(number), number, samples=15_000) for number in range(1, 9)]
    copy = of(replace(original[2], subject="9", source="copy"), original[2].samples * 3)
    made = windows(*original, copy)
    monkeypatch.setattr(duplicates, "_COMPARISONS", 0)
    copies, looked_up = find_copies(made, seed=1)
    assert looked_up == 2000 < len(made)
    (pair,) = copied_recordings(made, copies)
    assert pair.subjects == ("3", "9")
    again, _ = find_copies(made, seed=1)
    assert np.array_equal(copies.a, again.a)


def real(name: str, cut: Cut) -> WindowSet:
    """A shared set in the neutral form, cut into windows."""
    with np.load(shared_data(name)) as file:
        arrays = {key: file[key] for key in file.files}
    names = arrays["class_names"].tolist()
    columns = arrays["recording_columns"].tolist()
    items = []
    for number, row in enumerate(arrays["recordings"].tolist()):
        at = dict(zip(columns, row, strict=True))
        signal = arrays["counts"][:, at["start"] : at["stop"]] * np.float32(arrays["scale"])[:, None]
        items.append(
            replace(
                recording(str(at["subject"]), rate_hz=float(arrays["fs"]), source=f"{name}#{number}"),
                samples=signal.astype(np.float32),
                channels=tuple(arrays["channels"].tolist()),
                units=tuple(arrays["units"].tolist()),
                labels=(LabelInterval(0, signal.shape[1], names[at["class"]]),),
            )
        )
    return make_windows(items, cut, made={})


def test_real_people_are_no_copies() -> None:
    """USC-HAD: nobody, and 20,768 windows of 6 channels take less than 30 s of one core."""
    made = real("usc_had/usc_had_100hz.npz", Cut(2.56, 0.5))
    began = time.process_time()
    copies, looked_up = find_copies(made)
    assert (len(made), len(copies), looked_up) == (20_768, 0, 20_768)
    assert time.process_time() - began < 30


def test_the_copies_in_dsads_are_found() -> None:
    """Subjects 4 and 8 share rowing and jumping, ten samples apart, in all 18 channels."""
    made = real("dsads/dsads_3imu_25hz.npz", Cut(5.0, 0.0))
    items = {(item.subject, item.labels[0].label): item.samples for item in made.recordings}
    shared = [
        name
        for name in made.class_names
        if np.array_equal(items["4", name][:, :-10], items["8", name][:, 10:])
    ]
    assert shared == ["jumping", "rowing"]
    copies, _ = find_copies(made)
    assert {made.class_names[label] for label in made.y[copies.a].tolist()} == set(shared)
    pairs = copied_recordings(made, copies)
    assert [(pair.subjects, pair.windows, pair.exact) for pair in pairs] == [(("4", "8"), (60, 60), True)] * 2
