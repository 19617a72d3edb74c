"""Batch sampling by length: sentences of like length share a batch, under a token budget."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from featurestore.errors import UsageError

_POOL_SENTENCES = 8192
"""Sentences sorted by length together: large enough that batches hardly pad, small enough to stay random."""


class BucketBatchSampler(Sampler[list[int]]):
    """Batches of sentences of like length.

    The batches of an epoch are a pure function of the lengths, the settings, the seed and the epoch. Each
    pass moves on to the next epoch; :meth:`set_epoch` goes to a given one.

    Parameters
    ----------
    lengths : (n,) int
        Tokens of each sentence.
    token_budget : int
        Padded tokens a batch may hold: sentences times the longest of them. A sentence that is longer gets
        a batch of its own.
    max_sentences : int, optional
        Sentences a batch may hold.
    shuffle : bool
        Shuffle sentences and batches; else batches come in ascending length within consecutive pools.
    seed : int
    drop_last : bool
        Leave out the batches that end a pool early.

    Attributes
    ----------
    epoch : int
        Of the next pass.
    """

    def __init__(
        self,
        lengths: Sequence[int] | NDArray[np.integer],
        *,
        token_budget: int = 2048,
        max_sentences: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
    ) -> None:
        if token_budget < 1 or (max_sentences is not None and max_sentences < 1):
            raise UsageError(
                f"token_budget={token_budget}, max_sentences={max_sentences}: both must be at least 1"
            )
        self.lengths = np.asarray(lengths, np.int64)
        self.token_budget, self.max_sentences = token_budget, max_sentences
        self.shuffle, self.seed, self.drop_last = shuffle, seed, drop_last
        self.epoch = 0
        self._planned: tuple[int, list[NDArray[np.int64]]] | None = None

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next pass."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.batches(self.epoch))

    def __iter__(self) -> Iterator[list[int]]:
        batches = self.batches(self.epoch)
        self.epoch += 1
        for batch in batches:
            yield batch.tolist()

    def batches(self, epoch: int) -> list[NDArray[np.int64]]:
        """Return the batches of an epoch, each an array of positions."""
        if self._planned is None or self._planned[0] != epoch:
            self._planned = epoch, self._plan(epoch)
        return self._planned[1]

    def padding(self, epoch: int = 0) -> float:
        """Return the padded positions of an epoch's batches per token, 0 for none."""
        batches = self.batches(epoch)
        padded = sum(len(batch) * int(self.lengths[batch].max()) for batch in batches)
        tokens = sum(int(self.lengths[batch].sum()) for batch in batches)
        return padded / tokens - 1 if tokens else 0.0

    def _plan(self, epoch: int) -> list[NDArray[np.int64]]:
        return self._plan_pool(np.arange(len(self.lengths)), np.random.default_rng((self.seed, epoch)))

    def _plan_pool(
        self, sentences: NDArray[np.int64], random: np.random.Generator
    ) -> list[NDArray[np.int64]]:
        """Return the batches of some sentences, shuffled among each other."""
        order = random.permutation(sentences) if self.shuffle else sentences
        batches: list[NDArray[np.int64]] = []
        for start in range(0, len(order), _POOL_SENTENCES):
            pool = order[start : start + _POOL_SENTENCES]
            pool = pool[np.argsort(self.lengths[pool], kind="stable")]
            batches.extend(self._split(pool))
        if self.shuffle:
            batches = [batches[i] for i in random.permutation(len(batches))]
        return batches

    def _split(self, pool: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        """Cut sentences in ascending length into batches under the budget."""
        lengths = self.lengths[pool]
        most = len(pool) if self.max_sentences is None else self.max_sentences
        start = 0
        while start < len(pool):
            candidates = lengths[start : start + most]
            padded = candidates * np.arange(1, len(candidates) + 1)
            fitting = max(1, int(np.searchsorted(padded, self.token_budget, side="right")))
            ends_early = fitting < most and padded[-1] < self.token_budget
            if not (self.drop_last and ends_early and start > 0):
                yield pool[start : start + fitting]
            start += fitting
