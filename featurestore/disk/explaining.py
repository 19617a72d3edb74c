"""Errors of the operating system as StoreWriteError: what could not be written, how large, and what to do."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from featurestore.disk.places import free_bytes
from featurestore.errors import StoreWriteError

FULL = {errno.ENOSPC: "no space left", errno.EDQUOT: "the disk quota is used up"}
_NOT_WRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM)


@contextmanager
def explained(path: Path, n_bytes: int | None = None) -> Iterator[None]:
    """Raise an OSError inside the context as StoreWriteError.

    Parameters
    ----------
    path : Path
        What is written.
    n_bytes : int, optional
        Its size.

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
            _message(path, size, error), path=path, n_bytes=n_bytes, errno=error.errno
        ) from error


def _message(path: Path, size: str, error: OSError) -> str:
    reason = error.strerror or str(error)
    if error.errno in FULL:
        return (
            f"{FULL[error.errno]} while writing {path}{size}; {_free_text(path)}. Nothing committed is "
            "lost: free some space and run the same command again"
        )
    if error.errno == errno.EFBIG:
        return (
            f"cannot write {path}{size}: the disk or a limit (`ulimit -f`) allows no file that large: "
            "make the store with smaller shards"
        )
    if error.errno in _NOT_WRITABLE:
        return f"cannot write {path}{size}: {reason}. Is the directory read-only?"
    return (
        f"cannot write {path}{size}: {reason}. Nothing committed is lost: see to the disk and run the "
        "same command again"
    )


def _free_text(path: Path) -> str:
    try:
        return f"{free_bytes(path.parent):,} bytes are free"
    except OSError:
        return "the free space is unknown"
