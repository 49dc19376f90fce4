"""Locks between processes: held by a file, and free the moment their holder is gone, however it ended."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from topokd_edge.errors import MissingError


@contextmanager
def held(path: Path, *, wait: bool) -> Iterator[bool]:
    """Hold the lock of the file `path`, which is made when it is missing and left there.

    Parameters
    ----------
    path
        On a shared disk the lock holds between machines, if the disk has locks (NFS 4, SMB, Lustre).
    wait
        Whether to wait for whoever holds it.

    Yields
    ------
    bool
        Whether it is held; False only without `wait`.

    Raises
    ------
    MissingError
        When the file system has no locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        except OSError as error:
            raise MissingError(
                f"{path}: the file system cannot lock files ({error.strerror})", hint="choose another --out"
            ) from None
        yield True
    finally:
        os.close(handle)
