"""Windows: reading a store larger than memory in large pieces, and shuffling within several of them.

Reading sentences at random costs a disk access each. Instead the shards are cut into windows of some
megabytes. An epoch takes the windows in random order, several at a time (a pool), and shuffles and buckets
the sentences of a pool together. While one pool is served, a thread reads the next one past the page cache,
so that nothing else is evicted from it.
"""

from __future__ import annotations

import bisect
import errno
import logging
import mmap
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from featurestore.dataset.sampling.sampler import BucketBatchSampler
from featurestore.disk.opening import open_for_reading
from featurestore.errors import DamagedStoreError
from featurestore.store.format.access import refuse_unopened
from featurestore.store.format.codec import Array
from featurestore.store.format.directory import SHARDS
from featurestore.store.store import Store

logger = logging.getLogger(__name__)

_WINDOW_BYTES = 8 << 20
_WINDOWS_A_POOL = 8
"""Lower bound on windows per pool: fewer shuffle worse."""

_GAP_BYTES = 256 << 10
"""A longer stretch of unused bytes ends a window: reading it would cost more than another read."""

_DIRECT = getattr(os, "O_DIRECT", 0)

_BLOCK = 4096
"""Reads past the page cache begin and end at multiples of this."""


class Region(NamedTuple):
    """Rows of a shard's values: a window."""

    shard: int
    first: int
    stop: int


