"""FeatureDataset: stored vectors and labels of a corpus, as a map-style PyTorch Dataset."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TypeVar, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from featurestore.corpora.contract.example import IGNORED, MissingLabel
from featurestore.corpora.given import CorpusLike
from featurestore.dataset.batch import FeatureBatch, FeatureItem, ItemBatch, PackedRows, length_mask
from featurestore.dataset.gathering.buffers import Allocate
from featurestore.dataset.gathering.gather import Gatherer
from featurestore.dataset.indices import EVERYTHING, Part, position_of, positions_of
from featurestore.dataset.labels import LabelSet
from featurestore.dataset.mapping import changed
from featurestore.dataset.opening.numbering import LabelKind
from featurestore.dataset.opening.placing import OnMissing, UnseenLabels
from featurestore.dataset.opening.remembering import open_placement
from featurestore.dataset.sampling.windows import Windows
from featurestore.dataset.sources import Sources
from featurestore.dataset.stores import StoresLike, opened, require_one_layer
from featurestore.devices import choose_device
from featurestore.errors import LabelError, UsageError
from featurestore.keys import Sentence
from featurestore.recipe import Recipe
from featurestore.store.store import Store

AnyValue = TypeVar("AnyValue")


class FeatureDataset(Dataset[FeatureItem]):
    """The vectors and labels of a corpus.

    Holds places and label numbers, a few dozen bytes an example; vectors stay on disk until they are asked
    for. It can be pickled to worker processes, by fork or spawn; each opens the store for itself.

    Parameters
    ----------
    store : Store, str or Path; or several of these, a list, or a mapping from names
        Of several stores, which hold vectors of other encoders for the same sentences, each token gets the
        vectors of all, one after the other in the order of the stores. A store is called as its folder,
        unless it is given by name. Stores of which the vectors depend on tokens alone are asked for the
        tokens alone, where others keep document context.
    examples : path, Corpus, iterable of Example or token lists, or a sequence of paths and corpora
        What :func:`featurestore.extract` takes. Labels are read from a file opened with ``label=``
        (:func:`featurestore.open_corpus`).
    labels : LabelSet or sequence of str, optional
        The labels a model knows, in the order of their numbers. By default those of the examples, sorted.
    unseen_labels : {"error", "keep"}
        What to do with a label that is not in ``labels``: refuse it, or keep it under a number of its own
        behind the known ones (for scoring, where it counts as a mistake).
    on_missing : {"error", "skip", "zeros"}
        What to do with sentences that are not in the store. Of several stores: not in all of them; zeros
        then stand for the vectors that are missing, beside those that are there.
    dtype : torch.dtype
        Of the features; a floating one.
    resident : str or torch.device, optional
        ``"cpu"``, ``"cuda"`` or ``"cuda:N"``: read all vectors now, every checksum compared, and hold them
        there as they are stored (float16 or int8); batches are gathered there and lie there. What that takes
        is logged before, and is :attr:`resident_bytes`. A pickled dataset leaves them behind, and reads.
    as_dict : bool
        Features as a dict of tensors by the names of the stores, instead of one tensor. Each has the layers
        of its store.
    remember : bool
        Keep what was found of corpora in files (places, lengths, labels) in the user's cache folder, and open
        at once while neither they nor the options nor the stores' snapshots have changed. The environment's
        ``FEATURESTORE_REMEMBER=0`` turns it off, ``featurestore forget`` removes what is kept.

    Attributes
    ----------
    lengths : (n_examples,) int64
        Tokens of each example; read-only.
    document_starts : (n_documents,) int64
        The position of each document's first sentence; empty where the corpus does not tell documents apart
        (``# newdoc``, ``-DOCSTART-``, ``open_corpus(document=)``, ``Example(document=)``).
    n_missing : int
        Sentences that are not in the store, or not in all of them.
    stores : dict of str to Store
        By name, in their order.
    as_dict : bool

    Raises
    ------
    MissingSentencesError
        Naming how many, the first few, and the command that adds them.
    AlignmentError
        If the stored tokens are not the example's, naming corpus, line and both tokens.
    LabelError
        If labels are missing from some examples, no str, of mixed kinds, not one for each token, or not in
        ``labels``.
    CorpusError, SentenceError
        If an example cannot be read, or is not one.
    UsageError
        If the vectors do not fit where they shall be resident, saying what they need and what is free; an
        option has no such value; or several stores are none, the same, of one recipe, or keep layers apart
        without ``as_dict``.
    """

    def __init__(
        self,
        store: StoresLike,
        examples: CorpusLike | Sequence[CorpusLike],
        *,
        labels: LabelSet | Sequence[str] | None = None,
        unseen_labels: UnseenLabels = "error",
        on_missing: OnMissing = "error",
        dtype: torch.dtype = torch.float32,
        resident: str | torch.device | None = None,
        as_dict: bool = False,
        remember: bool = True,
    ) -> None:
        if not isinstance(remember, bool):
            raise UsageError(f"remember is {remember!r}, expected True or False")
        _require_one_of("on_missing", on_missing, get_args(OnMissing))
        _require_one_of("unseen_labels", unseen_labels, get_args(UnseenLabels))
        _require_floating(dtype)
        self.stores, self.as_dict = opened(store), as_dict
        if not as_dict:
            require_one_layer(self.stores)
        self.dtype = dtype
        placement = open_placement(
            list(self.stores.values()),
            examples,
            labels=labels if labels is None or isinstance(labels, LabelSet) else LabelSet(labels),
            unseen_labels=unseen_labels,
            on_missing=on_missing,
            remember=remember,
        )
        self._sources = Sources(self.stores, placement.places, as_dict=as_dict, dtype=dtype)
        self.lengths: NDArray[np.int64] = placement.lengths
        self.document_starts = placement.document_starts
        self.n_missing = placement.n_missing
        self._labels, self._zeros = placement.labels, placement.zeros
        self._teller = self._sources.each[placement.teller]
        if resident is not None:
            self._sources.hold(self.lengths, choose_device(str(resident)))

    @property
    def label_kind(self) -> LabelKind | None:
        """Whether there is a label for each ``"token"``, one for the ``"sentence"``, or none."""
        return self._labels.kind

    @property
    def documents(self) -> NDArray[np.int64] | None:
        """The number of each example's document, (n_examples,) int64; None where none are told apart."""
        if not len(self.document_starts):
            return None
        begins = np.zeros(len(self), np.int64)
        begins[self.document_starts] = 1
        return begins.cumsum() - 1

    @property
    def sentence_labels(self) -> NDArray[np.int64] | None:
        """The number of each example's label, (n_examples,) int64; None unless sentences have labels."""
        return self._labels.numbers.astype(np.int64) if self.label_kind == "sentence" else None

    @property
    def labels(self) -> LabelSet:
        """The labels that were given or, if none were, those of the examples; empty if there are none."""
        return self._labels.labels

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names by number: those of :attr:`labels`, then unseen ones that were kept."""
        return self._labels.names

    @property
    def label_counts(self) -> dict[str, int]:
        """Number of occurrences of each of :attr:`label_names` in the examples."""
        return self._labels.counts()

    @property
    def device(self) -> torch.device:
        """Where batches are."""
        return self._sources.device

    @property
    def resident_bytes(self) -> int:
        """Bytes of vectors held on :attr:`device`; 0 if they are read on demand."""
        return self._sources.resident_bytes

    @property
    def store(self) -> Store:
        """The store, where there is one.

        Raises
        ------
        UsageError
            If there are several: :attr:`stores` has them.
        """
        return self._only("store", self.stores)

    @property
    def recipes(self) -> dict[str, Recipe]:
        """What the vectors of each store were made with, by name, in the order of the stores."""
        return {name: store.recipe for name, store in self.stores.items()}

    @property
    def recipe(self) -> Recipe:
        """What the vectors were made with, where there is one store.

        Raises
        ------
        UsageError
            If there are several: :attr:`recipes` has theirs.
        """
        return self._only("recipe", self.recipes)

    @property
    def dim(self) -> int:
        """Length of a vector; of several stores, of theirs together."""
        return sum(store.dim for store in self.stores.values())

    @property
    def n_layers(self) -> int:
        """Layers kept apart: 1 gives features of (n_tokens, dim), more (n_tokens, n_layers, dim).

        Raises
        ------
        UsageError
            If several stores have different numbers: each of :attr:`stores` has its own.
        """
        return self._only("n_layers", {name: store.n_layers for name, store in self.stores.items()})

    def _only(self, attribute: str, of_stores: Mapping[str, AnyValue]) -> AnyValue:
        """Return what all stores have in common."""
        values = list(of_stores.values())
        if any(value != values[0] for value in values[1:]):
            raise UsageError(
                f"dataset.{attribute}: this dataset reads {len(values)} stores ({', '.join(of_stores)}), and "
                "each has its own: dataset.stores[name]"
            )
        return values[0]

    def arranged(self, order: Mapping[str, str]) -> FeatureDataset:
        """Return the same examples with the stores in another order, under other names.

        Parameters
        ----------
        order : mapping of str to str
            The new name of each store, in the new order, with the name that it has here.

        Raises
        ------
        UsageError
            If these are not the stores there are, each once.
        """
        if sorted(order.values()) != sorted(self.stores):
            raise UsageError(
                f"expected an order of the stores {', '.join(self.stores)}, found {', '.join(order.values())}"
            )
        if list(order.items()) == [(name, name) for name in self.stores]:
            return self
        again = copy.copy(self)
        again.stores = {new: self.stores[old] for new, old in order.items()}
        again._sources = self._sources.arranged(order)
        return again

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> FeatureItem:
        index = position_of(index, len(self))
        if self._sources.is_resident:
            batch = self.gather([index])
            label = None if batch.labels is None else batch.labels[0]
            return FeatureItem(changed(batch.features, lambda features: features[0]), label, index)
        features = self._sources.item(index, int(self.lengths[index]))
        return FeatureItem(features, self._labels.of_one(index), index)

    def __getitems__(self, indices: Sequence[int]) -> ItemBatch:
        """Return a whole batch at once, not yet read; a DataLoader calls this if a dataset has it."""
        return ItemBatch(self, indices)

    def windows(self, memory: int, part: Part = EVERYTHING) -> Windows:
        """Cut the examples, or a part of them, into windows that are read within ``memory`` bytes."""
        return self._sources.windows(self.lengths, memory, part)

    @property
    def stored_bytes(self) -> int:
        """Bytes that the vectors of all examples have on disk."""
        return self.stored_bytes_of(EVERYTHING)

    def stored_bytes_of(self, part: Part) -> int:
        """Return the bytes that the vectors of a part of the examples have on disk."""
        return sum(source.stored_bytes(self.lengths, part) for source in self._sources.each)

    def identity(self, part: Part = EVERYTHING) -> dict[str, object]:
        """Return what tells the vectors of a part of the examples from others, as plain values."""
        return self._sources.identity(part)

    def identity_of_labels(self) -> dict[str, object]:
        """Return what tells the labels of the examples from others, as plain values."""
        return {"sentences": len(self), "labels": self._labels.digest()}

    def gather(
        self,
        indices: Sequence[int],
        gatherer: Gatherer | Sequence[Gatherer] | None = None,
        *,
        packed: bool = False,
        jagged: bool = False,
        empty: Allocate | None = None,
    ) -> FeatureBatch:
        """Read a padded, packed or jagged batch: what :func:`collate` does with a whole batch.

        Parameters
        ----------
        indices : sequence of int
        gatherer : Gatherer, or one for each store, optional
            That reads; by default the dataset's own.
        packed : bool
            As :meth:`FeatureBatch.packed` packs it, but without a detour over padding.
        jagged : bool
            As :meth:`FeatureBatch.jagged` makes it, without a detour over padding.
        empty : callable, optional
            Gives the memory of features on the CPU, which is written to as a whole: called with a shape and a
            dtype, as ``torch.empty``. By default buffers that are used again when no tensor is over them.

        Raises
        ------
        DamagedStoreError
            If stored bytes are not those that were committed.
        """
        at = positions_of(indices, len(self))
        n_tokens = self.lengths[at]
        longest = int(n_tokens.max(initial=0))
        tokens = length_mask(n_tokens, longest)
        found = self._labels.of_batch(at, tokens)
        labels = None if found is None else torch.from_numpy(found)
        lengths, mask = torch.from_numpy(n_tokens), torch.from_numpy(tokens)
        batch = FeatureBatch(mask, lengths, mask, labels, torch.from_numpy(at))
        if self._sources.is_resident:
            batch = batch.to(self.device)
            batch.features = self._sources.resident(batch.indices, batch.mask, empty)
            return batch.packed() if packed else batch.jagged() if jagged else batch
        gatherers = [gatherer] if isinstance(gatherer, Gatherer) else gatherer
        if jagged:
            into = torch.arange(int(n_tokens.sum()))
            return batch.with_tokens(self._sources.end_to_end(at, n_tokens, into, gatherers, empty))
        if not packed:
            batch.features = self._sources.padded(at, n_tokens, gatherers, empty)
            return batch
        packing = PackedRows.of(lengths, mask)
        data = self._sources.end_to_end(at, n_tokens, packing.rows, gatherers, empty)
        batch.features = changed(data, packing.packed)
        if found is not None and found.ndim == 2:
            flat = np.empty(len(packing.rows), np.int64)
            flat[packing.rows.numpy()] = found[tokens]
            batch.labels = torch.from_numpy(flat)
        return batch

    def tokens(self, index: int) -> Sentence:
        """Return the tokens of an example, with their condition if it has one."""
        index = position_of(index, len(self))
        shard, row = (int(numbers[index]) for numbers in self._teller.places)
        return self._zeros[index] if shard < 0 else self._teller.store.reader(shard).tokens(row)

    def gold(self, index: int) -> tuple[str | MissingLabel, ...] | str:
        """Return the label name of an example, or one per token; ``IGNORED`` for a token that has none.

        Raises
        ------
        LabelError
            If the examples have no labels.
        """
        label = self._labels.of_one(position_of(index, len(self)))
        if label is None:
            raise LabelError("these examples have no labels: read the corpus with a label (--label)")
        if label.dim() == 0:
            return self.label_names[int(label)]
        names = self.label_names
        return tuple(names[number] if number >= 0 else IGNORED for number in label.tolist())


def _require_one_of(option: str, given: object, known: Sequence[str]) -> None:
    if given not in known:
        raise UsageError(f"{option} is {given!r}, expected {', '.join(known[:-1])} or {known[-1]}")


def _require_floating(dtype: object) -> None:
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise UsageError(
            f"dtype is {dtype!r}, expected a floating one of torch: torch.float32, torch.float16"
        )
