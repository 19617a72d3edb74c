"""Collating out of windows, or into memory of other kinds, where a dataset does not gather by itself."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence

from featurestore.dataset.batch import (
    FeatureBatch,
    FeatureItem,
    ItemBatch,
    collate,
    collate_jagged,
    collate_packed,
)
from featurestore.dataset.gathering.buffers import Allocate
from featurestore.dataset.gathering.gather import Gatherer
from featurestore.dataset.sampling.window_reader import WindowReader
from featurestore.errors import UsageError
from featurestore.store.store import Store


class Collating:
    """Collates whole batches from the windows that are in memory, or into memory that is given.

    Items that were read or changed before are collated as :func:`~featurestore.dataset.batch.collate` does.

    Parameters
    ----------
    packed, jagged : bool
        As :func:`featurestore.feature_loader` takes them.
    empty : callable, optional
        Gives the memory of the features; see :meth:`FeatureDataset.gather
        <featurestore.dataset.features.FeatureDataset.gather>`.
    reader : WindowReader, optional
    stores : iterable of Store
        Those of the reader's windows, in the dataset's order.
    """

    def __init__(
        self,
        *,
        packed: bool = False,
        jagged: bool = False,
        empty: Allocate | None = None,
        reader: WindowReader | None = None,
        stores: Iterable[Store] = (),
    ) -> None:
        self._packed, self._jagged, self._empty = packed, jagged, empty
        self._lock = contextlib.nullcontext() if reader is None else reader.lock
        self._gatherers = None if reader is None else [Gatherer(one, reader.of(one)) for one in stores]

    def __call__(self, items: Sequence[FeatureItem]) -> FeatureBatch:
        """Return a batch.

        Raises
        ------
        UsageError
            If a batch that is to be read in windows is a list of items that were read already.
        """
        if not isinstance(items, ItemBatch) or not items.unread:
            if self._gatherers is not None:
                raise UsageError(
                    "window= reads the stored vectors, but this dataset makes items of its own: leave "
                    "window= out"
                )
            return (collate_packed if self._packed else collate_jagged if self._jagged else collate)(items)
        with self._lock:
            return items.dataset.gather(
                items.indices, self._gatherers, packed=self._packed, jagged=self._jagged, empty=self._empty
            )
