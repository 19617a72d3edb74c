"""Pools: the parts of an epoch that are planned one at a time, so that none needs those before it."""

from __future__ import annotations

from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from featurestore.dataset.sampling.drawing import Key
from featurestore.dataset.sampling.packing import Indices

POOL_SENTENCES = 8192
"""Sentences sorted by length together: enough that batches hardly pad, few enough to stay random."""


_DRAWN_WHOLE = 1 << 18
"""Sentences of which an epoch's order is drawn at once, and kept: more take too long, and too much memory."""


class Pools(Protocol):
    """Where the sentences of an epoch come from."""

    @property
    def vary(self) -> bool:
        """Whether the lengths that meet in a pool differ from epoch to epoch."""

    @property
    def drawn(self) -> bool:
        """Whether the sentences of a pool come in random order, not as they lie."""

    @property
    def apart(self) -> bool:
        """Whether each process reads pools of its own, so that as many as processes are planned together."""

    def count(self, epoch: int) -> int:
        """Return the number of pools of an epoch, 0 for no sentences."""

    def sentences(self, epoch: int, pool: int) -> Indices:
        """Return the sentences of a pool: of all pools of an epoch, each once."""

    def n_after(self, epoch: int, pool: int) -> int:
        """Return how many sentences the pools after one have together."""


