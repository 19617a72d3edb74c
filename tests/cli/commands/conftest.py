"""One thread for the tests of commands, and the small stores that several of them inspect."""

from __future__ import annotations

import pytest

from featurestore.store.store import Store
from tests.cli.commands.small_store import ALONE, CONTEXT, LEFT, PLAIN, RIGHT, make_store
from tests.kit.threads import one_thread  # noqa: F401


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return make_store(tmp_path_factory.mktemp("inspect") / "store.fs")


@pytest.fixture(scope="module")
def in_context(tmp_path_factory) -> Store:
    """Two sentences of the same tokens, one of its own, and one without a condition."""
    return make_store(
        tmp_path_factory.mktemp("inspect") / "context.fs", [LEFT, RIGHT, ALONE, PLAIN], recipe=CONTEXT
    )


@pytest.fixture
def damaged(tmp_path) -> Store:
    """A store whose last vector has a flipped bit."""
    store = make_store(tmp_path / "damaged.fs")
    path = store.path / "shards" / store.manifest.shards[0].name
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    return store
