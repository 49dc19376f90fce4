"""What kind of file system a path lies on."""

from __future__ import annotations

import re
from pathlib import Path

NETWORK = frozenset(
    (
        *(
            "nfs",
            "nfs4",
            "cifs",
            "smb3",
            "smbfs",
            "ncpfs",
            "afs",
            "coda",
            "davfs",
            "9p",
            "vboxsf",
            "virtiofs",
        ),
        *("ceph", "glusterfs", "lustre", "gpfs", "beegfs", "orangefs", "pvfs2", "ocfs2", "gfs2"),
        *("fuse.sshfs", "fuse.ceph", "fuse.glusterfs", "fuse.davfs2"),
        *("fuse.rclone", "fuse.s3fs", "fuse.gcsfuse"),
    )
)
"""File systems that another machine may write to at the same time."""


def kind_of(path: Path) -> str:
    """Return the type of the file system that `path`, or what exists of it, lies on; "" where nobody says.

    Linux names it in the table of mounts, such as `ext4` or `nfs4`.
    """
    place, found, longest = path.resolve(), "", -1
    for line in mount_table():
        parts = line.split(" ")
        if len(parts) < 3:
            continue
        mounted = Path(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), parts[1]))
        # Of two at the same place, the later hides the earlier.
        if place.is_relative_to(mounted) and len(mounted.parts) >= longest:
            found, longest = parts[2], len(mounted.parts)
    return found


def mount_table() -> list[str]:
    """Return the lines of the table of mounts: device, place, type and more; none where there is no table."""
    try:
        return Path("/proc/self/mounts").read_text("utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []
