"""Stores of version 1: appended to in their version, upgraded by one commit."""

from __future__ import annotations

from featurestore.store.store import Store
from featurestore.store.upgrading import upgrade
from tests.kit.stores import (
    as_version_1,
    assert_holds,
    sentences,
    vectors_of,
)
from tests.store.listing.conftest import N_SHARDS, WANTED, commit_each

# -- version 1


def test_version_1_is_appended_to_in_its_own_version(listed):
    old = as_version_1(listed.path)
    assert old.manifest.version == 1
    grown = commit_each(old, sentences(2, start=100))
    assert grown.manifest.version == 1
    assert not (old.path / "lists").exists()
    assert len(grown.manifest.shards.inline) == N_SHARDS + 2
    assert_holds(grown, [*WANTED, *sentences(2, start=100)])


def test_upgrading_is_one_commit_that_keeps_every_shard(listed):
    old = as_version_1(listed.path)
    writer = Store.open(old.path).write()
    new = upgrade(old)
    assert (new.manifest.version, new.snapshot) == (2, old.snapshot + 1)
    assert new.manifest.shards == old.manifest.shards
    assert upgrade(new).snapshot == new.snapshot
    # A session that began before goes on in the new version.
    tokens = sentences(1, start=100)[0]
    assert writer.add(tokens, vectors_of(tokens))
    writer.close()
    assert Store.open(old.path).manifest.version == 2
    assert_holds(old, WANTED)
    assert_holds(Store.open(old.path), [*WANTED, tokens])
