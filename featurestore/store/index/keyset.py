"""A growing set of keys, for the sentences that a run has seen, in little memory."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featurestore.disk.filesystem import LOCAL, FileSystem
from featurestore.keyarrays import Words, find, key_words, keys_array, split_keys
from featurestore.store.index.sorting import (
    RowsInMemory,
    RowsOnDisk,
    ScratchFile,
    SortedRows,
    merge,
    sort_rows,
)

_MOST_IN_MEMORY = 1 << 16
"""Keys kept as Python objects, some 6 MB."""

_MERGED_AT_ONCE = 1 << 16

_FILTER_BITS = 12
"""Bloom filter bits per key: about 1 % false positives."""


class KeySet:
    """A set of keys.

    The newest are in memory. When they are too many they become a sorted run in a scratch file, 16 bytes a
    key. Runs of similar size are merged, which needs as much disk again for a moment. A Bloom filter of 1.5
    bytes a key stays in memory, so that few lookups have to read a file.

    Parameters
    ----------
    directory : Path
        The files are on its disk; as long as the keys fit in memory, nothing is written.
    most_in_memory : int
        Keys in memory at most.
    """

    def __init__(
        self, directory: Path, *, most_in_memory: int = _MOST_IN_MEMORY, filesystem: FileSystem = LOCAL
    ) -> None:
        self._directory, self._most_in_memory, self._filesystem = directory, most_in_memory, filesystem
        self._newest: set[bytes] = set()
        self._stored: tuple[_FilteredRun, ...] = ()

    def __len__(self) -> int:
        return len(self._newest) + sum(len(stored.run) for stored in self._stored)

    def contains(self, keys: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Return which (n, 16) uint8 keys are in the set; (n,) bool. Another thread may be adding keys."""
        # In this order, keys that move from memory to a file meanwhile are found in one of the two.
        newest, stored = self._newest, self._stored
        seen = np.fromiter(map(newest.__contains__, split_keys(keys)), bool, len(keys))
        if stored:
            high, low = key_words(keys)
            for filtered in stored:
                asked = np.flatnonzero(filtered.may_hold(high, low) & ~seen)
                rows = filtered.run.near(high[asked])
                seen[asked] = find(rows[:, 0], rows[:, 1], high[asked], low[asked]) >= 0
        return seen

    def add(self, keys: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Add (n, 16) uint8 keys; return which were new, of equal ones only the first; (n,) bool."""
        new = ~self.contains(keys)
        for i, key in enumerate(split_keys(keys)):
            if new[i]:
                new[i] = key not in self._newest
                self._newest.add(key)
        if len(self._newest) > self._most_in_memory:
            rows = np.stack(key_words(keys_array(self._newest)), 1)
            kept, merged, n_keys = list(self._stored), [], len(rows)
            # All at once, so that no key is written twice for one that is added.
            while kept and len(kept[-1].run) < 2 * n_keys:
                merged.append(kept.pop().run)
                n_keys += len(merged[-1])
            self._stored = (*kept, self._filtered([RowsInMemory(sort_rows(rows)), *merged]))
            self._newest = set()
        return new

    def _filtered(self, runs: list[SortedRows]) -> _FilteredRun:
        return _FilteredRun(runs, self._directory, self._filesystem)


class _FilteredRun:
    """A stored run, and a Bloom filter in which the bits of a key lie in one word."""

    def __init__(self, runs: list[SortedRows], directory: Path, filesystem: FileSystem) -> None:
        n_words = max(1, sum(map(len, runs)) * _FILTER_BITS // 64)
        # Mapped, so that all of it goes back to the system with the run: in a heap, where one filter follows
        # another that is half as large, holes would stay that no later one fits.
        self._filter = np.frombuffer(mmap.mmap(-1, 8 * n_words), np.uint64)
        file = ScratchFile(directory, filesystem)
        self.run = RowsOnDisk(self._filtering(merge(runs, _MERGED_AT_ONCE)), file)

    def may_hold(self, high: Words, low: Words) -> NDArray[np.bool_]:
        """Return True for keys in the run and for about 1 % of all others; (n,) bool."""
        places, bits = self._bits(high, low)
        held: NDArray[np.bool_] = self._filter[places] & bits == bits
        return held

    def _filtering(self, parts: Iterator[Words]) -> Iterator[Words]:
        for part in parts:
            places, bits = self._bits(part[:, 0], part[:, 1])
            np.bitwise_or.at(self._filter, places, bits)
            yield part

    def _bits(self, high: Words, low: Words) -> tuple[Words, Words]:
        """Return the filter word of each key and its four bits there."""
        places = ((high >> np.uint64(32)) * np.uint64(len(self._filter))) >> np.uint64(32)
        bits = np.zeros(len(low), np.uint64)
        for shift in (0, 6, 12, 18):
            bits |= np.uint64(1) << ((low >> np.uint64(shift)) & np.uint64(63))
        return places, bits
