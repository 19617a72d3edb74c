"""The layout of a batch: time-major, longest sentence first, so that no step computes padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Packing:
    """Where each token of a batch lies when time steps follow one another without padding.

    With sentences ranked by length, longest first, step ``t`` holds token ``t`` of the first ``counts[t]``
    ranks: the sentences that have one. Walking backward, a row joins when its last token is reached.

    Attributes
    ----------
    ranking : ndarray of int64, shape (n_sentences,)
        Sentence numbers as given, longest first; ties keep their order.
    counts, offsets : list of int, length = longest sentence
        Rows alive at each step, and the packed position of its first row.
    positions : ndarray of int64, shape (n_tokens,)
        For the tokens sentence by sentence as given: their packed positions.
    """

    ranking: NDArray[np.int64]
    counts: list[int]
    offsets: list[int]
    positions: NDArray[np.int64]

    @classmethod
    def of(cls, lengths: Sequence[int]) -> Packing:
        """Lay out sentences of the given lengths, each at least 1."""
        sizes = np.asarray(lengths, dtype=np.int64)
        n_sentences = len(sizes)
        ranking = np.argsort(-sizes, kind="stable")
        rank = np.empty(n_sentences, dtype=np.int64)
        rank[ranking] = np.arange(n_sentences)
        # A sentence of length L is alive at steps 0 .. L-1.
        counts = n_sentences - np.cumsum(np.bincount(sizes))[:-1]
        offsets = np.cumsum(counts) - counts
        starts = np.cumsum(sizes) - sizes
        step = np.arange(int(sizes.sum())) - np.repeat(starts, sizes)
        positions = offsets[step] + np.repeat(rank, sizes)
        return cls(ranking, counts.tolist(), offsets.tolist(), positions)

    def reversal(self) -> NDArray[np.int64]:
        """Return for each packed position that of the same sentence's token as counted from the end.

        Applied twice it gives the first order again; tokens taken in this order are packed too.
        """
        counts = np.asarray(self.counts)
        lengths = np.searchsorted(-counts, -np.arange(self.n_rows))
        rank = np.arange(self.n_tokens) - np.repeat(self.offsets, counts)
        step = np.repeat(np.arange(len(counts)), counts)
        reversed_positions: NDArray[np.int64] = np.asarray(self.offsets)[lengths[rank] - 1 - step] + rank
        return reversed_positions

    @property
    def n_rows(self) -> int:
        """Number of sentences."""
        return len(self.ranking)

    @property
    def longest(self) -> int:
        """Tokens of the longest sentence, 0 where there is none."""
        return len(self.counts)

    @property
    def n_tokens(self) -> int:
        """Number of tokens."""
        return len(self.positions)
