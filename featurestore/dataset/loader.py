"""feature_loader: dataset, bucketed batches and collate as a plain PyTorch DataLoader."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Subset
from torch.utils.data.dataloader import _BaseDataLoaderIter

from featurestore.dataset.batch import (
    FeatureBatch,
    FeatureItem,
    collate,
    collate_jagged,
    collate_packed,
)
from featurestore.dataset.collating import Collating
from featurestore.dataset.features import FeatureDataset
from featurestore.dataset.gathering.buffers import pinned
from featurestore.dataset.gathering.memory import available_bytes
from featurestore.dataset.indices import EVERYTHING, Part, positions_of
from featurestore.dataset.sampler_inputs import balanced_weights, document_starts
from featurestore.dataset.sampling.dealing import Uneven
from featurestore.dataset.sampling.passes import Pass
from featurestore.dataset.sampling.sampler import BucketBatchSampler, Order, Shuffle
from featurestore.dataset.sampling.window_reader import WindowReader
from featurestore.dataset.sampling.windows import WindowBatchSampler
from featurestore.errors import UsageError

logger = logging.getLogger(__name__)

_MEMORY_FOR_WINDOWS = 512 << 20
_LEAST_MEMORY = 1 << 20


_INSTEAD = {
    "batch_size": "batches are bounded by token_budget=, their padded tokens, and max_sentences=",
    "sampler": "batches of like length are made of a sampler of its own; for others, use "
    "DataLoader(dataset, batch_size=..., sampler=..., collate_fn=featurestore.collate)",
    "batch_sampler": "batches of like length are made by a BucketBatchSampler of its own; for others, use "
    "DataLoader(dataset, batch_sampler=..., collate_fn=featurestore.collate)",
}
"""Options of DataLoader that a bucketing loader does not take, and what to use instead."""


class FeatureLoader(DataLoader[FeatureItem]):
    """A ``torch.utils.data.DataLoader`` over length-bucketed batches, from :func:`feature_loader`.

    Its state is that of the loop over it, whatever worker processes have read ahead: after ``k`` batches of
    an epoch were handed out, the pass that follows :meth:`load_state_dict` begins with the next one.

    Attributes
    ----------
    batch_sampler, sampler : BucketBatchSampler
        What makes the batches; it shares them out among processes by itself.
    """

    batch_sampler: BucketBatchSampler

    def __iter__(self) -> _BaseDataLoaderIter:
        return _Handing(super().__iter__)  # type: ignore[return-value]  # iterates as torch's does

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next pass, at least 0; a position restored in it is kept."""
        self._own_sampler.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return where the pass that was begun last stands, as a few plain values.

        They are the same in every process, and number and order of processes are not among them: what is left
        of an epoch can be shared by as many as there are.
        """
        return self._own_sampler.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to where a state was taken, without going through what came before.

        Raises
        ------
        StateError
            If it is of another dataset, snapshot of the store, seed, setting or version.
        """
        self._own_sampler.load_state_dict(state)

    def weight(self, batch: FeatureBatch, per: Literal["sentence", "token"] = "sentence") -> float:
        """Return what the mean loss of a batch has to be multiplied by so that all sentences weigh the same.

        Batches hold few long or many short sentences. Mean losses that are averaged over batches (by
        accumulated gradients, or by the processes of one step) weigh a sentence by the size of its batch;
        times this, they weigh all sentences or tokens of the epoch alike. The mean over an epoch is 1.

        Parameters
        ----------
        batch : FeatureBatch
        per : {"sentence", "token"}
            What the loss is a mean over.
        """
        sampler = self._own_sampler
        if per not in ("sentence", "token"):
            raise UsageError(f"per={per!r}: expected 'sentence' or 'token'")
        share = len(batch) if per == "sentence" else int(batch.lengths.sum())
        return share / sampler.mean_size(per)

    @property
    def repeats(self) -> int:
        """Batches of this pass so far, its last, that other processes have too (``uneven="pad"``)."""
        return self._own_sampler.repeats

    @property
    def _is_accelerate_prepared(self) -> bool:
        # Accelerate asks this right before it takes a loader apart, and shares the batches out by itself.
        sampler = self._own_sampler
        if not sampler.shares_as_found and sampler.num_replicas > 1:
            raise UsageError(
                f"num_replicas={sampler.num_replicas} and accelerator.prepare both share the batches out, "
                "and together they lose most of them: leave num_replicas out"
            )
        sampler.whole = True
        return False

    @property
    def _own_sampler(self) -> BucketBatchSampler:
        if not isinstance(self.batch_sampler, BucketBatchSampler):
            raise UsageError(
                f"the batches of this loader are made by a {type(self.batch_sampler).__name__}, which has no "
                "epochs and no state: use the loader that feature_loader returned"
            )
        return self.batch_sampler


