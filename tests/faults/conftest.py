"""Where the fault tests write: a disk in memory, if there is one; and what they share with the store's."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "store"))

from faulty import memory_folder


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder in memory: what is tested here is what was asked of the disk, not the disk."""
    with memory_folder() as folder:
        yield folder
