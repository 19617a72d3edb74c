"""One query against every token of a store, in one pass over the stored bytes, by several threads."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featurestore.errors import UsageError
from featurestore.search.compiled import scan
from featurestore.store.format.reader import ShardReader
from featurestore.store.maintenance.selection import Selection
from featurestore.store.store import Store

BLOCK_TOKENS = 1 << 14
"""Tokens whose products are computed at a time by a thread."""


@dataclass(frozen=True)
class Block:
    """Products of a query with some tokens of a shard.

    Attributes
    ----------
    shard : int
        Its number in the manifest.
    reader : ShardReader
        Of the shard.
    tokens : (n,) int64
        Their numbers in the shard.
    dots, squares : (n,) float32
        Dot products of each token's vector with the query, and with itself.
    """

    shard: int
    reader: ShardReader
    tokens: NDArray[np.int64]
    dots: NDArray[np.float32]
    squares: NDArray[np.float32]


def as_query(store: Store, vector: NDArray[np.floating], layer: int | None) -> NDArray[np.float32]:
    """Return a vector as the rows of a store are compared with it, (n_layers, dim) float32.

    Parameters
    ----------
    store : Store
    vector : (dim,) or (n_layers, dim) float
        Of one layer where ``layer`` says which, else of all that are kept apart.
    layer : int, optional

    Raises
    ------
    UsageError
        If there is no such layer, the vector has another shape, or is zero or not finite.
    """
    if layer is not None and not 0 <= layer < store.n_layers:
        raise UsageError(
            f"layer {layer}: the vectors of {store.path} have "
            + (f"the layers 0 to {store.n_layers - 1}" if store.n_layers > 1 else "one layer, 0")
        )
    expected = (store.dim,) if layer is not None else store.token_shape
    if vector.shape != expected:
        raise UsageError(f"the query has the shape {vector.shape}, expected {expected}")
    query = np.ascontiguousarray(vector, np.float32).reshape(-1, store.dim)
    if not np.isfinite(query).all() or not query.any():
        raise UsageError("the query is zero or not finite: it has no neighbours")
    return query


def products(
    store: Store,
    query: NDArray[np.float32],
    *,
    layer: int | None = None,
    selection: Selection | None = None,
    progress: Callable[[int], object] | None = None,
) -> Iterator[Block]:
    """Multiply a query with every token, as stored.

    Parameters
    ----------
    store : Store
    query : (n_layers, dim) float32
        See :func:`as_query`.
    layer : int, optional
        Multiply this layer of the store only; by default the products of all layers are added up.
    selection : Selection, optional
        Sentences whose tokens are multiplied; by default all.
    progress : callable, optional
        Called with the number of tokens multiplied since the last call.

    Yields
    ------
    Block
        In stored order. The checksums of what was read are not compared.
    """
    n_threads = len(os.sched_getaffinity(0))
    # A few blocks more than there are threads, so that none waits and memory does not grow with the shard.
    ahead, waiting = 3 * n_threads, deque[Future[Block]]()

    def told(block: Block) -> Block:
        if progress is not None:
            progress(len(block.tokens))
        return block

    with ThreadPoolExecutor(n_threads, thread_name_prefix="featurestore-scan") as threads:
        for shard in range(len(store.manifest.shards)):
            reader = store.passing(shard)
            rows = None if selection is None else selection.rows[shard]
            for span in _spans(reader, rows):
                waiting.append(threads.submit(_block, reader, shard, query, layer, span))
                if len(waiting) > ahead:
                    yield told(waiting.popleft().result())
        while waiting:
            yield told(waiting.popleft().result())


def _spans(reader: ShardReader, rows: NDArray[np.int64] | None) -> Iterator[tuple[int, int]]:
    """Yield first and last token, exclusive, of runs of tokens, :data:`BLOCK_TOKENS` at most."""
    if rows is None:
        runs = [(0, reader.entry.n_tokens)]
    else:
        # Sentences that follow each other are one run.
        breaks = np.flatnonzero(np.diff(rows) != 1) + 1
        runs = [
            (reader.bounds[run[0]], reader.bounds[run[-1] + 1]) for run in np.split(rows, breaks) if len(run)
        ]
    for first, last in runs:
        for start in range(first, last, BLOCK_TOKENS):
            yield start, min(start + BLOCK_TOKENS, last)


def _block(
    reader: ShardReader, shard: int, query: NDArray[np.float32], layer: int | None, span: tuple[int, int]
) -> Block:
    first, last = span
    n = last - first
    stored, stored_scales = reader.span(first, last)
    values = stored.reshape(n, -1, query.shape[1])
    n_layers = values.shape[1]
    layers = range(n_layers) if layer is None else [layer]
    dots, squares = np.zeros(n, np.float32), np.zeros(n, np.float32)
    if stored_scales is None and layer is None:
        scan(values.reshape(n, -1), None, query.reshape(-1), dots, squares)
        return Block(shard, reader, np.arange(first, last), dots, squares)
    some, more = np.empty(n, np.float32), np.empty(n, np.float32)
    for number, at in enumerate(layers):
        norms = None if reader.norms is None else reader.norms.reshape(n_layers, -1)[at]
        scan(values[:, at], norms, query[number], some, more)
        if stored_scales is not None:
            scales = stored_scales.reshape(n, n_layers)[:, at].astype(np.float32)
            some *= scales
            more *= scales
            more *= scales
        dots += some
        squares += more
    return Block(shard, reader, np.arange(first, last), dots, squares)
