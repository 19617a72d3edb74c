"""Sentences cut into batches under a budget of padded tokens, and batches cut into smaller ones."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]

_GROUPS_SORTED = 64
"""Groups sorted by length together: their number is small, and each epoch draws others."""

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

    def fits(self, longest: int, n_sentences: int) -> bool:
        """Return whether ``n_sentences`` sentences of at most ``longest`` tokens are within the budget."""
        within = n_sentences == 1 or longest * n_sentences <= self.tokens
        return within and (self.sentences is None or n_sentences <= self.sentences)

    def fitting(self, lengths: NDArray[np.integer]) -> Indices:
        """Return how many sentences of each length fill a batch."""
        fitting: Indices = np.maximum(1, self.tokens // np.maximum(1, lengths.astype(np.int64)))
        return fitting if self.sentences is None else np.minimum(fitting, self.sentences)

    def quanta(self, lengths: NDArray[np.integer]) -> Indices:
        """Return what a sentence of each length takes of a batch, in parts of :data:`QUANTUM`."""
        quanta: Indices = QUANTUM // self.fitting(lengths)
        return quanta

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
    counts = np.arange(1, len(lengths) + 1)
    start = 0
    while start < len(lengths):
        # As many as fit if all are as long as the first, and one that does not.
        first = int(lengths[start])
        enough = min(most, budget.tokens // first + 1) if first else most
        candidates = lengths[start : start + enough]
        if not ascending:
            candidates = np.maximum.accumulate(candidates)
        padded = candidates * counts[: len(candidates)]
        fitting = max(1, int(padded.searchsorted(budget.tokens, "right")))
        stop = start + fitting
        one_more = (fitting + 1) * int(candidates[fitting - 1])
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


def cut_groups(lengths: Indices, starts: Indices, budget: Budget, *, by_length: bool) -> list[Indices]:
    """Cut sentences into batches that hold whole groups of them.

    A group that is over the budget alone is cut into parts of sentences that follow each other.

    Parameters
    ----------
    lengths : (n,) int64
        Of the sentences, in their order.
    starts : (n_groups,) int64
        The first sentence of each group, ascending from 0.
    budget : Budget
    by_length : bool
        Put groups of like longest sentences together, among each 64 that follow each other.

    Returns
    -------
    list of (size,) int64
        The sentences of each batch.
    """
    ends = np.append(starts[1:], len(lengths))
    longest = np.maximum.reduceat(lengths, starts) if len(starts) else starts
    order = np.arange(len(starts))
    if by_length:
        blocks = [order[at : at + _GROUPS_SORTED] for at in range(0, len(order), _GROUPS_SORTED)]
        order = np.concatenate([block[np.argsort(longest[block], kind="stable")] for block in blocks])
    batches: list[Indices] = []
    waiting: list[Indices] = []
    n_waiting, longest_waiting = 0, 0
    for group in order.tolist():
        sentences = np.arange(starts[group], ends[group])
        together = max(longest_waiting, int(longest[group])), n_waiting + len(sentences)
        if waiting and not budget.fits(*together):
            batches.append(np.concatenate(waiting))
            waiting, together = [], (int(longest[group]), len(sentences))
        if not waiting and not budget.fits(*together):
            pieces = cut(lengths[sentences], budget, ascending=False, full_only=False)
            batches.extend(sentences[piece] for piece in pieces)
            n_waiting, longest_waiting = 0, 0
            continue
        waiting.append(sentences)
        longest_waiting, n_waiting = together
    return [*batches, np.concatenate(waiting)] if waiting else batches


def split_groups_to(
    batches: Iterable[Indices], wanted: int, group_of: Callable[[Indices], Indices]
) -> list[Indices]:
    """Split batches as :func:`split_to` does, but between groups as long as a batch has several.

    Parameters
    ----------
    batches : iterable of arrays
    wanted : int
    group_of : callable
        Returns the number of each sentence's group.
    """
    found = list(batches)
    edges = [np.flatnonzero(np.diff(group_of(batch))) + 1 for batch in found] if len(found) < wanted else []
    while len(found) < wanted:
        parted = [number for number, inner in enumerate(edges) if len(inner)]
        if not parted:
            return split_to(found, wanted)
        number = max(parted, key=lambda i: len(found[i]))
        batch, inner = found[number], edges[number]
        edge = int(inner[np.argmin(np.abs(inner - len(batch) / 2))])
        found[number : number + 1] = [batch[:edge], batch[edge:]]
        edges[number : number + 1] = [inner[inner < edge], inner[inner > edge] - edge]
    return found


def costs_of(batches: Sequence[Indices], lengths: NDArray[np.integer]) -> Indices:
    """Return the padded tokens of each batch: (n,) int64."""
    return np.array([len(batch) * int(lengths[batch].max()) for batch in batches], np.int64)
