"""Errors of the operating system as StoreWriteError: what could not be written, how large, and what to do."""

from __future__ import annotations

import errno
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from featurestore.disk.places import free_bytes, free_inodes
from featurestore.errors import StoreWriteError

FULL = {errno.ENOSPC: "no space left", errno.EDQUOT: "the disk quota is used up"}
_NOT_WRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM)


@contextmanager
def explained(path: Path, n_bytes: int | None = None, *, divisible: bool = False) -> Iterator[None]:
    """Raise the OSErrors of what is done inside as StoreWriteError.

    Parameters
    ----------
    path : Path
        What is written.
    n_bytes : int, optional
        Its size.
    divisible : bool
        Whether it is a shard that could be several smaller ones.

    Raises
    ------
    StoreWriteError
        Disk full, read-only, or failing; with path, size and error number.
    """
    try:
        yield
    except OSError as error:
        size = "" if n_bytes is None else f" ({n_bytes:,} bytes)"
        raise StoreWriteError(
            _explanation(error, f"{path}{size}", path, n_bytes, divisible),
            path=path,
            n_bytes=n_bytes,
            errno=error.errno,
        ) from error


def _explanation(error: OSError, what: str, path: Path, n_bytes: int | None, divisible: bool) -> str:
    reason = error.strerror or str(error)
    if error.errno in FULL:
        return (
            f"{FULL[error.errno]} while writing {what}; {_free_text(path, error.errno == errno.ENOSPC)}. "
            "Nothing committed is lost: free some space and run the same command again"
        )
    if error.errno == errno.EFBIG:
        return f"cannot write {what}: {_too_large(n_bytes, divisible)}"
    if error.errno == errno.ENOTDIR:
        return f"cannot write {what}: a part of the path is a file, expected a directory: choose another path"
    if error.errno in _NOT_WRITABLE:
        return f"cannot write {what}: {reason}. Is the directory read-only?"
    return (
        f"cannot write {what}: {reason}. Nothing committed is lost: see to the disk and run the same command "
        "again"
    )


def _too_large(n_bytes: int | None, divisible: bool) -> str:
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    smaller = "make the store with smaller shards"
    if limit != resource.RLIM_INFINITY and (n_bytes is None or n_bytes > limit):
        advice = f"raise the limit, or {smaller}" if divisible else "raise the limit"
        return (
            f"a limit of this process (`ulimit -f`) allows no file that large, but {limit:,} bytes: {advice}"
        )
    return f"the disk allows no file that large: {smaller if divisible else 'choose another disk'}"


def _free_text(path: Path, is_full: bool) -> str:
    """Return a disk's free bytes in words; or, if it is full all the same, that inodes ran out."""
    try:
        n_free, n_inodes = free_bytes(path.parent), free_inodes(path.parent)
    except OSError:
        return "the free space is unknown"
    free = "the disk does not say how much is free" if n_free is None else f"{n_free:,} bytes are free"
    if is_full and n_inodes == 0:
        return (
            f"the disk has no inodes left (df -i), though {free}: delete files; `featurestore gc` removes "
            "those that a store does not need"
        )
    return free
