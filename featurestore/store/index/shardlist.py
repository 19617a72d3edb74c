"""The shards of a snapshot as an index knows them: their names, and how many keys each may have."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray


class ShardList:
    """The shards that an index is over, in manifest order.

    Parameters
    ----------
    joined_names : callable
        Called with ``first`` and ``stop``; returns the names of the shards from ``first`` to before ``stop``,
        with line ends between them.
    n : int
        Number of shards.
    sizes : sequence of int, optional
        Sentences of each shard; without them a shard may have any number.

    Attributes
    ----------
    sizes : (n,) uint64 or None
    """

    def __init__(
        self,
        joined_names: Callable[[int, int], bytes],
        n: int,
        sizes: Sequence[int] | NDArray[np.integer] | None = None,
    ) -> None:
        self._joined_names, self._n = joined_names, n
        self._digests: dict[tuple[int, int], bytes] = {}
        self.sizes = None if sizes is None else np.ascontiguousarray(sizes, np.uint64)
        self._before = np.zeros(n + 1, np.uint64)
        """Sentences of all shards before each; zeros if unknown."""
        if self.sizes is not None:
            np.cumsum(self.sizes, out=self._before[1:])

    def __len__(self) -> int:
        return self._n

    def n_keys(self, first: int, stop: int) -> int | None:
        """Return how many sentences the shards from ``first`` to before ``stop`` have; None if unknown."""
        return None if self.sizes is None else int(self._before[stop] - self._before[first])

    def digest(self, first: int, stop: int) -> bytes:
        """Return 32 bytes that stand for these shards at these places of the list."""
        found = self._digests.get((first, stop))
        if found is None:
            names, place = self._joined_names(first, stop), first.to_bytes(16, "little")
            found = self._digests[first, stop] = hashlib.blake2b(names, digest_size=32, salt=place).digest()
        return found
