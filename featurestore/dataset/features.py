"""FeatureDataset: stored vectors and labels of a corpus, as a map-style PyTorch Dataset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch.utils.data import Dataset

from featurestore.corpora.contract.example import IGNORED, MissingLabel
from featurestore.corpora.given import CorpusLike, read_examples
from featurestore.dataset.batch import FeatureBatch, FeatureItem, ItemBatch, PackedRows, length_mask
from featurestore.dataset.gathering.buffers import BufferPool
from featurestore.dataset.gathering.gather import Gatherer
from featurestore.dataset.gathering.resident import Resident
from featurestore.dataset.indices import EVERYTHING, Part, position_of, positions_of
from featurestore.dataset.labels import LabelSet
from featurestore.dataset.opening.numbering import LabelKind
from featurestore.dataset.opening.placing import OnMissing, UnseenLabels, place
from featurestore.dataset.sampling.windows import Windows
from featurestore.devices import choose_device
from featurestore.errors import LabelError, UsageError
from featurestore.keys import Sentence
from featurestore.recipe import Recipe
from featurestore.store.format.codec import get_codec
from featurestore.store.store import Store


class FeatureDataset(Dataset[FeatureItem]):
    """The vectors and labels of a corpus.

    Holds places and label numbers, a few dozen bytes an example; vectors stay on disk until they are asked
    for. It can be pickled to worker processes, by fork or spawn; each opens the store for itself.

    Parameters
    ----------
    store : Store, str or Path
    examples : path, Corpus, iterable of Example or token lists, or a sequence of paths and corpora
        What :func:`featurestore.extract` takes. Labels are read from a file opened with ``label=``
        (:func:`featurestore.open_corpus`).
    labels : LabelSet or sequence of str, optional
        The labels a model knows, in the order of their numbers. By default those of the examples, sorted.
    unseen_labels : {"error", "keep"}
        What to do with a label that is not in ``labels``: refuse it, or keep it under a number of its own
        behind the known ones (for scoring, where it counts as a mistake).
    on_missing : {"error", "skip", "zeros"}
        What to do with sentences that are not in the store.
    dtype : torch.dtype
        Of the features; a floating one.
    resident : str or torch.device, optional
        ``"cpu"``, ``"cuda"`` or ``"cuda:N"``: read all vectors now, every checksum compared, and hold them
        there as they are stored (float16 or int8); batches are gathered there and lie there. What that takes
        is logged before, and is :attr:`resident_bytes`. A pickled dataset leaves them behind, and reads.

    Attributes
    ----------
    lengths : (n_examples,) int64
        Tokens of each example; read-only.
    document_starts : (n_documents,) int64
        The position of each document's first sentence; empty where the corpus does not tell documents apart
        (``# newdoc``, ``-DOCSTART-``, ``open_corpus(document=)``, ``Example(document=)``).
    n_missing : int
        Sentences that are not in the store.

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
        If the vectors do not fit where they shall be resident, saying what they need and what is free, or an
        option has no such value.
    """

    def __init__(
        self,
        store: Store | str | Path,
        examples: CorpusLike | Sequence[CorpusLike],
        *,
        labels: LabelSet | Sequence[str] | None = None,
        unseen_labels: UnseenLabels = "error",
        on_missing: OnMissing = "error",
        dtype: torch.dtype = torch.float32,
        resident: str | torch.device | None = None,
    ) -> None:
        _require_one_of("on_missing", on_missing, get_args(OnMissing))
        _require_one_of("unseen_labels", unseen_labels, get_args(UnseenLabels))
        _require_floating(dtype)
        self.store = store if isinstance(store, Store) else Store.open(store)
        self.dtype = dtype
        self._gatherer = Gatherer(self.store)
        self._buffers = BufferPool()
        placement = place(
            self.store,
            read_examples(examples),
            labels=labels if labels is None or isinstance(labels, LabelSet) else LabelSet(labels),
            unseen_labels=unseen_labels,
            on_missing=on_missing,
        )
        self._shard, self._row = placement.shard, placement.row
        self.lengths: NDArray[np.int64] = placement.lengths
        self.document_starts = placement.document_starts
        self.n_missing = placement.n_missing
        self._labels, self._zeros = placement.labels, placement.zeros
        self._resident: Resident | None = None
        if resident is not None:
            device = choose_device(str(resident))
            self._resident = Resident(self.store, self._shard, self._row, self.lengths, device)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_resident": None}

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
        return torch.device("cpu") if self._resident is None else self._resident.device

    @property
    def resident_bytes(self) -> int:
        """Bytes of vectors held on :attr:`device`; 0 if they are read on demand."""
        return 0 if self._resident is None else self._resident.n_bytes

    @property
    def recipe(self) -> Recipe:
        """What the vectors were made with."""
        return self.store.recipe

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self.store.dim

    @property
    def n_layers(self) -> int:
        """Layers kept apart: 1 gives features of (n_tokens, dim), more (n_tokens, n_layers, dim)."""
        return self.store.n_layers

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> FeatureItem:
        index = position_of(index, len(self))
        if self._resident is not None:
            batch = self.gather([index])
            label = None if batch.labels is None else batch.labels[0]
            return FeatureItem(batch.features[0], label, index)
        n_tokens = int(self.lengths[index])
        features = torch.zeros(self.store.vector_shape(n_tokens), dtype=self.dtype)
        if self._shard[index] >= 0:
            self._gatherer.decode_into(features, int(self._shard[index]), int(self._row[index]))
        return FeatureItem(features, self._labels.of_one(index), index)

    def __getitems__(self, indices: Sequence[int]) -> ItemBatch:
        """Return a whole batch at once, not yet read; a DataLoader calls this if a dataset has it."""
        return ItemBatch(self, indices)

    def windows(self, memory: int, part: Part = EVERYTHING) -> Windows:
        """Cut the examples, or a part of them, into windows that are read within ``memory`` bytes."""
        return Windows(self.store, self._shard[part], self._row[part], self.lengths[part], memory)

    @property
    def stored_bytes(self) -> int:
        """Bytes that the vectors of all examples have on disk."""
        return self.stored_bytes_of(EVERYTHING)

    def stored_bytes_of(self, part: Part) -> int:
        """Return the bytes that the vectors of a part of the examples have on disk."""
        shards, here = np.unique(self._shard[part], return_inverse=True)
        tokens = np.bincount(here, self.lengths[part])
        codecs = [self.store.manifest.shards[s].codec if s >= 0 else None for s in shards.tolist()]
        each = [get_codec(c).bytes_per_token(self.n_layers, self.dim) if c else 0 for c in codecs]
        return int(tokens @ np.array(each, np.float64)) if len(each) else 0

    def identity(self, part: Part = EVERYTHING) -> dict[str, Any]:
        """Return what tells the vectors of a part of the examples from others, as plain values."""
        shards = self.store.manifest.shards
        names = "\n".join((self.store.recipe.fingerprint, *(entry.name for entry in shards)))
        places = xxhash.xxh3_64()
        for numbers in (self._shard[part], self._row[part]):
            places.update(numbers.astype("<i8", copy=False).tobytes())
        return {
            "store": xxhash.xxh3_64_hexdigest(names.encode()),
            "snapshot": self.store.snapshot,
            "places": places.hexdigest(),
        }

    def gather(
        self,
        indices: Sequence[int],
        gatherer: Gatherer | None = None,
        *,
        packed: bool = False,
        jagged: bool = False,
    ) -> FeatureBatch:
        """Read a padded, packed or jagged batch: what :func:`collate` does with a whole batch.

        Parameters
        ----------
        indices : sequence of int
        gatherer : Gatherer, optional
            That reads; by default the dataset's own.
        packed : bool
            As :meth:`FeatureBatch.packed` packs it, but without a detour over padding.
        jagged : bool
            As :meth:`FeatureBatch.jagged` makes it, without a detour over padding.

        Raises
        ------
        DamagedStoreError
            If stored bytes are not those that were committed.
        """
        at = positions_of(indices, len(self))
        n_tokens = self.lengths[at]
        longest = int(n_tokens.max(initial=0))
        shape = self.store.vector_shape(longest)
        lengths = torch.from_numpy(n_tokens)
        mask = length_mask(lengths, longest)
        batch = FeatureBatch(mask, lengths, mask, self._labels.of_batch(at, mask), torch.from_numpy(at))
        if self._resident is not None:
            batch = batch.to(self.device)
            batch.features = self._buffers.empty((len(at), *shape), self.dtype, self.device)
            self._resident.gather(batch.indices, batch.mask, batch.features)
            return batch.packed() if packed else batch.jagged() if jagged else batch
        gatherer, places = gatherer or self._gatherer, (n_tokens, self._shard[at], self._row[at])
        if jagged:
            data = self._buffers.empty((int(n_tokens.sum()), *shape[1:]), self.dtype)
            gatherer.gather_packed(data, *places, into=torch.arange(len(data)))
            return batch.with_tokens(data)
        if not packed:
            batch.features = self._buffers.empty((len(at), *shape), self.dtype)
            gatherer.gather_padded(batch.features, *places)
            return batch
        packing = PackedRows.of(lengths, mask)
        data = self._buffers.empty((len(packing.rows), *shape[1:]), self.dtype)
        gatherer.gather_packed(data, *places, into=packing.rows)
        batch.features = packing.packed(data)
        if batch.labels is not None and batch.labels.dim() == 2:
            padded, batch.labels = batch.labels, torch.empty_like(packing.rows)
            batch.labels[packing.rows] = padded[mask]
        return batch

    def tokens(self, index: int) -> Sentence:
        """Return the tokens of an example, with their condition if it has one."""
        index = position_of(index, len(self))
        if self._shard[index] < 0:
            return self._zeros[index]
        return self.store.reader(int(self._shard[index])).tokens(int(self._row[index]))

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