class Windows:
    """A dataset's sentences cut into windows.

    Parameters
    ----------
    store : Store
    shard, row, lengths : (n,) int
        Of each sentence; one with a shard of -1 has no bytes, and its window is not read.
    memory : int
        Bytes for two pools: the one that is served and the one that is read.

    Attributes
    ----------
    of : (n,) int64
        The window of each sentence.
    regions : list of Region
    n_bytes : (n_windows,) int64
    pool_bytes : int
        Size at which a pool is full.
    """

    def __init__(
        self,
        store: Store,
        shard: NDArray[np.int64],
        row: NDArray[np.int64],
        lengths: NDArray[np.int64],
        memory: int,
    ) -> None:
        self.store, self.pool_bytes = store, memory // 2
        window_bytes = max(1, min(_WINDOW_BYTES, self.pool_bytes // _WINDOWS_A_POOL))
        first, row_bytes = np.zeros(len(shard), np.int64), np.ones(len(shard), np.int64)
        for number in np.unique(shard[shard >= 0]).tolist():
            here = shard == number
            first[here] = store.reader(number).offsets[row[here]]
            row_bytes[here] = store.manifest.shards[number].extents["values"].row_bytes
        absent = shard < 0
        first[absent] = np.cumsum(lengths[absent]) - lengths[absent]
        stop = first + lengths
        order = np.lexsort((first, shard))
        begins, ends, width, number = (a[order] for a in (first, stop, row_bytes, shard))
        cell = begins * width // window_bytes
        new = np.ones(len(order), bool)
        new[1:] = (number[1:] != number[:-1]) | (cell[1:] != cell[:-1])
        new[1:] |= (begins[1:] - ends[:-1]) * width[1:] > _GAP_BYTES
        self.of = np.empty(len(order), np.int64)
        self.of[order] = np.cumsum(new) - 1
        heads = np.flatnonzero(new)
        tops = np.maximum.reduceat(ends, heads) if len(heads) else ends[:0]
        places = (number[heads].tolist(), begins[heads].tolist(), tops.tolist())
        self.regions = [Region(*place) for place in zip(*places, strict=True)]
        self.n_bytes = (tops - begins[heads]) * width[heads]


class WindowBatchSampler(BucketBatchSampler):
    """Batches of sentences of similar length, drawn from a few windows at a time.

    The batches of an epoch are a pure function of the lengths, the windows, the settings, the seed and the
    epoch. All ranks go through the same windows, and each reads all of them. Parameters as
    :class:`~featurestore.dataset.sampling.sampler.BucketBatchSampler`, and:

    Parameters
    ----------
    windows : Windows
    on_pool : callable, optional
        Called at the start of each pool with its windows and those of the next one.
    """

    def __init__(
        self,
        lengths: Sequence[int] | NDArray[np.integer],
        windows: Windows,
        *,
        on_pool: Callable[[Sequence[int], Sequence[int]], None] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(lengths, **options)
        self.windows, self.on_pool = windows, on_pool
        by_window = np.argsort(windows.of, kind="stable")
        edges = np.searchsorted(windows.of[by_window], np.arange(1, len(windows.regions)))
        self._sentences = np.split(by_window, edges)

    def __iter__(self) -> Iterator[list[int]]:
        epoch = self.epoch
        self.epoch = epoch + 1
        batches, pools = self.batches(epoch), self.pools(epoch)
        # Most likely another pass follows: its first pool is read while the last one of this is served.
        following = [*pools[1:], *self.pools(epoch + 1)[:1]]
        pool = -1
        for batch in batches:
            window = int(self.windows.of[batch[0]])
            if pool < 0 or window not in pools[pool]:
                pool = next(i for i in range(pool + 1, len(pools)) if window in pools[i])
                if self.on_pool is not None:
                    self.on_pool(pools[pool], following[pool])
            yield batch.tolist()

    def pools(self, epoch: int) -> list[list[int]]:
        """Return the windows of each pool of an epoch."""
        order = np.arange(len(self.windows.regions))
        if self.shuffle:
            order = np.random.default_rng((self.seed, epoch, 1)).permutation(order)
        if not len(order):
            return []
        # A window belongs to the pool in which it begins.
        begins = np.cumsum(self.windows.n_bytes[order]) - self.windows.n_bytes[order]
        full = begins // max(1, self.windows.pool_bytes)
        return [part.tolist() for part in np.split(order, np.flatnonzero(np.diff(full)) + 1)]

    def _plan(self, epoch: int) -> list[NDArray[np.int64]]:
        random = np.random.default_rng((self.seed, epoch))
        batches: list[NDArray[np.int64]] = []
        for pool in self.pools(epoch):
            sentences = np.concatenate([self._sentences[window] for window in pool])
            batches.extend(self._plan_pool(sentences, random))
        return batches


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
        self._here: dict[int, tuple[list[int], list[tuple[int, Array]]]] = {}

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
            begins, parts = self._here.setdefault(region.shard, ([], []))
            at = bisect.bisect(begins, region.first)
            begins.insert(at, region.first)
            parts.insert(at, (region.stop, values))

    def rows(self, shard: int, start: int, stop: int) -> Array | None:
        """Return rows of a shard's values, or None if they are not in the current pool."""
        begins, parts = self._here.get(shard, ((), ()))
        at = bisect.bisect(begins, start) - 1
        if at < 0 or parts[at][0] < stop:
            return None
        return parts[at][1][start - begins[at] : stop - begins[at]]


class _Pool(NamedTuple):
    room: mmap.mmap
    values: list[tuple[Region, Array]]


def _read_pool(windows: Windows, pool: Sequence[int], room: mmap.mmap | None) -> _Pool:
    """Read windows into one block of memory, each aligned to blocks at both ends."""
    # In the order of the disk, for spinning ones.
    regions = sorted(windows.regions[window] for window in pool)
    shards = windows.store.manifest.shards
    sizes = [
        shards[region.shard].extents["values"].rows(region.first, region.stop)[1]
        for region in regions
        if region.shard >= 0
    ]
    needed = sum(-(-size // _BLOCK) * _BLOCK + 2 * _BLOCK for size in sizes)
    if room is None or len(room) < needed:
        room = mmap.mmap(-1, max(needed, windows.pool_bytes, 1))
    position, values = 0, []
    for region in regions:
        if region.shard < 0:
            continue
        entry = shards[region.shard]
        extent = entry.extents["values"]
        start, n_bytes = extent.rows(region.first, region.stop)
        lead = start % _BLOCK
        room_bytes = -(-(lead + n_bytes) // _BLOCK) * _BLOCK
        into = memoryview(room)[position : position + room_bytes]
        _read_into(into, windows.store.location / SHARDS / entry.name, start - lead, lead + n_bytes)
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
