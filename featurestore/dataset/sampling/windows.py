"""Windows: reading a store larger than memory in large pieces, and shuffling within several of them.

Reading sentences at random costs a disk access each. Instead the shards are cut into windows of some
megabytes. An epoch takes the windows in random order, several at a time (a pool), and shuffles and buckets
the sentences of a pool together. While one pool is served, a thread reads the next one past the page cache,
so that nothing else is evicted from it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from featurestore.dataset.sampling.drawing import Key
from featurestore.dataset.sampling.packing import Indices
from featurestore.dataset.sampling.passes import Place
from featurestore.dataset.sampling.pools import POOL_SENTENCES, Pools
from featurestore.dataset.sampling.sampler import BucketBatchSampler
from featurestore.errors import UsageError
from featurestore.store.store import Store

_WINDOW_BYTES = 8 << 20
_WINDOWS_A_POOL = 8
"""Lower bound on windows per pool: fewer shuffle worse."""

_GAP_BYTES = 256 << 10
"""A longer stretch of unused bytes ends a window: reading it would cost more than another read."""


class Region(NamedTuple):
    """Rows of a shard's values: a window, or what other stores hold of its sentences."""

    shard: int
    first: int
    stop: int
    store: int = 0


class Located(NamedTuple):
    """A further store, and where the sentences lie in it: ``shard``, ``row`` (n,) int64, -1 for none."""

    store: Store
    shard: NDArray[np.int64]
    row: NDArray[np.int64]


class Windows:
    """A dataset's sentences cut into windows.

    Parameters
    ----------
    store : Store
    shard, row, lengths : (n,) int
        Of each sentence; one with a shard of -1 has no bytes, and its window is not read.
    memory : int
        Bytes for two pools: the one that is served and the one that is read.
    beside : sequence of Located
        Further stores. Windows are stretches of the first store, and what these hold of the same sentences is
        read with them: in as few pieces as their order allows.

    Attributes
    ----------
    stores : list of Store
        The first, then the further ones.
    of : (n,) int64
        The window of each sentence.
    regions : list of Region
        Of the first store, one for each window.
    beside : list of list of Region
        Of the further stores, for each window.
    n_bytes : (n_windows,) int64
        To be read of all stores for each window.
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
        beside: Sequence[Located] = (),
    ) -> None:
        self.stores, self.pool_bytes = [store, *(further.store for further in beside)], memory // 2
        first, row_bytes = _extents(store, shard, row)
        further = [_extents(*one) for one in beside]
        window_bytes = max(1, min(_WINDOW_BYTES, self.pool_bytes // _WINDOWS_A_POOL))
        if further:
            own, others = (int(lengths @ widths) for widths in (row_bytes, sum(w for _, w in further)))
            window_bytes = max(1, window_bytes * own // max(1, own + others))
        absent = shard < 0
        first[absent] = np.cumsum(lengths[absent]) - lengths[absent]
        # What the first store does not hold takes no bytes of it, but its windows may not grow for that.
        row_bytes[absent] = sum((widths[absent] for _, widths in further), np.int64(1))
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
        self.n_bytes = (tops - begins[heads]) * np.where(number[heads] < 0, 1, width[heads])
        self.beside: list[list[Region]] = [[] for _ in self.regions]
        for position, ((_, shards, _), (begin, widths)) in enumerate(zip(beside, further, strict=True)):
            self._add(position + 1, shards, begin, begin + lengths, widths)

    def _add(
        self,
        store: int,
        shard: NDArray[np.int64],
        first: NDArray[np.int64],
        stop: NDArray[np.int64],
        row_bytes: NDArray[np.int64],
    ) -> None:
        """Add the regions that a further store holds of each window's sentences."""
        held = np.flatnonzero(shard >= 0)
        order = held[np.lexsort((first[held], shard[held], self.of[held]))]
        if not len(order):
            return
        window, number, begins, ends, width = (a[order] for a in (self.of, shard, first, stop, row_bytes))
        # Gaps are read over if they are no longer than what follows: stores whose order is another one then
        # take at most twice their bytes.
        new = np.ones(len(order), bool)
        new[1:] = (window[1:] != window[:-1]) | (number[1:] != number[:-1])
        gap = (begins[1:] - ends[:-1]) * width[1:]
        new[1:] |= gap > np.minimum(_GAP_BYTES, (ends[1:] - begins[1:]) * width[1:])
        heads = np.flatnonzero(new)
        tops = np.maximum.reduceat(ends, heads)
        np.add.at(self.n_bytes, window[heads], (tops - begins[heads]) * width[heads])
        places = (window[heads].tolist(), number[heads].tolist(), begins[heads].tolist(), tops.tolist())
        for at, in_shard, begin, top in zip(*places, strict=True):
            self.beside[at].append(Region(in_shard, begin, top, store))

    def regions_of(self, windows: Sequence[int]) -> list[Region]:
        """Return what is read for some windows, of each store and shard in the order of the disk.

        What regions of further stores have in common is read once.
        """
        regions = [self.regions[window] for window in windows if self.regions[window].shard >= 0]
        regions += [region for window in windows for region in self.beside[window]]
        merged: list[Region] = []
        for region in sorted(regions, key=lambda region: (region.store, *region)):
            last = merged[-1] if merged else None
            if last and (last.store, last.shard) == (region.store, region.shard) and region.first < last.stop:
                merged[-1] = last._replace(stop=max(last.stop, region.stop))
            else:
                merged.append(region)
        return merged


