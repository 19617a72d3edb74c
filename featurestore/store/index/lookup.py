"""The index: key to (shard, row), so that a sentence is found without opening its shard.

It is derived: rebuilt from the shards whenever it is missing, stale or damaged, extended when shards were
added. It is mapped and never read as a whole; a lookup touches its keys' buckets only, and each bucket it
touches has a check of its own, so that a damaged one can neither hide a sentence nor invent one. What it says
of a sentence that it finds is compared with the key in the shard all the same.

Keys are hashes, so buckets are even; where they are not (a stranger's store), lookups become slow, not wrong.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from featurestore.keyarrays import Words, find, key_words
from featurestore.store.index.buckets import (
    bits_for,
    bucket_check,
    bucket_checks,
    bucket_table,
    buckets_of,
)
from featurestore.store.index.filerows import DamagedIndexError, FileRows

_BUCKETS_AT_ONCE = 1 << 16
_FEW_RECORDS = 32
"""Records of a bucket up to which one key is found faster without arrays: nearly all, as keys are hashes."""


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
    """Keys in buckets, with their places; the arrays may be memory-mapped, or read at each lookup.

    Attributes
    ----------
    table : (2**bits + 1, 2) uint64
        Where each bucket's records begin, and its check.
    records : (n, 3) uint64
    n_shards : int
        How many of the manifest's shards it covers, from the first.
    largest : int
        Keys of the largest bucket. A table that claims more is damaged, and refused before memory is taken
        for it.
    sizes : (n_shards,) uint64, optional
        Sentences of each shard; places beyond them are damage.
    """

    table: Words | FileRows
    records: Words | FileRows
    n_shards: int
    largest: int
    sizes: Words | None = None
    _map: mmap.mmap | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of(
        cls, high: Words, low: Words, shard: NDArray[np.uint32], row: NDArray[np.uint32], n_shards: int
    ) -> Index:
        """Return the index of distinct keys in ascending order, given as first and last eight bytes."""
        places = (shard.astype(np.uint64) << np.uint64(32)) | row.astype(np.uint64)
        records = np.stack([high, low, places], axis=1)
        bits = bits_for(len(records))
        table = np.zeros(((1 << bits) + 1, 2), np.uint64)
        table[:-1] = bucket_table(np.arange(1 << bits), records, 0, bits)
        table[-1, 0] = len(records)
        return cls(table, records, n_shards, int(np.diff(table[:, 0].astype(np.int64)).max()))

    def __len__(self) -> int:
        return len(self.records)

    @property
    def high(self) -> Words:
        """First eight bytes of each key; (n,) uint64."""
        return np.asarray(self.records)[:, 0]

    @property
    def low(self) -> Words:
        """Last eight bytes of each key; (n,) uint64."""
        return np.asarray(self.records)[:, 1]

    @property
    def shard(self) -> NDArray[np.uint32]:
        """(n,) uint32."""
        numbers: NDArray[np.uint32] = (np.asarray(self.records)[:, 2] >> np.uint64(32)).astype(np.uint32)
        return numbers

    @property
    def row(self) -> NDArray[np.uint32]:
        """(n,) uint32."""
        numbers: NDArray[np.uint32] = (np.asarray(self.records)[:, 2] & np.uint64(0xFFFFFFFF)).astype(
            np.uint32
        )
        return numbers

    @property
    def bits(self) -> int:
        """How many bits of a key choose its bucket."""
        return (len(self.table) - 1).bit_length() - 1

    def locate(self, keys: NDArray[np.uint8]) -> Locations:
        """Find (n, 16) uint8 keys.

        Raises
        ------
        DamagedIndexError
            If a bucket that one of them could be in is not what was written.
        """
        if len(keys) == 1 and (single := self._locate_one(keys.tobytes())) is not None:
            return single
        locations = Locations.nowhere(len(keys))
        high, low = key_words(keys)
        order = np.argsort(high)
        high, low = high[order], low[order]
        buckets = buckets_of(high, self.bits)
        records = self._bucket_records(buckets[_firsts(buckets)].astype(np.int64))
        at = find(records[:, 0], records[:, 1], high, low)
        hit = at >= 0
        locations.shard[order[hit]], locations.row[order[hit]] = self._places(records[at[hit]])
        return locations

    def _locate_one(self, key: bytes) -> Locations | None:
        """Find one key without arrays, which is faster; return None if its bucket is too large for that."""
        self._require_whole()
        high, low = int.from_bytes(key[:8], "big"), int.from_bytes(key[8:], "big")
        bucket = high >> (64 - self.bits)
        (start, check), (stop, _) = self.table[bucket : bucket + 2].tolist()
        if stop - start > _FEW_RECORDS:
            return None
        records = self.records[start:stop].tolist()
        if len(records) != stop - start or bucket_check(bucket, start, stop, records) != check:
            raise DamagedIndexError("a bucket of an index is damaged")
        for record in records:
            if record[:2] == [high, low]:
                return Locations(*self._places(np.array([record], np.uint64)))
        return Locations.nowhere(1)

    def with_prefix(self, digits: str) -> list[tuple[int, int]]:
        """Return (shard, row) of the keys that begin with these hexadecimal digits; only 16 are compared."""
        digits = digits[:16]
        edges = np.array([int(digits.ljust(16, fill), 16) for fill in "0f"], np.uint64)
        first, last = buckets_of(edges, self.bits).tolist()
        records = self._bucket_records(np.arange(first, last + 1))
        records = records[(records[:, 0] >= edges[0]) & (records[:, 0] <= edges[1])]
        shard, row = self._places(records)
        return list(zip(shard.tolist(), row.tolist(), strict=True))

    def verify(self) -> None:
        """Compare the checks of all buckets.

        Raises
        ------
        DamagedIndexError
        """
        for start in range(0, len(self.table) - 1, _BUCKETS_AT_ONCE):
            stop = min(start + _BUCKETS_AT_ONCE, len(self.table) - 1)
            self._places(self._bucket_records(np.arange(start, stop)))

    def extended(self, additions: Sequence[NDArray[np.uint8]]) -> Index:
        """Return an index that also covers further shards, by their keys; of equal keys the first stays."""
        before = np.asarray(self.records)
        highs, lows, places = [before[:, 0]], [before[:, 1]], [before[:, 2]]
        for number, keys in enumerate(additions, start=self.n_shards):
            high, low = key_words(keys)
            highs.append(high)
            lows.append(low)
            places.append(np.arange(len(high), dtype=np.uint64) | (np.uint64(number) << np.uint64(32)))
        high, low, place = np.concatenate(highs), np.concatenate(lows), np.concatenate(places)
        # Stable, so of equal keys the one of the earliest place comes first; and quick with runs in order.
        order = np.argsort(high, kind="stable")
        high = high[order]
        tied = np.flatnonzero(high[1:] == high[:-1])
        if len(tied):
            tied = np.union1d(tied, tied + 1)
            among = order[tied]
            order[tied] = among[np.lexsort((low[among], high[tied]))]
        low = low[order]
        fresh = np.ones(len(high), bool)
        fresh[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
        place = place[order[fresh]]
        shard, row = (place >> np.uint64(32)).astype(np.uint32), place.astype(np.uint32)
        return Index.of(high[fresh], low[fresh], shard, row, self.n_shards + len(additions))

    def _require_whole(self) -> None:
        if self._map is None:
            return
        try:
            n_bytes = self._map.size()
        except OSError as error:
            raise DamagedIndexError(f"an index is gone: {error.strerror}") from error
        if n_bytes < len(self._map):
            raise DamagedIndexError("an index was cut while it was open")

    def _bucket_records(self, buckets: NDArray[np.int64]) -> Words:
        """Return the records of ascending buckets, end to end, after comparing each one's check."""
        self._require_whole()
        starts, checks = self.table.take(buckets, axis=0).T
        stops = self.table.take(buckets + 1, axis=0)[:, 0]
        sizes = stops - starts  # unsigned: a decrease wraps to a huge size
        if len(buckets) and (int(sizes.max()) > self.largest or int(stops.max()) > len(self.records)):
            raise DamagedIndexError("the table of an index is damaged")
        ends = np.cumsum(sizes.astype(np.int64))
        begins = ends - sizes.astype(np.int64)
        positions = np.arange(len(ends) and ends[-1], dtype=np.int64) + np.repeat(
            starts.astype(np.int64) - begins, sizes.astype(np.int64)
        )
        records: Words = self.records.take(positions, axis=0)
        if (bucket_checks(buckets, starts, stops, records, positions) != checks).any():
            raise DamagedIndexError("a bucket of an index is damaged")
        return records

    def _places(self, records: Words) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return shard and row of records, after checking that they exist."""
        shard, row = records[:, 2] >> np.uint64(32), records[:, 2] & np.uint64(0xFFFFFFFF)
        if len(records) and int(shard.max()) >= self.n_shards:
            raise DamagedIndexError("an index points to a shard that does not exist")
        if self.sizes is not None and (row >= self.sizes[shard]).any():
            raise DamagedIndexError("an index points beyond the end of a shard")
        return shard.astype(np.int64), row.astype(np.int64)


def _firsts(ascending: Words) -> NDArray[np.bool_]:
    """Return a mask of the numbers that differ from the one before them."""
    first = np.ones(len(ascending), bool)
    first[1:] = ascending[1:] != ascending[:-1]
    return first


def empty_index() -> Index:
    """Return an index of nothing."""
    words, numbers = np.empty(0, np.uint64), np.empty(0, np.uint32)
    return Index.of(words, words, numbers, numbers, 0)
