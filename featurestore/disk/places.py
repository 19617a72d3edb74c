"""Where a path that may not exist yet lies on the disk, and what that disk has left."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def nearest_existing(path: Path) -> Path:
    """Return the path, or the lowest of those above it that exists, absolute."""
    path = path.absolute()
    return next(each for each in (path, *path.parents) if each.exists())


def free_bytes(path: Path) -> int | None:
    """Return the free bytes, for this user, of the disk that holds a path or would hold it.

    None if the disk does not say: ramfs and some FUSE file systems report that they have no blocks at all.
    """
    found = os.statvfs(nearest_existing(path))
    return found.f_bavail * found.f_frsize if found.f_blocks else None


def free_inodes(path: Path) -> int | None:
    """Return how many more files this user may make on that disk, None if the disk does not say."""
    found = os.statvfs(nearest_existing(path))
    return found.f_favail if found.f_files else None


def same_file(one: Path, other: Path) -> bool:
    """Return whether two names are of one file; links are not followed."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(one.lstat(), other.lstat())
    return False
