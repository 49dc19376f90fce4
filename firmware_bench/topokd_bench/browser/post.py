"""What a page posts back, checked field by field, and the results that it becomes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from topokd_bench.timing import NS_PER_MS, Timing
from topokd_bench.types import Array

BUILDS = ("simd", "scalar")
MOST_TIMES = 2000
"""Times of one build; the page puts more windows into each time rather than take more times."""
LEAST_TIMES = 20
_DAY_MS = 86_400_000.0
_FACTS = {
    "user_agent": "text",
    "cores": "number or null",
    "memory_gb": "number or null",
    "screen": "text",
    "secure_context": "boolean",
    "cross_origin_isolated": "boolean",
    "hidden_while_timed": "boolean",
}


@dataclass(frozen=True)
class Wanted:
    """What the post must fit.

    Attributes
    ----------
    bundle
        Digest of the bundle.
    vectors, classes
        Self-test windows, and classes of the student.
    windows
        Held-out windows that the page was given to classify.
    engines
        Names of the runs in other engines, which come after the builds and in this order.
    pipelines
        Names of float pipelines, which come last; of each the windows that prove it and those it classifies.
    """

    bundle: str
    vectors: int
    classes: int
    windows: int = 0
    engines: tuple[str, ...] = ()
    pipelines: Mapping[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class BuildRun:
    """One build of the WebAssembly on the phone, the student in another engine, or a float pipeline.

    Attributes
    ----------
    build
        "simd", "scalar", or one of `Wanted.engines` and `Wanted.pipelines`.
    logits
        float32, (vectors, classes): what it answered to the self-test.
    timing
        Nanoseconds a window, each the mean of `windows_per_time` windows; empty when the self-test failed.
    cold_ms, download_ms
        Checking, compiling, loading and the first window; fetching the file before.
    windows_per_time, clock_ms
        Windows timed as one, since the browser's clock has steps of `clock_ms`.
    predicted
        int64, (windows,): classes of the held-out windows.
    error
        Why another engine could not run the student, or the pipeline did not run; all arrays are then empty.
    """

    build: str
    logits: Array
    timing: Timing
    cold_ms: float
    download_ms: float
    windows_per_time: int
    clock_ms: float
    predicted: npt.NDArray[np.int64]
    error: str = ""


@dataclass(frozen=True)
class Post:
    """A post that is sound: facts of the device, its builds, or why it could not run them."""

    facts: Mapping[str, Any]
    builds: tuple[BuildRun, ...]
    error: str


class PostError(ValueError):
    """A post that is not what the page sends; `problems` are all of them."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def read_post(body: bytes, wanted: Wanted) -> Post:
    """Read what a page posted.

    Raises
    ------
    PostError
        With everything that is missing, unknown, of another kind, out of range or of another bundle.
    """
    try:
        document = json.loads(body.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise PostError([f"no JSON in UTF-8 ({type(error).__name__})"]) from None
    reader = _Reader()
    fields = reader.object("post", document, ("bundle", "facts", "builds", "error"))
    if fields.get("bundle") != wanted.bundle:
        reader.problems.append("bundle: another than is benched")
    found = reader.object("facts", fields.get("facts"), tuple(_FACTS))
    facts = {name: reader.fact(f"facts.{name}", found.get(name), kind) for name, kind in _FACTS.items()}
    problem = reader.text("error", fields.get("error"))
    items: Any = fields.get("builds")
    items = items if isinstance(items, list) else []
    names = [item.get("build") if isinstance(item, dict) else None for item in items]
    whole = [[*own, *wanted.engines, *wanted.pipelines] for own in (["scalar"], ["simd", "scalar"])]
    if names not in [[], *whole] or bool(names) == bool(problem):
        expected = " or ".join(", ".join(one) for one in whole)
        reader.problems.append(f"builds: expected {expected}; or none of them and an error")
        items = []
    builds = tuple(_build(reader, f"builds.{item['build']}", item, wanted) for item in items)
    if reader.problems:
        raise PostError(reader.problems)
    return Post(facts, builds, problem)


def _build(reader: _Reader, where: str, item: dict[str, Any], wanted: Wanted) -> BuildRun:
    names = ("build", "logits", "times_ms", "warmup", "cold_ms", "download_ms", "error")
    fields = reader.object(where, item, (*names, "windows_per_time", "clock_ms", "predicted"))
    error = reader.text(f"{where}.error", fields.get("error"))
    if error and item["build"] in BUILDS:
        reader.problems.append(f"{where}.error: expected none of a build")

    def number(name: str, least: float = 0.0, most: float = _DAY_MS) -> float:
        return reader.number(f"{where}.{name}", fields.get(name), least, most)

    def array(name: str, most: float, counts: tuple[int, ...] | range) -> npt.NDArray[np.float64]:
        return reader.numbers(f"{where}.{name}", fields.get(name), most, (0,) if error else counts)

    vectors, windows = wanted.pipelines.get(item["build"], (wanted.vectors, wanted.windows))
    logits = array("logits", 3e38, (vectors * wanted.classes,))
    times = array("times_ms", _DAY_MS, (0, *range(LEAST_TIMES, MOST_TIMES + 1)))
    predicted = array("predicted", wanted.classes - 1, (windows,))
    if (times < 0).any() or (predicted < 0).any() or (predicted != np.floor(predicted)).any():
        reader.problems.append(f"{where}: times and classes are not below zero, classes are whole")
    shape = (vectors, wanted.classes) if logits.size else (0, wanted.classes)
    return BuildRun(
        build=item["build"],
        logits=logits.reshape(shape).astype(np.float32),
        timing=Timing(np.rint(times * NS_PER_MS).astype(np.int64), int(number("warmup", most=1e9))),
        cold_ms=number("cold_ms"),
        download_ms=number("download_ms"),
        windows_per_time=int(number("windows_per_time", 1, 1e9)),
        clock_ms=number("clock_ms"),
        predicted=predicted.astype(np.int64),
        error=error,
    )


class _Reader:
    """Takes typed values and collects what is wrong."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def object(self, where: str, value: Any, names: tuple[str, ...]) -> dict[str, Any]:
        """Return a JSON object with exactly these keys."""
        if not isinstance(value, dict) or set(value) != set(names):
            self.problems.append(f"{where}: expected an object of {', '.join(names)}")
            return {}
        return value

    def text(self, where: str, value: Any) -> str:
        """Return a short text that can be printed."""
        if not isinstance(value, str) or len(value) > 500 or not value.isprintable():
            self.problems.append(f"{where}: expected at most 500 printable characters")
            return ""
        return value

    def number(self, where: str, value: Any, least: float, most: float) -> float:
        """Return a number within a range."""
        if type(value) in (int, float) and least <= value <= most:
            return float(value)
        self.problems.append(f"{where}: expected a number from {least:g} to {most:g}")
        return least

    def numbers(
        self, where: str, value: Any, most: float, counts: tuple[int, ...] | range
    ) -> npt.NDArray[np.float64]:
        """Return a list of numbers of a size up to `most`, as many as one of `counts`."""
        sound = isinstance(value, list) and len(value) in counts
        if sound and all(type(one) in (int, float) and abs(one) <= most for one in value):
            return np.array(value, dtype=np.float64)
        self.problems.append(f"{where}: expected {_shown(counts)} numbers up to {most:g}")
        return np.empty(0)

    def fact(self, where: str, value: Any, kind: str) -> Any:
        """Return a fact of the device."""
        if kind == "text":
            return self.text(where, value)
        if kind == "boolean" and not isinstance(value, bool):
            self.problems.append(f"{where}: expected true or false")
        elif kind == "number or null" and value is not None:
            self.number(where, value, 0, 1e6)
        return value


def _shown(counts: tuple[int, ...] | range) -> str:
    return f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} or {counts[1]} to {counts[-1]}"


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def same_logits(got: Array, expected: Array) -> int:
    """Return how many windows have any logit that is not the expected one, to the bit."""
    return int((got.view(np.uint32) != expected.view(np.uint32)).any(axis=1).sum())


def is_disturbed(run: BuildRun, facts: Mapping[str, Any]) -> bool:
    """Tell whether the page was hidden, the last quarter a tenth slower than the first, or p95 twice p50.

    A page cannot see who else has the cores; these are what they leave behind.
    """
    found = run.timing.percentiles_ms()
    slowed = run.timing.drift() > 1.1 or found["p95"] > 2 * found["p50"]
    return bool(facts["hidden_while_timed"]) or slowed
