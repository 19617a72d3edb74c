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
import stat
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
            missing = [directory for directory in (path, *path.parents) if not directory.exists()]
            path.mkdir(parents=True, exist_ok=True)
        for directory in missing:
            self.sync_directory(directory.parent)

    @contextmanager
    def temporary_file(self, path: Path, parts: Sequence[Buffer]) -> Iterator[None]:
        """Hold a new, synced file of parts laid end to end; remove it when the context ends.

        Give it its final name inside the context (:meth:`link_new`, :meth:`replace`): until the context
        ends the file is locked, so that :meth:`remove_abandoned` can tell a living writer's file from a dead
        one's. Whatever goes wrong, no file is left behind.

        Raises
        ------
        StoreWriteError
            Disk full, read-only, or failing.
        """
        views = [_bytes_view(part) for part in parts]
        n_bytes = sum(view.nbytes for view in views)
        with _explained(path, n_bytes):
            descriptor = _create_locked(path)
        try:
            with _explained(path, n_bytes):
                _reserve(descriptor, n_bytes)
                for view in views:
                    self.write_all(descriptor, view)
                self.sync_file(descriptor)
            yield
        finally:
            os.close(descriptor)
            self.remove(path)

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
                linked = True
            except FileExistsError:
                linked = False
        # Also when the name was taken: whoever took it may not have come to this yet, and the caller builds
        # on its being there.
        self.sync_directory(target.parent)
        return linked

    def replace(self, source: Path, target: Path) -> None:
        """Give a complete file its final name, atomically, in place of whatever had it."""
        with _explained(target):
            os.replace(source, target)
        self.sync_directory(target.parent)

    def remove(self, path: Path) -> None:
        """Remove a file; one that is already gone is fine."""
        with _explained(path):
            path.unlink(missing_ok=True)

    def remove_abandoned(self, directory: Path, pattern: str = "*") -> list[str]:
        """Remove temporary files whose writer is gone; return their names."""
        removed = []
        for path in sorted(directory.glob(pattern)) if directory.is_dir() else []:
            if path.is_symlink() or not path.is_file():
                continue
            try:
                descriptor = open_for_reading(path)
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
    with filesystem.temporary_file(temporary, [data]):
        filesystem.replace(temporary, path)


def open_for_reading(path: Path) -> int:
    """Return a descriptor of a regular file; a link, a pipe or a device in its place is an OSError."""
    # Opening a pipe would wait for its writer unless told not to.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return descriptor


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


def _create_locked(path: Path) -> int:
    """Return a descriptor of a new file, locked."""
    while True:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_nlink:
                return descriptor
        except BaseException:
            os.close(descriptor)
            path.unlink(missing_ok=True)
            raise
        # Between creation and lock another session took the file for an abandoned one.
        os.close(descriptor)


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
