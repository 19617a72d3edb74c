"""Places: the user's cache folder, the disk a path that may not exist yet lies on, what that has left."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from featurestore.errors import UsageError

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.:-]+):/+(.*)", re.DOTALL)
"""A scheme, which has two letters at least, and what follows it. Path() leaves one slash of the two."""


def local_path(path: str | os.PathLike[str]) -> Path:
    """Return a path that a user gave, after checking that it is no URL.

    ``Path("s3://bucket/x")`` would be the folder ``s3:`` of the working directory.

    Raises
    ------
    UsageError
        If it begins with a scheme such as ``s3://``; ``file://`` included.
    """
    url = _URL.fullmatch(os.fspath(path))
    if url is None:
        return Path(path)
    scheme, rest = url.groups()
    if scheme.lower() == "file":
        raise UsageError(f"file:///{rest} is a URL, expected a path: give the path itself, /{rest}")
    remedy = "give a path, such as one below which a bucket is mounted"
    if Path(path).exists():  # earlier revisions made it of a URL
        remedy = f"give a path; for the directory {scheme}: that is here, {Path(path).absolute()}"
    raise UsageError(
        f"{scheme}://{rest} is a URL, expected a path: stores and models lie on a local or shared disk; "
        f"{remedy}"
    )


def cache_folder() -> Path:
    """Return ``$FEATURESTORE_CACHE``, ``$XDG_CACHE_HOME/featurestore`` or ``~/.cache/featurestore``."""
    if named := os.environ.get("FEATURESTORE_CACHE"):
        return Path(named).expanduser()
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return Path(xdg) / "featurestore"
    return Path.home() / ".cache" / "featurestore"


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
