"""A store whose shards lie in lists, one sentence each."""

from __future__ import annotations

import pytest

from featurestore.store.store import Store
from tests.kit.memory import tmp_path  # noqa: F401
from tests.kit.stores import CONDITIONED_SENTENCES, create, sentences, vectors_of

N_SHARDS = 24
"""More than a manifest holds itself, several times."""

WANTED = [*sentences(N_SHARDS - 5), *CONDITIONED_SENTENCES]


def commit_each(store: Store, wanted) -> Store:
    """Commit each sentence alone."""
    with store.write() as session:
        for tokens in wanted:
            session.add(tokens, vectors_of(tokens))
            session.flush()
    return store.refreshed()


@pytest.fixture(scope="session")
def listed_once(tmp_path_factory):
    return commit_each(create(tmp_path_factory.mktemp("listed") / "store.fs"), WANTED).path


@pytest.fixture
def listed(listed_once, tmp_path) -> Store:  # noqa: F811
    import shutil

    return Store.open(shutil.copytree(listed_once, tmp_path / "listed.fs"))
