"""A run of an index: the keys of successive shards, in buckets, and where each key lies.

It is mapped or read where it is asked, never as a whole; a lookup touches its keys' buckets only, and each
bucket it touches has a check of its own, so that a damaged one can neither hide a sentence nor invent one.

Keys are hashes, so buckets are even; where they are not (a stranger's store), lookups become slow, not wrong.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from featurestore.keyarrays import Words, find
from featurestore.store.index.buckets import (
    bits_for,
    bucket_check,
    bucket_checks,
    bucket_table,
    buckets_of,
)
from featurestore.store.index.filerows import DamagedIndexError, FileRows
from featurestore.store.index.sorting import RowsInMemory, SortedRows, distinct, sort_rows

NOWHERE = np.uint64((1 << 64) - 1)
"""The place of a key that is not there."""

TABLE_DAMAGED, BUCKET_DAMAGED = "the table of an index is damaged", "a bucket of an index is damaged"
OTHER_SHARD = "an index points to a shard that it does not cover"
OUTSIDE_SHARD = "an index points beyond the end of a shard"

_BUCKETS_AT_ONCE = 1 << 16
_FEW_RECORDS = 32
"""Records of a bucket up to which one key is found faster without arrays: nearly all, as keys are hashes."""


@dataclass(frozen=True)
class IndexRun:
    """Keys in buckets, with their places; the arrays may be memory-mapped, or read at each lookup.

    Attributes
    ----------
    table : (2**bits + 1, 2) uint64
        Where each bucket's records begin, and its check.
    records : (n, 3) uint64
    first, stop : int
        It covers the manifest's shards from ``first`` to before ``stop``.
    largest : int
        Keys of the largest bucket. A table that claims more is damaged, and refused before memory is taken
        for it.
    sizes : (n_shards,) uint64, optional
        Sentences of every shard of the manifest.
    """

    table: Words | FileRows
    records: Words | FileRows
    first: int
    stop: int
    largest: int
    sizes: NDArray[np.uint64] | None = field(default=None, compare=False)
    _map: mmap.mmap | None = field(default=None, compare=False)

    @classmethod
    def of(
        cls, parts: Iterable[Words], first: int, stop: int, sizes: NDArray[np.uint64] | None = None
    ) -> IndexRun:
        """Return the run of (n, 3) records in any order; of equal keys the first place stays."""
        records = distinct(sort_rows(np.concatenate([np.empty((0, 3), np.uint64), *parts])))
        bits = bits_for(len(records))
        table = np.zeros(((1 << bits) + 1, 2), np.uint64)
        table[:-1] = bucket_table(np.arange(1 << bits), records, 0, bits)
        table[-1, 0] = len(records)
        largest = int(np.diff(table[:, 0].astype(np.int64)).max())
        return cls(table, records, first, stop, largest, sizes)

    def __len__(self) -> int:
        return len(self.records)

    @property
    def n_keys(self) -> int:
        """Keys it holds."""
        return len(self.records)

    @property
    def bits(self) -> int:
        """How many bits of a key choose its bucket."""
        return (len(self.table) - 1).bit_length() - 1

    @property
    def arrays(self) -> tuple[Words, Words] | None:
        """Table and records, where they are arrays in memory or mapped."""
        if isinstance(self.table, FileRows) or isinstance(self.records, FileRows):
            return None
        return self.table, self.records

    @property
    def sorted_rows(self) -> SortedRows:
        """The records, to be merged with others."""
        return self.records if isinstance(self.records, FileRows) else RowsInMemory(self.records)

    def require_whole(self) -> None:
        """Raise where the file was cut or removed since it was mapped: touching it would end the process."""
        if self._map is None:
            return
        try:
            n_bytes = self._map.size()
        except OSError as error:
            raise DamagedIndexError(f"an index is gone: {error.strerror}") from error
        if n_bytes < len(self._map):
            raise DamagedIndexError("an index was cut while it was open")

    def places(self, high: Words, low: Words) -> Words:
        """Return the place of each key, :data:`NOWHERE` where it is missing; (n,) uint64.

        Parameters
        ----------
        high, low : (n,) uint64
            First and last eight bytes of the keys, the first ascending.

        Raises
        ------
        DamagedIndexError
            If a bucket that one of them could be in is not what was written.
        """
        buckets = buckets_of(high, self.bits)
        records = self._bucket_records(buckets[_firsts(buckets)].astype(np.int64))
        at = find(records[:, 0], records[:, 1], high, low)
        hit = at >= 0
        places = np.full(len(high), NOWHERE)
        places[hit] = self._checked(records[at[hit]])[:, 2]
        return places

    def place(self, high: int, low: int) -> int | None:
        """Return the place of one key, None where it is missing, without arrays, which is faster.

        Raises
        ------
        DamagedIndexError
        """
        self.require_whole()
        bucket = high >> (64 - self.bits)
        (start, check), (stop, _) = self.table[bucket : bucket + 2].tolist()
        if stop - start > _FEW_RECORDS:
            words = np.array([[high], [low]], np.uint64)
            found = int(self.places(words[0], words[1])[0])
            return None if found == NOWHERE else found
        records = self.records[start:stop].tolist()
        if len(records) != stop - start or bucket_check(bucket, start, stop, records) != check:
            raise DamagedIndexError(BUCKET_DAMAGED)
        for record in records:
            if record[:2] == [high, low]:
                self._checked(np.array([record], np.uint64))
                return int(record[2])
        return None

    def between(self, lowest: np.uint64, highest: np.uint64) -> Words:
        """Return the records of all keys whose first eight bytes lie between these two; (n, 3).

        Raises
        ------
        DamagedIndexError
        """
        first, last = buckets_of(np.array([lowest, highest]), self.bits).tolist()
        records = self._bucket_records(np.arange(first, last + 1))
        return self._checked(records[(records[:, 0] >= lowest) & (records[:, 0] <= highest)])

    def verify(self) -> None:
        """Compare the checks of all buckets.

        Raises
        ------
        DamagedIndexError
        """
        for start in range(0, len(self.table) - 1, _BUCKETS_AT_ONCE):
            stop = min(start + _BUCKETS_AT_ONCE, len(self.table) - 1)
            self._checked(self._bucket_records(np.arange(start, stop)))

    def _bucket_records(self, buckets: NDArray[np.int64]) -> Words:
        """Return the records of ascending buckets, end to end, after comparing each one's check."""
        self.require_whole()
        starts, checks = self.table.take(buckets, axis=0).T
        stops = self.table.take(buckets + 1, axis=0)[:, 0]
        sizes = stops - starts  # unsigned: a decrease wraps to a huge size
        if len(buckets) and (int(sizes.max()) > self.largest or int(stops.max()) > len(self.records)):
            raise DamagedIndexError(TABLE_DAMAGED)
        ends = np.cumsum(sizes.astype(np.int64))
        begins = ends - sizes.astype(np.int64)
        positions = np.arange(len(ends) and ends[-1], dtype=np.int64) + np.repeat(
            starts.astype(np.int64) - begins, sizes.astype(np.int64)
        )
        records: Words = self.records.take(positions, axis=0)
        if (bucket_checks(buckets, starts, stops, records, positions) != checks).any():
            raise DamagedIndexError(BUCKET_DAMAGED)
        return records

    def _checked(self, records: Words) -> Words:
        """Return records, after checking that the places they name exist."""
        shard, row = records[:, 2] >> np.uint64(32), records[:, 2] & np.uint64(0xFFFFFFFF)
        if len(records) and not self.first <= int(shard.min()) <= int(shard.max()) < self.stop:
            raise DamagedIndexError(OTHER_SHARD)
        if self.sizes is not None and (row >= self.sizes[shard]).any():
            raise DamagedIndexError(OUTSIDE_SHARD)
        return records


def _firsts(ascending: Words) -> NDArray[np.bool_]:
    """Return a mask of the numbers that differ from the one before them."""
    first = np.ones(len(ascending), bool)
    first[1:] = ascending[1:] != ascending[:-1]
    return first
