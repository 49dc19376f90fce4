"""Models measured by the agent on a device, as results of the same schema as those of this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from topokd_bench import device
from topokd_bench.accuracy import judge
from topokd_bench.local import Effort, Job, Measured, as_measured, other_mode, with_own_start
from topokd_bench.remote_states import (
    both_states,
    modes,
    share,
    state_of,
    throttled,
    timing_of,
    under_voltage,
)
from topokd_bench.ssh import Agent, clean
from topokd_bench.timing import NS_PER_MS
from topokd_bench.types import Array
from topokd_bench.windows import TIMING_WINDOWS, HeldOut

MOST_BYTES = 32 << 20
"""Held-out windows sent to a device, evenly spread where there are more."""


@dataclass(frozen=True)
class Proof:
    """Self-test vectors a model must answer before it is timed.

    Attributes
    ----------
    x
        Normalised windows, float32 (n, channels, length). For `c` (n, length, channels): quantised, int8, or
        raw, float32, as its verb takes them.
    expected
        float32 (n, classes).
    tolerance, agreement
        Largest difference of a logit, and share of windows that must be classified alike.
    scale, zero_point
        Of the logits, where the runtime answers int8.
    """

    x: Any
    expected: Array
    tolerance: float
    agreement: float
    scale: float = 1.0
    zero_point: int = 0


@dataclass(frozen=True)
class Candidate:
    """A model file for one runtime, the first of several that may work on a device.

    Attributes
    ----------
    job
        What it is of; `accuracy_windows` are spread evenly over the held-out windows on the device.
    runtime
        What runs it there.
    content
        Of the file.
    channels
        Of the held-out windows, those it takes.
    proof
        What it must answer.
    verb
        What the C program calls that: `levels`, or `logits` where it computes in float32.
    """

    job: Job
    runtime: str
    content: bytes
    channels: Sequence[int]
    proof: Proof
    verb: str = "levels"


class Bench:
    """Measures on a device; windows and models are sent once.

    Parameters
    ----------
    agent
        A connected agent.
    held_out
        Raw windows.
    digest
        Of the bundle.
    threads
        Numbers of threads; all but the time of a steady run is measured with the first only.
    effort
        As of `topokd_bench.local.run_modes`.
    windows
        Held-out windows to classify, at most.
    """

    def __init__(
        self,
        agent: Agent,
        held_out: HeldOut,
        digest: str,
        *,
        threads: Sequence[int] = (1,),
        effort: Effort | None = None,
        windows: int | None = None,
    ) -> None:
        self._agent, self._held_out, self._digest = agent, held_out, digest
        self._threads, self._effort = tuple(threads), effort or Effort()
        self.chosen = held_out.within(MOST_BYTES, windows)
        timing = held_out.x[held_out.spread(TIMING_WINDOWS)]
        self._timing_count = len(timing)
        self._stored: set[str] = set()
        self._put("timing", _floats(timing))

    def measure(self, candidate: Candidate, *, lasting: bool = False) -> tuple[list[Measured], str]:
        """Measure a candidate.

        Parameters
        ----------
        candidate
            The model.
        lasting
            Whether to measure the sustained mode too, if that is asked for.

        Returns
        -------
        tuple
            The results, steady first; none when the runtime is not there or died; and why. A model that
            answers wrongly is a result with an error.

        Raises
        ------
        DeviceError
            When the device vanishes or cannot take the files.
        """
        job = self._job(candidate, self._threads[0], lasting=lasting)
        answer, raw = self._run(job)
        for key in ("missing", "died", "error"):
            if key in raw:
                return [], f"{candidate.runtime}: {_why(key, clean(str(raw[key])))}"
        if "mismatch" in raw:
            fields: dict[str, Any] = {"error": f"self-test failed: {clean(str(raw['mismatch']))}"}
            return [self._row(candidate, fields, {})], ""
        try:
            states = state_of(answer, "before"), state_of(answer, "after")
            fields, correct = self._fields(raw, *states, self.tried(candidate.job))
            if cold := self._cold_starts(job):
                fields["cold"] = with_own_start(cold, fields["latency_ms"])
            steady = self._row(candidate, fields, correct)
            others = [other_mode(steady.result, mode, each) for mode, each in modes(raw, job).items()]
        except (KeyError, TypeError, ValueError, IndexError) as error:
            nonsense = {"error": f"the device answered nonsense ({type(error).__name__}: {error})"}
            return [self._row(candidate, nonsense, {})], ""
        return [steady, *others, *self._more_threads(candidate)], ""

    def _run(self, job: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        answer = self._agent.run(job)
        raw = answer.get("answer")
        return answer, raw if isinstance(raw, dict) else {"error": "the agent answered nonsense"}

    def _cold_starts(self, job: dict[str, Any]) -> dict[str, Any] | None:
        """Start fresh processes for nothing but the first window; None when one fails."""
        short = {**job, "cold_only": True, "timeout": self._effort.timeout}
        answers = [self._run(short)[1] for _ in range(self._effort.starts - 1)]
        if not answers or any("cold" not in answer for answer in answers):
            return None
        found = [[int(value) / NS_PER_MS for value in answer["cold"]] for answer in answers]
        names = ("load_ms", "first_ms", "again_ms")
        parts = {name: median(each[place] for each in found) for place, name in enumerate(names)}
        return {"total_ms": [each[0] + each[1] for each in found], **parts}

    def _more_threads(self, candidate: Candidate) -> list[Measured]:
        """Time the candidate with other numbers of threads; the C has one whatever it is given."""
        found = []
        for threads in self._threads[1:] if candidate.runtime != "c" else ():
            answer, raw = self._run({**self._job(candidate, threads), "windows": "", "paced": None})
            try:
                fields, _ = self._fields(
                    raw, state_of(answer, "before"), state_of(answer, "after"), self.chosen
                )
            except (KeyError, TypeError, ValueError, IndexError):
                fields = {"error": clean(str(raw.get("error", "the device answered nonsense")))}
            found.append(self._row(candidate, fields, {}, threads))
        return found

    def failed(self, job: Job, why: str) -> Measured:
        """Return a result without figures."""
        target = self._agent.address.text
        return as_measured(job, {"error": why, "device": dict(self._agent.facts)}, target, self._threads[0])

    def _row(
        self, candidate: Candidate, fields: dict[str, Any], correct: dict[int, bool], threads: int = 0
    ) -> Measured:
        threads = 1 if candidate.runtime == "c" else threads or self._threads[0]
        known = {"runtime": candidate.runtime, "device": dict(self._agent.facts)}
        return as_measured(candidate.job, {**known, **fields}, self._agent.address.text, threads, correct)

    def _job(self, candidate: Candidate, threads: int, *, lasting: bool = False) -> dict[str, Any]:
        job, proof = candidate.job, candidate.proof
        name = f"{job.pipeline}-{candidate.runtime}"
        names = {"model": name, "test": f"{name}-test", "expected": f"{name}-expected"}
        self._put(names["model"], candidate.content)
        self._put(names["test"], np.ascontiguousarray(proof.x).tobytes())
        self._put(names["expected"], _floats(proof.expected))
        return {
            **names,
            "runtime": candidate.runtime,
            "timing": "timing",
            "timing_count": self._timing_count,
            "windows": self._windows(self.tried(job)),
            "shape": list(self._held_out.x.shape[1:]),
            "channels": list(candidate.channels),
            "mean": list(job.args.get("mean", ())),
            "std": list(job.args.get("std", ())),
            "verb": candidate.verb,
            "classes": proof.expected.shape[1],
            "tolerance": proof.tolerance,
            "agreement": proof.agreement,
            "scale": proof.scale,
            "zero_point": proof.zero_point,
            "threads": threads,
            "pin": self._effort.pin,
            "cold_only": False,
            "paced": self._effort.paced(),
            "sustained": self._effort.sustained if lasting else None,
            "warmup": self._effort.warmup,
            "runs": self._effort.runs,
            "seconds": self._effort.seconds,
            "timeout": self._effort.allowed(),
        }

    def tried(self, job: Job) -> npt.NDArray[np.int64]:
        """Return the held-out windows a job is tried on, at most `accuracy_windows`."""
        return tried(self._held_out, self.chosen, job)

    def _windows(self, chosen: npt.NDArray[np.int64]) -> str:
        """Return the name of held-out windows on the device; empty when their truth is not known."""
        if self._held_out.y is None:
            return ""
        name = "windows" if len(chosen) == len(self.chosen) else f"windows-{len(chosen)}"
        self._put(name, _floats(self._held_out.x[chosen]))
        return name

    def _put(self, name: str, content: bytes) -> None:
        if name not in self._stored:
            self._agent.put(name, content)
            self._stored.add(name)

    def _fields(
        self,
        raw: Mapping[str, Any],
        before: Mapping[str, Any],
        after: Mapping[str, Any],
        chosen: npt.NDArray[np.int64],
    ) -> tuple[dict[str, Any], dict[int, bool]]:
        """Turn what an agent counted into fields of `BenchResult`."""
        timing = timing_of(raw["ns"], self._effort.warmup)
        cpu, others = share(raw["cpu_share"]), share(raw["others_share"])
        facts = {
            **self._agent.facts,
            "latency_drift": timing.drift(),
            "first_tenth": timing.first_tenth(),
            "pinned_cores": None if raw["pinned_cores"] is None else [int(c) for c in raw["pinned_cores"]],
            "cpu_share": cpu,
            "others_share": others,
            "busy": device.is_busy(others, cpu),
            "under_voltage": under_voltage(after),
            **both_states(before, after),
        }
        fields: dict[str, Any] = {
            "latency_ms": {**timing.percentiles_ms(), "cold": int(raw["cold_ns"]) / NS_PER_MS},
            "runs": timing.runs,
            "warmup": timing.warmup,
            "ram_bytes": _bytes(raw["ram_bytes"]),
            "ram_baseline_bytes": _bytes(raw["ram_baseline_bytes"]),
            "throttled": throttled(before, after),
            "versions": {str(name): clean(str(value)) for name, value in raw["versions"].items()},
            "self_test": {"vectors": int(raw["vectors"]), "bundle": self._digest},
            "device": facts,
        }
        correct: dict[int, bool] = {}
        if self._held_out.y is not None and raw["labels"]:
            accuracy, correct = judge(self._held_out, chosen, raw["labels"])
            fields |= accuracy
        return fields, correct


def tried(held_out: HeldOut, chosen: npt.NDArray[np.int64], job: Job) -> npt.NDArray[np.int64]:
    """Return the windows a job is tried on: `chosen`, or its `accuracy_windows` where those are fewer."""
    limit = job.accuracy_windows
    return chosen if limit is None or limit >= len(chosen) else held_out.spread(limit)


def _bytes(value: Any) -> int | None:
    return None if value is None else int(value)


def _why(key: str, text: str) -> str:
    if key == "missing":
        return f"not on the device ({text})"
    return text if key == "error" else why_died(text)


def why_died(text: str) -> str:
    """Say what a signal that ended a model means."""
    meanings = {
        "SIGILL": "illegal instruction: this build is for a newer CPU",
        "SIGKILL": "killed, most likely for lack of memory",
        "SIGSEGV": "crashed",
    }
    return f"died of {text} ({meanings.get(text, 'unexpected')})"


def _floats(values: Any) -> bytes:
    return np.ascontiguousarray(values, dtype="<f4").tobytes()
