"""The index: key to (shard, row), so that a sentence is found without opening its shard.

It is derived: rebuilt from the shards whenever it is missing, stale or damaged, extended when shards were
added. It is made of runs (:mod:`featurestore.store.index.run`), the first of which has most of the keys. What
it says of a sentence that it finds is compared with the key in the shard all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from featurestore.keyarrays import Words, key_words
from featurestore.store.index.compiled import CompiledLookup, compiled_lookup
from featurestore.store.index.filerows import DamagedIndexError
from featurestore.store.index.run import NOWHERE, IndexRun
from featurestore.store.index.sorting import distinct, merge, sort_rows

_COUNTED_AT_ONCE = 1 << 19


@dataclass(frozen=True)
class Locations:
    """Where sentences lie.

    Attributes
    ----------
    shard, row : (n,) int64
        Number of the shard in the manifest and of the sentence in the shard; -1 where the sentence is
        not in the store.
    """

    shard: NDArray[np.int64]
    row: NDArray[np.int64]

    @classmethod
    def nowhere(cls, n: int) -> Locations:
        """Return ``n`` locations, all missing."""
        return cls(np.full(n, -1, np.int64), np.full(n, -1, np.int64))

    @property
    def found(self) -> NDArray[np.bool_]:
        """(n,) bool."""
        return self.shard >= 0

    def __len__(self) -> int:
        return len(self.shard)


@dataclass(frozen=True)
class Index:
    """The keys of a manifest's first shards, in runs.

    Attributes
    ----------
    runs : tuple of IndexRun
        Each begins where the one before it ends. Of a key in two of them the first place counts.
    """

    runs: tuple[IndexRun, ...] = ()

    @classmethod
    def of(
        cls, high: Words, low: Words, shard: NDArray[np.uint32], row: NDArray[np.uint32], n_shards: int
    ) -> Index:
        """Return an index in one run, of keys given as first and last eight bytes."""
        places = (shard.astype(np.uint64) << np.uint64(32)) | row.astype(np.uint64)
        return cls((IndexRun.of([np.stack([high, low, places], axis=1)], 0, n_shards),))

    @property
    def n_shards(self) -> int:
        """How many of the manifest's shards it covers, from the first."""
        return self.runs[-1].stop if self.runs else 0

    @cached_property
    def _compiled(self) -> CompiledLookup | None:
        return compiled_lookup(self.runs)

    @cached_property
    def _n_keys(self) -> int:
        if len(self.runs) == 1:
            return len(self.runs[0])
        merged = merge([run.sorted_rows for run in self.runs], _COUNTED_AT_ONCE)
        return sum(len(distinct(rows)) for rows in merged)

    def __len__(self) -> int:
        # Distinct keys: with several runs all are read to count them, once.
        return self._n_keys

    @property
    def records(self) -> Words:
        """Distinct keys, ascending, as first and last eight bytes, and their places; (n, 3) uint64."""
        every = [np.asarray(run.records) for run in self.runs]
        return distinct(sort_rows(np.concatenate([np.empty((0, 3), np.uint64), *every])))

    @property
    def high(self) -> Words:
        """First eight bytes of each key; (n,) uint64."""
        return self.records[:, 0]

    @property
    def low(self) -> Words:
        """Last eight bytes of each key; (n,) uint64."""
        return self.records[:, 1]

    @property
    def shard(self) -> NDArray[np.uint32]:
        """(n,) uint32."""
        numbers: NDArray[np.uint32] = (self.records[:, 2] >> np.uint64(32)).astype(np.uint32)
        return numbers

    @property
    def row(self) -> NDArray[np.uint32]:
        """(n,) uint32."""
        numbers: NDArray[np.uint32] = (self.records[:, 2] & np.uint64(0xFFFFFFFF)).astype(np.uint32)
        return numbers

    def locate(self, keys: NDArray[np.uint8]) -> Locations:
        """Find (n, 16) uint8 keys.

        Raises
        ------
        DamagedIndexError
            If a bucket that one of them could be in is not what was written.
        """
        if self._compiled is not None:
            shard, row = self._compiled.locate(keys)
            return Locations(shard, row)
        if len(keys) == 1:
            return self._locate_one(keys.tobytes())
        high, low = key_words(keys)
        order = np.argsort(high)
        places = np.full(len(keys), NOWHERE)
        for run in self.runs:
            # A run is asked for what the ones before it do not have.
            places[order] = run.places(high[order], low[order])
            order = order[places[order] == NOWHERE]
        return _located(places)

    def _locate_one(self, key: bytes) -> Locations:
        high, low = int.from_bytes(key[:8], "big"), int.from_bytes(key[8:], "big")
        for run in self.runs:
            if (place := run.place(high, low)) is not None:
                return Locations(np.array([place >> 32]), np.array([place & 0xFFFFFFFF]))
        return Locations.nowhere(1)

    def with_prefix(self, digits: str) -> list[tuple[int, int]]:
        """Return (shard, row) of the keys that begin with these hexadecimal digits; only 16 are compared."""
        digits = digits[:16]
        lowest, highest = (np.uint64(int(digits.ljust(16, fill), 16)) for fill in "0f")
        found = [run.between(lowest, highest) for run in self.runs]
        if not found:
            return []
        located = _located(distinct(sort_rows(np.concatenate(found)))[:, 2])
        return list(zip(located.shard.tolist(), located.row.tolist(), strict=True))

    def verify(self) -> None:
        """Compare the checks of all buckets.

        Raises
        ------
        DamagedIndexError
        """
        for run in self.runs:
            run.verify()

    def is_right(self, read_keys: Callable[[int], NDArray[np.uint8]]) -> bool:
        """Return whether it says of every key of its shards where that is first, and knows no other.

        Parameters
        ----------
        read_keys : callable
            Shard number to its (n, 16) uint8 keys.
        """
        try:
            return all(_is_right(run, read_keys) for run in self.runs)
        except DamagedIndexError:
            return False

    def extended(self, additions: Sequence[NDArray[np.uint8]]) -> Index:
        """Return an index that also covers further shards, by their keys, in one more run in memory."""
        first, stop = self.n_shards, self.n_shards + len(additions)
        if first == stop:
            return self
        parts = [shard_records(number, keys) for number, keys in enumerate(additions, start=first)]
        return replace(self, runs=(*self.runs, IndexRun.of(parts, first, stop)))


