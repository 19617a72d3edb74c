"""Being a user who may not do everything, where tests run as root."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def ordinary_user() -> Iterator[None]:
    """Be an ordinary user, if the tests run as root."""
    was_root = os.geteuid() == 0
    if was_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if was_root:
            os.seteuid(0)


def open_to_all(folder: Path) -> None:
    """Let every user look into a folder: pytest closes its own to others, two or three above each other.

    Also above one that is open: another process may just make its own there.
    """
    for directory in (folder, *folder.parents):
        mode = directory.stat().st_mode
        if mode & 0o005 != 0o005:
            directory.chmod(mode | 0o055)
