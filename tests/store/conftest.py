"""Where the store's tests write: a disk in memory, if there is one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

MEMORY_DISK = Path("/dev/shm")


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    """The usual folder. A store syncs every file it writes, which on a real disk would take minutes."""
    if not (MEMORY_DISK.is_dir() and os.access(MEMORY_DISK, os.W_OK)):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="featurestore-", dir=MEMORY_DISK) as folder:
        yield Path(folder)
