"""Building a large run in bounded memory: parts are sorted one by one, then merged in scratch files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from featurestore.disk.filesystem import FileSystem
from featurestore.keyarrays import Words
from featurestore.store.index.buckets import bits_for, bucket_table
from featurestore.store.index.sorting import (
    RowsOnDisk,
    ScratchFile,
    SortedRows,
    distinct,
    merge,
    sort_rows,
)

_AT_ONCE = 1 << 18
"""Keys sorted or merged at once, some 30 MB."""

_BUCKETS_AT_ONCE = 1 << 16

_COPIED_AT_ONCE = 8 << 20


class MergedRun:
    """The table and records of a run, each in a scratch file.

    Parameters
    ----------
    before : sequence of SortedRows of (n, 3) uint64
        Records of the runs that it takes in.
    shards : iterable of (n, 3) uint64
        Records of the shards that none of these runs covers.
    directory : Path
        The scratch files are on its disk, 72 bytes a key at most.

    Attributes
    ----------
    n_keys : int
        Distinct keys; of equal keys the first place is kept.
    bits, largest : int
        As in :class:`featurestore.store.index.run.IndexRun`.
    """

    def __init__(
        self,
        before: Sequence[SortedRows],
        shards: Iterable[Words],
        directory: Path,
        filesystem: FileSystem,
    ) -> None:
        # One file for all parts: a billion keys have four thousand, more than a process may have open.
        parts = ScratchFile(directory, filesystem)
        pieces = [*before, *(RowsOnDisk([rows], parts) for rows in _sorted_parts(shards))]
        self._records = RowsOnDisk(map(distinct, merge(pieces, _AT_ONCE)), ScratchFile(directory, filesystem))
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
            self._table.append(block.astype("<u8", copy=False))
        self._table.append(np.array([self.n_keys, 0], "<u8"))

    def parts(self, header: bytes) -> Iterator[bytes]:
        """Yield the bytes of header, table and records end to end, in pieces."""
        yield header
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


def _sorted_parts(shards: Iterable[Words]) -> Iterator[Words]:
    """Yield the records of all shards in sorted parts."""
    parts: list[Words] = []
    n_rows = 0
    for rows in shards:
        parts.append(rows)
        n_rows += len(rows)
        if n_rows >= _AT_ONCE:
            yield sort_rows(np.concatenate(parts))
            parts, n_rows = [], 0
    if parts:
        yield sort_rows(np.concatenate(parts))
