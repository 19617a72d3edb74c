"""Batches: ragged sentences collated to padded or packed tensors with lengths, mask and labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableSequence, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, Protocol, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from featurestore.dataset.labels import PADDING_LABEL
from featurestore.dataset.mapping import MappingOfTensors, changed, one_of
from featurestore.dataset.restoring import restored
from featurestore.errors import LabelError, UsageError

Features = Any
"""A tensor, ``PackedSequence`` or nested tensor; or a dict of these by the names of stores. Not a union of
them, of which no type checker would take what holds for one."""


class FeatureItem(NamedTuple):
    """One example: ``features`` (n_tokens, dim) or (n_tokens, n_layers, dim), ``label``, ``position``.

    ``features`` of a dataset with ``as_dict=True`` is a dict of these by the names of its stores. ``label``
    is (n_tokens,) int64, a () int64, or None.
    """

    features: Features
    label: Tensor | None
    position: int


@dataclass(init=False)
class FeatureBatch(MappingOfTensors):
    """A batch for training.

    It is also a mapping of its attributes, as training frameworks expect a batch to be:
    ``batch["features"]``, ``model(**batch)``. Labels that are None are no key. ``len(batch)`` is the number
    of sentences.

    Parameters
    ----------
    features, lengths, mask, labels, indices
        The attributes; or, as frameworks make a batch anew from its changed tensors, one mapping of them.

    Attributes
    ----------
    features : (batch, longest, dim) or (batch, longest, n_layers, dim) float, or PackedSequence
        Zeros in the padding. Of a jagged batch, a nested tensor (batch, j, dim) without padding. Of a dataset
        with ``as_dict=True``, a dict of any of these by the names of its stores.
    lengths : (batch,) int64
    mask : (batch, longest) bool
        True at tokens.
    labels : (batch, longest) int64 with -100 in the padding, (batch,) int64, or None
        For a packed batch, token labels are flat: (n_tokens,), beside ``features.data``; for a jagged one
        too, beside ``features.values()``.
    indices : (batch,) int64
        Positions of the examples in the dataset: batches come in another order than the corpus, so results
        are put back by these, or by :meth:`restore`.
    """

    features: Features
    lengths: Tensor
    mask: Tensor
    labels: Tensor | None
    indices: Tensor

    def __init__(
        self,
        features: Features,
        lengths: Tensor | None = None,
        mask: Tensor | None = None,
        labels: Tensor | None = None,
        indices: Tensor | None = None,
    ) -> None:
        if lengths is None and isinstance(features, Mapping):
            self.__init__(**features)  # type: ignore[misc]  # its own signature
            return
        if lengths is None or mask is None or indices is None:
            raise UsageError(
                "FeatureBatch: expected features, lengths, mask and indices, or one mapping of these"
            )
        self.features = features
        self.lengths, self.mask, self.labels, self.indices = lengths, mask, labels, indices

    def to(self, device: str | torch.device, *, non_blocking: bool = False) -> FeatureBatch:
        """Return the batch on a device."""
        return self._mapped(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> FeatureBatch:  # needs a GPU
        """Return the batch in pinned memory, as a DataLoader with ``pin_memory=True`` asks; some may be."""
        return self._mapped(lambda tensor: tensor.pin_memory())

    def packed(self) -> FeatureBatch:
        """Return the batch with features (and token labels) packed, as ``torch.nn.LSTM`` takes them."""
        if isinstance(one_of(self.features), PackedSequence):
            return self
        lengths, labels = self.lengths.cpu(), self.labels
        if not len(lengths):  # which torch refuses
            rows = PackedRows.of(lengths, self.mask.cpu())
            features = changed(self.features, lambda padded: rows.packed(padded.flatten(0, 1)))
            return replace(self, features=features, labels=None if labels is None else labels.flatten())

        def packed(padded: Tensor) -> PackedSequence:
            return pack_padded_sequence(padded, lengths, batch_first=True, enforce_sorted=False)

        if labels is not None and labels.dim() == 2:
            labels = packed(labels).data
        return replace(self, features=changed(self.features, packed), labels=labels)

    def jagged(self) -> FeatureBatch:
        """Return the batch with features as a nested tensor of layout ``torch.jagged``, without padding.

        ``features.values()`` is (n_tokens, dim), sentence after sentence; token labels are flat beside it.
        """
        first = one_of(self.features)
        if isinstance(first, PackedSequence):
            raise UsageError("jagged: the batch is packed: make it jagged from a padded one")
        if first.is_nested:
            return self
        return self.with_tokens(changed(self.features, lambda padded: padded[self.mask]))

    def with_tokens(self, data: Features) -> FeatureBatch:
        """Return the batch, a padded one, with these features of its tokens, (n_tokens, ...), as jagged."""
        offsets = torch.zeros(len(self.lengths) + 1, dtype=torch.int64, device=self.lengths.device)
        torch.cumsum(self.lengths, 0, out=offsets[1:])
        shortest = min(self.lengths.tolist(), default=0)
        features = changed(
            data,
            lambda flat: torch.nested.nested_tensor_from_jagged(
                flat, offsets, min_seqlen=shortest, max_seqlen=self.mask.shape[1]
            ),
        )
        labels = self.labels
        if labels is not None and labels.dim() == 2:
            labels = labels[self.mask]
        return replace(self, features=features, labels=labels)

    def restore(self, values: Any, *, per: Literal["token", "sentence"] | None = None) -> dict[int, Any]:
        """Return results of this batch by the position of their sentence in the dataset, without padding.

        Batches do not come in corpus order, also with ``shuffle=False``. This puts it back::

            found = {}
            for batch in feature_loader(dataset, shuffle=False):
                found.update(batch.restore(model(batch.features).argmax(-1)))
            in_corpus_order = [found[position] for position in range(len(dataset))]

        Parameters
        ----------
        values : Tensor, array, PackedSequence or list
            Per token: (batch, longest, ...) as padded, or (n_tokens, ...) as ``values[batch.mask]`` or, for a
            packed batch, ``features.data`` orders them; or a list with a sequence for each sentence. Per
            sentence: (batch, ...), or a list.
        per : {"token", "sentence"}, optional
            What the values are of. By default, what the labels of a padded batch are of.

        Returns
        -------
        dict
            From position to the values of that sentence: (n_tokens, ...) or (...).

        Raises
        ------
        UsageError
            If the values do not fit the batch, or ``per`` is left out for a packed or unlabelled one.
        """
        return dict(zip(self.indices.tolist(), restored(self, values, per), strict=True))

    def _mapped(self, change: Callable[[Any], Any]) -> FeatureBatch:
        return FeatureBatch(
            changed(self.features, change),
            change(self.lengths),
            change(self.mask),
            None if self.labels is None else change(self.labels),
            change(self.indices),
        )


class BatchSource(Protocol):
    """A dataset that can read one item, or a whole batch in one go."""

    def __getitem__(self, index: int) -> FeatureItem:
        """Return one example."""

    def gather(
        self, indices: Sequence[int], gatherer: Any = None, *,
        packed: bool = False, jagged: bool = False, empty: Any = None,
    ) -> FeatureBatch:  # fmt: skip
        """Return a batch as :meth:`FeatureDataset.gather` does; ``gatherer`` reads it in place of its own."""


class ItemBatch(MutableSequence[FeatureItem]):
    """A whole batch as a dataset hands it to collate: a list of items, not yet read.

    :func:`collate` reads it in one go. Any other collate function uses it as the list that it expects: the
    first access to an item reads all, each once, and from then on it is that list, which may be changed.
    """

    def __init__(self, dataset: BatchSource, indices: Sequence[int]) -> None:
        self.dataset, self.indices = dataset, indices
        self._items: list[FeatureItem] | None = None

    @property
    def unread(self) -> bool:
        """Whether the list has not been changed since the dataset made it."""
        return self._items is None

    @property
    def items(self) -> list[FeatureItem]:
        """The list itself."""
        if self._items is None:
            self._items = [self.dataset[index] for index in self.indices]
        return self._items

    def __len__(self) -> int:
        return len(self.indices if self._items is None else self._items)

    @overload
    def __getitem__(self, position: int) -> FeatureItem: ...
    @overload
    def __getitem__(self, position: slice) -> list[FeatureItem]: ...
    def __getitem__(self, position: int | slice) -> FeatureItem | list[FeatureItem]:
        return self.items[position]

    def __setitem__(self, position: Any, item: Any) -> None:
        self.items[position] = item

    def __delitem__(self, position: int | slice) -> None:
        del self.items[position]

    def __iter__(self) -> Iterator[FeatureItem]:
        return iter(self.items)

    def __add__(self, other: Iterable[Any]) -> list[Any]:
        return [*self.items, *other]

    def __radd__(self, other: Iterable[Any]) -> list[Any]:
        return [*other, *self.items]

    def __repr__(self) -> str:
        return repr(self.items)

    def __reduce__(self) -> tuple[type, tuple[list[FeatureItem]]]:
        # A worker process sends the items back, not the dataset.
        return list, (self.items,)

    def insert(self, position: int, item: FeatureItem) -> None:
        """Insert an item, as a list does."""
        self.items.insert(position, item)

    def sort(self, *, key: Any = None, reverse: bool = False) -> None:
        """Sort the items, as a list does."""
        self.items.sort(key=key, reverse=reverse)

    def copy(self) -> list[FeatureItem]:
        """Return the items as a plain list."""
        return self.items.copy()


def collate(items: Sequence[FeatureItem]) -> FeatureBatch:
    """Collate items to a padded batch.

    Parameters
    ----------
    items : sequence of FeatureItem
        From ``dataset[i]``, or the :class:`ItemBatch` a DataLoader gets from ``dataset.__getitems__``.

    Raises
    ------
    LabelError
        If some of the items have labels and others have none, or of another kind.
    UsageError
        If there are no items.
    """
    if isinstance(items, ItemBatch) and items.unread:
        return items.dataset.gather(items.indices)
    if not len(items):
        raise UsageError("collate: there are no items, and so no shape of features: leave empty batches out")
    lengths = torch.tensor([len(one_of(item.features)) for item in items])
    longest = int(lengths.max())
    first = items[0].features
    features: Features
    _require_same_stores(items)
    if isinstance(first, dict):
        features = {name: _padded([item.features[name] for item in items], longest) for name in first}
    else:
        features = _padded([item.features for item in items], longest)
    labels = _collate_labels(items, longest)
    indices = torch.tensor([item.position for item in items])
    mask = torch.from_numpy(length_mask(lengths.numpy(), longest))
    return FeatureBatch(features, lengths, mask, labels, indices)


def _require_same_stores(items: Sequence[FeatureItem]) -> None:
    found = [
        f"the stores {', '.join(item.features)}" if isinstance(item.features, dict) else "one tensor"
        for item in items
    ]
    other = next((number for number, form in enumerate(found) if form != found[0]), None)
    if other is not None:
        raise UsageError(
            f"collate: item {other} of the batch has features of {found[other]}, but item 0 of {found[0]}: "
            "put datasets together only if they read the same stores"
        )


def _padded(sentences: Sequence[Tensor], longest: int) -> Tensor:
    """Stack sentences: (batch, longest, ...), zeros in the padding."""
    padded = sentences[0].new_zeros(len(sentences), longest, *sentences[0].shape[1:])
    for row, sentence in zip(padded, sentences, strict=True):
        row[: len(sentence)] = sentence
    return padded


def collate_packed(items: Sequence[FeatureItem]) -> FeatureBatch:
    """Collate items to a packed batch; see :meth:`FeatureBatch.packed`."""
    if isinstance(items, ItemBatch) and items.unread:
        return items.dataset.gather(items.indices, packed=True)
    return collate(items).packed()


def collate_jagged(items: Sequence[FeatureItem]) -> FeatureBatch:
    """Collate items to a jagged batch; see :meth:`FeatureBatch.jagged`."""
    if isinstance(items, ItemBatch) and items.unread:
        return items.dataset.gather(items.indices, jagged=True)
    return collate(items).jagged()


def _collate_labels(items: Sequence[FeatureItem], longest: int) -> Tensor | None:
    """Stack labels: (batch, longest) padded with -100 for token labels, (batch,) for sentence labels."""
    present = [item.label for item in items if item.label is not None]
    if not present:
        return None
    if len(present) < len(items) or len({label.dim() for label in present}) > 1:
        kinds = [_label_kind(item) for item in items]
        other = next(i for i, kind in enumerate(kinds) if kind != kinds[0])
        raise LabelError(
            f"collate: item {other} of the batch has {kinds[other]}, but item 0 has {kinds[0]}: put datasets "
            "together only if they have labels of one kind"
        )
    if present[0].dim() == 0:
        return torch.stack(present)
    result = torch.full((len(present), longest), PADDING_LABEL)
    for i, label in enumerate(present):
        result[i, : len(label)] = label
    return result


def _label_kind(item: FeatureItem) -> str:
    if item.label is None:
        return "no label"
    return "a label for each token" if item.label.dim() else "a label for the sentence"


class PackedRows(NamedTuple):
    """The rows of a padded batch's tokens in the packed batch that ``pack_padded_sequence`` makes.

    ``rows`` (n_tokens,) int64: of each token, sentence after sentence. The rest is what a ``PackedSequence``
    holds beside its data.
    """

    rows: Tensor
    batch_sizes: Tensor
    sorted_indices: Tensor
    unsorted_indices: Tensor

    @classmethod
    def of(cls, lengths: Tensor, mask: Tensor) -> PackedRows:
        """Return the packing of a batch on the CPU, given as in :class:`FeatureBatch`."""
        order = lengths.sort(descending=True).indices
        # In NumPy, which looks up a few numbers in a tenth of the time.
        tokens, rank = mask.numpy(), np.empty(len(order), np.int64)
        rank[order.numpy()] = np.arange(len(order))
        sizes = tokens.sum(0)
        rows = (sizes.cumsum() - sizes + rank[:, None])[tokens]
        return cls(torch.from_numpy(rows), torch.from_numpy(sizes), order, torch.from_numpy(rank))

    def packed(self, data: Tensor) -> PackedSequence:
        """Return packed data as the ``PackedSequence`` that ``torch.nn.LSTM`` takes."""
        return PackedSequence(data, self.batch_sizes, self.sorted_indices, self.unsorted_indices)


def length_mask(lengths: NDArray[np.int64], longest: int) -> NDArray[np.bool_]:
    """Return (batch, longest) bool, True at tokens."""
    mask: NDArray[np.bool_] = np.arange(longest) < lengths[:, None]
    return mask
