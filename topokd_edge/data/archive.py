"""Unpacking a `.zip` that may be damaged or hostile: inside one folder, within limits, all or nothing."""

from __future__ import annotations

import re
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from topokd_edge.errors import BadInputError, MissingError
from topokd_edge.files import new_folder

MAX_MEMBERS = 50_000
MAX_BYTES = 64 << 30
"""Of everything unpacked; the largest public sets of recordings stay below 10 GB."""
MAX_RATIO = 200
"""Unpacked over packed size of a member; recordings as text reach 3 to 20, deflate cannot pass 1,032."""
RATIO_MATTERS = 1 << 20
"""Bytes; a smaller member may be as repetitive as it likes."""
MAX_DIRECTORY = 16 << 20
"""Bytes of the list of members, which is read into memory as a whole."""
_TAIL = (1 << 16) + 22 + 76
"""Bytes at the end of an archive in which the records that end it stand."""
_BLOCK = 1 << 20
_SHOWN = 10
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1
# What zipfile and zlib raise on damaged content.
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    OSError,
    EOFError,
    ValueError,
    NotImplementedError,
    RuntimeError,
    struct.error,
    OverflowError,
)
_AGAIN = "copy or download the archive again"


@dataclass(slots=True)
class _Room:
    """What may still be unpacked, over an archive and the archives in it."""

    members: int
    size: int


def unpack(path: Path, into: Path) -> Path:
    """Unpack a `.zip` into the folder `into`, which is complete when this returns and else absent.

    An archive inside it becomes a folder of the archive's name (PAMAP2 comes so); archives inside that one
    stay files.

    Parameters
    ----------
    path
        The archive. Members are plain files and folders, stored or deflated.
    into
        Must not exist, or be empty.

    Returns
    -------
    Path
        `into`.

    Raises
    ------
    BadInputError
        When `into` is in use; when the archive is damaged, or a member is encrypted, would land outside the
        folder, is no plain file, or expands beyond the limits of this module. Members are named.
    MissingError
        When the disk has no room for what the archive says it holds.
    """
    if not path.is_file():
        raise BadInputError(f"{path}: no such file")
    room = _Room(MAX_MEMBERS, MAX_BYTES)
    with new_folder(into) as folder:
        for inner in _unpack_one(path, path.name, folder, room):
            packed = inner.with_name(inner.name + ".packed")
            while packed.exists():
                packed = packed.with_name(packed.name + "_")
            inner.rename(packed)
            inner.mkdir()
            _unpack_one(packed, f"{path.name}, {inner.relative_to(folder)}", inner, room)
            packed.unlink()
    return into


def _unpack_one(path: Path, name: str, folder: Path, room: _Room) -> list[Path]:
    """Unpack one archive, return the archives among its members."""
    _refuse_long_directory(path, name)
    try:
        archive = zipfile.ZipFile(path)
    except _UNREADABLE as error:
        raise _damaged(name, error) from None
    with archive:
        members = archive.infolist()
        _refuse(members, name, path.stat().st_size, room)
        needed = sum(member.file_size for member in members)
        free = shutil.disk_usage(folder).free
        if needed > free:
            raise MissingError(
                f"{name}: unpacked it takes {needed:,} bytes, the disk of {folder.parent} has {free:,} free",
                hint="make room, or unpack it elsewhere and give the folder",
            )
        room.members -= len(members)
        room.size -= needed
        inner = []
        for member in members:
            target = folder.joinpath(*_parts(member))
            if member.is_dir():
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as out:
                _write(archive, member, name, out)
            if target.suffix.lower() == ".zip":
                inner.append(target)
    return inner


def _write(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str, out: IO[bytes]) -> None:
    """Copy one member; what it holds must be what the archive says, in size and check sum."""
    written = 0
    for block in _blocks(archive, member, name):
        written += len(block)
        if written > member.file_size:
            break
        out.write(block)
    if written != member.file_size:
        raise BadInputError(
            f"{name}: member {member.filename!r} holds {written:,} bytes or more, "
            f"the archive says {member.file_size:,}",
            hint=_AGAIN,
        )


