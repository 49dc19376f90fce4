"""How much memory a process may still take."""

from __future__ import annotations

import os
from pathlib import Path

_FILES = {  # by version of the control groups: limit, use, prefix of what use counts of files
    2: ("memory.max", "memory.current", ""),
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
}


def free_memory(root: Path = Path("/")) -> int:
    """Return the bytes of main memory that can be taken without swapping.

    What the kernel calls available, or what a limit of the process's control groups (a container's, a batch
    job's) leaves, if that is less; memory that only caches files counts as free in both. Where there is no
    `/proc`, half of the machine's memory.

    Parameters
    ----------
    root
        Where `proc` and `sys` lie.
    """
    try:
        lines = (root / "proc/meminfo").read_text("utf-8").splitlines()
        kilobytes = next(line.split()[1] for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    return max(0, min([int(kilobytes) * 1024, *_below_limits(root)]))


def _below_limits(root: Path) -> list[int]:
    """Return the bytes left below each memory limit that holds for this process."""
    left = []
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / ("memory" if controllers else "")
        limit, use, prefix = _FILES[1 if controllers else 2]
        group = top / path.lstrip("/")
        for folder in {top, group, *(parent for parent in group.parents if top in parent.parents)}:
            try:
                room = int((folder / limit).read_text("ascii")) - int((folder / use).read_text("ascii"))
            except (OSError, ValueError):  # no such group seen from inside a container, or "max": no limit
                continue
            files = {f"{prefix}active_file", f"{prefix}inactive_file"}
            counts = (line.partition(" ") for line in _lines(folder / "memory.stat"))
            left.append(room + sum(int(count) for name, _, count in counts if name in files))
    return left


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8").splitlines()
    except OSError:
        return []