def empty_index() -> Index:
    """Return an index of nothing."""
    return Index()


def shard_records(number: int, keys: NDArray[np.uint8]) -> Words:
    """Return the records of a shard's keys; (n, 3) uint64."""
    records = np.empty((len(keys), 3), np.uint64)
    records[:, 0], records[:, 1] = key_words(keys)
    records[:, 2] = np.arange(len(keys), dtype=np.uint64) | (np.uint64(number) << np.uint64(32))
    return records


def _located(places: Words) -> Locations:
    shard, row = (places >> np.uint64(32)).astype(np.int64), (places & np.uint64(0xFFFFFFFF)).astype(np.int64)
    missing = places == NOWHERE
    shard[missing] = row[missing] = -1
    return Locations(shard, row)


def _is_right(run: IndexRun, read_keys: Callable[[int], NDArray[np.uint8]]) -> bool:
    run.verify()
    alone, n_own = Index((run,)), 0
    for number in range(run.first, run.stop):
        keys = read_keys(number)
        found, rows = alone.locate(keys), np.arange(len(keys))
        own = (found.shard == number) & (found.row == rows)
        n_own += int(own.sum())
        # Of a key that is here again, the place must be an earlier one at which it really is.
        if not (own | (found.found & (found.shard < number))).all():
            return False
        for shard in np.unique(found.shard[~own]).tolist():
            there = ~own & (found.shard == shard)
            if not np.array_equal(read_keys(shard)[found.row[there]], keys[there]):
                return False
    # As many as there are records: each of them is the first place of its key.
    return n_own == len(run)
