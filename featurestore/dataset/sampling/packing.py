"""Sentences cut into batches under a budget of padded tokens, and batches cut into smaller ones."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]

QUANTUM = 1 << 32
"""A whole batch, in the integers that add up what sentences take of one."""


@dataclass(frozen=True)
class Budget:
    """What a batch may hold.

    Attributes
    ----------
    tokens : int
        With padding: sentences times the longest of them; a longer sentence has a batch of its own.
    sentences : int, optional
    """

    tokens: int
    sentences: int | None = None

    def fitting(self, lengths: NDArray[np.integer]) -> Indices:
        """Return how many sentences of each length fill a batch."""
        fitting: Indices = np.maximum(1, self.tokens // np.maximum(1, lengths.astype(np.int64)))
        return fitting if self.sentences is None else np.minimum(fitting, self.sentences)

    def quanta(self, lengths: NDArray[np.integer]) -> Indices:
        """Return what a sentence of each length takes of a batch, in parts of :data:`QUANTUM`."""
        quanta: Indices = QUANTUM // self.fitting(lengths)
        return quanta

    def holds(self, lengths: NDArray[np.integer]) -> bool:
        """Return whether sentences of these lengths make one batch."""
        padded = len(lengths) * int(lengths.max(initial=0))
        return padded <= self.tokens and (self.sentences is None or len(lengths) <= self.sentences)

    def enlarged(self) -> Budget:
        """Return the next larger budget, by a sixty-fourth."""
        sentences = None if self.sentences is None else self.sentences + max(1, self.sentences // 64)
        return replace(self, tokens=self.tokens + max(1, self.tokens // 64), sentences=sentences)


def cut(lengths: Indices, budget: Budget, *, ascending: bool, full_only: bool) -> list[slice]:
    """Cut sentences into batches, as they follow each other.

    Parameters
    ----------
    lengths : (n,) int64
        Of the sentences, in their order.
    budget : Budget
    ascending : bool
        Whether lengths ascend.
    full_only : bool
        Leave the last batch out unless nothing more would fit.
    """
    batches = []
    most = len(lengths) if budget.sentences is None else budget.sentences
    start = 0
    while start < len(lengths):
        candidates = lengths[start : start + most]
        if not ascending:
            candidates = np.maximum.accumulate(candidates)
        padded = candidates * np.arange(1, len(candidates) + 1)
        fitting = max(1, int(np.searchsorted(padded, budget.tokens, side="right")))
        stop = start + fitting
        one_more = (fitting + 1) * candidates[fitting - 1]
        full = fitting == budget.sentences or one_more > budget.tokens
        if full or stop < len(lengths) or not full_only:
            batches.append(slice(start, stop))
        start = stop
    return batches


def split_to(batches: Iterable[Indices], wanted: int) -> list[Indices]:
    """Halve the batches of most sentences until there are as many as wanted, or each has one sentence."""
    heap = [(-len(batch), number, batch) for number, batch in enumerate(batches)]
    heapq.heapify(heap)
    number = len(heap)
    while 0 < len(heap) < wanted and heap[0][0] < -1:
        _, first, largest = heap[0]
        half = -(-len(largest) // 2)
        heapq.heapreplace(heap, (-half, first, largest[:half]))
        heapq.heappush(heap, (half - len(largest), number, largest[half:]))
        number += 1
    # By the number of the batch they were cut from: those that were not keep their order.
    return [batch for _, _, batch in sorted(heap, key=lambda entry: entry[1])]


def costs_of(batches: Sequence[Indices], lengths: NDArray[np.integer]) -> Indices:
    """Return the padded tokens of each batch: (n,) int64."""
    return np.array([len(batch) * int(lengths[batch].max()) for batch in batches], np.int64)
