"""The pages of a GENEActiv `.bin` file: nine lines of text, then one of 300 samples in hexadecimal digits."""

from __future__ import annotations

import binascii
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from topokd_edge.data.importers import geneactiv_header as head
from topokd_edge.errors import BadInputError

MARK = b"Recorded Data"
PAGE_SAMPLES = 300
SAMPLE_DIGITS = 12
PAGE_DIGITS = PAGE_SAMPLES * SAMPLE_DIGITS
_LINE_BYTES = 1 << 14
_KEYS = (
    b"Device Unique Serial Code",
    b"Sequence Number",
    b"Page Time",
    b"Unassigned",
    b"Temperature",
    b"Battery voltage",
    b"Device Status",
    b"Measurement Frequency",
)
_NEEDED = frozenset((b"Sequence Number", b"Page Time", b"Temperature", b"Measurement Frequency"))
_RATE_TOLERANCE = 0.01
"""Pages may round the rate otherwise than the header."""


@dataclass(slots=True)
class Page:
    """One page.

    Attributes
    ----------
    number
        From 1, in the order of the file.
    fields
        As they stand in the file.
    data
        6 bytes per whole sample; empty where the file ends before them.
    stamp, sequence, temperature
        Of the first sample, by the device's clock (None: never set); of the page; of all samples, in degC.
    problems
        What is wrong; the other attributes do not count then.
    """

    number: int
    fields: dict[bytes, bytes] = field(default_factory=dict)
    data: bytes = b""
    stamp: datetime | None = None
    sequence: int = 0
    temperature: float = 0.0
    problems: list[str] = field(default_factory=list)

    @property
    def samples(self) -> int:
        """Whole samples in the page."""
        return 2 * len(self.data) // SAMPLE_DIGITS


def numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield number and text of every line that is not blank; one too long for the format comes in pieces.

    Raises
    ------
    BadInputError
        When the file cannot be read.
    """
    number = 1
    try:
        with path.open("rb") as file:
            while piece := file.readline(_LINE_BYTES):
                text = piece.strip(b" \t\r\n\0")
                if text:
                    yield number, text
                number += piece.endswith(b"\n")
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read ({error.strerror})") from None


def read_pages(lines: Iterator[tuple[int, bytes]], rate_hz: float) -> Iterator[Page]:
    """Yield the pages of a file whose lines were taken up to the mark of the first page.

    Lines that can be no part of a page are given as a page with a problem. Only a last page may lack
    samples without being a problem: the file was cut off in it.
    """
    page: Page | None = Page(1)
    count = 1
    for number, text in lines:
        if text == MARK:
            if page is not None:
                page.problems = page.problems or [f"line {number}: no samples of page {count} before it"]
                yield page
            count += 1
            page = Page(count)
        elif page is None:
            page = Page(count + 1)
            if not MARK.startswith(text):
                page.problems.append(f"line {number}: {_shown(text)}, expected {MARK.decode()!r}")
        elif not page.problems and _add_line(page, number, text):
            _look_at(page, text, rate_hz)
            yield page
            page = None
    if page is not None:
        yield page


def _add_line(page: Page, number: int, text: bytes) -> bool:
    """Take a line as a field of the page, and return whether it is its samples instead."""
    key, colon, value = text.partition(b":")
    if colon and len(page.fields) < 2 * len(_KEYS):
        page.fields[key] = value
    elif not colon and page.fields.keys() >= _NEEDED:
        return True
    elif not any(known.startswith(text) for known in _KEYS):
        missing = ", ".join(sorted(item.decode() for item in _NEEDED - page.fields.keys())) or "samples"
        page.problems.append(f"line {number}, page {page.number}: {_shown(text)}, expected {missing}")
    return False


def _shown(text: bytes) -> str:
    return repr(text[:30].decode("latin-1"))


def _look_at(page: Page, digits: bytes, rate_hz: float) -> None:
    """Read the fields and samples of a page."""
    where = f"page {page.number}, "
    stamp, *texts = (
        page.fields[key].strip()
        for key in (b"Page Time", b"Sequence Number", b"Temperature", b"Measurement Frequency")
    )
    sequence, temperature, rate = (text.decode("latin-1") for text in texts)
    try:
        page.stamp = head.stamp(stamp)
    except ValueError:
        page.problems.append(f"{where}Page Time: {_shown(stamp)}, expected YYYY-MM-DD hh:mm:ss:mmm")
    number = head.number(sequence, f"{where}Sequence Number", (0, 1e9), page.problems)
    page.temperature = head.number(temperature, f"{where}Temperature", head.TEMPERATURE, page.problems)
    allowed = (rate_hz * (1 - _RATE_TOLERANCE), rate_hz * (1 + _RATE_TOLERANCE))
    head.number(rate, f"{where}Measurement Frequency", allowed, page.problems)
    if len(digits) > PAGE_DIGITS:
        page.problems.append(f"{where}{len(digits)} or more digits of samples, expected {PAGE_DIGITS}")
    try:
        page.data = binascii.unhexlify(digits[: len(digits) // SAMPLE_DIGITS * SAMPLE_DIGITS])
    except ValueError:
        page.problems.append(f"{where}samples: something else than hexadecimal digits in the line")
    if not page.problems:
        page.sequence = int(number)
