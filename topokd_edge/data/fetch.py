"""A public data set from its home, and what is known of its bytes: verified, as before, or nothing."""

from __future__ import annotations

import re
import shlex
import zipfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from topokd_edge.data.addresses import check_url
from topokd_edge.data.download import Patience, Served, discard, download, held
from topokd_edge.data.sources import Source
from topokd_edge.errors import BadInputError, CheckFailedError, MissingError, UsageError
from topokd_edge.files import read_json, sha256_file, write_json
from topokd_edge.progress import Progress, silent

_MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Fetched:
    """A data set's file in its place.

    Attributes
    ----------
    verified
        The SHA-256 is one that the table of sources or the user stated, now or at the first download.
    basis
        What the hash was compared with, for a person.
    downloaded
        False when the file was there already.
    """

    source: Source
    file: Path
    bytes: int
    sha256: str
    verified: bool
    basis: str
    downloaded: bool

    @property
    def import_command(self) -> str:
        """The command that reads the file."""
        return _import_command(self.source, self.file)


def fetch(
    source: Source,
    folder: Path,
    *,
    url: str | None = None,
    sha256: str | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
    patience: Patience | None = None,
) -> Fetched:
    """Download a data set to `folder`/NAME.zip, with a receipt NAME.zip.receipt.json beside it.

    Where nobody states a SHA-256, the first download is taken as it comes and its hash goes into the
    receipt; later ones must have the same (trust on first use).

    Parameters
    ----------
    url
        A mirror; the source's own address otherwise.
    sha256
        What the file must have, in hexadecimal; goes before the table of sources and the receipt.
    overwrite
        Download also when the file is there.

    Raises
    ------
    UsageError
        When `url` is not https or `sha256` is none.
    BadInputError
        When the file is there and is not known, or what came is no zip.
    CheckFailedError
        When the SHA-256 is wrong; the file is then not put in place.
    MissingError
        When the server does not give the file, or the disk has no room for it.
    """
    address = check_order(source, url, sha256)
    if there := already_there(source, folder, sha256, overwrite=overwrite):
        return there
    target = folder / f"{source.name}.zip"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise BadInputError(f"{folder}: is not a folder", hint="choose another --to") from None
    part = target.with_name(target.name + ".part")
    with held(part) as file:
        served = _downloaded(source, address, file, part, progress, patience or Patience())
        try:
            fetched = _judged(source, target, part, sha256, downloaded=True)
        except (BadInputError, CheckFailedError):
            discard(part)
            raise
        _write_receipt(fetched, served)
        part.replace(target)
        discard(part)
    return fetched


def _downloaded(
    source: Source, address: str, file: BinaryIO, part: Path, progress: Progress, patience: Patience
) -> Served:
    """Download to `part`, with progress in millions of bytes."""

    def report(have: int, total: int | None) -> None:
        all_mb = -(-total // _MB) if total is not None else max(source.about_mb or 0, have // _MB + 1)
        done = all_mb if have == total else have // _MB
        progress(f"{source.name}.zip", done, all_mb, "MB")

    try:
        served = download(address, file, part, report=report, patience=patience)
    except MissingError as error:
        raise MissingError(error.message, hint=error.hint or _by_hand(source)) from None
    if served.total is None:
        size = part.stat().st_size
        report(size, size)
    return served


def check_order(source: Source, url: str | None, sha256: str | None) -> str:
    """Check what the user asks for, without the network; return the address to download from.

    Raises
    ------
    UsageError
        When `url` is not https or `sha256` is none.
    """
    if sha256 is not None and not _is_sha256(sha256):
        raise UsageError(f"SHA-256 {sha256!r}: expected 64 hexadecimal digits")
    address = url or source.url
    check_url(address)
    return address


def already_there(source: Source, folder: Path, sha256: str | None, *, overwrite: bool) -> Fetched | None:
    """Check the file that is in `folder` already, without the network; None when it is to be downloaded.

    Raises
    ------
    BadInputError
        When something is there and nothing says what it should be.
    CheckFailedError
        When it is not what the SHA-256 or the receipt says.
    """
    target = folder / f"{source.name}.zip"
    if not (target.exists() or target.is_symlink()):
        return None
    if not target.is_file():
        raise BadInputError(f"{target}: exists and is not a file", hint="choose another --to")
    if overwrite:
        return None
    if not (sha256 or source.sha256 or _receipt_path(target).exists()):
        raise BadInputError(
            f"{target}: already exists, and nothing says where it came from",
            hint="state its --sha256; --overwrite to download it again; or use it as it is: "
            + _import_command(source, target),
        )
    return _judged(source, target, target, sha256, downloaded=False)


def _judged(source: Source, target: Path, path: Path, sha256: str | None, *, downloaded: bool) -> Fetched:
    """Compare the file at `path`, which is to stand at `target`, with the best hash that is known."""
    if downloaded and not zipfile.is_zipfile(path):
        raise BadInputError(
            f"{target.name}: what came ({path.stat().st_size:,} bytes) is no whole zip file and was removed",
            hint=_by_hand(source),
        )
    found, receipt = sha256_file(path), _receipt_path(target)
    stated = sha256 or source.sha256
    expected, by, verified = found, "", False
    if stated is not None:
        expected, by, verified = stated.lower(), "the SHA-256 that was stated", True
    elif receipt.exists():
        expected, date, verified = _read_receipt(receipt)
        by = f"the receipt of {date}" + ("" if verified else " (a download that nobody verified)")
    if found != expected:
        what_now = "the file was not put in place" if downloaded else "the file was left as it is"
        raise CheckFailedError(
            f"{target}: SHA-256 is {found}, expected {expected} ({by}); {what_now}",
            hint=_after_mismatch(receipt),
        )
    basis = f"the same as {by}" if by else "no SHA-256 of this file is known"
    return Fetched(source, target, path.stat().st_size, found, verified, basis, downloaded)


def _after_mismatch(receipt: Path) -> str:
    return (
        "download again (--overwrite); if the publisher has a new version that you trust, state its --sha256"
        + (f", or delete {receipt}" if receipt.exists() else "")
    )


def _receipt_path(target: Path) -> Path:
    return target.with_name(target.name + ".receipt.json")


def _write_receipt(fetched: Fetched, served: Served) -> None:
    receipt = {
        "name": fetched.source.name,
        "url": served.url,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "bytes": fetched.bytes,
        "sha256": fetched.sha256,
        "verified": fetched.verified,
        "basis": fetched.basis,
        "etag": served.etag,
        "last_modified": served.last_modified,
        "licence": fetched.source.licence,
        "citation": fetched.source.citation,
    }
    write_json(_receipt_path(fetched.file), receipt)


def _read_receipt(path: Path) -> tuple[str, str, bool]:
    """Return hash, date and whether the hash was verified then."""
    receipt = read_json(path)
    match receipt:
        case {"sha256": str(sha256), "date": str(date), "verified": bool(verified)} if _is_sha256(sha256):
            return sha256.lower(), date, verified
    raise BadInputError(f"{path}: not a receipt of a download", hint="delete it and fetch again")


def _is_sha256(text: str) -> bool:
    return re.fullmatch(r"[0-9a-fA-F]{64}", text) is not None


def _import_command(source: Source, file: Path) -> str:
    options = f" {source.options}" if source.options else ""
    return f"topokd-edge data import {source.format} {shlex.quote(str(file))}{options} --out windows"


def _by_hand(source: Source) -> str:
    return (
        "run it again later, it goes on from what is there; or download the file by hand from "
        f"{source.home}, then: {_import_command(source, Path(f'{source.name}.zip'))}"
    )