class _Handing:
    """An iteration over a loader that tells the sampler's pass which batches came through.

    It begins at its first batch, so that an epoch can be set after ``iter(loader)``.
    """

    def __init__(self, begin: Callable[[], _BaseDataLoaderIter]) -> None:
        self._begin = begin
        self._batches: _BaseDataLoaderIter | None = None
        self._pass: Pass | None = None

    def __iter__(self) -> _Handing:
        return self

    def __next__(self) -> Any:
        if self._batches is None:
            self._batches = self._begin()
            drawing = getattr(self._batches, "_sampler_iter", None)
            if isinstance(drawing, Pass):
                self._pass, drawing.n_handed = drawing, 0
        try:
            batch = next(self._batches)
        except StopIteration:
            if self._pass is not None:
                self._pass.end()
            raise
        if self._pass is not None:
            self._pass.n_handed = self._pass.n_given + 1
        return batch


def feature_loader(
    dataset: FeatureDataset | Subset[FeatureItem],
    *,
    token_budget: int = 2048,
    max_sentences: int | None = None,
    shuffle: Shuffle | None = None,
    order: Order = "length",
    seed: int = 0,
    drop_last: bool = False,
    num_replicas: int | None = None,
    rank: int | None = None,
    uneven: Uneven = "split",
    group_by: Literal["document"] | None = None,
    weights: Sequence[float] | NDArray[Any] | Literal["balanced"] | None = None,
    steps_per_epoch: int | None = None,
    packed: bool = False,
    jagged: bool = False,
    window: int | Literal["auto"] | None = "auto",
    num_workers: int = 0,
    **options: Any,
) -> FeatureLoader:
    """Return a DataLoader over length-bucketed batches.

    Batches do not come in the order of the corpus, also without ``shuffle``: see ``order``. Each pass is
    another epoch of the same seed, with as many batches; ``loader.set_epoch(n)`` goes to a given one,
    ``loader.state_dict()`` and ``loader.load_state_dict(state)`` to any place within one.

    Parameters
    ----------
    dataset : FeatureDataset
        Or a ``torch.utils.data.Subset`` of one, such as ``random_split`` makes.
    token_budget : int
        Padded tokens a batch may hold.
    max_sentences : int, optional
        Sentences a batch may hold.
    shuffle : bool or "by length", optional
        By default on. ``"by length"`` gives short sentences first over the whole epoch, those of one length
        in another order each time. Off, batches come in ascending length, which is not the order of the
        corpus either:
        put results back by :meth:`batch.restore() <featurestore.dataset.batch.FeatureBatch.restore>` or
        ``batch.indices``, or ask for ``order="corpus"``.
    order : {"length", "corpus"}
        ``"length"`` makes batches of sentences of like length. ``"corpus"`` takes them as they follow each
        other in the dataset, without shuffling: predictions that are collected from all batches then line up
        with the corpus, at the price of more padding.
    seed, drop_last, uneven
        As in :class:`~featurestore.dataset.sampling.sampler.BucketBatchSampler`.
    num_replicas, rank : int, optional
        Processes that train together, and the number of this one. By default as torch.distributed or
        torchrun say when a pass begins: each takes its share, which is logged once. ``num_replicas=1`` gives
        each process everything.
    group_by : "document", optional
        A batch holds whole documents, the sentences of each in their order, for labels of documents and
        taggers that look beyond a sentence; documents are shuffled, sentences are not. Their numbers are
        ``dataset.documents[batch.indices]``. A document over the budget is cut into parts that follow each
        other. The corpus must tell documents apart: see :attr:`FeatureDataset.document_starts
        <featurestore.dataset.features.FeatureDataset.document_starts>`.
    weights : (n_examples,) float, or "balanced", optional
        Draw examples with replacement, as many an epoch as there are, each in proportion to its weight;
        ``"balanced"``: all labels of sentences are equally likely. An example of weight 0 never comes.
    steps_per_epoch : int, optional
        Batches in an epoch, for each process. What an epoch has not come to comes first in the next, and
        nothing a second time before everything has come once (with ``weights``, the draws go on).
    packed : bool
        Features as a ``PackedSequence``.
    jagged : bool
        Features as a nested tensor of layout ``torch.jagged``: no padding is read or computed with.
    window : int, "auto" or None
        For vectors that do not fit into memory: read the shards in large windows and shuffle within several
        at a time (:mod:`featurestore.dataset.sampling.windows`), with this many bytes for them. ``"auto"``
        does that, with 512 MiB, if the vectors need more than is free, ``None`` never. The more memory, the
        better the shuffle.
    num_workers : int
        0 is fastest: reading is a copy from mapped memory, and worker processes have to send whole batches
        back. Useful only if your own ``collate_fn`` or transforms are slow.
    **options
        For :class:`torch.utils.data.DataLoader`; with ``pin_memory=True`` and a GPU, features are gathered
        into pinned memory at once, where no workers and no ``collate_fn`` stand between. A ``collate_fn`` of
        your own gets a list of :class:`~featurestore.dataset.batch.FeatureItem`.

    Returns
    -------
    FeatureLoader
        A DataLoader of :class:`~featurestore.dataset.batch.FeatureBatch`.

    Raises
    ------
    UsageError
        If ``token_budget`` or ``max_sentences`` is below 1, if the dataset is no FeatureDataset or Subset of
        one, for an option of DataLoader that makes batches, and for options that exclude each other:
        ``packed`` and ``jagged``; resident vectors and ``num_workers``; ``order="corpus"`` and
        ``shuffle=True``; bytes of ``window`` and resident vectors, ``num_workers``, a ``collate_fn``,
        ``order="corpus"``, ``group_by``, ``weights`` or ``shuffle="by length"``; ``weights`` or
        ``"by length"`` and ``group_by`` or another order; ``steps_per_epoch`` and ``uneven``; if the corpus
        does not tell documents apart; for weights that are not one for each example, or none to draw by.
    """
    for name in _INSTEAD.keys() & options.keys():
        raise UsageError(f"feature_loader takes no {name}: {_INSTEAD[name]}")
    if packed and jagged:
        raise UsageError("feature_loader: a batch is packed or jagged: leave out packed= or jagged=")
    whole, part = _whole_and_part(dataset)
    own_collate = options.pop("collate_fn", None)
    reading_whole = {
        "resident": whole.resident_bytes,
        "num_workers": num_workers,
        "collate_fn": own_collate is not None,
        "order='corpus'": order == "corpus",
        "group_by": group_by is not None,
        "weights": weights is not None,
        "shuffle='by length'": shuffle == "by length",
    }
    obstacle = next((name for name, given in reading_whole.items() if given), None)
    memory = _memory_for_windows(whole, part, window, obstacle)
    if num_workers and whole.resident_bytes:
        raise UsageError(
            f"num_workers={num_workers}: the vectors are resident on {whole.device}, for which worker "
            "processes have no use: leave num_workers out"
        )
    if num_workers and own_collate is None:
        logger.warning(
            "num_workers=%d: worker processes send each batch back, which takes longer than reading it here; "
            "num_workers=0 is faster unless a collate_fn of your own is slow",
            num_workers,
        )
    sampling: dict[str, Any] = {
        "token_budget": token_budget,
        "max_sentences": max_sentences,
        "shuffle": shuffle,
        "order": order,
        "seed": seed,
        "drop_last": drop_last,
        "num_replicas": "auto" if num_replicas is None else num_replicas,
        "rank": 0 if rank is None else rank,
        "uneven": uneven,
        "weights": weights,
        "steps_per_epoch": steps_per_epoch,
        "identity": partial(_identity, whole, part, memory),
    }
    if isinstance(weights, str) and weights == "balanced":
        sampling["weights"] = balanced_weights(whole, part)
    if group_by is not None:
        sampling["groups"] = document_starts(whole, part, group_by)
    collating: Callable[[Sequence[FeatureItem]], Any] = own_collate or (
        collate_packed if packed else collate_jagged if jagged else collate
    )
    gathering: dict[str, Any] = {}
    if options.get("pin_memory") and not num_workers and own_collate is None and torch.cuda.is_available():
        gathering["empty"] = pinned  # needs a GPU
    sampler = BucketBatchSampler(whole.lengths[part], **sampling)
    if memory is not None:
        windows = whole.windows(memory, part)
        reader = WindowReader(windows)
        sampler = WindowBatchSampler(sampler.lengths, windows, on_pool=reader.enter, **sampling)
        gathering.update(reader=reader, stores=whole.stores.values())
    if gathering:
        collating = Collating(packed=packed, jagged=jagged, **gathering)
    loader = FeatureLoader(
        dataset, batch_sampler=sampler, collate_fn=collating, num_workers=num_workers, **options
    )
    # torch's is a SequentialSampler beside any batch sampler; it is what frameworks look at.
    object.__setattr__(loader, "sampler", sampler)
    return loader


