"""One file from a web server: resumed after a break, begun again when it changed there."""

from __future__ import annotations

import fcntl
import http.client
import os
import re
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import BinaryIO

import topokd_edge
from topokd_edge.data.addresses import SecureRedirects, check_url, is_local
from topokd_edge.errors import BadInputError, MissingError
from topokd_edge.files import read_json, write_json

_TRY_AGAIN = (408, 425, 429, 500, 502, 503, 504)
_BLOCK = 1 << 16
_SPARE = 64 << 20
"""Bytes of the disk that a download leaves free."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a server is waited for: seconds without a byte, attempts, first pause (it doubles)."""

    timeout_s: float = 30.0
    attempts: int = 4
    pause_s: float = 1.0


@dataclass(frozen=True, slots=True)
class Served:
    """What the server says about the file: `url` as asked for, `total` in bytes, its version marks."""

    url: str
    total: int | None
    etag: str | None
    last_modified: str | None

    @property
    def mark(self) -> str | None:
        """What If-Range may carry: a strong ETag, else the date."""
        weak = self.etag is None or not self.etag.startswith('"')
        return self.last_modified if weak else self.etag


class _BrokenError(Exception):
    """The attempt failed in a way that may pass."""


class _OtherFileError(_BrokenError):
    """What is there cannot be gone on with."""


@contextmanager
def held(part: Path) -> Iterator[BinaryIO]:
    """Open `part` for appending, alone; it may be renamed or removed meanwhile.

    Raises
    ------
    BadInputError
        When another process holds it.
    """
    with part.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            alone = os.path.samestat(os.fstat(file.fileno()), part.stat())
        except (BlockingIOError, FileNotFoundError):
            alone = False
        except OSError:  # a network drive without locks
            alone = True
        if not alone:
            raise BadInputError(
                f"{part}: another process is downloading this file", hint="wait until it ends"
            )
        try:
            yield file
        finally:
            file.flush()
            if os.fstat(file.fileno()).st_size == 0:
                discard(part)


Report = Callable[[int, int | None], None]
"""Called with the bytes that are there and the total, None when the server does not say."""


def download(url: str, file: BinaryIO, part: Path, *, report: Report, patience: Patience) -> Served:
    """Download `url` into `part`, going on from what is there when the server's file is still the same.

    Parameters
    ----------
    url
        https, see `check_url`; redirects are held to the same rule.
    file, part
        Where to write, from `held`; stays when the download breaks. Beside it, `part`.json says what it
        is a part of.

    Raises
    ------
    UsageError
        When the address is not https.
    MissingError
        When the server does not give the file, or the disk has no room for it.
    BadInputError
        When a redirect leaves https.
    """
    check_url(url)
    direct = [urllib.request.ProxyHandler({})] if is_local(url) else []
    opener = urllib.request.build_opener(SecureRedirects(), *direct)
    for attempt in range(patience.attempts):
        if attempt:
            time.sleep(patience.pause_s * 2 ** (attempt - 1))
        try:
            return _attempt(opener, url, file, _notes(part), report, patience.timeout_s)
        except _BrokenError as error:
            why = str(error)
            if isinstance(error, _OtherFileError):
                _begin_again(file, _notes(part))
    raise MissingError(f"{url}: {why} ({patience.attempts} attempts)")


def discard(part: Path) -> None:
    """Remove a part and the note of what it is a part of."""
    part.unlink(missing_ok=True)
    _notes(part).unlink(missing_ok=True)


