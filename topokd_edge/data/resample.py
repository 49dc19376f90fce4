"""Another sampling rate: polyphase resampling, or interpolation on uneven time stamps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from math import ceil, floor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from topokd_edge.arrays import BLOCK, forget_pages, map_npy, write_npy
from topokd_edge.data.gaps import Samples, merged, written
from topokd_edge.data.recording import Gap, LabelInterval, Recording
from topokd_edge.data.ticks import COARSE_SHARE, spread_repeats
from topokd_edge.errors import UsageError

_LARGEST = 1000
"""Of the two numbers of the ratio; the filter has 36 times as many taps."""
_FURTHEST = 100
"""Times faster or slower."""
_PASS = 0.8
_STOP_DB = 60.0
"""The filter leaves what is below 0.8 of the lower Nyquist frequency within 0.1 %, and takes what is above
that Nyquist frequency down by 60 dB."""

Floats = npt.NDArray[np.float64]


def resample(recording: Recording, to_hz: float, path: Path) -> Recording:
    """Resample every gapless stretch by a rational ratio with an anti-alias filter.

    From each stretch the line through its first and last sample is taken, the rest resampled as by
    `scipy.signal.resample_poly` on the whole stretch, and the line added again: so gravity makes no step at
    the ends, and a constant stays exactly constant.
    The ratio of the rates is approximated by one of numbers up to 1,000; a note says by how much it is off.
    The new samples stand where labels, gaps and filled samples say: a label has the new samples within its
    time, a filled interval every new one whose interval touches it.

    Parameters
    ----------
    recording
        Finite samples.
    to_hz
        New rate, Hz.
    path
        Where the samples are written, `.npy`, float32, shape (samples, channels); not written when the ratio
        is 1.

    Raises
    ------
    UsageError
        When the rate is not positive or more than 100 times higher or lower.
    """
    ratio = _ratio(recording.rate_hz, to_hz)
    off = float(ratio) * recording.rate_hz / to_hz - 1
    note = f"resampled from {recording.rate_hz:.6g} Hz to {to_hz:.6g} Hz by {ratio}"
    if abs(off) > 1e-9:
        note += f"; the true rate is {1e6 * off:+.3g} ppm off"
    notes = (*recording.notes, note)
    if ratio == 1:
        return replace(recording, rate_hz=to_hz, notes=notes if abs(off) > 1e-9 else recording.notes)
    stretches = _stretches(recording, lambda size, _: _scaled(size, ratio))
    taps = _taps(max(ratio.numerator, ratio.denominator))

    def parts() -> Iterator[Samples]:
        for stretch in stretches:
            yield from _polyphase(recording.samples, stretch, ratio, taps)

    samples = written(path, stretches[-1].out_stop, len(recording.channels), parts())

    def position(sample: int, stretch: _Stretch) -> Fraction:
        return (sample - stretch.start) * ratio

    rate_hz = recording.rate_hz

    def missing(left: _Stretch, seconds: float) -> float:
        return seconds + (left.stop - left.start) / rate_hz - (left.out_stop - left.out_start) / to_hz

    return replace(
        _reindexed(recording, stretches, position, missing), rate_hz=to_hz, samples=samples, notes=notes
    )


def interpolate(recording: Recording, time: Floats, to_hz: float, path: Path) -> Recording:
    """Bring unevenly sampled stretches to an even rate by straight lines between the time stamps.

    Stamps that repeat are first spread over the time to the next. Where the rate falls, the lines are read at
    a multiple of the new rate no lower than the old one, and the anti-alias filter of `resample` brings it
    down. Nothing is extrapolated: a stretch ends with the last new sample not after its last stamp.

    Parameters
    ----------
    recording
        Finite samples, with a clock; its gaps are those of `time`.
    time
        Stamp of each sample, s, shape (samples,); ascending but for borders.
    to_hz
        New rate, Hz.
    path
        Where the samples are written, `.npy`, float32, shape (samples, channels). Two more files beside it
        exist for a while.

    Raises
    ------
    UsageError
        When the rate is not positive or more than 100 times higher or lower.
    """
    times = _times(recording, to_hz)
    stamps, even = path.with_name(f"{path.name}.stamps"), path.with_name(f"{path.name}.even")
    try:
        time = spread(recording, time, stamps)
        if times == 1:
            result = _on_stamps(recording, time, to_hz, path)
        else:
            result = resample(_on_stamps(recording, time, times * to_hz, even), to_hz, path)
    finally:
        stamps.unlink(missing_ok=True)
        even.unlink(missing_ok=True)
    return replace(
        result,
        rate_hz=to_hz,
        notes=(*recording.notes, f"interpolated on its uneven time stamps to {to_hz:.6g} Hz"),
    )


@dataclass(frozen=True, slots=True)
class Piece:
    """`count` new samples from time `begin` (s) on, within the gapless samples `start` to before `stop`."""

    start: int
    stop: int
    begin: float
    count: int


def at_times(
    recording: Recording, time: Floats, to_hz: float, pieces: Sequence[Piece], path: Path
) -> Samples:
    """Read a recording at chosen evenly spaced times, by the rules of `interpolate`.

    Parameters
    ----------
    recording, time
        As for `interpolate`; no stamp repeats (see `spread`).
    to_hz
        Rate of the new samples within a piece, Hz.
    pieces
        The times, in order; each piece lies within its samples' stamps.
    path
        Where the samples are written, `.npy`, float32, shape (samples, channels). One more file beside it
        exists for a while.

    Returns
    -------
    Samples
        float32, memory-mapped, shape (channels, samples).

    Raises
    ------
    UsageError
        When the rate is more than 100 times higher or lower than the recording's.
    """
    times, channels = _times(recording, to_hz), len(recording.channels)
    fine = _numbered(pieces, [times * (piece.count - 1) + 1 for piece in pieces])

    def lines() -> Iterator[Samples]:
        for piece, stretch in zip(pieces, fine, strict=True):
            yield from _lines(recording.samples, time, stretch, times * to_hz, piece.begin)

    if times == 1:
        return written(path, fine[-1].out_stop, channels, lines())
    even = path.with_name(f"{path.name}.even")
    taps = _taps(times)
    try:
        known = written(even, fine[-1].out_stop, channels, lines())
        whole = [Piece(item.out_start, item.out_stop, 0.0, 0) for item in fine]
        coarse = _numbered(whole, [piece.count for piece in pieces])
        parts = (part for stretch in coarse for part in _polyphase(known, stretch, Fraction(1, times), taps))
        return written(path, coarse[-1].out_stop, channels, parts)
    finally:
        even.unlink(missing_ok=True)


def spread(recording: Recording, time: Floats, path: Path) -> Floats:
    """Return the stamps, repeated ones spread over the time to the next and written to `path`."""
    if recording.clock is None or not recording.clock.repeated:
        return time
    partial = recording.clock.repeated > COARSE_SHARE * len(time)

    def parts() -> Iterator[Floats]:
        for stretch in _stretches(recording, lambda size, _: size):
            inside = (
                time[low : min(low + BLOCK, stretch.stop)]
                for low in range(stretch.start, stretch.stop, BLOCK)
            )
            yield from spread_repeats(inside, 1 / recording.rate_hz, partial=partial)

    write_npy(path, (len(time),), np.float64, parts())
    return map_npy(path, hint="import again")


def _times(recording: Recording, to_hz: float) -> int:
    """Return which multiple of a lower rate keeps all that the recording holds; 1 for a higher rate."""
    _ratio(recording.rate_hz, to_hz)
    return max(1, int(np.ceil(recording.rate_hz / to_hz - 1e-9)))


def _numbered(pieces: Sequence[Piece], counts: Sequence[int]) -> list[_Stretch]:
    ends = np.cumsum(counts).tolist()
    return [
        _Stretch(piece.start, piece.stop, end - count, end)
        for piece, count, end in zip(pieces, counts, ends, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Samples without a gap, half-open, before and after resampling."""

    start: int
    stop: int
    out_start: int
    out_stop: int


