"""Sorting larger than memory: rows of 64-bit words, sorted in parts that are merged through scratch files.

A row begins with a key's two words. Keys are hashes, so equal ranges of them hold about equally many rows:
sorted rows are merged a range at a time, in memory bounded by the range.
"""

from __future__ import annotations

import bisect
import itertools
import os
import weakref
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from featurestore.disk.filesystem import LOCAL, FileSystem
from featurestore.errors import StoreError
from featurestore.keyarrays import Words

_BLOCK = 128
"""Rows between two whose first word stays in memory."""


class ScratchFile:
    """A file without a name that exists as long as this object.

    Parameters
    ----------
    directory : Path
        The file is on its disk.
    """

    def __init__(self, directory: Path, filesystem: FileSystem = LOCAL) -> None:
        self._directory, self._filesystem = directory, filesystem
        self._file = filesystem.scratch_file(directory)
        weakref.finalize(self, self._file.close)
        self.n_bytes = 0

    def append(self, part: NDArray[np.generic]) -> None:
        """Write at the end.

        Raises
        ------
        StoreWriteError
            Disk full or failing.
        """
        self._filesystem.append(self._file, self._directory, part)
        self.n_bytes += part.nbytes

    def read(self, offset: int, n_bytes: int) -> bytes:
        """Return bytes written before.

        Raises
        ------
        StoreError
            If the disk fails.
        """
        try:
            raw = os.pread(self._file.fileno(), n_bytes, offset)
        except OSError as error:
            raise StoreError(f"a temporary file cannot be read back: {error}. See to the disk") from error
        if len(raw) != n_bytes:
            raise StoreError(f"a temporary file gave {len(raw):,} bytes of {n_bytes:,}: see to the disk")
        return raw


class SortedRows(Protocol):
    """Rows in ascending order."""

    def __len__(self) -> int: ...

    def rows(self, start: int, stop: int) -> Words:
        """Return rows; (stop - start, n_columns)."""

    def position(self, word: np.uint64) -> int:
        """Return how many rows have a smaller first word."""


class RowsInMemory:
    """Sorted rows in memory.

    Parameters
    ----------
    rows : (n, n_columns) uint64, ascending
    """

    def __init__(self, rows: Words) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def rows(self, start: int, stop: int) -> Words:
        """Return rows."""
        return self._rows[start:stop]

    def position(self, word: np.uint64) -> int:
        """Return how many rows have a smaller first word."""
        # NumPy would copy the column first.
        return bisect.bisect_left(self._rows[:, 0], word)


class RowsOnDisk:
    """Sorted rows in a scratch file; 1/16 byte a row stays in memory.

    Parameters
    ----------
    parts : iterable of (n, n_columns) uint64
        The rows in ascending order, a part at a time.
    file : ScratchFile
        They are written at its end, and nothing else meanwhile.
    """

    def __init__(self, parts: Iterable[Words], file: ScratchFile) -> None:
        self._file, self._offset = file, file.n_bytes
        self._n_rows, self._n_columns = 0, 0
        fence = []
        for part in parts:
            self._file.append(part)
            fence.append(part[-self._n_rows % _BLOCK :: _BLOCK, 0].copy())
            self._n_rows += len(part)
            self._n_columns = part.shape[1]
        self._fence = np.concatenate([np.empty(0, np.uint64), *fence])

    def __len__(self) -> int:
        return self._n_rows

    def rows(self, start: int, stop: int) -> Words:
        """Return rows."""
        row_bytes = 8 * self._n_columns
        raw = self._file.read(self._offset + start * row_bytes, (stop - start) * row_bytes)
        return np.frombuffer(raw, np.uint64).reshape(-1, self._n_columns)

    def position(self, word: np.uint64) -> int:
        """Return how many rows have a smaller first word."""
        start = max(0, int(np.searchsorted(self._fence, word)) - 1) * _BLOCK
        block = self.rows(start, min(start + _BLOCK, self._n_rows))
        return start + int(np.searchsorted(block[:, 0], word))

    def near(self, words: Words) -> Words:
        """Return, in ascending order, every row whose first word is one of these, and some neighbours."""
        # Of rows with an equal first word, the first may stand at the end of the block before.
        first = np.searchsorted(self._fence, words, "left").astype(np.int64) - 1
        last = np.searchsorted(self._fence, words, "right").astype(np.int64) - 1
        wanted = np.zeros(len(self._fence) + 1, np.int64)
        np.add.at(wanted, first.clip(0), 1)
        np.add.at(wanted, last.clip(0) + 1, -1)
        blocks = np.flatnonzero(np.cumsum(wanted))
        # Neighbouring blocks are read at once.
        edges = np.flatnonzero(np.diff(blocks, prepend=-2, append=-2) != 1)
        found = [
            self.rows(int(blocks[a]) * _BLOCK, min((int(blocks[b - 1]) + 1) * _BLOCK, self._n_rows))
            for a, b in itertools.pairwise(edges)
        ]
        return np.concatenate(found) if found else np.empty((0, self._n_columns), np.uint64)


def sort_rows(rows: Words) -> Words:
    """Return rows in ascending order, the first column deciding first; quick where parts of them ascend."""
    first = np.ascontiguousarray(rows[:, 0])
    order = np.argsort(first, kind="stable")
    first = first[order]
    tied = np.flatnonzero(first[1:] == first[:-1])
    if len(tied):
        tied = np.union1d(tied, tied + 1)
        among = order[tied]
        order[tied] = among[np.lexsort((*rows[among, :0:-1].T, first[tied]))]
    return rows.take(order, axis=0)


def merge(pieces: Sequence[SortedRows], rows_at_once: int) -> Iterator[Words]:
    """Yield the rows of all pieces in ascending order, about ``rows_at_once`` at a time, a key's together."""
    n_parts = -(-sum(map(len, pieces)) // rows_at_once)
    before = [0] * len(pieces)
    for part in range(1, n_parts + 1):
        if part < n_parts:
            edge = np.uint64((part << 64) // n_parts)
            after = [piece.position(edge) for piece in pieces]
        else:
            after = list(map(len, pieces))
        found = [piece.rows(a, b) for piece, a, b in zip(pieces, before, after, strict=True) if b > a]
        if found:
            yield found[0] if len(found) == 1 else sort_rows(np.concatenate(found))
        before = after


def distinct(rows: Words) -> Words:
    """Return sorted rows without those whose key, the first two columns, is that of the one before."""
    fresh = np.ones(len(rows), bool)
    fresh[1:] = (rows[1:, :2] != rows[:-1, :2]).any(1)
    return rows if fresh.all() else rows[fresh]