def _notes(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _attempt(
    opener: urllib.request.OpenerDirector,
    url: str,
    file: BinaryIO,
    notes: Path,
    report: Report,
    timeout_s: float,
) -> Served:
    known, have = _known(notes, url), file.seek(0, os.SEEK_END)
    if known is not None and known.total == have:
        return known
    headers = {"User-Agent": f"topokd-edge/{topokd_edge.__version__}"}
    if have and known is not None and known.mark:
        headers |= {"Range": f"bytes={have}-", "If-Range": known.mark}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - check_url has seen it
    with _answer(opener, request, timeout_s) as response:
        served = _served(response, url, have)
        if response.status != 206:
            _begin_again(file, notes)
            write_json(notes, asdict(served))
            have = 0
        elif known is None or "Range" not in headers or not _same(known, served):
            raise _OtherFileError("the server sent a part that was not asked for, or of another file")
        else:
            served = known
        _need_room(notes.parent, (served.total or have) - have)
        _copy(response, file, have, served.total, report)
    return served


def _answer(
    opener: urllib.request.OpenerDirector, request: urllib.request.Request, timeout_s: float
) -> http.client.HTTPResponse:
    """Open a request; raise _BrokenError when it is worth another attempt, MissingError when not."""
    url = request.full_url
    try:
        response: http.client.HTTPResponse = opener.open(request, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        error.close()
        said = f"the server answered {error.code} {http.client.responses.get(error.code, '')}".rstrip()
        if error.code == 416:
            raise _OtherFileError(said) from None
        if error.code in _TRY_AGAIN:
            raise _BrokenError(said) from None
        raise MissingError(f"{url}: {said}") from None
    except (http.client.HTTPException, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            why = f"the server's certificate does not hold ({reason.verify_message})"
            raise MissingError(f"{url}: {why}") from None
        raise _BrokenError(f"no answer ({reason or type(reason).__name__})") from None
    sent = response.headers.get_content_type()
    coded = response.headers.get("Content-Encoding", "identity")
    if response.status not in (200, 206) or sent == "text/html" or coded != "identity":
        response.close()
        raise MissingError(
            f"{url}: the server sent no data file (status {response.status}, {sent!r}, encoding {coded!r})"
        )
    return response


def _served(response: http.client.HTTPResponse, url: str, have: int) -> Served:
    total = response.length
    if response.status == 206:
        stated = re.fullmatch(
            r"bytes (\d{1,18})-\d+/(\d{1,18}|\*)", response.headers.get("Content-Range", "")
        )
        if stated is None or int(stated[1]) != have:
            raise _OtherFileError("the server sent another part than asked for")
        total = None if stated[2] == "*" else int(stated[2])
    return Served(url, total, response.headers.get("ETag"), response.headers.get("Last-Modified"))


def _same(known: Served, served: Served) -> bool:
    """Whether two answers speak of the same file; a partial answer may leave out what was said before."""
    pairs = zip(astuple(known), astuple(served), strict=True)
    return all(before == now for before, now in pairs if now is not None)


def _copy(
    response: http.client.HTTPResponse,
    file: BinaryIO,
    have: int,
    total: int | None,
    report: Report,
) -> None:
    """Append the answer's body to `file`."""
    while True:
        report(have, total)
        try:
            block = response.read(_BLOCK)
        except (http.client.HTTPException, OSError, ValueError) as error:
            raise _BrokenError(f"the connection broke after {have:,} bytes ({error})") from None
        if not block:
            break
        _need_room(Path(file.name).parent, len(block))
        file.write(block)
        have += len(block)
    file.flush()
    if total is not None and have != total:
        raise _BrokenError(f"the connection ended after {have:,} of {total:,} bytes")


def _begin_again(file: BinaryIO, notes: Path) -> None:
    file.truncate(0)
    notes.unlink(missing_ok=True)


def _known(notes: Path, url: str) -> Served | None:
    """Read what `part` is a part of; None when that is not known or is another address."""
    try:
        known = read_json(notes)
    except BadInputError:
        return None
    match known:
        case {"url": str(asked), "total": int() | None, "etag": str() | None, "last_modified": str() | None}:
            return Served(**known) if asked == url and len(known) == 4 else None
    return None


def _need_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed + _SPARE:
        raise MissingError(
            f"{folder}: {free / 1e6:,.0f} MB free, {(needed + _SPARE) / 1e6:,.0f} MB needed to go on",
            hint="free space, or choose another --to; what is there is kept for the next call",
        )
