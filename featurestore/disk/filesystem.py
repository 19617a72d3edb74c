"""The only door through which the store writes to disk: create, sync, link, remove, and atomic replacement.

Everything durable passes through a :class:`FileSystem`, and there through :meth:`FileSystem.operate`, so that
a test can put a failing, dying or remembering one in its place. Operating system errors become
:class:`~featurestore.errors.StoreWriteError` with the path and the bytes needed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeVar

import numpy as np

from featurestore.disk.explaining import FULL, explained
from featurestore.disk.locking import UNKNOWN_HERE, lock_alone, lock_excludes
from featurestore.disk.opening import OpenFile, open_for_reading
from featurestore.disk.operation import Operation
from featurestore.disk.places import nearest_existing, same_file
from featurestore.disk.storage import BytesLike
from featurestore.disk.temporary import ORPHAN_SECONDS, may_be_in_use
from featurestore.errors import StoreWriteError

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

_WRITE_STEP = 64 << 20
"""Bytes per write call: Linux moves at most 2 GiB in one, and an interrupt should not wait for more."""

_NO_SECOND_NAMES = (*UNKNOWN_HERE, errno.EPERM, errno.EMLINK)
"""What link(2) says on file systems on which a file has one name: FAT, many FUSE and cloud mounts."""

_warned_of: set[int] = set()
"""Disks, by device number, whose user was told about :data:`_NO_SECOND_NAMES`."""


class FileSystem:
    """The local disk: a :class:`~featurestore.disk.storage.Storage`, and more for models and downloads."""

    def operate(self, operation: Operation, call: Callable[..., Result], *arguments: object) -> Result:
        """Do one operation, a call with its arguments: every change to the disk passes here."""
        return call(*arguments)

    def open(self, path: Path) -> OpenFile:
        """Open a regular file for reading.

        Raises
        ------
        OSError
            See :func:`~featurestore.disk.opening.open_for_reading`.
        """
        return OpenFile(path)

    def names(self, directory: Path) -> list[str]:
        """Return the names in a directory, sorted.

        Raises
        ------
        OSError
        """
        return sorted(os.listdir(directory))

    def make_directory(self, path: Path, *, lasting: bool = True) -> None:
        """Create a directory and its parents; existing ones are fine.

        Each directory is synced into its parent before the next one is made inside it. The lowest one that
        exists already may come from a process that was killed before that sync, so it is synced first; if
        that is ``path`` itself, only if ``lasting``: if what goes into it must survive a power cut.
        """
        with explained(path):
            missing = [directory for directory in (path, *path.parents) if not directory.exists()]
            if not missing and not path.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
            if missing or lasting:
                lowest = missing[-1].parent if missing else path
                # A parent that this process may not open was not made by it.
                with contextlib.suppress(PermissionError):
                    self._sync_directory(lowest.parent)
        for directory in reversed(missing):
            with explained(directory):
                # Mode, parents, exist_ok: another process may make it at the same time.
                self.operate(Operation("mkdir", directory), directory.mkdir, 0o777, False, True)
            self.sync_directory(directory.parent)

    @contextmanager
    def new_file(self, path: Path, name: Path | None = None, n_bytes: int | None = None) -> Iterator[int]:
        """Hold the descriptor of a new, empty, locked file; remove the file when the context ends.

        Give it its final name inside the context (:meth:`link_new`, :meth:`replace`): until the context
        ends the file is locked, so that :meth:`remove_orphaned` can tell a living writer's file from a dead
        one's. Whatever goes wrong, no file is left behind.

        Parameters
        ----------
        path : Path
        name : Path, optional
            What errors call it: the name that it is to have.
        n_bytes : int, optional
            What errors say that it needs.

        Raises
        ------
        StoreWriteError
            Disk full, read-only, or failing.
        """
        with explained(name or path, n_bytes):
            descriptor = self._create_locked(path)
        try:
            yield descriptor
        finally:
            os.close(descriptor)
            # A temporary file that cannot be removed costs its bytes until the next session removes it. That
            # must neither hide an earlier error nor fail a commit that succeeded.
            with contextlib.suppress(StoreWriteError):
                self.remove(path)

    @contextmanager
    def temporary_file(
        self,
        path: Path,
        parts: Iterable[BytesLike],
        n_bytes: int | None = None,
        *,
        name: Path | None = None,
        divisible: bool = False,
    ) -> Iterator[None]:
        """Hold a new, synced file of parts laid end to end; remove it when the context ends.

        Parameters
        ----------
        path : Path
        parts : iterable of bytes, memoryview or array
        n_bytes : int, optional
            Of all parts: with it they are taken one after the other, and need not be in memory together.
        name : Path, optional
            As for :meth:`new_file`.
        divisible : bool
            Whether it is a shard that could be several smaller ones, where the disk allows none so large.

        Raises
        ------
        StoreWriteError
            See :meth:`new_file`.
        """
        if n_bytes is None:
            views = [_bytes_view(part) for part in parts]
            parts, n_bytes = views, sum(view.nbytes for view in views)
        with self.new_file(path, name, n_bytes) as descriptor:
            with explained(name or path, n_bytes, divisible=divisible):
                self._reserve(path, descriptor, n_bytes)
                for part in parts:
                    self.write_all(path, descriptor, _bytes_view(part))
                self.sync_file(path, descriptor)
            yield

    def scratch_file(self, directory: Path) -> IO[bytes]:
        """Return a file without a name on the disk of a directory, or where temporary files lie.

        It goes with the object, or with the process however that ends.
        """
        path = nearest_existing(directory)
        with contextlib.suppress(OSError):
            return tempfile.TemporaryFile(dir=path, buffering=0)
        # Planning for a store that this user may only read.
        with explained(path):
            return tempfile.TemporaryFile(buffering=0)

    def append(self, file: IO[bytes], directory: Path, part: BytesLike) -> None:
        """Write at the end of a scratch file of a directory."""
        view = _bytes_view(part)
        with explained(directory / "(scratch)", view.nbytes):
            self.write_all(directory / "(scratch)", file.fileno(), view)

    def write_all(self, path: Path, descriptor: int, view: memoryview) -> None:
        """Write a whole buffer; one call may write less than asked."""
        position = 0
        while position < view.nbytes:
            data = view[position : position + _WRITE_STEP]
            operation = Operation("write", path, descriptor, data, data.nbytes)
            position += self.operate(operation, os.write, descriptor, data)

    def sync_file(self, path: Path, descriptor: int) -> None:
        """Wait until a file's bytes are on the disk."""
        self.operate(Operation("sync", path, descriptor), os.fsync, descriptor)

    def sync(self, path: Path) -> None:
        """Wait until the bytes of a file that somebody wrote are on the disk."""
        with explained(path):
            self._sync(path)

    def sync_directory(self, path: Path) -> None:
        """Wait until a directory's entries are on the disk."""
        with explained(path):
            self._sync_directory(path)

    def link_new(self, source: Path, target: Path) -> bool:
        """Give a complete file its final name, atomically and never over another file.

        On a file system without link(2) the file is renamed under a lock of the directory instead, which
        processes of one computer heed: only one computer may write to such a store at a time.

        Returns
        -------
        bool
            False if the name was taken; nothing has changed then.
        """
        with explained(target):
            try:
                linked = self._link(source, target)
            except OSError as error:
                if error.errno not in _NO_SECOND_NAMES:
                    raise
                linked = self._rename_new(source, target, error)
        # Also when the name was taken: the process that took it may not have synced it yet, and the caller
        # relies on it.
        self.sync_directory(target.parent)
        return linked

    def second_name(self, source: Path, target: Path) -> bool:
        """Give a file one more name, if that is free and the disk allows it; the first one stays.

        Returns
        -------
        bool
            Whether the file has that name now.
        """
        with explained(target):
            # Who made the file may not have synced it: it may have been copied here a moment ago.
            self._sync(source)
            try:
                linked = self._link(source, target)
            except OSError as error:
                if error.errno not in (*_NO_SECOND_NAMES, errno.EXDEV):
                    raise
                return False
        self.sync_directory(target.parent)
        return linked

    def replace(self, source: Path, target: Path, *, lasting: bool = True) -> None:
        """Give a complete file its final name, atomically, in place of whatever had it."""
        with explained(target):
            self._rename(source, target)
        if lasting:
            self.sync_directory(target.parent)

    def remove(self, path: Path) -> None:
        """Remove a file; one that is already gone is fine."""
        with explained(path):
            self._unlink(path)

    def remove_orphaned(
        self, directory: Path, pattern: str = "*", *, older_than: float = ORPHAN_SECONDS
    ) -> list[str]:
        """Remove temporary files whose writer is dead; return their names.

        Parameters
        ----------
        directory : Path
        pattern : str
            Of their names.
        older_than : float
            Seconds for which a file stays where its lock cannot tell: see :func:`may_be_in_use`.
        """
        removed = []
        before = time.time() - older_than
        for path in sorted(directory.glob(pattern)) if directory.is_dir() else []:
            if path.is_symlink() or not path.is_file():
                continue
            try:
                descriptor = open_for_reading(path)
            except OSError:
                continue
            try:
                # A file that also has its final name does not need this one; a lock on it may be a reader's.
                if os.fstat(descriptor).st_nlink == 1:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if may_be_in_use(path, before, locks_exclude=lock_excludes(path)):
                        continue
                self._unlink(path)
                removed.append(path.name)
            except OSError:
                continue
            finally:
                os.close(descriptor)
        return removed

    def _create_locked(self, path: Path) -> int:
        """Return a descriptor of a new file, locked."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        while True:
            descriptor = self.operate(Operation("create", path), os.open, path, flags, 0o666)
            try:
                lock_alone(descriptor, path)
                if os.fstat(descriptor).st_nlink:
                    return descriptor
            except BaseException:
                os.close(descriptor)
                self._unlink(path)
                raise
            # Between creation and lock another session took the file for an orphaned one.
            os.close(descriptor)

    def _reserve(self, path: Path, descriptor: int, n_bytes: int) -> None:
        """Claim the space first, so that a full disk is noticed before anything is written."""
        if n_bytes == 0:
            return
        operation = Operation("reserve", path, descriptor, n_bytes=n_bytes)
        try:
            self.operate(operation, os.posix_fallocate, descriptor, 0, n_bytes)
        except (OSError, AttributeError) as error:
            # Not every file system can reserve; on others a full disk shows in the writes.
            if getattr(error, "errno", None) in (*FULL, errno.EFBIG):
                raise

    def _link(self, source: Path, target: Path) -> bool:
        try:
            self.operate(Operation("link", target, source=source), os.link, source, target)
        except FileExistsError:
            # Over NFS the link may be made, the reply lost and the request repeated, which then finds the
            # name taken.
            return same_file(source, target)
        return True

    def _rename_new(self, source: Path, target: Path, reason: OSError) -> bool:
        descriptor = _open_directory(target.parent)
        try:
            lock_alone(descriptor, target.parent)
            if os.path.lexists(target):
                return False
            self._rename(source, target)
        finally:
            os.close(descriptor)
        _warn_once(target.parent, reason)
        return True

    def _rename(self, source: Path, target: Path) -> None:
        self.operate(Operation("rename", target, source=source), os.replace, source, target)

    def _unlink(self, path: Path) -> None:
        self.operate(Operation("unlink", path), path.unlink, True)

    def _sync(self, path: Path) -> None:
        descriptor = open_for_reading(path)
        try:
            self.sync_file(path, descriptor)
        finally:
            os.close(descriptor)

    def _sync_directory(self, path: Path) -> None:
        descriptor = _open_directory(path)
        try:
            self.operate(Operation("sync directory", path), os.fsync, descriptor)
        except OSError as error:
            # Some network file systems cannot sync a directory: they change it at once.
            if error.errno not in (errno.EINVAL, *UNKNOWN_HERE):
                raise
        finally:
            os.close(descriptor)


LOCAL = FileSystem()


def _bytes_view(part: BytesLike) -> memoryview:
    if isinstance(part, np.ndarray):
        return np.ascontiguousarray(part).reshape(-1).view(np.uint8).data
    return memoryview(part).cast("B")


def _open_directory(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _warn_once(directory: Path, reason: OSError) -> None:
    """Warn, once for each disk without link(2), that only one computer may write to a store there."""
    device = directory.stat().st_dev
    if device not in _warned_of:
        _warned_of.add(device)
        logger.warning(
            "the disk of %s gives a file one name only (link(2): %s), so commits rename: let only one "
            "computer write to a store there at a time", directory, reason.strerror,
        )  # fmt: skip
