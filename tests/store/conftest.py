"""Where the tests of stores write: a disk in memory, if there is one; and an empty store there."""

from __future__ import annotations

import pytest

from featurestore.store.store import Store
from tests.kit.memory import tmp_path  # noqa: F401
from tests.kit.stores import create


@pytest.fixture
def store(tmp_path) -> Store:  # noqa: F811
    return create(tmp_path / "store.fs")
