"""The sentences that a report rests on: drawn at random, read once, damaged ones left out and named."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from featurestore.errors import DamagedStoreError
from featurestore.keys import Sentence
from featurestore.store.maintenance.selection import Selection, select
from featurestore.store.store import Store


class Drawn(NamedTuple):
    """A sentence of the sample: its place and vectors, (n_tokens, n_layers, dim) float32."""

    tokens: Sentence
    key: bytes
    shard: int
    row: int
    vectors: NDArray[np.float32]


@dataclass
class Sample:
    """Sentences of a store that are read again and again, never held.

    Parameters
    ----------
    store : Store
        Opened with ``check="always"``; otherwise damage is found on the first pass only.
    selection : Selection
        The sentences drawn.
    damage : list of DamagedStoreError
        Messages of what could not be read, filled by the first pass.
    """

    store: Store
    selection: Selection
    damage: list[DamagedStoreError] = field(default_factory=list)
    _bad: set[tuple[int, int]] = field(default_factory=set, repr=False)

    @classmethod
    def of(cls, store: Store, n: int, seed: int) -> Sample:
        """Draw ``n`` sentences, 0 for all; a shard that cannot be opened is named and left out."""
        sizes = [entry.n_sentences for entry in store.manifest.shards]
        damage: list[DamagedStoreError] = []
        open_rows = []
        for shard, size in enumerate(sizes):
            try:
                store.passing(shard)
                open_rows.append(np.arange(size))
            except DamagedStoreError as error:
                damage.append(error)
                open_rows.append(np.zeros(0, np.int64))
        if damage:
            rows = _drawn(open_rows, n, seed)
        else:
            rows = list(select(store, sample=n or None, seed=seed).rows)
        return cls(store, Selection(tuple(rows)), damage)

    @property
    def n_sentences(self) -> int:
        """How many sentences were drawn, those left out included."""
        return self.selection.n_sentences

    def __iter__(self) -> Iterator[Drawn]:
        return self.read()

    def read(self, progress: Callable[[int], object] | None = None) -> Iterator[Drawn]:
        """Yield the sentences in stored order, without those that are damaged."""
        store = self.store
        for shard, rows in enumerate(self.selection.rows):
            if not len(rows):
                continue
            reader = store.passing(shard)
            for row in rows.tolist():
                if progress is not None:
                    progress(1)
                if (shard, row) in self._bad:
                    continue
                try:
                    tokens, vectors = reader.tokens(row), reader.read(row)
                except DamagedStoreError as error:
                    self._bad.add((shard, row))
                    self.damage.append(error)
                    continue
                yield Drawn(
                    tokens,
                    reader.key(row),
                    shard,
                    row,
                    vectors.reshape(len(tokens), store.n_layers, store.dim),
                )


def _drawn(rows: list[NDArray[np.int64]], n: int, seed: int) -> list[NDArray[np.int64]]:
    """Return ``n`` of the rows of all shards together, 0 for all."""
    total = sum(map(len, rows))
    if not n or n >= total:
        return rows
    ends = np.cumsum([len(some) for some in rows])
    drawn = np.sort(np.random.default_rng(seed).choice(total, n, replace=False))
    pieces = np.split(drawn, np.searchsorted(drawn, ends[:-1]))
    return [
        some[piece - (end - len(some))] for some, piece, end in zip(rows, pieces, ends.tolist(), strict=True)
    ]
