"""Where trials are remembered: a journal beside the results, or a database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from topokd_edge.errors import BadInputError, MissingError, UsageError
from topokd_edge.filesystem import NETWORK, kind_of

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from sqlalchemy import URL

JOURNAL = "journal.log"
_KNOWN = (
    "expected postgresql://USER@HOST/DATABASE, sqlite:///FILE, or nothing for a journal in the output folder"
)


def shown(url: str) -> str:
    """Return the address of a storage without its password; "" is the journal.

    Raises
    ------
    UsageError
        When it is no address, of a kind that is not served, or SQLite on a disk that machines share.
    """
    if not url:
        return ""
    parsed = _parsed(url)
    kind = parsed.get_backend_name()
    if kind == "sqlite":
        _refuse_shared(parsed)
    elif kind != "postgresql":
        raise UsageError(f"--storage {parsed.render_as_string()}: {kind} is not served", hint=_KNOWN)
    return parsed.render_as_string(hide_password=True)


def open_storage(url: str, folder: Path) -> BaseStorage:
    """Open the storage at `url`, or the journal in `folder`.

    Raises
    ------
    BadInputError
        When the journal is damaged, or what lies at the address is no storage of trials.
    MissingError
        When the database does not answer, or the package that speaks to it is missing.
    """
    with answering(url, folder):
        try:
            if not url:
                return _journal(folder / JOURNAL)
            from optuna.storages import RDBStorage
            from sqlalchemy.pool import NullPool

            # A connection each time: one kept through an hour of training may be cut meanwhile.
            return RDBStorage(url, engine_kwargs={"poolclass": NullPool})
        except ImportError as error:
            raise MissingError(
                f"{_place(url, folder)}: the package that speaks to it is missing ({error})",
                hint="pip install 'topokd-edge[postgres]' (postgresql+psycopg://...), or psycopg2-binary",
            ) from None
        except (ValueError, LookupError, TypeError, AttributeError, AssertionError, RuntimeError) as error:
            raise BadInputError(
                f"{_place(url, folder)}: damaged, or no storage of trials ({error})",
                hint="start anew with another --out",
            ) from None


@contextmanager
def answering(url: str, folder: Path) -> Iterator[None]:
    """Turn the errors of a database that does not answer into one for the user.

    Raises
    ------
    MissingError
        When it does not answer.
    """
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as error:
        cause = error.__cause__ if isinstance(error, StorageInternalError) else error
        why = str(getattr(cause, "orig", None) or cause or error).strip().splitlines()[0]
        raise MissingError(
            f"{_place(url, folder)}: does not answer ({why})", hint="start it, or check the address"
        ) from None


def one_process_only(url: str) -> bool:
    """Tell whether the storage breaks when several processes write to it."""
    return bool(url) and _parsed(url).get_backend_name() == "sqlite"


def _parsed(url: str) -> URL:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(url)
    except (ArgumentError, ValueError):
        raise UsageError("--storage: not the address of a database", hint=_KNOWN) from None


def _refuse_shared(url: URL) -> None:
    name = url.database or ""
    if not name or name == ":memory:" or name.startswith("file:"):
        raise UsageError(f"--storage {url}: nothing would be left to resume", hint=_KNOWN)
    kind = kind_of(Path(name))
    if kind in NETWORK:
        raise UsageError(
            f"--storage {url}: {name} lies on a network disk ({kind}), where SQLite's locks fail and "
            "the file is damaged sooner or later",
            hint="leave --storage out (the journal is made for shared disks), or use PostgreSQL",
        )


def _journal(path: Path) -> BaseStorage:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

    lock = JournalFileSymlinkLock(str(path))
    if path.exists():
        lock.acquire()
        try:
            _drop_cut_line(path)
        finally:
            lock.release()
    return JournalStorage(JournalFileBackend(str(path), lock))


def _drop_cut_line(path: Path) -> None:
    """Remove what a process that was killed while writing left of its last line."""
    with path.open("rb+") as stream:
        data = stream.read()
        if not data.endswith(b"\n"):
            stream.truncate(data.rfind(b"\n") + 1)


def _place(url: str, folder: Path) -> str:
    return f"--storage {shown(url)}" if url else str(folder / JOURNAL)
