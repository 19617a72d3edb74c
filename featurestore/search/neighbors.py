"""The tokens whose vectors are nearest to a given one: exact, every token of the store compared."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from featurestore.errors import UsageError
from featurestore.keys import Sentence
from featurestore.search.scanning import Block, as_query, products
from featurestore.store.format.reader import ShardReader
from featurestore.store.maintenance.selection import Selection
from featurestore.store.store import Store

Metric = Literal["cosine", "l2"]

_SPARE = 16
"""Candidates kept beyond those asked for: computed again in float64, some of them may change places."""


@dataclass(frozen=True)
class Neighbor:
    """A token of the store that is near the query.

    Attributes
    ----------
    score : float
        Its cosine with the query, or its Euclidean distance; computed in float64 from checked bytes.
    tokens : tuple of str
        Its sentence.
    position : int
        In the sentence, from 0.
    key : bytes
        Of the sentence, 16 bytes.
    shard, row : int
        Where the sentence lies.
    """

    score: float
    tokens: Sentence
    position: int
    key: bytes
    shard: int
    row: int

    @property
    def token(self) -> str:
        """The token itself."""
        return self.tokens[self.position]


def find_neighbors(
    store: Store,
    vector: NDArray[np.floating],
    k: int = 10,
    *,
    metric: Metric = "cosine",
    layer: int | None = None,
    exclude_words: Collection[str] = (),
    exclude_token: tuple[bytes, int] | None = None,
    selection: Selection | None = None,
    progress: Callable[[int], object] | None = None,
) -> list[Neighbor]:
    """Compare a vector with every token of a store and return the nearest.

    One pass over the stored bytes, by as many threads as there are processors; memory does not grow with
    the store. What is returned is computed again, in float64, from sentences whose checksums were compared;
    those of the others are not (``featurestore verify`` does that), so damage can hide a neighbour but not
    invent one.

    Parameters
    ----------
    store : Store
    vector : (dim,) or (n_layers, dim) float
        Of one layer where ``layer`` says which, else of all that are kept apart.
    k : int
        Neighbours to return.
    metric : {"cosine", "l2"}
        Cosine of the angle (larger is nearer), or Euclidean distance (smaller is nearer).
    layer : int, optional
        Compare this layer only; by default the whole vector of a token, all layers end to end.
    exclude_words : collection of str
        Tokens equal to one of these are left out, upper and lower case being one.
    exclude_token : (bytes, int), optional
        Key and position of a token to leave out: the one that was asked for.
    selection : Selection, optional
        Sentences to look at; by default all.
    progress : callable, optional
        Called with the number of tokens compared since the last call.

    Returns
    -------
    list of Neighbor
        The nearest first; equal ones in stored order. Fewer than ``k`` if there are no more.

    Raises
    ------
    UsageError
        If the metric is unknown, ``k`` is below 1, there is no such layer, or the vector has another shape,
        is zero or not finite.
    DamagedStoreError
        If a shard or a sentence that is returned is not what was committed.
    """
    if metric not in get_args(Metric):
        raise UsageError(f"unknown metric {metric!r}: expected cosine or l2")
    if k < 1:
        raise UsageError(f"k is {k}: expected 1 or more")
    query = as_query(store, vector, layer)
    best = _Best(store, query, metric, k + _SPARE, {word.casefold() for word in exclude_words}, exclude_token)
    for block in products(store, query, layer=layer, selection=selection, progress=progress):
        best.add(block)
    return best.checked(layer)[:k]


class _Best:
    """The nearest tokens so far, as the scan's float32 products order them."""

    def __init__(
        self,
        store: Store,
        query: NDArray[np.float32],
        metric: Metric,
        n: int,
        words: set[str],
        exclude_token: tuple[bytes, int] | None,
    ) -> None:
        self._store, self._query, self._metric, self._n = store, query, metric, n
        self._words, self._excluded = words, exclude_token
        self._square = np.float32(np.square(query, dtype=np.float64).sum())
        # Closeness (larger is nearer), shard, token; sorted, the nearest first.
        self._found: list[tuple[float, int, int]] = []

    def add(self, block: Block) -> None:
        """Take the tokens of a block that are nearer than the last of those kept."""
        closeness: NDArray[np.floating]
        if self._metric == "cosine":
            with np.errstate(divide="ignore", invalid="ignore"):
                closeness = np.nan_to_num(block.dots / np.sqrt(block.squares), nan=-np.inf, posinf=-np.inf)
        else:
            closeness = 2 * block.dots - block.squares
        least = self._found[-1][0] if len(self._found) == self._n else -np.inf
        candidates = np.flatnonzero(closeness > least)
        if not len(candidates):
            return
        candidates = candidates[np.argsort(-closeness[candidates], kind="stable")]
        taken: list[tuple[float, int, int]] = []
        for at in candidates.tolist():
            token = int(block.tokens[at])
            if not self._is_excluded(block.reader, token):
                taken.append((float(closeness[at]), block.shard, token))
                if len(taken) == self._n:
                    break
        self._found = sorted(self._found + taken, key=lambda entry: (-entry[0], *entry[1:]))[: self._n]

    def _is_excluded(self, reader: ShardReader, token: int) -> bool:
        if not self._words and self._excluded is None:
            return False
        row = int(np.searchsorted(reader.offsets, token, side="right")) - 1
        position = token - reader.bounds[row]
        if self._excluded is not None and self._excluded == (reader.key(row), position):
            return True
        return bool(self._words) and reader.token(token).casefold() in self._words

    def checked(self, layer: int | None) -> list[Neighbor]:
        """Return what was found, computed again from checked bytes, the nearest first."""
        query = self._query.reshape(-1).astype(np.float64)
        found = []
        for _, shard, token in self._found:
            reader = self._store.passing(shard)
            row = int(np.searchsorted(reader.offsets, token, side="right")) - 1
            position = token - reader.bounds[row]
            vector = reader.read(row)[position]
            flat = (
                (vector if layer is None or vector.ndim == 1 else vector[layer])
                .reshape(-1)
                .astype(np.float64)
            )
            if self._metric == "cosine":
                score = float(flat @ query / np.sqrt((flat @ flat) * (query @ query)))
            else:
                score = float(np.sqrt(np.square(flat - query).sum()))
            found.append(Neighbor(score, reader.tokens(row), position, reader.key(row), shard, row))
        sign = -1 if self._metric == "cosine" else 1
        return sorted(found, key=lambda one: (sign * one.score, one.shard, one.row, one.position))
