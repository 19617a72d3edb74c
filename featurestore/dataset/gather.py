"""From stored bytes to tensors: decoding located sentences straight into a batch."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from featurestore.store.codec import Array
from featurestore.store.reader import ShardReader
from featurestore.store.store import Store


@dataclass
class _OpenShard:
    """A shard's arrays as tensors over the memory map; ``values`` is None when bytes are read by pread."""

    reader: ShardReader
    values: Tensor | None
    scales: Tensor | None
    norms: Tensor | None


class Gatherer:
    """Decodes sentences of a store into tensors.

    torch's casts are several times faster than NumPy's, and one copy decodes into the batch. It can be
    pickled; the other process opens its own maps.

    Parameters
    ----------
    store : Store
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._shards: dict[int, _OpenShard] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_shards": {}}

    def decode_into(self, out: Tensor, shard: int, row: int) -> None:
        """Decode a sentence into a float tensor of shape (n_tokens, dim) or (n_tokens, n_layers, dim).

        Raises
        ------
        DamagedStoreError
            If the stored bytes are not those that were committed.
        """
        opened = self._shards.get(shard) or self._open(shard)
        reader = opened.reader
        start, stop = reader.bounds[row], reader.bounds[row + 1]
        if opened.values is None:
            array, scale_array = reader.stored(row)
            values, scales = as_tensor(array), None if scale_array is None else as_tensor(scale_array)
        else:
            reader.believe(row)
            values = opened.values[start:stop]
            scales = None if opened.scales is None else opened.scales[start:stop]
        out.copy_(values)
        if scales is not None and opened.norms is not None:
            out.mul_(scales.unsqueeze(-1)).mul_(opened.norms)

    def _open(self, shard: int) -> _OpenShard:
        reader = self.store.reader(shard)
        opened = _OpenShard(
            reader,
            None if reader.values is None else as_tensor(reader.values),
            None if reader.scales is None else as_tensor(reader.scales),
            None if reader.norms is None else as_tensor(reader.norms),
        )
        self._shards[shard] = opened
        return opened


def as_tensor(array: Array) -> Tensor:
    """Return a tensor over a read-only array's memory; nothing here ever writes to it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(np.asarray(array))
