"""What stands where a user wants a file written, and whether one can be written there."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from featurestore.disk.filesystem import LOCAL
from featurestore.disk.places import nearest_existing
from featurestore.disk.temporary import temporary_name
from featurestore.errors import StoreWriteError, UsageError


def replaceable(path: str | Path) -> Path | None:
    """Return the path whose file a new one may replace: what a path stands for, links followed.

    Returns
    -------
    Path or None
        None if what is there can only be written to as it is: a pipe, a device, an open file without a name.

    Raises
    ------
    StoreWriteError
        If that cannot be found out.
    """
    real = Path(os.path.realpath(path))
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return real
    except OSError as error:
        raise StoreWriteError(f"cannot write {path}: {error.strerror}") from error
    # /dev/fd/N may lead to a file that was removed while it was open.
    if not stat.S_ISREG(found.st_mode) or not real.exists() or not os.path.samestat(found, real.stat()):
        return None
    return real


def regular_file(path: str | Path) -> Path:
    """Return the path at which a regular file can be put, whole or not at all; links are followed.

    Raises
    ------
    UsageError
        If something else is there already: a directory, a pipe, a device.
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

    Nothing is left behind; directories that are missing are not made.

    Raises
    ------
    UsageError, StoreWriteError
        See :func:`regular_file`; the place is read-only, full, or none for files.
    """
    target = regular_file(path)
    folder = nearest_existing(target.parent)
    try:
        # A name as long as the temporary one that the file will have.
        with LOCAL.temporary_file(folder / f".{target.name}.{temporary_name('.tmp')}", []):
            pass
    except StoreWriteError as error:
        reason = error.__cause__
        # The message is about the probe, whose name nobody has asked for.
        told = reason.strerror if isinstance(reason, OSError) else error
        raise StoreWriteError(f"cannot write {path}: {told}") from error
