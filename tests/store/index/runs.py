"""Shards that get a run of the index each, and indexes that grow over them."""

from __future__ import annotations

import numpy as np

from featurestore.store.index.loading import load_index
from featurestore.store.index.lookup import Index
from featurestore.store.index.shardlist import ShardList
from tests.store.index.saved import ABSENT, listed

RANDOM = np.random.default_rng(0)
KEYS_OF = [RANDOM.integers(0, 256, (n, 16), np.uint8) for n in (400, 180, 80, 35, 12, 5)]
"""Of shards that get a run each: none has as many keys as those after it together."""
NAMES = [f"{number:032x}.h5" for number in range(len(KEYS_OF))]


def shards(n: int) -> ShardList:
    return listed(NAMES[:n], [len(keys) for keys in KEYS_OF[:n]])


def grown(directory, n: int = len(KEYS_OF), **options) -> Index:
    """Extend an index by a shard at a time."""
    for stop in range(1, n + 1):
        index = load_index(directory, shards(stop), KEYS_OF.__getitem__, **options)
    return index


def spans(index: Index) -> list[tuple[int, int]]:
    return [(run.first, run.stop) for run in index.runs]


def assert_right(index: Index, n: int = len(KEYS_OF)) -> None:
    for number, keys in enumerate(KEYS_OF[:n]):
        found = index.locate(keys)
        assert (found.shard == number).all()
        assert found.row.tolist() == list(range(len(keys)))
        assert index.locate(keys[3:4]).row.tolist() == [3]
    assert not index.locate(ABSENT).found.any()
    assert not index.locate(ABSENT[:1]).found.any()
    assert index.is_right(KEYS_OF.__getitem__)
