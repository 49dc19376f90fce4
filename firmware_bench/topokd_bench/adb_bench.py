"""Pipelines in C on an Android device: proven, timed and tried, as results of the same schema as here."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from topokd_bench.accuracy import judge
from topokd_bench.adb import MACHINES, Phone
from topokd_bench.adb_state import STATE, before_after, read_state, throttled
from topokd_bench.local import Effort, Job, Measured, as_measured, other_mode
from topokd_bench.remote import MOST_BYTES, Candidate, tried, why_died
from topokd_bench.ssh import VanishedError, clean
from topokd_bench.timing import NS_PER_MS, Timing, sustained_summary
from topokd_bench.windows import TIMING_WINDOWS, HeldOut
from topokd_edge.bundle import DeviceError

Number = TypeVar("Number", int, float)

_SLICES = 10
_FACTS = {
    "cpu": ("ro.soc.model", "ro.board.platform", "ro.hardware"),
    "board": ("ro.product.model",),
    "maker": ("ro.product.manufacturer",),
    "abi": ("ro.product.cpu.abi",),
    "android": ("ro.build.version.release",),
    "sdk": ("ro.build.version.sdk",),
}
_START = "sh -c 'date +%s%N; ./student label; date +%s%N'"
_NANOSECONDS = re.compile(r"\d{19}")
"""What `date +%s%N` prints; one that does not know nanoseconds prints fewer digits, or a letter."""


def machine_of(phone: Phone) -> str:
    """Return what `uname -m` calls the ABI of a device.

    Raises
    ------
    DeviceError
        When the C is not built for it.
    """
    abi = phone.properties.get("ro.product.cpu.abi", "")
    if abi not in MACHINES:
        raise DeviceError(
            f"{phone.target}: the device's ABI is {abi!r}, the C is built for {', '.join(MACHINES)}"
        )
    return MACHINES[abi]


class PhoneBench:
    """Measures on a device.

    Parameters
    ----------
    phone
        A connected one.
    held_out
        Raw windows.
    digest
        Of the bundle.
    effort
        As of `topokd_bench.local.run_modes`; without `pin` and `every`.
    windows
        Held-out windows to classify, at most.

    Attributes
    ----------
    chosen
        Those it classifies.
    """

    def __init__(
        self, phone: Phone, held_out: HeldOut, digest: str, *, effort: Effort, windows: int | None = None
    ) -> None:
        self._phone, self._held_out, self._digest, self._effort = phone, held_out, digest, effort
        self.chosen = held_out.within(MOST_BYTES, windows)
        self.facts: dict[str, Any] = {
            name: next((phone.properties[key] for key in keys if phone.properties.get(key)), None)
            for name, keys in _FACTS.items()
        }
        self.facts |= {"machine": MACHINES.get(str(self.facts["abi"])), "serial": phone.serial}

    def measure(
        self, candidate: Candidate, *, lasting: bool = True
    ) -> tuple[list[Measured], DeviceError | None]:
        """Measure a pipeline in C.

        Parameters
        ----------
        candidate
            The pipeline.
        lasting
            Whether to measure the sustained mode too, if that is asked for.

        Returns
        -------
        tuple
            The results; and what ended the device after it had been timed, None when nothing did. A program
            that dies or answers wrongly is a result with an error.

        Raises
        ------
        DeviceError
            When the device vanishes before it was timed, or cannot take the files.
        """
        chosen = self.tried(candidate.job)
        self._put(candidate, chosen)
        try:
            self._prove(candidate)
            first = self._state()
            fields = self._timed(first)
        except _FailedError as error:
            return [self.failed(candidate.job, str(error))], None
        fields["self_test"] = {"vectors": len(candidate.proof.x), "bundle": self._digest}
        correct: dict[int, bool] = {}
        try:
            accuracy, correct = self._accuracy(chosen)
            steady = self._row(candidate.job, {**fields, **accuracy}, correct)
            return [steady, *(self._sustained(steady) if lasting else [])], None
        except (VanishedError, _FailedError) as error:
            ended = error if isinstance(error, DeviceError) else DeviceError(f"{self._phone.target}: {error}")
            return [self._row(candidate.job, fields, correct)], ended

    def failed(self, job: Job, why: str) -> Measured:
        """Return a result without figures."""
        return self._row(job, {"error": why}, {})

    def tried(self, job: Job) -> npt.NDArray[np.int64]:
        """Return the held-out windows a job is tried on, at most `accuracy_windows`."""
        return tried(self._held_out, self.chosen, job)

    def _put(self, candidate: Candidate, chosen: npt.NDArray[np.int64]) -> None:
        own, proof = self._held_out, candidate.proof
        self._phone.put("student", candidate.content)
        self._phone.run("chmod 700 student", seconds=60.0)
        self._phone.put("test", np.ascontiguousarray(proof.x).tobytes())
        timing = _interleaved(own.x[own.spread(TIMING_WINDOWS)], candidate.channels)
        self._phone.put("timing", timing.tobytes())
        self._phone.put("one", timing[:1].tobytes())
        if own.y is not None:
            self._phone.put("windows", _interleaved(own.x[chosen], candidate.channels).tobytes())

    def _numbers(
        self, words: str, data: str, kind: Callable[[str], Number], *, seconds: float = 0.0
    ) -> list[list[Number]]:
        """Run the program; return the numbers of each line."""
        lines, status = self._phone.run(words, data, seconds=self._effort.timeout + seconds)
        if status:
            raise _FailedError(_why(status, lines))
        try:
            return [[kind(word) for word in line.split()] for line in lines if line.strip()]
        except ValueError:
            raise _FailedError("the device answered nonsense") from None

    def _prove(self, candidate: Candidate) -> None:
        """Compare the logits of the self-test with those expected; see `topokd_bench.agent.prove`."""
        proof = candidate.proof
        words = "./student logits" if candidate.verb == "logits" else "./student levels"
        rows = self._numbers(words, "test", float)
        if [len(row) for row in rows] != [proof.expected.shape[1]] * len(proof.expected):
            raise _FailedError("self-test failed: other logits than expected: number of windows or classes")
        logits = (np.array(rows, np.float64) - proof.zero_point) * proof.scale
        worst = float(np.abs(logits - proof.expected).max())
        alike = float((logits.argmax(1) == proof.expected.argmax(1)).mean())
        if not worst <= proof.tolerance or alike < proof.agreement:  # a logit may be NaN
            raise _FailedError(
                f"self-test failed: logits differ by up to {worst:g} ({proof.tolerance:g} allowed), "
                f"{alike:.0%} alike"
            )

    def _timed(self, first: dict[str, Any]) -> dict[str, Any]:
        cold, clock = self._cold()
        how = self._effort
        timing, ram = self._time(how.warmup, how.runs, how.seconds)
        last = self._state()
        facts = {**self.facts, **before_after(first, last), "cold_clock": clock}
        facts |= {"latency_drift": timing.drift(), "first_tenth": timing.first_tenth()}
        return {
            "latency_ms": {**timing.percentiles_ms(), "cold": median(cold)},
            "cold": {"total_ms": cold},
            "runs": timing.runs,
            "warmup": timing.warmup,
            "ram_bytes": ram * 1024 or None,
            "throttled": throttled(first, last),
            "device": facts,
        }

    def _time(self, warmup: int, runs: int, seconds: float) -> tuple[Timing, int]:
        """Time calls; return the times and the peak of memory in kB."""
        words = f"./student time {warmup:d} {runs:d} {seconds:f}"
        (ram, *ns) = [row[0] for row in self._numbers(words, "timing", int, seconds=seconds)] or [0]
        if not ns or min(ns) < 0:
            raise _FailedError("the device answered nonsense")
        return Timing(np.array(ns, np.int64), warmup), ram

    def _cold(self) -> tuple[list[float], str]:
        """Return milliseconds from starting the program to its first label, and by whose clock.

        The device's includes a start of `date`; where that knows only seconds, the host's includes adb.
        """
        found, clock = [], "device"
        for _ in range(self._effort.starts):
            begin = time.monotonic_ns()
            lines, status = self._phone.run(_START, "one", seconds=self._effort.timeout)
            took = time.monotonic_ns() - begin
            if status or len(lines) != 3:
                raise _FailedError(_why(status, lines))
            if _NANOSECONDS.fullmatch(lines[0]) and _NANOSECONDS.fullmatch(lines[2]):
                took = max(0, int(lines[2]) - int(lines[0]))
            else:
                clock = "host"
            found.append(took / NS_PER_MS)
        return found, clock

    def _accuracy(self, chosen: npt.NDArray[np.int64]) -> tuple[dict[str, Any], dict[int, bool]]:
        own = self._held_out
        if own.y is None:
            return {}, {}
        labels = [row[0] for row in self._numbers("./student label", "windows", int)]
        if len(labels) != len(chosen):
            raise _FailedError("the device answered nonsense")
        return judge(own, chosen, labels)

    def _sustained(self, steady: Measured) -> list[Measured]:
        seconds = self._effort.sustained
        if seconds is None:
            return []
        first, slices, states = self._state(), [], []
        for _ in range(_SLICES):
            slices.append(self._time(0, 1, seconds / _SLICES)[0])
            states.append(self._state())
        medians = [part.percentiles_ms()["p50"] for part in slices]
        fields = {
            "latency_ms": slices[-1].percentiles_ms(),
            "runs": slices[-1].runs,
            "warmup": 0,
            "throttled": throttled(first, *states),
            "device": before_after(first, states[-1]),
            "sustained": sustained_summary(seconds, sum(part.runs for part in slices), medians, states),
        }
        return [other_mode(steady.result, "sustained", fields)]

    def _state(self) -> dict[str, Any]:
        lines, _ = self._phone.run(STATE, seconds=60.0)
        return read_state(lines)

    def _row(self, job: Job, fields: dict[str, Any], correct: dict[int, bool]) -> Measured:
        known = {"runtime": "c", "device": dict(self.facts)}
        return as_measured(job, {**known, **fields}, self._phone.target, 1, correct)


class _FailedError(Exception):
    """The student did not do what it must."""


def _why(status: int, lines: Sequence[str]) -> str:
    if status > 128:
        try:
            return why_died(signal.Signals(status - 128).name)
        except ValueError:
            pass
    last = clean(lines[-1]).strip() if lines else "no message"
    return f"the student ended with status {status} ({last})"


def _interleaved(x: Any, channels: Sequence[int]) -> Any:
    """Return windows (n, channels, length) as samples of the student's channels, (n, length, channels)."""
    return np.ascontiguousarray(np.moveaxis(x.take(list(channels), axis=1), 1, 2), dtype="<f4")
