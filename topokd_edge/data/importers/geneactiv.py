"""GENEActiv raw files (`.bin`), as the device is read out: a text header with the calibration, then pages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from topokd_edge.data.importers import geneactiv_header as head
from topokd_edge.data.importers.geneactiv_pages import MARK, PAGE_SAMPLES, Page, numbered_lines, read_pages
from topokd_edge.data.stream import CHUNK_SAMPLES, Chunk, Opened, ReadOptions, Stream, files_in, open_each
from topokd_edge.errors import BadInputError, UsageError

DEFAULT_CHANNELS = head.DEFAULT_CHANNELS
_CHUNK_PAGES = CHUNK_SAMPLES // PAGE_SAMPLES
_PROBLEMS = 10
"""Problems of a file that are named at most."""
_GAIN = (10_000.0, 60_000.0)
_OFFSET = (-20_000.0, 20_000.0)
_LIGHT = (1.0, 100_000.0)
"""Believed calibration: gains are 25,600 (hundredths of a count per g) within a few percent, offsets well
below 1 g; the light sensor has `Lux` lux at `Volts` counts."""
_EPOCH = datetime(1970, 1, 1)
_HINT = (
    "read the device out again; if that does not help, cut the file off before the place named first: "
    "all before it can be read"
)


def open_streams(path: Path | None, _: ReadOptions) -> Opened:
    """Open every GENEActiv `.bin` file at `path`, a file or a folder.

    Each file is one stream with the channels acc_x, acc_y, acc_z in g, light in lux, button (0 or 1) and
    temperature in degC, the last one value per page. Time follows the stamps of the pages. Of a file that
    ends inside a page the whole samples before the end are kept.

    Raises
    ------
    UsageError
        Without a path.
    BadInputError
        When there is no such file.
    """
    if path is None:
        raise UsageError("the geneactiv format needs a .bin file, or a folder of such files")
    return open_each(files_in(path, ("*.bin",)), _open)


@dataclass(frozen=True, slots=True)
class _Header:
    fields: Mapping[str, str]
    rate_hz: float
    acc: tuple[npt.NDArray[np.float32], ...]
    """Per axis the acceleration in g of each 12-bit count."""
    light: npt.NDArray[np.float32]
    """Light in lux of each 10-bit count."""


def _open(path: Path) -> list[Stream]:
    lines = numbered_lines(path)
    header = _read_header(path, lines)
    first = next(read_pages(lines, header.rate_hz))
    if first.problems:
        raise BadInputError(f"{path}: damaged", problems=first.problems, hint=_HINT)
    if first.samples == 0:
        raise BadInputError(
            f"{path}: the header is followed by no sample: the file is cut off, or nothing was recorded",
            hint="read the device out again",
        )
    stream = Stream(
        source=str(path),
        path=path,
        channels=head.CHANNELS,
        units=head.UNITS,
        rate_hz=header.rate_hz,
        chunks=partial(_chunks, path),
        subject=head.subject(header.fields),
        session=path.stem,
        device=head.device(header.fields),
        start=None if first.stamp is None else first.stamp.isoformat(timespec="milliseconds"),
        about={**head.about(header.fields), "calibration": _calibration(header.fields)},
    )
    return [stream]


def _read_header(path: Path, lines: Iterator[tuple[int, bytes]]) -> _Header:
    """Read up to the mark of the first page, which is taken from `lines`."""
    found = []
    number = 0
    for number, text in lines:
        if text == MARK or number > head.HEADER_LINES:
            break
        found.append(text)
    fields = head.parse(found, ":")
    problems = head.device_problems(fields)
    if not problems:
        header = _calibrated(fields, problems)
    if number > head.HEADER_LINES or "Page Time" in fields:
        problems.append(f"no line {MARK.decode()!r} between the header and the first page")
    if problems:
        raise BadInputError(
            f"{path}: not a GENEActiv .bin file that can be read",
            problems=problems,
            hint="take the .bin file that the GENEActiv software wrote when it read the device out",
        )
    return header


def _calibrated(fields: Mapping[str, str], problems: list[str]) -> _Header:
    def number(key: str, limits: tuple[float, float]) -> float:
        return head.number(fields.get(key), key, limits, problems)

    rate = number("Measurement Frequency", head.RATE_HZ)
    counts = np.arange(4096)
    counts[2048:] -= 4096
    acc = []
    for axis in "xyz":
        offset, gain = number(f"{axis} offset", _OFFSET), number(f"{axis} gain", _GAIN)
        acc.append(((counts * 100 - offset) / gain).astype(np.float32))
    light = np.arange(1024) * number("Lux", _LIGHT) / number("Volts", _LIGHT)
    return _Header(fields, rate, tuple(acc), light.astype(np.float32))


def _calibration(fields: Mapping[str, str]) -> str:
    keys = [f"{axis} {kind}" for axis in "xyz" for kind in ("gain", "offset")]
    return ", ".join(f"{key} {fields[key]}" for key in (*keys, "Volts", "Lux"))


class _Clock:
    """Turns the stamps of pages into times of samples.

    A stamp within one sample interval of where the rate leads to is the same clock, told with its own
    rounding (a rate of 85.7 Hz stands for 85.714): the samples before it are spread evenly up to it. So
    no error adds up from page to page, and a difference that is more shows as a gap.
    """

    def __init__(self, rate_hz: float) -> None:
        self.step = self.spacing = 1.0 / rate_hz
        self.end = 0.0
        self.zero: float | None = None
        self.before: Page | None = None
        self.set_back: list[tuple[int, float]] = []
        self.unset: list[int] = []

    def place(self, page: Page, following: Page | None) -> tuple[float, float, bool]:
        """Return when a page starts, the time between its samples, and whether a border is before it."""
        start, border = self._start(page)
        if following is not None and following.stamp is not None and self.zero is not None:
            length = _seconds(following.stamp) - self.zero - start
            if abs(length - page.samples * self.step) <= self.step:
                self.spacing = length / page.samples
        self.end = start + page.samples * self.spacing
        self.before = page
        return start, self.spacing, border

    def _start(self, page: Page) -> tuple[float, bool]:
        before = self.before
        if page.stamp is None:
            self.unset.append(page.number)
            follows = before is None or (before.stamp is None and page.sequence == before.sequence + 1)
            return self.end, not follows
        if self.zero is None:
            self.zero = _seconds(page.stamp) - self.end
            return self.end, before is not None
        late = _seconds(page.stamp) - self.zero - self.end
        if late < -self.step:
            self.set_back.append((page.number, -late))
            self.zero += late
            return self.end, True
        return self.end + late, False

    def notes(self) -> list[str]:
        """Return what was odd since this was asked last."""
        found = []
        if self.set_back:
            page, seconds = self.set_back[0]
            found.append(
                f"the clock was set back {len(self.set_back)} time(s), first by {seconds:.3f} s before page "
                f"{page}; the time after that counts on from the sample before"
            )
        if self.unset:
            found.append(
                f"{len(self.unset)} page(s), first page {self.unset[0]}, have no time: the clock was not set"
            )
        self.set_back, self.unset = [], []
        return found


def _seconds(stamp: datetime) -> float:
    return (stamp - _EPOCH).total_seconds()


def _chunks(path: Path) -> Iterator[Chunk]:
    """Read the samples of a file, `_CHUNK_PAGES` pages at a time."""
    lines = numbered_lines(path)
    header = _read_header(path, lines)
    clock = _Clock(header.rate_hz)
    problems: list[str] = []
    batch: list[tuple[Page, float, float, bool]] = []
    pages = read_pages(lines, header.rate_hz)
    for page, following in pairwise(chain(pages, (None,))):
        assert page is not None
        problems += page.problems
        if following is not None and not page.problems and page.samples < PAGE_SAMPLES:
            problems.append(f"page {page.number}: {page.samples} whole samples, expected {PAGE_SAMPLES}")
        if problems and (following is None or len(problems) >= _PROBLEMS):
            raise BadInputError(f"{path}: damaged", problems=problems[:_PROBLEMS], hint=_HINT)
        if problems:
            continue
        if page.samples:
            batch.append((page, *clock.place(page, following)))
        # A page without samples can only be the last: what is to be noted of it goes with the samples before.
        if following is None or (len(batch) >= _CHUNK_PAGES and following.samples):
            notes = clock.notes() + ([] if following is not None else _notes_of_end(page, header))
            yield _chunk(batch, header, notes)
            batch = []


def _notes_of_end(last: Page, header: _Header) -> list[str]:
    notes = []
    if last.samples < PAGE_SAMPLES:
        notes.append(f"the file ends inside page {last.number}, which has {last.samples} whole samples")
    stated = header.fields.get("Number of Pages", "").lstrip("0")
    if stated and stated != str(last.number):
        notes.append(f"the header states {stated[:20]} pages, the file has {last.number}")
    return notes


def _chunk(batch: Sequence[tuple[Page, float, float, bool]], header: _Header, notes: Sequence[str]) -> Chunk:
    """Decode pages: 12 bits each of x, y, z, 10 of light, 1 of the button, 1 unused."""
    raw = np.frombuffer(b"".join(page.data for page, *_ in batch), np.uint8).reshape(-1, 6).astype(np.uint16)
    counts = np.array([page.samples for page, *_ in batch], dtype=np.int64)
    first = np.cumsum(counts) - counts
    samples = np.empty((len(raw), len(head.CHANNELS)), np.float32)
    samples[:, 0] = header.acc[0][raw[:, 0] << 4 | raw[:, 1] >> 4]
    samples[:, 1] = header.acc[1][(raw[:, 1] & 15) << 8 | raw[:, 2]]
    samples[:, 2] = header.acc[2][raw[:, 3] << 4 | raw[:, 4] >> 4]
    samples[:, 3] = header.light[(raw[:, 4] & 15) << 6 | raw[:, 5] >> 2]
    samples[:, 4] = raw[:, 5] >> 1 & 1
    samples[:, 5] = np.repeat([page.temperature for page, *_ in batch], counts)
    starts, spacings = (np.repeat([item[index] for item in batch], counts) for index in (1, 2))
    time = starts + spacings * (np.arange(len(raw)) - np.repeat(first, counts))
    borders = tuple(int(at) for at, item in zip(first, batch, strict=True) if item[3])
    return Chunk(samples, time.astype(np.float64), borders=borders, notes=tuple(notes))
