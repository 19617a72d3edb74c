"""Reads the windows of one pool while those of another are served, past the page cache."""

from __future__ import annotations

import bisect
import errno
import mmap
import os
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from featurestore.dataset.sampling.windows import Region, Windows
from featurestore.disk.opening import open_for_reading
from featurestore.errors import DamagedStoreError
from featurestore.store.format.access import refuse_unopened
from featurestore.store.format.codec import Array
from featurestore.store.format.directory import SHARDS
from featurestore.store.store import Store

_DIRECT = getattr(os, "O_DIRECT", 0)

_BLOCK = 4096
"""Reads past the page cache begin and end at multiples of this."""


class WindowReader:
    """Holds the windows of one pool in memory and reads the next one meanwhile.

    Parameters
    ----------
    windows : Windows

    Attributes
    ----------
    lock : Lock
        To be held while rows are used: the memory of a pool is reused when the next one is entered.
    """

    def __init__(self, windows: Windows) -> None:
        self.windows, self.lock = windows, threading.Lock()
        self._reading = ThreadPoolExecutor(1, "featurestore windows")
        self._pools: dict[tuple[int, ...], Future[_Pool]] = {}
        self._spare: list[mmap.mmap] = []
        self._here: dict[tuple[int, int], tuple[list[int], list[tuple[int, Array]]]] = {}

    def of(self, store: Store) -> RowsOfStore:
        """Return what reads the rows of one of the stores."""
        return RowsOfStore(self, next(i for i, one in enumerate(self.windows.stores) if one is store))

    def enter(self, pool: Sequence[int], following: Sequence[int]) -> None:
        """Wait for the windows of a pool, release earlier ones, and start to read the next pool.

        Raises
        ------
        DamagedStoreError
            If a shard cannot be read, or is too short.
        """
        with self.lock:
            self._enter(pool, following)

    def _enter(self, pool: Sequence[int], following: Sequence[int]) -> None:
        wanted = {tuple(windows) for windows in (pool, following) if windows}
        self._here = {}
        for known in [known for known in self._pools if known not in wanted]:
            old = self._pools.pop(known)
            if not old.cancel() and old.exception() is None:
                self._spare.append(old.result().room)
        for windows in (pool, following):
            if windows and tuple(windows) not in self._pools:
                room = self._spare.pop() if self._spare else None
                self._pools[tuple(windows)] = self._reading.submit(_read_pool, self.windows, windows, room)
        for region, values in self._pools[tuple(pool)].result().values:
            begins, parts = self._here.setdefault((region.store, region.shard), ([], []))
            at = bisect.bisect(begins, region.first)
            begins.insert(at, region.first)
            parts.insert(at, (region.stop, values))

    def rows(self, shard: int, start: int, stop: int, store: int = 0) -> Array | None:
        """Return rows of a shard's values, or None if they are not in the current pool."""
        begins, parts = self._here.get((store, shard), ((), ()))
        at = bisect.bisect(begins, start) - 1
        if at < 0 or parts[at][0] < stop:
            return None
        return parts[at][1][start - begins[at] : stop - begins[at]]


class RowsOfStore:
    """Rows of one of the stores, out of a reader's windows."""

    def __init__(self, reader: WindowReader, store: int) -> None:
        self._reader, self._store = reader, store

    def rows(self, shard: int, start: int, stop: int) -> Array | None:
        """Return rows of a shard's values, or None if they are not in the current pool."""
        return self._reader.rows(shard, start, stop, self._store)


class _Pool(NamedTuple):
    room: mmap.mmap
    values: list[tuple[Region, Array]]


def _read_pool(windows: Windows, pool: Sequence[int], room: mmap.mmap | None) -> _Pool:
    """Read windows into one block of memory, each aligned to blocks at both ends."""
    regions = windows.regions_of(pool)
    entries = [windows.stores[region.store].manifest.shards[region.shard] for region in regions]
    sizes = [
        entry.extents["values"].rows(region.first, region.stop)[1]
        for region, entry in zip(regions, entries, strict=True)
    ]
    needed = sum(-(-size // _BLOCK) * _BLOCK + 2 * _BLOCK for size in sizes)
    if room is None or len(room) < needed:
        room = mmap.mmap(-1, max(needed, windows.pool_bytes, 1))
    position, values = 0, []
    for region, entry in zip(regions, entries, strict=True):
        extent = entry.extents["values"]
        start, n_bytes = extent.rows(region.first, region.stop)
        lead = start % _BLOCK
        room_bytes = -(-(lead + n_bytes) // _BLOCK) * _BLOCK
        into = memoryview(room)[position : position + room_bytes]
        path = windows.stores[region.store].location / SHARDS / entry.name
        _read_into(into, path, start - lead, lead + n_bytes)
        array = np.frombuffer(into[lead : lead + n_bytes], extent.dtype)
        values.append((region, array.reshape(region.stop - region.first, *extent.shape[1:])))
        position += room_bytes
    return _Pool(room, values)


def _read_into(into: memoryview, path: Path, offset: int, n_bytes: int) -> None:
    """Fill memory from a file past the page cache, or through it where that is not supported."""
    done, flags = 0, _DIRECT
    while done < n_bytes:
        try:
            descriptor = open_for_reading(path, flags)
        except OSError as error:
            if flags and error.errno == errno.EINVAL:
                flags = 0
                continue
            refuse_unopened(path, error)
        try:
            while done < n_bytes:
                step = os.preadv(descriptor, [into[done:]], offset + done)
                if not step:
                    raise DamagedStoreError(
                        f"shard {path} ends before byte {offset + n_bytes:,}: it was cut",
                        path=path,
                        shard=path.name,
                    )
                done += step
            if not flags and hasattr(os, "posix_fadvise"):
                os.posix_fadvise(descriptor, offset, n_bytes, os.POSIX_FADV_DONTNEED)
        except OSError as error:
            if not (flags and error.errno == errno.EINVAL):
                raise DamagedStoreError(
                    f"shard {path} cannot be read at byte {offset + done:,}: {error.strerror}. Restore it "
                    "from a copy, on a disk that works",
                    path=path,
                    shard=path.name,
                ) from error
            flags = 0
        finally:
            os.close(descriptor)
