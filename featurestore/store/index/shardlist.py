"""The shards of a snapshot as an index knows them: their names, and how many keys each may have."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class ShardList:
    """The shards that an index is over, in manifest order.

    Parameters
    ----------
    names : sequence of str
    sizes : sequence of int, optional
        Sentences of each; without them a shard may have any number.

    Attributes
    ----------
    sizes : (n,) uint64 or None
    """

    def __init__(
        self, names: Sequence[str], sizes: Sequence[int] | NDArray[np.integer] | None = None
    ) -> None:
        self._names = names
        self.sizes = None if sizes is None else np.ascontiguousarray(sizes, np.uint64)
        self._before = None if self.sizes is None else np.append(0, np.cumsum(self.sizes, dtype=np.int64))

    def __len__(self) -> int:
        return len(self._names)

    def n_keys(self, first: int, stop: int) -> int | None:
        """Return how many sentences the shards from ``first`` to before ``stop`` have; None if unknown."""
        return None if self._before is None else int(self._before[stop] - self._before[first])

    def digest(self, first: int, stop: int) -> bytes:
        """Return 32 bytes that stand for these shards at these places of the list."""
        text = "\n".join(self._names[first:stop]).encode()
        return hashlib.blake2b(text, digest_size=32, salt=first.to_bytes(16, "little")).digest()
