"""Batch sampling by length: sentences of similar length share a batch, under a token budget."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch.utils.data.distributed import DistributedSampler

from featurestore.dataset.sampling.dealing import Uneven
from featurestore.dataset.sampling.options import (
    as_lengths,
    checked_groups,
    checked_weights,
    given_share,
    number_or_none,
    require_one_of,
    require_together,
    whole_number,
)
from featurestore.dataset.sampling.packing import Budget, Indices
from featurestore.dataset.sampling.passes import (
    Course,
    Deal,
    Dealt,
    Pass,
    Place,
    Position,
    Stepped,
    planned_at,
    start_of,
)
from featurestore.dataset.sampling.planning import Plan
from featurestore.dataset.sampling.pools import AscendingPools, EvenPools, GroupPools, Pools, WeightedPools
from featurestore.dataset.sampling.processes import Share, found_share
from featurestore.dataset.sampling.state import as_state, digest_of, read_state, refuse_batches
from featurestore.errors import UsageError

logger = logging.getLogger(__name__)

Order = Literal["length", "corpus"]
Shuffle = bool | Literal["by length"]
"""Whether and how an epoch is shuffled."""


class BucketBatchSampler(DistributedSampler[list[int]]):
    """Batches of sentences of similar length.

    The batches of an epoch are a pure function of the lengths, the settings, the seed, the epoch and the
    number of processes, which decides their order alone. Every epoch has as many. Each pass moves on to the
    next epoch; :meth:`set_epoch` goes to a given one, :meth:`load_state_dict` to a place within one.

    It counts as a ``DistributedSampler``, of which frameworks know that it shares out by itself.

    Parameters
    ----------
    lengths : (n,) int
        Tokens of each sentence.
    token_budget : int
        Padded tokens a batch may hold: sentences times the longest of them. A sentence that is longer gets
        a batch of its own.
    max_sentences : int, optional
        Sentences a batch may hold.
    shuffle : bool or "by length", optional
        Shuffle sentences and batches. Otherwise batches come in ascending length within consecutive pools of
        8,192 sentences, which is not the order of the corpus. By default on, except for ``order="corpus"``.
        ``"by length"`` gives short sentences first, over the whole epoch (a curriculum), those of one length
        in an order that is drawn anew.
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
        this one, from 0. All plan the same epoch from the same seed, and at each step each takes one of
        batches that cost alike. ``"auto"`` looks both up whenever a pass begins, from torch.distributed or,
        before that is initialised, from ``RANK`` and ``WORLD_SIZE``.
    uneven : {"split", "drop", "pad", "join"}
        What is done with the last batches where they are fewer than the processes: ``"split"`` them in two
        until they are as many, or drop them where each has one sentence; ``"drop"`` them, as ``drop_last``
        does too; ``"pad"`` them with batches that were dealt before (:attr:`repeats` counts those); or let
        the first processes have one more, which takes ``torch.distributed.algorithms.Join``.
    groups : (n_groups,) int, optional
        The first sentence of each group of sentences that stay together, such as a document, ascending from
        0. A batch then holds whole groups, the sentences of each in their order; one that is over the budget
        alone is cut into parts that follow each other, and where an epoch would have too few batches, a few
        groups are parted.
    weights : (n,) float, optional
        Draw sentences with replacement, each in proportion to its weight, at least 0: ``n`` an epoch, in as
        many batches every time. So that these never exceed the budget, the last draws are left out of an
        epoch that is uncommonly long (four standard deviations and more).
    steps_per_epoch : int, optional
        Batches that each process gets in an epoch. The data then go on from epoch to epoch: what one has not
        come to comes first in the next, and all of them before any comes again.
    identity : callable, optional
        Returns what else tells the dataset from others, as plain values: a state of another is refused.

    Attributes
    ----------
    epoch : int
        Of the next pass.
    whole : bool
        Whether a pass gives the batches of all processes, those of one step after each other: for what
        shares them out by itself, such as Accelerate.

    Raises
    ------
    UsageError
        If a number is not an integer, or too small or large; if weights are not one for each sentence,
        finite, at least 0 and not all 0; for options that exclude each other: corpus order and shuffling,
        ``weights`` or ``"by length"`` and ``groups`` or an order of other kind, ``steps_per_epoch`` and
        ``uneven``; when a pass begins, if there are fewer sentences than processes.
    """

    def __init__(
        self,
        lengths: Sequence[int] | NDArray[np.integer],
        *,
        token_budget: int = 2048,
        max_sentences: int | None = None,
        shuffle: Shuffle | None = None,
        order: Order = "length",
        seed: int = 0,
        drop_last: bool = False,
        num_replicas: int | Literal["auto"] = 1,
        rank: int = 0,
        uneven: Uneven = "split",
        groups: Sequence[int] | NDArray[np.integer] | None = None,
        weights: Sequence[float] | NDArray[Any] | None = None,
        steps_per_epoch: int | None = None,
        identity: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        # Not torch's: it wants a dataset, and processes that have been found.
        self.lengths = as_lengths(lengths)
        self.token_budget = whole_number("token_budget", token_budget, 1)
        self.max_sentences = number_or_none("max_sentences", max_sentences)
        require_one_of("order", order, Order)
        require_one_of("uneven", uneven, Uneven)
        require_together(shuffle, order, uneven, groups, weights, steps_per_epoch)
        self.order, self.uneven = order, uneven
        self.shuffle = order != "corpus" if shuffle is None else bool(shuffle)
        self._ascending = shuffle == "by length"
        self.seed, self.drop_last = whole_number("seed", seed, 0), drop_last
        self._share = given_share(num_replicas, rank)
        self.groups = None if groups is None else checked_groups(groups, len(self.lengths))
        self.weights = None if weights is None else checked_weights(weights, len(self.lengths))
        self.steps_per_epoch = number_or_none("steps_per_epoch", steps_per_epoch)
        self.epoch = 0
        self.whole = False
        self._known = Position(0, stepped=None if steps_per_epoch is None else Stepped())
        self._identity_of_data = identity
        self._identity: dict[str, Any] | None = None
        self._next: Position | None = None
        self._pinned = False
        self._rolled: Pass | None = None
        self._counts: dict[object, int] = {}
        self._pass: Pass | None = None
        self._plan = Plan(
            self.lengths,
            self._pools(),
            Budget(self.token_budget, self.max_sentences),
            self.seed,
            by_length=order == "length",
            shuffle=self.shuffle,
            drop_last=drop_last,
            groups=self.groups,
            weights=self.weights,
            ascending=self._ascending,
            endless=steps_per_epoch is not None,
        )

    def _pools(self) -> Pools:
        if self.groups is not None and len(self.groups):
            return GroupPools(self.groups, len(self.lengths), self.seed, shuffle=self.shuffle)
        if self.weights is not None:
            return WeightedPools(self.weights, self.seed)
        if self._ascending:
            return AscendingPools(self.lengths, self.seed)
        return EvenPools(len(self.lengths), self.seed, shuffle=self.shuffle)

    def __getstate__(self) -> dict[str, Any]:
        position = self.position
        waiting = position if position.begun else None
        return {**self.__dict__, "_pass": None, "_rolled": None, "_next": waiting, "epoch": position.epoch}

    @property
    def num_replicas(self) -> int:  # type: ignore[override]
        """Processes that share the batches."""
        return self.share.num_replicas

    @property
    def rank(self) -> int:  # type: ignore[override]
        """The number of this process."""
        return self.share.rank

    @property
    def share(self) -> Share:
        """The processes that share the batches, and which this one is: as given, or as found now."""
        return found_share() if self._share is None else self._share

    @property
    def shares_as_found(self) -> bool:
        """Whether processes are looked up when a pass begins, instead of given."""
        return self._share is None

    @property
    def sampler(self) -> BucketBatchSampler:
        """This sampler: frameworks call ``set_epoch`` on ``batch_sampler.sampler``."""
        return self

    @property
    def repeats(self) -> int:
        """Batches of the current pass, its last, that other processes were given too (``uneven="pad"``)."""
        return 0 if self._pass is None else self._pass.n_repeated

    @property
    def position(self) -> Position:
        """Where the pass stands that was begun last, or where the next one will begin."""
        begun = self._pass and self._pass.position()
        return begun or self._next or self._start_of(self.epoch)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next pass, at least 0.

        A position that :meth:`load_state_dict` restored in this epoch is kept.
        """
        epoch = whole_number("epoch", epoch, 0)
        if self._next is not None and self._next.epoch == epoch:
            self._pinned = True
        else:
            if self._next is not None:
                logger.warning(
                    "set_epoch(%d): the restored position, in epoch %d, is given up", epoch, self._next.epoch
                )
            self._next = None
        self.epoch, self._pass = epoch, None

    def state_dict(self) -> dict[str, Any]:
        """Return where the pass that was begun last stands: a few plain values, the same in every process.

        A pass is where its iteration is; of a :func:`~featurestore.feature_loader`, whose workers run ahead,
        where the loop over the loader is.
        """
        position = self.position
        return as_state(position, self.identity(), self._digest(position))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to where a state was taken: the next pass goes on there, with any number of processes.

        Raises
        ------
        StateError
            If the state is of another dataset, store, seed, setting or version.
        """
        position, digest = read_state(state, self.identity())
        if position.pool >= self._plan.pools.count(position.planned) and position.begun:
            refuse_batches(None, digest)
        found = self._digest(position)
        if found != digest:
            refuse_batches(found, digest)
        self.epoch, self._pass, self._pinned = position.epoch, None, False
        self._next = position if position.begun else None
        self._known = position

    def identity(self) -> dict[str, Any]:
        """Return what decides the batches, as plain values."""
        if self._identity is None:
            self._identity = {
                **self._identity_of_data(),
                "n_sentences": len(self.lengths),
                "lengths": digest_of(self.lengths),
                "groups": None if self.groups is None else digest_of(self.groups),
                "token_budget": self.token_budget,
                "max_sentences": self.max_sentences,
                "weights": None if self.weights is None else digest_of(self.weights, "<f8"),
                "steps_per_epoch": self.steps_per_epoch,
                "shuffle": "by length" if self._ascending else self.shuffle,
                "order": self.order,
                "seed": self.seed,
                "drop_last": bool(self.drop_last),
            }
        return self._identity

    def __len__(self) -> int:
        share = self._checked_share()
        n_batches, n = self._plan.n_batches, share.num_replicas
        if self.steps_per_epoch is not None:
            return self.steps_per_epoch * (n if self.whole else 1) if n_batches else 0
        uneven = "drop" if self.drop_last else self.uneven
        if n_batches % n == 0:
            steps = n_batches // n
        elif self._ascending or self._plan.pools.count(self.epoch) == 1 or 2 * n_batches > len(self.lengths):
            # Where most batches have one sentence, it takes the last ones to know whether they can be split.
            asked = share, self.whole, uneven
            if asked not in self._counts:
                self._counts[asked] = len(self.batches(self.epoch))
            return self._counts[asked]
        else:
            fills = uneven == "pad" or (uneven == "split" and n_batches + n <= len(self.lengths))
            steps = n_batches // n + (fills or (uneven == "join" and share.rank < n_batches % n))
        return steps * n if self.whole and uneven != "join" else n_batches if self.whole else steps

    def __iter__(self) -> Pass:
        return Pass(self)

    def batches(self, epoch: int) -> list[Indices]:
        """Return the batches of an epoch (of this rank), each an array of positions."""
        share = self._checked_share()
        return [dealt.batch for dealt in self._mine(self._deal(self._start_of(epoch), share), share)]

    def padding(self, epoch: int = 0) -> float:
        """Return the padded positions of an epoch's batches per token, 0 for none."""
        batches = self.batches(epoch)
        padded = sum(len(batch) * int(self.lengths[batch].max()) for batch in batches)
        tokens = sum(int(self.lengths[batch].sum()) for batch in batches)
        return padded / tokens - 1 if tokens else 0.0

    def begin(self, begun: Pass) -> tuple[Deal | Course, Iterator[Dealt], int]:
        """Return what a pass that begins now deals, and to how many processes; move on to the next epoch."""
        share = self._checked_share()
        position = self._next or self._start_of(self.epoch)
        rolled = self._rolled
        if rolled is not None and rolled is self._pass and rolled.n_handed is None:
            # torchdata's workers begin a restored pass, throw it away, and begin another.
            position = self._start_of(self.epoch - 1)
        self._rolled = None
        if position.begun and not self._pinned and not any(True for _ in self._deal(position, share)):
            position, self._rolled = self._start_of(position.epoch + 1), begun
        if not position.begun and next(self._mine(self._deal(position, share), share), None) is None:
            self._warn_of_nothing(share)
        deal = self._deal(position, share)
        self.epoch, self._next, self._pinned, self._pass = position.epoch + 1, None, False, begun
        self._known = position
        return deal, self._mine(deal, share), 1 if self.whole else share.num_replicas

    def end(self, ended: Pass) -> None:
        """Take note that a pass has come to its end."""
        if self._pass is ended:
            self._known = ended.position() or self._known
            self._pass = None

    def enter_pool(self, place: Place) -> None:
        """Do what is to be done before the first batch of pools is given."""

    def mean_size(self, per: Literal["sentence", "token"]) -> float:
        """Return the mean number of sentences or tokens in a batch, over an epoch and all processes."""
        size = 1.0 if per == "sentence" else float(np.average(self.lengths, weights=self.weights))
        n = self.share.num_replicas if self.steps_per_epoch is None else 1
        return size * len(self.lengths) / max(1, -(-self._plan.n_batches // n) * n)

    def _start_of(self, epoch: int) -> Position:
        if self.steps_per_epoch is None:
            return Position(epoch)
        n_processes = self._checked_share().num_replicas
        return start_of(epoch, self._plan, self._known, n_processes, self.steps_per_epoch)

    def _deal(self, position: Position, share: Share) -> Deal | Course:
        if self.steps_per_epoch is not None:
            return Course(self._plan, position, share.num_replicas, self.steps_per_epoch)
        return Deal(self._plan, position, share.num_replicas, "drop" if self.drop_last else self.uneven)

    def _mine(self, dealt: Iterable[Dealt], share: Share) -> Iterator[Dealt]:
        for number, one in enumerate(dealt):
            if self.whole or number % share.num_replicas == share.rank:
                yield one

    def _warn_of_nothing(self, share: Share) -> None:
        if len(self.lengths):
            logger.warning(
                "%d sentences give no batch (drop_last=%s, num_replicas=%d): sentences that do not fill one "
                "batch, or one for each rank, are dropped",
                len(self.lengths), self.drop_last, share.num_replicas,
            )  # fmt: skip

    def _checked_share(self) -> Share:
        share, n = self.share, len(self.lengths)
        if 0 < n < share.num_replicas and not self.drop_last and self.uneven != "join":
            raise UsageError(
                f"{share.num_replicas} processes cannot share {n} sentences: give fewer processes, or "
                "num_replicas=1 for all sentences in each"
            )
        return share

    def _digest(self, position: Position) -> str | None:
        """Return the digest of the pool that a position is in; None at the start of the data."""
        started = position.taken or position.ends
        if not started or position.pool >= self._plan.pools.count(position.planned):
            return None
        return planned_at(self._plan, position).digest
