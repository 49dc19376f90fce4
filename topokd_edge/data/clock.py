"""What time stamps say: the rate over the whole span, gaps, repeated and uneven stamps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from topokd_edge.data.recording import Clock, Gap
from topokd_edge.data.ticks import COARSE_SHARE, Scale, Steps, Thinned, scale_of, steps_between
from topokd_edge.errors import BadInputError

STATED_TOLERANCE = 0.005
"""A file's own rate is believed within this: crystals err by less than 0.1 % and cheap sensors by a few
tenths, while another setting of the sensor (80 or 83 Hz, 25 or 26 Hz) differs by more."""
_SHOWN = 10
_SEGMENTS = 1000
_GROUP = 64
"""Consecutive time steps over which stamps are compared with even ones; over more, slow drift would count."""
_UNEVEN_SHARE = 0.05

Times = Callable[[], Iterator[npt.NDArray[np.float64]]]
"""Reads time stamps in seconds, block by block, from the beginning; each block has shape (n,)."""


@dataclass(frozen=True, slots=True)
class ClockReading:
    """What time stamps say, and what to make of it.

    Attributes
    ----------
    clock
        For the record; None where there are no stamps. `jitter_s` is the standard deviation of the time steps
        (period jitter), `resolution_s` the grid the stamps lie on.
    gaps
        In order: steps longer than a lost sample explains, and the borders (0 seconds).
    rate_hz
        The rate to use.
    uneven
        Taken as evenly spaced, more than one sample in twenty would lie off by more than half an interval
        (and half the resolution) within 64 time steps: interpolate on the stamps, or ask the user for the
        rate.
    notes
        What a person should know.
    """

    clock: Clock | None
    gaps: tuple[Gap, ...]
    rate_hz: float
    uneven: bool
    notes: tuple[str, ...]


def read_clock(
    times: Times, *, stated_hz: float | None, stated_by_user: bool, borders: tuple[int, ...], where: str
) -> ClockReading:
    """Read the time stamps of a recording; two passes, memory for one block.

    The rate is samples over time of all steps that are no gap, never the commonest step. A step is a gap when
    it is longer than 1.5 intervals. Where that cannot be told from the stamps, the rule gives way: by the
    resolution (at 900 Hz whole milliseconds step by 1 and 2), and to five robust standard deviations of
    uneven stamps. Samples that share one stamp belong to the time until the next stamp; when more than one
    sample is missing from it there is a gap, except at the ends of a stretch, where it may be partial. Where
    inside that time they are missing the stamps do not say; the gap is put at its end.

    Parameters
    ----------
    times
        Stamps in seconds.
    stated_hz
        Rate that the file or the user says, in Hz.
    stated_by_user
        The user's is always used, a file's only within 0.5 % of the estimate.
    borders
        Samples before which an unknown time passed, ascending; there the stamps may go backward.
    where
        Name of the recording for messages.

    Raises
    ------
    BadInputError
        When stamps are NaN or infinite, go backward (samples named, counted from 0) or never move, or there
        are none.
    """
    survey = _survey(times, np.asarray(borders, dtype=np.int64), where)
    coarse = survey.repeated > COARSE_SHARE * survey.samples
    scale = scale_of(survey.steps, survey.head, survey.noise, coarse, stated_hz)
    measure = _Measure(scale, survey.samples)
    for steps in steps_between(times(), survey.borders):
        measure.add(steps)
    estimate, notes = measure.rate_hz()
    rate_hz, more = _choose(estimate, stated_hz, stated_by_user)
    clock = Clock(
        estimated_hz=estimate,
        stated_hz=stated_hz,
        resolution_s=scale.grid,
        jitter_s=measure.jitter(),
        drift_ppm=measure.drift_ppm(),
        repeated=survey.repeated,
        segment_hz=measure.segment_hz(),
    )
    return ClockReading(clock, measure.gaps(rate_hz), rate_hz, measure.uneven(), (*notes, *more))


@dataclass(frozen=True, slots=True)
class _Survey:
    samples: int
    repeated: int
    steps: npt.NDArray[np.float64]
    head: npt.NDArray[np.float64]
    noise: float
    borders: npt.NDArray[np.int64]


def _survey(times: Times, borders: npt.NDArray[np.int64], where: str) -> _Survey:
    """Refuse stamps that make no sense, count, and keep a fair sample of the steps."""
    problems: list[str] = []
    bad = samples = distinct = 0
    largest = 0.0

    def finite() -> Iterator[npt.NDArray[np.float64]]:
        nonlocal bad, samples, largest
        for block in times():
            wrong = np.flatnonzero(~np.isfinite(block))
            bad += len(wrong)
            problems.extend(
                f"sample {samples + at}: time stamp {block[at]}" for at in wrong[: _SHOWN - len(problems)]
            )
            samples += len(block)
            if len(block) and not len(wrong):
                largest = max(largest, float(np.abs(block).max()))
            yield block

    kept = Thinned()
    head = np.empty((0, 2))
    for steps in steps_between(finite(), borders):
        distinct += len(steps.step)
        inner = ~steps.border
        back = np.flatnonzero(inner & (steps.step < 0))
        bad += len(back)
        problems.extend(
            f"sample {steps.last[at] + 1}: {-steps.step[at]:.9g} s earlier than the one before"
            for at in back[: max(0, _SHOWN - len(problems))]
        )
        both = np.stack([steps.step[inner], steps.rows[inner]], axis=1)
        head = head if len(head) else both
        kept.add(both)
    if bad:
        more = [f"and {bad - len(problems)} more"] if bad > len(problems) else []
        raise BadInputError(
            f"{where}: {bad} time stamp(s) that no clock gives (samples are counted from 0)",
            problems=[*problems, *more],
            hint="sort or correct the rows named; csv and parquet without stamps: --time none --rate HZ",
        )
    values = kept.values()
    if not len(values):
        raise BadInputError(
            f"{where}: {samples} sample(s) whose time stamps never move, so they say nothing about the rate",
            hint="csv, parquet: name the right column with --time, or without stamps: --time none --rate HZ",
        )
    noise = max(1e-6, 4 * float(np.spacing(largest)))
    return _Survey(samples, samples - distinct - 1, values, head, noise, borders)


def _choose(estimate: float, stated: float | None, by_user: bool) -> tuple[float, list[str]]:
    """Return the rate to use and what to say about it.

    Six digits of an estimate are what a sensor's clock keeps. With more, no two recordings would have the
    same rate: the rounding of seconds since 1970 alone is 2e-7 s.
    """
    estimate = float(f"{estimate:.6g}")
    if stated is None:
        return estimate, []
    off = stated / estimate - 1
    if abs(off) <= STATED_TOLERANCE:
        return stated, []
    who, used = ("the user", stated) if by_user else ("the file", estimate)
    return used, [
        f"{who} says {stated:.6g} Hz, the time stamps {estimate:.6g} Hz ({100 * off:+.2g} % off); "
        f"{used:.6g} Hz is used"
    ]


@dataclass(slots=True)
class _Measure:
    """Adds up what the second pass sees."""

    scale: Scale
    samples: int
    judged: int = 0
    displaced: int = 0
    _fresh: bool = True
    _segment: int = 0
    _excess: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    _whole: list[float] = field(default_factory=lambda: [0.0, 0.0])
    _rough: list[float] = field(default_factory=lambda: [0.0, 0.0])
    _quarter: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros((4, 2)))
    _segment_rows: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(_SEGMENTS))
    _segment_time: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(_SEGMENTS))
    _breaks: list[npt.NDArray[np.float64]] = field(default_factory=list)
    _late: list[npt.NDArray[np.float64]] = field(default_factory=list)

    def add(self, steps: Steps) -> None:
        """Take the next steps."""
        if not len(steps.step):
            return
        excess = steps.step - steps.rows * self.scale.interval
        ends = self.scale.gaps(steps, excess, self._fresh) | steps.border
        opens = np.concatenate([[self._fresh], ends[:-1]])
        whole = ~ends & ~(opens & self.scale.coarse)
        self._fresh = bool(ends[-1])
        late = np.where(ends | (not self.scale.coarse), 0.0, np.maximum(excess, 0.0))
        self._late.append(late[opens])
        self._breaks.append(np.stack([steps.last, steps.step, steps.rows, steps.border], axis=1)[ends])
        self._add_rates(steps, ends, whole)
        excess[~whole] = 0
        self._excess[0] += int(np.count_nonzero(whole))
        self._excess[1] += float(excess.sum())
        self._excess[2] += float((excess**2).sum())
        self._add_displacement(excess)

    def _add_rates(self, steps: Steps, ends: npt.NDArray[np.bool_], whole: npt.NDArray[np.bool_]) -> None:
        step, rows = np.where(whole, steps.step, 0), np.where(whole, steps.rows, 0)
        self._whole = [self._whole[0] + float(rows.sum()), self._whole[1] + float(step.sum())]
        self._rough[0] += float(steps.rows[~ends].sum())
        self._rough[1] += float(steps.step[~ends].sum())
        quarter = np.minimum(4 * steps.last // self.samples, 3)
        self._quarter[:, 0] += np.bincount(quarter, rows, 4)
        self._quarter[:, 1] += np.bincount(quarter, step, 4)
        segment = self._segment + np.cumsum(ends) - ends
        few = segment < _SEGMENTS
        self._segment_rows += np.bincount(segment[few], rows[few], _SEGMENTS)
        self._segment_time += np.bincount(segment[few], step[few], _SEGMENTS)
        self._segment += int(np.count_nonzero(ends))

    def _add_displacement(self, excess: npt.NDArray[np.float64]) -> None:
        """Count samples that lie off an even grid laid through their neighbourhood."""
        size = min(_GROUP, len(excess))
        groups = np.cumsum(excess[: len(excess) // size * size].reshape(-1, size), axis=1)
        off = np.abs(groups - groups.mean(axis=1, keepdims=True))
        self.judged += off.size
        self.displaced += int(np.count_nonzero(off > 0.5 * (self.scale.interval + self.scale.grid)))

    def rate_hz(self) -> tuple[float, list[str]]:
        """Return samples over time, and a note when there is little to tell it from."""
        if self._whole[1] > 0:
            return self._whole[0] / self._whole[1], []
        rough = self._rough[0] / self._rough[1] if self._rough[1] > 0 else 1 / self.scale.interval
        return rough, ["the time stamps are too few to tell the rate well"]

    def uneven(self) -> bool:
        """Tell whether too many samples lie off an even grid."""
        return self.displaced > _UNEVEN_SHARE * max(self.judged, 1)

    def jitter(self) -> float:
        """Return the standard deviation of the time steps, s."""
        count, total, squares = self._excess
        return float(np.sqrt(max(0.0, squares / count - (total / count) ** 2))) if count else 0.0

    def drift_ppm(self) -> float:
        """Change from the first to the last quarter; 0 unless it exceeds what the stamps can tell."""
        (first_rows, first), (last_rows, last) = self._quarter[0], self._quarter[3]
        if not (first > 0 and last > 0):
            return 0.0
        drift = (last_rows / last) / (first_rows / first) - 1
        steps = np.sqrt(max(first_rows, last_rows)) if self.uneven() else 1.0
        unsure = 2 * (self.scale.grid + self.jitter() * steps) / min(first, last)
        return float(1e6 * drift) if abs(drift) > unsure else 0.0

    def segment_hz(self) -> tuple[float, ...]:
        count = min(self._segment + 1, _SEGMENTS)
        time = np.where(self._segment_time > 0, self._segment_time, np.nan)[:count]
        return tuple((self._segment_rows[:count] / time).tolist())

    def gaps(self, rate_hz: float) -> tuple[Gap, ...]:
        """Return the breaks; each lasts what its step exceeds the samples before it.

        Where samples share stamps, those after the break are taken to end with their stamp's time.
        """
        shortest = 1e-3 / rate_hz
        breaks = np.concatenate([*self._breaks, np.empty((0, 4))])
        late = np.append(np.concatenate([*self._late, np.empty(0)]), 0.0)[1 : len(breaks) + 1]
        seconds = np.maximum(breaks[:, 1] - breaks[:, 2] / rate_hz + late, shortest)
        seconds[breaks[:, 3] > 0] = 0.0
        return tuple(map(Gap, breaks[:, 0].astype(np.int64).tolist(), seconds.tolist()))
