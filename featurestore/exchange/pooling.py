"""One vector a sentence: the mean, sum, largest value or first of its tokens' vectors, read as a stream."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.errors import UsageError
from featurestore.store.store import Store

HOW: dict[str, Callable[[NDArray[np.floating]], NDArray[np.floating]]] = {
    # Never added up in half precision, nor in float32, which loses the small ones of long sentences.
    "mean": lambda vectors: vectors.mean(axis=0, dtype=np.float64),
    "sum": lambda vectors: vectors.sum(axis=0, dtype=np.float64),
    "max": lambda vectors: vectors.max(axis=0),
    "first": lambda vectors: vectors[0],
}
"""Ways to make one vector of (n_tokens, ...), by name."""

Mask = Callable[[Sequence[str]], Any] | Iterable[Any] | None

_STEP = 1024
"""Sentences looked up at a time."""


def pooled(
    store: Store, how: str = "mean", *, mask: Mask = None, sentences: Iterable[Sequence[str]] | None = None
) -> NDArray[np.float32]:
    """Return one vector a sentence; see :meth:`featurestore.Store.pooled`.

    In memory are the result and some sentences.
    """
    if how not in HOW:
        raise UsageError(f"how={how!r}: expected {', '.join(HOW)}")
    combine, blocks = HOW[how], list[NDArray[np.float32]]()
    given = None if mask is None or callable(mask) else iter(mask)
    read = all_or_some(store, sentences)
    while step := list(itertools.islice(read, _STEP)):
        block = np.empty((len(step), *store.token_shape), np.float32)
        for row, (tokens, vectors) in enumerate(step):
            if callable(mask):
                vectors = vectors[_checked(mask(tokens), tokens)]
            elif given is not None:
                vectors = vectors[_checked(next(given, None), tokens)]
            block[row] = combine(vectors)
        blocks.append(block)
    if given is not None and next(given, None) is not None:
        raise UsageError(f"the mask is of more sentences than the {sum(map(len, blocks)):,} pooled")
    return np.concatenate(blocks) if blocks else np.empty((0, *store.token_shape), np.float32)


def all_or_some(
    store: Store, sentences: Iterable[Sequence[str]] | None
) -> Iterator[tuple[Sequence[str], NDArray[np.float32]]]:
    """Yield sentences of a store with their vectors: all in stored order, or some in theirs.

    Raises
    ------
    MissingSentencesError
        If one is not stored.
    """
    if sentences is None:
        yield from store
        return
    wanted = iter(sentences)
    while step := list(itertools.islice(wanted, _STEP)):
        yield from zip(step, store.get_many(step), strict=True)


def _checked(mask: Any, tokens: Sequence[str]) -> NDArray[np.bool_]:
    shown = " ".join(tokens[:8])
    if mask is None:
        raise UsageError(f"the mask has no array for {shown!r}")
    kept = np.asarray(mask)
    if kept.dtype != bool or kept.shape != (len(tokens),):
        raise UsageError(
            f"the mask of {shown!r} is {kept.dtype} {kept.shape}, expected bool ({len(tokens)},): "
            "one value a token"
        )
    if not kept.any():
        raise UsageError(f"the mask leaves no token of {shown!r}: leave the sentence out, or keep one")
    return kept
