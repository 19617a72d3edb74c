"""Batch sampling by length: sentences of similar length share a batch, under a token budget."""

from __future__ import annotations

import logging
import operator
from collections.abc import Iterator, Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from featurestore.errors import UsageError

logger = logging.getLogger(__name__)

Order = Literal["length", "corpus"]

_POOL_SENTENCES = 8192
"""Sentences sorted by length together: enough that batches hardly pad, few enough to stay random."""


class BucketBatchSampler(Sampler[list[int]]):
    """Batches of sentences of similar length.

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
    shuffle : bool, optional
        Shuffle sentences and batches. Otherwise batches come in ascending length within consecutive pools of
        8,192 sentences, which is not the order of the corpus. By default on, except for ``order="corpus"``.
    order : {"length", "corpus"}
        What a batch is made of: sentences of similar length, or consecutive ones of the corpus. The second
        pads more, and results need not be put back (:meth:`FeatureBatch.restore
        <featurestore.dataset.batch.FeatureBatch.restore>`).
    seed : int
        At least 0.
    drop_last : bool
        Drop the last batch of a pool unless it is full. A dataset that does not fill one batch then gives
        none.
    num_replicas, rank : int
        As for torch's ``DistributedSampler``: the number of processes that train together, and the number of
        this one, from 0. All plan the same epoch from the same seed, and each takes every
        ``num_replicas``-th batch. All get the same number of batches: a few are split in two for that. With
        ``drop_last``, or where every batch has one sentence, the last ones are dropped instead.

    Attributes
    ----------
    epoch : int
        Of the next pass.

    Raises
    ------
    UsageError
        If a number is not an integer, or too small or large, or corpus order is to be shuffled.
    """

    def __init__(
        self,
        lengths: Sequence[int] | NDArray[np.integer],
        *,
        token_budget: int = 2048,
        max_sentences: int | None = None,
        shuffle: bool | None = None,
        order: Order = "length",
        seed: int = 0,
        drop_last: bool = False,
        num_replicas: int = 1,
        rank: int = 0,
    ) -> None:
        self.lengths = np.asarray(lengths, np.int64)
        self.token_budget = _integer("token_budget", token_budget, 1)
        self.max_sentences = None if max_sentences is None else _integer("max_sentences", max_sentences, 1)
        if order not in get_args(Order):
            raise UsageError(f"order={order!r}: expected 'length' or 'corpus'")
        if shuffle and order == "corpus":
            raise UsageError("order='corpus' is the order of the corpus: leave out shuffle=True")
        self.order = order
        self.shuffle = order != "corpus" if shuffle is None else shuffle
        self.seed, self.drop_last = _integer("seed", seed, 0), drop_last
        self.num_replicas = _integer("num_replicas", num_replicas, 1)
        self.rank = _integer("rank", rank, 0)
        if self.rank >= self.num_replicas:
            raise UsageError(
                f"rank={rank}: must be less than num_replicas={num_replicas}; ranks are counted from 0"
            )
        self.epoch = 0
        self._planned: tuple[int, list[NDArray[np.int64]]] | None = None

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next pass, at least 0."""
        self.epoch = _integer("epoch", epoch, 0)

    def __len__(self) -> int:
        return len(self.batches(self.epoch))

    def __iter__(self) -> Iterator[list[int]]:
        batches = self.batches(self.epoch)
        self.epoch += 1
        for batch in batches:
            yield batch.tolist()

    def batches(self, epoch: int) -> list[NDArray[np.int64]]:
        """Return the batches of an epoch (of this rank), each an array of positions."""
        planned = self._planned
        if planned is None or planned[0] != epoch:
            planned = self._planned = epoch, self._share(self._plan(epoch))
            if len(self.lengths) and not planned[1]:
                logger.warning(
                    "%d sentences give no batch (drop_last=%s, num_replicas=%d): sentences that do not fill "
                    "one batch, or one for each rank, are dropped",
                    len(self.lengths), self.drop_last, self.num_replicas,
                )  # fmt: skip
        return planned[1]

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
        """Return the batches of some sentences, in shuffled order."""
        order = random.permutation(sentences) if self.shuffle else sentences
        batches: list[NDArray[np.int64]] = []
        for start in range(0, len(order), _POOL_SENTENCES):
            pool = order[start : start + _POOL_SENTENCES]
            if self.order == "length":
                pool = pool[np.argsort(self.lengths[pool], kind="stable")]
            batches.extend(self._split(pool))
        if self.shuffle:
            batches = [batches[i] for i in random.permutation(len(batches))]
        return batches

    def _split(self, pool: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        """Cut sentences into batches under the budget, in their order."""
        lengths = self.lengths[pool]
        most = len(pool) if self.max_sentences is None else self.max_sentences
        start = 0
        while start < len(pool):
            candidates = lengths[start : start + most]
            if self.order == "corpus":
                candidates = np.maximum.accumulate(candidates)
            padded = candidates * np.arange(1, len(candidates) + 1)
            fitting = max(1, int(np.searchsorted(padded, self.token_budget, side="right")))
            stop = start + fitting
            one_more = (fitting + 1) * candidates[fitting - 1]
            full = fitting == self.max_sentences or one_more > self.token_budget
            if full or stop < len(pool) or not self.drop_last:
                yield pool[start:stop]
            start = stop

    def _share(self, batches: list[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
        """Return the batches of this rank."""
        while len(batches) % self.num_replicas and not self.drop_last:
            largest = max(range(len(batches)), key=lambda i: len(batches[i]))
            if len(batches[largest]) == 1:
                break
            batches[largest : largest + 1] = np.array_split(batches[largest], 2)
        shared = len(batches) - len(batches) % self.num_replicas
        return batches[self.rank : shared : self.num_replicas]


def _integer(name: str, given: object, least: int) -> int:
    try:
        number = operator.index(given)  # type: ignore[arg-type]
    except TypeError:
        number = least - 1
    if number < least:
        raise UsageError(f"{name}={given!r}: must be at least {least}, an integer")
    return number