def _stretches(recording: Recording, size: Callable[[int, int], int]) -> list[_Stretch]:
    """Cut at gaps; `size` gives the new number of samples from the old one and the first sample."""
    edges = [0, *(gap.after_sample + 1 for gap in recording.gaps), recording.samples.shape[1]]
    stretches: list[_Stretch] = []
    out = 0
    for start, stop in pairwise(edges):
        after = out + size(stop - start, start)
        stretches.append(_Stretch(start, stop, out, after))
        out = after
    return stretches


def _ratio(from_hz: float, to_hz: float) -> Fraction:
    if not (np.isfinite(to_hz) and from_hz / _FURTHEST <= to_hz <= from_hz * _FURTHEST):
        raise UsageError(
            f"--resample {to_hz:g}: expected {from_hz / _FURTHEST:g} to {from_hz * _FURTHEST:g} Hz for a "
            f"recording at {from_hz:g} Hz"
        )
    down = to_hz < from_hz
    low, high = (to_hz, from_hz) if down else (from_hz, to_hz)
    ratio = (Fraction(low) / Fraction(high)).limit_denominator(_LARGEST)
    return ratio if down else 1 / ratio


def _scaled(count: int, ratio: Fraction) -> int:
    """Round count * ratio up."""
    return -(-count * ratio.numerator // ratio.denominator)


def _taps(larger: int) -> Floats:
    """Return a low-pass FIR filter for the rate between up- and downsampling, Nyquist = 1."""
    from scipy.signal import firwin, kaiserord

    length, beta = kaiserord(_STOP_DB, (1 - _PASS) / larger)
    half = length // 2 + 1
    taps: Floats = firwin(2 * half + 1, (1 + _PASS) / 2 / larger, window=("kaiser", beta))
    return taps


def _polyphase(samples: Samples, stretch: _Stretch, ratio: Fraction, taps: Floats) -> Iterator[Samples]:
    """Resample a stretch in chunks of whole periods (`down` samples in, `up` out), each with a halo."""
    from scipy.signal import resample_poly

    up, down = ratio.numerator, ratio.denominator
    count, total = stretch.stop - stretch.start, stretch.out_stop - stretch.out_start
    first, last = (samples[:, at].astype(np.float64) for at in (stretch.start, stretch.stop - 1))
    slope = (last - first) / max(count - 1, 1)
    halo = down * -(-(len(taps) // 2 // up + 1) // down)
    size = down * max(1, BLOCK // max(up, down))
    for low in range(0, count, size):
        begin, end = max(0, low - halo), min(low + size + halo, count)
        chunk = samples[:, stretch.start + begin : stretch.start + end].T.astype(np.float64)
        chunk -= first + slope * np.arange(begin, end)[:, None]
        new = resample_poly(chunk, up, down, axis=0, window=taps)
        out = low // down * up
        new = new[(low - begin) // down * up :][: min(size // down * up, total - out)]
        line = first + slope * (np.arange(out, out + len(new)) * (down / up))[:, None]
        yield (new + line).astype(np.float32)
        forget_pages(samples)


def _on_stamps(recording: Recording, time: Floats, to_hz: float, path: Path) -> Recording:
    """Read straight lines between the samples at an even rate."""
    tiny = 1e-6

    def size(count: int, start: int) -> int:
        return 1 + int((time[start + count - 1] - time[start]) * to_hz + tiny)

    stretches = _stretches(recording, size)

    def parts() -> Iterator[Samples]:
        for stretch in stretches:
            yield from _lines(recording.samples, time, stretch, to_hz, float(time[stretch.start]))

    def position(sample: int, stretch: _Stretch) -> float:
        if sample == stretch.stop:
            return float(stretch.out_stop - stretch.out_start)
        return float(time[sample] - time[stretch.start]) * to_hz

    def missing(left: _Stretch, _: float) -> float:
        last = time[left.start] + (left.out_stop - left.out_start) / to_hz
        return float(time[left.stop] - last)

    samples = written(path, stretches[-1].out_stop, len(recording.channels), parts())
    return replace(_reindexed(recording, stretches, position, missing), rate_hz=to_hz, samples=samples)


def _lines(
    samples: Samples, time: Floats, stretch: _Stretch, to_hz: float, begin: float
) -> Iterator[Samples]:
    """Read lines between samples at an even rate from `begin` on; nothing is extrapolated."""
    stamps, known = time[stretch.start : stretch.stop], samples[:, stretch.start : stretch.stop]
    total = stretch.out_stop - stretch.out_start
    for low in range(0, total, BLOCK):
        at = np.maximum(begin + np.arange(low, min(low + BLOCK, total)) / to_hz, stamps[0])
        left = np.searchsorted(stamps, at, side="right") - 1
        right = np.minimum(left + 1, len(stamps) - 1)
        step = stamps[right] - stamps[left]
        share = np.divide(at - stamps[left], step, out=np.zeros(len(at)), where=step > 0)
        line = (1 - share) * known[:, left] + share * known[:, right]
        yield line.T.astype(np.float32)
        forget_pages(samples)
        forget_pages(time)


def _reindexed(
    recording: Recording,
    stretches: list[_Stretch],
    position: Callable[[int, _Stretch], Fraction | float],
    missing: Callable[[_Stretch, float], float],
) -> Recording:
    """Move labels, gaps and filled intervals.

    `position` gives where a sample of a stretch falls, in new samples from the stretch's first; `missing` how
    much time a gap after a stretch lacks, from what it lacked before.
    """
    starts = np.array([stretch.start for stretch in stretches])

    def moved(sample: int, *, down: bool = False) -> int:
        stretch = stretches[int(np.searchsorted(starts, sample, side="right")) - 1]
        place = position(sample, stretch)
        exact = place if isinstance(place, Fraction) else place + (1e-6 if down else -1e-6)
        new = floor(exact) if down else ceil(exact)
        return stretch.out_start + min(max(new, 0), stretch.out_stop - stretch.out_start)

    labels = [LabelInterval(moved(item.start), moved(item.stop), item.label) for item in recording.labels]
    filled = [(moved(start, down=True), moved(stop)) for start, stop in recording.filled]
    gaps = [
        Gap(left.out_stop - 1, max(0.0, missing(left, gap.seconds)) if gap.seconds else 0.0)
        for left, gap in zip(stretches[:-1], recording.gaps, strict=True)
    ]
    return replace(
        recording,
        labels=tuple(item for item in labels if item.start < item.stop),
        gaps=tuple(gaps),
        filled=merged(item for item in filled if item[0] < item[1]),
    )