class EvenPools:
    """Pools of like size, drawn from all sentences anew each epoch, or consecutive ones.

    Parameters
    ----------
    n_sentences, seed : int
    shuffle : bool
    """

    def __init__(self, n_sentences: int, seed: int, *, shuffle: bool) -> None:
        self._n, self._seed, self._shuffle = n_sentences, seed, shuffle
        self._n_pools = -(-n_sentences // POOL_SENTENCES) if n_sentences else 0
        self._whole: tuple[int, Indices] | None = None

    @property
    def vary(self) -> bool:
        """See :class:`Pools`."""
        return self._shuffle and self._n_pools > 1

    @property
    def drawn(self) -> bool:
        """See :class:`Pools`."""
        return self.vary

    @property
    def apart(self) -> bool:
        """See :class:`Pools`."""
        return False

    def count(self, epoch: int) -> int:
        """See :class:`Pools`."""
        return self._n_pools

    def sentences(self, epoch: int, pool: int) -> Indices:
        """See :class:`Pools`."""
        first, stop = self._edge(pool), self._edge(pool + 1)
        if not self.vary:
            return np.arange(first, stop)
        if self._n > _DRAWN_WHOLE:
            return Key(self._seed, epoch, 0).permuted(np.arange(first, stop), self._n)
        if self._whole is None or self._whole[0] != epoch:
            self._whole = epoch, Key(self._seed, epoch, 0).permuted(np.arange(self._n), self._n)
        return self._whole[1][first:stop]

    def n_after(self, epoch: int, pool: int) -> int:
        """See :class:`Pools`."""
        return self._n - self._edge(pool + 1)

    def _edge(self, pool: int) -> int:
        return self._n * pool // max(1, self._n_pools)


class WeightedPools(EvenPools):
    """Pools of sentences drawn with replacement, as many an epoch as there are sentences.

    Parameters
    ----------
    weights : (n,) float64
        Of the sentences, from 0 to 1; one is drawn in proportion to its weight.
    seed : int
    """

    def __init__(self, weights: NDArray[np.float64], seed: int) -> None:
        super().__init__(len(weights), seed, shuffle=True)
        self._edges = np.cumsum(weights)
        self._last = int(np.flatnonzero(weights)[-1]) if len(weights) else 0

    @property
    def vary(self) -> bool:
        """See :class:`Pools`."""
        return self._n > 0

    def sentences(self, epoch: int, pool: int) -> Indices:
        """Return the sentences of a pool, each as often as it was drawn."""
        hashes = Key(self._seed, epoch, 0).hashes(np.arange(self._edge(pool), self._edge(pool + 1)))
        uniform = (hashes >> np.uint64(11)) * 2.0**-53
        aims: NDArray[np.float64] = uniform * self._edges[-1]
        drawn: Indices = np.searchsorted(self._edges, aims, side="right").astype(np.int64)
        drawn[drawn > self._last] = self._last  # a product may be rounded up to the sum of all
        return drawn


class AscendingPools(EvenPools):
    """Pools that ascend in length over the whole epoch; which of equal length come first is drawn anew.

    Parameters
    ----------
    lengths : (n,) int
    seed : int
    """

    def __init__(self, lengths: NDArray[np.integer], seed: int) -> None:
        super().__init__(len(lengths), seed, shuffle=True)
        self._lengths = lengths

    @property
    def vary(self) -> bool:
        """See :class:`Pools`."""
        return False

    @cached_property
    def _ascending(self) -> Indices:
        order: Indices = np.argsort(self._lengths, kind="stable")
        return order

    @cached_property
    def _ends(self) -> Indices:
        """Where the sentences of each length end."""
        ends: Indices = np.cumsum(np.unique(self._lengths, return_counts=True)[1])
        return ends

    def sentences(self, epoch: int, pool: int) -> Indices:
        """See :class:`Pools`."""
        first, stop = self._edge(pool), self._edge(pool + 1)
        found: Indices = self._ascending[first:stop].copy()
        # Of a length that other pools have too, which of its sentences come here is drawn.
        for length in {int(np.searchsorted(self._ends, at, side="right")) for at in (first, stop - 1)}:
            begin, end = int(self._ends[length - 1]) if length else 0, int(self._ends[length])
            at = np.arange(max(first, begin), min(stop, end))
            drawn = Key(self._seed, epoch, 0, length).permuted(at - begin, end - begin)
            found[at - first] = self._ascending[begin + drawn]
        return found


class GroupPools:
    """Pools of whole groups of sentences that follow each other, drawn from all groups anew each epoch.

    Parameters
    ----------
    starts : (n_groups,) int64
        The first sentence of each group, ascending from 0.
    n_sentences, seed : int
    shuffle : bool
    """

    def __init__(self, starts: Indices, n_sentences: int, seed: int, *, shuffle: bool) -> None:
        self._sizes = np.diff(starts, append=n_sentences)
        self._starts, self._n, self._seed, self._shuffle = starts, n_sentences, seed, shuffle
        self._n_pools = min(len(starts), -(-n_sentences // POOL_SENTENCES))
        self._order_of: tuple[int, Indices] | None = None

    @property
    def vary(self) -> bool:
        """See :class:`Pools`."""
        return self._shuffle and len(self._starts) > 1

    @property
    def drawn(self) -> bool:
        """See :class:`Pools`."""
        return False

    @property
    def apart(self) -> bool:
        """See :class:`Pools`."""
        return False

    def count(self, epoch: int) -> int:
        """See :class:`Pools`."""
        return self._n_pools

    def sentences(self, epoch: int, pool: int) -> Indices:
        """See :class:`Pools`; the sentences of a group follow each other, in their order."""
        groups = self._order(epoch)[self._edge(pool) : self._edge(pool + 1)]
        sizes = self._sizes[groups]
        ends = np.cumsum(sizes)
        within: Indices = np.arange(int(sizes.sum())) - np.repeat(ends - sizes, sizes)
        return within + np.repeat(self._starts[groups], sizes)

    def n_after(self, epoch: int, pool: int) -> int:
        """See :class:`Pools`."""
        return int(self._sizes[self._order(epoch)[self._edge(pool + 1) :]].sum())

    def _order(self, epoch: int) -> Indices:
        if self._order_of is None or self._order_of[0] != epoch:
            n = len(self._starts)
            order = Key(self._seed, epoch, 0).order(n) if self._shuffle else np.arange(n)
            self._order_of = epoch, order
        return self._order_of[1]

    def _edge(self, pool: int) -> int:
        return len(self._starts) * pool // max(1, self._n_pools)
