"""Locks: how those who read, write and clean up a store keep out of each other's way.

A reader holds the manifest it opened, shared, so that its snapshot is not removed under it. A writer holds
``STORE/lock``, shared, from before it places a shard until its manifest names it; whoever removes or moves
files of the store holds it alone. All are ``flock``: they end with the process, however it ends, are
inherited by ``fork``, and nobody waits for them to read.
"""

from __future__ import annotations

import fcntl
import itertools
import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from featurestore.disk.locking import lock_excludes
from featurestore.disk.opening import open_for_reading
from featurestore.errors import StoreWriteError

logger = logging.getLogger(__name__)

LOCK = "lock"
"""Name of the lock file in a store: empty, made by the first writer, never removed."""

_TRIES, _PAUSE = 40, 0.005
"""How often, and after how many seconds, a reader asks again for a manifest that someone holds alone: a
writer that is just publishing it, or gc that is just removing it. Both are done in milliseconds."""

_TRIES_IN_SILENCE = 400
"""Tries, with the same pause between them, before a process that waits for the store's lock says so."""

_PAUSE_WAITING = 0.1
"""Seconds between two tries after that."""

_probed: set[int] = set()
"""Disks, by device number, on which it was found out whether locks keep processes apart."""

_OPEN_FOR_LOCKING = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
"""Nothing is ever written, but network file systems lock exclusively only what is open for writing."""


class Hold:
    """A file held against removal for as long as this object lives, here and in forked processes."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @property
    def exists(self) -> bool:
        """Whether the file still has its name."""
        return os.fstat(self._descriptor).st_nlink > 0

    def is_replaced(self, path: Path) -> bool:
        """Return whether another file lies at a path now; if none does, it was not replaced."""
        try:
            found = os.stat(path, follow_symlinks=False)
        except OSError:
            return False
        held = os.fstat(self._descriptor)
        return (found.st_dev, found.st_ino) != (held.st_dev, held.st_ino)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:  # when Python ends, os may be gone
        # Closed, never unlocked: unlocking would also end what a forked process holds.
        close(self._descriptor)


def hold(path: Path) -> Hold | None:
    """Hold a file against removal, without ever waiting long.

    Returns
    -------
    Hold or None
        None if the file cannot be opened. Where the file system has no locks, the file is open and nothing
        more: then only its age protects it.
    """
    try:
        descriptor = open_for_reading(path)
    except OSError:
        return None
    held = Hold(descriptor)
    for _ in range(_TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return held
        except BlockingIOError:
            if not held.exists:
                return held
            time.sleep(_PAUSE)
        except OSError as error:
            logger.debug("%s cannot be locked: %s", path, error)
            return held
    return held


def _open_for_locking(path: Path, flags: int = 0) -> int:
    """Open a file to lock it; of another user, who lets us read it, only for reading."""
    try:
        return os.open(path, _OPEN_FOR_LOCKING | flags, 0o666)
    except PermissionError:
        return open_for_reading(path)


@contextmanager
def unused(path: Path) -> Iterator[bool]:
    """Lock a file for the context if nobody holds it; yield whether that succeeded."""
    try:
        descriptor = _open_for_locking(path)
    except OSError:
        yield False
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            alone = stat.S_ISREG(os.fstat(descriptor).st_mode)
        except OSError:
            alone = False
        yield alone
    finally:
        os.close(descriptor)


@contextmanager
def committing(store: Path, give_up: threading.Event | None = None) -> Iterator[None]:
    """Keep others from removing files of a store that the next manifest may name; many may at once.

    Parameters
    ----------
    store : Path
    give_up : threading.Event, optional
        Once it is set, a lock that another process has held for seconds is waited for no longer.

    Raises
    ------
    StoreWriteError
        If the store cannot be locked, or the wait was given up.
    """
    with _locked(store, fcntl.LOCK_SH, give_up):
        yield


@contextmanager
def cleaning(store: Path) -> Iterator[None]:
    """Be alone with a store's files: wait until no commit is under way, and let none begin."""
    with _locked(store, fcntl.LOCK_EX):
        yield


@contextmanager
def _locked(store: Path, operation: int, give_up: threading.Event | None = None) -> Iterator[None]:
    path = store / LOCK
    try:
        descriptor = _open_for_locking(path, os.O_CREAT)
    except OSError as error:
        raise StoreWriteError(
            f"cannot open the lock file {path}: {error.strerror or error}. Whoever writes to a store must be "
            "able to write to its directories and to read its files",
            path=path,
        ) from error
    try:
        try:
            _lock(descriptor, operation, path, give_up)
        except OSError as error:
            raise StoreWriteError(
                f"cannot lock {path}: {error.strerror or error}. A store needs a file system with flock",
                path=path,
            ) from error
        _warn_unless_excluding(descriptor, path)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, operation: int, path: Path, give_up: threading.Event | None) -> None:
    """Wait for a lock, and say so if that takes longer than a commit does.

    It is tried again and again, not waited for in one call, so that signal handlers run in between.
    """
    for number in itertools.count(1):
        try:
            fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            time.sleep(_PAUSE if number < _TRIES_IN_SILENCE else _PAUSE_WAITING)
        if number >= _TRIES_IN_SILENCE and give_up is not None and give_up.is_set():
            raise StoreWriteError(f"{path} is held by another process; nothing was committed", path=path)
        if number == _TRIES_IN_SILENCE:
            logger.warning("waiting for %s, which gc, repair or a writer in another process holds", path)


def _warn_unless_excluding(descriptor: int, path: Path) -> None:
    """Warn, once for each disk, if locks on it keep nobody out."""
    device = os.fstat(descriptor).st_dev
    if device in _probed:
        return
    _probed.add(device)
    if not lock_excludes(path):
        logger.warning(
            "locks on the disk of %s keep nobody out (flock does nothing there): let one process at a time "
            "write to or clean up a store on it", path,
        )  # fmt: skip
