"""Whether a file can be written where a user wants it, whatever stands there now."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from featurestore.disk.atomic import temporary_beside
from featurestore.disk.filesystem import LOCAL
from featurestore.disk.places import local_path, nearest_existing
from featurestore.errors import StoreWriteError, UsageError


def replaceable(path: str | Path) -> Path | None:
    """Return the path whose file a new one may replace, links followed.

    Returns
    -------
    Path or None
        None if the path leads to a pipe, a device or an open file without a name, which can only be written
        to as it is.

    Raises
    ------
    UsageError
        If the path is a URL.
    StoreWriteError
        If the path cannot be inspected.
    """
    real = Path(os.path.realpath(local_path(path)))
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return real
    except OSError as error:
        raise StoreWriteError(
            f"cannot write {path}: {error.strerror}", path=path, errno=error.errno
        ) from error
    # /dev/fd/N may lead to a file that was removed while it was open.
    if not stat.S_ISREG(found.st_mode) or not real.exists() or not os.path.samestat(found, real.stat()):
        return None
    return real


def regular_file(path: str | Path) -> Path:
    """Return the path at which a regular file can be put, whole or not at all; links are followed.

    Raises
    ------
    UsageError
        If the path is a URL, or a directory, a pipe or a device is there already.
    StoreWriteError
        See :func:`replaceable`.
    """
    target = replaceable(path)
    if target is None:
        raise UsageError(
            f"cannot write {path}: it is there, and is no regular file (but a directory, pipe or device), "
            "which a new file must not replace: name another one"
        )
    return target


def require_writable(path: str | Path) -> None:
    """Raise unless a regular file can be put at a path: now, rather than after hours of work.

    A file is written beside it and removed; missing directories are not made.

    Raises
    ------
    UsageError, StoreWriteError
        See :func:`regular_file`; or the place is read-only, full, or takes no files.
    """
    target = regular_file(path)
    folder = nearest_existing(target.parent)
    try:
        # A name as long as the temporary one that the file will have.
        with LOCAL.temporary_file(temporary_beside(folder / target.name), []):
            pass
    except StoreWriteError as error:
        # The error names the probe file, which the user did not ask for.
        raise StoreWriteError(f"cannot write {path}: {error.reason}", path=path, errno=error.errno) from error
