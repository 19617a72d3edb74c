"""The only door through which the store writes to disk: create, sync, link, remove, and atomic replacement.

Everything durable passes through a :class:`FileSystem`, so that a test can put a failing one in its place.
Operating system errors become :class:`~featurestore.errors.StoreWriteError` with the path and the bytes
needed.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featurestore.errors import StoreWriteError

Buffer = bytes | memoryview | NDArray[np.generic]

_WRITE_STEP = 64 << 20
"""Bytes per write call: Linux moves at most 2 GiB in one, and an interrupt should not wait for more."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NOT_WRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM)


class FileSystem:
    """Durable file operations on a local disk."""

    def make_directory(self, path: Path) -> None:
        """Create a directory and its parents; existing ones are fine."""
        with _explained(path):
            path.mkdir(parents=True, exist_ok=True)

    def write_new(self, path: Path, parts: Sequence[Buffer]) -> None:
        """Write a new file from parts laid end to end, and sync it.

        The file is locked while it is written, so that :meth:`remove_abandoned` can tell a living writer's
        file from a dead one's. Whatever goes wrong, no file is left behind.

        Raises
        ------
        StoreWriteError
            Disk full, read-only, or failing.
        """
        views = [_bytes_view(part) for part in parts]
        n_bytes = sum(view.nbytes for view in views)
        with _explained(path, n_bytes):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                _reserve(descriptor, n_bytes)
                for view in views:
                    self.write_all(descriptor, view)
                self.sync_file(descriptor)
            except BaseException:
                os.unlink(path)
                raise
            finally:
                os.close(descriptor)

    def write_all(self, descriptor: int, view: memoryview) -> None:
        """Write a whole buffer; one call may write less than asked."""
        position = 0
        while position < view.nbytes:
            position += os.write(descriptor, view[position : position + _WRITE_STEP])

    def sync_file(self, descriptor: int) -> None:
        """Wait until a file's bytes are on the disk."""
        os.fsync(descriptor)

    def sync_directory(self, path: Path) -> None:
        """Wait until a directory's entries are on the disk."""
        with _explained(path):
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def link_new(self, source: Path, target: Path) -> bool:
        """Give a complete file its final name, atomically and never over another file.

        Returns
        -------
        bool
            False if the name was taken; nothing has changed then.
        """
        with _explained(target):
            try:
                os.link(source, target)
            except FileExistsError:
                return False
        self.sync_directory(target.parent)
        return True

    def replace(self, source: Path, target: Path) -> None:
        """Give a complete file its final name, atomically, in place of whatever had it."""
        with _explained(target):
            os.replace(source, target)
        self.sync_directory(target.parent)

    def remove(self, path: Path) -> None:
        """Remove a file; one that is already gone is fine."""
        with _explained(path):
            path.unlink(missing_ok=True)

    def remove_abandoned(self, directory: Path) -> list[str]:
        """Remove temporary files whose writer is gone; return their names."""
        removed = []
        for path in sorted(directory.iterdir()) if directory.is_dir() else []:
            if path.is_symlink() or not path.is_file():
                continue
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except OSError:
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)
                removed.append(path.name)
            except OSError:
                continue
            finally:
                os.close(descriptor)
        return removed


LOCAL = FileSystem()


def temporary_name(suffix: str = "") -> str:
    """Return a file name no other writer uses."""
    return f"{secrets.token_hex(8)}{suffix}"


def write_atomic(path: Path, data: bytes, filesystem: FileSystem = LOCAL) -> None:
    """Put a complete, synced file at a path, replacing what was there, or leave what was there untouched.

    Raises
    ------
    StoreWriteError
        Disk full, read-only, or failing.
    """
    filesystem.make_directory(path.parent)
    temporary = path.parent / f".{path.name}.{temporary_name('.tmp')}"
    filesystem.write_new(temporary, [data])
    try:
        filesystem.replace(temporary, path)
    except BaseException:
        filesystem.remove(temporary)
        raise


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(8 << 20):
            digest.update(block)
    return digest.hexdigest()


def free_bytes(path: Path) -> int:
    """Return the free bytes, for this user, of the disk that holds a path or would hold it."""
    existing = path.absolute()
    while not existing.exists():
        existing = existing.parent
    return shutil.disk_usage(existing).free


def _bytes_view(part: Buffer) -> memoryview:
    if isinstance(part, np.ndarray):
        return np.ascontiguousarray(part).reshape(-1).view(np.uint8).data
    return memoryview(part).cast("B")


def _reserve(descriptor: int, n_bytes: int) -> None:
    """Claim the space first, so that a full disk is noticed before anything is written."""
    if n_bytes == 0:
        return
    try:
        os.posix_fallocate(descriptor, 0, n_bytes)
    except (OSError, AttributeError) as error:
        if getattr(error, "errno", None) in _FULL:
            raise


@contextmanager
def _explained(path: Path, n_bytes: int | None = None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        size = "" if n_bytes is None else f" ({n_bytes:,} bytes)"
        reason = error.strerror or str(error)
        if error.errno in _FULL:
            raise StoreWriteError(
                f"no space left while writing {path}{size}; {_free_text(path)}. Nothing committed is lost: "
                "free some space and run the same command again"
            ) from error
        if error.errno in _NOT_WRITABLE:
            raise StoreWriteError(
                f"cannot write {path}{size}: {reason}. Is the directory read-only?"
            ) from error
        raise StoreWriteError(f"cannot write {path}{size}: {reason}") from error


def _free_text(path: Path) -> str:
    try:
        return f"{free_bytes(path.parent):,} bytes are free"
    except OSError:
        return "the free space is unknown"
