"""Building an index of more keys than memory should hold: parts sorted one by one, then merged in files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import xxhash
from numpy.typing import NDArray

from featurestore.keys import KEY_BYTES
from featurestore.store.filesystem import FileSystem
from featurestore.store.runs import Run, ScratchFile, StoredRun, Words, merge, sort_rows

COLUMNS = ("<u8", "<u8", "<u4", "<u4")
"""Types of an index's columns: first and last word of the key, shard, row."""

_AT_ONCE = 1 << 19
"""Keys sorted or merged at once, some 50 MB."""

_COPIED_AT_ONCE = 8 << 20


class _ColumnsRun:
    """An index as a run of rows (first word, last word, shard and row in one)."""

    def __init__(self, high: Words, low: Words, shard: NDArray[np.uint32], row: NDArray[np.uint32]) -> None:
        self._high, self._low, self._shard, self._row = high, low, shard, row

    def __len__(self) -> int:
        return len(self._high)

    def rows(self, start: int, stop: int) -> Words:
        """Return rows, copied."""
        part = slice(start, stop)
        return _rows(self._high[part], self._low[part], self._shard[part], self._row[part])

    def position(self, word: np.uint64) -> int:
        """Return how many rows have a smaller first word."""
        return int(np.searchsorted(self._high, word))


class IndexColumns:
    """The columns of an index, each in a scratch file.

    Parameters
    ----------
    index : tuple of (n,) arrays
        Of the shards before: first and last words of their keys ascending, shard, row. May be mapped.
    n_before, n_shards : int
        Shards which that covers, and which this is to cover.
    read_keys : callable
        Shard number to its (n, 16) uint8 keys.
    directory : Path
        On whose disk the scratch files are, 72 bytes a key at most.

    Attributes
    ----------
    n_keys : int
        Different ones: of equal keys the first place stays.
    """

    def __init__(
        self,
        index: tuple[Words, Words, NDArray[np.uint32], NDArray[np.uint32]],
        n_before: int,
        n_shards: int,
        read_keys: Callable[[int], NDArray[np.uint8]],
        directory: Path,
        filesystem: FileSystem,
    ) -> None:
        self.n_keys = 0
        self._files = [ScratchFile(directory, filesystem) for _ in COLUMNS]
        runs: list[Run] = [_ColumnsRun(*index)]
        shards = (_shard_rows(number, read_keys(number)) for number in range(n_before, n_shards))
        for rows in _sorted_parts(shards):
            runs.append(StoredRun(iter([rows]), directory, filesystem))
        for rows in merge(runs, _AT_ONCE):
            fresh = np.ones(len(rows), bool)
            fresh[1:] = (rows[1:, :2] != rows[:-1, :2]).any(1)
            high, low, place = rows[fresh].T
            columns = high, low, place >> np.uint64(32), place & np.uint64(0xFFFFFFFF)
            for file, column, dtype in zip(self._files, columns, COLUMNS, strict=True):
                file.append(column.astype(dtype))
            self.n_keys += len(high)

    def parts(self) -> Iterator[bytes]:
        """Yield the columns' bytes end to end, in pieces."""
        for file in self._files:
            for start in range(0, file.n_bytes, _COPIED_AT_ONCE):
                yield file.read(start, min(_COPIED_AT_ONCE, file.n_bytes - start))

    def digest(self) -> int:
        """Return the XXH3-64 of the columns' bytes."""
        digest = xxhash.xxh3_64()
        for piece in self.parts():
            digest.update(piece)
        return digest.intdigest()


def _sorted_parts(shards: Iterable[Words]) -> Iterator[Words]:
    """Yield the rows of all shards in sorted parts."""
    parts: list[Words] = []
    for rows in shards:
        parts.append(rows)
        if sum(map(len, parts)) >= _AT_ONCE:
            yield sort_rows(np.concatenate(parts))
            parts = []
    if parts:
        yield sort_rows(np.concatenate(parts))


def _shard_rows(number: int, keys: NDArray[np.uint8]) -> Words:
    high, low = np.ascontiguousarray(keys).reshape(-1, KEY_BYTES).view(">u8").astype(np.uint64).T
    return _rows(high, low, np.full(len(high), number), np.arange(len(high)))


def _rows(high: Words, low: Words, shard: NDArray[np.integer], row: NDArray[np.integer]) -> Words:
    place = (shard.astype(np.uint64) << np.uint64(32)) | row.astype(np.uint64)
    return np.stack([high, low, place], 1)
