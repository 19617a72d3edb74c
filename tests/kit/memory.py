"""A disk in memory, if there is one: a store syncs every file it writes, minutes on a real disk."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MEMORY_DISK = Path("/dev/shm")


@contextmanager
def memory_folder() -> Iterator[Path]:
    """A folder on a disk in memory, or where temporary files lie."""
    usable = MEMORY_DISK.is_dir() and os.access(MEMORY_DISK, os.W_OK)
    with tempfile.TemporaryDirectory(prefix="featurestore-", dir=MEMORY_DISK if usable else None) as folder:
        yield Path(folder)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """pytest's fixture for a room of tests that imports this one: a folder in memory."""
    with memory_folder() as folder:
        yield folder
