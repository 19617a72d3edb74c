"""A growing set of keys that tells which sentences a run has seen, in memory that hardly grows with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featurestore.disk.filesystem import LOCAL, FileSystem
from featurestore.keyarrays import Words, find, key_words, keys_array, split_keys
from featurestore.store.index.runs import MemoryRun, Run, StoredRun, merge, sort_rows

_MOST_IN_MEMORY = 1 << 16
"""Keys kept as Python objects, some 6 MB."""

_MERGED_AT_ONCE = 1 << 16

_FILTER_BITS = 12
"""Bits a key of a stored run's filter: of keys that are not there, it lets one in a hundred through."""


class KeySet:
    """A set of keys.

    The newest are in memory. When they are too many they become a sorted run in a file without a name, 16
    bytes a key; runs of like size are merged, which takes as much again for a moment. A filter of one and a
    half bytes a key stays in memory, so that few questions have to go to a file.

    Parameters
    ----------
    directory : Path
        On whose disk the files are; as long as memory is enough, nothing is written.
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
        """Return which (n, 16) uint8 keys are in the set; (n,) bool. Another thread may be adding some."""
        # In this order: what moves from memory to a file meanwhile is found in one of them.
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
        """Add (n, 16) uint8 keys; return which were new, the first of equal ones only; (n,) bool."""
        new = ~self.contains(keys)
        for i, key in enumerate(split_keys(keys)):
            if new[i]:
                new[i] = key not in self._newest
                self._newest.add(key)
        if len(self._newest) > self._most_in_memory:
            rows = np.stack(key_words(keys_array(self._newest)), 1)
            stored = [*self._stored, self._filtered([MemoryRun(sort_rows(rows))])]
            while len(stored) > 1 and len(stored[-2].run) < 2 * len(stored[-1].run):
                stored.append(self._filtered([stored.pop().run, stored.pop().run]))
            self._stored = tuple(stored)
            self._newest = set()
        return new

    def _filtered(self, runs: list[Run]) -> _FilteredRun:
        return _FilteredRun(runs, self._directory, self._filesystem)


class _FilteredRun:
    """A stored run, and a Bloom filter in which the bits of a key lie in one word."""

    def __init__(self, runs: list[Run], directory: Path, filesystem: FileSystem) -> None:
        self._filter = np.zeros(max(1, sum(map(len, runs)) * _FILTER_BITS // 64), np.uint64)
        self.run = StoredRun(self._filtering(merge(runs, _MERGED_AT_ONCE)), directory, filesystem)

    def may_hold(self, high: Words, low: Words) -> NDArray[np.bool_]:
        """Return False for keys that are not in the run, and True for few others; (n,) bool."""
        places, bits = self._bits(high, low)
        held: NDArray[np.bool_] = self._filter[places] & bits == bits
        return held

    def _filtering(self, parts: Iterator[Words]) -> Iterator[Words]:
        for part in parts:
            places, bits = self._bits(part[:, 0], part[:, 1])
            np.bitwise_or.at(self._filter, places, bits)
            yield part

    def _bits(self, high: Words, low: Words) -> tuple[Words, Words]:
        """Return the word of the filter that each key belongs to, and its four bits there."""
        places = ((high >> np.uint64(32)) * np.uint64(len(self._filter))) >> np.uint64(32)
        bits = np.zeros(len(low), np.uint64)
        for shift in (0, 6, 12, 18):
            bits |= np.uint64(1) << ((low >> np.uint64(shift)) & np.uint64(63))
        return places, bits