def _blocks(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> Iterator[bytes]:
    # Only what reading raises is the archive's fault, so writing stays outside.
    try:
        with archive.open(member) as stream:
            while block := stream.read(_BLOCK):
                yield block
    except _UNREADABLE as error:
        raise _damaged(f"{name}: member {member.filename!r}", error) from None


def _parts(member: zipfile.ZipInfo) -> tuple[str, ...]:
    return PurePosixPath(member.filename).parts


def _refuse(members: list[zipfile.ZipInfo], name: str, packed: int, room: _Room) -> None:
    """Raise with every member that may not be unpacked."""
    if len(members) > room.members:
        raise BadInputError(f"{name}: {len(members):,} more members, at most {MAX_MEMBERS:,} are unpacked")
    problems = [f"{m.filename!r}: {why}" for m in members if (why := _why_not(m, packed))]
    problems += _clashes(members)
    total = sum(member.file_size for member in members)
    if total > room.size:
        problems.append(f"in all {total:,} bytes more when unpacked, at most {MAX_BYTES:,} are unpacked")
    if sum(member.compress_size for member in members) > packed:
        problems.append("members overlap: together they are larger than the archive")
    if problems:
        more = [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        raise BadInputError(
            f"{name}: {len(problems)} reason(s) not to unpack this archive",
            problems=[*problems[:_SHOWN], *more],
            hint="unpack what you trust of it yourself and give the folder; or " + _AGAIN,
        )


def _why_not(member: zipfile.ZipInfo, packed: int) -> str:
    """Say why a member may not be unpacked; "" when it may."""
    name = member.orig_filename
    kind = stat.S_IFMT(member.external_attr >> 16)
    if not name or "\0" in name or not name.isprintable():
        return "its name is empty or holds control characters"
    if "\\" in name or name.startswith("/") or re.match("[A-Za-z]:", name):
        return "its name is not a relative path with / between folders"
    if ".." in name.split("/") or not _parts(member):
        return "it would land outside the folder"
    if any(len(part.encode()) > 255 for part in _parts(member)) or len(name.encode()) > 1024:
        return "its name is too long"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "it is a link or a device, expected a plain file"
    if member.flag_bits & _ENCRYPTED:
        return "it is encrypted"
    if member.compress_type not in _METHODS:
        return f"compression method {member.compress_type}, expected stored (0) or deflated (8)"
    if member.compress_size > packed:
        return f"it says to take {member.compress_size:,} bytes of an archive of {packed:,}"
    if member.file_size > max(RATIO_MATTERS, MAX_RATIO * member.compress_size):
        return f"{member.compress_size:,} bytes would become {member.file_size:,}, over {MAX_RATIO} times"
    return ""


def _clashes(members: list[zipfile.ZipInfo]) -> list[str]:
    """Name the members whose place another one takes."""
    files: set[tuple[str, ...]] = set()
    problems = []
    for member in members:
        if not member.is_dir():
            if _parts(member) in files:
                problems.append(f"{member.filename!r}: there are two of this name")
            files.add(_parts(member))
    for member in members:
        parts = _parts(member)
        above = range(1, len(parts) + member.is_dir())
        if any(parts[:depth] in files for depth in above):
            problems.append(f"{member.filename!r}: a file has the name of a folder on its way")
    return problems


def _refuse_long_directory(path: Path, name: str) -> None:
    """Look at the size of the list of members before it is read into memory."""
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(max(0, size - _TAIL))
            tail = stream.read()
    except OSError as error:
        raise BadInputError(f"{name}: cannot be read ({error.strerror})") from None
    at = tail.rfind(b"PK\5\6")
    if at < 0 or at + 22 > len(tail):
        raise BadInputError(f"{name}: not a .zip archive, or its end is missing", hint=_AGAIN)
    (length,) = struct.unpack_from("<I", tail, at + 12)
    # In the 64-bit form the length stands in a record of 56 bytes, before a locator of 20.
    if at >= 76 and tail[at - 20 : at - 16] == b"PK\6\7" and tail[at - 76 : at - 72] == b"PK\6\6":
        (length,) = struct.unpack_from("<Q", tail, at - 76 + 40)
    if length > MAX_DIRECTORY:
        raise BadInputError(f"{name}: its list of members takes {length:,} bytes, at most {MAX_DIRECTORY:,}")


def _damaged(what: str, error: BaseException) -> BadInputError:
    return BadInputError(f"{what}: damaged ({str(error) or type(error).__name__})", hint=_AGAIN)
