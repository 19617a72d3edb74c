"""Where a path that may not exist yet lies on the disk."""

from __future__ import annotations

import shutil
from pathlib import Path


def nearest_existing(path: Path) -> Path:
    """Return the path, or the lowest of those above it that exists, absolute."""
    path = path.absolute()
    return next(each for each in (path, *path.parents) if each.exists())


def free_bytes(path: Path) -> int:
    """Return the free bytes, for this user, of the disk that holds a path or would hold it."""
    return shutil.disk_usage(nearest_existing(path)).free
