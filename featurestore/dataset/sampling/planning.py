"""The plan of all epochs: which batches each has, pool after pool, and how many, which is always the same."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import xxhash
from numpy.typing import NDArray

from featurestore.dataset.sampling.dealing import flights, side_by_side
from featurestore.dataset.sampling.drawing import Key
from featurestore.dataset.sampling.packing import (
    QUANTUM,
    Budget,
    Indices,
    cut,
    cut_groups,
    split_groups_to,
    split_to,
)
from featurestore.dataset.sampling.pools import POOL_SENTENCES, Pools

_SAMPLED_POOLS = 16
_SAMPLED_EPOCH = 1 << 40
"""An epoch that nobody comes to, whose pools show how many batches others need."""

_CHUNK = 1 << 22


@dataclass(frozen=True)
class PlannedPool:
    """The batches of a pool in the order of the epoch; how many, and what of the budget, end with them.

    ``n_pools`` pools were planned together: several where each process reads pools of its own.
    """

    batches: list[Indices]
    stop: int
    quanta: int
    n_pools: int = 1

    @cached_property
    def digest(self) -> str:
        """A hash of the batches, their order and the order of their sentences."""
        hashed = xxhash.xxh3_64(np.array([len(batch) for batch in self.batches], "<i8").tobytes())
        for batch in self.batches:
            hashed.update(batch.astype("<i8").tobytes())
        return hashed.hexdigest()


class Plan:
    """What the batches of every epoch are.

    A pure function of the arguments, of which any pool can be had without those before it. Every epoch has
    the same number of batches: where pools are drawn anew, how many they need varies a little, and some are
    split to reach a number that leaves room for that.

    Parameters
    ----------
    lengths : (n,) int
        Tokens of each sentence.
    pools : Pools
    budget : Budget
    seed : int
    by_length : bool
        Whether sentences of like length make up a batch, or consecutive ones.
    shuffle, drop_last : bool
    groups : (n_groups,) int64, optional
        The first sentence of each group that stays together.
    weights : (n,) float64, optional
        Of the sentences, where pools are drawn in proportion to them.
    ascending : bool
        Leave the batches in the order of their lengths.
    endless : bool
        Whether an epoch's first batches may come in one step with the last ones of the epoch before.
    """

    def __init__(
        self,
        lengths: NDArray[np.integer],
        pools: Pools,
        budget: Budget,
        seed: int,
        *,
        by_length: bool,
        shuffle: bool,
        drop_last: bool,
        groups: Indices | None = None,
        weights: NDArray[np.float64] | None = None,
        ascending: bool = False,
        endless: bool = False,
    ) -> None:
        self.lengths, self.pools, self.budget, self.seed = lengths, pools, budget, seed
        self.by_length, self.shuffle, self.drop_last = by_length, shuffle, drop_last
        self._group_of = None if groups is None else partial(_group_numbers, groups)
        self._weights = weights
        self._ascending, self._endless = ascending, endless
        self._recent: dict[tuple[int, ...], PlannedPool] = {}
        self._n_batches: int | None = None
        self._all_quanta: int | None = None

    @property
    def n_batches(self) -> int:
        """Of each epoch."""
        if self._n_batches is None:
            self._n_batches = self._counted()
        return self._n_batches

    def pool(
        self, epoch: int, number: int, before: int, quanta: int, flight: int, shift: int = 0
    ) -> PlannedPool:
        """Return the batches of a pool, or of those that are planned together with it.

        Parameters
        ----------
        epoch, number : int
        before, quanta : int
            Batches of the pools before it, and what of the budget their sentences take.
        flight : int
            Processes that the epoch is for.
        shift : int
            Where each process reads pools of its own: the one that the first batch is for.
        """
        place = (epoch, number, before, quanta, flight, shift)
        planned = self._recent.pop(place, None)
        if planned is None:
            planned = self._planned(*place)
            while len(self._recent) > 2:
                del self._recent[next(iter(self._recent))]
        self._recent[place] = planned
        return planned

    def _planned(
        self, epoch: int, number: int, before: int, quanta: int, flight: int, shift: int
    ) -> PlannedPool:
        key = Key(self.seed, epoch, number + 1, 1)
        if flight > 1 and self.pools.apart:
            return self._planned_together(epoch, number, before, quanta, flight, shift, key)
        batches, quanta = self._made(epoch, number, before, quanta)
        if self.shuffle and not self._ascending:
            offset = before + epoch * self.n_batches if self._endless else before
            batches = flights(batches, self.lengths, flight, offset, key)
        batches = batches[: self._most_after(before)]
        return PlannedPool(batches, before + len(batches), quanta)

    def _planned_together(
        self, epoch: int, number: int, before: int, quanta: int, flight: int, shift: int, key: Key
    ) -> PlannedPool:
        """Return the batches of as many pools as there are processes, each process's out of one of them."""
        parts: list[list[Indices]] = []
        for each in range(number, min(number + flight, self.pools.count(epoch))):
            batches, quanta = self._made(epoch, each, before, quanta)
            parts.append(batches[: self._most_after(before)])
            before += len(parts[-1])
        together = side_by_side(parts, self.lengths, flight, shift, key if self.shuffle else None)
        return PlannedPool(together, before, quanta, len(parts))

    def _made(self, epoch: int, number: int, before: int, quanta: int) -> tuple[list[Indices], int]:
        """Return the batches of a pool, in no order of theirs, and what of the budget ends with them."""
        sentences = self.pools.sentences(epoch, number)
        batches = self._cut(epoch, number, sentences, self.budget)
        if self.pools.vary:
            quanta += self._quanta(sentences)
            batches = self._as_many_as_wanted(epoch, number, before, quanta, sentences, batches)
        return batches, quanta

    def _most_after(self, before: int) -> int | None:
        """Return how many batches may follow the ``before`` first ones; None for all there are."""
        if self.pools.vary and (self.drop_last or self._weights is not None):
            return max(0, self.n_batches - before)
        return None

    def split(self, batches: Iterable[Indices], wanted: int) -> list[Indices]:
        """Split batches until there are as many as wanted, between groups where there are groups."""
        if self._group_of is None:
            return split_to(batches, wanted)
        return split_groups_to(batches, wanted, self._group_of)

    def _as_many_as_wanted(
        self, epoch: int, number: int, before: int, quanta: int, sentences: Indices, batches: list[Indices]
    ) -> list[Indices]:
        """Return the batches of a pool, split so that in the end all epochs have equally many batches."""
        n_pools_after = self.pools.count(epoch) - number - 1
        n_after = self.pools.n_after(epoch, number)
        wanted = most = self.n_batches - before
        if n_pools_after:
            done, of_all = quanta, self._quanta_of_all()
            if self._weights is not None:  # what all draws of an epoch take is not known before
                done, of_all = len(self.lengths) - n_after, len(self.lengths)
                n_after = n_after * 3 // 4
            on_the_way = self.n_batches * done // max(1, of_all) - self._reserve
            wanted = max(on_the_way, self.n_batches - n_after) - before
            most -= n_pools_after + n_after // POOL_SENTENCES
        budget = self.budget
        may_drop = self.drop_last or self._weights is not None
        longest = int(self.lengths[sentences].max(initial=0))
        while len(batches) > most and not may_drop and not budget.fits(longest, len(sentences)):
            # Hardly ever: this epoch needs more batches than epochs were expected to need at most.
            budget = budget.enlarged()
            batches = self._cut(epoch, number, sentences, budget)
        return self.split(batches, wanted)

    def _cut(self, epoch: int, number: int, sentences: Indices, budget: Budget) -> list[Indices]:
        """Return the batches of a pool as they are before their number and order is settled."""
        if self._group_of is not None:
            starts = np.flatnonzero(np.diff(self._group_of(sentences), prepend=-1))
            lengths = self.lengths[sentences].astype(np.int64)
            cuts = cut_groups(lengths, starts, budget, by_length=self.by_length)
            return [sentences[piece] for piece in cuts]
        if self.shuffle and not self.pools.drawn:
            sentences = sentences[Key(self.seed, epoch, number + 1, 0).order(len(sentences))]
        batches: list[Indices] = []
        for start in range(0, len(sentences), POOL_SENTENCES):
            part = sentences[start : start + POOL_SENTENCES]
            if self.by_length:
                part = part[_ascending(self.lengths[part])]
            lengths = self.lengths[part].astype(np.int64)
            pieces = cut(lengths, budget, ascending=self.by_length, full_only=self.drop_last)
            batches.extend(part[piece] for piece in pieces)
        return batches

    @property
    def _reserve(self) -> int:
        """Batches that are kept back for the last pool, and those an epoch may need beyond the mean."""
        n_pools = self.pools.count(_SAMPLED_EPOCH)
        more = 2 * math.isqrt(n_pools)
        if self._weights is not None:
            more = (more if n_pools > 1 else 0) + math.ceil(self._spread)
        # Bounded, so that the last pool can be split into that many more.
        return min(1 + more, 1 + len(self.lengths) // n_pools // 4)

    def _counted(self) -> int:
        epoch, n_pools = _SAMPLED_EPOCH, self.pools.count(_SAMPLED_EPOCH)
        if not self.pools.vary:
            return sum(len(self._cut(epoch, i, self.pools.sentences(epoch, i), self.budget))
                       for i in range(n_pools))  # fmt: skip
        sampled = [self.pools.sentences(epoch, i * n_pools // min(n_pools, _SAMPLED_POOLS))
                   for i in range(min(n_pools, _SAMPLED_POOLS))]  # fmt: skip
        counts = [len(self._cut(epoch, i, part, self.budget)) for i, part in enumerate(sampled)]
        quanta = [self._quanta(part) for part in sampled]
        expected = self._quanta_of_all() * sum(counts) / max(1, sum(quanta))
        margin = 0.0
        if n_pools > len(sampled):
            rates = np.array(counts) / np.array(quanta)
            margin = 3 * float(rates.std() / rates.mean()) / math.sqrt(len(sampled)) if rates.any() else 0.0
        if self.drop_last:
            return max(0, math.floor(expected * (1 - margin)) - self._reserve)
        n_batches = min(len(self.lengths), math.ceil(expected * (1 + margin)) + self._reserve)
        if 5 * n_batches > 4 * len(self.lengths) and self._group_of is None:
            # Nearly all have one sentence. If all have, no epoch ends in batches that others could split.
            return len(self.lengths)
        return n_batches

    def _quanta(self, sentences: Indices) -> int:
        return int(self.budget.quanta(self.lengths[sentences]).sum())

    @cached_property
    def _quanta_by_weight(self) -> tuple[float, float]:
        """Mean and standard deviation of what a draw takes of the budget."""
        quanta, weights = self.budget.quanta(self.lengths), self._weights
        mean = float(np.average(quanta, weights=weights))
        return mean, math.sqrt(np.average((quanta - mean) ** 2, weights=weights))

    @property
    def _spread(self) -> float:
        """Batches by which an epoch of draws exceeds the mean one in 30,000 times."""
        return 4 * math.sqrt(len(self.lengths)) * self._quanta_by_weight[1] / QUANTUM

    def _quanta_of_all(self) -> int:
        if self._weights is not None:
            return round(len(self.lengths) * self._quanta_by_weight[0])
        if self._all_quanta is None:
            total = 0
            for start in range(0, len(self.lengths), _CHUNK):
                chunk = self.lengths[start : start + _CHUNK]
                if int(chunk.max()) < _CHUNK:  # to be counted by length costs less than as many divisions
                    counts = np.bincount(chunk)
                    total += int(counts @ self.budget.quanta(np.arange(len(counts))))
                else:
                    total += int(self.budget.quanta(chunk).sum())
            self._all_quanta = total
        return self._all_quanta


def _group_numbers(groups: Indices, sentences: Indices) -> Indices:
    """Return the number of the group that each sentence is in, from 1."""
    return np.searchsorted(groups, sentences, side="right")


def _ascending(lengths: NDArray[np.integer]) -> Indices:
    """Return the order of ascending lengths, equal ones as they follow each other."""
    if int(lengths.max(initial=0)) < 1 << 16:
        lengths = lengths.astype(np.uint16)  # sorted by digits, several times as fast
    order: Indices = np.argsort(lengths, kind="stable")
    return order
