"""Locks on files by flock(2): taking one, and finding out whether locks work on a disk."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from featurestore.disk.opening import open_for_reading
from featurestore.errors import StoreWriteError

UNKNOWN_HERE = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
"""Errors of a system call that a file system does not have."""


def lock_alone(descriptor: int, path: Path) -> None:
    """Lock an open file for this process alone, waiting for whoever holds it.

    Raises
    ------
    StoreWriteError
        If the disk has no locks.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in (*UNKNOWN_HERE, errno.ENOLCK):
            raise
        raise StoreWriteError(
            f"cannot lock {path}: {error.strerror}. A store tells the files of a running writer from those "
            "of a dead one by flock(2): mount the disk with locks (NFS: version 4; Lustre: -o flock), or use "
            "another disk",
            path=path,
            errno=error.errno,
        ) from error


def lock_excludes(path: Path) -> bool:
    """Return whether a file that this process has locked alone is locked for others.

    False on file systems that take ``flock`` and do nothing.
    """
    try:
        descriptor = open_for_reading(path)
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False
