"""Indexes saved to files, read back, and asked for keys they hold and lack."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from featurestore.keyarrays import keys_array
from featurestore.store.index.files import run_path
from featurestore.store.index.loading import load_index
from featurestore.store.index.shardlist import ShardList


def listed(names: Sequence[str], sizes: Sequence[int] | None = None) -> ShardList:
    return ShardList(lambda first, stop: "\n".join(names[first:stop]).encode(), len(names), sizes)


def grown(directory, n: int) -> list[Path]:
    """Extend an index by a shard at a time; return where each lies."""
    shards = [keys_array([bytes([number]) * 16]) for number in range(n)]
    names = [str(number) for number in range(n)]
    for end in range(1, n + 1):
        load_index(directory, listed(names[:end]), shards.__getitem__)
    return [run_path(directory, listed(names), 0, end) for end in range(1, n + 1)]


NAMES, ABSENT = ["a"], np.random.default_rng(1).integers(0, 256, (2000, 16), np.uint8)


def saved_index(directory, keys):
    load_index(directory, listed(NAMES, [len(keys)]), lambda number: keys)
    (path,) = directory.iterdir()
    return path


def reading(directory, keys, **options):
    return load_index(directory, listed(NAMES, [len(keys)]), lambda number: keys, **options)


def answers(index, keys):
    return index.locate(np.concatenate([keys, ABSENT])).row.tolist()


def one_by_one(index, keys):
    """Ask for each key alone, which is another way through the index."""
    found = [index.locate(keys[at : at + 1]) for at in range(len(keys))]
    return [(int(place.shard[0]), int(place.row[0])) for place in found]
