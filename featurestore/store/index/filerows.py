"""Rows of an index, read from its file at each lookup instead of through a memory map."""

from __future__ import annotations

import bisect
import os
import weakref

import numpy as np
from numpy.typing import NDArray

from featurestore.keyarrays import Words

_GAP_BYTES = 4096
"""Bytes between two rows wanted up to which both are read at once."""


class DamagedIndexError(Exception):
    """An index is not what was written, or cannot be read any more: build it again, nothing is lost."""


class OpenFile:
    """A file open for positioned reads, closed with the last of those who read it.

    Parameters
    ----------
    descriptor : int
        Of the file; from now on this object's.

    Attributes
    ----------
    descriptor : int
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        weakref.finalize(self, os.close, descriptor)

    def read(self, offset: int, n_bytes: int) -> bytes:
        """Return bytes of the file.

        Raises
        ------
        DamagedIndexError
            If it ends before them, or they cannot be read: over a network, when another computer removed it.
        """
        pieces = []
        while n_bytes:
            try:
                piece = os.pread(self.descriptor, n_bytes, offset)
            except OSError as error:
                raise DamagedIndexError(f"an index cannot be read: {error.strerror}") from error
            if not piece:
                raise DamagedIndexError("an index was cut while it was open")
            pieces.append(piece)
            offset, n_bytes = offset + len(piece), n_bytes - len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class FileRows:
    """Rows of 64-bit words of a file, with what the lookups need of an array's methods.

    They are :class:`~featurestore.store.index.sorting.SortedRows` too, where they ascend.

    Parameters
    ----------
    file : OpenFile
    offset : int
        Bytes before the first row.
    n_rows, n_columns : int
    """

    def __init__(self, file: OpenFile, offset: int, n_rows: int, n_columns: int) -> None:
        self._file, self._offset = file, offset
        self._n_rows, self._n_columns = n_rows, n_columns

    def __len__(self) -> int:
        return self._n_rows

    def __getitem__(self, chosen: slice) -> Words:
        start, stop, _ = chosen.indices(self._n_rows)
        return self.rows(start, max(start, stop))

    def __array__(self, dtype: np.dtype[np.generic] | None = None, copy: bool | None = None) -> Words:
        return self.rows(0, self._n_rows)

    def rows(self, start: int, stop: int) -> Words:
        """Return rows; (stop - start, n_columns)."""
        row_bytes = 8 * self._n_columns
        raw = self._file.read(self._offset + start * row_bytes, (stop - start) * row_bytes)
        return np.frombuffer(raw, "<u8").reshape(-1, self._n_columns)

    def take(self, positions: NDArray[np.int64], axis: int = 0) -> Words:
        """Return rows by number; quick where the numbers ascend."""
        if not len(positions):
            return np.empty((0, self._n_columns), np.uint64)
        steps = np.diff(positions)
        ends = np.flatnonzero((steps < 0) | (steps > _GAP_BYTES // (8 * self._n_columns))) + 1
        parts = [
            self.rows(int(part[0]), int(part[-1]) + 1).take(part - part[0], axis=0)
            for part in np.split(positions, ends)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def position(self, word: np.uint64) -> int:
        """Return how many rows have a smaller first word."""
        return bisect.bisect_left(range(self._n_rows), word, key=lambda row: self.rows(row, row + 1)[0, 0])
