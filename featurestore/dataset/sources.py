"""Where the examples of a dataset lie in each of its stores, and how their vectors are read."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor

from featurestore.dataset.gathering.buffers import Allocate, BufferPool
from featurestore.dataset.gathering.gather import Gatherer, Part
from featurestore.dataset.gathering.resident import Resident
from featurestore.dataset.gathering.together import gather_packed, gather_padded, gather_resident, parts_of
from featurestore.dataset.indices import Part as Examples
from featurestore.dataset.opening.placing import Places
from featurestore.dataset.sampling.windows import Located, Windows
from featurestore.store.format.codec import get_codec
from featurestore.store.store import Store
from featurestore.vectors import token_shape

Features = Any
"""A tensor, or a dict of tensors by the names of the stores."""


class Source:
    """A store, and where the examples lie in it.

    Attributes
    ----------
    gatherer : Gatherer
    buffers : BufferPool
        For batches of this store alone.
    resident : Resident or None
        Left behind by pickling.
    """

    def __init__(self, store: Store, places: Places) -> None:
        self.store, self.places = store, places
        self.gatherer, self.buffers = Gatherer(store), BufferPool()
        self.resident: Resident | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "resident": None}

    def stored_bytes(self, lengths: NDArray[np.int64], part: Examples) -> int:
        """Return the bytes that the vectors of a part of the examples have on disk."""
        shards, here = np.unique(self.places.shard[part], return_inverse=True)
        tokens = np.bincount(here, lengths[part])
        n_layers, dim = self.store.n_layers, self.store.dim
        codecs = [self.store.manifest.shards[s].codec if s >= 0 else None for s in shards.tolist()]
        each = [get_codec(c).bytes_per_token(n_layers, dim) if c else 0 for c in codecs]
        return int(tokens @ np.array(each, np.float64)) if len(each) else 0


class Sources:
    """The sources of a dataset, in the order of their vectors.

    Parameters
    ----------
    stores : mapping of str to Store
    places : sequence of Places
        In each of the stores.
    as_dict : bool
        Features by name, each tensor with memory of its own; otherwise all in one tensor.
    dtype : torch.dtype
        Of the features.
    """

    def __init__(
        self, stores: Mapping[str, Store], places: Sequence[Places], *, as_dict: bool, dtype: torch.dtype
    ) -> None:
        self.by_name = {
            name: Source(store, where) for (name, store), where in zip(stores.items(), places, strict=True)
        }
        self.as_dict, self.dtype = as_dict, dtype
        self._buffers = BufferPool()
        self.each = list(self.by_name.values())
        self._only = self.each[0] if len(self.each) == 1 and not as_dict else None

    def arranged(self, order: Mapping[str, str]) -> Sources:
        """Return the same sources in another order; see :meth:`FeatureDataset.arranged`."""
        again = copy.copy(self)
        again.by_name = {new: self.by_name[old] for new, old in order.items()}
        again.each = list(again.by_name.values())
        return again

    @property
    def device(self) -> torch.device:
        """Where features are."""
        resident = self.each[0].resident
        return torch.device("cpu") if resident is None else resident.device

    @property
    def is_resident(self) -> bool:
        """Whether the vectors are held in memory."""
        return self.each[0].resident is not None

    @property
    def resident_bytes(self) -> int:
        """Bytes held in memory."""
        return sum(source.resident.n_bytes for source in self.each if source.resident is not None)

    def identity(self, part: Examples) -> dict[str, object]:
        """Return what tells the vectors of a part of the examples from others, as plain values.

        ``store``: a hash of recipes and shards; ``snapshot``: their numbers; ``places``: a hash of where the
        examples lie in them.
        """
        stores, places = xxhash.xxh3_64(), xxhash.xxh3_64()
        for source in self.each:
            names = source.store.manifest.shards.joined_names()
            stores.update(source.store.recipe.fingerprint.encode() + (b"\n" + names if names else b""))
            for numbers in source.places:
                places.update(numbers[part].astype("<i8").tobytes())
        snapshots = [source.store.snapshot for source in self.each]
        snapshot = snapshots[0] if len(snapshots) == 1 else snapshots
        return {"snapshot": snapshot, "store": stores.hexdigest(), "places": places.hexdigest()}

    def hold(self, lengths: NDArray[np.int64], device: torch.device) -> None:
        """Read all vectors into the memory of a device."""
        for source in self.each:
            source.resident = Resident(source.store, *source.places, lengths, device)

    def windows(self, lengths: NDArray[np.int64], memory: int, part: Examples) -> Windows:
        """Cut a part of the examples into windows: stretches of the store of which most bytes are read."""
        lead, *others = sorted(self.each, key=lambda source: -source.stored_bytes(lengths, part))
        beside = [Located(one.store, one.places.shard[part], one.places.row[part]) for one in others]
        shard, row = lead.places
        return Windows(lead.store, shard[part], row[part], lengths[part], memory, beside)

    def item(self, index: int, n_tokens: int) -> Features:
        """Read one example: (n_tokens, dim) or (n_tokens, n_layers, dim)."""
        if self._only is not None:
            alone = self._only
            features = torch.zeros(alone.store.vector_shape(n_tokens), dtype=self.dtype)
            if (shard := int(alone.places.shard[index])) >= 0:
                alone.gatherer.decode_into(features, shard, int(alone.places.row[index]))
            return features

        def read(sources: Sequence[int], out: Tensor) -> None:
            chosen = [self.each[number] for number in sources]
            out.zero_()
            for source, part in zip(chosen, parts_of(out, [s.store.dim for s in chosen]), strict=True):
                shard, row = (int(numbers[index]) for numbers in source.places)
                if shard >= 0:
                    source.gatherer.decode_into(part, shard, row)

        return self._filled((n_tokens,), read)

    def padded(
        self,
        at: NDArray[np.int64],
        lengths: NDArray[np.int64],
        gatherers: Sequence[Gatherer] | None = None,
        empty: Allocate | None = None,
    ) -> Features:
        """Read a padded batch: (batch, longest, dim) or (batch, longest, n_layers, dim).

        ``empty`` gives its memory, by default buffers that are used again.
        """
        if self._only is not None and gatherers is None:
            alone = self._only
            shape = (len(at), *alone.store.vector_shape(int(lengths.max(initial=0))))
            out = (empty or self._buffers.empty)(shape, self.dtype)
            alone.gatherer.gather_padded(out, lengths, alone.places.shard[at], alone.places.row[at])
            return out
        parts = self._parts(at, gatherers)
        return self._filled(
            (len(at), int(lengths.max(initial=0))),
            lambda sources, out: gather_padded([parts[number] for number in sources], out, lengths),
            empty,
        )

    def end_to_end(
        self,
        at: NDArray[np.int64],
        lengths: NDArray[np.int64],
        into: Tensor,
        gatherers: Sequence[Gatherer] | None = None,
        empty: Allocate | None = None,
    ) -> Features:
        """Read tokens into the rows ``into``: (n_tokens, dim) or (n_tokens, n_layers, dim)."""
        parts = self._parts(at, gatherers)
        return self._filled(
            (len(into),),
            lambda sources, out: gather_packed(
                [parts[number] for number in sources], out, lengths, into=into
            ),
            empty,
        )

    def resident(self, at: Tensor, mask: Tensor, empty: Allocate | None = None) -> Features:
        """Return a padded batch of resident examples, on their device."""
        held = [source.resident for source in self.each]

        def read(sources: Sequence[int], out: Tensor) -> None:
            chosen = [held[number] for number in sources]
            gather_resident([one for one in chosen if one is not None], at, mask, out)

        return self._filled(tuple(mask.shape), read, empty if self.device.type == "cpu" else None)

    def _parts(self, at: NDArray[np.int64], gatherers: Sequence[Gatherer] | None) -> list[Part]:
        readers = [source.gatherer for source in self.each] if gatherers is None else gatherers
        return [
            Part(reader, source.places.shard[at], source.places.row[at])
            for reader, source in zip(readers, self.each, strict=True)
        ]

    def _filled(
        self,
        rows: tuple[int, ...],
        read: Callable[[Sequence[int], Tensor], None],
        empty: Allocate | None = None,
    ) -> Features:
        """Return features of ``rows`` rows that ``read`` has filled, given the numbers of their sources."""
        if self.as_dict:
            features = {}
            for number, (name, source) in enumerate(self.by_name.items()):
                shape = (*rows, *source.store.token_shape)
                if empty is None:
                    features[name] = source.buffers.empty(shape, self.dtype, self.device)
                else:
                    features[name] = empty(shape, self.dtype)
                read([number], features[name])
            return features
        n_layers = self.each[0].store.n_layers  # of several stores, 1
        shape = (*rows, *token_shape(n_layers, sum(source.store.dim for source in self.each)))
        if empty is None:
            whole = self._buffers.empty(shape, self.dtype, self.device)
        else:
            whole = empty(shape, self.dtype)
        read(range(len(self.each)), whole)
        return whole
