"""A store in memory as a whole, for what wants arrays: NumPy, torch and Arrow."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from featurestore.errors import UsageError
from featurestore.exchange.columns import as_table
from featurestore.exchange.pooling import all_or_some
from featurestore.exchange.sentences import DTYPES, Exported
from featurestore.store.store import Store

if TYPE_CHECKING:
    import pyarrow as pa


class InMemory(NamedTuple):
    """Vectors end to end: sentence ``i`` is rows ``offsets[i]`` to ``offsets[i + 1]``.

    Attributes
    ----------
    vectors : (n_tokens, dim) or (n_tokens, n_layers, dim) float16 or float32, NumPy or torch
    offsets : (n_sentences + 1,) int64, NumPy or torch
    sentences : list of tuple of str
    """

    vectors: Any
    offsets: Any
    sentences: list[tuple[str, ...]]


def to_numpy(
    store: Store, sentences: Iterable[Sequence[str]] | None = None, *, dtype: str | None = None
) -> InMemory:
    """Return vectors end to end, of all sentences in stored order, or of some in theirs.

    Parameters
    ----------
    store : Store
    sentences : iterable of sequences of str, optional
    dtype : {"float16", "float32"}, optional
        By default float16 where they are stored so, else float32.

    Raises
    ------
    MissingSentencesError
        If a sentence is not stored.
    UsageError
        If there is no such type.
    """
    if dtype is not None and dtype not in DTYPES:
        raise UsageError(f"dtype {dtype!r}: expected {' or '.join(DTYPES)}")
    wanted = None if sentences is None else [t if isinstance(t, tuple) else tuple(t) for t in sentences]
    n_tokens = store.n_tokens if wanted is None else sum(map(len, wanted))
    value_type = np.dtype(dtype or ("float16" if store.manifest.codec == "float16" else "float32"))
    vectors = np.empty((n_tokens, *store.token_shape), value_type)
    listed, bounds = list[tuple[str, ...]](), [0]
    for tokens, read in all_or_some(store, wanted):
        bounds.append(bounds[-1] + len(tokens))
        vectors[bounds[-2] : bounds[-1]] = read
        listed.append(tuple(tokens))
    return InMemory(vectors, np.array(bounds, np.int64), listed)


def to_torch(
    store: Store, sentences: Iterable[Sequence[str]] | None = None, *, dtype: str | None = None
) -> InMemory:
    """Return :func:`to_numpy` as tensors that share its memory; arguments and errors are the same."""
    import torch

    found = to_numpy(store, sentences, dtype=dtype)
    return InMemory(torch.from_numpy(found.vectors), torch.from_numpy(found.offsets), found.sentences)


def to_arrow(store: Store, *, dtype: str | None = None, rows: str = "sentence") -> pa.Table:
    """Return a table with a row a sentence or a token, as ``export --to parquet`` writes it.

    Parameters
    ----------
    store : Store
    dtype : {"float16", "float32"}, optional
        By default float16 where they are stored so, else float32.
    rows : {"sentence", "token"}

    Raises
    ------
    UsageError
        If pyarrow is missing, or there are no such rows.
    """
    if rows not in ("sentence", "token"):
        raise UsageError(f"rows={rows!r}: expected sentence or token")
    return as_table(Exported(store, dtype=dtype), "token" if rows == "token" else "sentence")
