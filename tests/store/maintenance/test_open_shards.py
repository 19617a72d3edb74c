"""Those who go through a store once keep one shard open, or a few, however many there are."""

from __future__ import annotations

import contextlib
import os

import numpy as np
import pytest

from featurestore.corpora.memory import corpus_from_sentences
from featurestore.exchange import sentences as exported_sentences
from featurestore.exchange.exporting import export
from featurestore.store.maintenance.merge import merge
from featurestore.store.maintenance.recoding import change_layers, recode
from featurestore.store.maintenance.replacing import compact, remove
from featurestore.store.maintenance.selection import select
from featurestore.store.maintenance.statistics import gather_statistics
from featurestore.store.maintenance.subset import subset
from featurestore.store.store import Store
from tests.kit.stores import create, fill, sentence

N = 20


@pytest.fixture(params=["mmap", "pread"])
def store(request, tmp_path) -> Store:
    """A store of one sentence a shard, whose shards nobody has open."""
    made = create(tmp_path / "store", shard_bytes=1)
    fill(made, [sentence(number) for number in range(N)])
    found = Store.open(made.path, access=request.param, check="always")
    assert len(found.manifest.shards) == N
    assert n_open(found) == 0
    return found


def n_open(store: Store) -> int:
    """Return how many shards of a store this process has open; each holds one descriptor, mapped or not."""
    shards, n = str(store.location / "shards"), 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # that of the folder itself
            n += os.readlink(f"/proc/self/fd/{name}").startswith(shards)
    return n


def a_part_of_each(store: Store):
    return select(store, text="cat|dog|s1")


WAYS = {
    "subset": lambda store, into, step: subset(store, a_part_of_each(store), into, progress=step),
    "recode": lambda store, into, step: recode(store, into, "float16", progress=step),
    "layers": lambda store, into, step: change_layers(
        store, into, np.negative, recipe={"kind": "other", "version": 1}, n_layers=1, progress=step
    ),
    "remove": lambda store, into, step: remove(store, select(store, sample=N - 1), progress=step),
    "npy": lambda store, into, step: export(store, into, "npy", progress=step),
    "a selection": lambda store, into, step: export(
        store, into, "safetensors", selection=a_part_of_each(store), progress=step
    ),
    "word2vec": lambda store, into, step: export(store, into, "word2vec", progress=step),
}


@pytest.mark.parametrize("way", WAYS)
def test_shards_are_closed_as_they_are_passed(store, tmp_path, way):
    seen: list[int] = []
    WAYS[way](store, tmp_path / "into", lambda _: seen.append(n_open(store)))
    assert seen
    assert max(seen) <= 2  # what was read last is open while the next is opened
    assert n_open(store) == 0


def test_merging_closes_shards(store, tmp_path):
    seen: list[int] = []
    merge([store.path, store.path], tmp_path / "into", progress=lambda _: seen.append(n_open(store)))
    assert max(seen) <= 2


def test_statistics_close_shards(store):
    assert gather_statistics(store, sample=7).n_norms > 0
    assert n_open(store) == 0


def test_compacting_closes_shards(tmp_path):
    store = create(tmp_path / "store", shard_bytes=600)
    for number in range(N):
        store = fill(store.refreshed(), [sentence(number)])
    store, seen = Store.open(store.path, access="pread"), []
    done = compact(store, progress=lambda _: seen.append(n_open(store)))
    assert (len(seen) > 3, done.n_joined) == (True, N)
    assert max(seen) <= 2 * N / len(seen) + 1  # those that become one are open together
    assert n_open(store) == 0


def test_going_through_a_corpus_closes_shards(store, tmp_path, monkeypatch):
    monkeypatch.setattr(exported_sentences, "_STEP", 4)
    wanted = [sentence(number) for number in range(N)]
    mine = store.reader(3)  # who has a shard open finds it open afterwards
    seen: list[int] = []
    export(
        store, tmp_path / "into", "npy", corpus=corpus_from_sentences(wanted),
        progress=lambda _: seen.append(n_open(store)),
    )  # fmt: skip
    assert len(seen) == N
    assert max(seen) <= 2 * 4 + 1
    assert store.open_shards() == {3}
    assert store.reader(3) is mine
