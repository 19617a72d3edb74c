"""Opening files of a store: one that this process may not or cannot open is never taken for damaged."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from featurestore.disk.hashes import file_sha256
from featurestore.disk.opening import open_for_reading
from featurestore.errors import DamagedStoreError, UnreadableStoreError

_MAY_NOT = (errno.EACCES, errno.EPERM)
_TOO_MANY = (errno.EMFILE, errno.ENFILE)


def refuse_unreadable(path: Path, error: OSError) -> None:
    """Raise if a file could not be opened or read for a reason that says nothing of its bytes.

    Raises
    ------
    UnreadableStoreError
    """
    if error.errno in _MAY_NOT:
        raise UnreadableStoreError(
            f"{path} cannot be opened: {error.strerror}. That does not make it damaged: ask its owner to "
            "let this user read the store (chmod -R a+rX)"
        ) from error
    if error.errno == errno.ESTALE:
        raise UnreadableStoreError(
            f"{path} cannot be read: {error.strerror}. Another computer removed it, by gc or repair, while "
            "it was open here: open the store again"
        ) from error
    if error.errno in _TOO_MANY:
        raise UnreadableStoreError(
            f"{path} cannot be opened: {error.strerror}. A store needs one for each of its shards: allow "
            "more (ulimit -n)"
        ) from error


def refuse_unopened(path: Path, error: OSError) -> NoReturn:
    """Raise because a shard's file could not be opened.

    Raises
    ------
    DamagedStoreError
        If there is no such file, or something else in its place.
    UnreadableStoreError
        See :func:`refuse_unreadable`.
    """
    refuse_unreadable(path, error)
    raise DamagedStoreError(
        f"shard {path} cannot be opened: {error.strerror}",
        path=path,
        shard=path.name,
        is_gone=isinstance(error, FileNotFoundError),
    ) from error


def open_shard(path: Path) -> int:
    """Return a descriptor of a shard's file.

    Raises
    ------
    DamagedStoreError
        If there is no such file, or something else in its place.
    UnreadableStoreError
        See :func:`refuse_unreadable`.
    """
    try:
        return open_for_reading(path)
    except OSError as error:
        refuse_unopened(path, error)


def sha256_of_shard(path: Path) -> str:
    """Return the SHA-256 of a shard's file, 64 hexadecimal digits.

    Raises
    ------
    DamagedStoreError
        If the disk cannot read all of it.
    UnreadableStoreError
        See :func:`refuse_unreadable`.
    """
    try:
        return file_sha256(path)
    except OSError as error:
        refuse_unreadable(path, error)
        raise DamagedStoreError(
            f"shard {path} cannot be read: {error.strerror or error}. Restore it from a copy, on a disk that "
            f"works, or run `featurestore repair {path.parent.parent}` and extract again",
            path=path,
            shard=path.name,
        ) from error


@contextmanager
def inspecting(path: Path) -> Iterator[None]:
    """Raise an OSError inside the context as UnreadableStoreError.

    Raises
    ------
    UnreadableStoreError
        For any OSError.
    """
    try:
        yield
    except OSError as error:
        raise UnreadableStoreError(f"{path} cannot be inspected: {error.strerror or error}") from error