def _identity(dataset: FeatureDataset, part: Part, memory: int | None) -> dict[str, Any]:
    return {**dataset.identity(part), "window": memory}


def _whole_and_part(dataset: object) -> tuple[FeatureDataset, Part]:
    """Return the dataset that a subset is of, and which of its examples."""
    if isinstance(dataset, FeatureDataset):
        return dataset, EVERYTHING
    if isinstance(dataset, Subset):
        whole, part = _whole_and_part(dataset.dataset)
        outer = np.arange(len(whole))[part]
        return whole, outer[positions_of(dataset.indices, len(outer))]
    raise UsageError(
        f"feature_loader takes a FeatureDataset or a torch.utils.data.Subset of one, not a "
        f"{type(dataset).__name__}: one FeatureDataset reads several corpora, FeatureDataset(store, [path, "
        "other]); for any dataset of its items there is DataLoader(dataset, batch_size=..., "
        "collate_fn=featurestore.collate)"
    )


def _memory_for_windows(
    dataset: FeatureDataset, part: Part, window: int | str | None, obstacle: str | None
) -> int | None:
    """Return the bytes windows may take, None for no windows; an obstacle is an option they exclude."""
    if window is None or (window == "auto" and obstacle):
        return None
    if window == "auto":
        needed, free = dataset.stored_bytes_of(part), available_bytes(dataset.device)
        if needed <= free:
            return None
        logger.info("%d bytes of vectors, %d bytes are free: reading in windows", needed, free)
        return max(_LEAST_MEMORY, min(_MEMORY_FOR_WINDOWS, free // 4))
    if not isinstance(window, int) or window < _LEAST_MEMORY:
        raise UsageError(
            f"window={window!r}: expected bytes of memory, at least {_LEAST_MEMORY:,}, 'auto' or None"
        )
    if obstacle:
        raise UsageError(
            f"window={window:,}: windows are read and collated in this process, in an order of their own: "
            f"leave out window or {obstacle}"
        )
    return window
