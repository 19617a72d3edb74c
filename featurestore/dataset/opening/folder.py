"""The folder of remembered openings: a file each, bounded together, the least recently used removed first."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from featurestore import limits
from featurestore.disk.atomic import replacing
from featurestore.disk.filesystem import LOCAL
from featurestore.disk.opening import open_for_reading
from featurestore.disk.places import cache_folder
from featurestore.errors import StoreWriteError

logger = logging.getLogger(__name__)

_SUFFIX = ".opening"


@dataclass(frozen=True)
class Forgotten:
    """What :func:`forget` removed.

    Attributes
    ----------
    folder : Path
    n_removed, n_bytes : int
        Openings, and their bytes.
    n_in_use : int
        Openings that stay, because a process reads them.
    """

    folder: Path
    n_removed: int
    n_bytes: int
    n_in_use: int


def openings_folder() -> Path:
    """Return where this user's openings are remembered."""
    return cache_folder() / "openings"


def _locks_folder() -> Path:
    """Return where a process says that it makes an opening."""
    return cache_folder() / "openings.begun"


def place_of(name: str) -> Path:
    """Return where the opening of a name belongs."""
    return openings_folder() / f"{name}{_SUFFIX}"


def open_own(path: Path) -> int:
    """Return a descriptor of a remembered opening, marked as in use until it and its maps are closed.

    Raises
    ------
    OSError
        If there is none, or something else, or a file that another user has made or may have changed.
    """
    descriptor = open_for_reading(path)
    try:
        status = os.fstat(descriptor)
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise PermissionError(None, "another user has made it or may have changed it", str(path))
        with contextlib.suppress(OSError):  # not every disk has locks
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        with contextlib.suppress(OSError):  # a folder that may only be read
            os.utime(descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def first_alone(path: Path) -> Iterator[bool]:
    """Let one process do what becomes a remembered opening, while others that come meanwhile wait for it.

    Nobody waits for a process that has died, nor where the folder or the disk does not let it: each then goes
    ahead.

    Yields
    ------
    bool
        Whether another process was waited for, which has come to an end of it.
    """
    lock = _locks_folder() / path.with_suffix(".lock").name
    try:
        LOCAL.make_directory(lock.parent, lasting=False)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(lock, flags, 0o600)
    except (OSError, StoreWriteError):
        yield False
        return
    is_first, waited = True, False
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("another process looks the same examples up: waiting for it (%s)", lock)
            # Together with all who wait: whoever then finds nothing does it beside the others.
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_SH)
                fcntl.flock(descriptor, fcntl.LOCK_UN)
            is_first, waited = False, True
        except OSError:  # not every disk has locks
            is_first = False
        yield waited
    finally:
        if is_first:
            with contextlib.suppress(OSError):
                lock.unlink()
            # Before it is closed: a process forked meanwhile has it open too.
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


@contextmanager
def writing(path: Path) -> Iterator[IO[bytes]]:
    """Hold a file that becomes a remembered opening when the context ends well; make room for the next.

    Nothing waits for the disk: what a power cut leaves of it will not be believed.

    Raises
    ------
    StoreWriteError
        Disk full, read-only, or failing.
    """
    LOCAL.make_directory(path.parent, lasting=False)
    with replacing(path, LOCAL, lasting=False, private=True) as file:
        yield file
    _make_room(path.parent)


def forget() -> Forgotten:
    """Remove all remembered openings that no process reads, and what writers that died have left."""
    folder = openings_folder()
    LOCAL.remove_orphaned(folder, ".*.tmp", older_than=0)
    for lock in _locks_folder().glob("*.lock"):
        _remove(lock)
    openings = _openings(folder)
    removed = [each.n_bytes for each in openings if _remove(each.path)]
    n_in_use = sum(each.path.exists() for each in openings)
    return Forgotten(folder, len(removed), sum(removed), n_in_use)


@dataclass(frozen=True)
class _Opening:
    used: float
    n_bytes: int
    path: Path


def _openings(folder: Path) -> list[_Opening]:
    """Return the remembered openings, the least recently used first."""
    found = []
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(_SUFFIX):
                with contextlib.suppress(OSError):  # somebody removed it meanwhile
                    status = entry.stat(follow_symlinks=False)
                    found.append(_Opening(status.st_mtime, status.st_size, Path(entry.path)))
    return sorted(found, key=lambda opening: opening.used)


def _make_room(folder: Path) -> None:
    """Remove what is over the bounds, unless a process reads it."""
    openings = _openings(folder)
    n_bytes, n = sum(opening.n_bytes for opening in openings), len(openings)
    if n_bytes <= limits.MAX_OPENINGS_BYTES and n <= limits.MAX_OPENINGS:
        return
    LOCAL.remove_orphaned(folder, ".*.tmp")
    for opening in openings[:-1]:
        if n_bytes <= limits.MAX_OPENINGS_BYTES and n <= limits.MAX_OPENINGS:
            return
        if _remove(opening.path):
            logger.debug("%s is forgotten to make room", opening.path)
            n_bytes, n = n_bytes - opening.n_bytes, n - 1


def _remove(path: Path) -> bool:
    """Remove an opening that no process reads; return whether it was.

    On the local disk a map outlives its file's name; over a network, whoever maps it on another computer
    would be ended by the kernel.
    """
    try:
        descriptor = open_for_reading(path, os.O_RDWR)  # NFS locks alone only what may be written
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        LOCAL.remove(path)
    except (OSError, StoreWriteError):
        return False
    finally:
        os.close(descriptor)
    return True
