"""Selecting sentences of a store: by key, by text, by drawing some."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featurestore.errors import UsageError
from featurestore.store.store import Store

_STEP = 4096
"""Keys looked up at a time."""


@dataclass(frozen=True)
class Selection:
    """Sentences of a store, in stored order.

    Attributes
    ----------
    rows : tuple of (n,) int64 arrays
        Of each shard, the rows of its sentences that are selected, ascending.
    n_missing : int
        Keys asked for that the store does not hold, each counted once.
    n_besides : int
        Sentences with a key asked for that are left out nevertheless, because of ``besides``.
    """

    rows: tuple[NDArray[np.int64], ...]
    n_missing: int = 0
    n_besides: int = 0

    @property
    def n_sentences(self) -> int:
        """How many are selected."""
        return sum(map(len, self.rows))

    def n_tokens(self, store: Store) -> int:
        """Return the tokens of the selected sentences."""
        n_tokens = 0
        for shard, rows in enumerate(self.rows):
            if len(rows):
                n_tokens += int(np.diff(store.passing(shard).offsets.astype(np.int64))[rows].sum())
        return n_tokens


def select(
    store: Store,
    *,
    keys: Iterable[bytes] | None = None,
    besides: Iterable[bytes] = (),
    text: str | None = None,
    sample: int | None = None,
    seed: int = 0,
) -> Selection:
    """Select the sentences that fulfil all conditions.

    Parameters
    ----------
    store : Store
    keys : iterable of bytes, optional
        The sentences with these keys, 16 bytes each; a key may come more than once.
    besides : iterable of bytes
        Not those with these keys.
    text : str, optional
        A regular expression that the tokens, joined by spaces, contain.
    sample : int, optional
        So many of them, drawn at random without repetition; all if there are no more.
    seed : int
        Of the draw: the same seed draws the same sentences of the same snapshot.

    Raises
    ------
    UsageError
        If the expression is none, or a number too small.
    DamagedStoreError
        If a shard cannot be opened.
    """
    sizes = store.manifest.shards.sizes.tolist()
    pattern = None if text is None else _pattern(text)
    for name, number in (("sample", sample), ("seed", seed)):
        if number is not None and number < 0:
            raise UsageError(f"{name} is {number}: expected 0 or more")
    if keys is None:
        selected, n_missing = [np.ones(size, bool) for size in sizes], 0
    else:
        selected, n_missing = _found(store, keys, sizes)
    n_besides = 0
    for chosen, left_out in zip(selected, _found(store, besides, sizes)[0], strict=True):
        n_besides += int((chosen & left_out).sum())
        chosen &= ~left_out
    rows = [np.flatnonzero(chosen) for chosen in selected]
    if pattern is not None:
        rows = [_matching(store, shard, rows[shard], pattern) for shard in range(len(sizes))]
    if sample is not None:
        rows = _drawn(rows, sample, seed)
    return Selection(tuple(rows), n_missing, n_besides)


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise UsageError(
            f"{text!r} is no regular expression: {error}; a backslash before a character matches that "
            "character itself"
        ) from error


def _found(store: Store, keys: Iterable[bytes], sizes: list[int]) -> tuple[list[NDArray[np.bool_]], int]:
    """Return which sentences of each shard have one of these keys, and how many keys no sentence has."""
    found = [np.zeros(size, bool) for size in sizes]
    missing: set[bytes] = set()
    for step in _steps(iter(keys)):
        places = store.locate(step)
        for shard in np.unique(places.shard[places.found]).tolist():
            found[shard][places.row[places.shard == shard]] = True
        missing.update(step[i] for i in np.flatnonzero(~places.found).tolist())
    return found, len(missing)


def _steps(keys: Iterator[bytes]) -> Iterator[list[bytes]]:
    while step := list(itertools.islice(keys, _STEP)):
        yield step


def _matching(
    store: Store, shard: int, rows: NDArray[np.int64], pattern: re.Pattern[str]
) -> NDArray[np.int64]:
    reader = store.passing(shard)
    return np.array([row for row in rows.tolist() if pattern.search(" ".join(reader.tokens(row)))], np.int64)


def _drawn(rows: list[NDArray[np.int64]], n: int, seed: int) -> list[NDArray[np.int64]]:
    """Return ``n`` of the rows of all shards together."""
    ends = np.cumsum([len(some) for some in rows], dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    if n >= total:
        return rows
    drawn = np.sort(np.random.default_rng(seed).choice(total, n, replace=False))
    starts = ends - [len(some) for some in rows]
    bounds = np.searchsorted(drawn, [*starts, total])
    return [
        some[drawn[a:b] - start] for some, start, a, b in zip(rows, starts, bounds, bounds[1:], strict=False)
    ]
