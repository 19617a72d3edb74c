"""Shards taken out of a store on purpose, whose files are still there: repair leaves them out."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from featurestore.keys import sentence_key
from featurestore.store.format.directory import list_numbers, manifest_path
from featurestore.store.maintenance.gc import collect
from featurestore.store.maintenance.repair import repair
from featurestore.store.maintenance.replacing import remove
from featurestore.store.maintenance.selection import select
from featurestore.store.store import Store
from featurestore.store.verification import verify
from tests.kit.damage import flip_bit
from tests.kit.stores import as_version_1, assert_holds, create, fill, sentences

N = 24


@pytest.fixture
def path(tmp_path) -> Path:
    """A store of at least four shards, one snapshot each, that nobody has open."""
    store = fill(create(tmp_path / "store.fs", shard_bytes=500), sentences(N))
    assert len(store.manifest.shards) >= 4
    return store.path


def rows_of(store: Store, shard: int) -> list[tuple[str, ...]]:
    return [tokens for number, _, tokens in store.sentences() if number == shard]


def take_out(store: Store, wanted: list[tuple[str, ...]]) -> None:
    remove(store, select(store, keys=[sentence_key(tokens) for tokens in wanted]))


def assert_sound(path: Path) -> Store:
    opened = Store.open(path)
    assert list(verify(opened)) == []
    assert repair(path).sound
    return opened


def emptied(path: Path) -> set[str]:
    """Remove the sentences of two shards; return their names."""
    store = Store.open(path)
    gone = {entry.name for entry in store.manifest.shards[1:3]}
    rows = [tokens for shard in (1, 2) for tokens in rows_of(store, shard)]
    take_out(store, rows)
    return gone


@pytest.mark.parametrize("harm", ["gc", "damaged manifests"])
def test_what_was_removed_does_not_come_back(path, tmp_path, harm):
    n_left = N - sum(Store.open(path).manifest.shards.sizes[1:3].tolist())
    gone = emptied(path)
    fill(Store.open(path), sentences(2, start=500))  # a commit that knows nothing of it carries it on
    fill(Store.open(path), sentences(2, start=600))
    if harm == "gc":
        now = time.time()
        time.sleep(0.1)
        for name in gone:  # as `subset` does; so they look young
            os.link(path / "shards" / name, tmp_path / name)
        done = collect(path, keep_last=1, older_than=0, now=now)
        assert {Path(garbage.name).name for garbage in done.too_young} >= gone
        assert len(done.kept) == 1
    else:
        for number in list_numbers(path)[:-1]:
            manifest_path(path, number).write_bytes(b"{}")
    done = repair(path)
    assert done.adopted == []
    assert len(assert_sound(path)) == n_left + 4
    assert {file.name for file in (path / "shards").iterdir()} >= gone
    collect(path, keep_last=1, older_than=0)
    assert {file.name for file in (path / "shards").iterdir()}.isdisjoint(gone)
    # What is gone is forgotten by the next removal, and its list goes too.
    opened = Store.open(path)
    assert len(opened.manifest.left_out) == 2
    take_out(opened, sentences(2, start=500))
    assert {entry.name for entry in Store.open(path).manifest.left_out}.isdisjoint(gone)
    del opened
    collect(path, keep_last=1, older_than=0)
    named = Store.open(path).manifest
    assert {file.name for file in (path / "lists").iterdir()} == {
        each.name for each in (*named.shards.references, *named.left_out.references)
    }


def test_what_was_removed_and_stored_again_is_stored(path):
    gone = emptied(path)
    fill(Store.open(path), sentences(N))
    assert gone <= set(Store.open(path).manifest.shards.names())  # the same sentences make the same shards
    assert repair(path).sound
    assert_holds(Store.open(path), sentences(N))
    # Nor is it lost where the manifest of the commit that brought it back is damaged.
    for number in list_numbers(path)[:-1]:
        if number > 1 and len(Store.open(path, snapshot=number).manifest.left_out) == 0:
            manifest_path(path, number).unlink()
    manifest_path(path, list_numbers(path)[-1]).write_bytes(b"{}")
    repair(path)
    assert_holds(assert_sound(path), sentences(N))


def test_damaged_list_of_what_was_removed_is_set_aside(path):
    emptied(path)
    (reference,) = Store.open(path).manifest.left_out.references
    flip_bit(path / "lists" / reference.name, 100)
    assert [finding.shard for finding in verify(Store.open(path))] == [f"lists/{reference.name}"]
    n_sentences = len(Store.open(path))
    done = repair(path)
    assert [damaged.name for damaged in done.lists] == [f"lists/{reference.name}"]
    assert done.result.left_out.references == []
    assert len(assert_sound(path)) >= n_sentences


def test_store_of_version_1_keeps_no_record_of_what_was_removed(tmp_path):
    store = as_version_1(fill(create(tmp_path / "store.fs", shard_bytes=500), sentences(N)).path)
    take_out(store, rows_of(store, 1))
    last = Store.open(store.path).manifest
    assert (last.version, len(last.left_out)) == (1, 0)
    assert b"left_out" not in manifest_path(store.path, last.number).read_bytes()
