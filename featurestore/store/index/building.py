"""Building a large index in bounded memory: parts are sorted one by one, then merged in scratch files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featurestore.disk.filesystem import FileSystem
from featurestore.keyarrays import Words, key_words
from featurestore.store.index.buckets import RECORD_WORDS, bits_for, bucket_table
from featurestore.store.index.runs import Run, ScratchFile, StoredRun, merge, sort_rows

_AT_ONCE = 1 << 19
"""Keys sorted or merged at once, some 50 MB."""

_BUCKETS_AT_ONCE = 1 << 16

_COPIED_AT_ONCE = 8 << 20


class MergedIndex:
    """The table and records of an index, each in a scratch file.

    Parameters
    ----------
    before : Run of (n, 3) uint64
        Records of the index that is extended.
    n_before, n_shards : int
        Shards covered by that index, and by the new one.
    read_keys : callable
        Shard number to its (n, 16) uint8 keys.
    directory : Path
        The scratch files are on its disk, 72 bytes a key at most.

    Attributes
    ----------
    n_keys : int
        Distinct keys; of equal keys the first place is kept.
    bits, largest : int
        As in :class:`featurestore.store.index.lookup.Index`.
    """

    def __init__(
        self,
        before: Run,
        n_before: int,
        n_shards: int,
        read_keys: Callable[[int], NDArray[np.uint8]],
        directory: Path,
        filesystem: FileSystem,
    ) -> None:
        runs: list[Run] = [before]
        shards = (_shard_records(number, read_keys(number)) for number in range(n_before, n_shards))
        for rows in _sorted_parts(shards):
            runs.append(StoredRun(iter([rows]), directory, filesystem))
        self._records = StoredRun(map(_distinct, merge(runs, _AT_ONCE)), directory, filesystem)
        self.n_keys = len(self._records)
        self.bits = bits_for(self.n_keys)
        self.largest = 0
        self._table = ScratchFile(directory, filesystem)
        for start in range(0, 1 << self.bits, _BUCKETS_AT_ONCE):
            buckets = np.arange(start, min(start + _BUCKETS_AT_ONCE, 1 << self.bits))
            position = self._position(start)
            stop = self._position(start + len(buckets))
            block = bucket_table(buckets, self._records.rows(position, stop), position, self.bits)
            sizes = np.diff(block[:, 0].astype(np.int64), append=stop)
            self.largest = max(self.largest, int(sizes.max()))
            self._table.append(block.astype("<u8"))
        self._table.append(np.array([self.n_keys, 0], "<u8"))

    def parts(self) -> Iterator[bytes]:
        """Yield the bytes of table and records end to end, in pieces."""
        for start in range(0, self._table.n_bytes, _COPIED_AT_ONCE):
            yield self._table.read(start, min(_COPIED_AT_ONCE, self._table.n_bytes - start))
        for start in range(0, self.n_keys, _AT_ONCE):
            rows = self._records.rows(start, min(start + _AT_ONCE, self.n_keys))
            yield rows.astype("<u8", copy=False).tobytes()

    def _position(self, bucket: int) -> int:
        """Return where the records of a bucket begin."""
        if bucket == 1 << self.bits:
            return self.n_keys
        return self._records.position(np.uint64(bucket << (64 - self.bits))) if bucket else 0


def _distinct(rows: Words) -> Words:
    fresh = np.ones(len(rows), bool)
    fresh[1:] = (rows[1:, :2] != rows[:-1, :2]).any(1)
    return rows[fresh]


def _sorted_parts(shards: Iterable[Words]) -> Iterator[Words]:
    """Yield the records of all shards in sorted parts."""
    parts: list[Words] = []
    for rows in shards:
        parts.append(rows)
        if sum(map(len, parts)) >= _AT_ONCE:
            yield sort_rows(np.concatenate(parts))
            parts = []
    if parts:
        yield sort_rows(np.concatenate(parts))


def _shard_records(number: int, keys: NDArray[np.uint8]) -> Words:
    records = np.empty((len(keys), RECORD_WORDS), np.uint64)
    records[:, 0], records[:, 1] = key_words(keys)
    records[:, 2] = np.arange(len(keys), dtype=np.uint64) | (np.uint64(number) << np.uint64(32))
    return records
