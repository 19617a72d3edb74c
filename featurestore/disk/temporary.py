"""Temporary names, and whether a file of such a name may still have a living writer.

A writer locks its temporary file, so one that is not locked has lost its writer. That holds for files made
on this computer; whether the locks of another computer reach here depends on the file system. The name says
which computer made the file; where it was another one, age has to tell.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import secrets
from pathlib import Path

ORPHAN_SECONDS = 24 * 3600.0
"""Age up to which a temporary file stays where its lock cannot tell whether its writer lives."""

_NAME = re.compile(r"([0-9a-f]{8})-[0-9a-f]{16}\.[a-z0-9]+")


def temporary_name(suffix: str = "") -> str:
    """Return a file name that no other writer uses; it says which computer it was made on."""
    return f"{this_computer()}-{secrets.token_hex(8)}{suffix}"


@functools.cache
def this_computer() -> str:
    """Return 8 hexadecimal digits that all processes on this computer share until it is started again."""
    try:
        name = Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:
        import uuid  # where there is no Linux

        name = f"{os.uname().nodename} {uuid.getnode()}"
    return hashlib.sha256(name.encode()).hexdigest()[:8]


def may_be_in_use(path: Path, before: float, *, locks_exclude: bool = True) -> bool:
    """Return whether a temporary file without a lock may still have a running writer.

    Parameters
    ----------
    path : Path
    before : float
        Seconds since 1970: a file written later may be in use where its lock cannot tell.
    locks_exclude : bool
        Whether locks keep processes of this computer apart.
    """
    made_by = _NAME.search(path.name)
    if locks_exclude and made_by is not None and made_by[1] == this_computer():
        return False
    try:
        status = path.lstat()
    except OSError:
        return False
    # Of two names, the temporary one is needed no more.
    return status.st_nlink == 1 and max(status.st_mtime, status.st_ctime) > before
