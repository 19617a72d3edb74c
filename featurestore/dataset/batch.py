"""Batches: ragged sentences collated to padded or packed tensors with lengths, mask and labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from featurestore.dataset.labels import PADDING_LABEL

if TYPE_CHECKING:
    from featurestore.dataset.features import FeatureDataset


class FeatureItem(NamedTuple):
    """One example: ``features`` (n_tokens, dim) or (n_tokens, n_layers, dim), ``label``, ``position``.

    ``label`` is (n_tokens,) int64, a () int64, or None.
    """

    features: Tensor
    label: Tensor | None
    position: int


@dataclass
class FeatureBatch:
    """A batch for training.

    Attributes
    ----------
    features : (batch, longest, dim) or (batch, longest, n_layers, dim) float, or PackedSequence
        Zeros in the padding.
    lengths : (batch,) int64
    mask : (batch, longest) bool
        True at tokens.
    labels : (batch, longest) int64 with -100 in the padding, (batch,) int64, or None
        For a packed batch, token labels are flat: (n_tokens,), beside ``features.data``.
    indices : (batch,) int64
        Positions of the examples in the dataset.
    """

    features: Tensor | PackedSequence
    lengths: Tensor
    mask: Tensor
    labels: Tensor | None
    indices: Tensor

    def __len__(self) -> int:
        return len(self.lengths)

    def to(self, device: str | torch.device, *, non_blocking: bool = False) -> FeatureBatch:
        """Return the batch on a device."""
        return self._mapped(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> FeatureBatch:
        """Return the batch in pinned memory (what a DataLoader with ``pin_memory=True`` calls)."""
        return self._mapped(lambda tensor: tensor.pin_memory())

    def packed(self) -> FeatureBatch:
        """Return the batch with features (and token labels) packed, as ``torch.nn.LSTM`` takes them."""
        if isinstance(self.features, PackedSequence):
            return self
        lengths = self.lengths.cpu()
        if not len(lengths):  # which torch refuses
            features = Packing.of(lengths, self.mask.cpu()).packed(self.features.flatten(0, 1))
            return replace(
                self, features=features, labels=None if self.labels is None else self.labels.flatten()
            )
        features = pack_padded_sequence(self.features, lengths, batch_first=True, enforce_sorted=False)
        labels = self.labels
        if labels is not None and labels.dim() == 2:
            labels = pack_padded_sequence(labels, lengths, batch_first=True, enforce_sorted=False).data
        return replace(self, features=features, labels=labels)

    def _mapped(self, change: Callable[[Any], Any]) -> FeatureBatch:
        return FeatureBatch(
            change(self.features),
            change(self.lengths),
            change(self.mask),
            None if self.labels is None else change(self.labels),
            change(self.indices),
        )


class ItemBatch(Sequence[FeatureItem]):
    """What a :class:`FeatureDataset` hands to collate for a whole batch: indices, not yet read.

    It reads like a list of items, so that any collate function works; :func:`collate` reads it in one go.
    """

    def __init__(self, dataset: FeatureDataset, indices: Sequence[int]) -> None:
        self.dataset, self.indices = dataset, indices

    def __len__(self) -> int:
        return len(self.indices)

    @overload
    def __getitem__(self, position: int) -> FeatureItem: ...
    @overload
    def __getitem__(self, position: slice) -> Sequence[FeatureItem]: ...
    def __getitem__(self, position: int | slice) -> FeatureItem | Sequence[FeatureItem]:
        if isinstance(position, slice):
            return ItemBatch(self.dataset, self.indices[position])
        return self.dataset[self.indices[position]]


def collate(items: Sequence[FeatureItem]) -> FeatureBatch:
    """Collate items to a padded batch.

    Parameters
    ----------
    items : sequence of FeatureItem
        From ``dataset[i]``, or the :class:`ItemBatch` a DataLoader gets from ``dataset.__getitems__``.
    """
    if isinstance(items, ItemBatch):
        return items.dataset.gather(items.indices)
    lengths = torch.tensor([len(item.features) for item in items])
    longest = int(lengths.max())
    first = items[0].features
    features = first.new_zeros(len(items), longest, *first.shape[1:])
    for i, item in enumerate(items):
        features[i, : len(item.features)] = item.features
    labels = collate_labels([item.label for item in items], longest)
    indices = torch.tensor([item.position for item in items])
    return FeatureBatch(features, lengths, length_mask(lengths, longest), labels, indices)


def collate_packed(items: Sequence[FeatureItem]) -> FeatureBatch:
    """Collate items to a packed batch; see :meth:`FeatureBatch.packed`."""
    if isinstance(items, ItemBatch):
        return items.dataset.gather(items.indices, packed=True)
    return collate(items).packed()


def collate_labels(labels: Sequence[Tensor | None], longest: int) -> Tensor | None:
    """Stack labels: (batch, longest) padded with -100 for token labels, (batch,) for sentence labels."""
    present = [label for label in labels if label is not None]
    if len(present) < len(labels):
        return None
    if present[0].dim() == 0:
        return torch.stack(present)
    result = torch.full((len(present), longest), PADDING_LABEL)
    for i, label in enumerate(present):
        result[i, : len(label)] = label
    return result


class Packing(NamedTuple):
    """Where the tokens of a padded batch stand once it is packed, as ``pack_padded_sequence`` packs.

    ``rows`` (n_tokens,) int64: of each token, sentence after sentence. The rest is what a ``PackedSequence``
    holds beside its data.
    """

    rows: Tensor
    batch_sizes: Tensor
    sorted_indices: Tensor
    unsorted_indices: Tensor

    @classmethod
    def of(cls, lengths: Tensor, mask: Tensor) -> Packing:
        """Return the packing of a batch on the CPU, given as in :class:`FeatureBatch`."""
        order = lengths.sort(descending=True).indices
        rank = torch.empty_like(order)
        rank[order] = torch.arange(len(order))
        sizes = mask.sum(0)
        rows = (sizes.cumsum(0) - sizes + rank.unsqueeze(1))[mask]
        return cls(rows, sizes, order, rank)

    def packed(self, data: Tensor) -> PackedSequence:
        """Return packed data as what ``torch.nn.LSTM`` takes."""
        return PackedSequence(data, self.batch_sizes, self.sorted_indices, self.unsorted_indices)


def length_mask(lengths: Tensor, longest: int) -> Tensor:
    """Return (batch, longest) bool, True at tokens."""
    return torch.arange(longest, device=lengths.device) < lengths.unsqueeze(1)
