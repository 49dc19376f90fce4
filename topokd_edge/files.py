"""Writing so that a file is whole or absent, and hashing."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from topokd_edge.errors import BadInputError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; rename it to `path` when the block ends without an error.

    Parameters
    ----------
    path
        The file to write. Its folder is created.

    Yields
    ------
    Path
        Where to write. It is removed when the block raises.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    part = Path(name)
    try:
        yield part
        umask = os.umask(0)
        os.umask(umask)
        part.chmod(0o666 & ~umask)
        part.replace(path)
    except OSError as error:
        _name_place(error, path)
        raise
    finally:
        part.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all."""
    with replacing(path) as part:
        part.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`, whole or not at all."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, document: Any) -> None:
    """Write `document` as indented JSON; NaN and infinity are refused with ValueError."""
    write_text(path, json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises
    ------
    BadInputError
        When the file is missing or is not JSON; the message names it.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInputError(f"{path}: no such file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BadInputError(f"{path}: not readable as JSON ({error})") from None


@contextmanager
def new_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Give a temporary folder beside `path` that becomes `path` when the block ends without an error.

    Raises
    ------
    BadInputError
        When `path` exists and `overwrite` is false.
    """
    refuse_existing(path, overwrite=overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
    try:
        yield part
        part.chmod(0o755)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.exists() or path.is_symlink():
            path.unlink()
        part.rename(path)
    except OSError as error:
        _name_place(error, path)
        raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def remove_halves(folder: Path) -> None:
    """Remove what a killed process had half written below `folder`, where nobody else may be writing."""
    for part in folder.rglob(".*.part"):
        part.unlink(missing_ok=True)


def refuse_existing(path: Path, *, overwrite: bool, also: str = "") -> None:
    """Raise BadInputError when `path` exists (an empty folder does not count) and `overwrite` is false.

    `also` names one more way out, for the hint.
    """
    if overwrite or not (path.exists() or path.is_symlink()):
        return
    if path.is_dir() and not any(path.iterdir()):
        return
    ways = ["choose another --out", "--overwrite to replace it", *([also] if also else [])]
    raise BadInputError(f"{path}: already exists", hint="; or ".join(ways))


def _name_place(error: OSError, path: Path) -> None:
    """Say in an error of the operating system, such as a full disk, what was being written."""
    if error.filename is None:
        error.filename = str(path)


def sha256_bytes(data: bytes) -> str:
    """Return the SHA-256 of `data` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's content in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
