"""Regular files opened for reading, and nothing else: a stranger's store may name a pipe or a device."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from featurestore.errors import EncoderError

_READ_STEP = 64 << 20
"""Bytes per read call: Linux moves at most 2 GiB in one, and an interrupt should not wait for more."""

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def open_for_reading(path: Path, flags: int = 0) -> int:
    """Return a descriptor of a regular file; a link, a pipe or a device in its place is an OSError."""
    # Opening a pipe would wait for its writer unless told not to.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return descriptor


class OpenFile:
    """A regular file open for positioned reads; closed with this object.

    Parameters
    ----------
    path : Path

    Raises
    ------
    OSError
        See :func:`open_for_reading`.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor: int | None = None
        self._descriptor = open_for_reading(path)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:  # when Python ends, os may be gone
        if self._descriptor is not None:
            close(self._descriptor)

    @property
    def n_bytes(self) -> int:
        """Size of the file now."""
        return os.fstat(self.fileno()).st_size

    def fileno(self) -> int:
        """Return the descriptor, which stays this object's."""
        if self._descriptor is None:
            raise ValueError("the file is not open")
        return self._descriptor

    def read(self, offset: int, n_bytes: int) -> bytes:
        """Return bytes from an offset; fewer, or none, where the file ends.

        Raises
        ------
        OSError
            If the disk fails.
        """
        piece = os.pread(self.fileno(), min(n_bytes, _READ_STEP), offset)
        if len(piece) == n_bytes or not piece:
            return piece
        pieces = [piece]
        while piece and (n_bytes := n_bytes - len(piece)):
            offset += len(piece)
            piece = os.pread(self.fileno(), min(n_bytes, _READ_STEP), offset)
            pieces.append(piece)
        return b"".join(pieces)


@contextlib.contextmanager
def opened(path: Path, what: str) -> Iterator[BinaryIO]:
    """Open a file of a model, links followed: a pipe may never answer, a device never end.

    Parameters
    ----------
    path : Path
    what : str
        For the messages: what kind of file it is.

    Raises
    ------
    EncoderError
        If it cannot be opened or read, or is not a regular file.
    """
    try:
        # Before opening, which can have effects on a device, and after, as the file may have been replaced.
        _require_regular(os.stat(path))
        file = open(path, "rb", opener=_without_waiting)  # noqa: SIM115 - closed below
    except (OSError, ValueError) as error:
        raise _unreadable(path, what, error) from error
    with file:
        try:
            _require_regular(os.fstat(file.fileno()))
            yield file
        except OSError as error:
            raise _unreadable(path, what, error) from error


def _require_regular(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = next((name for is_one, name in _KINDS if is_one(status.st_mode)), "no file")
        raise OSError(None, f"it is {kind}, expected a file")


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)


def _unreadable(path: Path, what: str, error: Exception) -> EncoderError:
    why = (error.strerror if isinstance(error, OSError) else None) or error
    return EncoderError(f"cannot read {what} {path}: {why}")