def _extents(
    store: Store, shard: NDArray[np.int64], row: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first row of each sentence's values in its shard, and their bytes a row; 0 for none."""
    first, row_bytes = np.zeros(len(shard), np.int64), np.zeros(len(shard), np.int64)
    for number in np.unique(shard[shard >= 0]).tolist():
        here = shard == number
        first[here] = store.reader(number).offsets[row[here]]
        row_bytes[here] = store.manifest.shards[number].extents["values"].row_bytes
    return first, row_bytes


class WindowPools:
    """Pools of windows, in random order or as they lie; otherwise as ``sampling.pools.Pools``.

    Each of several processes reads pools of its own.

    Parameters
    ----------
    windows : Windows
    seed : int
    shuffle : bool
    """

    def __init__(self, windows: Windows, seed: int, *, shuffle: bool) -> None:
        self._windows, self._seed, self._shuffle = windows, seed, shuffle
        self._by_window = np.argsort(windows.of, kind="stable")
        edges = np.searchsorted(windows.of[self._by_window], np.arange(len(windows.regions) + 1))
        self._edges: Indices = edges.astype(np.int64)
        n_bytes = int(windows.n_bytes.sum())
        self._n_pools = max(1, -(-n_bytes // max(1, windows.pool_bytes)))
        self._recent: dict[int, _Drawn] = {}

    @property
    def vary(self) -> bool:
        """Whether the lengths that meet in a pool differ from epoch to epoch."""
        return self._shuffle and (self._n_pools > 1 or len(self._by_window) > POOL_SENTENCES)

    @property
    def drawn(self) -> bool:
        """Whether the sentences of a pool come in random order; here they come as they lie."""
        return False

    @property
    def apart(self) -> bool:
        """See ``sampling.pools.Pools``."""
        return True

    def windows(self, epoch: int) -> list[Indices]:
        """Return the windows of each pool."""
        return self._drawn(epoch).pools

    def count(self, epoch: int) -> int:
        """Return the number of pools."""
        return len(self.windows(epoch))

    def sentences(self, epoch: int, pool: int) -> Indices:
        """Return the sentences of a pool."""
        windows = self.windows(epoch)[pool].tolist()
        return np.concatenate([self._by_window[self._edges[w] : self._edges[w + 1]] for w in windows])

    def n_after(self, epoch: int, pool: int) -> int:
        """Return how many sentences the pools after one have together."""
        return self._drawn(epoch).n_after[pool]

    def _drawn(self, epoch: int) -> _Drawn:
        drawn = self._recent.get(epoch)
        if drawn is None:
            n = len(self._windows.regions)
            order = Key(self._seed, epoch, 0).order(n) if self._shuffle else np.arange(n)
            sizes = self._windows.n_bytes[order]
            # A window belongs to the pool in which it begins; all pools are of one size.
            pool = (np.cumsum(sizes) - sizes) * self._n_pools // max(1, int(sizes.sum()))
            pools = np.split(order, np.flatnonzero(np.diff(pool)) + 1) if n else []
            counts = [int((self._edges[part + 1] - self._edges[part]).sum()) for part in pools]
            n_after = list(itertools.accumulate(reversed(counts), initial=0))[-2::-1]
            while len(self._recent) > 1:
                del self._recent[next(iter(self._recent))]
            drawn = self._recent[epoch] = _Drawn(pools, n_after)
        return drawn


class _Drawn(NamedTuple):
    """The windows of each pool of an epoch, and how many sentences the pools after each have."""

    pools: list[Indices]
    n_after: list[int]


class WindowBatchSampler(BucketBatchSampler):
    """Batches of sentences of similar length, drawn from a few windows at a time.

    The batches of an epoch are a function of the windows too. Several processes go through as many pools at a
    time, and each reads the windows of one; of the few batches that even out what they carry, and of what is
    left of pools that another number of processes began, it reads the sentences alone. Parameters as
    :class:`~featurestore.dataset.sampling.sampler.BucketBatchSampler`, and:

    Parameters
    ----------
    windows : Windows
    on_pool : callable, optional
        Called at the start of each pool of this process with its windows and those of the next one.
    """

    def __init__(
        self,
        lengths: Sequence[int] | NDArray[np.integer],
        windows: Windows,
        *,
        on_pool: Callable[[Sequence[int], Sequence[int]], None] | None = None,
        **options: Any,
    ) -> None:
        self.windows, self.on_pool = windows, on_pool
        super().__init__(lengths, **options)

    def _pools(self) -> Pools:
        if self.weights is not None or self._ascending:
            raise UsageError(
                "windows are read one after the other: weights= and shuffle='by length' need window=None"
            )
        self._window_pools = WindowPools(self.windows, self.seed, shuffle=self.shuffle)
        return self._window_pools

    def pools(self, epoch: int) -> list[list[int]]:
        """Return the windows of each pool of an epoch."""
        return [windows.tolist() for windows in self._window_pools.windows(epoch)]

    def enter_pool(self, place: Place) -> None:
        """Tell who reads the windows."""
        if self.on_pool is None:
            return
        n_processes, rank = self.share
        here = following = self._window_pools.windows(place.epoch)
        first = place.pool + place.n_pools
        if first == len(here):
            # Most likely another pass follows: its first pool is read while the last one of this is served.
            first, following = 0, self._window_pools.windows(place.epoch + 1)
        own = here[place.pool + rank % place.n_pools]
        next_one = following[first + rank % min(n_processes, len(following) - first)]
        self.on_pool(own.tolist(), next_one.tolist())
